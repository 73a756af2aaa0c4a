"""A workspace of a few hundred images with rows of every kind, made as those of the scale benchmark."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddiseg.workspace.workspace import Workspace

#: Images of the workspace.
SCALE = 300


@pytest.fixture(scope="session")
def scale_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the workspace that `scale_workspace` copies."""
    from benchmarks.scale_rows import make_workspace  # it takes PyTorch with it

    root = tmp_path_factory.mktemp("scale") / "work"
    make_workspace(root, SCALE)
    return root


@pytest.fixture
def scale_workspace(scale_folder: Path, tmp_path: Path) -> Iterator[Workspace]:
    """Open a copy of the workspace; stored files, which nothing changes, are links."""
    root = tmp_path / "scale"
    shutil.copytree(scale_folder, root, copy_function=_linked)
    workspace = Workspace.open(root)
    yield workspace
    workspace.catalogue.close()


def _linked(source: str, target: str) -> None:
    if "/store/" in source:
        Path(target).hardlink_to(source)
    else:
        shutil.copy2(source, target)
