"""Groups that transactions keep, compared with all of them computed anew."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from ddiseg.catalogue import Catalogue, Details, Split
from ddiseg.catalogue.groups import sharing
from ddiseg.catalogue.linking import LinkedImages
from ddiseg.catalogue.near_duplicates import ConfirmedPair
from ddiseg.catalogue.splits import images_in
from ddiseg.catalogue.tables import GroupLink
from tests.ddiseg.rows import new_image


def _anew(catalogue: Catalogue) -> tuple[dict[int, int], set[tuple[int, int]]]:
    linked = LinkedImages(catalogue.grouping.scopes())
    for row in catalogue.grouping.rows():
        linked.add(
            row.id, row.dataset_id, row.perceptual_hash, row.near_group, row.patient, row.lesion
        )
    return dict(linked.groups()), set(linked.links())


def _kept(catalogue: Catalogue) -> tuple[dict[int, int], set[tuple[int, int]]]:
    ids, groups = catalogue.grouping.groups()
    with catalogue._database.read() as session:
        links = {(key, i) for key, i in session.execute(select(GroupLink.key, GroupLink.image_id))}
    return dict(zip(ids.tolist(), groups.tolist(), strict=True)), links


@contextmanager
def _copy(empty: Path) -> Iterator[Catalogue]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "c.sqlite"
        shutil.copy(empty, path)
        catalogue = Catalogue.open(f"sqlite:///{path}")
        yield catalogue
        catalogue.close()


_IDS = st.sampled_from([None, "p", "q", "r", "7", "7.0", ""])
_LOOKS = st.sampled_from(["0" * 16, "0" * 15 + "1", "f" * 16, "0f" * 8, None])
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.tuples(_IDS, _IDS, _LOOKS), min_size=1, max_size=4)),
        st.tuples(st.just("correct"), st.tuples(st.integers(0, 30), _IDS, _IDS)),
        st.tuples(st.just("compare"), st.lists(st.integers(0, 30), max_size=4)),
        st.tuples(st.just("share"), st.booleans()),
        st.tuples(st.just("number lesions"), st.booleans()),
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.property
@given(steps=_STEPS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_groups__as_computed_anew_after_any_steps(
    empty_catalogue: Path, steps: list[tuple[str, Any]]
) -> None:
    with _copy(empty_catalogue) as catalogue:
        datasets = [catalogue.images.dataset(name).id for name in ("one", "two")]
        count = 0
        for number, (step, given_) in enumerate(steps):
            if step == "add":
                rows = [
                    new_image(count + k, perceptual_hash=look, patient=patient, lesion=lesion)
                    for k, (patient, lesion, look) in enumerate(given_, 1)
                ]
                catalogue.images.add(datasets[number % 2], rows, "tester")
                count += len(rows)
            elif step == "share":
                catalogue.grouping.share_patients("two", "one" if given_ else "two", "tester")
            elif step == "number lesions":
                catalogue.images.correct_dataset("one", {"lesions_per_patient": given_}, "tester")
            elif count and step == "correct":
                image, patient, lesion = given_
                details = Details(patient=patient, lesion=lesion)
                catalogue.images.update_details([image % count + 1], [details], "tester")
            elif count and step == "compare":
                _compare(catalogue, [image % count + 1 for image in given_])
            assert _kept(catalogue) == _anew(catalogue)
        catalogue.grouping.rebuild()
        assert _kept(catalogue) == _anew(catalogue)


def _compare(catalogue: Catalogue, image_ids: list[int]) -> None:
    """Compare images that were not; each is a near-duplicate of the one compared before it."""
    rows = {row.id: row for row in catalogue.grouping.rows()}
    new = sorted(i for i in set(image_ids) if rows[i].near_group is None)
    known = [i for i, row in rows.items() if row.near_group is not None][:1]
    every = [*known, *new]
    pairs = [
        ConfirmedPair(*sorted((a, b)), 0.9, "same")  # type: ignore[arg-type]
        for a, b in pairwise(every)
    ]
    catalogue.near_duplicates.add(new, pairs)


def test_near_duplicates__compared_by_two_processes_at_once(catalogue: Catalogue) -> None:
    dataset = catalogue.images.dataset("d")
    catalogue.images.add(dataset.id, [new_image(n) for n in (1, 2)], "me")
    pair = ConfirmedPair(1, 2, 0.9, "same")
    for _ in range(2):
        catalogue.near_duplicates.add([1, 2], [pair])
    assert [(p.first_id, p.second_id) for p in catalogue.near_duplicates.pairs()] == [(1, 2)]
    assert _kept(catalogue) == _anew(catalogue)


def test_sharing__each_group_is_looked_up_by_its_index(catalogue: Catalogue) -> None:
    """The hold-out set of a million images: no scan of the groups of all."""
    query = select(sharing(images_in(Split.HOLDOUT), images_in(Split.TRAINING)))
    with catalogue._database.read() as session:
        text = str(query.compile(session.get_bind(), compile_kwargs={"literal_binds": True}))
        plan = [
            row[-1] for row in session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")
        ]
    assert not [step for step in plan if step.startswith("SCAN image_groups")], plan
