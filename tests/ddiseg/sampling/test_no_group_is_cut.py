"""Whatever is drawn or split, in whatever order: no group of images is cut."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ddiseg.catalogue import Catalogue, NewImage, Split
from ddiseg.errors import InputError
from ddiseg.sampling.batches import BatchRequest, draw_batch
from ddiseg.sampling.groups import Groups
from ddiseg.sampling.leaks import find_leaks
from ddiseg.sampling.splits import assign_splits
from ddiseg.sampling.strategies import Strategy
from ddiseg.sampling.subsets import SubsetRequest, draw
from fedd.errors import TrainingDataError
from fedd.validation import Candidate, stratified_validation, validation_split
from tests.ddiseg.rows import new_image, new_mask

pytestmark = pytest.mark.property

_IDS = st.sampled_from([None, None, "-", "a", "b", "c", "7", "7.0", " a"])


@st.composite
def _rows(draw: st.DrawFn) -> list[tuple[int, NewImage]]:
    """Return images of two datasets with some patients, lesions and near-duplicates."""
    count = draw(st.integers(2, 30))
    rows = []
    for number in range(1, count + 1):
        look = hashlib.sha256(f"look {draw(st.integers(1, 40))}".encode()).hexdigest()[:16]
        details: dict[str, Any] = {
            "patient": draw(_IDS),
            "lesion": draw(_IDS),
            "tone": draw(st.sampled_from(["I-II", "V-VI"])),
            "malignant": draw(st.booleans()),
        }
        rows.append((draw(st.integers(0, 1)), new_image(number, perceptual_hash=look, **details)))
    return rows


@pytest.fixture(scope="module")
def empty(empty_catalogue: Path) -> Path:
    return empty_catalogue


@contextmanager
def _filled(empty: Path, rows: list[tuple[int, NewImage]]) -> Iterator[Catalogue]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "c.sqlite"
        shutil.copy(empty, path)
        catalogue = Catalogue.open(f"sqlite:///{path}")
        for number, name in enumerate(("one", "two")):
            dataset = catalogue.images.dataset(name)
            batch = [row for which, row in rows if which == number]
            catalogue.images.add(dataset.id, batch, "tester")
        yield catalogue
        catalogue.close()


_quick = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(rows=_rows(), seed=st.integers(0, 9), size=st.integers(1, 4))
@_quick
def test_subsets__no_group_in_two(
    empty: Path, rows: list[tuple[int, NewImage]], seed: int, size: int
) -> None:
    with _filled(empty, rows) as catalogue:
        for name in ("a", "b", "c"):
            try:
                draw(catalogue, name, SubsetRequest((size,), seed=seed), "tester")
            except InputError:  # nothing is left
                break
        groups = Groups.read(catalogue)
        drawn = [catalogue.subsets.members(name) for name in catalogue.subsets.names()]
        of = [{groups.number(i) for i in members} for members in drawn]
        assert len(set().union(*of)) == sum(map(len, of))
        assert find_leaks(catalogue) == []


@given(rows=_rows(), seed=st.integers(0, 9), size=st.integers(1, 9), random=st.integers(0, 100))
@_quick
def test_batches__at_most_one_of_a_group(
    empty: Path, rows: list[tuple[int, NewImage]], seed: int, size: int, random: int
) -> None:
    with _filled(empty, rows) as catalogue:
        request = BatchRequest(size, Strategy.RANDOM, random_share=random, seed=seed)
        drawn = draw_batch(catalogue, "b", request, "tester")
        ids = [member.image.id for member in drawn.members]
        assert Groups.read(catalogue).count(ids) == len(ids)


@given(rows=_rows(), data=st.data())
@_quick
def test_splits__a_group_is_in_one_however_the_masks_come(
    empty: Path, rows: list[tuple[int, NewImage]], data: st.DataObject
) -> None:
    with _filled(empty, rows) as catalogue:
        order = data.draw(st.permutations([i.id for i in catalogue.images.select()]))
        known: dict[int, Split] = {}
        while order:
            some, order = order[:3], order[3:]
            catalogue.masks.submit([new_mask(i, "anna", f"{i}") for i in some], reviewer="ben")
            splits = assign_splits(catalogue)
            assert known.items() <= splits.items()
            known = splits
        groups = Groups.read(catalogue)
        of_group = {(groups.number(i), split) for i, split in known.items()}
        assert max(Counter(number for number, _ in of_group).values()) == 1
        assert Split.EXCLUDED not in known.values()
        assert find_leaks(catalogue) == []


@given(rows=_rows(), share=st.floats(0.1, 0.5), seed=st.integers(0, 9))
@_quick
def test_validation__a_group_validates_as_a_whole(
    empty: Path, rows: list[tuple[int, NewImage]], share: float, seed: int
) -> None:
    with _filled(empty, rows) as catalogue:
        images = catalogue.images.select()
        keys = Groups.read(catalogue).keys(images)
        tones = [image.tone for image in images]
        candidates = [
            Candidate(image.content_hash, key, image.tone, frozenset({1}))
            for image, key in zip(images, keys, strict=True)
        ]
        held = validation_split(candidates, share, seed).images
        chosen = [np.isin(np.arange(len(images)), held)]
        malignant = [bool(image.malignant) for image in images]
        with suppress(TrainingDataError):  # too few of either kind
            chosen.append(stratified_validation(malignant, tones, keys, share, seed))
        for validates in chosen:
            assert len({*zip(keys, validates.tolist(), strict=True)}) == len(set(keys))
