"""A round of the loop: pull, review, refresh if due, select a batch if asked to, predict, push.

Every step can be repeated: the next round continues a stopped one. A failed step is reported and
does not prevent the others, except those that depend on it: if the labelling server does not answer,
nothing is pushed, but the model still learns from the masks in the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

from ddiseg.catalogue import BatchOrigin, Purpose
from ddiseg.catalogue.leases import ROUND
from ddiseg.catalogue.tables import Image
from ddiseg.errors import DdisegError, InputError, NotFoundError
from ddiseg.labelstudio.connection import Connection
from ddiseg.labelstudio.pull import pull
from ddiseg.labelstudio.push import OPEN, push
from ddiseg.labelstudio.review import push_reviews
from ddiseg.loop.auto_batches import images_to_score, next_name
from ddiseg.loop.options import RoundOptions
from ddiseg.loop.schedule import refresh_due
from ddiseg.loop.steps import NO_DRAW, NO_SERVER, StepResult, not_yet, run_step
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
from ddiseg.workspace.workspace import Workspace

#: Notes of a batch shown with the step; 'ddiseg batch show' shows all.
MAX_NOTES = 2


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
            step = run_step(name, work)
            on_step(step)
            rounds.step(number, step.as_dict())
            done.append(step)
        rounds.end(number, "failed" if any(step.failed for step in done) else "done")
    return done


def work_in_hand(workspace: Workspace) -> list[Image]:
    """Return the images in people's hands: tasks on the server, and open batches."""
    return Worklist.read(workspace).images


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
            return NO_SERVER
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
        options = self.options
        due = refresh_due(self.workspace.catalogue, options.every, options.longest)
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
            corrected_weight=options.corrected_weight,
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
            return NO_DRAW
        catalogue = self.workspace.catalogue
        before = [batch.name for batch in catalogue.batches.all() if batch.closed_at is None]
        if in_hand := work_in_hand(self.workspace):
            return not_yet(len(in_hand))
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
            return NO_SERVER
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
