"""Start weights, through the real loading code, from files that the tests make."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fedd.baselines import CNNSettings, Recipe, Start, UNetSettings
from fedd.baselines.cnns import _start as classifier_start
from fedd.baselines.packages import define_missing_operators
from fedd.baselines.unets import _start as unet_start
from fedd.baselines.weights import fill
from fedd.errors import WeightsError
from tests.wording import Refusal

define_missing_operators()
models = pytest.importorskip("torchvision.models", reason="needs ddiseg[baselines]")


@pytest.fixture(scope="module")
def mobilenet() -> dict[str, Tensor]:
    """What torchvision's file of a MobileNetV2 holds, 1000 classes and all."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        state: dict[str, Tensor] = models.mobilenet_v2(weights=None).state_dict()
    return state


def _unet(start: Start | Path, encoder: str = "mobilenet_v2") -> nn.Module:
    return unet_start(UNetSettings(encoder=encoder, start=start, image_size=32), 5)[1]  # type: ignore[index,no-any-return]


def _cnn(start: Start | Path, model: str = "mobilenet_v2") -> nn.Module:
    return classifier_start(CNNSettings(model=model, start=start))[1]  # type: ignore[index,no-any-return]


def _saved(tensors: Mapping[str, Any], path: Path) -> Path:
    torch.save(dict(tensors), path)
    return path


@pytest.mark.process
def test_unet__from_torchvisions_file(mobilenet: dict[str, Tensor], tmp_path: Path) -> None:
    encoder = _unet(_saved(mobilenet, tmp_path / "m.pth")).get_submodule("encoder").state_dict()
    assert len(encoder) > 100
    for key, tensor in encoder.items():
        torch.testing.assert_close(tensor, mobilenet[key])


@pytest.mark.process
def test_unet__from_safetensors_without_a_classifier(
    mobilenet: dict[str, Tensor], tmp_path: Path
) -> None:
    body = {key: t for key, t in mobilenet.items() if not key.startswith("classifier.")}
    save_file(body, tmp_path / "m.safetensors")
    net = _unet(tmp_path / "m.safetensors")
    key = "features.3.conv.0.0.weight"
    torch.testing.assert_close(net.get_submodule("encoder").state_dict()[key], mobilenet[key])


@pytest.mark.process
def test_unet__fetched(
    mobilenet: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segmentation_models_pytorch import encoders

    body = {key: t for key, t in mobilenet.items() if not key.startswith("classifier.")}
    save_file(body, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    asked = []

    def download(repo_id: str, filename: str, revision: str) -> str:
        asked.append(repo_id)
        return str(tmp_path / filename)

    monkeypatch.setattr(encoders, "hf_hub_download", download)
    net = _unet(Start.IMAGENET)
    key = "features.3.conv.0.0.weight"
    torch.testing.assert_close(net.get_submodule("encoder").state_dict()[key], mobilenet[key])
    assert set(asked) == {"smp-hub/mobilenet_v2.imagenet"}


def test_unet__fetching_fails(monkeypatch: pytest.MonkeyPatch, refusal: Refusal) -> None:
    from segmentation_models_pytorch import encoders

    def offline(*_args: Any, **_kwargs: Any) -> str:
        raise FileNotFoundError("cannot find the requested files in the local cache")

    monkeypatch.setattr(encoders, "hf_hub_download", offline)
    with refusal(WeightsError):
        _unet(Start.IMAGENET)


@pytest.mark.process
def test_unet__efficientnet_lite0_needs_no_download() -> None:
    from fedd.pretrain.encoder import load_efficientnet_lite0

    stored, key = load_efficientnet_lite0().state_dict(), "_blocks.5._expand_conv.weight"
    imagenet, random = (
        _unet(Start.IMAGENET, "efficientnet-lite0"),
        _unet(Start.SCRATCH, "efficientnet-lite0"),
    )
    torch.testing.assert_close(imagenet.get_submodule("encoder").state_dict()[key], stored[key])
    assert not torch.allclose(random.get_submodule("encoder").state_dict()[key], stored[key])


@pytest.mark.process
def test_classifier__from_imagenets_file_with_a_fresh_last_layer(
    mobilenet: dict[str, Tensor], tmp_path: Path
) -> None:
    net = _cnn(_saved(mobilenet, tmp_path / "m.pth")).state_dict()
    assert net["classifier.1.weight"].shape == (2, 1280)
    for key, tensor in net.items():
        if not key.startswith("classifier."):
            torch.testing.assert_close(tensor, mobilenet[key])


def test_classifier__fetched_as_data_only(
    mobilenet: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import _api

    asked: list[dict[str, Any]] = []

    def download(url: str, **options: Any) -> dict[str, Tensor]:
        asked.append({"url": url, **options})
        return mobilenet

    monkeypatch.setattr(_api, "load_state_dict_from_url", download)
    net = _cnn(Start.IMAGENET).state_dict()
    key = "features.3.conv.0.0.weight"
    torch.testing.assert_close(net[key], mobilenet[key])
    assert asked[0]["url"].endswith(".pth")
    assert asked[0]["weights_only"]
    assert asked[0]["check_hash"]


def test_classifier__fetching_fails(monkeypatch: pytest.MonkeyPatch, refusal: Refusal) -> None:
    from urllib.error import URLError

    from torchvision.models import _api

    def offline(_url: str, **_options: Any) -> dict[str, Tensor]:
        raise URLError("Name or service not known")

    monkeypatch.setattr(_api, "load_state_dict_from_url", offline)
    with refusal(WeightsError):
        _cnn(Start.IMAGENET)


@pytest.mark.process
def test_frozen__fetched(
    mobilenet: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    from urllib.error import URLError

    from torchvision.models import _api

    from fedd.baselines.cnns import _frozen_encoder

    settings = CNNSettings.of(Recipe.PAPER, "mobilenet_v2")
    monkeypatch.setattr(_api, "load_state_dict_from_url", lambda *_, **__: mobilenet)
    for key, tensor in _frozen_encoder(settings).state_dict().items():
        torch.testing.assert_close(tensor, mobilenet[key])

    def offline(*_arguments: Any, **_options: Any) -> dict[str, Tensor]:
        raise URLError("Name or service not known")

    monkeypatch.setattr(_api, "load_state_dict_from_url", offline)
    with refusal(WeightsError):
        _frozen_encoder(settings)


@pytest.mark.process
@pytest.mark.parametrize("whole", [True, False])
def test_frozen__encoder_of_a_file_with_or_without_a_classifier(
    whole: bool, mobilenet: dict[str, Tensor], tmp_path: Path
) -> None:
    from fedd.baselines.cnns import _frozen_encoder

    kept = {k: t for k, t in mobilenet.items() if whole or not k.startswith("classifier.")}
    path = _saved(kept, tmp_path / "m.pth")
    settings = CNNSettings.of(Recipe.PAPER, "mobilenet_v2", start=path)
    encoder = _frozen_encoder(settings).state_dict()
    assert len(encoder) > 100
    for key, tensor in encoder.items():
        torch.testing.assert_close(tensor, mobilenet[key])


@pytest.mark.process
def test_frozen__a_file_of_another_network(
    mobilenet: dict[str, Tensor], tmp_path: Path, refusal: Refusal
) -> None:
    from fedd.baselines.cnns import _frozen_encoder

    path = _saved(mobilenet, tmp_path / "resnet50.pth")
    with refusal(WeightsError):
        _frozen_encoder(CNNSettings.of(Recipe.PAPER, "resnet50", start=path))


@pytest.mark.process
@pytest.mark.parametrize(
    "layout", ["in data parallel", "with more around it", "of Keras", "no head"]
)
def test_deepderm__a_file_of_another_layout(layout: str, tmp_path: Path, refusal: Refusal) -> None:
    state = models.inception_v3(weights=None, init_weights=False, num_classes=2).state_dict()
    path = tmp_path / "deepderm.pth"
    if layout == "of Keras":
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    else:
        odd: dict[str, Any] = {f"module.{key}": tensor for key, tensor in state.items()}
        if layout == "no head":
            odd = {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}
        _saved({"state_dict": odd} if layout == "with more around it" else odd, path)
    with refusal(WeightsError):
        classifier_start(CNNSettings.of(Recipe.PAPER, "deepderm", start=path))


@pytest.mark.process
def test_deepderm__its_authors_file_fits_as_it_is(tmp_path: Path) -> None:
    """They built it so, in the code published with DDI: two outputs, and a second classifier."""
    theirs = models.inception_v3(
        weights=None, init_weights=False, transform_input=True, num_classes=2, aux_logits=True
    ).eval()
    assert any(key.startswith("AuxLogits.") for key in theirs.state_dict())
    path = _saved(theirs.state_dict(), tmp_path / "ham10000.pth")
    ours: Any = classifier_start(CNNSettings(model="deepderm", start=path)).eval()
    image = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    seen: list[Tensor] = []
    for net in (theirs, ours[1]):
        net.Conv2d_1a_3x3.register_forward_pre_hook(lambda _net, given: seen.append(given[0]))
    with torch.inference_mode():
        expected = theirs((image - mean) / std)
        torch.testing.assert_close(ours(image * 2 - 1), expected, rtol=1e-4, atol=1e-5)
    # Random weights hardly tell one image from another, so the first layer's input is compared too.
    torch.testing.assert_close(seen[1], seen[0], rtol=1e-4, atol=1e-5)


def test_densenet__torchvisions_old_names() -> None:
    net = nn.ModuleDict(
        {"denselayer1": nn.ModuleDict({"norm1": nn.BatchNorm2d(2), "conv2": nn.Conv2d(2, 2, 1)})}
    )
    old = {
        key.replace("norm1", "norm.1").replace("conv2", "conv.2"): torch.full_like(t, 3)
        for key, t in net.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    fill(net, old, ("classifier.",), "densenet121", Path("densenet121-a639ec97.pth"))
    assert all((t == 3).all() for key, t in net.state_dict().items() if "num_batches" not in key)


def test_fill__a_file_of_another_network_says_what_differs() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    tensors = {"0.weight": torch.zeros(3, 5), "0.bias": torch.zeros(3), "odd": torch.zeros(1)}
    with pytest.raises(WeightsError) as caught:
        fill(net, tensors, ("fc.",), "two layers", Path("x.pth"))
    said = str(caught.value)
    assert said.startswith("x.pth does not fit the network two layers")
    assert "2 keys missing (1.bias, 1.weight)" in said
    assert "1 keys unknown (odd)" in said
    assert "1 shapes differ (0.weight is (3, 5) and should be (3, 2))" in said


def test_unet__code_in_a_file_is_not_run(tmp_path: Path, refusal: Refusal) -> None:
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (marker,)

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"a": Evil()}, protocol=2))
    with refusal(WeightsError):
        _unet(tmp_path / "evil.pth")
    assert not marker.exists()


def test_classifier__no_such_file(tmp_path: Path, refusal: Refusal) -> None:
    with refusal(WeightsError):
        _cnn(tmp_path / "none.pth")
