from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from annotation_protocol import UNLABELLED
from fedd.backbone import DiffusionUNet
from fedd.errors import DatasetError, TrainingDataError
from fedd.pretrain import curve as module
from fedd.pretrain.curve import LESION, PROBES, SKIN, Curve, Point, ScoreTable, read_score_table
from fedd.probes.pixels import Example
from tests.fedd.conftest import QUICK, fedd, spot
from tests.wording import Refusal

#: Probes on the tiny network, one member for each of three folds.
THREE_FOLDS = replace(QUICK, members=3, folds=3, steps=40, views=0, validation_share=0.0)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Ten photographs of ten patients in one set, with masks of 0 and 255."""
    for i in range(10):
        image, mask = spot(i)
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        Image.fromarray(np.where(mask == LESION, 255, 0).astype(np.uint8)).save(
            tmp_path / f"m{i}.png"
        )
    rows = [("all", f"{i}.png", f"m{i}.png", f"P{i}") for i in range(10)]
    _write(tmp_path / "table.csv", rows)
    return tmp_path / "table.csv"


def _write(path: Path, rows: Sequence[tuple[str, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("set", "photograph", "mask", "patient"), *rows])


def test_read_score_table__mask_of_0_and_255(table: Path) -> None:
    [(name, examples)] = read_score_table(table).items()
    assert name == "all"
    assert [e.patient for e in examples] == [f"P{i}" for i in range(10)]
    for i, example in enumerate(examples):
        image, mask = spot(i)
        assert np.array_equal(example.photograph, image)
        assert np.array_equal(example.mask, mask)


def test_read_score_table__mask_of_class_ids_keeps_its_unknown_pixels(table: Path) -> None:
    mask = np.full((40, 40), SKIN, np.uint8)
    mask[:5], mask[10:20] = UNLABELLED, LESION
    Image.fromarray(mask).save(table.parent / "m3.png")
    assert np.array_equal(read_score_table(table)["all"][3].mask, mask)


def test_read_score_table__too_few_patients(table: Path, refusal: Refusal) -> None:
    rows = [("all", f"{i}.png", f"m{i}.png", f"P{i % 9}") for i in range(10)]
    _write(table, rows)
    with refusal(TrainingDataError):
        read_score_table(table)


def test_read_score_table__an_image_without_patient_is_its_own(table: Path) -> None:
    _write(table, [("all", f"{i}.png", f"m{i}.png", "") for i in range(10)])
    assert len(read_score_table(table)["all"]) == 10


@pytest.mark.parametrize("text", ["", "set,photograph,mask\nall,a,b\n", "set;photograph\n"])
def test_read_score_table__columns(table: Path, text: str, refusal: Refusal) -> None:
    table.write_text(text)
    with refusal(TrainingDataError):
        read_score_table(table)


def test_read_score_table__no_table(table: Path) -> None:
    table.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrainingDataError, match="can't be read as a CSV table"):
        read_score_table(table)


def test_read_score_table__missing_photograph(table: Path) -> None:
    (table.parent / "4.png").unlink()
    with pytest.raises(DatasetError, match=r"4\.png"):
        read_score_table(table)


def test_probes__as_many_members_in_each_fold() -> None:
    assert PROBES.members % PROBES.folds == 0
    assert PROBES.refined_class is None


@pytest.mark.training
def test_command__measures_a_curve(
    table: Path, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEEDS", (0, 1))
    monkeypatch.setattr(module, "PROBES", THREE_FOLDS)
    run = table.parent / "run"
    quick = ("phantoms=0", "align_weight=0", "batch_size=2")
    options = [word for change in quick for word in ("--set", change)]
    done = fedd(
        *("pretrain", table.parent, "--out", run, "--init", tiny_file, "--steps", 1),
        *("--only", _names(table.parent), "--score", table, *options),
    )
    assert done.exit_code == 0, done.output
    with (run / "curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["set"], row["n"]) for row in rows] == [
        (step, "all", "10") for step in ("0", "1")
    ]
    assert all(0.2 < float(row["iou"]) <= 1 for row in rows)


def _names(folder: Path) -> Path:
    (folder / "names.txt").write_text("".join(f"{i}.png\n" for i in range(10)))
    return folder / "names.txt"


@pytest.mark.training
def test_score__only_members_that_did_not_see_the_patient(
    tiny: DiffusionUNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One photograph is white and all lesion: who has not seen it takes it for skin."""
    monkeypatch.setattr(module, "SEEDS", (0,))
    white = np.full((40, 40, 3), 255, np.uint8)
    strange = Example(white, np.full((40, 40), LESION, np.uint8), "P0")
    table = {"all": (strange, *(_example(i) for i in range(1, 6)))}
    [found] = module.score(tiny, table, THREE_FOLDS)["all"]
    assert len(found) == 6
    assert found[0] < 0.5
    assert np.mean(found[1:]) > 0.5


def _example(seed: int) -> Example:
    image, mask = spot(seed)
    return Example(image, mask, f"P{seed}")


def _points(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *found: list[list[float]]
) -> tuple[Curve, ScoreTable]:
    """A curve with a point for each of `found`, of seeds and images, every 100 steps."""
    table = {"all": tuple(_example(0) for _ in found[0][0])}
    table["all"] = tuple(replace(e, patient=f"P{i}") for i, e in enumerate(table["all"]))
    curve = Curve(folder, table)
    for i, iou in enumerate(found):
        monkeypatch.setattr(module, "score", lambda *given, iou=iou: {"all": iou})
        curve.add(100 * i, float(i), None)  # type: ignore[arg-type]
    return curve, table


def test_curve__figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    low = np.linspace(0.2, 0.6, 12)
    first = [low.tolist(), (low + 0.1).tolist()]
    later = [(low + 0.2).tolist(), (low + 0.1).tolist()]
    _points(tmp_path, monkeypatch, first, later)
    with (tmp_path / "curve.csv").open(newline="") as file:
        start, end = csv.DictReader(file)
    assert (start["step"], end["step"], end["n"], end["patients"]) == ("0", "100", "12", "12")
    assert float(start["iou"]) == pytest.approx(0.45)
    assert float(end["iou"]) == pytest.approx(0.55)
    assert float(end["sd_of_seeds"]) == pytest.approx(0.1 / 2**0.5, abs=1e-4)
    # Each image gains as much, so that the paired interval is a point; the mean's is wide.
    assert [float(end[c]) for c in ("since_start", "since_start_low", "since_start_high")] == [
        pytest.approx(0.1)
    ] * 3
    assert float(end["high"]) - float(end["low"]) > 0.1


def test_curve__resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    iou = [[0.5] * 12] * 2
    curve, table = _points(tmp_path, monkeypatch, iou, iou)
    again = Curve(tmp_path, table)
    assert (
        again.points == curve.points == [Point(0, 0.0, {"all": iou}), Point(100, 1.0, {"all": iou})]
    )
    assert again.has(100)
    assert not again.has(200)
    lines = (tmp_path / "points.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 100]
