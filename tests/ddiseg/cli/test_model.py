"""refresh, prelabel, evaluate and demo, as they are typed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pycocotools.coco import COCO

from ddiseg.catalogue import NewModelVersion
from ddiseg.catalogue.batches import NewMember
from ddiseg.catalogue.tables import Image
from ddiseg.model import predict
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.rows import new_mask

Ddiseg = Callable[..., Any]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_refresh__empty_workspace_is_refused(here: Ddiseg) -> None:
    done = here("refresh")
    assert done.status == 1
    assert done.out == ""
    assert done.err.splitlines()[-1].startswith("Error: no accepted mask to learn from")


@pytest.mark.training
@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--state", "lost"), "no state is called lost; states are: new, queued"),
        (("--subset", "none"), "no subset called 'none'"),
        (("--batch", "none"), "no batch called 'none'"),
        (("9.png",), "no image called '9.png'"),
        ((), "run 'ddiseg refresh'"),
    ],
)
def test_prelabel__what_can_not_be_done(
    here: Ddiseg, filled: Workspace, args: tuple[str, ...], says: str
) -> None:
    done = here("prelabel", *args)
    assert done.status == 1
    assert says in done.err


def test_prelabel__images_of_a_batch(
    ddiseg: Ddiseg,
    filled: Workspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    members = [NewMember(image_id, True, "next by seed") for image_id in (2, 3)]
    filled.catalogue.batches.store("week-1", members, {}, "tester")
    filled.catalogue.masks.submit([new_mask(3, "annotator-1")], reviewer="reviewer-1")
    painted: list[str] = []

    def paint(workspace: Workspace, images: Sequence[Image], *_: Any, **__: Any) -> Any:
        painted.extend(image.name for image in images)
        return SimpleNamespace(id=1, name="fedd-1"), []

    monkeypatch.setattr(predict, "prelabel", paint)
    run = "--workspace", filled.root, "prelabel", "--batch", "week-1"
    assert ddiseg(*run).status == 0
    assert painted == ["2.png", "3.png"]
    assert ddiseg(*run, "--state", "queued").status == 0
    assert painted[2:] == ["2.png"]
    assert ddiseg(*run, "1.png").status == 2


def test_prelabel__what_to_expect_of_the_predictions(
    here: Ddiseg, filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = filled.catalogue.models
    version = models.add(NewModelVersion("f", "small", "b", {}, [], {}, "1.0"), "tester")

    def predicted(workspace: Workspace, images: Sequence[Image], *_: Any, **__: Any) -> Any:
        rows = [
            new_mask(n, None, model_version_id=version.id, uncertainty=0.1, quality=quality)
            for n, quality in ((2, 0.7), (3, 0.3))
        ]
        workspace.catalogue.masks.add_predictions(rows)
        return version, []

    monkeypatch.setattr(predict, "prelabel", predicted)
    done = here("prelabel")
    assert done.out.splitlines()[-1] == (
        "expected: 0 probably good, check it all the same; 1 check the outline; 1 probably needs correction"
    )
    found = here("prelabel", "2.png", "--output", "json").json["expected_iou"]
    assert list(found.values()) == [0, 1, 0], "of the images asked for"
    with filled.catalogue._database.write() as session:
        session.connection().exec_driver_sql("UPDATE masks SET quality = NULL")
    told = "fedd-1 tells no expected IoU: predictions are sorted by uncertainty"
    assert here("prelabel").out.splitlines()[-1] == told


@pytest.mark.parametrize("args", [(), ("--accepted", "--truth", ".")])
def test_evaluate__needs_one_truth(here: Ddiseg, filled: Workspace, args: tuple[str, ...]) -> None:
    done = here("evaluate", *args)
    assert done.status == 2
    assert "either --truth DIR or --accepted" in done.err


@pytest.mark.training
def test_demo__the_whole_job_and_a_second_run_that_changes_nothing(
    ddiseg: Ddiseg, tmp_path: Path
) -> None:
    done = ddiseg("demo", "--dir", tmp_path / "demo", "--images", "60", "--output", "json")
    assert done.status == 0, done.err
    coco = COCO(done.json["coco"])
    assert len(coco.imgs) == 6
    assert Path(done.json["report"]).stat().st_size > 50_000
    assert done.json["commands"][0].startswith("ddiseg init ")
    everything = json.loads(
        (tmp_path / "demo" / "coco-with-predictions" / "annotations.json").read_text()
    )
    assert len(everything["images"]) == 60
    assert "lesion" in done.err, "the evaluation table is shown"

    workspace = tmp_path / "demo" / "workspace"
    assert ddiseg("--workspace", workspace, "verify").status == 0
    before = ddiseg("--workspace", workspace, "status", "--output", "json").json
    again = ddiseg("demo", "--dir", tmp_path / "demo", "--images", "60")
    assert again.status == 0, again.err
    assert "60 files: 0 added, 60 unchanged" in again.err
    assert "fedd-1 is unchanged" in again.err
    assert "54 images: 0 added, 54 unchanged" in again.err
    assert ddiseg("--workspace", workspace, "status", "--output", "json").json == before
