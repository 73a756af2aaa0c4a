"""Imports that are killed, run out of disk, or run twice at once: nothing lost, nothing doubled."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddiseg import images
from ddiseg.errors import WorkspaceError
from ddiseg.ingest import photographs
from ddiseg.ingest.mask_files import import_masks
from ddiseg.ingest.photographs import import_photographs
from ddiseg.outcomes import count
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from tests.wording import Refusal

FILES = 20

#: Imports in a process of its own, which kills itself at the n-th call of a function.
CHILD = """
import importlib, os, signal, sys
from pathlib import Path
from ddiseg.ingest import mask_files, photographs
from ddiseg.workspace.workspace import Workspace

root, folder, what, where, name, after, countdown = sys.argv[1:]
photographs.BATCH = mask_files.BATCH = 6
owner = importlib.import_module(where) if where else None
if owner:
    for part in name.split(".")[:-1]:
        owner = getattr(owner, part)
    name, left = name.split(".")[-1], int(countdown)
    real = getattr(owner, name)

    def killing(*args, **kwargs):
        global left
        left -= 1
        if not left and not int(after):
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, killing)
workspace = Workspace.open(Path(root))
sys.stdin.readline()
if what == "photographs":
    outcomes = photographs.import_photographs(workspace, Path(folder)).outcomes
else:
    outcomes = mask_files.import_masks(
        workspace, Path(folder), format_name="png", annotator="a", reviewer="b"
    ).outcomes
print(sum(o.outcome == "added" for o in outcomes))
"""


def start(root: Path, folder: Path, what: str, *kill: Any) -> subprocess.Popen[str]:
    """A child that imports as soon as it is told a line; `kill`: module, name, after?, count."""
    args = [str(a) for a in (root, folder, what, *(kill or ("", "", 0, 0)))]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def photos(folder: Any) -> Path:
    made: Path = folder(*(f"{i:02}.png" for i in range(FILES)))
    return made


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    root = tmp_path / "masks"
    root.mkdir()
    for i in range(FILES):
        Image.fromarray(np.full((16, 24), i % 5, np.uint8)).save(root / f"{i:02}.png")
    return root


def check_images(workspace: Workspace, photos: Path) -> int:
    """Every row has its whole file and agrees with its events; returns the number of rows."""
    rows = workspace.catalogue.images.select()
    for row in rows:
        wanted = images.open_photograph((photos / row.name).read_bytes()).pixels
        assert np.array_equal(workspace.photograph(row), wanted)
        assert len(workspace.catalogue.images.sources(row.id)) == 1
    for digest in workspace.store.digests(Kind.IMAGE):
        data = workspace.store.get(Kind.IMAGE, digest)
        assert images.content_hash(images.open_photograph(data).pixels) == digest
    assert not workspace.catalogue.events.contradictions()
    return len(rows)


@pytest.mark.process
@pytest.mark.parametrize(
    ("kill", "expected"),
    [
        (("os", "fsync", 0, 2), {0}),
        (("os", "replace", 0, 9), {0, 6}),
        (("ddiseg.catalogue.images", "Images.add", 0, 2), {6}),
        (("ddiseg.catalogue.images", "_add_one", 1, 9), {6}),
        (("ddiseg.catalogue.images", "Images.add", 1, 3), {18}),
    ],
)
def test_import__killed(
    workspace: Workspace, photos: Path, kill: tuple[str, str, int, int], expected: set[int]
) -> None:
    child = start(workspace.root, photos, "photographs", *kill)
    out, error = child.communicate("go\n", timeout=60)
    assert child.returncode == -signal.SIGKILL, error
    assert not out
    kept = check_images(workspace, photos)
    assert kept in expected
    done = count(import_photographs(workspace, photos).outcomes)
    assert done == {"added": FILES - kept, "unchanged": kept, "repaired": 0, "refused": 0}
    assert check_images(workspace, photos) == FILES
    assert count(import_photographs(workspace, photos).outcomes)["unchanged"] == FILES


@pytest.mark.process
@pytest.mark.parametrize(
    "kill",
    [
        ("os", "replace", 0, 3),
        ("ddiseg.catalogue.masks", "_submit_one", 1, 9),
    ],
)
def test_import_masks__killed(
    workspace: Workspace, photos: Path, drawn: Path, kill: tuple[str, str, int, int]
) -> None:
    import_photographs(workspace, photos)
    child = start(workspace.root, drawn, "masks", *kill)
    _, error = child.communicate("go\n", timeout=60)
    assert child.returncode == -signal.SIGKILL, error
    kept = len(workspace.catalogue.masks.all())
    assert kept % 6 == 0
    assert not workspace.catalogue.events.contradictions()
    done = count(mask_import(workspace, drawn))
    assert done == {"added": FILES - kept, "unchanged": kept, "repaired": 0, "refused": 0}
    masks = workspace.catalogue.masks.accepted()
    assert [workspace.mask(m).max() for m in masks.values()] == [i % 5 for i in range(FILES)]
    assert not workspace.catalogue.events.contradictions()


def mask_import(workspace: Workspace, drawn: Path) -> Any:
    done = import_masks(workspace, drawn, format_name="png", annotator="a", reviewer="b")
    return done.outcomes


@pytest.mark.process
def test_import__two_at_once(workspace: Workspace, photos: Path, drawn: Path) -> None:
    for what, source in (("photographs", photos), ("masks", drawn)):
        children = [start(workspace.root, source, what) for _ in range(2)]
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        added = 0
        for child in children:
            out, error = child.communicate(timeout=60)
            assert child.returncode == 0, error
            added += int(out)
        assert added == FILES
    assert check_images(workspace, photos) == FILES
    assert len(workspace.catalogue.masks.all()) == FILES
    assert len(workspace.catalogue.masks.accepted()) == FILES


@pytest.mark.process
def test_import__stopped_by_a_person(
    workspace: Workspace, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photographs, "BATCH", 6)

    def stop(done: int, _total: int) -> None:
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_photographs(workspace, photos, progress=stop)
    assert check_images(workspace, photos) == 12
    assert count(import_photographs(workspace, photos).outcomes)["added"] == FILES - 12


@pytest.mark.process
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_import__store_stops_writing(
    workspace: Workspace, photos: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(photographs, "BATCH", 6)
    real, left = os.fsync, [15]

    def failing(descriptor: int) -> None:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)  # a full disk can flush its folders
        left[0] -= is_file
        if is_file and left[0] < 0:
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr("ddiseg.workspace.store.os.fsync", failing)
    with pytest.raises(WorkspaceError, match=os.strerror(code)):
        import_photographs(workspace, photos)
    monkeypatch.undo()
    kept = check_images(workspace, photos)
    assert kept == 12
    assert not list((workspace.root / "store").rglob("*.part"))
    done = count(import_photographs(workspace, photos).outcomes)
    assert done == {"added": FILES - kept, "unchanged": kept, "repaired": 0, "refused": 0}


@pytest.mark.process
def test_import__store_is_a_file(tmp_path: Path, photos: Path, refusal: Refusal) -> None:
    (tmp_path / "occupied").write_text("x")
    workspace = Workspace.create(tmp_path / "w", store_url=str(tmp_path / "occupied"))
    with refusal(WorkspaceError):
        import_photographs(workspace, photos)
    assert not workspace.catalogue.images.select()


Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """A small disk of its own: call it with options of mount, again to change them."""
    at = tmp_path / "disk"
    at.mkdir()
    mounted: list[str] = []

    def change(options: str) -> Path:
        options = f"remount,{options}" if mounted else options
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(at)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("no mount command here")
        if done.returncode and not mounted:
            pytest.skip(f"mounting a small disk needs root: {done.stderr.strip()}")
        assert not done.returncode, done.stderr
        mounted.append(options)
        return at

    yield change
    if mounted:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


@pytest.mark.process
def test_import__read_only_folder(mount: Mount, photos: Path, refusal: Refusal) -> None:
    disk = mount("size=8m")
    root = disk / "w"
    Workspace.create(root).catalogue.close()
    mount("size=8m,ro")
    with refusal(WorkspaceError):
        import_photographs(Workspace.open(root), photos)
    mount("size=8m,rw")
    workspace = Workspace.open(root)
    assert check_images(workspace, photos) == 0
    assert count(import_photographs(workspace, photos).outcomes)["added"] == FILES


@pytest.mark.process
@pytest.mark.parametrize(
    ("where", "size", "edge"), [("store", "256k", 80), ("workspace", "900k", 120)]
)
def test_import__full_disk(
    mount: Mount,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    size: str,
    edge: int,
) -> None:
    monkeypatch.setattr(photographs, "BATCH", 6)
    photos = tmp_path / "noise"
    photos.mkdir()
    for i in range(FILES):
        noise = np.random.default_rng(i).integers(0, 256, (edge, edge, 3), np.uint8)
        Image.fromarray(noise).save(photos / f"{i:02}.png")
    disk = mount(f"size={size}")
    if where == "store":
        workspace = Workspace.create(tmp_path / "w", store_url=str(disk / "store"))
    else:
        workspace = Workspace.create(disk / "w")
    with pytest.raises(WorkspaceError):  # of the store or of the catalogue, whichever is full first
        import_photographs(workspace, photos)
    assert not list(disk.rglob("*.part"))
    mount("size=8m")
    kept = check_images(workspace, photos)
    assert kept < FILES
    done = count(import_photographs(workspace, photos).outcomes)
    assert done == {"added": FILES - kept, "unchanged": kept, "repaired": 0, "refused": 0}
    assert check_images(workspace, photos) == FILES
    workspace.catalogue.close()
