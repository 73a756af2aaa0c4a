"""refresh, prelabel and evaluate with --malignancy, and show, as they are typed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sqlalchemy import select
from syrupy.assertion import SnapshotAssertion

import ddiseg as ddiseg_package
from ddiseg.catalogue.tables import Image as Row
from ddiseg.errors import InputError
from ddiseg.workspace.workspace import Workspace
from fedd.backbone import DiffusionUNet
from fedd.weights.files import save_backbone
from tests.fedd.conftest import TINY, mole

Ddiseg = Callable[..., Any]

NOTE = "research output, not a diagnosis"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def clinic(ddiseg: Ddiseg, tmp_path: Path) -> Callable[..., Any]:
    """clinic("status"): a command on a workspace of 40 moles, half of them held out as 'test'."""
    folder, workspace = tmp_path / "photographs", tmp_path / "w"
    folder.mkdir()
    rows = ["file,tone,patient,malignant"]
    for n in range(40):
        Image.fromarray(mole(n, n % 2 == 0)).save(folder / f"{n}.png")
        rows.append(f"{n}.png,{('I-II', 'V-VI')[n // 2 % 2]},p{n},{n % 2 == 0}")
    (tmp_path / "rows.csv").write_text("\n".join(rows))
    weights = tmp_path / "tiny.safetensors"
    save_backbone(weights, "tiny", TINY, DiffusionUNet.random(TINY, 1).net.state_dict(), {})

    def call(command: str, *args: object) -> Any:
        trains = command == "refresh" or args[:1] == ("train",)
        extra = ("--backbone", weights) if trains else ()
        return ddiseg("--workspace", workspace, command, *args, *extra)

    assert ddiseg("init", workspace).status == 0
    columns = "image=file,tone=tone,patient=patient,malignant=malignant"
    done = call("import", folder, "--metadata", tmp_path / "rows.csv", "--columns", columns)
    assert done.status == 0, done.err
    catalogue = Workspace.open(workspace).catalogue
    with catalogue._database.write() as session:  # rendered moles look alike
        for image in session.scalars(select(Row)):
            image.perceptual_hash = image.content_hash[:16]
    test = [catalogue.images.find(f"{n}.png").id for n in range(20)]
    catalogue.subsets.store({"test": test}, {"by": "test"}, "tester")
    catalogue.close()
    return call


@pytest.mark.training
def test_the_whole_way(clinic: Any, tmp_path: Path, wording: SnapshotAssertion) -> None:
    done = clinic("refresh", "--malignancy", "--hold-out", "test")
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == f"malignancy-1: {NOTE}"
    assert lines[1] == wording
    assert lines[2] == wording
    again = clinic("refresh", "--malignancy", "--hold-out", "test")
    assert "unchanged: it learned from these images (20) already" in again.out

    done = clinic("prelabel", "--malignancy", "--subset", "test")
    assert done.status == 0, done.err
    assert "20 images: 20 added" in done.out
    assert f"model malignancy-1: {NOTE}" in done.out

    done = clinic("evaluate", "--malignancy")
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == f"malignancy-1: {NOTE}"
    assert lines[1].startswith("20 images; left out: 20 that the model learned from")
    assert lines[2] == wording
    assert lines[4].split()[:3] == ["all", "20", "10"]
    assert lines[3].count("[") == lines[4].count("[") == 3
    at = next(i for i, line in enumerate(lines) if "ROC-AUC [95% interval]:" in line)
    assert lines[at] == wording
    assert lines[at + 1].split() == ["tone", "n", "classifier", "colour", "alone"]
    assert lines[at + 2].split()[:2] == ["all", "20"]
    paper = clinic("evaluate", "--malignancy", "--paper-threshold", "--output", "json").json
    assert paper["threshold_chosen_on"] == wording

    shown = clinic("show", "0.png")
    assert f"by malignancy-1: {NOTE}" in shown.out
    assert "malignant with probability" in shown.out
    assert "malignant with probability" not in clinic("show", "39.png").out

    assert clinic("status").status == 0
    assert "train probes" not in clinic("status").out
    assert clinic("verify").status == 0


@pytest.mark.training
def test_train__the_papers_recipe(clinic: Any, wording: SnapshotAssertion) -> None:
    done = clinic("malignancy", "train", "--recipe", "paper", "--exclude", "test")
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[1:3] == wording
    assert "colour alone" not in done.out


@pytest.mark.training
def test_train__clinical_answers_stand_beside(
    clinic: Any, tmp_path: Path, wording: SnapshotAssertion
) -> None:
    table = tmp_path / "clinical.csv"
    rows = [f"{n}.png,{30 + n % 7},{n % 2 == 0}\n" for n in range(39)]
    table.write_text("img_id,age,itch\n" + "".join(rows))
    asked = ("--clinical", table, "--covariates", "age, itch")
    done = clinic("malignancy", "train", "--exclude", "test", *asked)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[1:5] == wording
    assert "clinical answers alone" in done.out
    predicted = clinic("malignancy", "predict", "--subset", "test", "--clinical", table)
    assert predicted.status == 0, predicted.err
    scored = clinic("malignancy", "evaluate", "--clinical", table, "--output", "json").json
    assert scored["beside"]["covariates"]["all"]["roc_auc"] == 1
    assert clinic("malignancy", "evaluate").status == 1, "it reads answers"


@pytest.mark.parametrize(
    "words",
    [("--clinical", "{}"), ("--covariates", "age"), ("--clinical", "{}", "--covariates", "ages")],
    ids=["no columns", "no table", "unknown column"],
)
def test_train__clinical_answers_that_are_not_there(
    here: Ddiseg,
    filled: Workspace,
    tmp_path: Path,
    words: tuple[str, ...],
    wording: SnapshotAssertion,
) -> None:
    table = tmp_path / "clinical.csv"
    table.write_text("img_id,age,itch,diagnostic\n1.png,3,True,BCC\n")
    done = here("malignancy", "train", *(word.format(table) for word in words))
    assert done.status == 1
    assert done.err.splitlines()[-1] == wording


@pytest.mark.parametrize("room", ["labelstudio", "release"])
def test_labelling_and_release__never_read_an_estimate(room: str) -> None:
    """Told "malignant", an annotator paints otherwise; a release says what people know."""
    files = list((Path(str(ddiseg_package.__file__)).parent / room).rglob("*.py"))
    assert files
    for path in files:
        text = path.read_text()
        assert ".malignancy" not in text, path
        assert "MalignancyEstimate" not in text, path


@pytest.mark.training
@pytest.mark.parametrize(
    ("line", "says"),
    [
        (("refresh", "--hold-out", "test"), "--hold-out goes with --malignancy"),
        (("evaluate", "--accepted", "--paper-threshold"), "--paper-threshold goes with --malig"),
        (("evaluate", "--accepted", "--malignancy"), "no --truth, no --accepted"),
    ],
)
def test_options__that_do_not_go_together(
    here: Ddiseg, filled: Workspace, line: tuple[str, ...], says: str
) -> None:
    done = here(*line)
    assert done.status == 2
    assert says in done.err


@pytest.mark.training
def test_device_and_precision__are_not_for_painting_alone(
    here: Ddiseg, filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(*_: object, **options: object) -> None:
        raise InputError(f"{options['device']} {options.get('precision')}")

    monkeypatch.setattr("ddiseg.model.malignancy_training.refresh_malignancy", told)
    monkeypatch.setattr("ddiseg.model.malignancy.prelabel_malignancy", told)
    done = here("refresh", "--malignancy", "--device", "cuda:1")
    assert "Error: cuda:1 auto" in done.err
    options = ("--malignancy", "--device", "cuda:1", "--precision", "bfloat16")
    done = here("prelabel", *options)
    assert "Error: cuda:1 bfloat16" in done.err


@pytest.mark.training
@pytest.mark.parametrize("command", ["prelabel", "evaluate"])
def test_without_a_classifier(here: Ddiseg, filled: Workspace, command: str) -> None:
    done = here(command, "--malignancy")
    assert done.status == 1
    assert "no malignancy model yet: run 'ddiseg refresh --malignancy'" in done.err


@pytest.mark.training
def test_refresh__no_labels(here: Ddiseg, filled: Workspace) -> None:
    done = here("refresh", "--malignancy")
    assert done.status == 1
    assert done.err.splitlines()[-1].startswith("Error: no image of known malignancy to learn from")
