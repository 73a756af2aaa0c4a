from __future__ import annotations

import json
import logging
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from PIL import Image
from syrupy.assertion import SnapshotAssertion
from torch.nn import functional as F

from fedd.backbone import SMALL, DiffusionUNet, UNetConfig
from fedd.errors import TrainingDataError, WeightsError
from fedd.pretrain import pretrain as module
from fedd.pretrain import run as run_module
from fedd.pretrain.curve import Curve, Point
from fedd.pretrain.data import squares
from fedd.pretrain.encoder import Teacher, efficientnet_lite0_teacher
from fedd.pretrain.pretrain import PretrainSettings, pretrain
from fedd.weights.files import BACKBONE_KIND, load_backbone, read_safetensors, save_backbone
from tests.fedd.conftest import CLASSES, TINY, fedd, spot
from tests.wording import Refusal

pytestmark = pytest.mark.training

#: Another depth, width and grid than `TINY`, and a learned variance as OpenAI's.
OTHER = UNetConfig(
    image_size=32,
    model_channels=32,
    channel_mult=(1, 1, 1),
    num_res_blocks=2,
    attention_resolutions=(8,),
    num_head_channels=32,
)

SETTINGS = PretrainSettings(steps=4, batch_size=4, phantoms=3, warmup=1)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photographs")
    for seed in range(4):
        Image.fromarray(spot(seed)[0]).save(folder / f"{seed}.png")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("tuning", [False, True])
def test_pretrain__a_stopped_run_ends_like_an_unbroken_one(
    photographs: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tuning: bool,
) -> None:
    """Killed in step 4 of 4, with a checkpoint after step 2."""
    start = DiffusionUNet.random(OTHER, seed=3) if tuning else TINY
    monkeypatch.setattr(module, "CHECKPOINT_EVERY", 2)
    unbroken = pretrain(photographs, tmp_path / "a", start, SETTINGS, None, "tiny")
    real = run_module.Run.train_step

    def killed(run: run_module.Run, *args: Any) -> dict[str, float]:
        if run.step == 3:
            raise KeyboardInterrupt
        return real(run, *args)

    with monkeypatch.context() as patch:
        patch.setattr(run_module.Run, "train_step", killed)
        with pytest.raises(KeyboardInterrupt):
            pretrain(photographs, tmp_path / "b", start, SETTINGS, None, "tiny")
    assert not (tmp_path / "b" / "tiny.safetensors").exists()
    caplog.clear()
    with caplog.at_level(logging.INFO, "fedd"):
        resumed = pretrain(photographs, tmp_path / "b", start, SETTINGS, None, "tiny")
    assert caplog.messages[0] == "resuming at step 2"
    first, second = (load_backbone(str(path)) for path in (unbroken, resumed))
    assert first.config == (OTHER if tuning else TINY)
    weights = second.net.state_dict()
    for key, value in first.net.state_dict().items():
        torch.testing.assert_close(weights[key], value, rtol=0, atol=0)


def test_pretrain__points_of_the_curve_also_of_a_resumed_run(
    photographs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it measured step 2, of which the checkpoint was written before."""
    measured: list[int] = []

    def killed(curve: Curve, step: int, *_: object) -> str:
        if step == 2:
            raise KeyboardInterrupt
        return record(curve, step)

    def record(curve: Curve, step: int, *_: object) -> str:
        measured.append(step)
        curve.points.append(Point(step, 0.0, {}))
        return ""

    settings = replace(SETTINGS, steps=5, score_every=2, phantoms=0)
    with monkeypatch.context() as patch:
        patch.setattr(Curve, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            pretrain(photographs, tmp_path, TINY, settings, None, "tiny", score={})
    monkeypatch.setattr(Curve, "add", record)
    monkeypatch.setattr(Curve, "has", lambda self, step: step in measured)
    pretrain(photographs, tmp_path, TINY, settings, None, "tiny", score={})
    assert measured == [0, 2, 4, 5]


def test_pretrain__starts_from_the_weights_given(photographs: list[Path], tmp_path: Path) -> None:
    start = DiffusionUNet.random(OTHER, seed=3)
    given = {k: v.clone() for k, v in start.net.state_dict().items()}
    still = replace(SETTINGS, steps=1, learning_rate=1e-12)
    path = pretrain(photographs, tmp_path, start, still, None, "tuned")
    tuned = load_backbone(str(path)).net.state_dict()
    for key, value in given.items():
        torch.testing.assert_close(tuned[key], value, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(start.net.state_dict()[key], value, rtol=0, atol=0)
    header = read_safetensors(path, BACKBONE_KIND)[1]
    assert header["init"] == f"untrained {start.hash}"


def test_pretrain__tuning_moves_the_weights(photographs: list[Path], tmp_path: Path) -> None:
    start = DiffusionUNet.random(OTHER, seed=3)
    path = pretrain(photographs, tmp_path, start, SETTINGS, None, "tuned")
    tuned, given = load_backbone(str(path)).net.state_dict(), start.net.state_dict()
    key = "input_blocks.0.0.weight"
    assert not torch.allclose(tuned[key], given[key], rtol=1e-3, atol=1e-6)


def test_pretrain__a_folder_of_another_run_is_refused(
    photographs: list[Path],
    tmp_path: Path,
    refusal: Refusal,
    wording: SnapshotAssertion,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pretrain(photographs, tmp_path, TINY, SETTINGS, None, "tiny")
    other = replace(SETTINGS, batch_size=2)
    with refusal(TrainingDataError):
        pretrain(photographs, tmp_path, DiffusionUNet.random(TINY), other, None, "tiny")
    longer = replace(SETTINGS, steps=5)
    caplog.clear()  # another test may have set the level of the messages before
    with caplog.at_level(logging.INFO, "fedd"):
        pretrain(photographs, tmp_path, TINY, longer, None, "tiny")
    assert caplog.messages[0] == wording


def test_pretrain__a_network_kept_in_part_is_refused(
    photographs: list[Path], tmp_path: Path, refusal: Refusal
) -> None:
    cut = DiffusionUNet("cut", TINY, TINY.build(last_block=3), "0" * 64)
    with refusal(WeightsError):
        pretrain(photographs, tmp_path / "out", cut, SETTINGS, None, "cut")
    assert not (tmp_path / "out").exists()


def test_pretrain__learns_from_all_three(photographs: list[Path], tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=75, warmup=5, learning_rate=2e-3, low_noise_share=1.0)
    teacher = _averages_by_stride(2)
    pretrain(photographs, tmp_path, TINY, settings, teacher, "tiny")
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [25, 50, 75]
    chance = math.log(len(CLASSES))
    assert log[-1]["phantom"] < 0.6 * chance
    assert log[-1]["denoising"] < 0.97, "white noise guessed as zero has a loss of 1"
    assert log[-1]["align"] < 0.2, "two random directions have a loss of 1"


def test_pretrain__a_damaged_photograph_is_refused_and_the_rest_goes_on(
    photographs: list[Path],
    tmp_path: Path,
    wording: SnapshotAssertion,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "photographs"
    shutil.copytree(photographs[0].parent, folder)
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:300])
    settings = replace(SETTINGS, steps=1, phantoms=0)
    found = sorted(folder.iterdir())
    with caplog.at_level(logging.INFO, "fedd"):
        pretrain(found, tmp_path / "run", TINY, settings, None, "tiny")
    assert caplog.messages[0].startswith(
        f"refused  {folder / '1.png'} can't be opened as a photograph"
    )
    assert caplog.messages[1] == wording
    identity = json.loads((tmp_path / "run" / "run.json").read_text())
    assert identity["photographs"] == ["0.png", "2.png", "3.png"]


def test_squares__the_right_way_up(tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 4))
    picture.paste((255, 255, 255), (4, 0, 8, 4))  # the right half
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by a quarter: right is below
    picture.save(tmp_path / "a.png", exif=exif)
    [(_, square)] = squares([tmp_path / "a.png"], 4, [])
    assert square[:, 0].max() < 128 < square[:, -1].min()


def test_pretrain__nothing_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="0 found"):
        pretrain([], tmp_path, TINY, SETTINGS, None, "tiny")


def test_pretrain__a_teacher_for_any_architecture(photographs: list[Path], tmp_path: Path) -> None:
    teacher = _averages_by_stride(2, 8, 16)
    pretrain(photographs, tmp_path, OTHER, SETTINGS, teacher, "other")
    assert run_module.Run(OTHER, SETTINGS, teacher).align_blocks == {2: 2, 8: 0, 16: 0}


def _averages_by_stride(*strides: int) -> Teacher:
    """A teacher that sees the mean colour of each patch."""
    return lambda images: {s: F.avg_pool2d(images, s) + 0.1 for s in strides}


def test_teacher__no_photograph_that_can_be_opened(tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with refusal(TrainingDataError):
        efficientnet_lite0_teacher([tmp_path / "a.png"])


def test_teacher__features_by_stride_for_the_small_networks_blocks(photographs: list[Path]) -> None:
    teacher = efficientnet_lite0_teacher(photographs)
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    found = teacher(image)
    assert {s: f.shape[1] for s, f in found.items()} == {16: 112, 8: 152, 4: 24}
    assert all(torch.isfinite(f).all() for f in found.values())
    brighter = teacher((image * 0.5 + 0.5).clamp(-1, 1))
    assert not torch.allclose(found[16], brighter[16])
    assert run_module.Run(SMALL, SETTINGS, teacher).align_blocks == {16: 1, 8: 3, 4: 5}


def test_command__one_step_from_named_photographs(photographs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("0.png\n2.png\n")
    done = _command(
        photographs, tmp_path, "--only", tmp_path / "names.txt", *ONE_STEP, "--set", "phantoms=2"
    )
    assert done.exit_code == 0, done.output
    assert "2 photographs, 2 phantoms" in done.stderr
    assert load_backbone(done.stdout.strip()).config == SMALL


def test_command__resumes_from_a_backbone_of_another_architecture(
    photographs: list[Path], tmp_path: Path
) -> None:
    weights = tmp_path / "mine.safetensors"
    save_backbone(weights, "mine", OTHER, DiffusionUNet.random(OTHER).net.state_dict(), {})
    options = ("--set", "phantoms=0", "--set", "align_weight=0", "--init", weights)
    done = _command(photographs, tmp_path, *ONE_STEP, *options)
    assert done.exit_code == 0, done.output
    tuned = load_backbone(done.stdout.strip())
    assert (tuned.name, tuned.config) == ("mine-tuned", OTHER)
    settings = json.loads(read_safetensors(Path(done.stdout.strip()), BACKBONE_KIND)[1]["settings"])
    assert settings["learning_rate"] == 1e-4


def test_command__missing_photograph_or_backbone(photographs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("0.png\n9.png\n")
    for words, says in (
        (("--only", tmp_path / "names.txt"), "first 9.png"),
        (("--set", "align_weight=0", "--init", "none-such"), "no backbone called none-such"),
    ):
        done = _command(photographs, tmp_path, *words)
        assert done.exit_code == 1
        assert says in done.stderr
        assert not (tmp_path / "run").exists()


ONE_STEP = ("--steps", 1, "--set", "batch_size=2")


def _command(photographs: list[Path], folder: Path, *words: object) -> Result:
    return fedd("pretrain", photographs[0].parent, "--out", folder / "run", *words)
