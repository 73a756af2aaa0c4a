"""Whose weights they are: by the hash, whatever the file is called and however it is laid out."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fedd.backbone import DiffusionUNet
from fedd.weights import names
from fedd.weights.fetch import fetch
from fedd.weights.files import load_backbone, save_backbone
from fedd.weights.names import (
    NOT_OPENAI,
    OPENAI,
    OURS,
    ROUNDED,
    described_weights,
    titled_weights,
    weights_origin,
)
from fedd.weights.sources import BackboneSource, source
from tests.fedd.conftest import TINY


@pytest.fixture
def openai(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BackboneSource]:
    """A tiny checkpoint, published as if it were OpenAI's."""
    path = tmp_path / "256x256_diffusion_uncond.pt"
    torch.save(DiffusionUNet.random(TINY, seed=4).net.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    table = tmp_path / "sources.toml"
    table.write_text(f'[imagenet-256]\nsha256 = "{digest}"\n')
    monkeypatch.setattr(names, "TABLE", table)
    names._known_weights.cache_clear()
    yield BackboneSource("imagenet-256", path.as_uri(), digest, None, (3, 5), TINY)
    names._known_weights.cache_clear()


def checkpoint(openai: BackboneSource) -> Path:
    return Path(openai.url.removeprefix("file://"))


def test_origin__of_the_published_hash() -> None:
    assert weights_origin(source("imagenet-256").sha256) == OPENAI


def test_origin__the_shipped_backbone_is_ours() -> None:
    net = load_backbone()
    assert weights_origin(net.hash) == OURS
    assert described_weights(net.name, net.hash) == f"small ({net.hash[:12]}), shipped with ddiseg"


def test_origin__full_checkpoint_under_any_name(openai: BackboneSource, tmp_path: Path) -> None:
    shutil.copy(checkpoint(openai), tmp_path / "mine.pt")
    for path in (checkpoint(openai), tmp_path / "mine.pt"):
        assert weights_origin(load_backbone(str(path), TINY).hash) == OPENAI


@pytest.mark.parametrize(("half", "origin"), [(False, OPENAI), (True, ROUNDED)])
def test_origin__of_the_layers_that_are_fetched_under_any_name(
    openai: BackboneSource, tmp_path: Path, half: bool, origin: str
) -> None:
    found = fetch(openai, tmp_path / "kept", checkpoint(openai), blocks=(3,), half=half)
    assert found.last_block == 3
    shutil.copy(found.path, tmp_path / "other-name.safetensors")
    for path in (found.path, tmp_path / "other-name.safetensors"):
        net = load_backbone(str(path))
        assert weights_origin(net.hash) == origin
        assert titled_weights(net.name, net.hash) == "imagenet-256"


def test_origin__wrong_checkpoint_under_openais_name(
    openai: BackboneSource, tmp_path: Path
) -> None:
    wrong = DiffusionUNet.random(TINY, seed=5).net.state_dict()
    torch.save(wrong, checkpoint(openai))
    save_backbone(tmp_path / "imagenet-256.safetensors", "imagenet-256", TINY, wrong, {})
    digest = hashlib.sha256(checkpoint(openai).read_bytes()).hexdigest()
    other = openai.elsewhere(sha256=digest)
    fetched = fetch(other, tmp_path / "kept", checkpoint(openai)).path
    for path in (checkpoint(openai), tmp_path / "imagenet-256.safetensors", fetched):
        net = load_backbone(str(path), TINY)
        assert weights_origin(net.hash) == NOT_OPENAI
        assert titled_weights(net.name, net.hash) == f"{net.name}, not OpenAI's checkpoint"


def test_origin__openais_tensors_in_a_file_of_another_maker_can_not_be_told(
    openai: BackboneSource, tmp_path: Path
) -> None:
    """Its hash is another one: nothing but `fedd weights fetch` vouches for what it holds."""
    tensors = torch.load(checkpoint(openai), weights_only=True)
    save_backbone(tmp_path / "converted.safetensors", "converted", TINY, tensors, {})
    assert weights_origin(load_backbone(str(tmp_path / "converted.safetensors")).hash) == NOT_OPENAI


def test_untrained__is_called_so() -> None:
    net = DiffusionUNet.random(TINY)
    assert described_weights(net.name, net.hash).endswith("random weights")
    assert titled_weights(net.name, net.hash) == "untrained"
