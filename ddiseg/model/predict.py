"""Prediction: masks of images by the current model, stored in the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property

from ddiseg.catalogue.tables import Image, ModelVersion
from ddiseg.errors import WorkspaceError
from ddiseg.model.backbones import Backbones, Placed, load_version_on, say_precision
from ddiseg.model.photographs import in_order, reason, sources
from ddiseg.model.prediction_writer import PredictionWriter
from ddiseg.outcomes import FileOutcome, Progress, silent
from ddiseg.workspace.workspace import Workspace
from fedd.backbone import precision_of
from fedd.pipeline import predictions
from fedd.segment import Probes


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
    net: Placed

    @classmethod
    def load(
        cls,
        workspace: Workspace,
        *,
        device: str = "cpu",
        precision: str = "float32",
        backbones: Backbones | None = None,
    ) -> Predictor:
        """Return the current model; its backbone runs on `device` ("auto": all GPUs, or the CPU).

        Args:
            precision: of the backbone, as `Backbones.get` takes it.
            backbones: those that are in memory.

        Raises:
            NotFoundError: there is no model yet.
            WorkspaceError: its file was changed.
        """
        version = workspace.catalogue.models.current()
        probes, net = load_version_on(workspace, version, device, precision, backbones)
        return cls(workspace, version, probes, net)

    @cached_property
    def _precision(self) -> str:
        """The precision of predictions; the first of them say where the model learned in another one."""
        say_precision(self.version.name, self.probes.record.precision, self.net)
        return precision_of(self.net)

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
        if not todo:
            return in_order(images, {}, {})
        found = predictions(self.probes, self.net, sources(self.workspace, todo))
        writer = PredictionWriter(
            self.workspace, self.version, self.probes.trained, self._precision
        )
        refused: dict[int, str] = {}
        try:
            with writer, closing(found):
                for done, each in enumerate(found, start=1):
                    if each.prediction is None:
                        refused[each.key.id] = reason(each.key, each.error)
                    else:
                        writer.add(each.key, each.prediction)
                    progress(done, len(todo))
        except WorkspaceError as error:
            raise WorkspaceError(
                f"{error}; {len(writer.stored):,} of {len(todo):,} predictions are stored, and the same "
                "command goes on from there"
            ) from error
        return in_order(images, writer.stored, refused | writer.refused)
