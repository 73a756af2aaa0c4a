"""Rows, photographs and workspaces for the tests of ddiseg: tiny, and made from numbers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ddiseg import images
from ddiseg.catalogue import Catalogue, Details, NewImage, NewMask
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg import rows
from tests.ddiseg.rows import HEIGHT, WIDTH, digest
from tests.postgres import (
    POSTGRESQL,
    _one_database,
    _server,
    _template,
    database,
    emptied_url,
    guarded_url,
    new_database,
    new_role,
    own_server,
    postgres_server,
    postgres_url,
    pytest_generate_tests,
    shared,
    shared_url,
)

__all__ = [
    "_one_database",
    "_server",
    "_template",
    "database",
    "emptied_url",
    "guarded_url",
    "new_database",
    "new_role",
    "own_server",
    "postgres_server",
    "postgres_url",
    "pytest_generate_tests",
    "shared",
    "shared_url",
]


@pytest.fixture
def new_image() -> Callable[..., NewImage]:
    return rows.new_image


@pytest.fixture
def new_mask() -> Callable[..., NewMask]:
    return rows.new_mask


@pytest.fixture(scope="session")
def empty_catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue made once: copying it is faster than migrating for each test."""
    path = tmp_path_factory.mktemp("empty") / "catalogue.sqlite"
    Catalogue.create(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def catalogue_url(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> str:
    """The URL of an empty catalogue; on SQLite in tmp_path / "catalogue.sqlite"."""
    if database == POSTGRESQL:
        return str(request.getfixturevalue("emptied_url"))
    empty: Path = request.getfixturevalue("empty_catalogue")
    shutil.copy(empty, tmp_path / "catalogue.sqlite")
    return f"sqlite:///{tmp_path / 'catalogue.sqlite'}"


@pytest.fixture
def catalogue(catalogue_url: str) -> Iterator[Catalogue]:
    """An empty catalogue at `catalogue_url`."""
    opened = Catalogue.open(catalogue_url)
    yield opened
    opened.close()


@pytest.fixture
def workspace(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> Iterator[Workspace]:
    """An empty workspace in tmp_path / "w"."""
    (tmp_path / "w").mkdir()
    if database == POSTGRESQL:
        opened = Workspace.create(tmp_path / "w", request.getfixturevalue("emptied_url"))
    else:
        empty: Path = request.getfixturevalue("empty_catalogue")
        shutil.copy(empty, tmp_path / "w" / "catalogue.sqlite")
        opened = Workspace.create(tmp_path / "w")
    yield opened
    opened.catalogue.close()


@pytest.fixture
def photograph() -> Callable[[int], images.Photograph]:
    """photograph(7): noise of HEIGHT x WIDTH pixels, another for each number."""
    return lambda number: np.random.default_rng(number).integers(
        0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8
    )


@pytest.fixture
def filled(workspace: Workspace, photograph: Callable[[int], images.Photograph]) -> Workspace:
    """Three photographs 1.png to 3.png, tones I-II, V-VI, unknown; 1.png with an accepted mask."""
    dataset = workspace.catalogue.images.dataset("clinic", licence="CC-BY-4.0")
    new_images = []
    for number, tone in enumerate(("I-II", "V-VI", "unknown"), 1):
        pixels = photograph(number)
        content = images.content_hash(pixels)
        workspace.store.put(Kind.IMAGE, content, images.encode_png(pixels))
        new_images.append(
            NewImage(
                path=f"{number}.png",
                file_hash=digest(f"file {number}"),
                size=100,
                modified_ns=number,
                content_hash=content,
                perceptual_hash=digest(f"look {number}")[:16],
                width=WIDTH,
                height=HEIGHT,
                details=Details(tone=tone),
            )
        )
    workspace.catalogue.images.add(dataset.id, new_images, "tester")
    mask = np.full((HEIGHT, WIDTH), 4, np.uint8)
    mask[2:4, 2:6] = 1
    new = NewMask(
        image_id=1,
        content_hash=workspace.store_mask(mask),
        width=WIDTH,
        height=HEIGHT,
        mapping="same",
        classes=[1, 4],
        protocol_version="1.0",
        annotator="anna",
    )
    workspace.catalogue.masks.submit([new], reviewer="ben")
    return workspace
