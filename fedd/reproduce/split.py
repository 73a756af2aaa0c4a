"""The photographs that each cell learns from and is tested on: the paper's split of a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from annotation_protocol.ranking import seeded_rank
from fedd.dataset import TONES, DatasetImage
from fedd.errors import ReproductionError
from fedd.reproduce.plan import CLASSIFICATION, SEGMENTATION, Cell, Task
from fedd.weights.files import file_hash

#: Photographs of each tone in the paper's test of classification, whose names it does not give.
CLASSIFIED_PER_TONE = 10

#: Of the draw of that test.
DRAW_SEED = 2023


@dataclass(frozen=True)
class PaperSplit:
    """Photographs by what they are for; the fractions nest."""

    learned: Mapping[int, Sequence[DatasetImage]]  #: by fraction in percent
    validation: Sequence[DatasetImage]
    segmented: Sequence[DatasetImage]  #: the test of segmentation
    classified: Sequence[DatasetImage]  #: the test of classification, out of the former
    missing: tuple[str, ...] = ()  #: photographs of the split that are left out

    def tested(self, task: Task) -> Sequence[DatasetImage]:
        return self.segmented if task == SEGMENTATION else self.classified

    def digest(self, cell: Cell) -> str:
        """Of all that a cell sees of its photographs, wherever the files lie."""
        parts = self.learned[cell.fraction], self.validation, self.tested(cell.task)
        content = [[_content(item, cell.task) for item in part] for part in parts]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def split(
    items: Sequence[DatasetImage],
    splits: Mapping[str, Any],
    *,
    per_tone: int = CLASSIFIED_PER_TONE,
    tasks: Iterable[Task] = (SEGMENTATION, CLASSIFICATION),
    partial: bool = False,
) -> PaperSplit:
    """The parts that `splits` (as `fedd.paper.splits()`) makes of a folder's items.

    The tones of the test are those of `splits`. Photographs that are missing, or whose mask (for
    segmentation) or malignancy (for classification) is, are left out with `partial`. Raises
    ReproductionError where there are any without it, and where a part is empty.
    """
    subsets: Mapping[str, Sequence[str]] = splits["subsets"]
    tones = {stem: tone for tone, stems in splits["test_tones"].items() for stem in stems}
    by_stem = {item.stem: item for item in items}
    wanted = sorted({stem for stems in subsets.values() for stem in stems})
    problems = _problems(wanted, by_stem, tuple(tasks))
    if problems and not partial:
        count = sum(map(len, problems.values()))
        lines = "; ".join(f"{what}: {_named(stems)}" for what, stems in problems.items())
        raise ReproductionError(
            f"{count} of the split's {len(wanted)} photographs can't be used, {lines}. "
            "Complete the folders, or run with those that are there: --partial"
        )
    left_out = {stem for stems in problems.values() for stem in stems}
    usable = {stem: by_stem[stem] for stem in wanted if stem not in left_out}
    usable |= {s: replace(item, tone=tones[s]) for s, item in usable.items() if s in tones}

    def part(name: str) -> list[DatasetImage]:
        found = [usable[stem] for stem in subsets[name] if stem in usable]
        if not found:
            raise ReproductionError(
                f"not one photograph of {name} is there: give the folder with DDI's photographs"
            )
        return found

    fractions = [name for name in subsets if name.rpartition("-")[2].isdigit()]
    test = part("fedd-2023-test")
    return PaperSplit(
        learned={int(name.rpartition("-")[2]): part(name) for name in fractions},
        validation=part("fedd-2023-val"),
        segmented=test,
        classified=balanced_draw(test, per_tone),
        missing=tuple(sorted(left_out)),
    )


def balanced_draw(
    items: Sequence[DatasetImage], per_tone: int, seed: int = DRAW_SEED
) -> list[DatasetImage]:
    """`per_tone` items of each tone of known malignancy, half of them malignant where there are so many.

    The order of drawing comes from a hash of the seed and the names, so the items' order decides
    nothing.
    """
    drawn = []
    for tone in TONES:
        order = drawing_order([item for item in items if item.tone == tone], seed)
        malignant = [item for item in order if item.malignant]
        benign = [item for item in order if item.malignant is False]
        # Whichever is short of its half, the other fills up.
        first = malignant[: max(per_tone // 2, per_tone - len(benign))]
        drawn += first + benign[: per_tone - len(first)]
    return drawn


def drawing_order(items: Sequence[DatasetImage], seed: int = DRAW_SEED) -> list[DatasetImage]:
    """Items in an order that the seed and their names decide."""
    return sorted(items, key=lambda i: seeded_rank(seed, i.stem))


def _problems(
    wanted: Sequence[str], by_stem: Mapping[str, DatasetImage], tasks: Sequence[Task]
) -> dict[str, list[str]]:
    """What is wrong with which photographs of the split; nothing where all is there."""
    there = [by_stem[stem] for stem in wanted if stem in by_stem]
    problems = {"no photograph": [stem for stem in wanted if stem not in by_stem]}
    if SEGMENTATION in tasks:
        problems["no mask"] = [item.stem for item in there if item.mask is None]
    if CLASSIFICATION in tasks:
        unknown = [item.stem for item in there if item.malignant is None]
        problems["malignancy unknown (ddi_metadata.csv says it)"] = unknown
    return {what: stems for what, stems in problems.items() if stems}


def _named(stems: Sequence[str]) -> str:
    more = f" and {len(stems) - 3} more" if len(stems) > 3 else ""
    return f"{', '.join(stems[:3])}{more}"


def _content(item: DatasetImage, task: Task) -> list[Any]:
    known = [item.stem, item.tone, item.patient, file_hash(item.path)]
    if task == CLASSIFICATION:
        return [*known, item.malignant]
    return [*known, file_hash(item.mask) if item.mask else None]
