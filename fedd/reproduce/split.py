"""The paper's split of a data set: the photographs that each cell is trained and tested on."""

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

#: Photographs of each tone in the paper's classification test, which it does not name.
CLASSIFIED_PER_TONE = 10

#: Seed of the sampling of that test.
SAMPLE_SEED = 2023


@dataclass(frozen=True)
class PaperSplit:
    """Photographs of the training fractions, which are nested, of validation and of the tests."""

    learned: Mapping[int, Sequence[DatasetImage]]  #: by fraction in percent
    validation: Sequence[DatasetImage]
    segmented: Sequence[DatasetImage]  #: the segmentation test
    classified: Sequence[DatasetImage]  #: the classification test, a subset of the former
    missing: tuple[str, ...] = ()  #: photographs of the split that are not used

    def tested(self, task: Task) -> Sequence[DatasetImage]:
        return self.segmented if task == SEGMENTATION else self.classified

    def digest(self, cell: Cell) -> str:
        """Return a hash of a cell's photographs with what it uses of them, independent of their paths."""
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
    """Split a folder's images as `splits` (see `fedd.paper.splits()`) says.

    The tones of the test are those of `splits`. With `partial`, photographs that are missing or lack a
    mask (for segmentation) or malignancy (for classification) are left out; without, they raise
    ReproductionError, as does an empty subset.
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
            "Complete the folders, or run without them: --partial"
        )
    left_out = {stem for stems in problems.values() for stem in stems}
    usable = {stem: by_stem[stem] for stem in wanted if stem not in left_out}
    usable |= {s: replace(item, tone=tones[s]) for s, item in usable.items() if s in tones}

    def subset(name: str) -> list[DatasetImage]:
        found = [usable[stem] for stem in subsets[name] if stem in usable]
        if not found:
            raise ReproductionError(
                f"no photograph of {name} was found: give the folder with DDI's photographs"
            )
        return found

    fractions = [name for name in subsets if name.rpartition("-")[2].isdigit()]
    test = subset("fedd-2023-test")
    return PaperSplit(
        learned={int(name.rpartition("-")[2]): subset(name) for name in fractions},
        validation=subset("fedd-2023-val"),
        segmented=test,
        classified=balanced_sample(test, per_tone),
        missing=tuple(sorted(left_out)),
    )


def balanced_sample(
    items: Sequence[DatasetImage], per_tone: int, seed: int = SAMPLE_SEED
) -> list[DatasetImage]:
    """Sample `per_tone` images of each tone of known malignancy, half of them malignant if possible.

    The sample depends on the seed and the names, not on the order of the images.
    """
    sampled = []
    for tone in TONES:
        order = seeded_order([item for item in items if item.tone == tone], seed)
        malignant = [item for item in order if item.malignant]
        benign = [item for item in order if item.malignant is False]
        # If one class has fewer than half, the other fills up.
        first = malignant[: max(per_tone // 2, per_tone - len(benign))]
        sampled += first + benign[: per_tone - len(first)]
    return sampled


def seeded_order(items: Sequence[DatasetImage], seed: int = SAMPLE_SEED) -> list[DatasetImage]:
    """Return the images in an order that depends on the seed and their names."""
    return sorted(items, key=lambda i: seeded_rank(seed, i.stem))


def _problems(
    wanted: Sequence[str], by_stem: Mapping[str, DatasetImage], tasks: Sequence[Task]
) -> dict[str, list[str]]:
    """Return the unusable photographs of the split by problem."""
    present = [by_stem[stem] for stem in wanted if stem in by_stem]
    problems = {"no photograph": [stem for stem in wanted if stem not in by_stem]}
    if SEGMENTATION in tasks:
        problems["no mask"] = [item.stem for item in present if item.mask is None]
    if CLASSIFICATION in tasks:
        unknown = [item.stem for item in present if item.malignant is None]
        problems["malignancy unknown (it is in ddi_metadata.csv)"] = unknown
    return {what: stems for what, stems in problems.items() if stems}


def _named(stems: Sequence[str]) -> str:
    more = f" and {len(stems) - 3} more" if len(stems) > 3 else ""
    return f"{', '.join(stems[:3])}{more}"


def _content(item: DatasetImage, task: Task) -> list[Any]:
    known = [item.stem, item.tone, item.patient, file_hash(item.path)]
    if task == CLASSIFICATION:
        return [*known, item.malignant]
    return [*known, file_hash(item.mask) if item.mask else None]
