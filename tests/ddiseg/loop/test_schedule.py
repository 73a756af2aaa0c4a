"""When a refresh is due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ddiseg.catalogue import Catalogue, NewModelVersion, Split
from ddiseg.loop.schedule import refresh_due
from ddiseg.workspace.workspace import Workspace

pytestmark = pytest.mark.both_databases

WEEK = timedelta(days=7)


def _learn(catalogue: Catalogue, count: int, *, promote: bool = True) -> None:
    """A version that has learned from so many of the four accepted masks."""
    hashes = [m.content_hash for m in catalogue.masks.accepted().values()]
    new = NewModelVersion("f", "small", "b", {}, hashes[:count], {}, "1.0")
    catalogue.models.add(new, "tester", promote=promote)


@pytest.mark.training
@pytest.mark.parametrize(("every", "is_due"), [(4, True), (5, False)])
def test_due__the_first_version_waits_for_as_many_masks(
    spots: Workspace, every: int, is_due: bool
) -> None:
    due = refresh_due(spots.catalogue, every, WEEK)
    assert due.is_due is is_due
    assert due.why.startswith("4 accepted masks")


@pytest.mark.training
@pytest.mark.parametrize(("learned", "is_due"), [(1, True), (2, False), (4, False)])
def test_due__counts_what_was_not_learned_yet(spots: Workspace, learned: int, is_due: bool) -> None:
    _learn(spots.catalogue, learned)
    due = refresh_due(spots.catalogue, 3, WEEK)
    assert due.is_due is is_due
    assert due.why.startswith(f"{4 - learned} new accepted masks")


@pytest.mark.training
def test_due__what_a_refused_version_learned_is_not_tried_again(spots: Workspace) -> None:
    _learn(spots.catalogue, 1)
    _learn(spots.catalogue, 4, promote=False)
    assert not refresh_due(spots.catalogue, 1, WEEK).is_due


@pytest.mark.training
def test_due__masks_of_the_hold_out_set_are_not_waited_for(spots: Workspace) -> None:
    _learn(spots.catalogue, 0)
    spots.catalogue.splits.decide({1: Split.HOLDOUT, 2: Split.EXCLUDED})
    assert refresh_due(spots.catalogue, 3, WEEK).why.startswith("2 new accepted masks")


@pytest.mark.training
@pytest.mark.parametrize(
    ("age", "is_due"),
    [(timedelta(days=8), True), (timedelta(days=6), False), (timedelta(days=-30), False)],
)
def test_due__one_mask_will_do_where_the_version_is_old(
    spots: Workspace, age: timedelta, is_due: bool
) -> None:
    """A clock that was set back makes a version of the future: no reason to train."""
    _learn(spots.catalogue, 3)
    due = refresh_due(spots.catalogue, 10, WEEK, datetime.now(UTC) + age)
    assert due.is_due is is_due
    if is_due:
        assert "fedd-1 is 8 days old" in due.why


@pytest.mark.training
def test_due__nothing_new_is_never_due(spots: Workspace) -> None:
    _learn(spots.catalogue, 4)
    assert not refresh_due(spots.catalogue, 1, WEEK, datetime.now(UTC) + 50 * WEEK).is_due
