"""Import and prelabel in a process of their own, and what they leave in the catalogue."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from annotation_protocol import UserError
from ddiseg.compute.ray_cluster import connect
from ddiseg.ingest.photographs import import_photographs
from ddiseg.model.predict import prelabel
from ddiseg.workspace.workspace import Workspace
from tests.forks import FORKS
from tests.object_store import ObjectStore

#: Seconds in which a run ends, killed or not.
PATIENCE = 180


@pytest.fixture
def workspace(tmp_path: Path, postgres_url: str, object_store: ObjectStore) -> Iterator[Workspace]:
    """An empty workspace on PostgreSQL and S3."""
    opened = Workspace.create(tmp_path / "w", postgres_url, object_store.url)
    yield opened
    opened.catalogue.close()


@dataclass
class Stored:
    """What the catalogue has: photographs, and predictions by image, version and mask."""

    photographs: Counter[str]
    predictions: Counter[tuple[int, int, str]]

    @classmethod
    def read(cls, root: Path) -> Stored:
        workspace = Workspace.open(root)  # its connections are not those that were ended
        assert workspace.catalogue.events.contradictions() == []
        rows = [m for m in workspace.catalogue.masks.all() if m.model_version_id is not None]
        images = workspace.catalogue.images.select()
        workspace.catalogue.close()
        return cls(
            Counter(image.content_hash for image in images),
            Counter((m.image_id, m.model_version_id or 0, m.content_hash) for m in rows),
        )

    @property
    def doubled(self) -> int:
        by_image = Counter((image, model) for image, model, _ in self.predictions.elements())
        return sum(n - 1 for n in (*self.photographs.values(), *by_image.values()))


def start(
    root: Path, job: str, address: str | None, folder: Path, environment: Mapping[str, str] = {}
) -> Any:
    """Start a job ("import" of a folder, or "prelabel") in a process of its own.

    It exits with 1 for an error that a person would read, which is in said.txt next to the folder.

    Args:
        address: of a Ray cluster; None: this machine alone.
        environment: variables that replace those of this process.
    """
    variables = {**os.environ, **environment}
    process = FORKS.Process(target=_drive, args=(root, job, address, folder, variables))
    process.start()
    return process


def said(folder: Path) -> str:
    """Return the error of the last run that ended with one."""
    file = folder.parent / "said.txt"
    return file.read_text().strip() if file.exists() else ""


def _drive(
    root: Path, job: str, address: str | None, folder: Path, environment: dict[str, str]
) -> None:
    """Run a job in a process of its own; exits with 1 for an error that a person would read."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    try:
        workspace = Workspace.open(root)
        with connect(address) if address else nullcontext() as cluster:
            if job == "import":
                import_photographs(workspace, folder, cluster=cluster)
            else:
                prelabel(workspace, workspace.catalogue.images.select(), cluster=cluster)
        workspace.catalogue.close()
    except UserError as error:
        (folder.parent / "said.txt").write_text(str(error))
        os._exit(1)
    except BaseException as error:  # noqa: BLE001 - the test reports it
        (folder.parent / "said.txt").write_text(f"{type(error).__name__}: {error}")
        os._exit(3)
    os._exit(0)
