"""A workspace of spots on skin, some with accepted masks, and a network that runs in a blink."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from annotation_protocol import load_protocol
from ddiseg import masks
from ddiseg.ingest.mask_files import import_masks
from ddiseg.ingest.metadata import parse_columns
from ddiseg.ingest.photographs import import_photographs
from ddiseg.model.train import Refreshed, train_version
from ddiseg.workspace.workspace import Workspace
from fedd.backbone import DiffusionUNet
from fedd.segment import ProbeSettings
from fedd.weights.files import save_backbone
from tests.fedd.conftest import QUICK, TINY, spot

IMAGES, ACCEPTED = 9, 4
TONES = ("I-II", "III-IV", "V-VI")


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_backbone(path, "tiny", TINY, DiffusionUNet.random(TINY, 1).net.state_dict(), {})
    return path


@pytest.fixture
def spots(workspace: Workspace, tmp_path: Path) -> Workspace:
    """0.png to 8.png, tones in turn, two a patient; truth/ next to the workspace; 0 to 3 accepted."""
    for name in ("photographs", "truth", "reviewed"):
        (tmp_path / name).mkdir()
    rows = ["file,tone,patient"]
    for number in range(IMAGES):
        image, mask = spot(number)
        Image.fromarray(image).save(tmp_path / "photographs" / f"{number}.png")
        data = masks.encode_png(mask, load_protocol().palette())
        (tmp_path / "truth" / f"{number}.png").write_bytes(data)
        if number < ACCEPTED:
            (tmp_path / "reviewed" / f"{number}.png").write_bytes(data)
        rows.append(f"{number}.png,{TONES[number % 3]},q{number // 2}")
    (tmp_path / "rows.csv").write_text("\n".join(rows))
    columns = parse_columns("image=file,tone=tone,patient=patient")
    import_photographs(
        workspace, tmp_path / "photographs", metadata=tmp_path / "rows.csv", columns=columns
    )
    import_masks(
        workspace, tmp_path / "reviewed", format_name="png", annotator="anna", reviewer="ben"
    )
    return workspace


@pytest.fixture
def learn(tiny_weights: Path) -> Callable[..., Refreshed]:
    """learn(workspace): refresh with the tiny network and few steps."""

    def train(
        workspace: Workspace, settings: ProbeSettings = QUICK, seed: int = 0, **options: Any
    ) -> Refreshed:
        return train_version(workspace, "tester", str(tiny_weights), seed, settings, **options)

    return train


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny tensors: more threads cost more than they give."""
    torch.set_num_threads(1)


def accept_more(workspace: Workspace, numbers: list[int], value: int | None = None) -> None:
    """Accept the true masks of images by row number; `value` is the class of one corner, which makes another mask."""
    for number in numbers:
        (image,) = workspace.catalogue.images.select(ids=[number])
        mask = spot(number - 1)[1].copy()
        if value is not None:
            mask[:4, :4] = value
        folder = workspace.root.parent / f"more-{number}-{value}"
        folder.mkdir()
        data = masks.encode_png(mask, load_protocol().palette())
        (folder / image.name).write_bytes(data)
        import_masks(
            workspace,
            folder,
            format_name="png",
            annotator="annotator-1",
            reviewer="reviewer-1",
        )
