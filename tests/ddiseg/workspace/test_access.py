"""A workspace is closed to other users of the machine, whatever the umask; a release is not."""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddiseg.errors import InputError
from ddiseg.release.folder import write_release
from ddiseg.release.release import Release
from ddiseg.workspace.access import _Umask
from ddiseg.workspace.backup import backup
from ddiseg.workspace.repair import repair
from ddiseg.workspace.settings import find_setting
from ddiseg.workspace.store import Kind
from ddiseg.workspace.verify import Part, verify
from ddiseg.workspace.workspace import Workspace

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")


@pytest.fixture(params=[0o022, 0o000], autouse=True)
def _umask(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin as a shell with a careless umask does."""
    before = os.umask(request.param)
    monkeypatch.setattr(_Umask, "normal", None)
    yield
    os.umask(before)


def _modes(root: Path) -> dict[str, int]:
    return {
        str(p.relative_to(root)): stat.S_IMODE(p.stat().st_mode) for p in [root, *root.rglob("*")]
    }


def _fill(workspace: Workspace) -> None:
    workspace.catalogue.images.dataset("clinic")
    workspace.store.put(Kind.IMAGE, "ab" * 32, b"pixels")
    workspace.set(find_setting("study.control"), 20.0, "tester")
    backup(workspace)


def test_create__private(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "w")
    _fill(workspace)
    modes = _modes(workspace.root)
    assert {name for name in modes if "-wal" in name or "-shm" in name}
    for name, mode in modes.items():
        folder = (workspace.root / name).is_dir()
        assert mode == (0o700 if folder else 0o600), name
    assert [p for p in verify(workspace).problems if p.part is Part.ACCESS] == []
    workspace.catalogue.close()


def test_create__store_and_catalogue_elsewhere_are_private(tmp_path: Path) -> None:
    (tmp_path / "files" / "images").mkdir(parents=True)
    url = f"sqlite:///{tmp_path / 'rows.sqlite'}"
    workspace = Workspace.create(tmp_path / "w", url, str(tmp_path / "files"))
    _fill(workspace)
    assert stat.S_IMODE((tmp_path / "rows.sqlite").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "files").stat().st_mode) == 0o700
    assert verify(workspace).problems == []
    workspace.catalogue.close()


@pytest.mark.parametrize("how", ["repair", "init"])
def test_open_workspace__is_told_and_closed(filled: Workspace, how: str) -> None:
    mine = filled.root / "my notes.txt"
    mine.write_text("left alone")
    for path in [filled.root, *filled.root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    problems = verify(filled).problems
    assert [problem.part for problem in problems] == [Part.ACCESS]
    assert "is open to other users of this machine" in problems[0].line
    if how == "repair":
        assert repair(filled, problems, [], "tester").left == []
    else:
        Workspace.create(filled.root).catalogue.close()
    assert verify(filled).problems == []
    modes = _modes(filled.root)
    assert modes.pop("my notes.txt") == 0o644
    assert set(modes.values()) == {0o700, 0o600}


def test_shared_group__members_may_write(tmp_path: Path) -> None:
    group = grp.getgrgid(os.getgid()).gr_name
    workspace = Workspace.create(tmp_path / "w", shared_group=group)
    _fill(workspace)
    workspace.catalogue.close()
    workspace = Workspace.open(tmp_path / "w")
    for name, mode in _modes(workspace.root).items():
        path = workspace.root / name
        assert path.stat().st_gid == os.getgid()
        if path.is_dir():
            assert mode == 0o2770, name
        elif not name.endswith((".lock", ".holder")):
            assert mode == 0o660, name
    assert [p for p in verify(workspace).problems if p.part is Part.ACCESS] == []
    Workspace.create(tmp_path / "w").catalogue.close()
    assert stat.S_IMODE(workspace.root.stat().st_mode) == 0o2770, "it stays shared"
    workspace.catalogue.close()


def test_shared_group__unknown(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no group 'no-such-group'"):
        Workspace.create(tmp_path / "w", shared_group="no-such-group")
    assert not (tmp_path / "w" / "ddiseg.toml").exists()


def test_release__has_the_umask_of_the_shell(filled: Workspace, tmp_path: Path) -> None:
    os.umask(0o022)
    _Umask.normal = None
    workspace = Workspace.open(filled.root)
    folder = write_release(Release.gather(workspace), "png", tmp_path / "r").folder
    assert set(_modes(folder).values()) == {0o755, 0o644}
    assert stat.S_IMODE((filled.root / "pseudonyms.csv").stat().st_mode) == 0o600
    assert os.umask(0o077) == 0o077
    workspace.catalogue.close()
