"""The version in use beside a candidate: what can be compared, and what came in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import Catalogue, Details, NewMask, Split
from ddiseg.catalogue.tables import Mask
from ddiseg.errors import WorkspaceError
from ddiseg.model import train as refreshing
from ddiseg.model.predict import prelabel
from ddiseg.model.train import Refreshed
from ddiseg.sampling.splits import assign_splits
from ddiseg.workspace.store import Store
from ddiseg.workspace.workspace import Workspace
from fedd.segment import Probes
from tests.ddiseg.model.version_rows import add_version
from tests.ddiseg.spots import accept_more
from tests.wording import Refusal

Learn = Callable[..., Refreshed]


@pytest.fixture
def held_out(spots: Workspace) -> None:
    """#1 and #2, of one patient, are held out for the gate."""
    spots.catalogue.splits.decide({1: Split.HOLDOUT, 3: Split.TRAINING})


@pytest.mark.training
def test_refresh__a_version_in_use_of_another_protocol_is_not_compared(
    spots: Workspace, learn: Learn, held_out: None, tiny_weights: Path, wording: SnapshotAssertion
) -> None:
    add_version(spots, tiny_weights, protocol_version="0.9")
    done = learn(spots)
    assert done.in_use == done.version.name == "fedd-2"
    assert done.reasons[0] == wording


@pytest.mark.training
def test_refresh__a_version_in_use_that_can_not_be_read_just_now_ends_it_before_training(
    spots: Workspace,
    learn: Learn,
    held_out: None,
    monkeypatch: pytest.MonkeyPatch,
    refusal: Refusal,
) -> None:
    learn(spots)
    accept_more(spots, [5])

    def away(*_: object) -> bytes:
        try:
            raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise WorkspaceError("the store: Permission denied") from error

    monkeypatch.setattr(refreshing, "train_probes", None)
    monkeypatch.setattr(Store, "get", away)
    with refusal(WorkspaceError):
        learn(spots, seed=1)
    assert [version.name for version in spots.catalogue.models.all()] == ["fedd-1"]


def _meanwhile(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """While the next version is being trained something happens, once."""
    real, todo = refreshing.train_probes, [happens]

    def train(*args: Any, **options: Any) -> Probes:
        while todo:
            todo.pop()()
        return real(*args, **options)

    monkeypatch.setattr(refreshing, "train_probes", train)


@pytest.mark.training
def test_refresh__another_version_came_into_use_in_the_meantime(
    spots: Workspace,
    learn: Learn,
    held_out: None,
    monkeypatch: pytest.MonkeyPatch,
    wording: SnapshotAssertion,
) -> None:
    models = spots.catalogue.models
    learn(spots)
    learn(spots, seed=1)
    accept_more(spots, [5])
    _meanwhile(monkeypatch, lambda: models.promote("fedd-1", "ben", "fedd-2 is bad", forced=False))
    done = learn(spots)
    assert (done.version.name, done.in_use) == ("fedd-3", "fedd-1")
    assert done.reasons[0] == wording
    assert done.version.gate is not None
    assert (done.version.gate["passed"], done.version.gate["compared_with"]) == (False, "fedd-2")
    again = learn(spots)
    assert (again.new, again.version.name, again.in_use) == (True, "fedd-4", "fedd-4")
    assert not learn(spots).new


@pytest.mark.training
def test_refresh__holding_out_began_in_the_meantime(
    spots: Workspace, learn: Learn, monkeypatch: pytest.MonkeyPatch, wording: SnapshotAssertion
) -> None:
    sides = {i: Split.HOLDOUT if i < 3 else Split.TRAINING for i in (1, 2, 3, 4)}
    _meanwhile(monkeypatch, lambda: spots.catalogue.splits.decide(sides))
    done = learn(spots)
    assert (done.version.name, done.in_use) == ("fedd-1", None)
    assert done.reasons == wording
    again = learn(spots)
    assert again.in_use == again.version.name == "fedd-2"
    assert len(again.version.training_masks) == 2


@pytest.mark.training
def test_refresh__a_mask_reopened_in_the_meantime_is_on_neither_side(
    spots: Workspace, learn: Learn, held_out: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(catalogue: Catalogue) -> dict[int, Split]:
        catalogue.images.reopen(4, "ben")
        return assign_splits(catalogue)

    monkeypatch.setattr(refreshing, "assign_splits", late)
    assert len(learn(spots).version.training_masks) == 1


@pytest.mark.training
def test_refresh__masks_over_the_painting_of_the_version_in_use_are_known_as_such(
    spots: Workspace, learn: Learn
) -> None:
    """#5 is accepted as it was painted, #7 with a fix of what an annotator had left, #9 from scratch."""
    catalogue = spots.catalogue
    catalogue.splits.decide({3: Split.TRAINING, **dict.fromkeys((5, 7, 9), Split.HOLDOUT)})
    learn(spots)
    prelabel(spots, catalogue.images.select(ids=[5, 7, 9]))
    painted = catalogue.masks.newest_predictions()
    catalogue.masks.submit([_over(painted[5], "annotator-1")], reviewer="reviewer-1")
    catalogue.masks.submit([_over(painted[7], "annotator-1")])
    waiting = catalogue.masks.in_review()[7]
    corrected = spots.store_mask(np.full_like(spots.mask(waiting), 4))
    fix = replace(_over(waiting, "reviewer-1"), content_hash=corrected)
    catalogue.masks.review(waiting.id, "reviewer-1", "fixed", fix=fix)
    accept_more(spots, [9])

    verdict = learn(spots, seed=1).version.gate

    assert verdict is not None
    assert verdict["compared_with"] == "fedd-1"
    assert verdict["held_out"]["drawn_over_its_painting"] == {"unchanged": 1, "corrected": 1}


def _over(mask: Mask, annotator: str) -> NewMask:
    """A person's mask with the same pixels, drawn over that one."""
    kept = ("image_id", "content_hash", "width", "height", "mapping", "classes", "protocol_version")
    columns: dict[str, Any] = {name: getattr(mask, name) for name in kept}
    return NewMask(**columns, annotator=annotator, parent_id=mask.id)


@pytest.mark.training
def test_refresh__holdout_images_that_leak_are_left_out_and_counted(
    spots: Workspace, learn: Learn, held_out: None, wording: SnapshotAssertion
) -> None:
    """#1, of the hold-out set, turns out to be of the patient of #3, which is learned from."""
    first = learn(spots)
    assert first.version.decision is not None
    assert first.version.decision.holdout.leaked == 0
    compared = first.version.decision.holdout.images
    assert not learn(spots).new
    spots.catalogue.images.update_details([1], [Details(patient="q1")], "tester")

    done = learn(spots)

    assert done.new, "the same masks, but a decision without what leaks"
    decision = done.version.decision
    assert decision is not None
    assert (decision.holdout.images, decision.holdout.leaked) == (compared - 1, 1)
    assert [reason for reason in done.reasons if "left out" in reason] == wording
    assert not learn(spots).new
    assert spots.catalogue.splits.all()[1] is Split.HOLDOUT
