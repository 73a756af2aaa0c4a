from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from syrupy.assertion import SnapshotAssertion

from fedd.baselines.packages import define_missing_operators
from tests.fedd.conftest import fedd, spot

define_missing_operators()
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


@pytest.mark.training
def test_segment_and_predict(folders: tuple[Path, Path], tmp_path: Path) -> None:
    photographs, masks = folders
    network = tmp_path / "unet.safetensors"
    done = fedd(
        "baseline",
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
    (tmp_path / "new" / "broken.jpg").write_text("not an image")
    found = fedd(
        "baseline",
        "predict",
        network,
        tmp_path / "new",
        "--out",
        tmp_path / "masks",
        "--probabilities",
    )
    assert found.exit_code == 0, found.output
    assert "2 photographs: 1 read, 1 refused" in found.stdout
    assert "broken.jpg can't be opened" in found.stderr
    assert sorted(p.name for p in (tmp_path / "masks").iterdir()) == ["a.npy", "a.png"]
    with Image.open(tmp_path / "masks" / "a.png") as picture:
        assert picture.size == (70, 30)
        assert set(np.unique(np.array(picture))) <= {1, 4}
    probabilities = np.load(tmp_path / "masks" / "a.npy")
    assert probabilities.shape == (5, 32, 32)
    np.testing.assert_allclose(probabilities.astype(float).sum(0), 1, atol=0.01)

    (tmp_path / "new" / "a.png").write_text("not an image")
    failed = fedd("baseline", "predict", network, tmp_path / "new", "--out", tmp_path / "none")
    assert failed.exit_code == 1
    assert "no photograph can be opened, first: " in failed.stderr


@pytest.mark.training
def test_classify_and_predict(folders: tuple[Path, Path], tmp_path: Path) -> None:
    photographs, _ = folders
    network = tmp_path / "cnn.safetensors"
    done = fedd(
        "baseline", "classify", photographs, "--model", "mobilenet_v2", *QUICK, "--out", network
    )
    assert done.exit_code == 0, done.output
    assert "research output, not a diagnosis" in done.stdout
    found = fedd("baseline", "predict", network, photographs, "--out", tmp_path / "found.csv")
    assert found.exit_code == 0, found.output
    with (tmp_path / "found.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [f"{seed:06d}.png" for seed in range(24)]
    assert all(0 <= float(row["probability_of_malignant"]) <= 1 for row in rows)
    assert {row["note"] for row in rows} == {"research output, not a diagnosis"}


@pytest.mark.training
@pytest.mark.parametrize(("command", "monitored"), [("segment", "IoU"), ("classify", "accuracy")])
def test_recipe__of_the_paper(
    folders: tuple[Path, Path], tmp_path: Path, command: str, monitored: str
) -> None:
    """The numbers that are not given are the recipe's, and its epochs say what they are chosen by."""
    import torch

    from fedd.baselines import CNNSettings, UNetSettings
    from fedd.baselines.frozen import encoder_of
    from fedd.weights.files import read_header

    photographs, masks = folders
    network = tmp_path / "network.safetensors"
    torch.save(encoder_of("mobilenet_v2").state_dict(), tmp_path / "m.pth")
    which = ("--masks", masks, "--encoder", "mobilenet_v2")
    words = which if command == "segment" else ("--model", "mobilenet_v2")
    words = (*words, *QUICK[1:], "--weights", tmp_path / "m.pth", "--recipe", "paper")
    done = fedd("baseline", command, photographs, *words, "--out", network)
    assert done.exit_code == 0, done.output
    assert f", validation {monitored} 0." in done.stderr
    kind = UNetSettings if command == "segment" else CNNSettings
    settings = kind.from_json(read_header(network)["settings"])
    assert settings.recipe.value == "paper"
    assert settings.batch_size == (64 if command == "segment" else 30)
    found = fedd("baseline", "predict", network, photographs, "--out", tmp_path / "found")
    assert found.exit_code == 0, found.output


def test_classify__no_frozen_encoder_from_scratch(
    folders: tuple[Path, Path], tmp_path: Path, wording: SnapshotAssertion
) -> None:
    words = ("--model", "vgg16", "--recipe", "paper", "--from-scratch", "--out", tmp_path / "c")
    done = fedd("baseline", "classify", folders[0], *words)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == wording


@pytest.mark.training
def test_segment__start_weights_that_do_not_fit(folders: tuple[Path, Path], tmp_path: Path) -> None:
    import torch

    photographs, masks = folders
    torch.save({"features.0.0.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "w.pth")
    done = fedd("baseline", "segment", photographs, "--masks", masks, "--encoder", "mobilenet_v2",
        "--weights", tmp_path / "w.pth", "--out", tmp_path / "u.safetensors",
    )  # fmt: skip
    assert done.exit_code == 1
    assert "w.pth does not fit the network mobilenet_v2" in done.stderr
    assert not (tmp_path / "u.safetensors").exists()


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (2, ("--masks", "{masks}", "--weights", "{here}/w.pth", "--out", "{here}/u")),
        (1, ("--masks", "{masks}", "--out", "{here}/none/u")),
        (1, ("--masks", "{here}/empty", "--out", "{here}/u")),
    ],
    ids=["a file and from scratch", "no folder to write to", "no masks of these photographs"],
)
def test_segment__refused_before_the_training(
    folders: tuple[Path, Path],
    tmp_path: Path,
    status: int,
    words: tuple[str, ...],
    wording: SnapshotAssertion,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "w.pth").touch()
    options = [word.format(masks=folders[1], here=tmp_path) for word in words]
    done = fedd("baseline", "segment", folders[0], *QUICK, *options)
    assert done.exit_code == status
    assert done.stderr.splitlines()[-1].replace(str(folders[0]), "<photographs>") == wording
    assert not (tmp_path / "u").exists()


def test_predict__some_other_file(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no network")
    done = fedd("baseline", "predict", tmp_path / "x", folders[0], "--out", tmp_path / "o")
    assert done.exit_code == 1
    assert "can't be read as safetensors" in done.stderr
