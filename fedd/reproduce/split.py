"""The paper's sets of photographs: what each cell is trained, validated and tested on.

Segmentation: the published masks. Classification: 30 photographs of validation and 30 of a balanced test,
ten of each tone, which the paper does not name, and all remaining ones of DDI (supplement, section 1).
Here the two are sampled with a fixed seed, half of each tone malignant if possible.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

from annotation_protocol.ranking import seeded_rank
from fedd.dataset import TONES, DatasetImage
from fedd.errors import ReproductionError
from fedd.files import file_hash
from fedd.reproduce.plan import CLASSIFICATION, SEGMENTATION, Cell, Task

#: Seed of the sampling.
SAMPLE_SEED = 2023

_SUBSET = "fedd-2023-"
_ASK_PARTIAL = "Complete the folders, or run without them: --partial"


class ImageSet(StrEnum):
    """A set of photographs that cells are measured on; its name in files."""

    SEGMENTATION_TEST = "segmentation-test"  #: the published test masks, 198
    SEGMENTATION_VALIDATION = "segmentation-validation"  #: the published validation masks, 15
    #: All of DDI outside training, validation and the balanced test, 476: the paper's text and table 3.
    REMAINING = "remaining-test"
    #: All of DDI outside training and validation, 506: that of the authors' notebook.
    UNSEEN = "unseen-test"
    BALANCED = "balanced-test"  #: ten of each tone, half malignant, 30: the paper's figure 7
    CLASSIFICATION_VALIDATION = "classification-validation"  #: as large, disjoint

    @property
    def task(self) -> Task:
        return SEGMENTATION if self.value.startswith(SEGMENTATION) else CLASSIFICATION

    @property
    def is_test(self) -> bool:
        return self.value.endswith("-test")


@dataclass(frozen=True)
class PaperSplit:
    """The training fractions, which are nested, and the sets that cells are measured on."""

    learned: Mapping[int, Sequence[DatasetImage]]  #: by fraction in percent
    sets: Mapping[ImageSet, Sequence[DatasetImage]]
    missing: tuple[str, ...] = ()  #: photographs of the split that are not used
    unlabelled: tuple[str, ...] = ()  #: remaining photographs of unknown malignancy, not tested on
    expected: Mapping[ImageSet, int] = field(default_factory=dict)  #: sizes of a complete split

    def measured(self, task: Task) -> list[DatasetImage]:
        """Return every photograph that a cell of a task is measured on, once."""
        found = {i.stem: i for s, items in self.sets.items() if s.task == task for i in items}
        return list(found.values())

    def validation(self, task: Task) -> Sequence[DatasetImage]:
        if task == SEGMENTATION:
            return self.sets[ImageSet.SEGMENTATION_VALIDATION]
        return self.sets[ImageSet.CLASSIFICATION_VALIDATION]

    def digest(self, cell: Cell) -> str:
        """Return a hash of a cell's photographs with what it uses of them, independent of their paths."""
        learned = self.learned[cell.fraction]
        sets = {s: items for s, items in self.sets.items() if s.task == cell.task}
        members = {"learned": _stems(learned), **{s.value: _stems(i) for s, i in sets.items()}}
        photographs = {i.stem: i for i in (*learned, *self.measured(cell.task))}
        content = [_content(item, cell.task) for item in photographs.values()]
        return hashlib.sha256(json.dumps([members, content]).encode()).hexdigest()[:16]


def split(
    items: Sequence[DatasetImage],
    splits: Mapping[str, Any],
    *,
    tasks: Collection[Task] = (SEGMENTATION, CLASSIFICATION),
    partial: bool = False,
) -> PaperSplit:
    """Split a folder's images as `splits` (see `fedd.paper.splits()`) says.

    The tones of the segmentation test are those of `splits`. With `partial`, photographs that are missing
    or lack a mask (for segmentation) or, in training, malignancy (for classification) are left out;
    without, they raise ReproductionError, as do too few photographs to sample from. A set that a task
    needs may not be empty. Remaining photographs of unknown malignancy are counted and not tested on.
    """
    subsets: Mapping[str, Sequence[str]] = splits["subsets"]
    fractions = {name: int(name.rpartition("-")[2]) for name in subsets if name[-1].isdigit()}
    by_stem = {item.stem: item for item in items}
    published = {stem for stems in subsets.values() for stem in stems}
    everything = sorted(published.union(splits["photographs"]))
    wanted = everything if CLASSIFICATION in tasks else sorted(published)
    labelled = {stem for name in fractions for stem in subsets[name]}
    problems = _problems(wanted, by_stem, published, labelled, tasks)
    if problems and not partial:
        count = len({stem for stems in problems.values() for stem in stems})
        lines = "; ".join(f"{what} ({len(s)}): {named(s)}" for what, s in problems.items())
        raise ReproductionError(
            f"{count} of the split's {len(wanted)} photographs can't be used, {lines}. {_ASK_PARTIAL}"
        )
    tones = {stem: tone for tone, stems in splits["test_tones"].items() for stem in stems}
    present = {stem: by_stem[stem] for stem in everything if stem in by_stem}
    present |= {s: replace(item, tone=tones[s]) for s, item in present.items() if s in tones}
    left_out = {stem for stems in problems.values() for stem in stems}

    def subset(name: str) -> list[DatasetImage]:
        found = [present[s] for s in subsets[name] if s in present and s not in left_out]
        if not found:
            raise ReproductionError(
                f"no photograph of {name} was found: give the folder with DDI's photographs"
            )
        return found

    learned = {fraction: subset(name) for name, fraction in fractions.items()}
    masks = {
        ImageSet.SEGMENTATION_TEST: subset(f"{_SUBSET}test"),
        ImageSet.SEGMENTATION_VALIDATION: subset(f"{_SUBSET}val"),
    }
    diagnosed = _diagnosed_sets([i for s, i in present.items() if s not in labelled], splits)
    expected = _expected(splits)
    if CLASSIFICATION in tasks:
        _check_sampled(diagnosed, expected, partial=partial)
        trained = {f"training split of {fraction} %": items for fraction, items in learned.items()}
        validation = ImageSet.CLASSIFICATION_VALIDATION
        _check_both_classes({**trained, f"{validation.value} set": diagnosed[validation]})
    unlabelled = [s for s, i in present.items() if i.malignant is None and s not in labelled]
    return PaperSplit(
        learned=learned,
        sets=masks | diagnosed,
        missing=tuple(sorted(left_out)),
        unlabelled=tuple(unlabelled if CLASSIFICATION in tasks else ()),
        expected=expected,
    )


def _diagnosed_sets(
    unlearned: Sequence[DatasetImage], splits: Mapping[str, Any]
) -> dict[ImageSet, list[DatasetImage]]:
    """Return the sets of classification from the photographs that are not trained on.

    Validation comes from outside the segmentation test and holds its validation photographs, because
    the paper's sets are disjoint; the balanced test holds the published masks that are taken for its own.
    """
    known = [item for item in unlearned if item.malignant is not None]
    sizes, subsets = splits["classification"], splits["subsets"]
    tested = set(subsets[f"{_SUBSET}test"])
    validation = balanced_sample(
        [item for item in known if item.stem not in tested],
        sizes["validation_per_tone"],
        first=subsets[f"{_SUBSET}val"],
    )
    chosen = set(_stems(validation))
    unseen = [item for item in known if item.stem not in chosen]
    balanced = balanced_sample(unseen, sizes["test_per_tone"], first=sizes["test_masks"])
    chosen = set(_stems(balanced))
    return {
        ImageSet.REMAINING: [item for item in unseen if item.stem not in chosen],
        ImageSet.UNSEEN: unseen,
        ImageSet.BALANCED: balanced,
        ImageSet.CLASSIFICATION_VALIDATION: validation,
    }


def balanced_sample(
    items: Sequence[DatasetImage],
    per_tone: int,
    seed: int = SAMPLE_SEED,
    first: Collection[str] = (),
) -> list[DatasetImage]:
    """Sample `per_tone` images of each tone of known malignancy, half of them malignant if possible.

    Those whose stems are in `first` come first, whatever they are. The sample depends on the seed and
    the names, not on the order of the images.
    """
    sampled = []
    for tone in TONES:
        known = [i for i in items if i.tone == tone and i.malignant is not None]
        order = seeded_order(known, seed)
        given = [item for item in order if item.stem in set(first)][:per_tone]
        others = [item for item in order if item not in given]
        malignant = [item for item in others if item.malignant]
        benign = [item for item in others if not item.malignant]
        room = per_tone - len(given)
        lacking = per_tone // 2 - sum(bool(item.malignant) for item in given)
        # If one class has fewer than half, the other fills up.
        more = min(room, max(0, lacking, room - len(benign)))
        added = malignant[:more]
        sampled += given + added + benign[: room - len(added)]
    return sampled


def seeded_order(items: Sequence[DatasetImage], seed: int = SAMPLE_SEED) -> list[DatasetImage]:
    """Return the images in an order that depends on the seed and their names."""
    return sorted(items, key=lambda i: seeded_rank(seed, i.stem))


def _expected(splits: Mapping[str, Any]) -> dict[ImageSet, int]:
    """Return the sizes of a complete split."""
    subsets, sizes = splits["subsets"], splits["classification"]
    learned = {s for name, stems in subsets.items() if name[-1].isdigit() for s in stems}
    validation, test = (len(TONES) * sizes[f"{name}_per_tone"] for name in ("validation", "test"))
    unseen = len(splits["photographs"]) - len(learned) - validation
    return {
        ImageSet.SEGMENTATION_TEST: len(subsets[f"{_SUBSET}test"]),
        ImageSet.SEGMENTATION_VALIDATION: len(subsets[f"{_SUBSET}val"]),
        ImageSet.REMAINING: unseen - test,
        ImageSet.UNSEEN: unseen,
        ImageSet.BALANCED: test,
        ImageSet.CLASSIFICATION_VALIDATION: validation,
    }


def _check_sampled(
    sets: Mapping[ImageSet, Sequence[DatasetImage]],
    expected: Mapping[ImageSet, int],
    *,
    partial: bool,
) -> None:
    """Raise ReproductionError if a sampled set of classification is empty or, without `partial`, too small."""
    for name in (ImageSet.CLASSIFICATION_VALIDATION, ImageSet.BALANCED):
        found = len(sets[name])
        if not found or (found < expected[name] and not partial):
            raise ReproductionError(
                f"{found} of the {expected[name]} photographs of the {name.value} set can be sampled: "
                "tone and malignancy of the others are unknown (they are in ddi_metadata.csv). "
                + (
                    _ASK_PARTIAL
                    if found
                    else "Give the folder with DDI's photographs and that table"
                )
            )


def _check_both_classes(sets: Mapping[str, Sequence[DatasetImage]]) -> None:
    """Raise ReproductionError if a set has malignant or benign photographs only."""
    for name, items in sets.items():
        found = {item.malignant for item in items}
        lacking = [
            word for value, word in ((True, "malignant"), (False, "benign")) if value not in found
        ]
        if lacking:
            raise ReproductionError(
                f"the {name} has no {lacking[0]} photograph among {len(items)}, so no classifier can be "
                "trained: complete the folder and ddi_metadata.csv, or run --only segmentation"
            )


def _problems(
    wanted: Sequence[str],
    by_stem: Mapping[str, DatasetImage],
    published: Collection[str],
    labelled: Collection[str],
    tasks: Collection[Task],
) -> dict[str, list[str]]:
    """Return the unusable photographs of the split by problem."""
    present = [by_stem[stem] for stem in wanted if stem in by_stem]
    problems = {"no photograph": [stem for stem in wanted if stem not in by_stem]}
    if SEGMENTATION in tasks:
        masked = [item for item in present if item.stem in published]
        problems["no mask"] = [item.stem for item in masked if item.mask is None]
    if CLASSIFICATION in tasks:
        trained = [item for item in present if item.stem in labelled]
        unknown = [item.stem for item in trained if item.malignant is None]
        problems["malignancy unknown, it is in ddi_metadata.csv"] = unknown
    return {what: stems for what, stems in problems.items() if stems}


def _stems(items: Iterable[DatasetImage]) -> list[str]:
    return [item.stem for item in items]


def named(stems: Sequence[str]) -> str:
    """Return up to three names, and how many more there are."""
    more = f" and {len(stems) - 3} more" if len(stems) > 3 else ""
    return f"{', '.join(stems[:3])}{more}"


def _content(item: DatasetImage, task: Task) -> list[Any]:
    known = [item.stem, item.tone, item.patient, _file_hash(item.path)]
    if task == CLASSIFICATION:
        return [*known, item.malignant]
    return [*known, _file_hash(item.mask) if item.mask else None]


def _file_hash(path: Path) -> str:
    """Return the hash of a file; it is read once as long as it does not change."""
    try:
        status = path.stat()
        return _hash_of(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise ReproductionError(
            f"{path} can't be read any more, {error.strerror}: put it back and run the same command again"
        ) from error


@lru_cache(maxsize=4096)
def _hash_of(path: Path, _changed: int, _size: int) -> str:
    return file_hash(path)
