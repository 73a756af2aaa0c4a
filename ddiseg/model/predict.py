"""Prediction: masks of images by the current model, stored in the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddiseg.catalogue import NewMask
from ddiseg.catalogue.embeddings import embedding_space
from ddiseg.catalogue.tables import Image, ModelVersion
from ddiseg.model.storage import load_version, opened_ahead
from ddiseg.outcomes import FileOutcome, Outcome, Progress, silent
from ddiseg.workspace.workspace import Workspace
from fedd.backbone import DiffusionUNet, Replicas, place
from fedd.segment import Prediction, Probes

#: Photographs of a batch, on a CPU and on GPUs, and predictions of a transaction.
BATCH, GPU_BATCH, TRANSACTION = 8, 64, 64


def prelabel(
    workspace: Workspace,
    images: Sequence[Image],
    progress: Progress = silent,
    *,
    device: str = "cpu",
    precision: str = "float32",
) -> tuple[ModelVersion, list[FileOutcome]]:
    """Predict masks with the current model, see `Predictor`."""
    predictor = Predictor.load(workspace, device=device, precision=precision)
    return predictor.version, predictor.predict(images, progress)


@dataclass(frozen=True)
class Predictor:
    """A model version in memory, ready to predict masks of a workspace's images."""

    workspace: Workspace
    version: ModelVersion
    probes: Probes
    net: DiffusionUNet | Replicas

    @classmethod
    def load(
        cls, workspace: Workspace, *, device: str = "cpu", precision: str = "float32"
    ) -> Predictor:
        """Return the current model; its backbone runs on `device` ("auto": all GPUs, or the CPU).

        Raises:
            NotFoundError: there is no model yet.
            WorkspaceError: its file was changed.
        """
        version = workspace.catalogue.models.current()
        probes, found = load_version(workspace, version)
        return cls(workspace, version, probes, place(found, device, precision))

    def predict(self, images: Sequence[Image], progress: Progress = silent) -> list[FileOutcome]:
        """Predict and store masks; images that this version has predicted are unchanged.

        A prediction changes nothing about an image that people have begun, finished or skipped.
        Predictions are stored as they come, so a stopped run loses at most the last few.
        """
        predicted = self.workspace.catalogue.masks.predicted_by(self.version.id)
        outcomes = [FileOutcome(i.name, Outcome.UNCHANGED) for i in images if i.id in predicted]
        todo = [image for image in images if image.id not in predicted]
        waiting: list[tuple[Image, Prediction, str]] = []
        size = BATCH if self.net.devices[0].type == "cpu" else GPU_BATCH
        parts = [todo[start : start + size] for start in range(0, len(todo), size)]
        opened = opened_ahead(self.workspace, parts, outcomes)
        for done, (part, photographs) in enumerate(opened, start=1):
            for image, prediction in zip(part, self._masks(photographs), strict=True):
                digest = self.workspace.store_mask(prediction.mask)
                waiting.append((image, prediction, digest))
            if len(waiting) >= TRANSACTION or done == len(parts):
                outcomes += self._store(waiting)
                waiting = []
            progress(min(done * size, len(todo)), len(todo))
        return outcomes

    def _masks(self, photographs: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        return self.probes.predict(self.net, photographs) if photographs else []

    def _store(self, predicted: Sequence[tuple[Image, Prediction, str]]) -> list[FileOutcome]:
        catalogue = self.workspace.catalogue
        # Embeddings go first: an image with a prediction is never predicted again.
        space = embedding_space(self.version.backbone_hash, self.version.settings)
        catalogue.embeddings.add(space, {i.id: each.embedding for i, each, _ in predicted})
        added = catalogue.masks.add_predictions(
            [
                NewMask(
                    image_id=image.id,
                    content_hash=digest,
                    width=image.width,
                    height=image.height,
                    mapping="same",
                    classes=list(self.probes.trained),
                    protocol_version=self.version.protocol_version,
                    model_version_id=self.version.id,
                    uncertainty=each.uncertainty,
                )
                for image, each, digest in predicted
            ]
        )
        return [FileOutcome(i.name, o) for (i, _, _), o in zip(predicted, added, strict=True)]
