from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from syrupy.assertion import SnapshotAssertion

from annotation_protocol.metrics import confusion, iou_per_class
from fedd.backbone import IMAGENET_256, DiffusionUNet
from fedd.dataset import DatasetImage, read_dataset
from fedd.errors import ExplorationError
from fedd.explore.ablation import Ablation, Grid, default_blocks, split
from fedd.explore.cells import AblationSettings, AblationSplit, Cells
from fedd.explore.state import CellMetric
from fedd.malignancy.classifier import (
    ClassifierSettings,
    Examples,
    features_of,
    train_classifier,
)
from fedd.probes.training import Example, train_probes
from tests.fedd.conftest import CLASSES, QUICK, TINY, fedd, spot
from tests.fedd.counting import Counting
from tests.wording import Refusal

pytestmark = pytest.mark.training

TONES = ("I-II", "III-IV", "V-VI")

SETTINGS = AblationSettings(
    replace(QUICK, steps=10, mirrored=True), ClassifierSettings(0, epochs=5)
)

GRID = Grid((1, 3), (0, 100))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 spots of 12 patients, tones in turn, half of them malignant, with masks of their own."""
    root = tmp_path_factory.mktemp("spots")
    rows = ["file,tone,patient,malignant"]
    for name in ("photographs", "masks"):
        (root / name).mkdir()
    for n in range(24):
        image, mask = spot(n)
        Image.fromarray(image).save(root / "photographs" / f"{n}.png")
        np.save(root / "masks" / f"{n}.npy", mask)
        patient = n // 2
        rows.append(f"{n}.png,{TONES[patient % 3]},p{patient},{patient // 3 % 2 == 0}")
    (root / "table.csv").write_text("\n".join(rows))
    return root


@pytest.fixture(scope="module")
def items(folder: Path) -> list[DatasetImage]:
    return read_dataset(folder / "photographs", folder / "table.csv", folder / "masks")


@pytest.fixture(scope="module")
def parts(items: list[DatasetImage]) -> AblationSplit:
    return split(items, GRID.tasks, share=0.4)


@pytest.fixture(scope="module")
def done(
    parts: AblationSplit, tiny: DiffusionUNet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Counting]:
    out = tmp_path_factory.mktemp("ablation") / "out"
    counting = Counting(tiny)
    Ablation(parts, counting, GRID, SETTINGS, out).run()
    return out, counting


def test_ablate__each_image_passes_once_a_timestep_whatever_the_blocks_and_tasks(
    done: tuple[Path, Counting], parts: AblationSplit
) -> None:
    _, counting = done
    assert set(counting.passed.values()) == {1}
    assert set(counting.asked) == {(1, 3)}, "all blocks of the grid in one pass"
    tested, learned = parts.measured["segmentation"]["test"], parts.learned["segmentation"][100]
    # Too few for a validation split: all are learned from, with one augmented view.
    least = 2 * len(learned) + 2 * len(tested)
    assert least <= len(counting.passed) / 2 <= least + 24


def test_ablate__more_blocks_take_no_more_passes(
    done: tuple[Path, Counting], parts: AblationSplit, tiny: DiffusionUNet, tmp_path: Path
) -> None:
    counting = Counting(tiny)
    Ablation(parts, counting, Grid((0, 1, 3, 5), (0, 100)), SETTINGS, tmp_path).run()
    assert counting.passed == done[1].passed


def test_ablate__cell_is_what_training_on_that_block_alone_gives(
    done: tuple[Path, Counting], parts: AblationSplit, tiny: DiffusionUNet
) -> None:
    spec = replace(SETTINGS.probes.features, blocks=(3,), timestep=100)
    learned = parts.learned["segmentation"][100]
    examples = [Example(i.photograph(), i.class_ids(5), i.patient, i.tone) for i in learned]
    probes = train_probes(examples, tiny, replace(SETTINGS.probes, features=spec), CLASSES)
    each = []
    for item in parts.measured["segmentation"]["test"]:
        found = probes.predict(tiny, [item.photograph()])[0].mask
        each.append(iou_per_class(confusion(item.class_ids(5), found, 5))[1])
    row = _row(done[0], "segmentation", 3, 100, "all", "iou_mean")
    assert float(row["value"]) == pytest.approx(np.nanmean(each), abs=1e-6)
    assert int(row["n"]) == len(each)


def test_grid__every_cell_by_tone_with_n_and_interval(done: tuple[Path, Counting]) -> None:
    rows = _rows(done[0])
    cells = {(r["task"], r["block"], r["timestep"]) for r in rows}
    assert len(cells) == 8
    assert {r["tone"] for r in rows} == {"all", *TONES}
    for row in rows:
        assert int(row["n"]) >= 0
        assert bool(row["low"]) == bool(row["high"])
        if row["low"]:
            assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
    overall = [r for r in rows if r["tone"] == "all" and r["figure"] in ("iou_mean", "roc_auc")]
    assert all(r["value"] for r in overall)
    names = {p.name for p in done[0].iterdir()}
    assert names == {
        "grid.csv", "state.json", "figure6-segmentation.png", "figure6-classification.png",
        "figure6-classification-roc-auc.png",
    }  # fmt: skip


def test_ablate__done_cells_are_not_done_again_and_a_wider_grid_goes_on(
    done: tuple[Path, Counting], parts: AblationSplit, tiny: DiffusionUNet, tmp_path: Path
) -> None:
    (tmp_path / "state.json").write_bytes((done[0] / "state.json").read_bytes())
    again = Counting(tiny)
    Ablation(parts, again, GRID, SETTINGS, tmp_path).run()
    assert not again.passed
    assert (tmp_path / "figure6-segmentation.png").is_file()
    wider = Grid((1, 3, 5), (0, 100), ("classification",))
    Ablation(parts, again, wider, SETTINGS, tmp_path).run()
    assert set(again.asked) == {(5,)}
    assert len({(r["block"], r["timestep"]) for r in _rows(tmp_path)}) == 6


#: Patients of two nested fractions, of validation and of the test.
FRACTIONS = {5: (0, 3, 1), 20: (0, 3, 1, 4, 2, 5, 6)}
VALIDATED, TESTED = (7, 9, 10), (8, 11)


@pytest.fixture(scope="module")
def by_fraction(items: list[DatasetImage]) -> AblationSplit:
    """Two nested fractions, early stopping on the validation split, a test of classification alone."""

    def of(patients: tuple[int, ...]) -> list[DatasetImage]:
        return [item for item in items if item.patient in {f"p{p}" for p in patients}]

    learned = {f: of(patients) for f, patients in FRACTIONS.items()}
    validation, test = of(VALIDATED), of(TESTED)
    return AblationSplit(
        {"segmentation": {20: learned[20]}, "classification": learned},
        {
            "segmentation": {"validation": validation},
            "classification": {"validation": validation, "test": test},
        },
        {"segmentation": validation, "classification": validation},
    )


@pytest.fixture(scope="module")
def fractions_done(
    by_fraction: AblationSplit, tiny: DiffusionUNet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Counting, list[tuple[int, int]]]:
    out = tmp_path_factory.mktemp("fractions")
    counting, reported = Counting(tiny), []
    ablation = Ablation(by_fraction, counting, GRID, SETTINGS, out)
    assert ablation.cells == 12
    ablation.run(lambda done, total: reported.append((done, total)))
    return out, counting, reported


def test_ablate__one_pass_a_timestep_for_all_fractions_and_parts(
    fractions_done: tuple[Path, Counting, list[tuple[int, int]]], items: list[DatasetImage]
) -> None:
    out, counting, reported = fractions_done
    assert set(counting.passed.values()) == {1}
    # One augmented view of each photograph that segmentation learns from, a mirrored one of each predicted.
    views = 2 * (len(FRACTIONS[20]) + len(VALIDATED))
    assert len(counting.passed) == len(GRID.timesteps) * (len(items) + views)
    cells = {(r["task"], r["fraction"], r["part"]) for r in _rows(out)}
    assert cells == {
        ("segmentation", "20", "validation"),
        *(("classification", f, part) for f in ("5", "20") for part in ("validation", "test")),
    }
    assert reported == [(0, 12), (6, 12), (12, 12)]


def test_ablate__a_fraction_is_what_training_on_it_alone_gives(
    fractions_done: tuple[Path, Counting, list[tuple[int, int]]],
    by_fraction: AblationSplit,
    tiny: DiffusionUNet,
) -> None:
    """Accuracy at 0.5 of a classifier that is trained without the ablation's code."""
    settings = replace(SETTINGS.classifier, block=3, timestep=100)
    features = {}
    for item in by_fraction.of("classification"):
        (features[item.stem],) = features_of([item.photograph()], tiny, settings)

    def examples(part: Sequence[DatasetImage]) -> Examples:
        truth = np.array([bool(i.malignant) for i in part])
        return Examples(torch.stack([features[i.stem].half().float() for i in part]), truth)

    measured = by_fraction.measured["classification"]
    for fraction, learned in by_fraction.learned["classification"].items():
        stopping = examples(measured["validation"])
        classifier = train_classifier(examples(learned), stopping, tiny, settings).classifier
        for part, tested in measured.items():
            of_part = examples(tested)
            right = (classifier.probabilities(of_part.features) >= 0.5) == of_part.malignant
            row = _row(fractions_done[0], "classification", 3, 100, "all", "accuracy", (fraction, part))  # fmt: skip
            assert float(row["value"]) == pytest.approx(right.mean(), abs=1e-6)
            assert int(row["n"]) == len(tested)


def test_ablate__killed_run_goes_on_from_the_last_timestep(
    done: tuple[Path, Counting],
    parts: AblationSplit,
    tiny: DiffusionUNet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = Cells.at

    def killed(self: Cells, timestep: int, *rest: object) -> list[CellMetric]:
        if timestep == 100:
            raise KeyboardInterrupt
        return at(self, timestep, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Cells, "at", killed)
    with pytest.raises(KeyboardInterrupt):
        Ablation(parts, tiny, GRID, SETTINGS, tmp_path).run()
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["grid.csv", "state.json"]
    (tmp_path / ".activations").mkdir()  # as a killed process leaves it
    (tmp_path / ".activations" / "0.npy").write_bytes(b"half")
    counting = Counting(tiny)
    Ablation(parts, counting, GRID, SETTINGS, tmp_path).run()
    assert not (tmp_path / ".activations").exists()
    assert {timestep for timestep, _ in counting.passed} == {100}
    assert (tmp_path / "grid.csv").read_text() == (done[0] / "grid.csv").read_text()


def test_ablate__other_settings_are_refused_with_what_differs(
    done: tuple[Path, Counting],
    parts: AblationSplit,
    items: list[DatasetImage],
    tiny: DiffusionUNet,
    refusal: Refusal,
) -> None:
    before = (done[0] / "state.json").read_bytes()
    seed = replace(SETTINGS, probes=replace(SETTINGS.probes, seed=1))
    with refusal(ExplorationError):
        Ablation(parts, tiny, GRID, seed, done[0]).run()
    with refusal(ExplorationError):
        Ablation(split(items, GRID.tasks, seed=3), tiny, GRID, SETTINGS, done[0]).run()
    with pytest.raises(ExplorationError, match="run with backbone"):
        Ablation(parts, DiffusionUNet.random(TINY, 7), GRID, SETTINGS, done[0]).run()
    assert (done[0] / "state.json").read_bytes() == before


#: A row of the state's file.
METRIC: dict[str, object] = {
    "task": "segmentation", "fraction": 20, "block": 4, "timestep": 0, "part": "test", "tone": "all",
    "figure": "miou", "value": 0.5, "low": None, "high": None, "n": 3, "patients": 3,
}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        json.dumps({"made_with": {"version": 2}, "figures": [{}]}),
        json.dumps({"made_with": {"version": 1}, "figures": [{}]}),
        json.dumps({"made_with": {"version": 2}, "figures": [METRIC, {**METRIC, "block": "4"}]}),
        json.dumps({"made_with": {"version": 2}, "figures": [{**METRIC, "value": "high"}]}),
    ],
    ids=["empty", "no JSON", "a list", "an empty row", "older", "block as text", "value as text"],
)
def test_ablate__damaged_state_is_refused(
    parts: AblationSplit, tiny: DiffusionUNet, tmp_path: Path, text: str, refusal: Refusal
) -> None:
    (tmp_path / "state.json").write_text(text)
    with refusal(ExplorationError):
        Ablation(parts, tiny, GRID, SETTINGS, tmp_path).run()


def test_grid__1000_is_999_once_and_blocks_are_in_order() -> None:
    grid = Grid((8, 2, 8), (1000, 0, 999))
    assert (grid.timesteps, grid.blocks) == ((0, 999), (2, 8))


def test_default_blocks__of_the_papers_network_and_of_another() -> None:
    assert default_blocks(IMAGENET_256) == (2, 4, 6, 8, 10, 12, 14)
    assert default_blocks(TINY) == tuple(range(8))


@pytest.mark.parametrize(
    ("blocks", "timesteps"), [((99,), (0,)), ((), (0,)), ((1,), (1001,))]
)  # fmt: skip
def test_ablate__cells_that_there_are_not(parts: AblationSplit, tiny: DiffusionUNet, tmp_path: Path, blocks: tuple[int, ...], timesteps: tuple[int, ...], refusal: Refusal) -> None:  # fmt: skip
    with refusal(ExplorationError):
        Ablation(parts, tiny, Grid(blocks, timesteps), SETTINGS, tmp_path).run()


def test_split__apart_by_patient_and_sampled_by_seed(items: list[DatasetImage]) -> None:
    sampled = set()
    for seed in range(5):
        parts = split(items, GRID.tasks, seed=seed)
        for task in GRID.tasks:
            learned, tested = parts.learned[task][100], parts.measured[task]["test"]
            assert not {i.patient for i in learned} & {i.patient for i in tested}
            assert len(learned) + len(tested) == len(items)
        sampled.add(tuple(i.stem for i in parts.measured["segmentation"]["test"]))
    assert len(sampled) > 1


def test_split__named_test_part_leaves_its_patients_other_photographs_out(
    items: list[DatasetImage],
) -> None:
    parts = split(items, ("segmentation",), test={"0", "2", "3"})
    assert [i.stem for i in parts.measured["segmentation"]["test"]] == ["0", "2", "3"]
    assert parts.left_out == 1
    assert "1" not in {i.stem for i in parts.learned["segmentation"][100]}


@pytest.mark.parametrize(
    ("change", "test"),
    [
        ({"mask": None}, None),
        ({}, {"0", "stranger"}),
        ({}, {str(n) for n in range(24)}),
        ({"patient": "one"}, None),
    ],
)
def test_split__what_can_not_be_split(
    items: list[DatasetImage], change: dict[str, None], test: set[str] | None, refusal: Refusal
) -> None:
    changed = [replace(item, **change) for item in items]
    with refusal(ExplorationError):
        split(changed, ("segmentation",), test=test)


def test_ablate_command(
    folder: Path, tiny_file: Path, tmp_path: Path, wording: SnapshotAssertion
) -> None:
    test = tmp_path / "test.txt"
    test.write_text("0.png\n1.png\n\n6.png\n7.png\n")
    args = [
        "ablate", folder / "photographs", "--table", folder / "table.csv", "--out", tmp_path / "out",
        "--task", "classification", "--blocks", "1", "--timesteps", "1000", "--test", test,
        "--backbone", tiny_file,
    ]  # fmt: skip
    done = fedd(*args)
    assert done.exit_code == 0, done.output
    assert "t = 1000 is replaced by 999" in done.stderr
    assert "learns from 20 photographs, tested on 4" in done.stderr
    names = ["grid.csv", "figure6-classification.png", "figure6-classification-roc-auc.png"]
    assert done.stdout.splitlines() == [str(tmp_path / "out" / name) for name in names]
    assert {r["timestep"] for r in _rows(tmp_path / "out")} == {"999"}
    refused = [fedd(*args, "--device", "cuda:99")]
    for content in ("0.png\nMuttermal-groß.png\n".encode("latin-1"), b"\n"):
        test.write_bytes(content)
        refused.append(fedd(*args))
    assert [each.exit_code for each in refused] == [1, 1, 1]
    assert [each.output.splitlines()[-1].partition(": torch ")[0] for each in refused] == wording


def _rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "grid.csv", newline="") as file:
        return list(csv.DictReader(file))


def _row(
    folder: Path, task: str, block: int, timestep: int, tone: str, metric: str,
    of: tuple[int, str] = (100, "test"),
) -> dict[str, str]:  # fmt: skip
    names = ("task", "block", "timestep", "tone", "figure", "fraction", "part")
    key = tuple(map(str, (task, block, timestep, tone, metric, *of)))
    (row,) = [r for r in _rows(folder) if tuple(r[n] for n in names) == key]
    return row
