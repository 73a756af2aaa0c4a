from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from syrupy.assertion import SnapshotAssertion
from torch import Tensor

from fedd.backbone import DiffusionUNet
from fedd.cache import FeatureCache
from fedd.dataset import UNKNOWN
from fedd.errors import DeviceError, TrainingDataError, WeightsError
from fedd.probes import fitting, loss_weights, training
from fedd.probes.pixels import prepare_example
from fedd.probes.training import Example, train_probes
from fedd.segment import PAPER, Probes, ProbeSettings
from tests.fedd.conftest import CLASSES, QUICK, TINY, like, spot
from tests.fedd.counting import Counting
from tests.wording import Refusal

pytestmark = pytest.mark.training

TONES = ("I-II", "III-IV", "V-VI")


def example(seed: int) -> Example:
    return Example(*spot(seed), patient=f"patient-{seed // 2}", tone=TONES[seed % 3])


TRAINING = [example(s) for s in range(6)]

#: Enough images for a validation split, and as few steps as show it.
MANY = [example(s) for s in range(24)]
FAST = replace(QUICK, views=0, steps=40, pixels_per_image=128, warm_steps=20)


@pytest.fixture(scope="module")
def probes(tiny: DiffusionUNet) -> Probes:
    return train_probes(TRAINING, tiny, QUICK, CLASSES)


@pytest.fixture(scope="module")
def held(tiny: DiffusionUNet) -> Probes:
    return train_probes(MANY, tiny, FAST, CLASSES)


def lesion_iou(probes: Probes, backbone: DiffusionUNet) -> float:
    found = []
    for image, mask in (spot(s) for s in range(100, 108)):
        lesion = probes.predict(backbone, [image])[0].mask == 1
        found.append((lesion & (mask == 1)).sum() / (lesion | (mask == 1)).sum())
    return float(np.mean(found))


def same(one: Probes, other: Probes) -> bool:
    return all(torch.equal(one.tensors[k], other.tensors[k]) for k in one.tensors)


def test_train__learns_what_is_plain_to_see(tiny: DiffusionUNet, probes: Probes) -> None:
    assert lesion_iou(probes, tiny) > 0.6


def test_train__same_seed_same_probes_other_seed_other_probes(
    tiny: DiffusionUNet, probes: Probes
) -> None:
    assert same(train_probes(TRAINING, tiny, QUICK, CLASSES), probes)
    other = train_probes(TRAINING, tiny, replace(QUICK, seed=9), CLASSES)
    assert not torch.equal(other.tensors["w1"], probes.tensors["w1"])


def test_train__without_augmented_views_as_in_the_paper(tiny: DiffusionUNet) -> None:
    plain = replace(QUICK, views=PAPER.views, class_balance=PAPER.class_balance)
    assert lesion_iou(train_probes(TRAINING, tiny, plain, CLASSES), tiny) > 0.5


def test_train__reads_a_generator_once(tiny: DiffusionUNet, probes: Probes) -> None:
    assert same(train_probes((e for e in TRAINING), tiny, QUICK, CLASSES), probes)


def test_train__a_cache_changes_nothing_and_the_next_training_needs_no_backbone(
    tiny: DiffusionUNet, probes: Probes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FeatureCache(tmp_path)
    assert same(train_probes(TRAINING, tiny, QUICK, CLASSES, cache=cache), probes)

    def never(*_args: object) -> dict[int, torch.Tensor]:
        raise AssertionError("the backbone ran")

    monkeypatch.setattr(tiny, "activations", never)
    assert same(train_probes(TRAINING, tiny, QUICK, CLASSES, cache=cache), probes)


def test_train__cache_that_cannot_be_written_is_noted_once(
    tiny: DiffusionUNet, probes: Probes, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    cache = FeatureCache(tmp_path / "file")
    found = train_probes(TRAINING, tiny, QUICK, CLASSES, cache=cache)
    assert same(found, probes)
    assert sum("not kept" in note for note in found.record.notes) == 1


def test_train__classes_not_shown_are_named_and_never_predicted(
    tiny: DiffusionUNet, probes: Probes
) -> None:
    assert probes.trained == (1, 4)
    assert probes.absent == ("background", "marker", "ruler")
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    assert set(np.unique(probes.predict(tiny, [noise])[0].mask)) <= {1, 4}


def _masked(value: int) -> Example:
    return Example(spot(1)[0], np.full((40, 40), value, np.uint8))


@pytest.mark.parametrize(
    "examples", [[], [_masked(4)], [_masked(UNKNOWN)], [TRAINING[0], _masked(7)]]
)
def test_train__nothing_to_learn(
    tiny: DiffusionUNet, examples: list[Example], refusal: Refusal
) -> None:
    with refusal(TrainingDataError):
        train_probes(examples, tiny, QUICK, CLASSES)


def test_train__unknown_pixels_are_left_out(tiny: DiffusionUNet) -> None:
    """Half of each mask says nonsense: probes that may look there learn it, those that may not do not."""
    nonsense, partial = [], []
    for each in TRAINING:
        wrong, unknown = each.mask.copy(), each.mask.copy()
        wrong[:20], unknown[:20] = 3, UNKNOWN
        nonsense.append(replace(each, mask=wrong))
        partial.append(replace(each, mask=unknown))
    assert train_probes(nonsense, tiny, QUICK, CLASSES).trained == (1, 3, 4)
    probes = train_probes(partial, tiny, QUICK, CLASSES)
    assert probes.trained == (1, 4)
    assert lesion_iou(probes, tiny) > 0.5


def test_train__fewer_images_than_members_is_told(tiny: DiffusionUNet, probes: Probes) -> None:
    few = train_probes(TRAINING[:1], tiny, QUICK, CLASSES)
    assert any("1 images for 2 members" in note for note in few.record.notes)
    assert not any("members" in note for note in probes.record.notes)
    assert few.predict(tiny, [TRAINING[0].photograph])[0].mask.shape == (40, 40)


def test_train__on_a_gpu_a_validation_split_calibrates_on_the_cpu(
    tiny: DiffusionUNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The meta device stands for a GPU: its tensors can't be mixed with those of the CPU."""
    monkeypatch.setattr(Tensor, "cpu", lambda t: torch.zeros(t.shape) if t.is_meta else t)
    monkeypatch.setattr(fitting._Best, "_validation_loss", lambda *_: 0.5)
    elsewhere = Counting(tiny)
    elsewhere.device = torch.device("meta")
    probes = train_probes(MANY, elsewhere, replace(FAST, steps=2), CLASSES)
    assert probes.calibration is not None
    assert {t.device.type for t in probes.tensors.values()} == {"cpu"}


def test_train__full_gpu_is_one_line(
    tiny: DiffusionUNet, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    def full(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")

    monkeypatch.setattr(fitting.Ensemble, "forward", full)
    with refusal(DeviceError):
        train_probes(TRAINING, tiny, FAST, CLASSES)


def test_train__damaged_backbone_is_refused(tiny: DiffusionUNet) -> None:
    damaged = DiffusionUNet.random(TINY, seed=1)
    damaged.net.output_blocks[2][0].in_layers[2].bias.fill_(torch.nan)
    with pytest.raises(WeightsError, match="not numbers"):
        train_probes(TRAINING, damaged, QUICK, CLASSES)


def test_validation__too_few_images_say_so(probes: Probes) -> None:
    assert probes.record.validation == ()
    assert any(
        "6 images are too few for a validation split" in note for note in probes.record.notes
    )
    assert (probes.calibration, probes.record.validation_loss) == (None, None)
    assert probes.record.steps == QUICK.steps


def test_validation__is_apart_by_patient_and_calibrates(tiny: DiffusionUNet, held: Probes) -> None:
    prepared = [training.prepare_example(e, TINY.image_size) for e in MANY]
    learned = {s.patient for s in prepared if s.digest in held.record.learned}
    seen = {s.patient for s in prepared if s.digest in held.record.validation}
    assert learned.isdisjoint(seen)
    assert len(held.record.learned) + len(held.record.validation) == len(MANY)
    assert held.calibration is not None
    assert held.calibration.images == len(held.record.validation) >= 4
    assert held.calibration.pixels == len(held.record.validation) * training.VALIDATION_PIXELS
    assert held.calibration.ece <= held.calibration.ece_before + 0.01
    assert held.record.notes == ()


def test_validation__given_with_the_data_set(tiny: DiffusionUNet, refusal: Refusal) -> None:
    probes = train_probes(TRAINING, tiny, FAST, CLASSES, validation=[example(s) for s in (30, 31)])
    assert (len(probes.record.learned), len(probes.record.validation)) == (6, 2)
    assert probes.calibration is not None
    with pytest.raises(TrainingDataError, match="patient-0"):
        train_probes(TRAINING, tiny, FAST, CLASSES, validation=[TRAINING[0]])
    renamed = replace(TRAINING[0], patient="another")
    with refusal(TrainingDataError):
        train_probes(TRAINING[2:], tiny, FAST, CLASSES, validation=[renamed], warm_start=probes)


def test_early_stopping__stops_and_keeps_the_best(tiny: DiffusionUNet) -> None:
    """Validation masks that contradict the training: every step makes it worse."""
    liars = [
        replace(example(s), mask=np.where(spot(s)[1] == 1, 4, 1).astype(np.uint8)) for s in (30, 31)
    ]
    patient = replace(FAST, steps=200, patience=60)
    calls: list[tuple[str, int, int]] = []
    probes = train_probes(
        TRAINING, tiny, patient, CLASSES,
        lambda stage: lambda *at: calls.append((stage, *at)), validation=liars,
    )  # fmt: skip
    assert probes.record.steps == 80
    assert calls[-1] == ("Training, steps", 200, 200)
    # Validation images are read twice: for early stopping, and for calibration.
    assert [call for call in calls if call[0] != "Training, steps"] == [
        ("Photographs through the backbone", n, 10) for n in range(1, 11)
    ]
    honest = train_probes(
        TRAINING, tiny, patient, CLASSES, validation=[example(s) for s in (30, 31)]
    )
    assert honest.record.steps > 80
    assert probes.record.validation_loss is not None
    assert honest.record.validation_loss is not None
    assert honest.record.validation_loss < 0.5 < probes.record.validation_loss


def _bright_and_dark(settings: ProbeSettings, tiny: DiffusionUNet, dark_images: int) -> float:
    """Tones disagree on what the same spot is; the lesion's share where they do."""
    light = [replace(TRAINING[0], tone="I-II", patient=f"l{i}") for i in range(6)]
    other = np.full((40, 40), 4, np.uint8)
    other[:2] = 1
    dark = [Example(TRAINING[0].photograph, other, f"d{i}", "V-VI") for i in range(dark_images)]
    probes = train_probes([*light, *dark], tiny, settings, CLASSES)
    activations = tiny.activations(training.prepare_example(light[0], 32).image[None], 10, (3, 5))
    share = probes.probabilities([activations[3], activations[5]], 40)[:, 1].mean(0)
    return float(share[torch.from_numpy(TRAINING[0].mask == 1)].mean())


def test_tone_weight__a_tone_of_few_images_is_heard(tiny: DiffusionUNet) -> None:
    settings = replace(FAST, steps=500, class_balance=0.0)
    plain = _bright_and_dark(settings, tiny, 1)
    weighted = _bright_and_dark(replace(settings, tone_weight=1.0), tiny, 1)
    assert weighted < plain - 0.15, "the one image that calls it skin counts as much as the six"


def test_class_weight__a_rare_class_is_painted_more_readily(tiny: DiffusionUNet) -> None:
    as_they_come = replace(FAST, class_balance=0.0, steps=60)
    shares = []
    for weight in (0.0, 1.0):
        probes = train_probes(TRAINING, tiny, replace(as_they_come, class_weight=weight), CLASSES)
        found = probes.predict(tiny, [spot(s)[0] for s in range(100, 104)])
        shares.append(np.mean([(p.mask == 1).mean() for p in found]))
    assert shares[1] > shares[0]


def test_weights__are_one_on_average_and_even_between_tones() -> None:
    from fedd.probes.pixels import Pixels, PreparedExample

    images = torch.tensor([0] * 90 + [1] * 10 + [2] * 40)
    pixels = Pixels(
        torch.zeros(140, 1), torch.zeros(140, dtype=torch.long), images, images < 0, (1,)
    )
    prepared = [
        PreparedExample(torch.zeros(3, 1, 1), torch.zeros(1, 1), str(i), tone, str(i))
        for i, tone in enumerate(("I-II", "V-VI", "unknown"))
    ]
    weights = loss_weights.tone_weights(pixels, prepared, replace(QUICK, tone_weight=1.0))
    assert set(weights) == {"I-II", "V-VI"}
    assert 90 * weights["I-II"] == pytest.approx(10 * weights["V-VI"])
    assert 90 * weights["I-II"] + 10 * weights["V-VI"] == pytest.approx(100)
    alike = loss_weights.tone_weights(pixels, prepared, QUICK)
    assert alike == {"I-II": 1.0, "V-VI": 1.0}


def test_warm_start__no_steps_keep_what_the_probes_say(tiny: DiffusionUNet, probes: Probes) -> None:
    images = [spot(s)[0] for s in range(60, 64)]
    still = replace(QUICK, warm_steps=1, learning_rate=1e-12)
    earlier = like(probes, still, record=probes.record)
    warm = train_probes(TRAINING, tiny, still, CLASSES, warm_start=earlier)
    assert warm.record.warm_start
    for one, other in zip(warm.predict(tiny, images), probes.predict(tiny, images), strict=True):
        assert (one.mask != other.mask).mean() < 0.03
        assert one.uncertainty == pytest.approx(other.uncertainty, rel=0.2)


def test_warm_start__learns_the_new_mask_in_few_steps(tiny: DiffusionUNet, probes: Probes) -> None:
    more = [*TRAINING, *(example(s) for s in (6, 7))]
    settings = replace(QUICK, warm_steps=20)
    earlier = like(probes, settings, record=probes.record)
    warm = train_probes(more, tiny, settings, CLASSES, warm_start=earlier)
    assert (warm.record.warm_start, warm.record.steps) == (True, 20)
    assert len(warm.record.learned) == 8
    assert lesion_iou(warm, tiny) > 0.6


def test_warm_start__validation_images_stay_so(tiny: DiffusionUNet, held: Probes) -> None:
    more = [*reversed(MANY), *(example(s) for s in range(24, 30))]
    warm = train_probes(more, tiny, FAST, CLASSES, warm_start=held)
    assert warm.record.warm_start
    assert set(held.record.validation) <= set(warm.record.validation)
    assert set(held.record.learned).isdisjoint(warm.record.validation)


def test_warm_start__a_patient_in_both_splits_of_the_earlier_probes_starts_from_scratch(
    tiny: DiffusionUNet, held: Probes, wording: SnapshotAssertion
) -> None:
    digests = [prepare_example(e, tiny.image_size).digest for e in MANY]
    leaked = {digests.index(part[0]) for part in (held.record.validation, held.record.learned)}
    merged = [replace(e, patient="one") if i in leaked else e for i, e in enumerate(MANY)]
    found = train_probes(merged, tiny, FAST, CLASSES, warm_start=held)
    assert not found.record.warm_start
    assert found.record.validation
    assert found.record.notes == wording


def test_warm_start__probes_that_learned_from_all_start_from_scratch_and_say_so(
    tiny: DiffusionUNet,
) -> None:
    everything = train_probes(MANY[:19], tiny, FAST, CLASSES)
    found = train_probes(MANY[:20], tiny, FAST, CLASSES, warm_start=everything)
    assert not found.record.warm_start
    assert found.record.validation
    assert any("trained from scratch" in note for note in found.record.notes)


def test_warm_start__other_backbone_block_or_timestep_is_refused(
    tiny: DiffusionUNet, probes: Probes, refusal: Refusal
) -> None:
    other = DiffusionUNet.random(TINY, seed=2)
    both = rf"{tiny.hash[:12]}.* not .*{other.hash[:12]}"
    with pytest.raises(WeightsError, match=both):
        train_probes(TRAINING, other, QUICK, CLASSES, warm_start=probes)
    features = replace(QUICK.features, blocks=(3,), timestep=20)
    with refusal(WeightsError):
        train_probes(TRAINING, tiny, replace(QUICK, features=features), CLASSES, warm_start=probes)
    with refusal(WeightsError):
        train_probes(TRAINING, tiny, replace(QUICK, members=3), CLASSES, warm_start=probes)
    with pytest.raises(WeightsError, match="ruler"):
        train_probes(TRAINING, tiny, QUICK, CLASSES[:2], warm_start=probes)
