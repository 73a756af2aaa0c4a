from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fedd.backbone import DiffusionUNet
from fedd.cache import FeatureCache
from fedd.errors import DeviceError, WeightsError
from fedd.features import at_points, extract, prepare
from fedd.probes.calibration import Calibration
from fedd.probes.training import Example, train_probes
from fedd.segment import PAPER, Probes, ProbeSettings, load_probes
from tests.fedd.conftest import CLASSES, QUICK, TINY, like, spot
from tests.fedd.counting import Counting
from tests.wording import Refusal

TRAINING = [Example(*spot(s)) for s in range(6)]
REFINING = replace(QUICK, mirrored=True, refined_class="lesion")


@pytest.fixture(scope="module")
def probes(tiny: DiffusionUNet) -> Probes:
    return train_probes(TRAINING, tiny, QUICK, CLASSES)


@pytest.mark.training
@pytest.mark.parametrize("size", [(40, 40), (17, 170), (170, 17), (5, 5), (301, 200)])
def test_predict__any_size_and_aspect(
    tiny: DiffusionUNet, probes: Probes, size: tuple[int, int]
) -> None:
    found = probes.predict(tiny, [spot(3, size)[0]])[0]
    assert found.mask.shape == size
    assert found.mask.dtype == np.uint8
    assert 0 <= found.uncertainty < np.log(len(CLASSES))


def test_predict__batch_gives_what_each_image_gives_alone(
    tiny: DiffusionUNet, probes: Probes
) -> None:
    images = [spot(20)[0], spot(21, (30, 50))[0], spot(22)[0]]
    together = probes.predict(tiny, images)
    for image, found in zip(images, together, strict=True):
        alone = probes.predict(tiny, [image])[0]
        assert (alone.mask != found.mask).mean() < 0.001
        assert alone.uncertainty == pytest.approx(found.uncertainty, rel=1e-3)


def test_predict__mirrored_predicts_the_mirror_image_alike(
    tiny: DiffusionUNet, probes: Probes
) -> None:
    both = like(probes, replace(QUICK, mirrored=True, grid=16))
    image = spot(31, (64, 64))[0]
    straight, mirrored = (
        both.predict(tiny, [np.ascontiguousarray(x)])[0] for x in (image, image[:, ::-1])
    )
    assert (straight.mask != mirrored.mask[:, ::-1]).mean() < 0.002
    assert straight.uncertainty == pytest.approx(mirrored.uncertainty, rel=1e-3)
    first, second = (
        probes.predict(tiny, [np.ascontiguousarray(x)])[0].mask for x in (image, image[:, ::-1])
    )
    assert (first != second[:, ::-1]).any(), "one view alone does not have that symmetry"


@pytest.mark.training
def test_embedding__mean_of_each_channel_of_the_photograph_itself(
    tiny: DiffusionUNet, probes: Probes
) -> None:
    refining = like(probes, REFINING, refiner=probes)
    photographs = [spot(20)[0], spot(21, (30, 50))[0]]
    images = torch.stack([prepare(p, TINY.image_size) for p in photographs])
    blocks = tiny.activations(images, QUICK.features.timestep, QUICK.features.blocks)
    expected = np.concatenate(
        [blocks[block].numpy().mean((2, 3)) for block in QUICK.features.blocks], 1
    )
    found = refining.predict(tiny, photographs)
    assert found[0].embedding.dtype == np.float32
    np.testing.assert_allclose([f.embedding for f in found], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(found[0].embedding - found[1].embedding).max() > 1e-3


def test_embedding__no_pass_more(tiny: DiffusionUNet, probes: Probes) -> None:
    counting = Counting(tiny)
    assert probes.predict(counting, [spot(20)[0], spot(21)[0]])[1].embedding.size
    assert counting.passed.total() == 2


@pytest.mark.training
def test_embeddings__those_of_the_predictions_with_one_pass_each(
    tiny: DiffusionUNet, probes: Probes, tmp_path: Path, refusal: Refusal
) -> None:
    photographs = [spot(20)[0], spot(21, (30, 50))[0]]
    twice = like(probes, REFINING, refiner=probes)
    counting, cache = Counting(tiny), FeatureCache(tmp_path)
    found = twice.embeddings(counting, photographs, cache)
    assert counting.passed.total() == 2
    expected = [p.embedding for p in twice.predict(tiny, photographs, cache)]
    assert np.array_equal(found, expected)
    np.testing.assert_allclose(twice.embeddings(tiny, photographs), found, rtol=2e-3, atol=2e-3)
    with refusal(WeightsError):
        twice.embeddings(DiffusionUNet.random(TINY, seed=2), photographs)


def test_embedding__from_cached_activations_alike(
    tiny: DiffusionUNet, probes: Probes, tmp_path: Path
) -> None:
    photograph = spot(20)[0]
    plain = probes.predict(tiny, [photograph])[0].embedding
    for _ in range(2):
        cached = probes.predict(tiny, [photograph], FeatureCache(tmp_path))[0].embedding
        np.testing.assert_allclose(cached, plain, rtol=2e-3, atol=2e-3)


def test_uncertainty__members_that_agree_have_none(tiny: DiffusionUNet, probes: Probes) -> None:
    tensors = {k: v[:1].expand_as(v).clone() for k, v in probes.tensors.items()}
    agreeing = like(probes, tensors=tensors)
    image = spot(30)[0]
    assert agreeing.predict(tiny, [image])[0].uncertainty == pytest.approx(0, abs=1e-5)
    assert probes.predict(tiny, [image])[0].uncertainty > 1e-4


def test_save_and_load__same_predictions(
    tiny: DiffusionUNet, probes: Probes, tmp_path: Path
) -> None:
    probes.save(tmp_path / "p.safetensors")
    loaded = load_probes(tmp_path / "p.safetensors")
    assert loaded.settings == probes.settings
    assert (loaded.classes, loaded.trained) == (CLASSES, (1, 4))
    assert loaded.absent == ("background", "marker", "ruler")
    assert loaded.record == probes.record
    assert loaded.calibration is None
    image = spot(30)[0]
    assert np.array_equal(
        loaded.predict(tiny, [image])[0].mask, probes.predict(tiny, [image])[0].mask
    )
    assert [p.name for p in tmp_path.iterdir()] == ["p.safetensors"]


def test_save_and_load__calibration(probes: Probes, tmp_path: Path) -> None:
    probes = like(probes, calibration=Calibration(1.5, 0.03, 0.08, 4, 2048))
    probes.save(tmp_path / "p.safetensors")
    assert load_probes(tmp_path / "p.safetensors").calibration == probes.calibration


def test_load__settings_of_a_newer_version_are_refused(probes: Probes, tmp_path: Path) -> None:
    settings = {**QUICK.to_dict(), "dropout": 0.5}
    probes.save(tmp_path / "p.safetensors", {"settings": json.dumps(settings)})
    with pytest.raises(WeightsError, match="dropout"):
        load_probes(tmp_path / "p.safetensors")


def test_load__without_a_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="train them first"):
        load_probes(tmp_path / "p.safetensors")


def test_predict__other_backbone_is_refused(probes: Probes) -> None:
    other = DiffusionUNet.random(TINY, seed=2)
    both = rf"{probes.backbone_hash[:12]}.* not .*{other.hash[:12]}"
    with pytest.raises(WeightsError, match=both):
        probes.predict(other, [spot(1)[0]])


def test_predict__damaged_backbone_is_refused(probes: Probes) -> None:
    damaged = DiffusionUNet.random(TINY, seed=1)
    damaged.net.output_blocks[2][0].in_layers[2].bias.fill_(torch.nan)
    with pytest.raises(WeightsError, match="not numbers"):
        probes.predict(damaged, [spot(1)[0]])


def test_predict__cached_activations_predict_alike(
    tiny: DiffusionUNet, probes: Probes, tmp_path: Path
) -> None:
    cache = FeatureCache(tmp_path)
    images = [spot(40)[0], spot(41)[0]]
    plain = probes.predict(tiny, images)
    for _ in range(2):
        for found, expected in zip(probes.predict(tiny, images, cache), plain, strict=True):
            assert (found.mask != expected.mask).mean() < 0.001
    assert len(list(tmp_path.glob("*/*.safetensors"))) == len(images) * len(QUICK.features.blocks)


def test_predict__a_cache_holds_the_mirror_image_and_the_refinement_pass_too(
    tiny: DiffusionUNet, probes: Probes, tmp_path: Path
) -> None:
    twice = like(probes, REFINING, refiner=probes)
    counting, cache = Counting(tiny), FeatureCache(tmp_path)
    first = twice.predict(counting, [spot(40)[0]], cache)[0]
    assert counting.passed.total() == 3, "the photograph, its mirror image, and a part of it"
    again = twice.predict(counting, [spot(40)[0]], cache)[0]
    assert counting.passed.total() == 3
    assert np.array_equal(again.mask, first.mask)


@pytest.mark.parametrize("of", [Probes.predict, Probes.embeddings])
def test_predict__not_even_one_photograph_fits_is_one_line(
    tiny: DiffusionUNet,
    probes: Probes,
    monkeypatch: pytest.MonkeyPatch,
    of: Callable[..., object],
    refusal: Refusal,
) -> None:
    def full(*_: object) -> dict[int, Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")

    monkeypatch.setattr(tiny, "activations", full)
    with refusal(DeviceError):
        of(probes, tiny, [spot(1)[0], spot(2)[0]])


def test_probabilities__activations_of_other_blocks_are_refused(
    tiny: DiffusionUNet, probes: Probes, refusal: Refusal
) -> None:
    images = prepare(spot(1)[0], TINY.image_size)[None]
    other = extract(tiny, images, replace(QUICK.features, blocks=(3,)))
    with refusal(WeightsError):
        probes.probabilities(other, 16)


def test_probabilities__temperature_softens_and_keeps_the_order(
    tiny: DiffusionUNet, probes: Probes
) -> None:
    activations = extract(tiny, prepare(spot(1)[0], TINY.image_size)[None], QUICK.features)
    warm = like(probes, calibration=Calibration(3.0, 0.1, 0.2, 4, 100))
    sharp, soft = probes.probabilities(activations, 16), warm.probabilities(activations, 16)
    assert (soft.amax(1) <= sharp.amax(1) + 1e-6).all()
    assert soft.amax(1).mean() < sharp.amax(1).mean() - 0.01
    assert torch.equal(soft.argmax(1), sharp.argmax(1))


def test_logits__are_those_of_the_pixels(tiny: DiffusionUNet, probes: Probes) -> None:
    """Read at each position of a block's own grid, the pixels' logits give the map's softmax."""
    spec = replace(QUICK.features, blocks=(3,))
    width = tiny.activations(prepare(spot(1)[0], 32)[None], 10, (3,))[3].shape[1]
    rng = torch.Generator().manual_seed(0)
    tensors = {
        k: torch.randn(v.shape if k != "w1" else (2, 2 * width, 128), generator=rng) / 10
        for k, v in probes.tensors.items()
    }
    some = like(probes, replace(QUICK, features=spec), tensors=tensors)
    activations = extract(tiny, prepare(spot(1)[0], 32)[None], spec)
    size = activations[0].shape[-1]
    axis = torch.arange(size)
    points = torch.cartesian_prod(axis, axis)[None]
    pixels = at_points(activations, points, size, normalise=True)[0]
    expected = some.probabilities(activations, size).flatten(2).transpose(1, 2)
    torch.testing.assert_close(some.logits(pixels).softmax(-1), expected, rtol=1e-3, atol=1e-4)


def test_settings__round_trip() -> None:
    assert ProbeSettings.from_dict(PAPER.to_dict()) == PAPER
    assert PAPER.features.normalise is False
    assert (PAPER.members, PAPER.features.blocks, PAPER.features.timestep) == (5, (6, 8), 100)
