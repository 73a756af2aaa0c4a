"""Prediction: masks of images by the current model, stored in the catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ddiseg.catalogue.tables import Image, ModelVersion
from ddiseg.errors import WorkspaceError
from ddiseg.model.prediction_writer import PredictionWriter
from ddiseg.model.storage import load_version, opened_ahead
from ddiseg.outcomes import FileOutcome, Outcome, Progress, silent
from ddiseg.workspace.workspace import Workspace
from fedd.backbone import DiffusionUNet, Replicas, place
from fedd.segment import Prediction, Probes

#: Photographs of a batch, on a CPU and on GPUs.
BATCH, GPU_BATCH = 8, 64


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

        Returns:
            An outcome for each of `images`, in their order.

        Raises:
            WorkspaceError: the store or the catalogue can't be written.
            DeviceError: a photograph does not fit into the GPU's memory.
        """
        predicted = self.workspace.catalogue.masks.predicted_by(self.version.id)
        todo = list({image.id: image for image in images if image.id not in predicted}.values())
        writer = PredictionWriter(self.workspace, self.version, self.probes.trained)
        refused: dict[int, str] = {}
        try:
            with writer:
                for done, (image, prediction) in enumerate(self._predictions(todo), start=1):
                    if isinstance(prediction, str):
                        refused[image.id] = prediction
                    else:
                        writer.add(image, prediction)
                    progress(done, len(todo))
        except WorkspaceError as error:
            raise WorkspaceError(
                f"{error}; {len(writer.stored):,} of {len(todo):,} predictions are stored, and the same "
                "command goes on from there"
            ) from error
        return _outcomes(images, writer.stored, refused | writer.refused)

    def _predictions(self, images: Sequence[Image]) -> Iterator[tuple[Image, Prediction | str]]:
        """Yield each image with its prediction, or the reason why it has none, in their order."""
        size = BATCH if self.net.devices[0].type == "cpu" else GPU_BATCH
        parts = [images[start : start + size] for start in range(0, len(images), size)]
        refused: list[FileOutcome] = []
        for part, (opened, photographs) in zip(
            parts, opened_ahead(self.workspace, parts, refused), strict=True
        ):
            found = self.probes.predict(self.net, photographs) if photographs else []
            of = {image.id: each for image, each in zip(opened, found, strict=True)}
            notes = iter(refused)
            for image in part:
                yield image, of[image.id] if image.id in of else str(next(notes).note)
            refused.clear()


def _outcomes(
    images: Sequence[Image], stored: dict[int, Outcome], refused: dict[int, str]
) -> list[FileOutcome]:
    """Return the outcome of each image; of one that is given twice, the second is unchanged."""
    left = dict(stored)
    return [
        FileOutcome(image.name, Outcome.REFUSED, refused[image.id])
        if image.id in refused
        else FileOutcome(image.name, left.pop(image.id, Outcome.UNCHANGED))
        for image in images
    ]
