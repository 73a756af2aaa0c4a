"""Rows, photographs and workspaces for the tests of ddiseg: tiny, and made from numbers."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddiseg import images
from ddiseg.catalogue import Catalogue, Details, NewImage, NewMask
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from tests.postgres import (
    _template,
    new_database,
    postgres_server,
    postgres_url,
    shared,
    shared_url,
)

__all__ = ["_template", "new_database", "postgres_server", "postgres_url", "shared", "shared_url"]

HEIGHT, WIDTH = 6, 8


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def new_image() -> Callable[..., NewImage]:
    """new_image(7, tone="V-VI", ...): a row for 000007.png that resembles no other number's."""

    def make(number: int, *, perceptual_hash: str | None = None, **details: Any) -> NewImage:
        return NewImage(
            path=f"{number:06d}.png",
            file_hash=_digest(f"file {number}"),
            size=100,
            modified_ns=1_700_000_000_000_000_000 + number,
            content_hash=_digest(f"image {number}"),
            perceptual_hash=perceptual_hash or _digest(f"look {number}")[:16],
            width=WIDTH,
            height=HEIGHT,
            details=Details(**details),
        )

    return make


@pytest.fixture
def new_mask() -> Callable[..., NewMask]:
    """new_mask(image_id, "anna", "pixels"): a row by a person, or with annotator=None by a model."""

    def make(image_id: int, annotator: str | None, pixels: str = "a", **columns: Any) -> NewMask:
        return NewMask(
            image_id=image_id,
            content_hash=_digest(f"mask {pixels}"),
            width=WIDTH,
            height=HEIGHT,
            mapping="same",
            classes=[0, 1, 2, 3, 4],
            protocol_version="1.0",
            annotator=annotator,
            **columns,
        )

    return make


@pytest.fixture(scope="session")
def empty_catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue made once: copying it is faster than migrating for each test."""
    path = tmp_path_factory.mktemp("empty") / "catalogue.sqlite"
    Catalogue.create(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def catalogue(tmp_path: Path, empty_catalogue: Path) -> Iterator[Catalogue]:
    """An empty catalogue in tmp_path / "catalogue.sqlite"."""
    shutil.copy(empty_catalogue, tmp_path / "catalogue.sqlite")
    opened = Catalogue.open(f"sqlite:///{tmp_path / 'catalogue.sqlite'}")
    yield opened
    opened.close()


@pytest.fixture
def workspace(tmp_path: Path, empty_catalogue: Path) -> Iterator[Workspace]:
    """An empty workspace in tmp_path / "w"."""
    (tmp_path / "w").mkdir()
    shutil.copy(empty_catalogue, tmp_path / "w" / "catalogue.sqlite")
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
    rows = []
    for number, tone in enumerate(("I-II", "V-VI", "unknown"), 1):
        pixels = photograph(number)
        digest = images.content_hash(pixels)
        workspace.store.put(Kind.IMAGE, digest, images.encode_png(pixels))
        rows.append(
            NewImage(
                path=f"{number}.png",
                file_hash=_digest(f"file {number}"),
                size=100,
                modified_ns=number,
                content_hash=digest,
                perceptual_hash=_digest(f"look {number}")[:16],
                width=WIDTH,
                height=HEIGHT,
                details=Details(tone=tone),
            )
        )
    workspace.catalogue.images.add(dataset.id, rows, "tester")
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
