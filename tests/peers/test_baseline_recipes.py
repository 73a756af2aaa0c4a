"""The recipe `paper` against what the authors' notebooks say, written from Keras' rules.

DDI_Baseline_CNN_Classifiers (its experiment loop), DDI_Baseline_U_Nets_Segmentation and
DDI_DeepDerm_Classification; they ran with tf.keras 2.12 and segmentation_models 1.0.1.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from fedd.baselines import (
    CNNSettings,
    Diagnosed,
    Recipe,
    Start,
    UNetSettings,
    keras,
    train_cnn,
    train_unet,
)
from fedd.baselines.fitting import Samples, fit, scaled, seeded, squeezed
from fedd.baselines.frozen import FrozenCNN, encoder_of, features_of
from fedd.baselines.losses import (
    Objective,
    accuracy,
    binary_cross_entropy,
    keras_dice_and_focal,
    soft_iou,
)
from fedd.baselines.packages import define_missing_operators
from fedd.baselines.settings import FitSettings
from fedd.dataset import UNKNOWN
from fedd.malignancy.classifier import network
from fedd.malignancy.pooling import pooled_by_halves
from fedd.probes.training import Example
from tests.fedd.conftest import CLASSES, spot

define_missing_operators()
pytest.importorskip("segmentation_models_pytorch", reason="needs ddiseg[baselines]")

PAPER = Recipe.PAPER

#: Channels that Keras' networks end with, at 256 pixels on 8 x 8, and the features that are left.
ENDS = {
    "vgg16": (512, 512),
    "mobilenet_v2": (1280, 640),
    "efficientnet_b0": (1280, 640),
    "resnet50": (2048, 512),
    "densenet121": (1024, 512),
}


def _diagnosed(count: int, first: int = 0) -> list[Diagnosed]:
    return [Diagnosed(spot(seed)[0], seed % 2 == 0) for seed in range(first, first + count)]


@pytest.fixture
def optimisers(monkeypatch: pytest.MonkeyPatch) -> list[torch.optim.Adam]:
    """Collects every Adam that is made."""
    made = []

    class Noted(torch.optim.Adam):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(torch.optim, "Adam", Noted)
    return made


# Settings


def test_cnn__numbers_of_the_notebook() -> None:
    settings = CNNSettings.of(PAPER, "vgg16")
    assert (settings.image_size, settings.batch_size, settings.learning_rate) == (256, 30, 1e-4)
    assert (settings.epochs, settings.patience, settings.plateau) == (500, 50, 25)
    assert (settings.monitored, settings.augment, settings.frozen) == ("accuracy", False, True)


def test_unet__numbers_of_the_notebook() -> None:
    settings = UNetSettings.of(PAPER)
    assert (settings.image_size, settings.batch_size, settings.learning_rate) == (256, 64, 1e-4)
    assert (settings.epochs, settings.patience, settings.plateau) == (1000, 100, 50)
    assert (settings.monitored, settings.augment) == ("IoU", False)


def test_deepderm__numbers_of_the_notebook() -> None:
    """Not frozen and, unlike the others, on flipped and turned photographs."""
    settings = CNNSettings.of(PAPER, "deepderm")
    assert (settings.image_size, settings.batch_size, settings.learning_rate) == (299, 30, 1e-4)
    assert (settings.epochs, settings.patience, settings.plateau) == (500, 50, 25)
    assert (settings.monitored, settings.augment, settings.frozen) == ("accuracy", True, False)


# Network


def _halved(flat: NDArray[np.float32], times: int) -> NDArray[np.float32]:
    for _ in range(times):
        flat = flat[: len(flat) // 2 * 2].reshape(-1, 2).max(1)
    return flat


@pytest.mark.parametrize("model", ENDS)
def test_pooling__the_notebooks_rule(model: str) -> None:
    """Its `get_poolings`, for 512: 2 x 2 windows down to one position, then pairs of channels."""
    channels, left = ENDS[model]
    ends = np.random.default_rng(0).normal(size=(2, channels, 8, 8)).astype(np.float32)
    found = pooled_by_halves(torch.from_numpy(ends)).numpy()
    times = int(np.log(channels / 512) / np.log(2))
    expected = [_halved(each.max((1, 2)), times) for each in ends]
    assert found.shape == (2, left)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("model", ENDS)
def test_encoder__ends_where_keras_ends_without_its_top(model: str) -> None:
    encoder = encoder_of(model).eval()
    with torch.inference_mode():
        ends = encoder(torch.rand(1, 3, 64, 64))
    assert ends.shape == (1, ENDS[model][0], 2, 2)
    lowest = -0.28 if model == "efficientnet_b0" else 0  # SiLU's and ReLU's
    assert float(ends.min()) >= lowest


def test_head__fedds_with_kerass_constants() -> None:
    """Dense 64, batch norm, ReLU, dropout 0.5; 32, 0.25; 1. Glorot's weights, zeros as biases."""
    head = FrozenCNN(nn.Conv2d(3, 1, 1), 640).head
    assert [type(layer) for layer in head] == [type(layer) for layer in network(640)]
    assert [str(layer).partition(", eps")[0] for layer in head] == [
        "Linear(in_features=640, out_features=64, bias=True)", "BatchNorm1d(64", "ReLU()",
        "Dropout(p=0.5, inplace=False)", "Linear(in_features=64, out_features=32, bias=True)",
        "BatchNorm1d(32", "ReLU()", "Dropout(p=0.25, inplace=False)",
        "Linear(in_features=32, out_features=1, bias=True)",
    ]  # fmt: skip
    for layer in head:
        if isinstance(layer, nn.BatchNorm1d):
            assert (layer.momentum, layer.eps) == (pytest.approx(1 - 0.99), 1e-3)
        elif isinstance(layer, nn.Linear):
            limit = (6 / (layer.in_features + layer.out_features)) ** 0.5
            assert 0.8 * limit < float(layer.weight.detach().abs().max()) <= limit
            assert float(layer.bias.detach().abs().max()) == 0


# Frozen parameters


@pytest.fixture(scope="module")
def stored_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of MobileNetV2's convolutions whose batch norms have seen something."""
    path = tmp_path_factory.mktemp("encoder") / "mobilenet_v2.pth"
    with seeded(3):
        encoder = encoder_of("mobilenet_v2")
        for layer in encoder.modules():
            if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
                layer.running_mean.normal_(0, 0.1)
        torch.save(encoder.state_dict(), path)
    return path


def _small_cnn(start: Path, **changes: Any) -> CNNSettings:
    numbers = {"image_size": 32, "epochs": 3, "batch_size": 4} | changes
    return CNNSettings.of(PAPER, "mobilenet_v2", start=start, **numbers)


@pytest.mark.training
def test_frozen__neither_weights_nor_batch_norm_statistics_change(
    stored_encoder: Path, optimisers: list[torch.optim.Adam]
) -> None:
    done = train_cnn(_diagnosed(8), _diagnosed(4, 20), _small_cnn(stored_encoder))
    net = done.net
    assert isinstance(net, FrozenCNN)
    before = torch.load(stored_encoder, weights_only=True)
    assert before.keys() == net.encoder.state_dict().keys()
    for key, tensor in net.encoder.state_dict().items():
        torch.testing.assert_close(tensor, before[key], rtol=0, atol=0, msg=key)
    assert not any(p.requires_grad for p in net.encoder.parameters())
    [optimiser] = optimisers
    trained = {id(p) for group in optimiser.param_groups for p in group["params"]}
    assert trained == {id(p) for p in net.head.parameters()}
    assert int(net.head.state_dict()["1.num_batches_tracked"]) == 2 * done.epoch


@pytest.mark.training
def test_frozen__batch_norms_of_the_encoder_infer_while_the_head_trains(
    stored_encoder: Path,
) -> None:
    net = FrozenCNN(encoder_of("mobilenet_v2"), 640).train()
    assert net.head.training
    assert not any(layer.training for layer in net.encoder.modules())
    net.encoder.load_state_dict(torch.load(stored_encoder, weights_only=True))
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        alone = features_of(net.encoder, net.normalise(image))
        among = features_of(
            net.encoder, net.normalise(torch.cat([image, torch.rand(3, 3, 32, 32)]))
        )
    torch.testing.assert_close(among[:1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.training
def test_frozen__features_are_computed_once_and_predict_as_the_whole_network(
    stored_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = []
    forward = nn.Sequential.forward

    def counting(self: nn.Sequential, inputs: Tensor) -> Tensor:
        if "features" in dict(self.named_children()):
            passed.append(len(inputs))
        result: Tensor = forward(self, inputs)
        return result

    monkeypatch.setattr(nn.Sequential, "forward", counting)
    done = train_cnn(_diagnosed(6), _diagnosed(4, 20), _small_cnn(stored_encoder, epochs=7))
    assert sum(passed) == 10
    photographs = [example.photograph for example in _diagnosed(4, 20)]
    images = scaled(torch.stack([squeezed(photograph, 32) for photograph in photographs]))
    with torch.inference_mode():
        logits = done.net(images)[:, 0]
    np.testing.assert_allclose(done.predict(photographs), logits.sigmoid(), rtol=1e-5)


@pytest.mark.training
def test_unet__trained_whole(optimisers: list[torch.optim.Adam]) -> None:
    settings = UNetSettings.of(
        PAPER, encoder="mobilenet_v2", start=Start.SCRATCH, image_size=32, epochs=2
    )
    examples = [Example(*spot(seed)) for seed in range(5)]
    done = train_unet(examples, examples[:2], CLASSES, settings)
    [optimiser] = optimisers
    assert sum(len(g["params"]) for g in optimiser.param_groups) == len(list(done.net.parameters()))
    assert all(p.requires_grad for p in done.net.parameters())
    norms = [layer for layer in done.net.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert {layer.momentum for layer in norms} == {0.01}
    # Five images are one batch of the 64.
    assert {int(step["step"]) for step in optimiser.state.values()} == {2}


# Optimiser and schedule


def _settings(patience: int = 50, plateau: int = 25, epochs: int = 500) -> FitSettings:
    return FitSettings(
        image_size=1, recipe=PAPER, epochs=epochs, patience=patience, plateau=plateau,
        batch_size=30, augment=False,
    )  # fmt: skip


def _course(
    curve: list[float], settings: FitSettings, made: list[torch.optim.Adam]
) -> tuple[int, list[float], nn.Module, list[Tensor]]:
    """Train on a scripted validation accuracy: kept epoch, rates, network, weights after each epoch."""
    with seeded(0):
        head = keras.initialised(network(8))
    samples = Samples(
        torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2
    )
    coming = itertools.chain(curve, itertools.repeat(curve[-1]))
    rates, weights = [], []

    def report(_epoch: int, _loss: float, _value: float) -> None:
        rates.append(made[-1].param_groups[0]["lr"])
        weights.append(head[0].weight.detach().clone())

    objective = Objective(binary_cross_entropy, lambda _o, _t: torch.tensor(next(coming)))
    best = fit(head, objective, samples, samples, settings, report)
    return best, rates, head, weights


@pytest.mark.training
@pytest.mark.parametrize(("best", "stopped"), [(1, 51), (7, 57), (18, 68), (13, 63)])
def test_stop__the_epochs_that_the_notebook_printed(
    best: int, stopped: int, optimisers: list[torch.optim.Adam]
) -> None:
    """ "Restoring model weights from the end of the best epoch: 7. Epoch 57: early stopping"."""
    curve = [0.4 + 0.001 * min(e, best) for e in range(1, best + 1)]
    kept, rates, head, weights = _course(curve, _settings(), optimisers)
    assert (kept, len(rates)) == (best, stopped)
    torch.testing.assert_close(head.state_dict()["0.weight"], weights[best - 1], rtol=0, atol=0)
    assert not torch.equal(weights[best - 1], weights[-1])


@pytest.mark.training
def test_stop__the_first_of_equally_good_epochs(optimisers: list[torch.optim.Adam]) -> None:
    kept, rates, _, _ = _course([0.5, 0.7, 0.6, 0.7], _settings(patience=4), optimisers)
    assert (kept, len(rates)) == (2, 6)


@pytest.mark.training
def test_optimiser__adam_with_kerass_epsilon(optimisers: list[torch.optim.Adam]) -> None:
    _course([0.5], _settings(epochs=1), optimisers)
    options = optimisers[0].defaults
    assert (options["lr"], options["betas"], options["eps"]) == (1e-4, (0.9, 0.999), 1e-7)
    assert options["weight_decay"] == 0


def _keras_rates(curve: list[float], rate: float, patience: int) -> list[float]:
    """The rate after each epoch: tf.keras.callbacks.ReduceLROnPlateau(mode="max", factor=0.1, min_lr=1e-5)."""
    best, wait, rates = -np.inf, 0, []
    for value in curve:
        if value > best + 1e-4:
            best, wait = value, 0
        else:
            wait += 1
            if wait >= patience and rate > 1e-5:
                rate, wait = max(rate * 0.1, 1e-5), 0
        rates.append(rate)
    return rates


@pytest.mark.property
@given(
    st.lists(st.sampled_from([0.4, 0.5, 0.50005, 0.6, 0.7]), min_size=1, max_size=60),
    st.integers(1, 6),
    st.sampled_from([1e-2, 1e-3, 1e-4, 1e-5]),
)
def test_schedule__kerass_on_any_curve(curve: list[float], patience: int, rate: float) -> None:
    optimiser = torch.optim.Adam([torch.zeros(1, requires_grad=True)], rate)
    schedule = keras.reduced_on_plateau(optimiser, patience)
    found = []
    for value in curve:
        schedule.step(value)
        found.append(optimiser.param_groups[0]["lr"])
    np.testing.assert_allclose(found, _keras_rates(curve, rate, patience), rtol=1e-9)


@pytest.mark.training
def test_schedule__a_tenth_after_25_epochs_and_no_less(
    optimisers: list[torch.optim.Adam],
) -> None:
    """The best at epoch 3: the rate falls at the end of epoch 28, and training stops at 53."""
    _, rates, _, _ = _course([0.5, 0.6, 0.7], _settings(), optimisers)
    assert rates == pytest.approx([1e-4] * 28 + [1e-5] * 25)


@pytest.mark.property
@given(st.integers(2, 200), st.integers(2, 64))
def test_batches__full_ones_and_the_rest(count: int, size: int) -> None:
    found = [len(part) for part in keras.batches(torch.arange(count), size)]
    full, rest = divmod(count, size)
    expected = [size] * full + [rest] * (rest > 0)
    if rest == 1 and full:  # the one deviation: batch norm can't take a single image
        expected[-2:] = [size + 1]
    assert found == expected


# Losses


def _logits_and_masks(seed: int, classes: int, unknown: bool) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 6, 5, generator=rng) * 3
    masks = torch.randint(0, classes, (2, 6, 5), generator=rng)
    if unknown:
        masks[torch.rand(masks.shape, generator=rng) < 0.3] = UNKNOWN
    return logits, masks.to(torch.uint8)


def _numpy_shares(logits: Tensor, masks: Tensor) -> Iterator[NDArray[np.float64]]:
    """Probabilities and one-hot truth of known pixels, (P, C) each, as Keras has them."""
    raw = logits.double().permute(0, 2, 3, 1).reshape(-1, logits.shape[1]).numpy()
    ids = masks.reshape(-1).numpy()
    known = ids != UNKNOWN
    raised = np.exp(raw - raw.max(1, keepdims=True))
    yield (raised / raised.sum(1, keepdims=True))[known]
    yield np.eye(logits.shape[1])[ids[known]]


@pytest.mark.property
@given(st.integers(0, 10**6), st.integers(2, 5), st.booleans())
def test_loss__from_segmentation_modelss_definitions(
    seed: int, classes: int, unknown: bool
) -> None:
    """DiceLoss() + CategoricalFocalLoss(alpha=0.25, gamma=2): smooth 1e-5, no class weights."""
    logits, masks = _logits_and_masks(seed, classes, unknown)
    masks[0, 0, 0] = 0
    pr, gt = _numpy_shares(logits, masks)
    tp = (gt * pr).sum(0)
    fp, fn = pr.sum(0) - tp, gt.sum(0) - tp
    dice = 1 - ((2 * tp + 1e-5) / (2 * tp + fn + fp + 1e-5)).mean()
    clipped = pr.clip(1e-7, 1 - 1e-7)
    focal = (-gt * (0.25 * (1 - clipped) ** 2.0 * np.log(clipped))).mean()
    found = float(keras_dice_and_focal(logits, masks))
    np.testing.assert_allclose(found, dice + focal, rtol=1e-4)


@pytest.mark.property
@given(st.integers(0, 10**6), st.integers(2, 5), st.booleans())
def test_iou__from_segmentation_modelss_definition(seed: int, classes: int, unknown: bool) -> None:
    """IOUScore(): smooth 1e-5, of probabilities without a threshold, over the batch."""
    logits, masks = _logits_and_masks(seed, classes, unknown)
    pr, gt = _numpy_shares(logits, masks)
    both = (gt * pr).sum(0)
    union = gt.sum(0) + pr.sum(0) - both
    expected = ((both + 1e-5) / (union + 1e-5)).mean()
    np.testing.assert_allclose(float(soft_iou(logits, masks)), expected, rtol=1e-4)


def test_loss__dice_of_segmentation_models_pytorch_where_every_class_is_shown() -> None:
    from segmentation_models_pytorch.losses import DiceLoss, FocalLoss

    logits, masks = _logits_and_masks(1, 3, unknown=False)
    assert set(masks.unique().tolist()) == {0, 1, 2}
    dice = DiceLoss("multiclass", smooth=1e-5)(logits, masks.long())
    p = logits.softmax(1).gather(1, masks[:, None].long())
    focal = (-0.25 * (1 - p) ** 2 * p.log()).mean() / 3
    torch.testing.assert_close(keras_dice_and_focal(logits, masks), dice + focal)
    # The focal losses differ: segmentation_models_pytorch's is of a sigmoid for each class.
    assert not torch.isclose(FocalLoss("multiclass", alpha=0.25)(logits, masks.long()), focal)


def test_loss__a_class_that_no_mask_shows_counts_as_lost() -> None:
    """As in Keras; segmentation_models_pytorch leaves it out."""
    masks = torch.zeros(1, 4, 4, dtype=torch.uint8)
    logits = torch.tensor([20.0, -20.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    assert float(keras_dice_and_focal(logits, masks)) < 1e-4
    unsure = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    assert float(keras_dice_and_focal(unsure, masks)) > 0.5


def test_loss__gradient_of_pixels_without_a_class_is_zero() -> None:
    logits, masks = _logits_and_masks(2, 5, unknown=True)
    logits.requires_grad_()
    torch.autograd.backward(keras_dice_and_focal(logits, masks))
    assert logits.grad is not None
    unknown = (masks == UNKNOWN)[:, None].expand_as(logits)
    assert float(logits.grad[unknown].abs().max()) == 0
    assert float(logits.grad[~unknown].abs().min()) > 0


def test_accuracy__at_one_half() -> None:
    logits = torch.tensor([[-1.0], [0.0], [0.1], [2.0]])
    assert float(accuracy(logits, torch.tensor([0, 0, 1, 0]))) == 0.75
    expected = -np.log([1 - 1 / (1 + np.e), 0.5]).mean()
    found = binary_cross_entropy(torch.tensor([[-1.0], [0.0]]), torch.tensor([0, 1]))
    assert float(found) == pytest.approx(expected, rel=1e-6)


# DeepDerm


def _inception_file(path: Path, classes: int, **options: Any) -> dict[str, Tensor]:
    """What torchvision stores of an Inception v3 of so many classes."""
    from torchvision import models

    with seeded(5):
        net = models.inception_v3(
            weights=None, init_weights=False, num_classes=classes, aux_logits=True, **options
        )
    torch.save(net.state_dict(), path)
    state: dict[str, Tensor] = net.state_dict()
    return state


def _deepderm(start: Start | Path) -> CNNSettings:
    return CNNSettings.of(PAPER, "deepderm", start=start, image_size=75, epochs=1, batch_size=4)


@pytest.mark.training
@pytest.mark.parametrize("classes", [2, 7])
def test_deepderm__one_layer_on_the_softmax_of_the_files_classes(
    classes: int, tmp_path: Path, optimisers: list[torch.optim.Adam]
) -> None:
    """2 are Daneshjou's own files, 7 HAM10000's diagnoses as in the notebook."""
    from fedd.baselines.cnns import _start

    stored = _inception_file(tmp_path / "deepderm.pth", classes)
    net = _start(_deepderm(tmp_path / "deepderm.pth")).eval()
    images = torch.rand(2, 3, 75, 75) * 2 - 1
    torch.testing.assert_close(net.state_dict()["inception.fc.weight"], stored["fc.weight"])
    last: Any = net.get_submodule("last")
    assert last.in_features == classes
    with torch.inference_mode():
        expected = last(net.get_submodule("inception")(images).softmax(1))
        torch.testing.assert_close(net(images), expected)
    done = train_cnn(_diagnosed(4), _diagnosed(4, 20), _deepderm(tmp_path / "deepderm.pth"))
    [optimiser] = optimisers
    assert sum(len(g["params"]) for g in optimiser.param_groups) == len(list(done.net.parameters()))


@pytest.mark.slow
def test_deepderm__views_are_flipped_and_turned_only() -> None:
    """RandomFlip("vertical") and RandomRotation(1), a whole turn: the centre stays, its light too."""
    from fedd.baselines.fitting import _views

    rows, columns = torch.meshgrid(torch.arange(41), torch.arange(41), indexing="ij")
    radius = ((rows - 20) ** 2 + (columns - 20) ** 2).sqrt()
    rings = (radius / 20).clamp(0, 1).expand(8, 3, -1, -1) - 0.5
    targets = torch.zeros(8, dtype=torch.long)
    views, _ = _views(rings, targets, PAPER, torch.Generator().manual_seed(0))
    inside = (radius < 18).expand_as(rings)
    torch.testing.assert_close(views[inside], rings[inside], rtol=0, atol=0.05)
    ramp = (columns / 40 - 0.5).expand(8, 3, -1, -1)
    turned, _ = _views(ramp, targets, PAPER, torch.Generator().manual_seed(0))
    assert len({round(float(view[0, 5, 20] - view[0, 35, 20]), 2) for view in turned}) > 4
