"""A round of the loop: pull, review, refresh if due, select a batch if asked to, predict, push.

Every step can be repeated: the next round continues a stopped one. A failed step is reported and
does not prevent the others, except those that depend on it: if the labelling server does not answer,
nothing is pushed, but the model still learns from the masks in the catalogue.
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
from ddiseg.model.backbones import Backbones
from ddiseg.model.predict import Predictor
from ddiseg.model.train import train_version
from ddiseg.outcomes import (
    FileOutcome,
    Stages,
    count,
    counted,
    nothing_taken,
    reasons_in_words,
    silent_stages,
)
from ddiseg.sampling.batches import BatchRequest, DrawnBatch, draw_batch
from ddiseg.workspace.backup import roll_backup
from ddiseg.workspace.settings import StudySettings, TrainingSettings
from ddiseg.workspace.workspace import Workspace

#: Notes of a batch shown with the step; 'ddiseg batch show' shows all.
MAX_NOTES = 2


@dataclass(frozen=True)
class RoundOptions:
    """Options of a round.

    Raises:
        InputError: a number is out of range.
    """

    every: int = TrainingSettings.every  #: accepted masks that make a refresh due
    max_age: float = TrainingSettings.max_age  #: days; with a version that old, one mask is enough
    draw: int = 0  #: size of the next batch, selected once nobody has work left; 0 for none
    max_drop: float = TrainingSettings.max_drop
    backbone: str = "small"
    device: str = "auto"
    precision: str = TrainingSettings.precision
    ensemble: str = TrainingSettings.ensemble
    seed: int = 0
    review_sample: float = 100.0  #: percent of the masks that are reviewed
    push: PushOptions = field(default_factory=PushOptions)  #: for batches of rounds

    def __post_init__(self) -> None:
        TrainingSettings(every=self.every, max_age=self.max_age, max_drop=self.max_drop)
        StudySettings(review_sample=self.review_sample)
        if self.draw < 0:
            raise InputError(f"--draw is {self.draw}: give a number of images, or 0 for none")

    def as_dict(self) -> dict[str, Any]:
        """Return the options as the catalogue stores them with each round."""
        stored = asdict(self)
        return {**stored, "tolerance": stored.pop("max_drop")}


@dataclass(frozen=True)
class StepResult:
    """Result of a step of a round."""

    name: str
    said: str
    failed: bool
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        seconds = round(self.seconds, 2)
        return {"step": self.name, "said": self.said, "failed": self.failed, "seconds": seconds}


def shown_name(step: str) -> str:
    """Return the name of a step as people read it; the catalogue stores an older one of two steps."""
    return {"draw": "select", "paint": "predict"}.get(step, step)


def run_round(
    workspace: Workspace,
    find_connection: Callable[[], Connection],
    options: RoundOptions,
    actor: str,
    *,
    must_refresh: bool = False,
    on_step: Callable[[StepResult], object] = lambda _step: None,
    stages: Stages = silent_stages,
    backbones: Backbones | None = None,
) -> list[StepResult]:
    """Run a round and record each step; returns the steps.

    Args:
        find_connection: returns the labelling server; raises WorkspaceError if there is none.
        must_refresh: refresh even if it is not due.
        on_step: called with each step once it is done.
        stages: progress of each stage of a step.
        backbones: those that are in memory; a server's round shares them with its requests.

    Raises:
        LeaseHeldError: another round runs on this catalogue.
        LeaseLostError: another process has taken the lease; no further step was begun.
    """
    with workspace.catalogue.leases.hold(ROUND) as lease:
        roll_backup(workspace)
        rounds = workspace.catalogue.rounds
        number = rounds.begin(actor, options.as_dict())
        done: list[StepResult] = []
        current = _Round(
            workspace, find_connection, options, actor, must_refresh, stages, backbones
        )
        for name, work in current.steps():
            lease.check()
            step = _run_step(name, work)
            on_step(step)
            rounds.step(number, step.as_dict())
            done.append(step)
        rounds.end(number, "failed" if any(step.failed for step in done) else "done")
    return done


def plan_round(
    workspace: Workspace, find_connection: Callable[[], Connection], options: RoundOptions
) -> list[StepResult]:
    """Return what a round would do now, as far as that is known before a pull; changes nothing."""
    plan = _Plan(workspace, find_connection, options, actor="")
    return [_run_step(name, work) for name, work in plan.steps()]


def work_in_hand(workspace: Workspace) -> list[Image]:
    """Return the images in people's hands: tasks on the server, and open batches."""
    return Worklist.read(workspace).images


def _run_step(name: str, work: Callable[[], str]) -> StepResult:
    started = time.monotonic()
    try:
        said, failed = work(), False
    except (UserError, OSError) as error:
        said, failed = str(error), True
    except Exception as error:  # noqa: BLE001 - a defect in one step must not end the others
        said, failed = str(defect(error)), True
    return StepResult(name, said, failed, time.monotonic() - started)


class _Round:
    """The steps of one round, and the state that they share."""

    def __init__(
        self,
        workspace: Workspace,
        find_connection: Callable[[], Connection],
        options: RoundOptions,
        actor: str,
        must_refresh: bool = False,
        stages: Stages = silent_stages,
        backbones: Backbones | None = None,
    ) -> None:
        self.workspace, self.options, self.actor, self.stages = workspace, options, actor, stages
        self.find_connection, self.must_refresh = find_connection, must_refresh
        self.backbones = backbones or Backbones(workspace)
        self.connection: Connection | None = None  #: of a server that answered

    def steps(self) -> list[tuple[str, Callable[[], str]]]:
        return [
            ("pull", self.pull),
            ("review", self.review),
            ("refresh", self.refresh),
            ("draw", self.select),
            ("paint", self.predict),
            ("push", self.push),
        ]

    def pull(self) -> str:
        connection = self.find_connection()
        done = pull(self.workspace, connection, Purpose.ANNOTATION, self.actor)
        self.connection = connection
        return _summary(done.outcomes, "annotation")

    def review(self) -> str:
        if self.connection is None:
            return _NO_SERVER
        done = pull(self.workspace, self.connection, Purpose.REVIEW, self.actor)
        sample, seed = self.options.review_sample, self.options.push.seed
        pushed = push_reviews(
            *(self.workspace, self.connection, sample, seed, self.actor, self.stages),
            left_out_too=False,
        )
        given = _summary(pushed.outcomes, "mask given to reviewers", "masks given to reviewers")
        parts = [_summary(done.outcomes, "verdict"), given]
        if pushed.unsampled:
            parts.append(f"{counted(pushed.unsampled, 'mask')} left out by spot checks")
        return "; ".join(parts)

    def refresh(self) -> str:
        options, due = self.options, self.due()
        if not (due.is_due or self.must_refresh):
            return f"not due: {due.why}"
        done = train_version(
            self.workspace,
            self.actor,
            options.backbone,
            options.seed,
            stages=self.stages,
            device=options.device,
            precision=options.precision,
            backbones=self.backbones,
            start_holdout=True,
            max_drop=options.max_drop,
            ensemble=options.ensemble,
        )
        name, learned = done.version.name, counted(len(done.version.training_masks), "mask")
        if not done.new:
            return f"{name} has already learned from exactly these masks ({learned})"
        kept = f"{done.in_use} stays in use" if done.in_use else "no version is in use"
        verdict = "in use" if done.in_use == name else f"refused, {kept}"
        return f"{name}, from {learned}: {verdict} ({'; '.join(done.reasons)})"

    def select(self) -> str:
        size = self.options.draw
        if not size:
            return _NO_DRAW
        catalogue = self.workspace.catalogue
        before = [batch.name for batch in catalogue.batches.all() if batch.closed_at is None]
        if in_hand := work_in_hand(self.workspace):
            return _not_yet(in_hand)
        predicted = self._predict_candidates()
        name = next_name({batch.name for batch in catalogue.batches.all()})
        try:
            request = BatchRequest(size, seed=self.options.push.seed)
            batch = draw_batch(catalogue, name, request, self.actor, origin=BatchOrigin.ROUND)
        except InputError as error:  # everything is labelled: not a failure
            return f"nothing selected: {error}"
        for finished in before:
            catalogue.batches.close(finished, self.actor)
        return "; ".join([_batch_text(name, batch), *predicted, *_notes(name, batch)])

    def predict(self) -> str:
        images = work_in_hand(self.workspace)
        if not images and not self.workspace.catalogue.images.select(states=OPEN):
            return "nothing to predict: no image is open"
        if not images:
            return (
                "nothing to predict: 'ddiseg batch draw' or 'ddiseg label push' gives people work"
            )
        if self.predictor is None:
            return "nothing predicted: there is no model yet"
        outcomes = self.predictor.predict(images, self.stages("Predicting images"))
        _raise_if_nothing_taken(outcomes)
        return f"{_summary(outcomes, 'image')} by {self.predictor.version.name}"

    def push(self) -> str:
        if self.connection is None:
            return _NO_SERVER
        work, options = Worklist.read(self.workspace), self.options.push
        unchanged = replace(options, readers=1)  # existing tasks get no more readers
        outcomes: list[FileOutcome] = []
        for images, push_options in ((work.given, unchanged), (work.to_give, options)):
            if images:
                done = push(
                    self.workspace, self.connection, images, push_options, self.actor, self.stages
                )
                outcomes += done.outcomes
        _raise_if_nothing_taken(outcomes)
        text = _summary(outcomes, "image") if outcomes else "nothing to push"
        return "; ".join([text, *work.reminders])

    def due(self) -> Due:
        """Whether a refresh is due by these options."""
        age = timedelta(days=self.options.max_age)
        return refresh_due(self.workspace.catalogue, self.options.every, age)

    @cached_property
    def predictor(self) -> Predictor | None:
        """The version in use, loaded after the refresh; None if there is none yet."""
        try:
            return Predictor.load(
                self.workspace,
                device=self.options.device,
                precision=self.options.precision,
                backbones=self.backbones,
            )
        except NotFoundError:
            return None

    def _predict_candidates(self) -> list[str]:
        """Predict the candidates of a batch, which would otherwise be selected at random."""
        options = self.options
        images = images_to_score(self.workspace.catalogue, options.draw, options.push.seed)
        if not images or self.predictor is None:
            return []
        outcomes = self.predictor.predict(images, self.stages("Predicting images"))
        text = f"{_summary(outcomes, 'image')} by {self.predictor.version.name}"
        return [f"chosen among {text}"]


class _Plan(_Round):
    """The same steps, each of which only reports what it would do."""

    def pull(self) -> str:
        self.connection = self.find_connection()
        return f"would ask {self.connection.url} for what people did"

    def review(self) -> str:
        if self.connection is None:
            return _NO_SERVER
        waiting = len(self.workspace.catalogue.masks.in_review())
        return f"would bring back verdicts; {counted(waiting, 'mask')} in review"

    def refresh(self) -> str:
        due = self.due()
        return f"would refresh: {due.why}" if due.is_due else f"not due: {due.why}"

    def select(self) -> str:
        size = self.options.draw
        if not size:
            return _NO_DRAW
        if in_hand := work_in_hand(self.workspace):
            return _not_yet(in_hand)
        images = images_to_score(self.workspace.catalogue, size, self.options.push.seed)
        if not images:
            return "would select nothing: no image may be selected"
        return f"{self._would_predict(images)}, then select a batch of {size}"

    def predict(self) -> str:
        return self._would_predict(work_in_hand(self.workspace))

    def push(self) -> str:
        if self.connection is None:
            return _NO_SERVER
        work = Worklist.read(self.workspace)
        text = f"would bring {counted(len(work.given), 'image')} up to date on the server"
        if work.to_give:
            text += f", and give people {len(work.to_give)} more"
        return "; ".join([text, *work.reminders])

    def _would_predict(self, images: Sequence[Image]) -> str:
        version = self.workspace.catalogue.models.current_or_none()
        if version is None:
            return "would predict nothing, since there is no model yet"
        predicted = self.workspace.catalogue.masks.predicted_by(version.id)
        todo = sum(image.id not in predicted for image in images)
        return f"would predict {todo} of {counted(len(images), 'image')} with {version.name}"


_NO_SERVER = "left out: the labelling server did not answer"
_NO_DRAW = "not asked for (--draw)"


def _not_yet(in_hand: Sequence[Image]) -> str:
    return f"not yet: {counted(len(in_hand), 'image')} in people's hands or waiting for them"


def _batch_text(name: str, batch: DrawnBatch) -> str:
    tones = ", ".join(f"{tone} {n}" for tone, n in batch.by_tone.items())
    at_random = sum(member.random for member in batch.members)
    return f"{name}: {counted(len(batch.members), 'image')} ({tones}), {at_random} at random"


def _notes(name: str, batch: DrawnBatch) -> list[str]:
    """Return the first notes of a batch, and where the others are."""
    more = len(batch.notes) - MAX_NOTES
    rest = [f"{counted(more, 'more note')}: 'ddiseg batch show {name}'"] if more > 0 else []
    return [*batch.notes[:MAX_NOTES], *rest]


def _raise_if_nothing_taken(outcomes: Sequence[FileOutcome]) -> None:
    """Raise DdisegError if every image of a step was refused, for then the cause is common."""
    if nothing_taken(outcomes):
        raise DdisegError(f"nothing was taken; {reasons_in_words(outcomes, 'images')}")


def _summary(outcomes: Sequence[FileOutcome], noun: str, plural: str | None = None) -> str:
    parts = ", ".join(f"{n} {name}" for name, n in count(outcomes).items() if n)
    return f"{counted(len(outcomes), noun, plural)}{f': {parts}' if parts else ''}"
