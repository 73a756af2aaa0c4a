"""Storage of predictions while the next ones are computed.

Masks are hashed, encoded and written on threads; their rows follow in batches. A batch is committed
only once its files are on the disk with their names, so that no row names a file that a kill or a
power cut took. What is stopped before that leaves at most files without a row, which the next run uses.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ddiseg.catalogue import NewMask
from ddiseg.catalogue.embeddings import embedding_space
from ddiseg.catalogue.tables import Image, ModelVersion
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.masks import Rating, mask_hash, rate
from ddiseg.outcomes import Outcome
from ddiseg.workspace.mask_writer import MaskWriter
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from fedd.segment import Prediction

#: Predictions of a transaction, and seconds after which fewer are one.
TRANSACTION, SECONDS = 64, 2.0

#: Batches on their way to the catalogue.
BATCHES = 2


class EncodedPrediction(NamedTuple):
    """A prediction as a worker of a cluster sends it."""

    mask: bytes  #: the file that the store keeps
    digest: str  #: the hash of the mask in it
    uncertainty: float
    embedding: bytes  #: (D,) float32
    rating: Rating


@dataclass(frozen=True)
class _Waiting:
    """A prediction without its mask, which a thread stores and whose hash it returns."""

    image: Image
    uncertainty: float
    rating: Rating
    embedding: NDArray[np.float32]
    digest: Future[str]


class PredictionWriter:
    """Stores the predictions of a model version; use it in a `with` statement.

    The end of the statement stores the rest. An error in it does so too; Ctrl-C drops what is in no
    full batch yet.
    """

    def __init__(
        self,
        workspace: Workspace,
        version: ModelVersion,
        classes: Sequence[int],
        precision: str = "float32",
    ) -> None:
        self._detail = {"precision": precision}  # of the events
        self._workspace, self._version, self._classes = workspace, version, list(classes)
        self._space = embedding_space(version.backbone_hash, version.settings)
        self.stored: dict[int, Outcome] = {}  #: added or unchanged, by image id
        self.refused: dict[int, str] = {}  #: why a mask can't be stored, by image id
        self._masks = MaskWriter(self._put_mask)
        self._committer = ThreadPoolExecutor(1, "catalogue")  # one writer keeps batches in order
        self._batch: list[_Waiting] = []
        self._committing: deque[Future[None]] = deque()
        self._sealed_at = time.monotonic()

    def add(self, image: Image, prediction: Prediction | EncodedPrediction) -> None:
        """Hand in a prediction; waits while too many are held.

        Raises:
            WorkspaceError: an earlier one can't be stored.
        """
        digest = self._masks.add(prediction)
        if isinstance(prediction, EncodedPrediction):
            embedding, rating = np.frombuffer(prediction.embedding, np.float32), prediction.rating
        else:
            embedding, rating = prediction.embedding, rate(prediction.expected_iou, prediction.mask)
        self._batch.append(_Waiting(image, prediction.uncertainty, rating, embedding, digest))
        late = time.monotonic() - self._sealed_at >= SECONDS
        if late or len(self._batch) >= TRANSACTION:
            self._seal()
        while self._committing and (self._committing[0].done() or len(self._committing) > BATCHES):
            self._committing.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        interrupted = kind is not None and not issubclass(kind, Exception)
        self._masks.end(drop=interrupted)
        if not interrupted:
            self._seal()
        self._committer.shutdown()
        self._masks.join()
        problems = [each.exception() for each in self._committing]
        first = next((each for each in problems if each is not None), None)
        if first is not None and kind is None:
            raise first

    def _seal(self) -> None:
        self._sealed_at = time.monotonic()
        if self._batch:
            self._committing.append(self._committer.submit(self._commit, self._batch))
            self._batch = []

    def _put_mask(self, prediction: Prediction | EncodedPrediction) -> str:
        if isinstance(prediction, EncodedPrediction):
            self._workspace.put_encoded_mask(prediction.mask, prediction.digest)
            return prediction.digest
        digest = mask_hash(prediction.mask)
        self._workspace.put_mask(prediction.mask, digest)
        return digest

    def _commit(self, batch: Sequence[_Waiting]) -> None:
        """Store the rows of a batch, after its files; raises the first error of a file afterwards."""
        written: list[tuple[_Waiting, str]] = []
        problem: WorkspaceError | None = None
        for each in batch:
            try:
                written.append((each, each.digest.result()))
            except CancelledError:
                continue
            except InputError as error:  # of this file alone
                self.refused[each.image.id] = str(error)
            except WorkspaceError as error:
                problem = problem or error
        self._workspace.store.flush_names(Kind.MASK, [digest for _, digest in written])
        added = self._workspace.catalogue.masks.add_predictions(
            [self._row(each, digest) for each, digest in written],
            (self._space, {each.image.id: each.embedding for each, _ in written}),
            self._detail,
        )
        for (each, _), outcome in zip(written, added, strict=True):
            self.stored[each.image.id] = outcome
        if problem is not None:
            raise problem

    def _row(self, predicted: _Waiting, digest: str) -> NewMask:
        return NewMask(
            image_id=predicted.image.id,
            content_hash=digest,
            width=predicted.image.width,
            height=predicted.image.height,
            mapping="same",
            classes=self._classes,
            protocol_version=self._version.protocol_version,
            model_version_id=self._version.id,
            uncertainty=predicted.uncertainty,
            expected_iou=predicted.rating.expected_iou,
            quality=predicted.rating.quality,
        )
