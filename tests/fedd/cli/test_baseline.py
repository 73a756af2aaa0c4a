from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from benchmarks.torchvision_ops import define_where_missing
from fedd.cli.main import cli
from tests.fedd.conftest import spot

define_where_missing()
pytest.importorskip("segmentation_models_pytorch", reason="needs ddiseg[baselines]")

QUICK = ["--from-scratch", "--image-size", "32", "--epochs", "2"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """24 photographs in DDI's layout, a patient each, and their masks but for the last one's."""
    root = tmp_path_factory.mktemp("ddi")
    photographs, masks = root / "photographs", root / "masks"
    photographs.mkdir()
    masks.mkdir()
    with (photographs / "ddi_metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", "DDI_ID", "DDI_file", "skin_tone", "malignant", "disease"])
        for seed in range(24):
            photograph, mask = spot(seed, (32, 48))
            name = f"{seed:06d}.png"
            Image.fromarray(photograph).save(photographs / name)
            if seed < 23:
                Image.fromarray(mask).save(masks / name)
            writer.writerow([seed, seed, name, (12, 34, 56)[seed % 3], seed % 2 == 0, "nevus"])
    return photographs, masks


def _run(*args: object) -> Result:
    return CliRunner().invoke(cli, ["baseline", *map(str, args)])


def test_segment_and_predict(folders: tuple[Path, Path], tmp_path: Path) -> None:
    photographs, masks = folders
    network = tmp_path / "unet.safetensors"
    done = _run(
        "segment",
        photographs,
        "--masks",
        masks,
        "--encoder",
        "mobilenet_v2",
        *QUICK,
        "--out",
        network,
    )
    assert done.exit_code == 0, done.output
    assert "learned from 18, validated on 5, epoch" in done.stdout
    assert "epoch 2: loss" in done.stderr

    (tmp_path / "new").mkdir()
    Image.fromarray(spot(50, (30, 70))[0]).save(tmp_path / "new" / "a.png")
    (tmp_path / "new" / "broken.jpg").write_text("no picture")
    said = _run(
        "predict", network, tmp_path / "new", "--out", tmp_path / "painted", "--probabilities"
    )
    assert said.exit_code == 0, said.output
    assert "2 photographs: 1 read, 1 refused" in said.stdout
    assert "broken.jpg can't be opened" in said.stderr
    assert sorted(p.name for p in (tmp_path / "painted").iterdir()) == ["a.npy", "a.png"]
    with Image.open(tmp_path / "painted" / "a.png") as picture:
        assert picture.size == (70, 30)
        assert set(np.unique(np.array(picture))) <= {1, 4}
    probabilities = np.load(tmp_path / "painted" / "a.npy")
    assert probabilities.shape == (5, 32, 32)
    np.testing.assert_allclose(probabilities.astype(float).sum(0), 1, atol=0.01)

    (tmp_path / "new" / "a.png").write_text("no picture")
    failed = _run("predict", network, tmp_path / "new", "--out", tmp_path / "none")
    assert failed.exit_code == 1
    assert "no photograph can be opened, first: " in failed.stderr


def test_classify_and_predict(folders: tuple[Path, Path], tmp_path: Path) -> None:
    photographs, _ = folders
    network = tmp_path / "cnn.safetensors"
    done = _run("classify", photographs, "--model", "mobilenet_v2", *QUICK, "--out", network)
    assert done.exit_code == 0, done.output
    assert "research output, not a diagnosis" in done.stdout
    said = _run("predict", network, photographs, "--out", tmp_path / "said.csv")
    assert said.exit_code == 0, said.output
    with (tmp_path / "said.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [f"{seed:06d}.png" for seed in range(24)]
    assert all(0 <= float(row["probability_of_malignant"]) <= 1 for row in rows)
    assert {row["note"] for row in rows} == {"research output, not a diagnosis"}


def test_segment__start_weights_that_do_not_fit(folders: tuple[Path, Path], tmp_path: Path) -> None:
    import torch

    photographs, masks = folders
    torch.save({"features.0.0.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "w.pth")
    done = _run(
        "segment", photographs, "--masks", masks, "--encoder", "mobilenet_v2",
        "--weights", tmp_path / "w.pth", "--out", tmp_path / "u.safetensors",
    )  # fmt: skip
    assert done.exit_code == 1
    assert "w.pth does not fit the network mobilenet_v2" in done.stderr
    assert not (tmp_path / "u.safetensors").exists()


def test_segment__file_and_from_scratch(folders: tuple[Path, Path], tmp_path: Path) -> None:
    photographs, masks = folders
    (tmp_path / "w.pth").write_text("")
    done = _run(
        "segment",
        photographs,
        "--masks",
        masks,
        *QUICK,
        "--weights",
        tmp_path / "w.pth",
        "--out",
        tmp_path / "u",
    )
    assert done.exit_code == 2
    assert "give one of them" in done.stderr


def test_segment__no_folder_to_write_to(folders: tuple[Path, Path], tmp_path: Path) -> None:
    photographs, masks = folders
    done = _run("segment", photographs, "--masks", masks, *QUICK, "--out", tmp_path / "none" / "u")
    assert done.exit_code == 1
    assert "there is no folder" in done.stderr
    assert "epoch 1" not in done.stderr


def test_segment__no_masks_of_these_photographs(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    done = _run(
        "segment", folders[0], "--masks", tmp_path / "masks", *QUICK, "--out", tmp_path / "u"
    )
    assert done.exit_code == 1
    assert "no mask in" in done.stderr


def test_predict__some_other_file(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no network")
    done = _run("predict", tmp_path / "x", folders[0], "--out", tmp_path / "o")
    assert done.exit_code == 1
    assert "can't be read as safetensors" in done.stderr
