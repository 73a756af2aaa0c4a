"""Which model version is in use, and why."""

from __future__ import annotations

import pytest

from ddiseg.catalogue import Catalogue, ModelKind, NewModelVersion, Split
from ddiseg.catalogue.model_versions import Snapshot, StaleTrainingError
from ddiseg.errors import NotFoundError
from tests.ddiseg.rows import new_image
from tests.wording import Refusal

pytestmark = pytest.mark.both_databases


def _add(
    catalogue: Catalogue, kind: ModelKind = ModelKind.SEGMENTATION, *, promote: bool = True
) -> str:
    new = NewModelVersion("f", "unet", "b", {}, [], {}, "1.0", kind=kind, gate={"passed": promote})
    return catalogue.models.add(new, "tester", promote=promote, why="the gate said so").name


def test_current__a_candidate_is_not_in_use(catalogue: Catalogue) -> None:
    assert _add(catalogue, promote=False) == "fedd-1"
    with pytest.raises(NotFoundError, match="no model yet"):
        catalogue.models.current()
    assert catalogue.models.current_or_none() is None
    _add(catalogue)
    assert _add(catalogue, promote=False) == "fedd-3"
    assert catalogue.models.current().name == "fedd-2"
    assert [m.gate for m in catalogue.models.all()] == [{"passed": p} for p in (False, True, False)]


def test_add__as_things_stood(catalogue: Catalogue, refusal: Refusal) -> None:
    new = NewModelVersion("f", "unet", "b", {}, [], {}, "1.0")
    first = catalogue.models.add(new, "tester", snapshot=Snapshot(None, has_holdout=False))
    assert catalogue.models.current().id == first.id
    catalogue.models.add(new, "tester", snapshot=Snapshot(first.id, has_holdout=True))
    assert catalogue.models.current().name == "fedd-2"
    for in_use in (None, first.id):
        with refusal(StaleTrainingError):
            catalogue.models.add(new, "tester", snapshot=Snapshot(in_use, has_holdout=True))
    assert len(catalogue.models.all()) == 2, "nothing is recorded of what was overtaken"


def test_add__masks_were_first_held_out_in_between(catalogue: Catalogue, refusal: Refusal) -> None:
    catalogue.images.add(catalogue.images.dataset("clinic").id, [new_image(1)], "tester")
    catalogue.splits.decide({1: Split.TRAINING})
    new = NewModelVersion("f", "unet", "b", {}, [], {}, "1.0")
    with refusal(StaleTrainingError):
        catalogue.models.add(new, "tester", snapshot=Snapshot(None, has_holdout=False))
    catalogue.models.add(new, "tester", snapshot=Snapshot(None, has_holdout=True))
    assert catalogue.models.current().name == "fedd-1"


def test_promote__by_name_with_its_reason(catalogue: Catalogue) -> None:
    _add(catalogue)
    _add(catalogue)
    assert catalogue.models.promote("fedd-1", "ben", "fedd-2 misses rulers", forced=True)
    assert catalogue.models.current().name == "fedd-1"
    assert not catalogue.models.promote("fedd-1", "ben", "again", forced=True)
    assert [
        (p.model_version_id, p.actor, p.why, p.forced) for p in catalogue.models.promotions()
    ] == [
        (1, "tester", "the gate said so", False),
        (2, "tester", "the gate said so", False),
        (1, "ben", "fedd-2 misses rulers", True),
    ]
    event = catalogue.events.last("promote")
    assert event is not None
    assert (event.actor, event.detail["model"]) == ("ben", "fedd-1")


def test_promote__the_kinds_do_not_touch_each_other(catalogue: Catalogue) -> None:
    _add(catalogue)
    _add(catalogue, ModelKind.MALIGNANCY)
    _add(catalogue, ModelKind.MALIGNANCY)
    catalogue.models.promote("malignancy-1", "ben", "why", forced=True)
    assert catalogue.models.current().name == "fedd-1"
    assert catalogue.models.current(ModelKind.MALIGNANCY).name == "malignancy-1"
    assert len(catalogue.models.promotions()) == 1


def test_get__an_unknown_name_lists_those_that_there_are(
    catalogue: Catalogue, refusal: Refusal
) -> None:
    with refusal(NotFoundError):
        catalogue.models.get("x")
    _add(catalogue)
    assert catalogue.models.get("fedd-1").id == 1
    with refusal(NotFoundError):
        catalogue.models.promote("fedd-9", "ben", "why", forced=True)
