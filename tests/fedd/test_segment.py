from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedd.backbone import DiffusionUNet
from fedd.errors import TrainingDataError, WeightsError
from fedd.features import extract, image_statistics, prepare
from fedd.segment import HIDDEN, PAPER, Probes, ProbeSettings, _Ensemble, load_probes, train_probes
from tests.fedd.conftest import CLASSES, QUICK, TINY, spot

TRAINING = [spot(s) for s in range(6)]


@pytest.fixture(scope="module")
def probes(tiny: DiffusionUNet) -> Probes:
    return train_probes(TRAINING, tiny, QUICK, CLASSES)


def test_train__learns_what_is_plain_to_see(tiny: DiffusionUNet, probes: Probes) -> None:
    found = []
    for image, mask in (spot(s) for s in range(100, 108)):
        lesion = probes.predict(tiny, [image])[0].mask == 1
        found.append((lesion & (mask == 1)).sum() / (lesion | (mask == 1)).sum())
    assert np.mean(found) > 0.6


def test_train__same_seed_same_probes_other_seed_other_probes(
    tiny: DiffusionUNet, probes: Probes
) -> None:
    again = train_probes(TRAINING, tiny, QUICK, CLASSES)
    other = train_probes(TRAINING, tiny, replace(QUICK, seed=9), CLASSES)
    assert all(torch.equal(again.tensors[k], probes.tensors[k]) for k in probes.tensors)
    assert not torch.equal(other.tensors["w1"], probes.tensors["w1"])


def test_train__without_augmented_views_as_in_the_paper(tiny: DiffusionUNet) -> None:
    plain = replace(QUICK, views=PAPER.views, class_balance=PAPER.class_balance)
    probes = train_probes(TRAINING, tiny, plain, CLASSES)
    image, mask = spot(101)
    lesion = probes.predict(tiny, [image])[0].mask == 1
    assert (lesion & (mask == 1)).sum() / (lesion | (mask == 1)).sum() > 0.5


def test_train__classes_not_shown_are_never_predicted(tiny: DiffusionUNet, probes: Probes) -> None:
    assert probes.trained == (1, 4)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    assert set(np.unique(probes.predict(tiny, [noise])[0].mask)) <= {1, 4}


@pytest.mark.parametrize(
    ("examples", "says"),
    [([], "no masks"), ([(spot(1)[0], np.full((40, 40), 4, np.uint8))], "only skin")],
)
def test_train__nothing_to_learn(
    tiny: DiffusionUNet, examples: list[tuple[np.ndarray, np.ndarray]], says: str
) -> None:
    with pytest.raises(TrainingDataError, match=says):
        train_probes(examples, tiny, QUICK, CLASSES)


@pytest.mark.parametrize("normalise", [False, True])
def test_probabilities__equal_upsampling_first(tiny: DiffusionUNet, normalise: bool) -> None:
    """The slow way: every channel up-sampled, then each member's MLP at every pixel."""
    settings = replace(QUICK, features=replace(QUICK.features, normalise=normalise), steps=5)
    probes = train_probes(TRAINING[:2], tiny, settings, CLASSES)
    images = prepare(spot(50)[0], TINY.image_size)[None]
    blocks = extract(tiny, images, settings.features)
    layers = []
    for block in blocks:
        layers.append(block)
        if normalise:
            mean, std = image_statistics(block)
            layers.append((block - mean) / std)
    size = TINY.image_size
    up = torch.cat(
        [F.interpolate(x, (size, size), mode="bilinear", align_corners=False) for x in layers], 1
    )
    pixels = up[0].flatten(1).T
    fast = probes.probabilities(blocks, size)
    for m in range(settings.members):
        t = {k: v[m] for k, v in probes.tensors.items()}
        h = F.relu(pixels @ t["w1"] + t["b1"])
        h = F.relu(h @ t["w2"] + t["b2"])
        logits = h @ t["w3"] + t["b3"]
        logits[:, [0, 2, 3]] = -torch.inf
        slow = logits.softmax(1).T.unflatten(1, (size, size))
        torch.testing.assert_close(fast[m], slow, rtol=1e-3, atol=1e-4)


def test_folded__equals_the_network_it_came_from() -> None:
    """Input statistics and batch norms folded into plain layers change nothing."""
    rng = torch.Generator().manual_seed(0)
    net = _Ensemble(3, 7, 5, rng)
    mean, std = torch.randn(7), torch.rand(7) + 0.5
    x = torch.randn(3, 64, 7)
    for _ in range(5):
        net((x - mean) / std)
    net.eval()
    expected = net((x - mean) / std)
    t = net.folded(mean, std)
    h = F.relu(x @ t["w1"] + t["b1"][:, None])
    h = F.relu(h @ t["w2"] + t["b2"][:, None])
    torch.testing.assert_close(h @ t["w3"] + t["b3"][:, None], expected, rtol=1e-4, atol=1e-4)
    assert [t[f"w{i}"].shape[2] for i in (1, 2)] == list(HIDDEN)


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


def test_predict__mirrored_votes_for_the_mirror_image_alike(
    tiny: DiffusionUNet, probes: Probes
) -> None:
    settings = replace(QUICK, mirrored=True, grid=16)
    both = Probes(
        settings,
        CLASSES,
        probes.trained,
        probes.backbone_name,
        probes.backbone_hash,
        probes.tensors,
    )
    image = spot(31, (64, 64))[0]
    straight, mirrored = (
        both.predict(tiny, [np.ascontiguousarray(x)])[0] for x in (image, image[:, ::-1])
    )
    assert (straight.mask != mirrored.mask[:, ::-1]).mean() < 0.002
    assert straight.uncertainty == pytest.approx(mirrored.uncertainty, rel=1e-3)
    alone = (
        probes.predict(tiny, [np.ascontiguousarray(x)])[0].mask for x in (image, image[:, ::-1])
    )
    first, second = alone
    assert (first != second[:, ::-1]).any(), "one view alone does not have that symmetry"


def test_uncertainty__members_that_agree_have_none(tiny: DiffusionUNet, probes: Probes) -> None:
    tensors = {k: v[:1].expand_as(v).clone() for k, v in probes.tensors.items()}
    agreeing = Probes(
        QUICK, CLASSES, probes.trained, probes.backbone_name, probes.backbone_hash, tensors
    )
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
    image = spot(30)[0]
    assert np.array_equal(
        loaded.predict(tiny, [image])[0].mask, probes.predict(tiny, [image])[0].mask
    )
    assert [p.name for p in tmp_path.iterdir()] == ["p.safetensors"]


def test_predict__other_backbone_is_refused(probes: Probes) -> None:
    other = DiffusionUNet.random(TINY, seed=2)
    with pytest.raises(WeightsError, match="untrained"):
        probes.predict(other, [spot(1)[0]])


@pytest.mark.parametrize("where", ["training", "prediction"])
def test_damaged_backbone__not_a_number_is_refused(
    tiny: DiffusionUNet, probes: Probes, where: str
) -> None:
    damaged = DiffusionUNet.random(TINY, seed=1)
    damaged.net.output_blocks[2][0].in_layers[2].bias.fill_(torch.nan)
    with pytest.raises((TrainingDataError, WeightsError), match="not numbers"):  # noqa: PT012
        if where == "training":
            train_probes(TRAINING, damaged, QUICK, CLASSES)
        else:
            probes.predict(damaged, [spot(1)[0]])


def test_settings__round_trip() -> None:
    assert ProbeSettings.from_dict(PAPER.to_dict()) == PAPER
    assert PAPER.features.normalise is False
    assert (PAPER.members, PAPER.features.blocks, PAPER.features.timestep) == (5, (6, 8), 100)
