from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedd.baselines import (
    ENCODERS,
    Recipe,
    SegmentationBaseline,
    Start,
    UNetSettings,
    load_unet,
    train_unet,
)
from fedd.baselines.losses import dice_and_focal
from fedd.baselines.packages import define_missing_operators
from fedd.baselines.unets import _build
from fedd.dataset import UNKNOWN
from fedd.errors import DeviceError, TrainingDataError, WeightsError
from fedd.probes.training import Example
from tests.fedd.baselines.full_gpu import FullGPU
from tests.fedd.conftest import CLASSES, spot
from tests.wording import Refusal

define_missing_operators()
pytest.importorskip("segmentation_models_pytorch", reason="needs ddiseg[baselines]")

SCRATCH = UNetSettings(
    encoder="mobilenet_v2", start=Start.SCRATCH, image_size=32, epochs=2, batch_size=4
)
LITE = UNetSettings(
    encoder="efficientnet-lite0", image_size=32, epochs=12, batch_size=4, learning_rate=1e-3
)


def _examples(seeds: range) -> list[Example]:
    return [Example(*spot(seed)) for seed in seeds]


def _tensors(baseline: SegmentationBaseline) -> Mapping[str, torch.Tensor]:
    return baseline.net.state_dict()


@pytest.fixture(scope="module")
def lite() -> SegmentationBaseline:
    """ImageNet's EfficientNet-Lite0, which needs no download, on plain pictures."""
    return train_unet(_examples(range(6)), _examples(range(20, 22)), CLASSES, LITE)


@pytest.mark.training
def test_train__learns_to_paint(lite: SegmentationBaseline) -> None:
    photographs, masks = zip(*(spot(seed) for seed in range(30, 34)), strict=True)
    painted = lite.predict(photographs)
    lesion = [
        ((p == 1) & (m == 1)).sum() / ((p == 1) | (m == 1)).sum()
        for p, m in zip(painted, masks, strict=True)
    ]
    assert np.mean(lesion) > 0.7


@pytest.mark.training
def test_predict__classes_that_no_mask_showed_are_never_said(lite: SegmentationBaseline) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    found = lite.probabilities(noise)
    assert lite.trained == (1, 4)
    assert found.shape == (5, 32, 32)
    assert found[[0, 2, 3]].max() == 0
    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-5)


@pytest.mark.training
@pytest.mark.parametrize("shape", [(1, 1), (33, 57), (20, 200)])
def test_predict__masks_at_the_photographs_size(
    lite: SegmentationBaseline, shape: tuple[int, int]
) -> None:
    photograph = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    [mask] = lite.predict([photograph])
    assert mask.shape == shape
    assert mask.dtype == np.uint8


@pytest.mark.training
def test_predict__agrees_with_its_probabilities(lite: SegmentationBaseline) -> None:
    photograph = spot(31, (32, 32))[0]
    [mask] = lite.predict([photograph])
    np.testing.assert_array_equal(mask, lite.probabilities(photograph).argmax(0))


@pytest.mark.training
def test_masks__each_as_alone_and_read_as_they_are_needed(lite: SegmentationBaseline) -> None:
    opened: list[int] = []

    def photographs() -> Iterator[np.ndarray]:
        for seed in range(40):
            opened.append(seed)
            yield spot(seed, (20 + seed, 30))[0]

    masks = lite.masks(photographs())
    first = next(masks)
    assert len(opened) < 40
    assert not torch.is_inference_mode_enabled(), "between two masks the caller's work goes on"
    found = [first, *masks]
    assert [mask.shape for mask in found] == [(20 + seed, 30) for seed in range(40)]
    for seed in (0, 17, 39):
        [alone] = lite.predict([spot(seed, (20 + seed, 30))[0]])
        assert (found[seed] == alone).mean() > 0.999


@pytest.mark.training
def test_predict__a_full_gpu(
    lite: SegmentationBaseline, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    monkeypatch.setattr(lite, "net", FullGPU(lite.net))
    with refusal(DeviceError):
        lite.predict([spot(1)[0]])


@pytest.mark.training
def test_file__paints_the_same(lite: SegmentationBaseline, tmp_path: Path) -> None:
    lite.save(tmp_path / "unet.safetensors")
    again = load_unet(tmp_path / "unet.safetensors")
    photograph = spot(30)[0]
    np.testing.assert_array_equal(again.probabilities(photograph), lite.probabilities(photograph))
    assert (again.settings, again.classes, again.trained) == (LITE, CLASSES, (1, 4))
    assert again.epoch == lite.epoch
    assert [p.name for p in tmp_path.iterdir()] == ["unet.safetensors"]


@pytest.mark.training
def test_train__same_seed_same_network() -> None:
    first = train_unet(_examples(range(4)), (), CLASSES, SCRATCH)
    torch.rand(1)  # whatever was drawn before does not count
    second = train_unet(_examples(range(4)), (), CLASSES, SCRATCH)
    for key, tensor in _tensors(first).items():
        torch.testing.assert_close(_tensors(second)[key], tensor, rtol=0, atol=0)


@pytest.mark.training
def test_train__another_seed_another_network() -> None:
    first = train_unet(_examples(range(4)), (), CLASSES, replace(SCRATCH, epochs=1))
    other = train_unet(_examples(range(4)), (), CLASSES, replace(SCRATCH, epochs=1, seed=1))
    key = next(k for k in _tensors(first) if k.endswith("weight"))
    assert not torch.allclose(_tensors(first)[key], _tensors(other)[key])


@pytest.mark.training
@pytest.mark.parametrize("encoder", ENCODERS)
def test_build__every_encoder_gives_logits_at_the_images_size(encoder: str) -> None:
    net = _build(encoder, 5).eval()
    with torch.inference_mode():
        assert net(torch.zeros(1, 3, 64, 32)).shape == (1, 5, 64, 32)


def test_loss__unknown_pixels_are_left_out() -> None:
    rng = torch.Generator().manual_seed(0)
    logits, masks = (
        torch.randn(2, 5, 8, 8, generator=rng),
        torch.randint(0, 5, (2, 8, 8), generator=rng),
    )
    masks[:, :3] = UNKNOWN
    other = logits.clone()
    other[:, :, :3] = torch.randn(2, 5, 3, 8, generator=rng)
    loss = dice_and_focal()
    torch.testing.assert_close(loss(other, masks), loss(logits, masks))
    other[:, :, 3:] = 0
    assert not torch.allclose(loss(other, masks), loss(logits, masks))


def test_loss__the_sum_ofdice_and_focal() -> None:
    """One image, two classes, by hand: both terms are written out as in their papers."""
    logits = torch.tensor([[[[2.0, -1.0]], [[0.0, 1.0]]]])
    masks = torch.tensor([[[0, 1]]])
    p = logits.softmax(1)[0, :, 0]
    truth = torch.eye(2)
    dice = 1 - (2 * (p * truth).sum(1) / (p.sum(1) + truth.sum(1))).mean()
    each = torch.where(truth.bool(), logits[0, :, 0], -logits[0, :, 0]).sigmoid()
    focal = (-((1 - each) ** 2) * each.log()).mean()
    torch.testing.assert_close(dice_and_focal()(logits, masks), dice + focal)


@pytest.mark.training
def test_train__masks_that_nobody_judged_are_left_out() -> None:
    photograph, mask = spot(0)
    blank = Example(photograph, np.full_like(mask, UNKNOWN))
    partial = mask.copy()
    partial[:10] = UNKNOWN
    # A batch of such masks alone would have a loss that is no number.
    examples = [*[blank] * 6, Example(photograph, partial), *_examples(range(1, 3))]
    settings = replace(SCRATCH, batch_size=2)
    assert train_unet(examples, (), CLASSES, settings).trained == (1, 4)


@pytest.mark.parametrize(
    "mask",
    [
        np.full((8, 8), 4, np.uint8),
        np.full((8, 8), UNKNOWN, np.uint8),
        np.full((8, 8), 7, np.uint8),
    ],
)
def test_train__nothing_to_tell_apart(mask: np.ndarray, refusal: Refusal) -> None:
    example = Example(np.zeros((8, 8, 3), np.uint8), mask)
    with refusal(TrainingDataError):
        train_unet([example, example], (), CLASSES, SCRATCH)


@pytest.mark.training
def test_train__validation_masks_that_nobody_judged(refusal: Refusal) -> None:
    photograph, mask = spot(0)
    blank = Example(photograph, np.full_like(mask, UNKNOWN))
    with refusal(TrainingDataError):
        train_unet(_examples(range(2)), [blank, blank], CLASSES, SCRATCH)


@pytest.mark.training
def test_file__of_the_papers_recipe(tmp_path: Path) -> None:
    settings = UNetSettings.of(
        Recipe.PAPER, encoder="mobilenet_v2", start=Start.SCRATCH, image_size=32, epochs=3
    )
    done = train_unet(_examples(range(4)), _examples(range(20, 22)), CLASSES, settings)
    done.save(tmp_path / "unet.safetensors")
    again = load_unet(tmp_path / "unet.safetensors")
    photograph = spot(30)[0]
    np.testing.assert_array_equal(again.probabilities(photograph), done.probabilities(photograph))
    assert again.settings == settings


def test_load__damaged(tmp_path: Path, refusal: Refusal) -> None:
    from fedd.weights.files import write_safetensors

    header = {"kind": "fedd-unet", "settings": SCRATCH.to_json(), "epoch": "1"}
    write_safetensors(tmp_path / "u.safetensors", {"a": torch.zeros(1)}, header)
    with refusal(WeightsError):
        load_unet(tmp_path / "u.safetensors")


def test_settings__odd_size(refusal: Refusal) -> None:
    with refusal(TrainingDataError):
        UNetSettings(image_size=100)


def test_settings__unknown_encoder(refusal: Refusal) -> None:
    with refusal(WeightsError):
        UNetSettings(encoder="resnet")


def test_train__device_that_is_not_there() -> None:
    with pytest.raises(DeviceError, match="cuda:9"):
        train_unet(_examples(range(2)), (), CLASSES, SCRATCH, device="cuda:9")


def test_load__something_else(tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "x.safetensors").write_text("<html>not found</html>")
    with refusal(WeightsError):
        load_unet(tmp_path / "x.safetensors")
