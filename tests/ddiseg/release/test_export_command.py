"""`ddiseg export` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

from ddiseg.cli.export import export
from tests.ddiseg.release.conftest import Builder, Cli


def test_export__says_what_it_wrote(stocked: Builder, tmp_path: Path, cli: Cli) -> None:
    typed = ("--workspace", stocked.workspace.root, "export", "--format", "coco", "--to")
    status, out, err = cli([export], *typed, tmp_path / "out")
    assert status == 0
    assert "3 images: 3 added, 0 unchanged" in out
    assert "3 accepted masks, 0 predictions" in out
    assert "by tone: I-II 1, V-VI 2" in out
    assert "derm (CC BY 4.0)" in out
    assert "Error" not in err
    _, again, _ = cli([export], *typed, tmp_path / "out")
    assert "3 images: 0 added, 3 unchanged" in again


def test_export__json(stocked: Builder, tmp_path: Path, cli: Cli) -> None:
    status, out, _ = cli(
        [export],
        "export", "--format", "png", "--include-predictions", "--no-images", "--to", tmp_path / "o",
        "--workspace", stocked.workspace.root, "--output", "json",
    )  # fmt: skip
    data = json.loads(out)
    assert status == 0
    assert (data["accepted"], data["predictions"], data["photographs"]) == (3, 1, False)
    assert data["counts"]["added"] == len(data["files"]) == 4
    assert data["by_tone"]["V-VI"]["images"] == 2
    assert Path(data["manifest"]).is_file()
    assert not (tmp_path / "o/images").exists()


def test_export__refusal_is_one_line(builder: Builder, tmp_path: Path, cli: Cli) -> None:
    status, out, err = cli(
        [export], "--workspace", builder.workspace.root, "export", "--format", "coco", "--to", tmp_path / "o"
    )  # fmt: skip
    assert status == 1
    assert out == ""
    assert err.startswith("Error: the workspace has no images")
    assert err.count("\n") == 1


def test_export__format_and_folder_must_be_given(cli: Cli) -> None:
    assert cli([export], "export", "--to", "x")[0] == 2
    assert cli([export], "export", "--format", "coco")[0] == 2
