"""Whose weights they are: by the hash, whatever the file is called and however it is laid out."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fedd.backbone import DiffusionUNet, Replicas, weights_key
from fedd.errors import WeightsError
from fedd.weights import names
from fedd.weights.fetch import fetch
from fedd.weights.files import (
    load_backbone,
    read_safetensors,
    save_backbone,
    write_safetensors,
)
from fedd.weights.names import (
    INSTALLED,
    NOT_OPENAI,
    NOT_VERIFIED,
    OPENAI,
    OURS,
    ROUNDED,
    described_weights,
    titled_weights,
    weights_origin,
)
from fedd.weights.sources import BackboneSource, source
from tests.fedd.conftest import TINY
from tests.wording import Refusal


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


def test_origin__the_default_backbone_is_installed() -> None:
    net = load_backbone()
    assert (
        weights_origin(net.hash) == weights_origin(load_backbone("lite0+small").hash) == INSTALLED
    )
    assert described_weights(net.name, net.hash) == (
        f"small+lite0 ({net.hash[:12]}), installed with ddiseg"
    )


def test_origin__the_shipped_backbone_is_ours() -> None:
    net = load_backbone("small")
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


def rewritten(path: Path, tensors: dict[str, torch.Tensor], **header: str | None) -> Path:
    """A stored file with other tensors or another header; None leaves a key out."""
    _, old = read_safetensors(path)
    new = {key: value for key, value in (old | header).items() if value is not None}
    write_safetensors(path.with_name("rewritten.safetensors"), tensors, new)
    return path.with_name("rewritten.safetensors")


def test_origin__header_that_claims_the_published_hash_proves_nothing(
    openai: BackboneSource, tmp_path: Path
) -> None:
    """Random weights whose header says OpenAI's hash, as an earlier version wrote it."""
    found = fetch(openai, tmp_path / "kept", checkpoint(openai)).path
    random = {k: torch.rand_like(v) for k, v in read_safetensors(found)[0].items()}
    net = load_backbone(str(rewritten(found, random, tensors_hash=None)))
    assert net.hash == openai.sha256, "probes that were trained on such a file still load"
    for each in (net, net.to("cpu", "bfloat16"), Replicas([net, net])):
        assert weights_origin(each.hash, each.verified) == NOT_VERIFIED
        assert described_weights(each.name, each.hash, each.verified).endswith(NOT_VERIFIED)
        assert weights_key(each) != openai.sha256, "caches are not shared with OpenAI's"
    assert weights_key(load_backbone(str(found))) == openai.sha256


@pytest.mark.parametrize("what", ["value", "name"])
def test_load__damaged_layers_are_refused(
    openai: BackboneSource, tmp_path: Path, what: str, refusal: Refusal
) -> None:
    found = fetch(openai, tmp_path / "kept", checkpoint(openai)).path
    tensors = read_safetensors(found)[0]
    first, second = [k for k in tensors if k.endswith("in_layers.0.bias")][:2]
    if what == "value":
        tensors[first][0] += 1e-3
    else:
        tensors[first], tensors[second] = tensors[second] + 1, tensors[first]
    with refusal(WeightsError):
        load_backbone(str(rewritten(found, tensors)))


@pytest.mark.parametrize("what", ["damaged", "without its hash"])
def test_fetch__again_replaces_layers_that_can_not_be_verified(
    openai: BackboneSource, tmp_path: Path, what: str
) -> None:
    found = fetch(openai, tmp_path / "kept", checkpoint(openai)).path
    tensors = read_safetensors(found)[0]
    if what == "damaged":
        next(iter(tensors.values())).add_(1)
        rewritten(found, tensors).replace(found)
    else:
        rewritten(found, tensors, tensors_hash=None).replace(found)
    assert fetch(openai, tmp_path / "kept", checkpoint(openai)).bytes_before is not None
    assert load_backbone(str(found)).verified
    assert fetch(openai, tmp_path / "kept", checkpoint(openai)).bytes_before is None
