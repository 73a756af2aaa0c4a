from __future__ import annotations

import os
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.errors import InputError
from ddiseg.ingest.folder import FoundFile, list_folder, read_file
from tests.wording import Refusal


def make(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x")
    return root


def test_list_folder(tmp_path: Path) -> None:
    names = ("b.png", "a.PNG", "sub/deep/c.png", ".hidden.png", ".dir/d.png", "notes.txt", "plain")
    listing = list_folder(make(tmp_path, *names), (".png",))
    assert [f.path for f in listing.files] == ["a.PNG", "b.png", "sub/deep/c.png"]
    assert [(f.name, f.stem, f.fault) for f in listing.files][-1] == ("c.png", "c", None)
    assert listing.others == ("notes.txt", "plain")


def test_list_folder__store_of_a_workspace_inside(tmp_path: Path) -> None:
    make(tmp_path, "w/ddiseg.toml", "w/store/images/00/x.png", "w/mine.png", "store/theirs.png")
    listing = list_folder(tmp_path, (".png",))
    assert [f.path for f in listing.files] == ["store/theirs.png", "w/mine.png"]


def test_list_folder__links(tmp_path: Path) -> None:
    root = make(tmp_path / "in", "sub/real.png")
    outside = make(tmp_path / "out", "secret.png", "more/other.png")
    (root / "inside.png").symlink_to("sub/real.png")
    (root / "again").symlink_to("sub", target_is_directory=True)
    (root / "outside.png").symlink_to(outside / "secret.png")
    (root / "folder").symlink_to(outside / "more", target_is_directory=True)
    (root / "broken.png").symlink_to("absent.png")
    faults = {f.path: f.fault for f in list_folder(root, (".png",)).files}
    assert faults["inside.png"] is None
    assert faults["sub/real.png"] is None
    assert "leads out of the folder" in str(faults["outside.png"])
    assert "leads out of the folder" in str(faults["folder"])
    assert "No such file" in str(faults["broken.png"])
    assert len(faults) == 5


def test_list_folder__no_regular_file(
    tmp_path: Path, refusal: Refusal, wording: SnapshotAssertion
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (file,) = list_folder(tmp_path, (".png",)).files
    assert file.fault == wording
    with refusal(InputError):
        read_file(file)


def test_list_folder__name_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_text("x")
    (file,) = list_folder(tmp_path, (".png",)).files
    assert file.path == "caf\ufffd.png"
    assert "not UTF-8: rename" in str(file.fault)


@pytest.mark.parametrize("name", ["absent", "f"])
def test_list_folder__refused(tmp_path: Path, name: str, refusal: Refusal) -> None:
    make(tmp_path, "f")
    with refusal(InputError):
        list_folder(tmp_path / name, (".png",))


def test_read_file__gone(tmp_path: Path, refusal: Refusal) -> None:
    with refusal(InputError):
        read_file(FoundFile("a.png", tmp_path / "a.png"))


def test_read_file__too_large(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(bytes(11))
    with pytest.raises(InputError, match="at most"):
        read_file(FoundFile("a.png", tmp_path / "a.png"), max_bytes=10)
