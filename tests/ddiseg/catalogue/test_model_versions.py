"""Which model version is in use, and why."""

from __future__ import annotations

import pytest

from ddiseg.catalogue import Catalogue, ModelKind, NewModelVersion
from ddiseg.errors import NotFoundError


def _add(
    catalogue: Catalogue, kind: ModelKind = ModelKind.SEGMENTATION, *, promote: bool = True
) -> str:
    new = NewModelVersion("f", "unet", "b", {}, [], {}, "1.0", kind=kind, gate={"passed": promote})
    return catalogue.models.add(new, "tester", promote=promote, why="the gate said so").name


def test_current__a_candidate_is_not_in_use(catalogue: Catalogue) -> None:
    assert _add(catalogue, promote=False) == "fedd-1"
    with pytest.raises(NotFoundError, match="no model yet"):
        catalogue.models.current()
    _add(catalogue)
    assert _add(catalogue, promote=False) == "fedd-3"
    assert catalogue.models.current().name == "fedd-2"
    assert [m.gate for m in catalogue.models.all()] == [{"passed": p} for p in (False, True, False)]


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
    event = catalogue.history.last("promote")
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


def test_get__an_unknown_name_lists_those_that_there_are(catalogue: Catalogue) -> None:
    with pytest.raises(NotFoundError, match=r"no model called 'x' \(there are: none yet\)"):
        catalogue.models.get("x")
    _add(catalogue)
    assert catalogue.models.get("fedd-1").id == 1
    with pytest.raises(NotFoundError, match=r"'fedd-9' \(there are: fedd-1\)"):
        catalogue.models.promote("fedd-9", "ben", "why", forced=True)
