"""The choice of the precision, with GPUs that are the CPU: their name and bfloat16 are the test's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from syrupy.assertion import SnapshotAssertion

from fedd import precision
from fedd.backbone import DiffusionUNet, Replicas
from fedd.dataset import DatasetImage
from fedd.errors import DeviceError
from fedd.precision import (
    CHOICES,
    FEWEST,
    Agreement,
    Trial,
    compare,
    place_in,
    trial_of_masks,
)
from fedd.probes.training import Example, train_probes
from fedd.segment import Probes
from tests.fedd.conftest import CLASSES, QUICK, fedd, spot
from tests.wording import Refusal

GPU = "NVIDIA Test 9000"


class _Gpu:
    """Looks like a GPU to the choice; `place` gets the CPU."""

    type = "gpu"

    def __str__(self) -> str:
        return "cpu"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A GPU with bfloat16, and an empty cache folder."""
    monkeypatch.setenv("DDISEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(precision, "existing_devices", lambda _: [_Gpu()])
    monkeypatch.setattr(precision, "_named", lambda device: GPU if device.type == "gpu" else "CPU")
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: True)


@pytest.fixture(scope="module")
def probes(tiny: DiffusionUNet) -> Probes:
    return train_probes([Example(*spot(s)) for s in range(6)], tiny, QUICK, CLASSES)


class Trials:
    def __init__(self, probes: Probes, photographs: int = FEWEST) -> None:
        self.made = 0
        self._trial = Trial(probes, [spot(30 + s)[0] for s in range(photographs)])

    def __call__(self, exact: DiffusionUNet) -> Trial:
        assert exact.precision == "float32"
        self.made += 1
        return self._trial


def shares(equal: float) -> Callable[[DiffusionUNet, Trial], Agreement]:
    return lambda _net, trial: Agreement(equal, equal, len(trial.photographs), "2026-01-02T03:04")


def test_auto__on_a_cpu_float32_without_a_test(tiny: DiffusionUNet, probes: Probes) -> None:
    trials = Trials(probes)
    assert place_in(tiny, "cpu", "auto", trials).precision == "float32"
    assert trials.made == 0


@pytest.mark.usefixtures("gpu")
def test_auto__tested_once_and_said_each_time(
    tiny: DiffusionUNet,
    probes: Probes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    wording: SnapshotAssertion,
) -> None:
    monkeypatch.setattr(precision, "compare", shares(0.9961))
    trials = Trials(probes)
    with caplog.at_level(logging.INFO, "fedd"):
        for _ in range(2):
            assert place_in(tiny, "auto", "auto", trials).precision == "bfloat16"
    assert trials.made == 1
    assert [record.getMessage() for record in caplog.records] == wording


@pytest.mark.usefixtures("gpu")
def test_auto__trial_left_to_the_run(
    tiny: DiffusionUNet, caplog: pytest.LogCaptureFixture, wording: SnapshotAssertion
) -> None:
    with caplog.at_level(logging.INFO, "fedd"):
        assert place_in(tiny, "auto", "auto", precision.trial_later).precision == "float32"
    assert [record.getMessage() for record in caplog.records] == wording


@pytest.mark.usefixtures("gpu")
def test_auto__below_the_goal_is_float32_and_says_so(
    tiny: DiffusionUNet,
    probes: Probes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    wording: SnapshotAssertion,
) -> None:
    monkeypatch.setattr(precision, "compare", shares(0.9949))
    trials = Trials(probes)
    with caplog.at_level(logging.INFO, "fedd"):
        for _ in range(2):
            assert place_in(tiny, "auto", "auto", trials).precision == "float32"
    assert trials.made == 1, "a failed test is remembered, too"
    assert [record.getMessage() for record in caplog.records] == wording


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    "what", ["backbone", "device", "torch", "damaged file", "another shape of entry"]
)
def test_auto__another_backbone_device_or_torch_is_tested_anew(
    tiny: DiffusionUNet, probes: Probes, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(precision, "compare", shares(0.999))
    trials = Trials(probes)
    place_in(tiny, "auto", "auto", trials)
    path = precision.remembered().path
    if what == "backbone":
        monkeypatch.setattr(tiny, "hash", "f" * 64)
    elif what == "device":
        monkeypatch.setattr(precision, "_named", lambda _: "another GPU")
    elif what == "torch":
        monkeypatch.setattr(torch, "__version__", "9.9")
    elif what == "damaged file":
        path.write_text("{")
    else:
        path.write_text(path.read_text().replace("0.999", '"high"'))
    place_in(tiny, "auto", "auto", trials)
    assert trials.made == 2


@pytest.mark.usefixtures("gpu")
def test_auto__nothing_at_hand_to_test_with(
    tiny: DiffusionUNet,
    probes: Probes,
    caplog: pytest.LogCaptureFixture,
    wording: SnapshotAssertion,
) -> None:
    with caplog.at_level(logging.INFO, "fedd"):
        assert place_in(tiny, "auto", "auto").precision == "float32"
        few = Trials(probes, FEWEST - 1)
        assert place_in(tiny, "auto", "auto", few).precision == "float32"
    assert [record.getMessage() for record in caplog.records] == wording
    assert not precision.remembered().path.exists(), "nothing was tested, so nothing is remembered"


@pytest.mark.usefixtures("gpu")
def test_auto__gpu_without_bfloat16(
    tiny: DiffusionUNet, probes: Probes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: False)
    trials = Trials(probes)
    assert place_in(tiny, "auto", "auto", trials).precision == "float32"
    assert trials.made == 0


@pytest.mark.usefixtures("gpu")
def test_bfloat16__without_hardware_for_it_works_and_says_so(
    tiny: DiffusionUNet,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    wording: SnapshotAssertion,
) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: False)
    with caplog.at_level(logging.WARNING, "fedd"):
        net = place_in(tiny, "cpu", "bfloat16")
    assert net.precision == "bfloat16"
    assert [record.getMessage() for record in caplog.records] == wording
    found = net.activations(torch.zeros(1, 3, 32, 32), 10, (5,))[5]
    assert found.dtype == torch.float32


def test_precision__unknown(tiny: DiffusionUNet, refusal: Refusal) -> None:
    with refusal(DeviceError):
        place_in(tiny, "cpu", "float16")


def test_compare__the_share_of_equal_pixels(
    tiny: DiffusionUNet, probes: Probes, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Predicts:
        """Two photographs of 100 and 300 pixels; in bfloat16 one pixel of the first differs."""

        def predict(self, net: DiffusionUNet, photographs: list[np.ndarray]) -> list[object]:
            mask = np.zeros(photographs[0].shape[:2], np.uint8)
            if net.precision == "bfloat16" and mask.size == 100:
                mask[0, 0] = 1
            return [replace(probes.predict(tiny, [spot(1)[0]])[0], mask=mask)]

    photographs = [np.zeros((10, 10, 3), np.uint8), np.zeros((10, 30, 3), np.uint8)]
    found = compare(tiny, Trial(Predicts(), photographs))  # type: ignore[arg-type]
    assert (found.equal, found.lowest, found.photographs) == (1 - 1 / 400, 0.99, 2)
    assert found.passed


def test_compare__with_the_networks_themselves(tiny: DiffusionUNet, probes: Probes) -> None:
    found = compare(tiny, Trial(probes, [spot(30 + s)[0] for s in range(4)]))
    assert 0.9 < found.equal <= 1
    assert found.lowest <= found.equal


@pytest.mark.usefixtures("gpu")
def test_trial_of_masks__learns_from_some_and_tests_on_others(
    tiny: DiffusionUNet, tmp_path: Path
) -> None:
    from PIL import Image

    items = []
    for number in range(16):
        photograph, mask = spot(number)
        Image.fromarray(photograph).save(tmp_path / f"{number:02d}.png")
        Image.fromarray(mask).save(tmp_path / f"{number:02d}-mask.png")
        items.append(
            DatasetImage(tmp_path / f"{number:02d}.png", mask=tmp_path / f"{number:02d}-mask.png")
        )
    made = trial_of_masks(items, QUICK)(tiny)
    assert made is not None
    assert len(made.probes.record.learned) == 12
    assert len(made.photographs) == 4
    assert trial_of_masks(items[:15], QUICK)(tiny) is None
    assert trial_of_masks([replace(i, mask=None) for i in items], QUICK)(tiny) is None


def test_replicas__have_the_precision_of_the_choice(
    tiny: DiffusionUNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedd.backbone.existing_devices", lambda _: [torch.device("cpu")] * 2)
    net = place_in(tiny, "auto", "bfloat16")
    assert isinstance(net, Replicas)
    assert net.precision == "bfloat16"


def test_record__of_an_old_file_is_float32(
    tiny: DiffusionUNet, probes: Probes, tmp_path: Path
) -> None:
    from fedd.segment import ProbeTrainingRecord

    rounded = train_probes(
        [Example(*spot(s)) for s in range(3)], tiny.to("cpu", "bfloat16"), QUICK, CLASSES
    )
    assert rounded.record.precision == "bfloat16"
    stored = probes.record.to_dict()
    del stored["precision"]
    assert ProbeTrainingRecord.from_dict(stored).precision == "float32"


@pytest.mark.parametrize(
    "words",
    ["classify train {0} --out {0}/c.safetensors", "kmeans {0}/a.png --out {0}/k.png", "bench"],
)
def test_option__unknown_precision_is_a_usage_error(words: str, tmp_path: Path) -> None:
    Image = pytest.importorskip("PIL.Image")
    Image.fromarray(spot(1)[0]).save(tmp_path / "a.png")
    done = fedd(*words.format(tmp_path).split(), "--precision", "float16")
    assert done.exit_code == 2
    assert all(choice in done.output for choice in CHOICES)
