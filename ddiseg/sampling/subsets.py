"""Subsets: equally many images of each tone, nested, sharing no group with other subsets.

Images are taken in the order of their rank, a hash of the seed and the pixels: the same seed draws
the same images whatever the order of the rows, and a larger draw begins with the smaller one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import load_protocol
from ddiseg.catalogue import Catalogue, State
from ddiseg.catalogue.identifiers import normalise_id
from ddiseg.catalogue.tables import Image
from ddiseg.errors import InputError
from ddiseg.outcomes import Outcome
from ddiseg.sampling.candidates import RankedCandidates, rank

UNKNOWN = "unknown"

#: Images without a tone count as a tone of their own where more than one in so many has none.
ONE_IN = 10

#: Prefix of names that are reserved for the paper's own splits, see `paper_splits.py`.
RESERVED = "fedd-2023"

#: What makes images available that a draw leaves out.
TAKE_BACK = "take a skipped image back ('ddiseg reopen IMAGE')"
OTHER_TONE = "draw from the other tones (--tone)"

#: Ids listed in a message; the number is always given.
_LISTED = 10


@dataclass(frozen=True)
class SubsetRequest:
    """What to draw.

    Raises:
        InputError: no sizes, or sizes that are not ascending positive numbers.
    """

    per_tone: tuple[int, ...]  #: images of each tone, ascending; several make nested subsets
    seed: int = 0
    balance_malignant: bool = False  #: malignant and benign in turn
    source: str | None = None  #: only images of this subset
    tones: tuple[str, ...] = ()  #: empty: all tones of the catalogue, see `tones_to_draw`
    disjoint_from: tuple[str, ...] | None = None  #: None: every other subset

    def __post_init__(self) -> None:
        sizes = self.per_tone
        if not sizes or sizes[0] < 1 or list(sizes) != sorted(set(sizes)):
            raise InputError(
                f"sizes {', '.join(map(str, sizes)) or 'missing'}: give numbers from 1 up, "
                "each once and ascending, such as 10,20,30,40"
            )


@dataclass(frozen=True)
class SubsetDraw:
    """Subsets as the catalogue stores them after a draw."""

    sizes: dict[str, dict[str, int]]  #: images by subset and tone
    outcomes: dict[str, Outcome]
    notes: list[str]  #: what was left out and why
    lacking: list[str]  #: tones that could not be filled or balanced

    @classmethod
    def read(
        cls,
        catalogue: Catalogue,
        names: Sequence[str],
        added: Sequence[str],
        notes: Sequence[str],
        lacking: Sequence[str],
    ) -> SubsetDraw:
        """Return the subsets `names` of the catalogue; those in `added` are new."""
        sizes = catalogue.subsets.sizes()
        outcomes = {n: Outcome.ADDED if n in added else Outcome.UNCHANGED for n in names}
        return cls({name: sizes[name] for name in names}, outcomes, list(notes), list(lacking))


def draw(
    catalogue: Catalogue, name: str, request: SubsetRequest, actor: str, *, strict: bool = False
) -> SubsetDraw:
    """Draw and store the subset `name`, or NAME-10, NAME-20, ... for several sizes.

    A subset has at most one image of a group of near-duplicates, and one of a patient or lesion as
    long as there are others. The same name and request again change nothing.

    Raises:
        InputError: a reserved or unusable name, nothing to draw, a name of other images, or, with
            `strict`, a tone that can't be filled or balanced.
        NotFoundError: an unknown subset in the request.
    """
    _refuse_reserved(name)
    check_name(name, "a subset")
    sizes = request.per_tone
    names = [name] if len(sizes) == 1 else [f"{name}-{size}" for size in sizes]
    asked = json.loads(json.dumps(asdict(request)))  # as the catalogue gives it back
    existing = set(catalogue.subsets.names())
    if existing.issuperset(names):
        before = [catalogue.subsets.get(n).drawn_by for n in names]
        notes, lacking = before[-1].get("notes", []), before[-1].get("lacking", [])
        if all(b.get("request") == asked for b in before) and not (strict and lacking):
            return SubsetDraw.read(catalogue, names, [], notes, lacking)
    apart = _others(request, existing, names)
    pool = _pool(catalogue, request, apart)
    picked = _pick(pool, request, catalogue.candidates.near_groups_of_pending())
    lacking = [line for size in sizes for line in _lacking(picked, size, request)]
    notes = pool.notes + _repeated_groups(catalogue, picked) + _odd_sizes(request)
    if strict and lacking:
        raise InputError("--strict: nothing was drawn; " + "; ".join(lacking))
    if not any(picked.values()):
        raise InputError(f"no image can be drawn for '{name}': {pool.why_empty()}")
    members = {
        n: [image.id for images in picked.values() for image in images[:size]]
        for n, size in zip(names, sizes, strict=True)
    }
    drawn_by = {"request": asked, "apart_from": apart, "notes": notes, "lacking": lacking}
    added = catalogue.subsets.store(members, drawn_by, actor)
    return SubsetDraw.read(catalogue, names, added, notes, lacking)


@dataclass(frozen=True)
class _Pool:
    """The images that may be drawn."""

    by_tone: dict[str, RankedCandidates]  #: in the order of their ranks
    notes: list[str]
    left_out: dict[str, int]  #: images that were left out, by what to do to have them
    counts: dict[str, int]  #: images by tone before any was left out, without the skipped ones

    def why_empty(self) -> str:
        """Return why no image may be drawn, and what to do about it."""
        if not self.left_out or list(self.left_out) == [OTHER_TONE]:
            return no_image_of(list(self.by_tone), self.counts)
        why = [note for note in self.notes if " left out: " in note]
        ways = [way for way in self.left_out if way != OTHER_TONE]
        return "; ".join([*why, ways_out(ways)])


def _refuse_reserved(name: str) -> None:
    if name.casefold().startswith(RESERVED):
        raise InputError(
            f"'{name}': names that begin with {RESERVED} are the paper's own splits, which are "
            "drawn without sizes; choose another name"
        )


def _others(request: SubsetRequest, existing: set[str], names: Sequence[str]) -> list[str]:
    """Return the subsets that the draw shares no group with."""
    if request.disjoint_from is not None:
        return sorted(request.disjoint_from)
    return sorted(existing - {*names, request.source})


def _pool(catalogue: Catalogue, request: SubsetRequest, apart: Sequence[str]) -> _Pool:
    taken = {i for other in apart for i in catalogue.subsets.members(other)}
    groups = np.array([*set(catalogue.grouping.groups_of(taken).values())], np.int64)
    by_state = catalogue.candidates.counts(request.source)
    counts = count_tones(by_state)
    tones = tones_to_draw(counts, request.tones)
    notes = [] if request.tones else tone_notes(counts)
    left_out: dict[str, int] = {}

    def leave_out(number: int, why: str, way: str) -> None:
        if number:
            left_out[way] = number
            notes.append(f"{number} left out: {why}")

    skipped = sum(n for (_, state), n in by_state.items() if state == State.SKIPPED)
    leave_out(skipped, "skipped", TAKE_BACK)
    other_tone = "of another tone" if request.tones else "tone unknown"
    others = sum(n for tone, n in counts.items() if tone not in tones)
    leave_out(others, other_tone, OTHER_TONE)
    rows = catalogue.candidates.of_tones(tones, request.source)
    by_tone = rank(rows, request.seed, tones)

    def keep(
        good: Callable[[RankedCandidates], NDArray[np.bool_]], why: str, way: str
    ) -> dict[str, RankedCandidates]:
        kept = {tone: candidates.where(good(candidates)) for tone, candidates in by_tone.items()}
        leave_out(sum(map(len, by_tone.values())) - sum(map(len, kept.values())), why, way)
        return kept

    by_tone = keep(
        lambda candidates: ~np.isin(candidates.groups, groups),
        f"in {listed(apart)}, or in a group (patient, lesion, near-duplicates) with an image there",
        "keep apart from fewer subsets (--disjoint-from SUBSET)",
    )
    if request.balance_malignant:
        by_tone = keep(
            lambda candidates: candidates.malignant >= 0,
            "not known whether malignant or benign",
            "draw without --balance",
        )
    return _Pool(by_tone, notes, left_out, counts)


def count_tones(by_state: Mapping[tuple[str, str], int]) -> dict[str, int]:
    """Return the number of images by tone, skipped ones not counted, from that by (tone, state)."""
    counts: dict[str, int] = {}
    for (tone, state), n in by_state.items():
        counts[tone] = counts.get(tone, 0) + (0 if state == State.SKIPPED else n)
    return counts


def tones_to_draw(counts: Mapping[str, int], wanted: Sequence[str]) -> list[str]:
    """Return the tones to draw from, in the order of the protocol.

    Those in `wanted`, or all that the images have. "unknown" is one of these only where more than a
    tenth of the images, or all, have no tone.
    """
    order = [tone.name for tone in load_protocol().tones]
    if wanted:
        return [tone for tone in order if tone in wanted]
    found = [tone for tone in order if tone in counts]
    known = [tone for tone in found if tone != UNKNOWN]
    return found if not known or _many_unknown(counts) else known


def tone_notes(counts: Mapping[str, int]) -> list[str]:
    """Return notes on missing and unknown tones, for a draw from all tones."""
    known = [tone.name for tone in load_protocol().tones if tone.name != UNKNOWN]
    notes = [f"{tone}: there is no image of this tone" for tone in known if tone not in counts]
    others = " ".join(f"--tone {tone}" for tone in known if tone in counts)
    if others and _many_unknown(counts):
        notes.append(
            f"{counts[UNKNOWN]} of {sum(counts.values())} images have no tone: '{UNKNOWN}' counts as "
            f"a tone of its own; {others} leaves them out"
        )
    return notes


def no_image_of(tones: Sequence[str], counts: Mapping[str, int]) -> str:
    """Return the message for a draw without any image of `tones`, given the `counts` by tone."""
    others = ", ".join(f"{tone} {n}" for tone, n in sorted(counts.items()) if n)
    if not others:
        return "there are no images: import photographs ('ddiseg import PATH')"
    wanted = " or ".join(tones)
    return (
        f"there are no images of {wanted}, but of other tones ({others}): draw from those (--tone), "
        f"or import photographs of {wanted}"
    )


def ways_out(ways: Sequence[str]) -> str:
    """Return what a person can do where no image may be drawn."""
    return ", ".join([*ways, "or import more photographs"]) if ways else "import more photographs"


def _many_unknown(counts: Mapping[str, int]) -> bool:
    return counts.get(UNKNOWN, 0) * ONE_IN > sum(counts.values())


@dataclass(frozen=True)
class _Picked:
    """An image that was drawn."""

    id: int
    group: int
    malignant: bool | None


def _pick(
    pool: _Pool, request: SubsetRequest, pending: Mapping[int, int]
) -> dict[str, list[_Picked]]:
    """Return images by tone in the order of the draw: each size is a prefix of it.

    Args:
        pending: numbers of near-duplicates of images that were not compared yet, by image id.
    """
    taken: set[int] = set()  #: groups of near-duplicates
    drawn: set[int] = set()  #: groups that have an image already
    labels: Sequence[bool | None] = (True, False) if request.balance_malignant else (None,)
    queues = {
        tone: {label: _Queue(candidates, label, pending, taken, drawn) for label in labels}
        for tone, candidates in pool.by_tone.items()
    }
    picked: dict[str, list[_Picked]] = {tone: [] for tone in pool.by_tone}
    # Tones take turns, so that a longer draw does not change what a shorter one would take.
    for turn in range(request.per_tone[-1]):
        for tone, of_label in queues.items():
            in_turn = labels if turn % 2 == 0 else labels[::-1]
            position = next((p for label in in_turn if (p := of_label[label].next()) >= 0), -1)
            if position < 0:
                continue
            candidates = pool.by_tone[tone]
            malignant = int(candidates.malignant[position])
            image = _Picked(
                int(candidates.ids[position]),
                int(candidates.groups[position]),
                None if malignant < 0 else bool(malignant),
            )
            picked[tone].append(image)
            taken.add(_near_group(candidates, position, pending))
            drawn.add(image.group)
    return picked


def _near_group(candidates: RankedCandidates, position: int, pending: Mapping[int, int]) -> int:
    number = int(candidates.near_groups[position])
    return number if number >= 0 else pending[int(candidates.ids[position])]


class _Queue:
    """The candidates of one tone, or of those malignant or benign, looked at from the first by rank.

    What is taken or drawn stays so. So each of two positions only ever moves on: that of the first
    image that is not taken, and that of the first whose group has no image yet either.
    """

    def __init__(
        self,
        candidates: RankedCandidates,
        malignant: bool | None,
        pending: Mapping[int, int],
        taken: set[int],
        drawn: set[int],
    ) -> None:
        self._candidates, self._pending = candidates, pending
        self._taken, self._drawn = taken, drawn
        every = malignant is None
        wanted = (
            np.ones(len(candidates), bool) if every else candidates.malignant == int(malignant or 0)
        )
        self._positions = np.flatnonzero(wanted)
        self._free = self._fresh = 0

    def next(self) -> int:
        """Return the position of the next image, of a new group if possible; -1 without any."""
        while self._fresh < len(self._positions):
            position = int(self._positions[self._fresh])
            if (
                self._is_free(position)
                and int(self._candidates.groups[position]) not in self._drawn
            ):
                return position
            self._fresh += 1
        while self._free < len(self._positions):
            position = int(self._positions[self._free])
            if self._is_free(position):
                return position
            self._free += 1
        return -1

    def _is_free(self, position: int) -> bool:
        return _near_group(self._candidates, position, self._pending) not in self._taken


def _lacking(picked: dict[str, list[_Picked]], size: int, request: SubsetRequest) -> list[str]:
    lines = []
    for tone, images in picked.items():
        sample = images[:size]
        if len(sample) < size:
            lines.append(f"{tone}: {len(sample)} of the {size} wanted")
        malignant = sum(image.malignant is True for image in sample)
        benign = len(sample) - malignant
        if request.balance_malignant and abs(malignant - benign) > size % 2:
            lines.append(
                f"{tone}: {malignant} malignant and {benign} benign of {size}, not half each"
            )
    return lines


def _repeated_groups(catalogue: Catalogue, picked: dict[str, list[_Picked]]) -> list[str]:
    of_group: dict[int, list[int]] = {}
    for image in (image for images in picked.values() for image in images):
        of_group.setdefault(image.group, []).append(image.id)
    ids = [members for members in of_group.values() if len(members) > 1]
    rows = catalogue.images.select(ids=[image_id for members in ids for image_id in members])
    by_id = {row.id: row for row in rows}
    drawn = [[by_id[image_id] for image_id in members] for members in ids]
    repeated = sorted(map(_name, drawn))
    if not repeated:
        return []
    n = (
        "1 patient or lesion was"
        if len(repeated) == 1
        else f"{len(repeated)} patients or lesions were"
    )
    return [f"{n} drawn more than once, as there were no others ({listed(repeated)})"]


def _name(members: Sequence[Image]) -> str:
    """Return the smallest patient of a group, else lesion, else the name of its first image."""
    for key in ("patient", "lesion"):
        if ids := sorted(filter(None, (normalise_id(getattr(i, key)) for i in members))):
            return ids[0]
    return members[0].name


def _odd_sizes(request: SubsetRequest) -> list[str]:
    if not request.balance_malignant:
        return []
    return [f"{n} is odd: malignant has one more" for n in request.per_tone if n % 2]


def check_name(name: str, what: str) -> None:
    """Raise InputError where `name` can't name `what`, such as "a subset"."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise InputError(
            f"'{name}' can't name {what}: give letters, digits, '.', '_' and '-', "
            "at most 100, the first a letter or digit"
        )


def listed(names: Sequence[str]) -> str:
    """Return the first names, and the number of the others."""
    shown = ", ".join(names[:_LISTED])
    return shown + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
