from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from fedd import pretrain as module
from fedd.backbone import SMALL
from fedd.cli import cli
from fedd.errors import TrainingDataError
from fedd.pretrain import PretrainSettings, efficientnet_lite0_teacher, pretrain
from fedd.weights import load_backbone
from tests.fedd.conftest import CLASSES, TINY, spot

SETTINGS = PretrainSettings(steps=4, batch_size=4, phantoms=3, warmup=1)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photographs")
    for seed in range(4):
        Image.fromarray(spot(seed)[0]).save(folder / f"{seed}.png")
    return sorted(folder.iterdir())


def _quiet(_line: str) -> None:
    pass


def test_pretrain__a_stopped_run_ends_like_an_unbroken_one(
    photographs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECKPOINT_EVERY", 2)
    unbroken = pretrain(photographs, tmp_path / "a", TINY, SETTINGS, None, "tiny", log=_quiet)

    real = module._Run.train_step
    calls = []

    def killed(self: module._Run, *args: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(module._Run, "train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        pretrain(photographs, tmp_path / "b", TINY, SETTINGS, None, "tiny", log=_quiet)
    assert not (tmp_path / "b" / "tiny.safetensors").exists()
    monkeypatch.setattr(module._Run, "train_step", real)
    lines: list[str] = []
    resumed = pretrain(photographs, tmp_path / "b", TINY, SETTINGS, None, "tiny", log=lines.append)
    assert lines[0] == "resuming at step 2"
    a, b = (load_backbone(str(p)).net.state_dict() for p in (unbroken, resumed))
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-2, atol=1e-3)


def test_pretrain__learns(photographs: list[Path], tmp_path: Path) -> None:
    settings = PretrainSettings(
        steps=75, batch_size=4, phantoms=3, warmup=5, learning_rate=2e-3, low_noise_share=1.0
    )
    pretrain(photographs, tmp_path, TINY, settings, None, "tiny", log=_quiet)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [25, 50, 75]
    chance = math.log(len(CLASSES))
    assert log[-1]["phantom"] < 0.6 * chance
    assert log[-1]["denoising"] < 0.97, "white noise guessed as zero has a loss of 1"


def test_pretrain__nothing_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="0 found"):
        pretrain([], tmp_path, TINY, SETTINGS, None, "tiny", log=_quiet)


def test_teacher__features_for_the_small_networks_blocks(photographs: list[Path]) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs ddiseg[pretrain]")
    teacher = efficientnet_lite0_teacher(photographs)
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    found = teacher(image)
    assert {b: f.shape[1] for b, f in found.items()} == {1: 112, 3: 152, 5: 24}
    assert all(torch.isfinite(f).all() for f in found.values())
    brighter = teacher((image * 0.5 + 0.5).clamp(-1, 1))
    assert not torch.allclose(found[1], brighter[1])


def test_command__one_step_from_named_photographs(photographs: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs ddiseg[pretrain]")
    names = tmp_path / "names.txt"
    names.write_text("0.png\n2.png\n")
    common = [str(photographs[0].parent), "--only", str(names), "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(
        cli, ["pretrain", *common, "--steps", "1", "--batch-size", "2", "--phantoms", "2"]
    )
    assert done.exit_code == 0, done.output
    assert "2 photographs, 2 phantoms" in done.stderr
    assert load_backbone(done.stdout.strip()).config == SMALL


def test_command__missing_photograph_is_named(photographs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("0.png\n9.png\n")
    args = [
        "pretrain",
        str(photographs[0].parent),
        "--only",
        str(tmp_path / "names.txt"),
        "--out",
        str(tmp_path / "o"),
    ]
    done = CliRunner().invoke(cli, args)
    assert done.exit_code == 1
    assert "first 9.png" in done.stderr
    assert not (tmp_path / "o").exists()
