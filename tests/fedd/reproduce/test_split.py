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
from fedd.paper import splits
from fedd.reproduce import Cell, split
from fedd.reproduce.plan import TASKS
from fedd.reproduce.split import balanced_sample
from tests.fedd.reproduce.conftest import parts_of
from tests.wording import Refusal

STEMS = sorted({stem for stems in splits()["subsets"].values() for stem in stems})


def _ddi() -> list[DatasetImage]:
    """An item for each photograph of the paper's split, a third of them malignant."""
    return [
        DatasetImage(Path(f"{s}.png"), TONES[i % 3], malignant=i % 3 == 0, mask=Path(f"{s}.npy"))
        for i, s in enumerate(STEMS)
    ]


def test_split__sizes_of_the_paper() -> None:
    parts = split(_ddi(), splits())
    assert {f: len(items) for f, items in parts.learned.items()} == {5: 30, 10: 60, 15: 90, 20: 120}
    assert (len(parts.validation), len(parts.segmented), len(parts.classified)) == (15, 198, 30)
    assert not parts.missing


def test_split__test_has_the_tones_of_the_published_folders() -> None:
    parts = split(_ddi(), splits())
    assert Counter(i.tone for i in parts.segmented) == {"I-II": 59, "III-IV": 80, "V-VI": 59}
    assert Counter(i.tone for i in parts.classified) == dict.fromkeys(TONES, 10)


def test_split__what_is_learned_is_never_tested() -> None:
    parts = split(_ddi(), splits())
    tested = {i.stem for i in parts.segmented}
    seen = {i.stem for items in parts.learned.values() for i in items}
    assert not tested & (seen | {i.stem for i in parts.validation})
    assert {i.stem for i in parts.classified} <= tested


def test_split__missing_photographs_are_named() -> None:
    items = _ddi()[2:]
    with pytest.raises(
        ReproductionError, match=rf"2 of .*no photograph: {STEMS[0]}, {STEMS[1]}\..*--partial"
    ):
        split(items, splits())
    parts = split(items, splits(), partial=True)
    assert parts.missing == tuple(STEMS[:2])


def test_split__missing_mask_matters_to_segmentation_alone() -> None:
    items = _ddi()
    items[5] = replace(items[5], mask=None)
    with pytest.raises(ReproductionError, match=f"no mask: {STEMS[5]}"):
        split(items, splits())
    assert not split(items, splits(), tasks=("classification",)).missing


def test_split__unknown_malignancy_matters_to_classification_alone(refusal: Refusal) -> None:
    items = [replace(item, malignant=None) for item in _ddi()]
    with refusal(ReproductionError):
        split(items, splits())
    assert not split(items, splits(), tasks=("segmentation",)).missing


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


@pytest.mark.training
def test_digest__of_what_the_cell_sees(own_phantoms: Path) -> None:
    parts = parts_of(own_phantoms)
    cells = [Cell(task, "FEDD", 5, 0) for task in TASKS]
    before = [parts.digest(cell) for cell in cells]
    mask = parts.segmented[0].mask
    assert mask is not None
    Image.fromarray(np.zeros((128, 128), np.uint8)).save(mask)
    after = [parts.digest(cell) for cell in cells]
    assert after[0] != before[0]
    assert after[1] == before[1]
