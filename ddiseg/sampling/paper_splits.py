"""Splits of the FEDD paper, by the file names of DDI."""

from __future__ import annotations

from collections.abc import Sequence

from ddiseg.catalogue import Catalogue
from ddiseg.errors import InputError
from ddiseg.sampling.subsets import RESERVED, SubsetDraw, listed
from fedd.paper import splits

#: Name of all presets at once.
ALL = RESERVED


def preset_names() -> list[str]:
    """Return the names of the paper's subsets."""
    return list(splits()["subsets"])


def draw_presets(
    catalogue: Catalogue, names: Sequence[str], actor: str, *, partial: bool = False
) -> SubsetDraw:
    """Store the paper's own splits, matched by the file names of DDI.

    Raises:
        InputError: some of their images are not in the catalogue and `partial` is not given, or
            a file name belongs to several images.
    """
    presets = splits()
    by_stem = catalogue.images.by_stem()
    members: dict[str, list[int]] = {}
    notes, missing = [], []
    for name in names:
        wanted = presets["subsets"][name]
        doubled = [stem for stem in wanted if len(by_stem.get(stem, ())) > 1]
        if doubled:
            raise InputError(
                f"{name}: several images are called {listed(doubled)}, so it is not known which are "
                "DDI's: draw the presets in a workspace with DDI alone"
            )
        absent = [stem for stem in wanted if stem not in by_stem]
        if absent:
            missing.append(f"{name}: {len(absent)} of {len(wanted)} missing ({listed(absent)})")
        found = [image_id for stem in wanted for image_id in by_stem.get(stem, ())]
        members[name] = list(dict.fromkeys(found))
        if len(members[name]) < len(found):
            notes.append(
                f"{name}: {len(found) - len(members[name])} files show the same as another"
            )
    if missing and not partial:
        raise InputError(
            "; ".join(missing)
            + ": import all of DDI first, or draw the images that are imported with --partial"
        )
    empty = [name for name, image_ids in members.items() if not image_ids]
    if empty:
        raise InputError(f"none of the images of {listed(empty)} is in the catalogue: import DDI")
    drawn_by = {"preset": ALL, "source": presets["source"], "lacking": missing}
    added = catalogue.subsets.store(members, drawn_by, actor)
    if f"{ALL}-test" in names:
        notes += _other_tones(catalogue, by_stem)
    return SubsetDraw.read(catalogue, list(names), added, notes, missing)


def _other_tones(catalogue: Catalogue, by_stem: dict[str, set[int]]) -> list[str]:
    """Return a note on test images whose tone in the paper differs from that in the catalogue."""
    tone_of = {image.id: image.tone for image in catalogue.images.select()}
    other = [
        stem
        for tone, stems in splits()["test_tones"].items()
        for stem in stems
        if any(tone_of[image_id] != tone for image_id in by_stem.get(stem, ()))
    ]
    if not other:
        return []
    return [f"{len(other)} test images have another tone here than in the paper ({listed(other)})"]
