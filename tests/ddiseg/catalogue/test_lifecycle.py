"""The life cycle, written out by hand: every state and every action."""

from __future__ import annotations

import pytest

from ddiseg.catalogue.lifecycle import TRANSITIONS, Action, State, next_state
from ddiseg.errors import TransitionError
from tests.wording import Refusal

TABLE = """
              queue   prelabel      start         submit     accept    reject  skip     reopen  withdraw      recall
new           queued  prelabelled   in_labelling  submitted  -         -       skipped  -       -             -
queued        -       prelabelled   in_labelling  submitted  -         -       skipped  -       -             -
prelabelled   -       prelabelled   in_labelling  submitted  -         -       skipped  -       -             -
in_labelling  -       in_labelling  -             submitted  -         -       skipped  -       -             queued
submitted     -       submitted     -             submitted  accepted  rework  skipped  -       in_labelling  -
accepted      -       accepted      -             -          -         -       -        rework  -             -
rework        -       rework        in_labelling  submitted  -         -       skipped  -       -             -
skipped       -       skipped       -             -          -         -       skipped  queued  in_labelling  -
"""

HEADER, *ROWS = (line.split() for line in TABLE.strip().splitlines())
CELLS = [
    (row[0], action, after) for row in ROWS for action, after in zip(HEADER, row[1:], strict=True)
]


def test_table__names_every_state_and_action() -> None:
    assert [action.value for action in Action] == HEADER
    assert [row[0] for row in ROWS] == [state.value for state in State]
    assert len(TRANSITIONS) == sum(after != "-" for _, _, after in CELLS)


@pytest.mark.parametrize(("before", "action", "after"), CELLS)
def test_next_state(before: str, action: str, after: str) -> None:
    if after == "-":
        with pytest.raises(TransitionError, match=rf"^x\.png is {before}: '{action}' is not"):
            next_state(State(before), Action(action), "x.png")
    else:
        assert next_state(State(before), Action(action), "x.png") == after


def test_next_state__error_names_what_is_possible(refusal: Refusal) -> None:
    with refusal(TransitionError):
        next_state(State.SKIPPED, Action.SUBMIT, "x.png")
