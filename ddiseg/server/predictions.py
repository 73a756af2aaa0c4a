"""Predictions for the tasks of a request: stored ones, and those there is time to compute.

A task is answered with a list or with one prediction. The empty list is Label Studio's "none": it
stores nothing and asks again when the task is next opened. An empty prediction would be stored and
shown (docs/decisions/0016).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pydantic_core import to_json

from annotation_protocol import UserError, load_protocol
from ddiseg import masks
from ddiseg.catalogue import Arm, Purpose
from ddiseg.catalogue.tables import Image, Mask, Task
from ddiseg.labelstudio.projects import known_projects
from ddiseg.labelstudio.push import OPEN
from ddiseg.labelstudio.task_payload import prediction, score_of
from ddiseg.loop.round import work_in_hand
from ddiseg.model.predict import Predictor
from ddiseg.outcomes import Outcome
from ddiseg.server.jobs import StoppedError
from ddiseg.server.metrics import Metrics
from ddiseg.server.model_cache import ModelCache
from ddiseg.server.schemas import RequestedTask, database_id
from ddiseg.workspace.workspace import Workspace

#: Seconds in which a request is answered; Label Studio gives up after 100.
BUDGET = 80.0

#: Seconds reserved for each task of a request, to encode and send its stored mask.
SECONDS_PER_TASK = 0.005

#: Maximum number of images predicted at a time: more would not fit a GPU.
MAX_BATCH = 64

#: Images that a `JobKind.PREDICT` job predicts before it frees the model for a request, or can stop.
JOB_BATCH = 8

#: Tasks whose regions are encoded and sent together, to bound the memory an answer takes.
_CHUNK = 16

UNKNOWN = "it is no annotation task of this workspace"
WITHHELD = "its prediction is withheld: it measures what pre-annotation does"
BEGUN = "somebody has worked on it: the prediction that they were shown stays as it was"
QUEUED = "it has no prediction yet: it is queued; open the task again later"


@dataclass(frozen=True)
class KnownTask:
    """A task of this workspace with its image."""

    task: Task
    image: Image


@dataclass(frozen=True)
class _Available:
    """A task and the mask to show in it."""

    known: KnownTask
    mask: Mask
    source: str  #: "stored" or "computed"


@dataclass(frozen=True)
class _Missing:
    """A task whose image has no prediction yet."""

    known: KnownTask


@dataclass(frozen=True)
class _Answer:
    """An encoded prediction."""

    available: _Available
    json: bytes

    @property
    def is_new(self) -> bool:
        """Whether the catalogue does not know yet that the task shows this mask."""
        task = self.available.known.task
        return task.mask_id != self.available.mask.id or task.arm != Arm.PREDICTED


#: The answer planned for a task; a text says why there is none.
_Finding: TypeAlias = _Available | _Missing | str


class Predictions:
    """Answers /predict for a workspace. Every method blocks: call it from a thread."""

    def __init__(self, workspace: Workspace, model: ModelCache, metrics: Metrics) -> None:
        self._workspace, self._model, self._metrics = workspace, model, metrics

    def find(
        self, project: str | None, requested: Sequence[RequestedTask], deadline: float
    ) -> tuple[list[_Finding], bool]:
        """Find a mask for each task, predicting until `deadline` (monotonic seconds).

        Returns:
            A finding a task, and whether images are left for a `JobKind.PREDICT` job.
        """
        known = find_tasks(self._workspace, project, requested)
        findings = self._stored(known, requested)
        missing = {f.known.image.id: f.known.image for f in findings if isinstance(f, _Missing)}
        if not missing:
            return findings, False
        refused = self._predict(
            list(missing.values()), deadline - SECONDS_PER_TASK * len(requested)
        )
        predicted = self._workspace.catalogue.masks.newest_predictions(list(missing))
        completed: list[_Finding] = []
        for finding in findings:
            if isinstance(finding, _Missing):
                image_id = finding.known.image.id
                mask = predicted.get(image_id)
                if mask is not None:
                    finding = _Available(finding.known, mask, "computed")
                else:
                    finding = refused.get(image_id, QUEUED)
            completed.append(finding)
        return completed, QUEUED in completed

    def answer(
        self, requested: Sequence[RequestedTask], findings: Sequence[_Finding]
    ) -> Iterator[bytes]:
        """Yield the JSON of the response: `results`, one a task, and `unanswered` with reasons."""
        unanswered = []
        yield b'{"results":['
        for start in range(0, len(findings), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            pieces = self._record([self._encode(each) for each in findings[chunk]])
            for task, piece in zip(requested[chunk], pieces, strict=True):
                if isinstance(piece, str):
                    unanswered.append({"task": task.number, "reason": piece})
            answers = (b"[]" if isinstance(piece, str) else piece for piece in pieces)
            yield (b"," if start else b"") + b",".join(answers)
        self._metrics.predictions.labels("unanswered").inc(len(unanswered))
        yield b'],"unanswered":' + to_json(unanswered) + b"}"

    def _stored(
        self, known: Sequence[KnownTask | None], requested: Sequence[RequestedTask]
    ) -> list[_Finding]:
        catalogue = self._workspace.catalogue
        predicted = catalogue.masks.newest_predictions([k.image.id for k in known if k])
        shown = catalogue.masks.get([k.task.mask_id for k in known if k and k.task.mask_id])
        return [
            UNKNOWN if task is None else _stored_mask(task, each.has_work, shown, predicted)
            for task, each in zip(known, requested, strict=True)
        ]

    def _predict(self, images: Sequence[Image], deadline: float) -> dict[int, str]:
        """Predict as many images as there is time for; returns reasons of refusal, by image id."""
        if time.monotonic() >= deadline:
            return {}
        try:
            with self._model.predictor(deadline) as predictor:
                return _predict_until(predictor, images, deadline)
        except UserError as error:
            return {image.id: str(error) for image in images}

    def _encode(self, finding: _Finding) -> _Answer | str:
        """Return a prediction as JSON, or the reason why there is none."""
        if not isinstance(finding, _Available):
            return str(finding)
        task, mask = finding.known.task, finding.mask
        try:
            pixels = masks.stretch(self._workspace.mask(mask), (task.height, task.width))
            protocol = load_protocol()
            content = prediction(pixels, mask.content_hash, protocol, score_of(mask, protocol))
        except UserError as error:
            return str(error)
        return _Answer(finding, to_json(content))

    def _record(self, answers: Sequence[_Answer | str]) -> list[bytes | str]:
        """Record new predictions in the catalogue, before anyone sees them; returns what to send."""
        new = {
            answer.available.known.task.id: answer.available.mask.id
            for answer in answers
            if isinstance(answer, _Answer) and answer.is_new
        }
        problem = None
        try:
            if new:
                self._workspace.catalogue.tasks.show(new)
        except UserError as error:
            problem = str(error)
        pieces: list[bytes | str] = []
        for answer in answers:
            if isinstance(answer, str):
                pieces.append(answer)
            elif answer.is_new and problem is not None:
                pieces.append(problem)
            else:
                self._metrics.predictions.labels(answer.available.source).inc()
                pieces.append(answer.json)
        return pieces


def find_tasks(
    workspace: Workspace, project: str | None, requested: Sequence[RequestedTask]
) -> list[KnownTask | None]:
    """Return the annotation task of this workspace for each requested one; None if there is none.

    Project, number and key must all belong to one task: after a server was set up anew, its numbers
    mean other tasks. Nothing that a request names is ever opened.

    Args:
        project: the request's, as Label Studio names it: "3.1795406531".
    """
    projects = known_projects(workspace)
    project_ids = [_project_id(each, project) for each in requested]
    found: dict[tuple[int, int], Task] = {}
    for project_id in {n for n in project_ids if n is not None}:
        row = projects.get(project_id)
        if row is None or row.purpose != Purpose.ANNOTATION:
            continue
        pairs = zip(requested, project_ids, strict=True)
        numbers = {each.number for each, n in pairs if n == project_id and each.number is not None}
        rows = workspace.catalogue.tasks.numbered(row.id, numbers)
        found |= {(project_id, number): task for number, task in rows.items()}
    images = {
        image.id: image
        for image in workspace.catalogue.images.select(ids=[t.image_id for t in found.values()])
    }
    known: list[KnownTask | None] = []
    for each, in_project in zip(requested, project_ids, strict=True):
        task = found.get((in_project or 0, each.number or 0))
        matches = task is not None and task.deleted_at is None and task.key == each.key
        known.append(KnownTask(task, images[task.image_id]) if task and matches else None)
    return known


def predict_open_work(
    workspace: Workspace, model: ModelCache, stopping: Callable[[], bool]
) -> None:
    """Predict the images in people's hands that no model has predicted (`JobKind.PREDICT`).

    Label Studio asks again for a task that is opened, and then gets its prediction.

    Raises:
        StoppedError: `stopping` returned true before the end.
    """
    predicted = workspace.catalogue.masks.newest_predictions()
    images = [image for image in work_in_hand(workspace) if image.id not in predicted]
    for start in range(0, len(images), JOB_BATCH):
        if stopping():
            raise StoppedError("the server stops")
        with model.predictor() as predictor:
            predictor.predict(images[start : start + JOB_BATCH])


def _project_id(requested: RequestedTask, of_request: str | None) -> int | None:
    """Return the id of a task's project: its own, or else the request's."""
    if requested.project is not None:
        return database_id(requested.project)
    match = re.fullmatch(r"([0-9]{1,10})(\.[0-9]+)?", of_request or "")
    return database_id(int(match[1])) if match else None


def _stored_mask(
    known: KnownTask, has_work: bool, shown: Mapping[int, Mask], predicted: Mapping[int, Mask]
) -> _Finding:
    task, image = known.task, known.image
    if task.arm == Arm.CONTROL:
        return WITHHELD
    has_work = has_work or image.state not in OPEN
    mask = shown.get(task.mask_id or 0)
    if mask is not None and (has_work or mask.annotator is not None):
        return _Available(known, mask, "stored")
    if has_work:
        return BEGUN
    newest = predicted.get(image.id)
    return _Missing(known) if newest is None else _Available(known, newest, "stored")


def _predict_until(
    predictor: Predictor, images: Sequence[Image], deadline: float
) -> dict[int, str]:
    """Predict one image, then as many at a time as are likely to be done by the deadline.

    Returns:
        Why images can't be predicted, by image id.
    """
    refused: dict[int, str] = {}
    waiting, size = list(images), 1
    while waiting:
        started = time.monotonic()
        batch, waiting = waiting[:size], waiting[size:]
        for image, outcome in zip(batch, predictor.predict(batch), strict=True):
            if outcome.outcome is Outcome.REFUSED and outcome.note is not None:
                refused[image.id] = outcome.note
        now = time.monotonic()
        affordable = int((deadline - now) * len(batch) / max(now - started, 1e-6))
        size = min(2 * size, affordable, MAX_BATCH)
        if size < 1:
            break
    return refused
