"""Import masks that are regions with labels, from one file of another tool.

A format is a function like `ddiseg.ingest.coco_masks.read_masks`, found by its name through the
entry points `ddiseg.labelled_mask_formats`: (Path, Labels) -> LabelledMasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from annotation_protocol import UNLABELLED, Protocol
from ddiseg import formats
from ddiseg.errors import FileError, InputError
from ddiseg.ingest.mask_files import (
    MaskFile,
    MaskImport,
    check_people,
    submit_files,
)
from ddiseg.ingest.mask_targets import find_targets
from ddiseg.ingest.metadata import split_option
from ddiseg.ingest.placement import AS_THEY_ARE, Geometry, refuse_too_large
from ddiseg.masks import IGNORED, Composition, Layer, Mask, Origin, compose
from ddiseg.masks.stacking import Hidden, Stack, StackedRegion, stack
from ddiseg.outcomes import FileOutcome, Note, Progress, counted, silent
from ddiseg.workspace.workspace import Workspace

#: What `--classes` calls the pixels that no region covers.
_REST = "rest"


#: What is told of a region that is empty.
NO_PIXELS = "covers no pixel: left out"


@dataclass(frozen=True)
class Labels:
    """Classes by label. Case and space around a label do not matter.

    A label that `given` does not name means the class of the same name. UNLABELLED as a class leaves
    the pixels of a label, or the rest, without one.
    """

    protocol: Protocol
    given: Mapping[str, int] = field(default_factory=dict)  #: class id by label, in lower case
    rest: int | None = None  #: class of the pixels in no region; None: the protocol's hole fill

    @classmethod
    def parse(cls, text: str | None, rest: str | None, protocol: Protocol) -> Labels:
        """Parse "nevus=lesion,pen=marker,rest=skin"; a label with a comma goes in quotes.

        Args:
            text: comma-separated LABEL=CLASS, or None; "rest" is the pixels that no region covers.
            rest: name of the class of the pixels that no region covers, or None.

        Raises:
            InputError: a part that is not LABEL=CLASS, a label that occurs twice, no such class.
        """
        given: dict[str, int] = {}
        for part in split_option("--classes", text or ""):
            label, equals, name = part.rpartition("=")
            key = _plain(label)
            if not equals or not key:
                raise InputError(
                    f"--classes: '{part.strip()}' is not LABEL=CLASS; write for example "
                    "nevus=lesion,pen=marker"
                )
            if key in given:
                raise InputError(f"--classes: '{label.strip()}' occurs twice: keep one of them")
            given[key] = _class_id("--classes", name, protocol)
        rest_id = given.get(_REST)
        if rest is not None:
            if rest_id is not None:
                raise InputError("--rest and --classes rest=CLASS say the same: give one of them")
            rest_id = _class_id("--rest", rest, protocol)
        return cls(protocol, given, rest_id)

    @property
    def rest_id(self) -> int:
        """Class id of the pixels that no region covers."""
        if self.rest is not None:
            return self.rest
        return self.protocol.class_named(self.protocol.hole_fill).index

    def class_id(self, label: str) -> int:
        """Return the class of a label; raises InputError where it is unknown."""
        found = self._find(label)
        if found is None:
            raise InputError(self._unknown([label]))
        return found

    def name(self, class_id: int) -> str:
        """Return the name of a class, or of the pixels that are left unlabelled."""
        return IGNORED[0] if class_id == UNLABELLED else self.protocol.class_names[class_id]

    def check(self, labels: Iterable[str]) -> None:
        """Raise InputError that lists the labels whose class is unknown, and what to type."""
        unknown = sorted({label for label in labels if self._find(label) is None})
        if unknown:
            raise InputError(self._unknown(unknown))

    def known(self, labels: Iterable[str]) -> set[int]:
        """Return the classes of those labels that have one."""
        return {index for label in labels if (index := self._find(label)) is not None}

    def _find(self, label: str) -> int | None:
        key = _plain(label)
        same = {_plain(c.name): c.index for c in self.protocol.classes}
        return self.given.get(key, same.get(key))

    def _unknown(self, labels: list[str]) -> str:
        # An example that can be pasted into a shell, whatever the labels are called.
        quoted = [f'"{label}"' if "," in label else label for label in labels]
        example = ",".join(f"{label}=lesion" for label in quoted)
        return (
            f"labels whose class is not known: {', '.join(quoted)}; give each a class with "
            f"--classes '{example}'; the classes are {', '.join(self.protocol.class_names)}"
        )


@dataclass(frozen=True)
class LabelledMasks:
    """The masks of a file."""

    files: Sequence[MaskFile]  #: their values are class ids
    refused: Sequence[FileOutcome] = ()  #: entries that give no mask
    notes: Sequence[str] = ()  #: what was left out, and why


def import_labelled_masks(
    workspace: Workspace,
    path: Path,
    *,
    format_name: str,
    labels: Labels,
    annotator: str | None = None,
    reviewer: str | None = None,
    geometry: Geometry = AS_THEY_ARE,
    dataset: str | None = None,
    subset: str | None = None,
    suffixes: Sequence[str] = (),
    progress: Progress = silent,
) -> MaskImport:
    """Import the masks of a file, matched to catalogued images by file name without ending.

    Args:
        labels: the classes of the labels in it.
        annotator: who drew all of it; None: the file names someone for each mask.
        reviewer: a second person; the masks then arrive accepted.
        geometry, dataset, subset: as in `ddiseg.ingest.mask_files.import_masks`.

    Raises:
        InputError: a file that can't be read or has no masks, labels whose class is unknown, no one
            who drew, or no mask of the subset.
        NotFoundError: no such dataset or subset.
        WorkspaceError: the store or catalogue can't be written; what was finished is kept.
    """
    annotator, reviewer = check_people(annotator, reviewer)
    read = formats.load_format(formats.LABELLED_MASKS, format_name)
    workspace.catalogue.sources.check_dataset(dataset)
    found: LabelledMasks = read(path, labels)
    files = list(found.files)
    targets = find_targets(workspace, files, suffixes, dataset)
    if not files and not found.refused:
        raise InputError("; ".join([f"{path} has no masks", *found.notes]))
    if subset is not None:
        files = targets.inside(workspace, subset)
    if files and annotator is None and not any(file.annotator for file in files):
        raise InputError(f"{path} does not say who drew its masks: give --annotator NAME")
    outcomes = submit_files(
        workspace,
        files,
        targets.of,
        annotator=annotator,
        reviewer=reviewer,
        geometry=geometry,
        progress=progress,
    )
    return MaskImport([*found.refused, *outcomes], list(found.notes))


def compose_labelled(
    layers: Iterable[Layer], size: tuple[int, int], base: Mask | None, labels: Labels
) -> tuple[Mask, list[Note]]:
    """Compose layers into one mask, (height, width), with notes on what had to be decided.

    Layers of one class that people drew are united on the way, so that a picture with hundreds of
    them needs no more memory than one with a few.

    Args:
        base: the prediction that the layers came with, see `ddiseg.masks.compose`.
        labels: give the class of the pixels that no layer covers.

    Raises:
        FileError: a class that people drew would have no pixel in the mask; names the regions.
        InputError: more pixels than any mask has, a layer of another size, or none with pixels.
    """
    refuse_too_large(size)
    predicted: list[Layer] = []
    manual: dict[int, Layer] = {}
    largest: dict[int, tuple[int, str]] = {}  # pixels and name of the largest region by class
    empty: list[str] = []
    ignored = np.zeros(size, dtype=np.bool_)
    uncovered = np.ones(size, dtype=np.bool_)
    for layer in layers:
        pixels = int(np.count_nonzero(layer.region))
        if not pixels:
            empty.append(f"{layer.name} ({labels.name(layer.class_id)})")
        uncovered &= ~layer.region
        if layer.class_id == UNLABELLED or layer.origin is Origin.MANUAL:
            known = largest.get(layer.class_id, (0, ""))
            largest[layer.class_id] = max((pixels, layer.name), known)
        if layer.class_id == UNLABELLED:
            ignored |= layer.region
        elif layer.origin is not Origin.MANUAL:
            predicted.append(layer)
        elif layer.class_id in manual:
            np.logical_or(
                manual[layer.class_id].region, layer.region, out=manual[layer.class_id].region
            )
        else:
            manual[layer.class_id] = layer
    if empty and not (ignored.any() or any(x.region.any() for x in (*predicted, *manual.values()))):
        raise InputError(f"no region of it covers a pixel: {', '.join(empty)}; draw it again")
    drawn = list(predicted)
    if labels.rest_id == UNLABELLED:
        ignored |= uncovered
    else:
        drawn.insert(0, Layer(labels.rest_id, np.ones(size, dtype=np.bool_), Origin.PREDICTION))
    found: Composition = compose([*drawn, *manual.values()], size, base, labels.protocol)
    found.mask[ignored] = UNLABELLED
    if hidden := _hidden(found.mask, manual, largest):
        raise _class_lost(hidden, labels)
    notes = [Note(f"{', '.join(empty)}: {NO_PIXELS}", NO_PIXELS)] if empty else []
    if found.conflicts:
        kind = "pixels drawn as two classes: the protocol's precedence decided"
        total = counted(found.conflicts, "pixel")
        notes.append(Note(f"{total}{kind.removeprefix('pixels')}", kind))
    covered = {layer.class_id for layer in predicted if layer.region.any()} - _shown(found.mask)
    notes += [
        Note(f"{labels.name(index)}, which the prediction had, lies wholly under other regions")
        for index in sorted(covered)
    ]
    return found.mask, notes


def _shown(mask: Mask) -> set[int]:
    """Return the classes in a mask."""
    return set(np.flatnonzero(np.bincount(mask.ravel())).tolist())


def _hidden(
    mask: Mask, manual: Mapping[int, Layer], largest: Mapping[int, tuple[int, str]]
) -> list[Hidden]:
    """Return the classes that people drew and no pixel of the mask has, and what hides each."""
    hidden = []
    for index in sorted({i for i, layer in manual.items() if layer.region.any()} - _shown(mask)):
        over = int(np.bincount(mask[manual[index].region]).argmax())
        (pixels, name), (over_pixels, over_name) = largest[index], largest[over]
        hidden.append(Hidden(index, name, pixels, over_name, over, over_pixels))
    return hidden


def stack_labelled(
    regions: Iterable[StackedRegion], size: tuple[int, int], labels: Labels
) -> tuple[Mask | None, list[Note]]:
    """Compose regions without an order into one mask, (height, width), with notes on the overlaps.

    Returns:
        The mask, None where there is no region; and the notes.

    Raises:
        FileError: a class that has pixels in the file would have none in the mask; names the regions.
        InputError: what reading a region raises.
    """
    found = stack(regions, size, labels.rest_id, labels.protocol)
    if found.hidden:
        raise _class_lost(found.hidden, labels)
    notes = [Note(f"{', '.join(found.empty)}: {NO_PIXELS}", NO_PIXELS)] if found.empty else []
    return found.mask if found.regions else None, notes + _overlap_notes(found, labels)


def _class_lost(hidden: Sequence[Hidden], labels: Labels) -> FileError:
    advice = (
        "take the one out of the other, or use masks (RLE, brush), in which a pixel has one class"
    )
    lost = "; ".join(
        f"{labels.name(h.class_id)} would vanish: {h.region} ({labels.name(h.class_id)}, "
        f"{counted(h.pixels, 'pixel')}) lies wholly under others, most of it under {h.over} "
        f"({labels.name(h.over_class_id)}, {counted(h.over_pixels, 'pixel')})"
        for h in hidden
    )
    classes = " and ".join(labels.name(h.class_id) for h in hidden)
    return FileError(f"{lost}: {advice}", f"{classes} would vanish under other regions: {advice}")


def _overlap_notes(found: Stack, labels: Labels) -> list[Note]:
    notes = []
    if found.overlaps:
        kind = "pixels drawn as two classes: the smaller region lies on top"
        pairs = ", ".join(
            f"{labels.name(top)} on {labels.name(below)} {pixels:,}"
            for (top, below), pixels in found.overlaps.most_common()
        )
        notes.append(Note(f"{kind} ({pairs})", kind))
    for (top, below), pixels in found.enclosed.items():
        kind = (
            f"{labels.name(below)} covers the whole of a {labels.name(top)} region, as an outline that lost its "
            "hole does: use masks (RLE, brush), which keep holes"
        )
        notes.append(Note(f"{kind} ({counted(pixels, 'pixel')})", kind))
    return notes


def _class_id(option: str, name: str, protocol: Protocol) -> int:
    same = {_plain(c.name): c.index for c in protocol.classes}
    same |= dict.fromkeys(IGNORED, UNLABELLED)
    if _plain(name) not in same:
        raise InputError(
            f"{option}: there is no class '{name.strip()}'; the classes are "
            f"{', '.join(protocol.class_names)}, or ignore"
        )
    return same[_plain(name)]


def _plain(label: str) -> str:
    return " ".join(label.casefold().split())
