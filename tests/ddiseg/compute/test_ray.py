"""The same work on a Ray cluster of two nodes as on this machine alone."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue.embeddings import embedding_space
from ddiseg.compute.job import Refused
from ddiseg.compute.ray_cluster import Cluster, connect
from ddiseg.errors import WorkspaceError
from ddiseg.evaluation.segmentation import evaluate
from ddiseg.ingest.metadata import parse_columns
from ddiseg.ingest.photographs import import_photographs
from ddiseg.model.malignancy import prelabel_malignancy
from ddiseg.model.malignancy_training import refresh_malignancy
from ddiseg.model.predict import prelabel
from ddiseg.model.storage import stored_probes
from ddiseg.model.train import Refreshed, train_version
from ddiseg.outcomes import Outcome
from ddiseg.workspace.store import Kind
from ddiseg.workspace.verify import verify
from ddiseg.workspace.workspace import Workspace
from fedd.errors import DeviceMemoryError
from fedd.malignancy.classifier import ClassifierSettings
from tests.ddiseg.spots import accept_more
from tests.fedd.conftest import QUICK, mole, spot
from tests.ray_jobs import Doubling, Failing
from tests.ray_nodes import RayNodes
from tests.wording import Refusal

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]

Learn = Callable[..., Refreshed]


@pytest.fixture
def cluster(ray_nodes: RayNodes) -> Iterator[Cluster]:
    with connect(ray_nodes.address) as connected:
        yield connected


@pytest.fixture
def both(spots: Workspace, learn: Learn) -> tuple[Workspace, Workspace]:
    """A workspace with a model, and a copy of it with a store of its own."""
    learn(spots)
    return _copies(spots)


def _copies(workspace: Workspace) -> tuple[Workspace, Workspace]:
    workspace.catalogue.close()
    shutil.copytree(workspace.root, workspace.root.parent / "on-ray")
    return Workspace.open(workspace.root), Workspace.open(workspace.root.parent / "on-ray")


def _predicted(workspace: Workspace) -> tuple[list[tuple[object, ...]], bytes]:
    """Masks and embeddings of the predictions, to the last bit."""
    rows = workspace.catalogue.masks.newest_predictions()
    version = workspace.catalogue.models.current()
    space = embedding_space(version.backbone_hash, version.settings)
    ids, vectors = workspace.catalogue.embeddings.of(space)
    order = np.argsort(ids)
    names = ("content_hash", "uncertainty", "classes", "expected_iou", "quality")
    found = [(i, *(getattr(rows[i], name) for name in names)) for i in sorted(rows)]
    return found, ids[order].tobytes() + vectors[order].tobytes()


def _train_both(both: tuple[Workspace, Workspace], weights: Path, cluster: Cluster) -> list[Any]:
    """Train anew with a hold-out set on both; what each recorded, without how long it took."""
    found = []
    for workspace, where in zip(both, (None, cluster), strict=True):
        settings = replace(QUICK, mirrored=True, steps=20)
        done = train_version(
            *(workspace, "tester", str(weights), 1, settings), start_holdout=True, cluster=where
        )
        record = {k: v for k, v in done.version.metrics.items() if k != "seconds"}
        probes = stored_probes(workspace, done.version)
        tensors = {name: tensor.tolist() for name, tensor in probes.tensors.items()}
        found.append((tensors, probes.record, record, done.version.gate, done.in_use))
    return found


def test_refresh__same_version_as_on_this_machine(
    spots: Workspace, learn: Learn, tiny_weights: Path, cluster: Cluster
) -> None:
    learn(spots)
    accept_more(spots, [5, 6, 7, 8])
    both = _copies(spots)
    local, on_ray = _train_both(both, tiny_weights, cluster)
    assert on_ray == local
    assert local[3] is not None, "there was a gate"
    assert _predicted(both[1])[1] == _predicted(both[0])[1], "embeddings"


@pytest.fixture
def moles(workspace: Workspace, tmp_path: Path, tiny_weights: Path) -> Workspace:
    """12 photographs, every second malignant, and a classifier that learned from them."""
    (tmp_path / "photographs").mkdir()
    rows = ["file,patient,malignant"]
    for number in range(12):
        picture = Image.fromarray(mole(number, number % 2 == 0))
        picture.save(tmp_path / "photographs" / f"{number}.png")
        rows.append(f"{number}.png,p{number},{number % 2 == 0}")
    (tmp_path / "rows.csv").write_text("\n".join(rows))
    columns = parse_columns("image=file,patient=patient,malignant=malignant")
    import_photographs(
        workspace, tmp_path / "photographs", metadata=tmp_path / "rows.csv", columns=columns
    )
    quick = ClassifierSettings(timestep=10, block=5, epochs=2)
    refresh_malignancy(workspace, "tester", str(tiny_weights), 0, quick)
    return workspace


def test_malignancy_predict__same_bits_as_on_this_machine(
    moles: Workspace, cluster: Cluster
) -> None:
    local, on_ray = _copies(moles)
    found = []
    for workspace, where in ((local, None), (on_ray, cluster)):
        images = workspace.catalogue.images.select()
        version, outcomes = prelabel_malignancy(workspace, images, cluster=where)
        found.append((outcomes, workspace.catalogue.malignancy.of_version(version.id)))
    assert found[1] == found[0]
    assert len(found[0][1]) == len(found[0][0])


def test_import__same_rows_and_files_as_on_this_machine(
    tmp_path: Path, workspace: Workspace, cluster: Cluster
) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(6):
        Image.fromarray(spot(number)[0]).save(folder / f"{number}.jpg", exif=_turned())
    shutil.copy(folder / "2.jpg", folder / "5.jpg")
    (folder / "3.jpg").write_bytes(b"no photograph")
    local, on_ray = _copies(workspace)
    found = [
        import_photographs(each, folder, actor="tester", cluster=where)
        for each, where in ((local, None), (on_ray, cluster))
    ]
    assert found[1] == found[0]
    counts = Counter(outcome.outcome for outcome in found[1].outcomes)
    assert counts == {Outcome.ADDED: 5, Outcome.REFUSED: 1}
    assert _imported(on_ray) == _imported(local)
    again = import_photographs(on_ray, folder, actor="tester", cluster=cluster)
    assert {o.outcome for o in again.outcomes} == {Outcome.UNCHANGED, Outcome.REFUSED}


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _imported(workspace: Workspace) -> list[object]:
    """What the catalogue and the store hold of each image."""
    found: list[object] = []
    for each in workspace.catalogue.images.select():
        stored = workspace.store.get(Kind.IMAGE, each.content_hash)
        mode = os.stat(workspace.store.path(Kind.IMAGE, each.content_hash)).st_mode
        found.append((each.id, each.name, each.content_hash, each.perceptual_hash, stored, mode))
    return found


def test_evaluate__same_scores_as_on_this_machine(
    both: tuple[Workspace, Workspace], cluster: Cluster
) -> None:
    truth = both[0].root.parent / "truth"
    found = []
    for workspace, where in zip(both, (None, cluster), strict=True):
        prelabel(workspace, workspace.catalogue.images.select(ids=[5, 6, 7, 8, 9]))
        found.append(evaluate(workspace, "tester", truth=truth, cluster=where))
    assert found[1] == found[0]
    assert found[0]["n_images"] > 0
    local, on_ray = (
        {i: each.lesion_iou for i, each in w.catalogue.evaluations.last_compared().items()}
        for w in both
    )
    assert on_ray == local


def test_map__worker_dies_once(tmp_path: Path, cluster: Cluster) -> None:
    job = Doubling(deadly_once=6, folder=str(tmp_path))
    found = list(cluster.map(job, range(10), cluster.resources("cpu")))
    assert sorted(number for number, _ in found) == list(range(10)), "none lost, none twice"
    assert dict(found) == {n: Refused("odd") if n % 2 else 2 * n for n in range(10)}
    assert (tmp_path / "met").exists()


def test_map__item_that_kills_each_worker_is_refused_alone(
    cluster: Cluster, wording: SnapshotAssertion
) -> None:
    found = list(cluster.map(Doubling(deadly=4), range(10), cluster.resources("cpu")))
    assert sorted(number for number, _ in found) == list(range(10))
    refused = dict(found)[4]
    assert isinstance(refused, Refused)
    assert refused.reason == wording
    assert {n: each for n, each in found if n % 2 == 0 and n != 4} == {0: 0, 2: 4, 6: 12, 8: 16}


@pytest.mark.parametrize("at_start", [True, False])
def test_map__exception_ends_the_run_as_on_this_machine(at_start: bool, cluster: Cluster) -> None:
    with pytest.raises(DeviceMemoryError, match="no memory for"):
        list(cluster.map(Failing(at_start), range(4), cluster.resources("cpu")))


def test_prelabel__same_bits_as_on_this_machine(
    both: tuple[Workspace, Workspace], cluster: Cluster
) -> None:
    local, on_ray = both
    seen: list[tuple[int, int]] = []
    lost = on_ray.catalogue.images.find("6.png")
    for workspace in both:
        Path(workspace.store.path(Kind.IMAGE, lost.content_hash)).unlink()
    _, expected = prelabel(local, local.catalogue.images.select())
    _, outcomes = prelabel(
        on_ray,
        on_ray.catalogue.images.select(),
        lambda done, total: seen.append((done, total)),
        cluster=cluster,
    )
    assert outcomes == expected
    assert Counter(o.outcome for o in outcomes) == {Outcome.ADDED: 8, Outcome.REFUSED: 1}
    assert _predicted(on_ray) == _predicted(local)
    for workspace in both:
        assert [p.part for p in verify(workspace).problems] == ["image"]
    assert seen == [(done, 9) for done in range(1, 10)]
    _, again = prelabel(on_ray, on_ray.catalogue.images.select(ids=[5, 6]), cluster=cluster)
    assert {o.outcome for o in again} == {Outcome.UNCHANGED}


def test_check__node_that_differs(
    workspace: Workspace, tmp_path: Path, ray_nodes: RayNodes, refusal: Refusal
) -> None:
    with (
        ray_nodes.other(tmp_path) as folder,
        connect(ray_nodes.address) as cluster,
    ):
        cluster.check(workspace.store, writes=True)  # nothing is wrong yet
        lists_before = sorted(os.listdir(workspace.store.url))
        (folder / "torch-1.0.dist-info").mkdir()
        metadata = folder / "torch-1.0.dist-info" / "METADATA"
        metadata.write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.0\n")
        with refusal(WorkspaceError):
            cluster.check(workspace.store)
        shutil.rmtree(folder / "torch-1.0.dist-info")
        (folder / "hidden").touch()
        with refusal(WorkspaceError):
            cluster.check(workspace.store)
        (folder / "hidden").unlink()
        with refusal(WorkspaceError):
            cluster.check(workspace.store, originals=["/only/here.jpg"])
        assert sorted(os.listdir(workspace.store.url)) == lists_before, "nothing is left behind"
