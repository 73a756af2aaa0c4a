"""Prediction on a cluster: workers predict and encode masks, this process alone stores them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing

from ddiseg.catalogue.tables import Image, ModelVersion
from ddiseg.compute.ray_cluster import Cluster
from ddiseg.model.cluster_backbone import in_precision, originals_of
from ddiseg.model.cluster_jobs import PredictionJob, SharedBackbone, StoredPhotograph
from ddiseg.model.photographs import in_order
from ddiseg.model.predict import Found, store_predictions, unpredicted
from ddiseg.model.prediction_writer import PredictionWriter
from ddiseg.model.storage import model_file
from ddiseg.outcomes import FileOutcome, Progress
from ddiseg.workspace.workspace import Workspace
from fedd.segment import load_probes


def predict_on(
    cluster: Cluster,
    workspace: Workspace,
    version: ModelVersion,
    images: Sequence[Image],
    progress: Progress,
    device: str,
    precision: str,
) -> list[FileOutcome]:
    """Predict and store masks, as `ddiseg.model.predict.Predictor.predict` does on this machine.

    Raises:
        WorkspaceError: a node can't read the store, or Ray broke down; what was finished is kept.
    """
    todo = unpredicted(workspace, version, images)
    if not todo:
        return in_order(images, {}, {})
    cluster.check(workspace.store, originals=originals_of(todo))
    with model_file(workspace, version) as path:
        probes, trained = cluster.share(path.read_bytes()), load_probes(path).trained
    backbone = SharedBackbone.share(cluster, version.backbone, device)
    backbone = in_precision(cluster, workspace, backbone, precision)
    job = PredictionJob(backbone, probes, workspace.store.url)

    def found() -> Generator[Found, None, None]:
        rows = [StoredPhotograph.of(image) for image in todo]
        with closing(cluster.map(job, rows, backbone.resources)) as done:
            for number, result in done:
                yield todo[number], result

    writer = PredictionWriter(workspace, version, trained, backbone.precision)
    return store_predictions(writer, images, todo, found(), progress)
