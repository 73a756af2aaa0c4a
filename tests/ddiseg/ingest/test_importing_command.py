"""`ddiseg import` and `ddiseg masks import`: what is printed, and the exit status."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from PIL import Image

from ddiseg.cli.base import Group, common_options, run
from ddiseg.cli.importing import COMMANDS
from ddiseg.workspace import Workspace

COLUMNS = "image=file,tone=tone"


@dataclass(frozen=True)
class Printed:
    status: int
    out: str
    err: str


@pytest.fixture
def ddiseg(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Printed]:
    """Run a command line on the workspace."""
    monkeypatch.delenv("DDISEG_WORKSPACE", raising=False)
    group = Group(name="ddiseg", params=common_options())
    for command in COMMANDS:
        group.add_command(command)

    def call(*args: object) -> Printed:
        capsys.readouterr()
        status = run(group, ["--workspace", str(workspace.root), *map(str, args)])
        printed = capsys.readouterr()
        return Printed(status, printed.out, printed.err)

    return call


@pytest.fixture
def photos(folder: Any, pixels: Any) -> Path:
    root: Path = folder("a.png", "b.png", "c.png")
    (root / "bad.png").write_bytes(b"x")
    Image.fromarray(pixels(0, 96, 64)).save(root / "a large.png")
    (root.parent / "table.csv").write_text(
        "file;tone\na.png;3\nb.png;12\n../x.png;1\nz.png;1\ny.png;1\n"
    )
    return root


def arguments(photos: Path) -> list[object]:
    return ["import", photos, "--metadata", photos.parent / "table.csv", "--columns", COLUMNS]


def test_import(ddiseg: Any, photos: Path) -> None:
    done = ddiseg(*arguments(photos), "--licence", "CC BY 4.0", "--source", "a clinic")
    assert done.status == 0
    assert done.out.splitlines() == [
        "6 files: 4 added, 0 unchanged, 0 repaired, 2 refused",
        "  refused  table.csv:4: table.csv, line 4: image '../x.png' leads out of the folder: "
        "name a file of the folder",
        "  refused  bad.png: not a photograph that can be read (PNG, JPEG, TIFF, BMP, WEBP, GIF)",
        "dataset: photos",
        "table.csv: cells are separated by semicolons",
        "2 rows of the metadata have no file in the folder",
        "2 files have no row in the metadata, their tone is unknown: a large.png, c.png",
        "pairs of photographs that look alike: 1, of them new: 1; nothing was merged",
        "  a large.png (#1) and a.png (#2), 0 of 64 bits apart",
    ]
    assert done.err.startswith("Importing: 5 in ")


def test_import__json(ddiseg: Any, photos: Path) -> None:
    done = ddiseg("--output", "json", *arguments(photos), "--dataset", "mine")
    said = json.loads(done.out)
    assert said["counts"] == {"added": 4, "unchanged": 0, "repaired": 0, "refused": 2}
    assert said["files"][1] == {"name": "a large.png", "outcome": "added", "note": None}
    assert said["dataset"] == "mine"
    assert said["rows_without_file"] == 2
    assert said["files_without_row"] == ["a large.png", "c.png"]
    assert said["near_duplicates"] == [
        {"images": ["a large.png", "a.png"], "ids": [1, 2], "bits": 0, "new": True}
    ]


def test_import__strict(ddiseg: Any, photos: Path) -> None:
    done = ddiseg(*arguments(photos), "--strict")
    assert (done.status, done.out.splitlines()[0]) == (
        1,
        "6 files: 4 added, 0 unchanged, 0 repaired, 2 refused",
    )
    assert "Error: --strict: 2 of 6 files refused" in done.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--columns": "image=name"}, "has no column 'name'; its columns are file, tone"),
        ({"--columns": "file=image"}, "there is no key 'file'; the keys are image, tone"),
        ({"--metadata": "absent.csv"}, "metadata absent.csv can't be read: No such file"),
    ],
)
def test_import__refused_in_one_line(
    ddiseg: Any, photos: Path, change: dict[str, str], message: str
) -> None:
    args = arguments(photos)
    for option, value in change.items():
        args[args.index(option) + 1] = value
    done = ddiseg(*args)
    assert (done.status, done.out) == (1, "")
    (error,) = [line for line in done.err.splitlines() if not line.startswith("Importing")]
    assert message in error


def test_import__many_to_name(ddiseg: Any, folder: Any) -> None:
    root = folder(*(f"{i:02}.png" for i in range(25)))
    (root.parent / "table.csv").write_text("file,tone\n00.png,1\n")
    lines = ddiseg(*arguments(root)).out.splitlines()
    (named,) = [line for line in lines if "have no row" in line]
    assert named.endswith("19.png, 20.png and 4 more; --output json lists all")


def test_masks_import(ddiseg: Any, photos: Path, tmp_path: Path) -> None:
    ddiseg("import", photos)
    for path, value in (("1/a.png", 0), ("2/a.png", 0), ("1/b.png", 255), ("1/c.png", 7)):
        (tmp_path / "masks" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 24), value, np.uint8)).save(tmp_path / "masks" / path)
    args = ["masks", "import", tmp_path / "masks", "--as", "png", "--annotator", "anna"]
    classes = ["--classes", "0=skin,255=lesion"]
    done = ddiseg(*args, *classes, "--reviewer", "ben")
    assert done.status == 0
    first, *rest = done.out.splitlines()
    assert first == "4 mask files: 2 added, 1 unchanged, 0 repaired, 1 refused"
    assert rest[0].startswith("  refused  1/c.png: mask has values that the class mapping does not")
    assert rest[1] == "  unchanged  2/a.png: same mask as 1/a.png"
    again = ddiseg(*args, *classes, "--reviewer", "ben", "--strict", "--output", "json")
    assert again.status == 1
    assert json.loads(again.out)["counts"]["unchanged"] == 3


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--as", "png", "--annotator", "a", "--reviewer", "A"], 1, "needs a second person"),
        (["--as", "gif", "--annotator", "a"], 1, "no format called 'gif'; there are: png, sddi"),
        (["--as", "png", "--annotator", "a", "--classes", "0=hair"], 1, "no class 'hair'; the classes are"),
        (["--as", "png"], 2, "Missing option '--annotator'"),
        (["--annotator", "a"], 2, "Missing option '--as'"),
        (["--as", "png", "--annotator", "a", "--dataset", "x"], 1, "no dataset called 'x'; there are: none yet"),
    ],
)  # fmt: skip
def test_masks_import__refused(
    ddiseg: Any, tmp_path: Path, options: list[str], status: int, message: str
) -> None:
    done = ddiseg("masks", "import", tmp_path, *options)
    assert (done.status, done.out) == (status, "")
    assert message in done.err


def test_formats_are_completed() -> None:
    (masks,) = [command for command in COMMANDS if command.name == "masks"]
    assert isinstance(masks, click.Group)
    command = masks.commands["import"]
    (option,) = [p for p in command.params if p.name == "format_name"]
    completed = option.shell_complete(click.Context(command), "s")
    assert [item.value for item in completed] == ["sddi"]
