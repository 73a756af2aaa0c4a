"""The same work on a Ray cluster of two nodes as on this machine alone."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ddiseg.catalogue.embeddings import embedding_space
from ddiseg.compute.ray_cluster import Cluster, connect
from ddiseg.model.predict import prelabel
from ddiseg.model.train import Refreshed
from ddiseg.outcomes import Outcome
from ddiseg.workspace.store import Kind
from ddiseg.workspace.verify import verify
from ddiseg.workspace.workspace import Workspace

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]

Learn = Callable[..., Refreshed]


@pytest.fixture
def cluster(ray_address: str) -> Iterator[Cluster]:
    with connect(ray_address) as connected:
        yield connected


@pytest.fixture
def both(spots: Workspace, learn: Learn) -> tuple[Workspace, Workspace]:
    """A workspace with a model, and a copy of it with a store of its own."""
    learn(spots)
    spots.catalogue.close()
    shutil.copytree(spots.root, spots.root.parent / "on-ray")
    return Workspace.open(spots.root), Workspace.open(spots.root.parent / "on-ray")


def _predicted(workspace: Workspace) -> tuple[list[tuple[object, ...]], bytes]:
    """Masks and embeddings of the predictions, to the last bit."""
    rows = workspace.catalogue.masks.newest_predictions()
    version = workspace.catalogue.models.current()
    space = embedding_space(version.backbone_hash, version.settings)
    ids, vectors = workspace.catalogue.embeddings.of(space)
    order = np.argsort(ids)
    found = [(i, rows[i].content_hash, rows[i].uncertainty, rows[i].classes) for i in sorted(rows)]
    return found, ids[order].tobytes() + vectors[order].tobytes()


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
