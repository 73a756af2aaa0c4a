from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedd.backbone import DiffusionUNet, place
from fedd.cache import FeatureCache
from fedd.composite import CompositeBackbone, resized
from fedd.encoders import EncoderConfig, FoldedEncoder, ImageNetEncoder, load_efficientnet_lite0
from fedd.errors import DeviceError, WeightsError
from fedd.features import FeatureSpec, prepare
from fedd.network.cost import activation_bytes, flop_of
from fedd.probes.settings import COMPOSITE, SMALL, default_settings
from fedd.probes.training import Example, train_probes
from fedd.weights.files import load_backbone, save_backbone
from tests.fedd.conftest import CLASSES, QUICK, TINY, spot
from tests.fedd.counting import Counting
from tests.wording import Refusal

SIZE = 64


@pytest.fixture(scope="module")
def lite0() -> ImageNetEncoder:
    net = FoldedEncoder(load_efficientnet_lite0(pretrained=False))
    return ImageNetEncoder("lite0", EncoderConfig(SIZE), net, "1" * 64)


@pytest.fixture(scope="module")
def both(tiny: DiffusionUNet, lite0: ImageNetEncoder) -> CompositeBackbone:
    """A UNet of 32 pixels and an encoder of 64."""
    return CompositeBackbone([tiny, lite0])


def _images(seed: int, count: int = 2) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    photographs = rng.integers(0, 256, (count, 80, 100, 3), np.uint8)
    return torch.stack([prepare(each, SIZE) for each in photographs])


def test_composite__numbers_the_blocks_through(
    both: CompositeBackbone, tiny: DiffusionUNet, lite0: ImageNetEncoder
) -> None:
    assert both.blocks == tuple(range(8 + 5))
    assert both.image_size == SIZE
    assert both.name == "untrained+lite0"
    assert both.last_blocks == (7, 8), "an encoder computes its deepest block last"


def test_activations__those_of_the_parts_each_at_its_own_size(
    both: CompositeBackbone, tiny: DiffusionUNet, lite0: ImageNetEncoder
) -> None:
    images = _images(0)
    found = both.activations(images, 50, (11, 3, 9, 5), noise=1)
    assert list(found) == [11, 3, 9, 5]
    own = tiny.activations(resized(images, 32), 50, (3, 5), noise=1)
    strided = lite0.activations(images, 0, (1, 3))
    for block, expected in ((3, own[3]), (5, own[5]), (9, strided[1]), (11, strided[3])):
        assert torch.equal(found[block], expected), block


def test_activations__each_part_passes_once_and_only_where_it_is_asked_for(
    tiny: DiffusionUNet, lite0: ImageNetEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[tuple[str, int]] = []
    for part in (tiny, lite0):
        real = part.activations

        def noted(
            images: torch.Tensor,
            timestep: int,
            blocks: Sequence[int],
            noise: int = 0,
            real: object = real,
            name: str = part.name,
        ) -> dict[int, torch.Tensor]:
            passed.append((name, len(images)))
            return real(images, timestep, blocks, noise)  # type: ignore[operator]

        monkeypatch.setattr(part, "activations", noted)
    both = CompositeBackbone([tiny, lite0])
    both.activations(_images(1, 3), 50, (1, 3, 9, 10))
    assert passed == [("untrained", 3), ("lite0", 3)]
    both.activations(_images(1, 1), 50, (10,))
    assert passed[2:] == [("lite0", 1)]


def test_activations__of_an_image_whatever_its_neighbours(both: CompositeBackbone) -> None:
    images = _images(2, 3)
    together, alone = (both.activations(x, 50, (5, 10)) for x in (images, images[1:2]))
    for block in (5, 10):
        torch.testing.assert_close(
            together[block][1:2], alone[block], rtol=1e-3, atol=1e-4, msg=f"block {block}"
        )


def test_activations__threads_share_it(both: CompositeBackbone) -> None:
    images = [_images(seed, 1) for seed in range(4)]
    one_by_one = [both.activations(each, 50, (3, 10)) for each in images]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda each: both.activations(each, 50, (3, 10)), images))
    for a, b in zip(one_by_one, found, strict=True):
        assert all(torch.equal(a[block], b[block]) for block in a)


@pytest.mark.parametrize("blocks", [(13,), (3, -1)])
def test_activations__block_that_does_not_exist(
    both: CompositeBackbone, blocks: tuple[int, ...], refusal: Refusal
) -> None:
    with refusal(ValueError):
        both.activations(_images(0), 50, blocks)


def test_activations__block_that_a_part_was_stored_without(
    lite0: ImageNetEncoder, tmp_path: Path, refusal: Refusal
) -> None:
    """The numbers of the second part do not depend on how much of the first is stored."""
    net = DiffusionUNet("imagenet-256", TINY, TINY.build(4), "2" * 64)
    both = CompositeBackbone([net, lite0])
    assert both.blocks == (0, 1, 2, 3, 4, 8, 9, 10, 11, 12)
    with refusal(WeightsError):
        both.activations(_images(0), 50, (5, 9))


def test_activations__images_of_the_smaller_parts_size(
    both: CompositeBackbone, refusal: Refusal
) -> None:
    with refusal(ValueError):
        both.activations(torch.zeros(1, 3, 32, 32), 50, (3,))


def test_hash__depends_on_every_part_and_their_order(
    tiny: DiffusionUNet, lite0: ImageNetEncoder
) -> None:
    other = DiffusionUNet.random(TINY, seed=2)
    hashes = {
        CompositeBackbone(parts).hash for parts in ([tiny, lite0], [lite0, tiny], [other, lite0])
    }
    assert len(hashes) == 3
    assert not hashes & {tiny.hash, lite0.hash, other.hash}
    assert CompositeBackbone([tiny, lite0]).hash in hashes


def test_to__moves_every_part(both: CompositeBackbone, refusal: Refusal) -> None:
    assert both.to("cpu") is both
    rounded = both.to("cpu", "bfloat16")
    assert [part.precision for part in (rounded, *rounded.parts)] == ["bfloat16"] * 3
    assert both.precision == "float32"
    assert place(both, "cpu", "bfloat16").precision == "bfloat16"
    with refusal(DeviceError):
        rounded.to("cpu")


def test_verified__only_if_all_parts_are(lite0: ImageNetEncoder) -> None:
    part = DiffusionUNet.random(TINY, seed=3)
    assert CompositeBackbone([part, lite0]).verified
    part.verified = False
    assert not CompositeBackbone([part, lite0]).verified


def test_resized__levels_of_a_photograph_prepared_at_that_size() -> None:
    photograph, _ = spot(0, (SIZE, SIZE))
    found = resized(prepare(photograph, SIZE)[None], 32)[0]
    levels = (found + 1) * 127.5
    torch.testing.assert_close(levels, levels.round())
    assert (levels - (prepare(photograph, 32) + 1) * 127.5).abs().max() <= 1, (
        "Pillow's, but rounding"
    )


def test_cost__sum_of_the_parts(
    both: CompositeBackbone, tiny: DiffusionUNet, lite0: ImageNetEncoder
) -> None:
    config = both.config
    assert flop_of(config, 3, 9, 11) == flop_of(tiny.config, 3) + flop_of(lite0.config, 1)
    assert flop_of(config, 9) == flop_of(lite0.config, 1), "the first part is not run"
    assert activation_bytes(config, 10) == activation_bytes(lite0.config, 2)


def test_cache__keeps_the_activations_of_both(both: CompositeBackbone, tmp_path: Path) -> None:
    counting = Counting(both)
    cache, spec = FeatureCache(tmp_path), FeatureSpec((3, 10), 50)
    images = _images(5)
    first, second = (cache.extract(counting, images, spec) for _ in range(2))
    assert len(counting.asked) == 1
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.training
def test_probes__read_it_like_any_backbone(both: CompositeBackbone) -> None:
    settings = replace(QUICK, features=replace(QUICK.features, blocks=(3, 5, 10)))
    probes = train_probes([Example(*spot(s)) for s in range(4)], both, settings, CLASSES)
    photograph, mask = spot(9)
    assert (probes.predict(both, [photograph])[0].mask == mask).mean() > 0.9


def test_load__a_file_and_an_encoder(tiny: DiffusionUNet, tiny_file: Path) -> None:
    net = load_backbone(f"{tiny_file}+lite0")
    assert net.name == "tiny+lite0"
    assert net.image_size == 192


def test_load__a_file_whose_name_holds_a_plus(tiny: DiffusionUNet, tmp_path: Path) -> None:
    path = tmp_path / "small+lite0"
    save_backbone(path, "own", TINY, tiny.net.state_dict(), {})
    assert load_backbone(str(path)).name == "own"


@pytest.mark.parametrize(
    "name",
    ["small+small", "small+lite0+small", "small+", "+", "small+lite2", "small + lite0"],
)
def test_load__impossible_composites(name: str, refusal: Refusal) -> None:
    with refusal(WeightsError):
        load_backbone(name)


def test_default_settings__of_the_default_composite() -> None:
    net = load_backbone("small+lite0")
    assert net.blocks == tuple(range(13))
    assert default_settings(net) == COMPOSITE
    assert default_settings(load_backbone("small")) == SMALL


def test_default_settings__of_another_order() -> None:
    features = default_settings(load_backbone("lite0+small")).features
    assert features.blocks == (1, 2, 3, 6, 8, 10)
    assert features.timestep == SMALL.features.timestep
