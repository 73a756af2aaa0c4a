"""A round of the loop: pull, review, refresh where it is due, draw where it is asked for, paint, push.

Every step can be repeated: what a stopped round has done is found done by the next one. A step that
fails is told and does not keep the others from running, but for those that need what it failed on:
where the labelling server does not answer, nothing is pushed, and what is here is still learned from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from typing import Any

from annotation_protocol import UserError
from ddiseg.catalogue import BatchOrigin, Purpose
from ddiseg.catalogue.leases import ROUND
from ddiseg.catalogue.tables import Image
from ddiseg.errors import DdisegError, InputError, NotFoundError, defect
from ddiseg.labelstudio.connection import Connection
from ddiseg.labelstudio.pull import pull
from ddiseg.labelstudio.push import OPEN, PushOptions, push
from ddiseg.labelstudio.review import push_reviews
from ddiseg.loop.auto_batches import images_to_score, next_name
from ddiseg.loop.schedule import Due, refresh_due
from ddiseg.loop.worklist import Worklist
from ddiseg.model.predict import Predictor
from ddiseg.model.train import refresh
from ddiseg.outcomes import (
    FileOutcome,
    Stages,
    count,
    nothing_taken,
    reasons_in_words,
    silent_stages,
)
from ddiseg.sampling.batches import BatchRequest, DrawnBatch, draw_batch
from ddiseg.workspace.settings import StudySettings, TrainingSettings
from ddiseg.workspace.workspace import Workspace

#: Called with a line for the person who watches.
Say = Callable[[str], None]

#: Notes of a draw in the line of its step; 'ddiseg batch show' has them all.
NOTED = 2


@dataclass(frozen=True)
class RoundOptions:
    """What a round does, and when it learns.

    Raises InputError for numbers that can't be.
    """

    every: int = TrainingSettings.every  #: accepted masks that make a refresh due
    max_age: float = TrainingSettings.max_age  #: days; with a version that old, one mask is enough
    draw: int = 0  #: images of the next batch, drawn once nobody has work left; 0 draws none
    tolerance: float = TrainingSettings.max_drop
    backbone: str = "small"
    device: str = "auto"
    seed: int = 0
    review_sample: float = 100.0  #: percent of the masks that are reviewed
    push: PushOptions = field(default_factory=PushOptions)  #: of batches that rounds drew

    def __post_init__(self) -> None:
        TrainingSettings(every=self.every, max_age=self.max_age, max_drop=self.tolerance)
        StudySettings(review_sample=self.review_sample)
        if self.draw < 0:
            raise InputError(f"--draw is {self.draw}: give a number of images, or 0 for none")

    def as_dict(self) -> dict[str, Any]:
        """Return the options as the catalogue keeps them with each round."""
        return asdict(self)


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
    stages: Stages = silent_stages,
) -> list[Step]:
    """Run a round and write down each step as it is done; returns the steps.

    Args:
        find_connection: the labelling server, or a WorkspaceError where there is none.
        must_refresh: refresh though it may not be due.
        stages: shows how far each stage of a step is.

    Raises:
        LeaseHeldError: another round runs on this catalogue.
        LeaseLostError: another process has taken the lease; no further step was begun.
    """
    with workspace.catalogue.leases.hold(ROUND) as lease:
        rounds = workspace.catalogue.rounds
        number = rounds.begin(actor, options.as_dict())
        done: list[Step] = []
        new = _Round(workspace, find_connection, options, actor, must_refresh, stages)
        for name, work in new.steps():
            lease.check()
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


@dataclass(frozen=True)
class RefreshSettings:
    """When a refresh is due, and where each number comes from.

    Raises InputError for numbers that can't be.
    """

    every: int
    max_age: float  #: days
    sources: dict[str, str]  #: by option, such as "--every"

    def __post_init__(self) -> None:
        RoundOptions(every=self.every, max_age=self.max_age)

    @classmethod
    def read(
        cls, workspace: Workspace, every: int | None = None, max_age: float | None = None
    ) -> RefreshSettings:
        """Return the numbers given; else the workspace's; else the last round's; else the defaults."""
        row, default = workspace.catalogue.rounds.last_with_settings(), RoundOptions()
        changed = workspace.training().changed()
        recorded = (row.settings if row is not None else None) or {}
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for name, given in (("every", every), ("max_age", max_age)):
            option = f"--{name.replace('_', '-')}"
            if given is not None:
                values[name], sources[option] = given, "given here"
            elif (key := f"training.{option[2:]}") in changed:
                values[name], sources[option] = changed[key], "as in ddiseg.toml"
            elif row is not None and name in recorded:
                values[name], sources[option] = recorded[name], f"as in round {row.id}"
            else:
                values[name] = getattr(default, name)
                sources[option] = "the default, no round recorded its own"
        return cls(**values, sources=sources)

    @property
    def as_text(self) -> str:
        every, max_age = self.sources.values()
        numbers = f"--every {self.every}", f"--max-age {self.max_age:g}"
        if every == max_age:
            return f"{', '.join(numbers)} ({every})"
        return f"{numbers[0]} ({every}), {numbers[1]} ({max_age})"


def work_in_hand(workspace: Workspace) -> list[Image]:
    """The images that people have or are to have: tasks on the server, and open batches."""
    return Worklist.read(workspace).images


def _done(name: str, work: Callable[[], str]) -> Step:
    started = time.monotonic()
    try:
        said, failed = work(), False
    except (UserError, OSError) as error:
        said, failed = str(error), True
    except Exception as error:  # noqa: BLE001 - one step's defect must not end the others
        said, failed = str(defect(error)), True
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
        stages: Stages = silent_stages,
    ) -> None:
        self.workspace, self.options, self.actor = workspace, options, actor
        self.stages = stages
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
        sample, seed = self.options.review_sample, self.options.push.seed
        given = push_reviews(
            self.workspace,
            self.connection,
            sample,
            seed,
            self.actor,
            self.stages,
            left_out_too=False,
        )
        said = [
            _counted(done.outcomes, "verdicts"),
            _counted(given.outcomes, "masks given to reviewers"),
        ]
        if given.unsampled:
            said.append(f"{given.unsampled} left out by spot checks stay submitted")
        return "; ".join(said)

    def refresh(self) -> str:
        options, due = self.options, self.due()
        if not (due.is_due or self.must_refresh):
            return f"not due: {due.why}"
        done = refresh(
            self.workspace,
            self.actor,
            options.backbone,
            options.seed,
            stages=self.stages,
            device=options.device,
            hold_out=True,
            tolerance=options.tolerance,
        )
        name, learned = done.version.name, len(done.version.training_masks)
        if not done.new:
            return f"{name} has learned from exactly these {learned} masks already"
        stays = f"{done.in_use} stays in use" if done.in_use else "no version is in use"
        verdict = "in use" if done.in_use == name else f"refused, {stays}"
        return f"{name}, from {learned} masks: {verdict} ({'; '.join(done.reasons)})"

    def draw(self) -> str:
        size = self.options.draw
        if not size:
            return _NO_DRAW
        catalogue = self.workspace.catalogue
        before = [batch.name for batch in catalogue.batches.all() if batch.closed_at is None]
        if in_hand := work_in_hand(self.workspace):
            return _not_yet(in_hand)
        painted = self._paint_what_may_be_drawn()
        name = next_name({batch.name for batch in catalogue.batches.all()})
        try:
            request = BatchRequest(size, seed=self.options.push.seed)
            drawn = draw_batch(catalogue, name, request, self.actor, origin=BatchOrigin.ROUND)
        except InputError as error:  # everything is labelled: no failure of the round
            return f"nothing drawn: {error}"
        for finished in before:
            catalogue.batches.close(finished, self.actor)
        return "; ".join([_told(name, drawn), *painted, *_notes(name, drawn)])

    def paint(self) -> str:
        images = work_in_hand(self.workspace)
        if not images and not self.workspace.catalogue.images.select(states=OPEN):
            return "nothing to paint: no image is open"
        if not images:
            return "nothing to paint: 'ddiseg batch draw' or 'ddiseg label push' gives people work"
        if self.painter is None:
            return "nothing painted: there is no model yet"
        outcomes = self.painter.paint(images, self.stages("Predicting images"))
        _raise_if_nothing_taken(outcomes, "images")
        return _painted(self.painter, outcomes)

    def push(self) -> str:
        if self.connection is None:
            return _NO_SERVER
        work, options = Worklist.read(self.workspace), self.options.push
        as_it_was_given = replace(options, readers=1)  # asks for no more readers than there are
        outcomes: list[FileOutcome] = []
        for images, how in ((work.given, as_it_was_given), (work.to_give, options)):
            if images:
                done = push(self.workspace, self.connection, images, how, self.actor, self.stages)
                outcomes += done.outcomes
        _raise_if_nothing_taken(outcomes, "images")
        said = _counted(outcomes, "images") if outcomes else "nothing to push"
        return "; ".join([said, *work.left_to_persons])

    def due(self) -> Due:
        """Whether a refresh is due by these options."""
        age = timedelta(days=self.options.max_age)
        return refresh_due(self.workspace.catalogue, self.options.every, age)

    @cached_property
    def painter(self) -> Predictor | None:
        """The version in use, in memory, once the refresh is over; None where there is none yet."""
        try:
            return Predictor.load(self.workspace, device=self.options.device)
        except NotFoundError:
            return None

    def _paint_what_may_be_drawn(self) -> list[str]:
        """Paint the images among which a draw chooses, or it could only draw by lot; says how many."""
        images = images_to_score(
            self.workspace.catalogue, self.options.draw, self.options.push.seed
        )
        if not images or self.painter is None:
            return []
        outcomes = self.painter.paint(images, self.stages("Predicting images"))
        return [f"chosen among {_painted(self.painter, outcomes)}"]


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
        due = self.due()
        return f"would refresh: {due.why}" if due.is_due else f"not due: {due.why}"

    def draw(self) -> str:
        size = self.options.draw
        if not size:
            return _NO_DRAW
        if in_hand := work_in_hand(self.workspace):
            return _not_yet(in_hand)
        images = images_to_score(self.workspace.catalogue, size, self.options.push.seed)
        if not images:
            return "would draw nothing: no image may be drawn"
        return f"{self._would_paint(images)}, then draw a batch of {size}"

    def paint(self) -> str:
        return self._would_paint(work_in_hand(self.workspace))

    def push(self) -> str:
        if self.connection is None:
            return _NO_SERVER
        work = Worklist.read(self.workspace)
        said = f"would bring {len(work.given)} images up to date on the server"
        if work.to_give:
            said += f", and give people {len(work.to_give)} more"
        return "; ".join([said, *work.left_to_persons])

    def _would_paint(self, images: Sequence[Image]) -> str:
        version = self.workspace.catalogue.models.current_or_none()
        if version is None:
            return "would paint nothing, since there is no model yet"
        painted = self.workspace.catalogue.masks.predicted_by(version.id)
        todo = sum(image.id not in painted for image in images)
        return f"would paint {todo} of {len(images)} images with {version.name}"


_NO_SERVER = "left out: the labelling server did not answer"
_NO_DRAW = "not asked for (--draw)"


def _not_yet(in_hand: Sequence[Image]) -> str:
    return f"not yet: {len(in_hand)} images are in people's hands or wait for them"


def _told(name: str, drawn: DrawnBatch) -> str:
    tones = ", ".join(f"{tone} {n}" for tone, n in drawn.by_tone.items())
    by_lot = sum(member.random for member in drawn.members)
    return f"{name}: {len(drawn.members)} images ({tones}), {by_lot} by lot"


def _notes(name: str, drawn: DrawnBatch) -> list[str]:
    """The first notes of a draw, and where the others are."""
    more = len(drawn.notes) - NOTED
    rest = [f"{more} more notes: 'ddiseg batch show {name}'"] if more > 0 else []
    return [*drawn.notes[:NOTED], *rest]


def _raise_if_nothing_taken(outcomes: Sequence[FileOutcome], what: str) -> None:
    """Fail a step of which everything was refused; what is missing then is missing for all."""
    if nothing_taken(outcomes):
        raise DdisegError(f"nothing was taken; {reasons_in_words(outcomes, what)}")


def _painted(painter: Predictor, outcomes: Sequence[FileOutcome]) -> str:
    return f"{_counted(outcomes, 'images')} by {painter.version.name}"


def _counted(outcomes: Sequence[FileOutcome], what: str) -> str:
    counts = {name: n for name, n in count(outcomes).items() if n}
    parts = ", ".join(f"{n} {name}" for name, n in counts.items())
    return f"{len(outcomes)} {what}{f': {parts}' if parts else ''}"
