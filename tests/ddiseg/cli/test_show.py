"""`ddiseg show`, `skip` and `reopen`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from annotation_protocol import load_protocol
from ddiseg.catalogue import NewMask, NewModelVersion
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace

Run = Callable[..., Any]


@pytest.fixture
def here(ddiseg: Run, filled: Workspace) -> Run:
    """here("show", "1.png"): a command line in the workspace `filled`."""
    return lambda *args: ddiseg("--workspace", filled.root, *args)


@pytest.fixture
def painted(filled: Workspace) -> Workspace:
    """`filled`, with a prediction for 2.png."""
    model = filled.catalogue.models.add(NewModelVersion("f", "u", "b", {}, [], {}, "1.0"), "t")
    digest = filled.store_mask(np.full((6, 8), 1, np.uint8))
    row = NewMask(
        *(2, digest, 8, 6, "same", [1, 4], "1.0"),
        model_version_id=model.id,
        uncertainty=0.25,
        expected_iou={"lesion": 0.625, "skin": 0.75},
        quality=0.625,
    )
    filled.catalogue.masks.add_predictions([row], detail={"precision": "bfloat16"})
    return filled


@pytest.mark.training
def test_show__everything(here: Run, painted: Workspace) -> None:
    data = here("show", "1.png", "--output", "json").json
    assert (data["name"], data["state"], data["tone"]) == ("1.png", "accepted", "I-II")
    assert (data["dataset"], data["files"]) == ("clinic", ["1.png"])
    [mask] = data["masks"]
    assert (mask["author"], mask["accepted"]) == ("anna", True)
    assert mask["shares"] == {"lesion": 0.1667, "skin": 0.8333}
    assert [(r["reviewer"], r["verdict"]) for r in data["reviews"]] == [("ben", "accept")]
    assert [e["kind"] for e in data["events"]] == ["import", "submit", "accept"]
    prediction = here("show", "2.png", "--output", "json").json["masks"][0]
    assert (prediction["author"], prediction["accepted"]) == ("fedd-1", False)
    assert prediction["uncertainty"] == 0.25
    assert (prediction["expected_iou"], prediction["quality"]) == (
        {"lesion": 0.625, "skin": 0.75},
        0.625,
    )


def test_show__text(here: Run) -> None:
    lines = here("show", "1").out.splitlines()
    assert lines[0] == "1.png (#1): accepted"
    assert "  tone: I-II" in lines
    assert "  diagnosis: not known" in lines
    assert "  size: 8 x 6" in lines
    assert "  mask #1 by anna, accepted: 8 x 6 same, lesion 16.7%, skin 83.3%" in lines
    assert "  review of mask #1: accept by ben" in lines
    assert lines[-1].endswith("accept by ben submitted -> accepted")


def test_show__what_to_expect_of_a_prediction(here: Run, painted: Workspace) -> None:
    expected = "    expected IoU 0.62: probably needs correction (lesion 0.62, skin 0.75)"
    assert expected in here("show", "2.png").out.splitlines()
    with painted.catalogue._database.write() as session:
        session.connection().exec_driver_sql("UPDATE masks SET expected_iou = NULL, quality = NULL")
    lines = here("show", "2.png").out.splitlines()
    assert "    uncertainty 0.25: its model tells no expected IoU" in lines
    assert not [line for line in here("show", "1.png").out.splitlines() if "uncertainty" in line]


def test_show__precision_of_a_prediction(here: Run, painted: Workspace) -> None:
    assert here("show", "2.png").out.splitlines()[-1].endswith("new -> prelabelled, in bfloat16")


def test_show__mask_file_is_damaged(here: Run, filled: Workspace) -> None:
    mask = filled.catalogue.masks.accepted()[1]
    Path(filled.store.path(Kind.MASK, mask.content_hash)).write_bytes(b"damaged")
    assert here("show", "1", "--output", "json").json["masks"][0]["shares"] is None
    assert "8 x 6 same, file damaged" in here("show", "1").out


@pytest.mark.training
@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("show", "9.png"), "no image called '9.png': give a file name, DATASET:NAME or #ID"),
        (("skip", "9.png", "--reason", "blurry"), "no image called '9.png'"),
        (("reopen", "#77"), "no image called '#77'"),
        (("reopen", "2.png"), "2.png is new: 'reopen' is not possible; possible: queue, "),
        (("skip", "1.png", "--reason", "blurry"), "1.png is accepted: 'skip' is not possible"),
        (("skip", "2.png", "--reason", "other"), "reason 'other' needs a --note that says why"),
        (("skip", "2.png", "--reason", "other", "--note", " "), "needs a --note"),
    ],
)
def test_refused__one_line(here: Run, command: tuple[str, ...], said: str) -> None:
    result = here(*command)
    assert (result.status, result.out) == (1, "")
    assert said in result.err
    assert result.err.count("\n") == 1


@pytest.mark.training
@pytest.mark.parametrize(
    "command", [("skip", "2.png"), ("skip", "2.png", "--reason", "ugly"), ("show",), ("reopen",)]
)
def test_wrong_usage(here: Run, command: tuple[str, ...]) -> None:
    assert here(*command).status == 2


@pytest.mark.training
@pytest.mark.parametrize("reason", [r.key for r in load_protocol().skip_reasons])
def test_skip__each_reason_of_the_protocol(here: Run, filled: Workspace, reason: str) -> None:
    args = ("skip", "2.png", "--reason", reason, "--note", "seen", "--annotator", "anna")
    assert here(*args).out == f"2.png (#2): skipped, {reason}\n"
    assert here(*args).out == f"2.png (#2): skipped, {reason} (unchanged)\n"
    [skip] = filled.catalogue.images.skips()
    assert (skip.reason, skip.note, skip.annotator) == (reason, "seen", "anna")
    assert f"  skipped by anna, {reason}: seen" in here("show", "2").out.splitlines()


@pytest.mark.training
def test_skip__default_annotator_is_the_actor(
    here: Run, filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDISEG_ACTOR", "carl")
    data = here("skip", "2", "--reason", "scalp", "--output", "json").json
    assert data == {"id": 2, "name": "2.png", "reason": "scalp", "outcome": "added"}
    assert filled.catalogue.images.skips()[0].annotator == "carl"


@pytest.mark.training
def test_reopen(here: Run, filled: Workspace) -> None:
    here("skip", "2", "--reason", "blurry")
    assert here("reopen", "2").out == "2.png (#2): queued\n"
    assert here("reopen", "1.png", "--output", "json").json["state"] == "rework"
    assert filled.catalogue.events.contradictions() == []


@pytest.mark.training
@pytest.mark.parametrize(("image", "panels"), [("1.png", 2), ("2.png", 2), ("3.png", 1)])
def test_show__picture(
    here: Run, painted: Workspace, tmp_path: Path, image: str, panels: int
) -> None:
    path = tmp_path / "picture.png"
    result = here("show", image, "--picture", path)
    assert result.status == 0
    assert result.out.splitlines()[-1] == f"  picture: {path}"
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width == panels * 8 + (panels - 1) * 8
        pixels = np.asarray(picture.convert("RGB"))
    photograph = painted.photograph(painted.catalogue.images.find(image))
    assert np.array_equal(pixels[-6:, :8], photograph)
    if panels == 2:
        assert not np.array_equal(pixels[-6:, 16:24], photograph)
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".part"] == []


def test_show__picture_overwrites_nothing(here: Run, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(b"dear to someone")
    result = here("show", "1.png", "--picture", path)
    assert (result.status, result.out) == (1, "")
    assert "exists and is not overwritten: name another file" in result.err
    assert path.read_bytes() == b"dear to someone"


@pytest.mark.training
def test_show__picture_in_no_folder(here: Run, tmp_path: Path) -> None:
    result = here("show", "1.png", "--picture", tmp_path / "none" / "x.png")
    assert (result.status, result.out) == (1, "")
    assert "can't be written (No such file or directory)" in result.err


@pytest.mark.training
def test_show__picture_of_a_large_photograph_fits_a_screen(
    here: Run, workspace: Workspace, filled: Workspace, tmp_path: Path
) -> None:
    from ddiseg import images
    from ddiseg.catalogue import NewImage

    pixels = np.full((20, 3000, 3), 128, np.uint8)
    digest = images.content_hash(pixels)
    workspace.store.put(Kind.IMAGE, digest, images.encode_png(pixels))
    row = NewImage("wide.png", "f" * 64, 1, 1, digest, "0" * 16, 3000, 20)
    workspace.catalogue.images.add(1, [row], "tester")
    assert here("show", "wide", "--picture", tmp_path / "x.png").status == 0
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.width == 1024
