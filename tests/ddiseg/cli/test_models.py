"""models list, show, card, diff, promote and rollback, as they are typed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import ModelKind
from ddiseg.cli.models import KINDS
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from fedd.backbone import DiffusionUNet
from fedd.weights.files import save_backbone
from tests.ddiseg.model.version_rows import (
    add_classifier,
    add_version,
    decided,
    holdout_images,
    metrics,
)
from tests.fedd.conftest import TINY

Ddiseg = Callable[..., Any]

TONES = ("I-II", "III-IV", "V-VI")
LEARNED = [f"{k:064d}" for k in range(60)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_backbone(path, "tiny", TINY, DiffusionUNet.random(TINY, 1).net.state_dict(), {})
    return path


@pytest.fixture(scope="module")
def four_versions(
    tmp_path_factory: pytest.TempPathFactory, empty_catalogue: Path, weights: Path
) -> Path:
    """A workspace with fedd-1 not evaluated, fedd-2 in use, fedd-3 refused, and a classifier."""
    root = tmp_path_factory.mktemp("versions")
    shutil.copy(empty_catalogue, root / "catalogue.sqlite")
    workspace = Workspace.create(root)
    first = decided(holdout_images(TONES, 0.6, None))
    add_version(workspace, weights, learned=LEARNED[:20], verdict=first)
    passed = decided(
        holdout_images(TONES[:2], 0.68, 0.6) + holdout_images(TONES[2:], 0.7, 0.69, 2), "fedd-1"
    )
    calibration = {"temperature": 1.234, "ece": 0.0138, "ece_before": 0.0231}
    validation = {
        **{"images": 12, "by_tone": {"I-II": 12}, "scores": {}},
        "calibration": {**calibration, "images": 12, "pixels": 6144},
    }
    made = {**metrics(60), "went_on_from": "fedd-1", "validation": validation}
    add_version(workspace, weights, learned=LEARNED, verdict=passed, metrics=made)
    refused = decided(
        holdout_images(TONES[:2], 0.9, 0.6) + holdout_images(TONES[2:], 0.2, 0.69), "fedd-2"
    )
    add_version(workspace, weights, learned=LEARNED[10:], verdict=refused, promote=False, seed=3)
    add_classifier(workspace)
    workspace.catalogue.close()
    return root


@pytest.fixture
def models(ddiseg: Ddiseg, four_versions: Path, tmp_path: Path) -> Ddiseg:
    """models("list"): that command on a copy of those four versions."""
    shutil.copytree(four_versions, tmp_path / "w")
    return lambda *args: ddiseg("--workspace", tmp_path / "w", "models", *args)


def test_kinds__are_the_catalogues() -> None:
    assert tuple(kind.value for kind in ModelKind) == KINDS


@pytest.mark.training
def test_list__a_line_a_version(models: Ddiseg, wording: SnapshotAssertion) -> None:
    done = models("list")
    assert done.status == 0, done.err
    lines = [line.split("  ") for line in done.out.splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells[0] == wording
    assert [[row[0], row[1], *row[3:]] for row in cells[1:]] == [
        ["fedd-1", "segmentation", "20 masks", "not evaluated", "0.64 [0.63, 0.64] n=24/24"],
        ["* fedd-2", "segmentation", "60 masks", "passed", "0.71 [0.70, 0.73] n=18/18"],
        ["fedd-3", "segmentation", "50 masks", "refused", "0.70 [0.54, 0.84] n=24/24"],
        ["* malignancy-1", "malignancy", "24 images", "not asked", "not measured"],
    ]
    assert max(map(len, done.out.splitlines())) <= 100


def test_list__as_json_and_by_kind(models: Ddiseg) -> None:
    everything = models("list", "--output", "json").json["models"]
    assert [m["in_use"] for m in everything] == [False, True, False, True]
    assert [m["gate"] for m in everything] == ["not evaluated", "passed", "refused", "not asked"]
    assert everything[1]["held_out_lesion_iou"]["n"] == 18
    assert everything[3]["held_out_lesion_iou"] is None
    for kind, n in (("segmentation", 3), ("malignancy", 1)):
        found = models("list", "--kind", kind, "--output", "json").json["models"]
        assert [m["kind"] for m in found] == [kind] * n
    assert models("list", "--kind", "other").status == 2


def test_list__none_yet(ddiseg: Ddiseg, workspace: Workspace) -> None:
    done = ddiseg("--workspace", workspace.root, "models", "list")
    assert (done.status, done.out) == (
        0,
        "no model yet: accept some masks, then run 'ddiseg refresh'\n",
    )


def test_show__everything_in_a_hundred_columns(models: Ddiseg) -> None:
    done = models("show", "fedd-2")
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "fedd-2"
    assert max(map(len, lines)) <= 100
    for said in (
        "  in use        yes",
        "going on from fedd-1",
        "  gate          passed, compared with fedd-1",
        "  calibration   temperature 1.23, calibration error 0.014 (0.023 before; n = 12 images)",
        "  - V-VI: not evaluated: too few hold-out masks (n = 2 images of 2 patients)",
        "  - It never predicts marker, ruler:",
        "Square brackets hold 95 % intervals",
        "Made by 'ddiseg refresh --backbone tiny.safetensors --seed 0' with",
    ):
        assert any(line.startswith(said) or said in line for line in lines), said
    row = next(line for line in lines if line.startswith("  I-II    lesion IoU"))
    assert row.count("n=8/8") == 1
    assert "+0.080 (too few) n=8/8" in row
    came = [line for line in lines if "by annotator-1" in line]
    assert [line.split()[3] for line in came] == ["fedd-1", "fedd-2"]


def test_show__as_json_is_the_card_and_who_promoted(models: Ddiseg, tmp_path: Path) -> None:
    done = models("show", "fedd-2", "--output", "json")
    assert done.json["gate"]["said"] == "passed"
    assert [p["model"] for p in done.json["promotions"]] == ["fedd-1", "fedd-2"]
    assert done.json["promotions"][1]["actor"] == "annotator-1"
    assert done.json["files"] == []
    written = models("show", "fedd-2", "--card", tmp_path / "c.json", "--output", "json").json
    assert written["files"] == [{"path": str(tmp_path / "c.json"), "outcome": "added"}]
    card = json.loads((tmp_path / "c.json").read_text("utf-8"))
    assert card.items() <= written.items()
    said = models("show", "fedd-2", "--card", tmp_path / "c.json")
    assert said.out.splitlines()[-1] == f"{tmp_path / 'c.json'}: unchanged"


def test_card__of_the_version_in_use_or_of_one(models: Ddiseg, tmp_path: Path) -> None:
    done = models("card", "--to", tmp_path / "cards")
    assert done.status == 0, done.err
    assert done.out.splitlines() == [
        f"{tmp_path / 'cards' / name}: added" for name in ("fedd-2.md", "fedd-2.json")
    ]
    done = models("card", "malignancy-1", "--to", tmp_path / "m.md", "--output", "json")
    assert done.json == {
        "model": "malignancy-1",
        "files": [{"path": str(tmp_path / "m.md"), "outcome": "added"}],
    }
    assert "# Model card: malignancy-1" in (tmp_path / "m.md").read_text("utf-8")
    assert models("card").status == 2


def test_diff__both_directions(models: Ddiseg, wording: SnapshotAssertion) -> None:
    done = models("diff", "fedd-1", "fedd-3")
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[:3] == wording
    start = lines.index("Learned from")
    assert lines[start + 1 : start + 4] == wording
    assert "The images may differ, so no difference is given." in " ".join(done.out.split())
    back = models("diff", "fedd-3", "fedd-1", "--output", "json").json
    assert back["names"] == ["fedd-3", "fedd-1"]
    assert back["settings"] == {"seed": [3, 0]}
    assert back["only"] == [{"unknown": 40}, {"unknown": 10}]
    same = models("diff", "fedd-1", "fedd-1").out
    assert "Settings\n  the same\n" in same


@pytest.mark.training
def test_diff__of_what_was_never_measured(
    ddiseg: Ddiseg, workspace: Workspace, weights: Path
) -> None:
    add_version(workspace, weights)
    add_version(workspace, weights)
    done = ddiseg("--workspace", workspace.root, "models", "diff", "fedd-1", "fedd-2")
    assert done.out.endswith("\nNothing was measured of either.\n")


@pytest.mark.training
def test_promote__says_what_predicts_from_now_on(
    models: Ddiseg, wording: SnapshotAssertion
) -> None:
    done = models("promote", "fedd-3", "--force", "--why", "only one with rulers")
    assert done.out == wording
    done = models("promote", "fedd-2", "--output", "json")
    assert done.json == {
        "model": "fedd-2",
        "kind": "segmentation",
        "before": "fedd-3",
        "changed": True,
        "forced": False,
        "why": "it was in use before",
    }
    assert models("promote", "fedd-2").out == wording
    assert [
        m["name"] for m in models("list", "--output", "json").json["models"] if m["in_use"]
    ] == [
        "fedd-2",
        "malignancy-1",
    ]


@pytest.mark.training
def test_rollback__one_further_back_each_time(models: Ddiseg, wording: SnapshotAssertion) -> None:
    models("promote", "fedd-3", "--force", "--why", "a look at it")
    done = models("rollback", "--why", "seen enough")
    assert done.out == wording
    assert models("rollback", "--output", "json").json["model"] == "fedd-1"
    done = models("rollback")
    assert done.status == 1
    assert done.err.startswith("Error: no version was in use before fedd-1")


@pytest.mark.training
@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("show", "x"), "no model called 'x' (there are: fedd-1, fedd-2, fedd-3, malignancy-1)"),
        (("card", "x", "--to", "card.md"), "no model called 'x'"),
        (("diff", "fedd-1", "x"), "no model called 'x'"),
        (("diff", "x", "fedd-1"), "no model called 'x'"),
        (("diff", "fedd-1", "malignancy-1"), "compare two versions of one kind"),
        (("promote", "x"), "no model called 'x'"),
        (("promote", "fedd-3"), "fedd-3 was refused by the gate ("),
        (("promote", "fedd-3", "--why", "please"), "add --force --why 'TEXT'"),
        (("promote", "fedd-3", "--force"), "--force needs --why TEXT"),
        (("promote", "fedd-3", "--force", "--why", "  "), "--force needs --why TEXT"),
        (("rollback", "--kind", "malignancy"), "no version was in use before malignancy-1"),
        (("show", "fedd-1", "--card", "card.pdf"), "a card is a .md or a .json file"),
    ],
)
def test_models__faults_are_one_line(models: Ddiseg, args: tuple[str, ...], says: str) -> None:
    done = models(*args)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("Error: ")
    assert done.err.count("\n") == 1
    assert says in done.err


@pytest.mark.training
def test_promote__a_file_that_is_gone_keeps_what_is_in_use(models: Ddiseg, tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "w")
    version = workspace.catalogue.models.get("fedd-1")
    Path(workspace.store.path(Kind.MODEL, version.file_hash)).unlink()
    done = models("promote", "fedd-1", "--force", "--why", "it must")
    assert done.status == 1
    assert "the file of fedd-1 is missing" in done.err
    assert models("rollback").status == 1
    assert workspace.catalogue.models.current().name == "fedd-2"
    workspace.catalogue.close()
