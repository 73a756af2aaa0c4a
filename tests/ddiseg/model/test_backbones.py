"""One object in memory for each backbone, whoever uses it."""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ddiseg.model import backbones as module
from ddiseg.model.backbones import Backbones, load_version_on
from ddiseg.model.predict import Predictor, prelabel
from ddiseg.model.train import Refreshed
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from fedd.backbone import DiffusionUNet
from fedd.precision import MOST
from fedd.weights.files import save_backbone
from tests.fedd.conftest import TINY

Learn = Callable[..., Refreshed]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The backbones that are loaded."""
    loaded: list[str] = []
    real = module.load_backbone

    def load(name: str) -> DiffusionUNet:
        loaded.append(name)
        return real(name)

    monkeypatch.setattr(module, "load_backbone", load)
    return loaded


def test_get__the_same_object_for_all(
    workspace: Workspace, tiny_weights: Path, loads: list[str]
) -> None:
    backbones = Backbones(workspace)
    first = backbones.get(str(tiny_weights), "cpu", "auto")
    assert backbones.get(str(tiny_weights), "cpu", "float32") is first, "what auto chose"
    assert backbones.get(str(tiny_weights), "cpu", "auto") is first
    assert len(loads) == 1
    assert backbones.get(str(tiny_weights), "cpu", "bfloat16") is not first
    assert backbones.get(str(tiny_weights), "cpu", "auto") is first, "it is in use here"
    assert len(loads) == 2


def test_get__threads_load_it_once(
    workspace: Workspace, tiny_weights: Path, loads: list[str]
) -> None:
    backbones, found = Backbones(workspace), []
    threads = [
        threading.Thread(target=lambda: found.append(backbones.get(str(tiny_weights))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == len(set(map(id, found))) == 1


def test_get__a_replaced_file_is_loaded_anew(
    workspace: Workspace, tmp_path: Path, loads: list[str]
) -> None:
    path = tmp_path / "tiny.safetensors"
    backbones, hashes = Backbones(workspace), set()
    for seed in (1, 2):
        net = DiffusionUNet.random(TINY, seed)
        save_backbone(path, "tiny", TINY, net.net.state_dict(), {})
        os.utime(path, ns=(seed, seed))
        hashes.add(backbones.get(str(path)).hash)
    assert len(hashes) == len(loads) == 2


def test_get__only_the_last_one_is_kept(
    workspace: Workspace, tiny_weights: Path, loads: list[str]
) -> None:
    backbones = Backbones(workspace)
    backbones.get(str(tiny_weights), "cpu", "float32")
    backbones.get(str(tiny_weights), "cpu", "bfloat16")
    gc.collect()
    assert [net.precision for net in backbones._alive.values()] == ["bfloat16"]
    backbones.get(str(tiny_weights), "cpu", "float32")
    assert len(loads) == 3


@pytest.mark.training
def test_trial__current_model_and_photographs_of_the_workspace(
    spots: Workspace, learn: Learn
) -> None:
    exact = DiffusionUNet.random(TINY, 1)
    backbones = Backbones(spots)
    assert backbones._trial(exact) is None, "no model yet"
    version = learn(spots).version
    net = backbones.get(version.backbone)
    assert isinstance(net, DiffusionUNet)
    (damaged,) = spots.catalogue.images.select(ids=[2])
    Path(spots.store.path(Kind.IMAGE, damaged.content_hash)).write_bytes(b"damaged")
    trial = backbones._trial(net)
    assert trial is not None
    assert trial.probes.backbone_hash == net.hash
    assert len(trial.photographs) == min(MOST, 8), "one of the nine can't be read"
    assert backbones._trial(DiffusionUNet.random(TINY, 7)) is None, "it reads another backbone"
    Path(spots.store.path(Kind.MODEL, version.file_hash)).unlink()
    assert backbones._trial(net) is None


@pytest.mark.training
def test_load__another_precision_than_in_training_is_said_not_refused(
    spots: Workspace, learn: Learn, caplog: pytest.LogCaptureFixture
) -> None:
    version = learn(spots).version
    images = spots.catalogue.images.select(ids=[5, 6, 7])
    with caplog.at_level(logging.INFO, "ddiseg"):
        prelabel(spots, images[:1], precision="float32")
        assert caplog.records == []
        prelabel(spots, images[:1], precision="bfloat16")
        assert caplog.records == [], "nothing was predicted"
        predictor = Predictor.load(spots, precision="bfloat16")
        for image in images:
            predictor.predict([image])
    assert version.training.precision == "float32"
    assert [record.getMessage() for record in caplog.records] == [
        "fedd-1 was trained on activations in float32 and predicts here in bfloat16"
    ]


@pytest.mark.training
def test_auto__the_workspace_provides_the_test(
    spots: Workspace, learn: Learn, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = learn(spots).version
    given: list[Any] = []

    def place_in(net: DiffusionUNet, device: str, precision: str, trial: Any) -> DiffusionUNet:
        given.append((device, precision, trial(net)))
        return net

    monkeypatch.setattr(module, "place_in", place_in)
    monkeypatch.setattr(module, "existing_devices", lambda _: [torch.device("cuda", 0)])
    load_version_on(spots, version, "auto", "auto")
    ((device, precision, trial),) = given
    assert (device, precision) == ("auto", "auto")
    assert len(trial.photographs) == MOST
