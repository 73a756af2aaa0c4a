from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedd.dataset import TONES, DatasetImage
from fedd.errors import ReproductionError
from fedd.paper import results, splits
from fedd.reproduce import Cell, ImageSet, PaperSplit, split
from fedd.reproduce.plan import TASKS
from fedd.reproduce.split import balanced_sample
from tests.fedd.reproduce.conftest import parts_of
from tests.wording import Refusal

STEMS = splits()["photographs"]
PUBLISHED = {stem for stems in splits()["subsets"].values() for stem in stems}


def _ddi() -> list[DatasetImage]:
    """An item for each photograph of DDI, a quarter of each tone malignant; masks where published."""
    return [
        DatasetImage(
            Path(f"{s}.png"),
            TONES[i % 3],
            malignant=i // 3 % 4 == 0,
            mask=Path(f"{s}.npy") if s in PUBLISHED else None,
        )
        for i, s in enumerate(STEMS)
    ]


def _stems(parts: PaperSplit, name: ImageSet) -> set[str]:
    return {item.stem for item in parts.sets[name]}


def test_split__sizes_of_the_paper() -> None:
    parts = split(_ddi(), splits())
    assert {f: len(items) for f, items in parts.learned.items()} == {5: 30, 10: 60, 15: 90, 20: 120}
    sizes = {name.value: len(items) for name, items in parts.sets.items()}
    assert sizes == results()["photographs"] == {n.value: c for n, c in parts.expected.items()}
    assert sizes["remaining-test"] == 656 - 120 - 30 - 30
    assert not parts.missing
    assert not parts.unlabelled


def test_split__segmentation_test_has_the_tones_of_the_published_folders() -> None:
    tested = split(_ddi(), splits()).sets[ImageSet.SEGMENTATION_TEST]
    assert Counter(i.tone for i in tested) == {"I-II": 59, "III-IV": 80, "V-VI": 59}


@pytest.mark.parametrize(
    ("name", "given"),
    [
        (ImageSet.BALANCED, splits()["classification"]["test_masks"]),
        (ImageSet.CLASSIFICATION_VALIDATION, splits()["subsets"]["fedd-2023-val"]),
    ],
)
def test_split__sampled_sets_are_balanced(name: ImageSet, given: list[str]) -> None:
    """Half malignant, but for the photographs that belong to them in any case."""
    found = split(_ddi(), splits()).sets[name]
    for tone in TONES:
        of_tone = [i for i in found if i.tone == tone]
        assert len(of_tone) == 10
        counts = Counter(i.malignant for i in of_tone if i.stem in given)
        expected = min(max(5, counts[True]), 10 - counts[False])
        assert sum(bool(i.malignant) for i in of_tone) == expected


def test_split__sets_are_disjoint_as_the_paper_says() -> None:
    parts = split(_ddi(), splits())
    learned = {i.stem for items in parts.learned.values() for i in items}
    remaining, unseen, balanced, validation = (
        _stems(parts, name)
        for name in (
            ImageSet.REMAINING,
            ImageSet.UNSEEN,
            ImageSet.BALANCED,
            ImageSet.CLASSIFICATION_VALIDATION,
        )
    )
    assert learned | remaining | balanced | validation == set(STEMS)
    assert len(learned) + len(remaining) + len(balanced) + len(validation) == 656
    assert unseen == remaining | balanced
    masks = _stems(parts, ImageSet.SEGMENTATION_TEST)
    assert not masks & (learned | validation)
    assert not _stems(parts, ImageSet.SEGMENTATION_VALIDATION) & (learned | unseen | masks)


def test_split__published_masks_belong_to_the_sampled_sets() -> None:
    """The 15 of validation (else the 476 would hold some), and the 16 of training/*/test."""
    parts = split(_ddi(), splits())
    validation = _stems(parts, ImageSet.CLASSIFICATION_VALIDATION)
    assert set(splits()["subsets"]["fedd-2023-val"]) <= validation
    known = splits()["classification"]["test_masks"]
    assert len(known) == 16
    assert set(known) <= _stems(parts, ImageSet.BALANCED)
    of_tone = splits()["test_tones"]
    assert [len(set(known) & set(of_tone[tone])) for tone in TONES] == [6, 5, 5]


def test_split__measured_once(parts: PaperSplit) -> None:
    for task in TASKS:
        stems = [item.stem for item in parts.measured(task)]
        assert len(stems) == len(set(stems))
        members = {i.stem for s, items in parts.sets.items() if s.task == task for i in items}
        assert set(stems) == members


def test_split__missing_photographs_are_named(refusal: Refusal) -> None:
    items = _ddi()[2:]
    with refusal(ReproductionError):
        split(items, splits())
    parts = split(items, splits(), partial=True)
    assert parts.missing == tuple(STEMS[:2])


def test_split__photographs_without_a_mask_matter_to_classification_alone() -> None:
    items = [item for item in _ddi() if item.stem in PUBLISHED]
    with pytest.raises(ReproductionError, match=r"323 of the split's 656 .*no photograph \(323\)"):
        split(items, splits())
    assert not split(items, splits(), tasks=("segmentation",)).missing


def test_split__partial_samples_what_there_is() -> None:
    items = [item for item in _ddi() if item.stem in PUBLISHED]
    parts = split(items, splits(), partial=True)
    validation = _stems(parts, ImageSet.CLASSIFICATION_VALIDATION)
    assert validation == set(splits()["subsets"]["fedd-2023-val"]), (
        "outside the test only 15 are left"
    )
    assert parts.expected[ImageSet.CLASSIFICATION_VALIDATION] == 30


def test_split__missing_mask_matters_to_segmentation_alone() -> None:
    items = [replace(i, mask=None) if i.stem in STEMS_OF_TEST[:1] else i for i in _ddi()]
    with pytest.raises(ReproductionError, match=f"no mask .*{STEMS_OF_TEST[0]}"):
        split(items, splits())
    assert not split(items, splits(), tasks=("classification",)).missing
    parts = split(items, splits(), partial=True)
    assert STEMS_OF_TEST[0] not in _stems(parts, ImageSet.SEGMENTATION_TEST)
    assert STEMS_OF_TEST[0] in _stems(parts, ImageSet.UNSEEN)


STEMS_OF_TEST = splits()["subsets"]["fedd-2023-test"]


def test_split__unknown_malignancy_matters_to_classification_alone(refusal: Refusal) -> None:
    items = [replace(item, malignant=None) for item in _ddi()]
    with refusal(ReproductionError):
        split(items, splits())
    assert not split(items, splits(), tasks=("segmentation",)).missing


def test_split__unknown_malignancy_outside_training_is_counted() -> None:
    unknown = STEMS_OF_TEST[20:23]
    items = [replace(i, malignant=None) if i.stem in unknown else i for i in _ddi()]
    parts = split(items, splits())
    assert parts.unlabelled == tuple(sorted(unknown))
    assert not _stems(parts, ImageSet.UNSEEN) & set(unknown)
    assert set(unknown) <= _stems(parts, ImageSet.SEGMENTATION_TEST)


def test_split__too_few_of_known_malignancy_to_sample(refusal: Refusal) -> None:
    learned = {stem for n in (5, 10, 15, 20) for stem in splits()["subsets"][f"fedd-2023-{n}"]}
    items = [i if i.stem in learned else replace(i, malignant=None) for i in _ddi()]
    with refusal(ReproductionError):
        split(items, splits(), partial=True)


def test_split__the_same_sets_for_one_task_and_for_both() -> None:
    both = split(_ddi(), splits())
    for task in TASKS:
        assert split(_ddi(), splits(), tasks=(task,)).sets == both.sets


def test_split__wrong_folder(refusal: Refusal) -> None:
    with refusal(ReproductionError):
        split([DatasetImage(Path("holiday.png"))], splits(), partial=True)


def _skin(malignant: int, benign: int) -> list[DatasetImage]:
    return [
        DatasetImage(Path(f"{tone}{label}{n}.png"), tone, malignant=label)
        for tone in TONES
        for label, count in ((True, malignant), (False, benign))
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("malignant", "benign", "expected"), [(20, 20, 5), (3, 20, 3), (20, 4, 6), (2, 3, 2)]
)
def test_balanced_sample__half_malignant_where_there_are_so_many(
    malignant: int, benign: int, expected: int
) -> None:
    for tone in TONES:
        sampled = [i for i in balanced_sample(_skin(malignant, benign), 10) if i.tone == tone]
        assert len(sampled) == min(10, malignant + benign)
        assert sum(bool(i.malignant) for i in sampled) == expected


def test_balanced_sample__order_decides_nothing() -> None:
    items = _skin(20, 20)
    shuffled = items[:]
    random.Random(1).shuffle(shuffled)
    assert balanced_sample(items, 10) == balanced_sample(shuffled, 10)
    assert balanced_sample(items, 10) != balanced_sample(items, 10, seed=1)


def test_balanced_sample__unknown_malignancy_is_not_sampled() -> None:
    unknown = [replace(item, malignant=None) for item in _skin(5, 5)]
    assert not balanced_sample(unknown, 10)


def test_balanced_sample__given_ones_come_first() -> None:
    items = _skin(20, 20)
    first = [i.stem for i in items if i.tone == TONES[0] and i.malignant][:7]
    sampled = balanced_sample(items, 10, first=first)
    of_tone = [i for i in sampled if i.tone == TONES[0]]
    assert set(first) <= {i.stem for i in of_tone}
    assert Counter(bool(i.malignant) for i in of_tone) == {True: 7, False: 3}
    assert Counter(i.tone for i in sampled) == dict.fromkeys(TONES, 10)


@pytest.mark.training
def test_digest__of_what_the_cell_sees(own_phantoms: Path) -> None:
    parts = parts_of(own_phantoms)
    cells = [Cell(task, "FEDD", 5, 0) for task in TASKS]
    before = [parts.digest(cell) for cell in cells]
    mask = parts.sets[ImageSet.SEGMENTATION_TEST][0].mask
    assert mask is not None
    Image.fromarray(np.zeros((128, 128), np.uint8)).save(mask)
    after = [parts.digest(cell) for cell in cells]
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_split__training_split_of_one_class_is_refused_before_the_start(refusal: Refusal) -> None:
    learned = set(splits()["subsets"]["fedd-2023-5"])
    items = [replace(i, malignant=False) if i.stem in learned else i for i in _ddi()]
    with refusal(ReproductionError) as refused:
        split(items, splits(), partial=True)
    assert "the training split of 5 % has no malignant photograph among 30" in str(refused.value)
    assert split(items, splits(), tasks=["segmentation"])


def test_digest__photograph_that_vanished(tmp_path: Path, phantoms: Path) -> None:
    parts = parts_of(phantoms)
    gone = {5: [replace(parts.learned[5][0], path=tmp_path / "gone.png")]}
    with pytest.raises(ReproductionError, match="can't be read any more, No such file"):
        replace(parts, learned=gone).digest(Cell("classification", "FEDD", 5, 0))
