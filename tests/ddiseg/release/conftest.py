"""A small workspace of random photographs with masks, built through the catalogue's own methods."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from annotation_protocol import load_protocol
from ddiseg import images, masks
from ddiseg.catalogue import Details, NewImage, NewMask, NewModelVersion
from ddiseg.catalogue.masks import FIXED
from ddiseg.cli.common import Group, common_options, run
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace

PROTOCOL = load_protocol()


@dataclass
class Builder:
    """Fills a workspace."""

    workspace: Workspace
    seed: int = 0
    synthetic: bool = False  #: what is said of the datasets

    def image(
        self, name: str, size: tuple[int, int] = (12, 10), dataset: str = "derm", **details: Any
    ) -> int:
        """Add a photograph of `size` (height, width); returns its id."""
        rng = np.random.default_rng(self.seed)
        self.seed += 1
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        digest = images.content_hash(pixels)
        self.workspace.store.put(Kind.IMAGE, digest, images.encode_png(pixels))
        catalogue = self.workspace.catalogue
        row = catalogue.images.dataset(
            dataset, "CC BY 4.0", f"https://example.org/{dataset}", synthetic=self.synthetic
        )
        look = details.pop("perceptual_hash", "0" * 16)
        given = Details(**{"tone": "I-II", **details})
        new = NewImage(name, digest, 1, 1, digest, look, size[1], size[0], details=given)
        catalogue.images.add(row.id, [new], "tester")
        found = catalogue.images.select()
        return next(i.id for i in found if i.content_hash == digest)

    def mask(self, image_id: int, mask: NDArray[np.uint8], **fields: Any) -> None:
        """Add an accepted mask drawn by reader-1; with `reviewer=None` it stays submitted."""
        reviewer = fields.pop("reviewer", "reader-2")
        self.workspace.catalogue.masks.submit(
            [self._new(image_id, mask, annotator="reader-1", **fields)], reviewer=reviewer
        )

    def fixed(self, image_id: int, mask: NDArray[np.uint8], fix: NDArray[np.uint8]) -> None:
        """reader-1's mask, accepted as reader-2 corrected it."""
        self.mask(image_id, mask, reviewer=None)
        masks = self.workspace.catalogue.masks
        waits = masks.in_review()[image_id]
        corrected = self._new(image_id, fix, annotator="reader-2", parent_id=waits.id)
        masks.review(waits.id, "reader-2", FIXED, None, corrected)

    def prediction(self, image_id: int, mask: NDArray[np.uint8], uncertainty: float = 0.1) -> None:
        models = self.workspace.catalogue.models
        if not models.all():
            models.add(NewModelVersion("f" * 64, "small", "b" * 64, {}, [], {}, "1.0"), "tester")
        new = self._new(
            *(image_id, mask),
            model_version_id=models.current().id,
            uncertainty=uncertainty,
            expected_iou={"lesion": 0.75},
            quality=0.75,
        )
        self.workspace.catalogue.masks.add_predictions([new])

    def _new(self, image_id: int, mask: NDArray[np.uint8], **fields: Any) -> NewMask:
        (image,) = self.workspace.catalogue.images.select(ids=[image_id])
        same = mask.shape == (image.height, image.width)
        return NewMask(
            image_id=image_id,
            content_hash=self.workspace.store_mask(mask),
            width=mask.shape[1],
            height=mask.shape[0],
            mapping="same" if same else "stretched",
            classes=fields.pop("classes", [0, 1, 2, 3, 4]),
            protocol_version=PROTOCOL.version,
            unlabelled=masks.count_unlabelled(mask),
            **fields,
        )


@pytest.fixture(scope="session")
def empty_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty workspace to copy: making its schema takes longer than most tests."""
    root = tmp_path_factory.mktemp("template") / "w"
    Workspace.create(root).catalogue.close()
    return root


@contextlib.contextmanager
def copied(template: Path, root: Path) -> Iterator[Builder]:
    """A builder on a copy of a workspace."""
    workspace = Workspace.open(shutil.copytree(template, root))
    yield Builder(workspace)
    workspace.catalogue.close()


@pytest.fixture
def builder(empty_workspace: Path, tmp_path: Path) -> Iterator[Builder]:
    with copied(empty_workspace, tmp_path / "w") as builder:
        yield builder


@pytest.fixture
def stocked(builder: Builder) -> Builder:
    """Three accepted masks (one stretched), one prediction, one image with nothing."""
    whole = np.full((12, 10), 4, np.uint8)
    whole[3:7, 2:6], whole[0, 0], whole[5, 4] = 1, 0, 4
    stretched = np.full((4, 4), 4, np.uint8)
    stretched[1:3, 1:3] = 1
    builder.mask(builder.image("000001.png", diagnosis="melanoma", malignant=True), whole)
    builder.mask(builder.image("000002.jpg", tone="V-VI", patient="p7"), np.zeros_like(whole))
    builder.mask(builder.image("000003.png", (16, 20), tone="V-VI"), stretched)
    builder.prediction(builder.image("000004.png"), whole[::-1].copy())
    builder.image("000005.png")
    return builder


@st.composite
def masks_of_photographs(draw: st.DrawFn) -> tuple[tuple[int, int], NDArray[np.uint8]]:
    """A photograph's size, and a mask of that size or of another: holes and single pixels abound."""
    size = draw(st.tuples(st.integers(1, 14), st.integers(1, 14)))
    shape = draw(st.one_of(st.just(size), st.just((5, 5))))
    classes = draw(st.sampled_from([(0,), (4,), (1, 4), (0, 1, 2, 3, 4)]))
    return size, draw(arrays(np.uint8, shape, elements=st.sampled_from(classes)))


@dataclass
class Cli:
    """Runs the commands of this part as the console script would."""

    capture: pytest.CaptureFixture[str]

    def __call__(
        self, commands: Sequence[click.Command], *args: str | Path
    ) -> tuple[int, str, str]:
        group = Group(name="ddiseg", params=common_options(), commands=list(commands))
        status = run(group, [str(a) for a in args])
        captured = self.capture.readouterr()
        return status, captured.out, captured.err


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)
