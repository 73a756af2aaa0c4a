"""A round of the loop: pull, review, refresh where it is due, draw, paint, push.

Every step can be repeated: what a stopped round has done is found done by the next one. A step that
fails is told and does not keep the others from running, but for those that need what it failed on:
where the labelling server does not answer, nothing is pushed, and what is here is still learned from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from ddiseg.catalogue import Purpose
from ddiseg.catalogue.models import Image
from ddiseg.errors import DdisegError, InputError, NotFoundError
from ddiseg.labelstudio.connection import EMBEDDED, Connection, team_url
from ddiseg.labelstudio.pull import pull
from ddiseg.labelstudio.push import OPEN, PushOptions, push
from ddiseg.labelstudio.review import push_reviews
from ddiseg.loop import gate
from ddiseg.loop.batch import BatchRequest, draw_batch
from ddiseg.loop.painting import Painter
from ddiseg.loop.refresh import refresh
from ddiseg.outcomes import FileOutcome, count
from ddiseg.rounds.due import refresh_due
from ddiseg.rounds.lock import one_round
from ddiseg.workspace import Workspace

#: Called with a line for the person who watches.
Say = Callable[[str], None]


@dataclass(frozen=True)
class RoundOptions:
    """What a round does, and when it learns.

    Raises InputError for numbers that can't be.
    """

    every: int = 10  #: accepted masks that make a refresh due
    max_age: timedelta = timedelta(days=7)  #: of the newest version, with which one mask does
    draw: int = 0  #: images of the next batch, drawn once nobody has work left; 0 draws none
    tolerance: float = gate.TOLERANCE
    backbone: str = "small"
    device: str = "auto"
    seed: int = 0
    review_sample: float = 100.0  #: percent of the masks that are reviewed
    push: PushOptions = field(default_factory=PushOptions)

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InputError(f"--every is {self.every}: give a number of masks, from 1 up")
        if self.max_age <= timedelta(0):
            raise InputError("--max-age: give a number of days above 0")
        if self.draw < 0:
            raise InputError(f"--draw is {self.draw}: give a number of images, or 0 for none")


@dataclass(frozen=True)
class Step:
    """A step of a round as it went."""

    name: str
    said: str
    failed: bool
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "step": self.name,
            "said": self.said,
            "failed": self.failed,
            "seconds": round(self.seconds, 2),
        }


def run_round(
    workspace: Workspace,
    find_connection: Callable[[], Connection],
    options: RoundOptions,
    actor: str,
    *,
    must_refresh: bool = False,
    say: Say = lambda _line: None,
) -> list[Step]:
    """Run a round and write down each step as it is done; returns the steps.

    Args:
        find_connection: the labelling server, or a WorkspaceError where there is none.
        must_refresh: refresh though it may not be due.

    Raises:
        BusyError: another round runs on this workspace.
    """
    with one_round(workspace.root):
        rounds = workspace.catalogue.rounds
        number = rounds.begin(actor)
        done: list[Step] = []
        for name, work in _Round(workspace, find_connection, options, actor, must_refresh).steps():
            step = _done(name, work)
            say(f"{step.name}: {step.said}")
            rounds.step(number, step.as_dict())
            done.append(step)
        rounds.end(number, "failed" if any(step.failed for step in done) else "done")
    return done


def plan_round(
    workspace: Workspace, find_connection: Callable[[], Connection], options: RoundOptions
) -> list[Step]:
    """What a round would do now, as far as that is known before it pulls; changes nothing."""
    plan = _Plan(workspace, find_connection, options)
    return [_done(name, work) for name, work in plan.steps()]


def work_in_hand(workspace: Workspace) -> list[Image]:
    """The images that people have or are to have: tasks on the server, and open batches."""
    catalogue = workspace.catalogue
    server = team_url(workspace.root) or EMBEDDED
    ids = set(catalogue.batches.open_images())
    for project in catalogue.labelling.projects(server):
        if project.purpose == Purpose.ANNOTATION:
            ids |= {task.image_id for task in catalogue.labelling.tasks(project.id)}
    images = catalogue.images.select(ids=sorted(ids)) if ids else []
    return [image for image in images if image.state in OPEN]


def _done(name: str, work: Callable[[], str]) -> Step:
    started = time.monotonic()
    try:
        said, failed = work(), False
    except DdisegError as error:
        said, failed = str(error), True
    return Step(name, said, failed, time.monotonic() - started)


class _Round:
    """The steps of one round, and what they hand on."""

    def __init__(
        self,
        workspace: Workspace,
        find_connection: Callable[[], Connection],
        options: RoundOptions,
        actor: str,
        must_refresh: bool,
    ) -> None:
        self.workspace, self.options, self.actor = workspace, options, actor
        self.find_connection, self.must_refresh = find_connection, must_refresh
        self.connection: Connection | None = None  #: of a server that has answered

    def steps(self) -> list[tuple[str, Callable[[], str]]]:
        return [
            ("pull", self.pull),
            ("review", self.review),
            ("refresh", self.refresh),
            ("draw", self.draw),
            ("paint", self.paint),
            ("push", self.push),
        ]

    def pull(self) -> str:
        connection = self.find_connection()
        done = pull(self.workspace, connection, Purpose.ANNOTATION, self.actor)
        self.connection = connection
        return _counted(done.outcomes, "annotations")

    def review(self) -> str:
        if self.connection is None:
            return _NO_SERVER
        done = pull(self.workspace, self.connection, Purpose.REVIEW, self.actor)
        sample, seed = self.options.review_sample, self.options.seed
        given = push_reviews(self.workspace, self.connection, sample, seed, self.actor)
        verdicts = _counted(done.outcomes, "verdicts")
        return f"{verdicts}; {_counted(given.outcomes, 'masks given to reviewers')}"

    def refresh(self) -> str:
        options = self.options
        due = refresh_due(self.workspace.catalogue, options.every, options.max_age)
        if not (due.is_due or self.must_refresh):
            return f"not due: {due.why}"
        done = refresh(
            self.workspace,
            self.actor,
            options.backbone,
            options.seed,
            device=options.device,
            hold_out=True,
            tolerance=options.tolerance,
        )
        name, learned = done.version.name, len(done.version.training_masks)
        if not done.new:
            return f"{name} has learned from exactly these {learned} masks already"
        verdict = "in use" if done.in_use == name else f"refused, {done.in_use} stays in use"
        return f"{name}, from {learned} masks: {verdict} ({'; '.join(done.reasons)})"

    def draw(self) -> str:
        size = self.options.draw
        if not size:
            return "not asked for (--draw)"
        catalogue = self.workspace.catalogue
        if in_hand := work_in_hand(self.workspace):
            return f"not yet: {len(in_hand)} images are in people's hands or wait for them"
        for batch in catalogue.batches.all():
            if batch.closed_at is None:
                catalogue.batches.close(batch.name, self.actor)
        name = f"batch-{len(catalogue.batches.all()) + 1}"
        try:
            request = BatchRequest(size, seed=self.options.seed)
            drawn = draw_batch(catalogue, name, request, self.actor)
        except InputError as error:  # everything is labelled: no failure of the round
            return f"nothing drawn: {error}"
        tones = ", ".join(f"{tone} {n}" for tone, n in drawn.by_tone.items())
        return f"{name}: {len(drawn.members)} images ({tones})"

    def paint(self) -> str:
        images = work_in_hand(self.workspace)
        if not images:
            return "nothing to paint: 'ddiseg batch draw' or 'ddiseg label push' gives people work"
        try:
            painter = Painter.load(self.workspace, device=self.options.device)
        except NotFoundError:
            return "nothing painted: there is no model yet"
        return f"{_counted(painter.paint(images), 'images')} by {painter.version.name}"

    def push(self) -> str:
        if self.connection is None:
            return _NO_SERVER
        images = work_in_hand(self.workspace)
        if not images:
            return "nothing to push"
        done = push(self.workspace, self.connection, images, self.options.push, self.actor)
        return _counted(done.outcomes, "images")


class _Plan(_Round):
    """The same steps, each of which only says what it would do."""

    def __init__(
        self,
        workspace: Workspace,
        find_connection: Callable[[], Connection],
        options: RoundOptions,
    ) -> None:
        super().__init__(workspace, find_connection, options, "", must_refresh=False)

    def pull(self) -> str:
        self.connection = self.find_connection()
        return f"would ask {self.connection.url} for what people did"

    def review(self) -> str:
        if self.connection is None:
            return _NO_SERVER
        waiting = len(self.workspace.catalogue.masks.in_review())
        return f"would bring back verdicts; {waiting} masks wait for review"

    def refresh(self) -> str:
        due = refresh_due(self.workspace.catalogue, self.options.every, self.options.max_age)
        return f"would refresh: {due.why}" if due.is_due else f"not due: {due.why}"

    def draw(self) -> str:
        if not self.options.draw:
            return "not asked for (--draw)"
        in_hand = len(work_in_hand(self.workspace))
        if in_hand:
            return f"not yet: {in_hand} images are in people's hands or wait for them"
        return f"would draw a batch of {self.options.draw}"

    def paint(self) -> str:
        images = work_in_hand(self.workspace)
        try:
            version = self.workspace.catalogue.models.current()
        except NotFoundError:
            return "would paint nothing: there is no model yet"
        painted = self.workspace.catalogue.masks.predicted_by(version.id)
        todo = sum(image.id not in painted for image in images)
        return f"would paint {todo} of {len(images)} images with {version.name}"

    def push(self) -> str:
        if self.connection is None:
            return _NO_SERVER
        return f"would bring {len(work_in_hand(self.workspace))} images up to date on the server"


_NO_SERVER = "left out: the labelling server did not answer"


def _counted(outcomes: Sequence[FileOutcome], what: str) -> str:
    counts = {name: n for name, n in count(outcomes).items() if n}
    parts = ", ".join(f"{n} {name}" for name, n in counts.items())
    return f"{len(outcomes)} {what}{f': {parts}' if parts else ''}"
