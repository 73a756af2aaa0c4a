"""Prediction: masks of images by the current model, stored in the catalogue."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from ddiseg.catalogue.tables import Image, ModelVersion
from ddiseg.compute.job import Refused
from ddiseg.errors import WorkspaceError
from ddiseg.model.backbones import Backbones, load_version_on, say_precision
from ddiseg.model.photographs import in_order, reason, sources
from ddiseg.model.prediction_writer import EncodedPrediction, PredictionWriter
from ddiseg.outcomes import FileOutcome, Progress, silent
from ddiseg.workspace.workspace import Workspace
from fedd.backbone import Placed, precision_of
from fedd.pipeline import predictions
from fedd.segment import Prediction, Probes

if TYPE_CHECKING:
    from ddiseg.compute.ray_cluster import Cluster


#: An image with its prediction, or why it can't be predicted.
Found: TypeAlias = tuple[Image, Prediction | EncodedPrediction | Refused]


def prelabel(
    workspace: Workspace,
    images: Sequence[Image],
    progress: Progress = silent,
    *,
    device: str = "cpu",
    precision: str = "float32",
    cluster: Cluster | None = None,
) -> tuple[ModelVersion, list[FileOutcome]]:
    """Predict masks with the current model, see `Predictor`; on a cluster where one is given."""
    if cluster is not None:
        from ddiseg.model.cluster_predict import predict_on

        version = workspace.catalogue.models.current()
        return version, predict_on(cluster, workspace, version, images, progress, device, precision)
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
        todo = unpredicted(self.workspace, self.version, images)
        if not todo:
            return in_order(images, {}, {})
        found = self._found(todo)
        writer = PredictionWriter(
            self.workspace, self.version, self.probes.trained, self._precision
        )
        return store_predictions(writer, images, todo, found, progress)

    def _found(self, todo: Sequence[Image]) -> Generator[Found, None, None]:
        found = predictions(self.probes, self.net, sources(self.workspace, todo))
        with closing(found):
            for each in found:
                yield each.key, each.prediction or Refused(reason(each.key, each.error))


def unpredicted(
    workspace: Workspace, version: ModelVersion, images: Sequence[Image]
) -> list[Image]:
    """Return the images that a version has not predicted yet, each once."""
    predicted = workspace.catalogue.masks.predicted_by(version.id)
    return list({image.id: image for image in images if image.id not in predicted}.values())


def store_predictions(
    writer: PredictionWriter,
    images: Sequence[Image],
    todo: Sequence[Image],
    found: Generator[Found, None, None],
    progress: Progress,
) -> list[FileOutcome]:
    """Store predictions as they come, in any order; returns the outcome of each of `images`.

    Raises:
        WorkspaceError: the store or the catalogue can't be written.
    """
    refused: dict[int, str] = {}
    try:
        with writer, closing(found):
            for done, (image, prediction) in enumerate(found, start=1):
                if isinstance(prediction, Refused):
                    refused[image.id] = prediction.reason
                else:
                    writer.add(image, prediction)
                progress(done, len(todo))
    except WorkspaceError as error:
        raise WorkspaceError(
            f"{error}; {len(writer.stored):,} of {len(todo):,} predictions are stored, and the same "
            "command goes on from there"
        ) from error
    return in_order(images, writer.stored, refused | writer.refused)
