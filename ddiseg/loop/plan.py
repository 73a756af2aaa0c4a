"""What a round of the loop would do now: a dry run, which only counts.

It neither reads the rows of images nor imports what learns and predicts.
"""

from __future__ import annotations

from collections.abc import Callable

from ddiseg.catalogue import BatchOrigin
from ddiseg.catalogue.open_work import InHand
from ddiseg.labelstudio.connection import Connection, server_of
from ddiseg.loop.auto_batches import images_to_score
from ddiseg.loop.options import RoundOptions
from ddiseg.loop.schedule import refresh_due
from ddiseg.loop.steps import NO_DRAW, NO_SERVER, StepResult, not_yet, run_step
from ddiseg.loop.worklist import reminder
from ddiseg.outcomes import counted
from ddiseg.workspace.workspace import Workspace


def plan_round(
    workspace: Workspace, find_connection: Callable[[], Connection], options: RoundOptions
) -> list[StepResult]:
    """Return what a round would do now, as far as that is known before a pull; changes nothing."""
    plan = _Plan(workspace, find_connection, options)
    return [run_step(name, work) for name, work in plan.steps()]


class _Plan:
    """The steps of a round, each of which only says what it would do."""

    def __init__(
        self, workspace: Workspace, find_connection: Callable[[], Connection], options: RoundOptions
    ) -> None:
        self._catalogue, self._options = workspace.catalogue, options
        self._find_connection, self._server = find_connection, server_of(workspace.root)
        self._connected = False

    def steps(self) -> list[tuple[str, Callable[[], str]]]:
        return [
            ("pull", self._pull),
            ("review", self._review),
            ("refresh", self._refresh),
            ("draw", self._select),
            ("paint", self._predict),
            ("push", self._push),
        ]

    def _pull(self) -> str:
        connection = self._find_connection()
        self._connected = True
        return f"would ask {connection.url} for what people did"

    def _review(self) -> str:
        if not self._connected:
            return NO_SERVER
        waiting = self._catalogue.masks.count_in_review()
        return f"would bring back verdicts; {counted(waiting, 'mask')} in review"

    def _refresh(self) -> str:
        due = refresh_due(self._catalogue, self._options.every, self._options.longest)
        return f"would refresh: {due.why}" if due.is_due else f"not due: {due.why}"

    def _select(self) -> str:
        size = self._options.draw
        if not size:
            return NO_DRAW
        if in_hand := self._catalogue.open_work.in_hand(self._server).images:
            return not_yet(in_hand)
        images = images_to_score(self._catalogue, size, self._options.push.seed)
        if not images:
            return "would select nothing: no image may be selected"
        version = self._catalogue.models.current_brief()
        ids = [image.id for image in images]
        predicted = self._catalogue.masks.predictions_by(version.id, ids) if version else ()
        would = self._would_predict(InHand(len(ids), len(predicted)))
        return f"{would}, then select a batch of {size}"

    def _predict(self) -> str:
        version = self._catalogue.models.current_brief()
        in_hand = self._catalogue.open_work.in_hand(self._server, version and version.id)
        return self._would_predict(in_hand)

    def _push(self) -> str:
        if not self._connected:
            return NO_SERVER
        open_work = self._catalogue.open_work
        batches = open_work.unplanned_of_batches(self._server)
        to_give = sum(n for _, origin, n in batches if origin == BatchOrigin.ROUND)
        given = counted(open_work.count_planned(self._server), "image")
        text = f"would bring {given} up to date on the server"
        if to_give:
            text += f", and give people {to_give} more"
        by_hand = [reminder(name, n) for name, origin, n in batches if origin != BatchOrigin.ROUND]
        return "; ".join([text, *by_hand])

    def _would_predict(self, images: InHand) -> str:
        version = self._catalogue.models.current_brief()
        if version is None:
            return "would predict nothing, since there is no model yet"
        todo, n = images.images - images.predicted, counted(images.images, "image")
        return f"would predict {todo} of {n} with {version.name}"
