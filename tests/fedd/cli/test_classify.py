"""`fedd classify`, as it is typed."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image
from syrupy.assertion import SnapshotAssertion

from fedd.malignancy.classifier import ClassifierSettings
from fedd.malignancy.stored import load_classifier
from tests.fedd.conftest import fedd, mole

pytestmark = pytest.mark.training


@pytest.fixture
def classify(tiny_file: Path) -> Callable[..., Result]:
    """classify("train", ...): `fedd classify train ...` with the tiny backbone."""
    return lambda command, *words: fedd("classify", command, "--backbone", tiny_file, *words)


def _ddi(folder: Path, first: int, count: int, known: bool = True) -> Path:
    """Photographs in DDI's layout; every third of unknown tone group is V-VI."""
    folder.mkdir()
    rows = [",DDI_ID,DDI_file,skin_tone,malignant,disease"]
    for n in range(first, first + count):
        Image.fromarray(mole(n, n % 2 == 0)).save(folder / f"{n:06d}.png")
        label = str(n % 2 == 0).upper() if known else ""
        rows.append(f"{n},{n},{n:06d}.png,{('12', '56')[n // 2 % 2]},{label},x")
    (folder / "ddi_metadata.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def ddi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _ddi(tmp_path_factory.mktemp("classify") / "ddi", 0, 24)


@pytest.fixture(scope="module")
def trained(tiny_file: Path, ddi: Path) -> Path:
    out = ddi.with_name("c.safetensors")
    done = fedd("classify", "train", "--backbone", tiny_file, ddi, "--out", out)
    assert done.exit_code == 0, done.output
    return out


def test_train__says_what_it_is_and_on_what_its_figures_are(
    classify: Callable[..., Result], ddi: Path, tmp_path: Path, wording: SnapshotAssertion
) -> None:
    out = tmp_path / "c.safetensors"
    done = classify("train", ddi, "--out", out, "--block", 3)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == f"{out}: research output, not a diagnosis"
    assert lines[1].startswith("block 3 of tiny (")
    assert (
        "), not OpenAI's checkpoint, at t = 50, float32; learned from 20 photographs, " in lines[1]
    )
    assert lines[2] == wording
    assert lines[3].split()[:3] == ["tone", "n", "malignant"]
    assert [line.split()[0] for line in lines[4:-1]] == ["all", "I-II", "V-VI"]
    assert lines[4].split()[1:3] == ["4", "2"]
    assert "too few" in lines[5], "two photographs of a tone say nothing"
    assert out.is_file()


def test_predict__writes_probabilities_and_prints_honest_figures(
    classify: Callable[..., Result], trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.csv"
    done = classify("predict", trained, _ddi(tmp_path / "new", 100, 24), "--out", out)
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert len(rows) == 24
    assert rows[0]["file"] == "000100.png"
    assert (rows[0]["tone"], rows[0]["malignant"], rows[0]["learned_from"]) == (
        *("I-II", "TRUE"),
        "FALSE",
    )
    assert all(0 <= float(r["probability_of_malignant"]) <= 1 for r in rows)
    assert {r["note"] for r in rows} == {"research output, not a diagnosis"}
    table = done.stdout.splitlines()
    assert table[0] == f"{out}: 24 photographs; research output, not a diagnosis"
    assert table[2].split()[:3] == ["all", "24", "12"]
    assert table[2].count("[") == 3
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_predict__without_out_stdout_is_the_csv_alone(
    classify: Callable[..., Result], trained: Path, tmp_path: Path
) -> None:
    done = classify("predict", trained, _ddi(tmp_path / "new", 100, 4))
    assert len(list(csv.DictReader(done.stdout.splitlines()))) == 4
    assert "ROC-AUC" not in done.stdout
    assert "ROC-AUC" in done.stderr


def test_predict__the_papers_threshold_is_named(
    classify: Callable[..., Result], trained: Path, tmp_path: Path
) -> None:
    new = _ddi(tmp_path / "new", 100, 24)
    out = tmp_path / "p.csv"
    done = classify("predict", trained, new, "--out", out, "--paper-threshold")
    assert (
        "F1 at the threshold of Youden's J on these same photographs, as in the paper"
        in done.stdout
    )
    assert "accuracy at 0.500 [" in done.stdout
    plain = classify("predict", trained, new, "--out", out)
    assert "as in the paper" not in plain.stdout
    assert "accuracy [" in plain.stdout


def test_predict__what_was_learned_from_is_counted_not_scored(
    classify: Callable[..., Result], ddi: Path, trained: Path, tmp_path: Path
) -> None:
    done = classify("predict", trained, ddi, "--out", tmp_path / "p.csv")
    assert done.exit_code == 0, done.output
    assert "24 photographs not scored: the classifier learned from them" in done.stdout
    assert "ROC-AUC" not in done.stdout


def test_predict__unknown_malignancy_is_counted_not_scored(
    classify: Callable[..., Result], trained: Path, tmp_path: Path
) -> None:
    new = _ddi(tmp_path / "new", 100, 4, known=False)
    done = classify("predict", trained, new, "--out", tmp_path / "p.csv")
    assert done.exit_code == 0, done.output
    assert "4 photographs have unknown malignancy: not counted" in done.stderr
    assert "ROC-AUC" not in done.stdout


def test_train__no_labels(classify: Callable[..., Result], tmp_path: Path) -> None:
    new = _ddi(tmp_path / "new", 100, 4, known=False)
    done = classify("train", new, "--out", tmp_path / "c.safetensors")
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: of 4 photographs none is known to be malignant or benign")
    assert not (tmp_path / "c.safetensors").exists()


def test_train__a_photograph_of_the_table_is_missing(
    classify: Callable[..., Result], tmp_path: Path
) -> None:
    folder = _ddi(tmp_path / "new", 100, 4)
    (folder / "000102.png").unlink()
    done = classify("train", folder, "--out", tmp_path / "c.safetensors")
    assert done.exit_code == 1
    assert "names 1 photographs that are not in" in done.stderr


def test_train__block_that_does_not_exist(classify: Callable[..., Result], tmp_path: Path) -> None:
    folder = _ddi(tmp_path / "new", 100, 8)
    done = classify("train", folder, "--out", tmp_path / "c.safetensors", "--block", 14)
    assert done.exit_code == 1
    assert "tiny has decoder blocks 0 to 7, not 14" in done.stderr


def test_predict__probes_are_no_classifier(
    classify: Callable[..., Result], tiny_file: Path, tmp_path: Path
) -> None:
    done = classify("predict", tiny_file, _ddi(tmp_path / "new", 100, 2))
    assert done.exit_code == 1
    assert "holds 'fedd-backbone', not 'fedd-malignancy'" in done.stderr


@pytest.mark.parametrize("command", ["train", "predict"])
@pytest.mark.parametrize("words", [("--device", "cuda:99"), ("--out", "{here}/no/folder.csv")])
def test_command__device_or_folder_that_does_not_exist(
    classify: Callable[..., Result],
    ddi: Path,
    trained: Path,
    tmp_path: Path,
    command: str,
    words: tuple[str, ...],
    wording: SnapshotAssertion,
) -> None:
    given = {
        "train": (ddi, "--out", tmp_path / "x"),
        "predict": (trained, ddi),
    }
    done = classify(command, *given[command], *(word.format(here=tmp_path) for word in words))
    assert done.exit_code == 1
    assert done.stderr.partition(": torch ")[0] == wording, "before any photograph is read"


def _asked(folder: Path, first: int, count: int) -> Path:
    """Photographs as those of `_ddi`, with two more columns: most malignant moles itch."""
    _ddi(folder, first, count)
    lines = (folder / "ddi_metadata.csv").read_text().splitlines()
    itch = [str(n % 2 == 0 or n % 8 == 1) for n in range(first, first + count)]
    rows = [
        f"{lines[0]},itch,age",
        *(f"{of},{i},4{n % 10}" for n, (of, i) in enumerate(zip(lines[1:], itch, strict=True))),
    ]
    (folder / "ddi_metadata.csv").write_text("\n".join(rows))
    return folder


def test_train__ours_beside_colour_and_covariates(
    classify: Callable[..., Result], tmp_path: Path, wording: SnapshotAssertion
) -> None:
    out = tmp_path / "c.safetensors"
    folder = _asked(tmp_path / "asked", 0, 24)
    done = classify(
        "train",
        folder,
        "--out",
        out,
        "--recipe",
        "ours",
        "--covariates",
        "itch,age",
        "--set",
        "folds=3",
    )
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[1].startswith("8 blocks of tiny (")
    assert lines[2] == wording
    heads = [line for line in lines if line.startswith("tone ")]
    assert heads[1].split() == ["tone", "n", "classifier", "colour", "alone", "covariates", "alone"]
    new = _asked(tmp_path / "new", 100, 24)
    predicted = classify("predict", out, new, "--out", tmp_path / "p.csv")
    assert predicted.exit_code == 0, predicted.output
    assert predicted.stdout.splitlines()[2].split()[:3] == ["all", "24", "12"]
    without = classify("predict", out, _ddi(tmp_path / "without", 200, 4))
    assert without.exit_code == 1
    assert without.stderr.splitlines()[-1] == wording


@pytest.mark.parametrize(
    "words",
    [
        ("--covariates", "itch"),
        ("--set", "block"),
        ("--set", "strength=1"),
        ("--set", "block=five"),
        ("--recipe", "ours", "--block", "3"),
        ("--recipe", "ours", "--set", "folds=1"),
        ("--recipe", "ours", "--covariates", "itches"),
    ],
)
def test_train__settings_that_do_not_fit(
    classify: Callable[..., Result],
    ddi: Path,
    tmp_path: Path,
    words: tuple[str, ...],
    wording: SnapshotAssertion,
) -> None:
    done = classify("train", ddi, "--out", tmp_path / "c.safetensors", *words)
    assert done.exit_code in (1, 2)
    assert done.stderr.splitlines()[-1] == wording
    assert not (tmp_path / "c.safetensors").exists()


def test_train__old_spelling_of_a_setting(
    classify: Callable[..., Result], ddi: Path, tmp_path: Path
) -> None:
    files = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    classify("train", ddi, "--out", files[0], "--block", 3, "--seed", 1)
    classify("train", ddi, "--out", files[1], "--set", "block=3", "--set", "seed=1")
    old, new = map(load_classifier, files)
    assert old.settings == new.settings == ClassifierSettings(3, 50, seed=1)
    assert old.threshold == new.threshold
