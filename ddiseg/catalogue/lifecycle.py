"""The life cycle of an image: its states, the steps between them, and nothing else.

    new -> queued -> prelabelled -> in_labelling -> submitted -> accepted
                                        |              |   ^
                                        v              v   |
                                     skipped        rework-+

A mask may also come from elsewhere, for an image in any open state (`submit`). Accepting needs a
reviewer who did not draw the mask; that is checked where reviews are stored.
"""

from __future__ import annotations

from enum import StrEnum

from ddiseg.errors import TransitionError


class State(StrEnum):
    """The state of an image."""

    NEW = "new"  #: imported, nothing asked of it yet
    QUEUED = "queued"  #: chosen for labelling
    PRELABELLED = "prelabelled"  #: a model has predicted a mask
    IN_LABELLING = "in_labelling"  #: with an annotator
    SUBMITTED = "submitted"  #: a person's mask waits for review
    ACCEPTED = "accepted"  #: a second person has accepted the mask
    REWORK = "rework"  #: sent back by the reviewer
    SKIPPED = "skipped"  #: can't be labelled, for a reason of the protocol


#: States in which nothing is left to do.
SETTLED = (State.ACCEPTED, State.SKIPPED)


class Action(StrEnum):
    """What can happen to an image."""

    QUEUE = "queue"
    PRELABEL = "prelabel"
    START = "start"  #: given to an annotator
    SUBMIT = "submit"
    ACCEPT = "accept"
    REJECT = "reject"
    SKIP = "skip"
    REOPEN = "reopen"
    WITHDRAW = "withdraw"  #: the annotator took back a mask or a skip
    RECALL = "recall"  #: the task is gone from the labelling server


_OPEN = (State.NEW, State.QUEUED, State.PRELABELLED, State.IN_LABELLING, State.REWORK)

#: (state, action) -> next state; any other action is refused.
TRANSITIONS: dict[tuple[State, Action], State] = {
    (State.NEW, Action.QUEUE): State.QUEUED,
    **{(s, Action.PRELABEL): State.PRELABELLED for s in (State.NEW, State.QUEUED)},
    # A prediction that comes later changes no state.
    **{(s, Action.PRELABEL): s for s in State if s not in (State.NEW, State.QUEUED)},
    **{
        (s, Action.START): State.IN_LABELLING
        for s in (State.NEW, State.QUEUED, State.PRELABELLED, State.REWORK)
    },
    **{(s, Action.SUBMIT): State.SUBMITTED for s in _OPEN},
    (State.SUBMITTED, Action.SUBMIT): State.SUBMITTED,
    (State.SUBMITTED, Action.ACCEPT): State.ACCEPTED,
    (State.SUBMITTED, Action.REJECT): State.REWORK,
    **{(s, Action.SKIP): State.SKIPPED for s in (*_OPEN, State.SUBMITTED, State.SKIPPED)},
    (State.SUBMITTED, Action.WITHDRAW): State.IN_LABELLING,
    (State.SKIPPED, Action.WITHDRAW): State.IN_LABELLING,
    (State.IN_LABELLING, Action.RECALL): State.QUEUED,
    (State.SKIPPED, Action.REOPEN): State.QUEUED,
    (State.ACCEPTED, Action.REOPEN): State.REWORK,
}


def next_state(state: State, action: Action, image: str) -> State:
    """Return the state after `action`; raises TransitionError, which lists the possible actions."""
    try:
        return TRANSITIONS[state, action]
    except KeyError:
        allowed = [a.value for (s, a) in TRANSITIONS if s is state]
        raise TransitionError(
            f"{image} is {state}: '{action}' is not possible; possible: {', '.join(allowed)}"
        ) from None
