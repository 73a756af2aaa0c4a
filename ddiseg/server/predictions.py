"""Predictions for the tasks of one request: stored ones, and what there is time to compute.

A task is answered with a list, or with one prediction. The empty list is Label Studio's "none": it
stores nothing and asks again when the task is next opened. An empty prediction it would keep, and
show as one (docs/decisions/0016).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pydantic_core import to_json

from annotation_protocol import UserError, load_protocol
from ddiseg import masks
from ddiseg.catalogue import Arm
from ddiseg.catalogue.tables import Image, Mask
from ddiseg.labelstudio.push import OPEN
from ddiseg.labelstudio.task_payload import prediction
from ddiseg.model.predict import Predictor
from ddiseg.outcomes import Outcome
from ddiseg.server.known_tasks import AskedTask, KnownTask, find_tasks
from ddiseg.server.metrics import Metrics
from ddiseg.server.model_cache import ModelCache
from ddiseg.workspace.workspace import Workspace

#: Seconds in which a request is answered; Label Studio gives up after 100.
BUDGET = 80.0

#: Seconds that answering one task takes at most, once its mask is stored: kept back from painting.
ANSWERING = 0.005

#: Images painted at a time: more would not fit a GPU.
MOST_AT_A_TIME = 64

#: Tasks whose regions are encoded before they are sent: they are all that memory holds of an answer.
_TOGETHER = 16

UNKNOWN = "it is no annotation task of this workspace"
WITHHELD = "its prediction is withheld: it measures what pre-annotation does"
BEGUN = "somebody has worked on it: what they found painted stays as it was"
QUEUED = "it is not painted yet: it is queued; open the task again later"


@dataclass(frozen=True)
class _Painted:
    """A task and the mask that it shows."""

    known: KnownTask
    mask: Mask
    how: str  #: "stored" or "computed"


@dataclass(frozen=True)
class _Unpainted:
    """A task that could show a mask, were there one."""

    known: KnownTask


@dataclass(frozen=True)
class _Shown:
    """A prediction as it is answered."""

    of: _Painted
    json: bytes

    @property
    def is_new(self) -> bool:
        """Whether the catalogue does not know yet that the task shows this mask."""
        task = self.of.known.task
        return task.mask_id != self.of.mask.id or task.arm != Arm.PREDICTED


#: What is to be answered for a task; a text is why nothing is.
_Finding: TypeAlias = _Painted | _Unpainted | str


class Predictions:
    """Answers /predict for a workspace. Every method blocks: call it from a thread."""

    def __init__(self, workspace: Workspace, model: ModelCache, metrics: Metrics) -> None:
        self._workspace, self._model, self._metrics = workspace, model, metrics

    def find(
        self, project: str | None, asked: Sequence[AskedTask], deadline: float
    ) -> tuple[list[_Finding], bool]:
        """What each task is answered with, painting until `deadline` (monotonic seconds).

        The second result says whether images are left that a PAINT job should paint.
        """
        known = find_tasks(self._workspace, project, asked)
        findings = self._decide(known, asked)
        wanted = {f.known.image.id: f.known.image for f in findings if isinstance(f, _Unpainted)}
        if not wanted:
            return findings, False
        why = self._paint(list(wanted.values()), deadline - ANSWERING * len(asked))
        predicted = self._workspace.catalogue.masks.newest_predictions(list(wanted))
        settled: list[_Finding] = []
        for finding in findings:
            if isinstance(finding, _Unpainted):
                image = finding.known.image
                mask = predicted.get(image.id)
                if mask is not None:
                    finding = _Painted(finding.known, mask, "computed")
                else:
                    finding = why.get(image.id, QUEUED)
            settled.append(finding)
        return settled, QUEUED in settled

    def answer(self, asked: Sequence[AskedTask], findings: Sequence[_Finding]) -> Iterator[bytes]:
        """The response's JSON, piece by piece: `results`, one a task, and who was `unanswered`, why."""
        unanswered = []
        yield b'{"results":['
        for start in range(0, len(findings), _TOGETHER):
            part = slice(start, start + _TOGETHER)
            pieces = self._written_down([self._shown(each) for each in findings[part]])
            for each, piece in zip(asked[part], pieces, strict=True):
                if isinstance(piece, str):
                    unanswered.append({"task": each.number, "reason": piece})
            answers = (b"[]" if isinstance(piece, str) else piece for piece in pieces)
            yield (b"," if start else b"") + b",".join(answers)
        self._metrics.predictions.labels("unanswered").inc(len(unanswered))
        yield b'],"unanswered":' + to_json(unanswered) + b"}"

    def _decide(
        self, known: Sequence[KnownTask | None], asked: Sequence[AskedTask]
    ) -> list[_Finding]:
        catalogue = self._workspace.catalogue
        predicted = catalogue.masks.newest_predictions([k.image.id for k in known if k])
        shown = catalogue.masks.get([k.task.mask_id for k in known if k and k.task.mask_id])
        return [
            UNKNOWN if task is None else _decide_one(task, each.begun, shown, predicted)
            for task, each in zip(known, asked, strict=True)
        ]

    def _paint(self, images: Sequence[Image], deadline: float) -> dict[int, str]:
        """Paint what there is time for; returns why images can't be painted at all, by image id."""
        if time.monotonic() >= deadline:
            return {}
        try:
            with self._model.painter(deadline) as painter:
                return _paint_until(painter, images, deadline)
        except UserError as error:
            return {image.id: str(error) for image in images}

    def _shown(self, finding: _Finding) -> _Shown | str:
        """A prediction as JSON, or why there is none."""
        if not isinstance(finding, _Painted):
            return str(finding)
        task, mask = finding.known.task, finding.mask
        try:
            pixels = masks.stretch(self._workspace.mask(mask), (task.height, task.width))
            shown = prediction(pixels, mask.content_hash, load_protocol(), mask.uncertainty)
        except UserError as error:
            return str(error)
        return _Shown(finding, to_json(shown))

    def _written_down(self, pieces: Sequence[_Shown | str]) -> list[bytes | str]:
        """The pieces to send: the catalogue knows of a prediction before anyone sees it."""
        new = {
            piece.of.known.task.id: piece.of.mask.id
            for piece in pieces
            if isinstance(piece, _Shown) and piece.is_new
        }
        problem = None
        try:
            if new:
                self._workspace.catalogue.tasks.show(new)
        except UserError as error:
            problem = str(error)
        written: list[bytes | str] = []
        for piece in pieces:
            if isinstance(piece, str):
                written.append(piece)
            elif piece.is_new and problem is not None:
                written.append(problem)
            else:
                self._metrics.predictions.labels(piece.of.how).inc()
                written.append(piece.json)
        return written


def _decide_one(
    known: KnownTask, begun: bool, shown: Mapping[int, Mask], predicted: Mapping[int, Mask]
) -> _Finding:
    task, image = known.task, known.image
    if task.arm == Arm.CONTROL:
        return WITHHELD
    begun = begun or image.state not in OPEN
    mask = shown.get(task.mask_id or 0)
    if mask is not None and (begun or mask.annotator is not None):
        return _Painted(known, mask, "stored")
    if begun:
        return BEGUN
    newest = predicted.get(image.id)
    return _Unpainted(known) if newest is None else _Painted(known, newest, "stored")


def _paint_until(painter: Predictor, images: Sequence[Image], deadline: float) -> dict[int, str]:
    """Paint one image, then as many at a time as are likely done by the deadline.

    Returns why images can't be painted, by their ids.
    """
    refused: dict[int, str] = {}
    waiting, size = list(images), 1
    while waiting:
        started = time.monotonic()
        part = _of_different_names(waiting, size)
        for outcome in painter.paint(list(part.values())):
            if outcome.outcome is Outcome.REFUSED and outcome.note is not None:
                refused[part[outcome.name].id] = outcome.note
        done = {image.id for image in part.values()}
        waiting = [image for image in waiting if image.id not in done]
        now = time.monotonic()
        fitting = int((deadline - now) * len(part) / max(now - started, 1e-6))
        size = min(2 * size, fitting, MOST_AT_A_TIME)
        if size < 1:
            break
    return refused


def _of_different_names(images: Sequence[Image], most: int) -> dict[str, Image]:
    """The first images by name, `most` at most: an outcome tells its image by the name alone."""
    found: dict[str, Image] = {}
    for image in images:
        found.setdefault(image.name, image)
        if len(found) == most:
            break
    return found
