"""Ids that arrive or change later: what they break is found, named and left out, and nothing is lost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import (
    Catalogue,
    Details,
    ModelKind,
    NewMask,
    NewModelVersion,
    Split,
)
from ddiseg.catalogue.evaluations import Compared
from ddiseg.sampling.leaks import (
    LeakedSince,
    find_leaks,
    leaked_in_last_evaluation,
    leaked_since,
    new_leaks,
)
from ddiseg.sampling.subsets import SubsetRequest, draw
from ddiseg.workspace.repair import repair
from ddiseg.workspace.status import status
from ddiseg.workspace.verify import Part, verify
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.rows import digest, new_image, new_mask

IMAGES = 20


@pytest.fixture
def images(catalogue: Catalogue) -> Catalogue:
    """#1 to #20, of patients that are not known."""
    dataset = catalogue.images.dataset("clinic")
    rows = [new_image(n, tone="V-VI") for n in range(1, IMAGES + 1)]
    catalogue.images.add(dataset.id, rows, "tester")
    return catalogue


def _correct(catalogue: Catalogue, patients: Mapping[int, str]) -> None:
    """Correct the patients of images, as an import with a new column does."""
    details = [Details(patient=patient) for patient in patients.values()]
    catalogue.images.update_details(list(patients), details, "tester")


def _version(catalogue: Catalogue, learned: int, members: list[int] | None = None) -> str:
    """A version that learned from images #1 to #learned; `members` are its validation split."""
    masks = [new_mask(n, "anna", f"{n}") for n in range(1, learned + 1)]
    catalogue.masks.submit(masks, reviewer="ben")
    validation = {
        "images": len(members or []),
        "by_tone": {},
        "members": [digest(f"image {n}") for n in members or []],
    }
    new = NewModelVersion(
        *("f", "b", "h", {}, [mask.content_hash for mask in masks]),
        {"validation": validation if members else None},
        "1.0",
    )
    return catalogue.models.add(new, "tester").name


def test_find__nothing_where_there_is_nothing_to_keep_apart(images: Catalogue) -> None:
    _correct(images, dict.fromkeys(range(1, 9), "p"))
    assert find_leaks(images) == []


def test_find__holdout_set(images: Catalogue, wording: SnapshotAssertion) -> None:
    splits = {n: Split.HOLDOUT if n % 2 else Split.TRAINING for n in range(1, 7)}
    images.splits.decide({**splits, 7: Split.EXCLUDED})
    assert find_leaks(images) == []
    _correct(images, {1: "p", 2: "p", 3: "p", 7: "q", 5: "q"})
    (leak,) = find_leaks(images)
    assert leak.images == {1, 3}, "the excluded image leaks nothing"
    assert leak.size == 3
    assert leak.line == wording
    assert leak.brief == wording
    assert images.splits.all()[1] is Split.HOLDOUT, "nothing is moved"
    _correct(images, {1: "a", 3: "b"})
    assert find_leaks(images) == [], "with the ids corrected again it counts again"


def test_find__through_an_image_of_neither_set(images: Catalogue) -> None:
    images.splits.decide({1: Split.HOLDOUT, 2: Split.TRAINING})
    details = [Details(patient="p"), Details(patient="p", lesion="x"), Details(lesion="x")]
    images.images.update_details([1, 9, 2], details, "tester")
    assert [leak.images for leak in find_leaks(images)] == [{1}]


def test_find__subsets_drawn_apart(images: Catalogue, wording: SnapshotAssertion) -> None:
    for name, size in (("tr", 5), ("te", 5)):
        draw(images, name, SubsetRequest((size,)), "tester")
    draw(images, "any", SubsetRequest((5,), disjoint_from=()), "tester")
    assert find_leaks(images) == []
    one, other = (sorted(images.subsets.members(name))[:2] for name in ("tr", "te"))
    _correct(images, {one[0]: "p", other[0]: "p", one[1]: "q", other[1]: "q"})
    leaks = find_leaks(images)
    assert [(leak.of, leak.other, leak.images) for leak in leaks] == [
        ("subset te", "subset tr", {*other})
    ]
    assert leaks[0].line == wording


def test_find__validation_splits(images: Catalogue, wording: SnapshotAssertion) -> None:
    _version(images, 6, members=[5, 6])
    learned = {digest(f"image {n}"): {"malignant": True, "validation": n > 8} for n in range(7, 11)}
    classifier = NewModelVersion(
        *("g", "b", "h", {}, [], {}, "1.0"), kind=ModelKind.MALIGNANCY, training_images=learned
    )
    images.models.add(classifier, "tester")
    assert find_leaks(images) == []
    _correct(images, {5: "p", 1: "p", 9: "q", 7: "q", 20: "r", 6: "r"})
    assert [(leak.of, leak.images) for leak in find_leaks(images)] == [
        ("the validation split of fedd-1", {5}),
        ("the validation split of malignancy-1", {9}),
    ]
    assert [leak.line for leak in find_leaks(images)] == wording


def test_new__only_those_with_more_images(images: Catalogue) -> None:
    images.splits.decide({1: Split.HOLDOUT, 2: Split.HOLDOUT, 3: Split.TRAINING})
    _correct(images, {1: "p", 3: "p"})
    before = find_leaks(images)
    assert new_leaks([], before) == before
    assert new_leaks(before, find_leaks(images)) == []
    _correct(images, {2: "p"})
    assert [leak.images for leak in new_leaks(before, find_leaks(images))] == [{1, 2}]


def test_since__images_of_a_version_s_tests(images: Catalogue) -> None:
    name = _version(images, 6, members=[6])
    masks = images.masks
    predicted = [new_mask(n, None, "x", model_version_id=1, uncertainty=0.1) for n in (7, 8)]
    masks.add_predictions(predicted)
    by_image = masks.predicted_by(1)
    compared = [Compared(n, _mask_id(images, n), digest("truth"), 0.5) for n in (7, 8)]
    assert by_image >= {7, 8}
    images.evaluations.add({"models": {name: 2}, "truth": "t", "n_images": 2}, compared, "tester")
    version = images.models.get(name)
    assert leaked_since(images, version) == LeakedSince(0, 0, 0)
    _correct(images, {6: "p", 1: "p", 7: "q", 2: "q"})
    assert leaked_since(images, version) == LeakedSince(holdout=0, validation=1, evaluation=1)
    assert leaked_in_last_evaluation(images) == 1


def _mask_id(catalogue: Catalogue, image_id: int) -> int:
    return catalogue.masks.newest_predictions()[image_id].id


@pytest.mark.parametrize("members", [[], [5, 7]])
def test_since__holdout_images_that_the_gate_compared(
    images: Catalogue, members: list[int]
) -> None:
    """Where an older program did not record them, the hold-out set of that time."""
    masks = [new_mask(n, "anna", f"{n}") for n in range(1, 9)]
    images.masks.submit(masks, reviewer="ben")
    images.splits.decide({n: Split.TRAINING if n < 5 else Split.HOLDOUT for n in range(1, 8)})
    hashes = [digest(f"image {n}") for n in members]
    gate = {"passed": True, "held_out": {"images": 3, "members": hashes}}
    learned = [mask.content_hash for mask in masks[:4]]
    images.models.add(NewModelVersion("f", "b", "h", {}, learned, {}, "1.0", gate=gate), "tester")
    images.splits.decide({8: Split.HOLDOUT})
    _correct(images, {5: "p", 6: "p", 1: "p", 8: "p"})
    leaked = leaked_since(images, images.models.get("fedd-1"))
    assert leaked.holdout == (1 if members else 2)


def test_verify_and_status__say_it_always(workspace: Workspace, wording: SnapshotAssertion) -> None:
    catalogue = workspace.catalogue
    dataset = catalogue.images.dataset("clinic")
    catalogue.images.add(dataset.id, [new_image(n) for n in (1, 2, 3)], "tester")
    catalogue.splits.decide({1: Split.HOLDOUT, 2: Split.TRAINING})
    _correct(catalogue, {1: "p", 2: "p"})
    problems = [p for p in verify(workspace).problems if p.part is Part.GROUPS]
    assert [p.line for p in problems] == [leak.line for leak in find_leaks(catalogue)]
    assert len(problems) == 1
    assert status(catalogue, "embedded").leaks == wording


def test_images__of_old_workspaces(tmp_path: Path) -> None:
    """A validation split that an older program did not record is passed over."""
    catalogue = Catalogue.create(f"sqlite:///{tmp_path / 'c.sqlite'}")
    dataset = catalogue.images.dataset("clinic")
    catalogue.images.add(dataset.id, [new_image(n) for n in (1, 2)], "tester")
    catalogue.masks.submit([_person(1), _person(2)], reviewer="ben")
    old = NewModelVersion(
        *("f", "b", "h", {}, [digest("mask 1")]),
        {"validation": {"images": 1, "by_tone": {"I-II": 1}}},
        "1.0",
    )
    catalogue.models.add(old, "tester")
    assert find_leaks(catalogue) == []
    catalogue.close()


def _person(number: int) -> NewMask:
    return new_mask(number, "anna", f"{number}")


def test_settled__holdout_images_are_excluded(workspace: Workspace) -> None:
    catalogue = workspace.catalogue
    dataset = catalogue.images.dataset("clinic")
    catalogue.images.add(dataset.id, [new_image(n) for n in range(1, 7)], "tester")
    _correct(catalogue, {n: str(n) for n in range(1, 7)})
    splits = {n: Split.HOLDOUT if n < 4 else Split.TRAINING for n in range(1, 7)}
    catalogue.splits.decide(splits)
    _correct(catalogue, {1: "p", 4: "p", 2: "q", 5: "q"})
    problems = [p for p in verify(workspace).problems if p.part is Part.GROUPS]
    done = repair(workspace, problems, [], "tester")
    assert done.left == []
    assert done.repaired == [
        "the hold-out set: 2 images excluded, so that they are neither trained on nor compared; "
        "1 image left in it"
    ]
    moved = {1: Split.EXCLUDED, 2: Split.EXCLUDED}
    assert catalogue.splits.all() == {**splits, **moved}
    event = catalogue.events.of_image(1)[-1]
    assert (event.kind, event.actor) == ("split", "tester")
    assert event.detail["to"] == Split.EXCLUDED.value
    assert find_leaks(catalogue) == []
    assert not [p for p in verify(workspace).problems if p.part in (Part.GROUPS, Part.HISTORY)]


def test_settled__a_retired_subset_is_not_checked(images: Catalogue) -> None:
    for name in ("tr", "te"):
        draw(images, name, SubsetRequest((5,)), "tester")
    members = images.subsets.members("te")
    one, other = (min(images.subsets.members(name)) for name in ("tr", "te"))
    _correct(images, {one: "p", other: "p"})
    assert find_leaks(images)
    assert images.subsets.retire("te", "tester")
    assert not images.subsets.retire("te", "tester"), "unchanged"
    assert find_leaks(images) == []
    assert (images.subsets.names(), images.subsets.retired()) == (["te", "tr"], {"te"})
    assert images.subsets.members("te") == members
    event = images.events.last("subset retired")
    assert event is not None
    assert event.detail == {"name": "te"}
