"""Who may read a workspace: its owner alone, or a group. Nothing is done on Windows.

The folder's own mode says which: 0700, or 2770 (set-group-ID) for a group. While a workspace is
open, the umask of the process is 077, or 007 for a group, so that everything made in it, by SQLite, by
caches and by child processes too, is as private as the folder.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from ddiseg.errors import InputError, WorkspaceError
from ddiseg.workspace.store import Kind

_POSIX = os.name == "posix"

#: What ddiseg makes in a workspace; other files in the folder are left as they are.
OWN = (
    *(
        "ddiseg.toml",
        "catalogue.sqlite*",
        "pseudonyms.*",
        ".ddiseg.toml.lock*",
        ".pseudonyms.key.lock*",
    ),
    *("store", "backups", "cache", "imports", "labelstudio"),
)


#: Folders of a store.
_KINDS = tuple(kind.value for kind in Kind)


class _Umask:
    normal: int | None = None  #: that of the process before a workspace was opened


def use_umask(root: Path) -> None:
    """Make what this process writes from now on as private as the workspace `root`."""
    if _POSIX:
        before = os.umask(0o007 if _is_shared(root) else 0o077)
        if _Umask.normal is None:
            _Umask.normal = before


def current_umask() -> int:
    """Return the umask of this process; not while another thread makes files."""
    found = os.umask(0o077)
    os.umask(found)
    return found


@contextlib.contextmanager
def normal_umask() -> Iterator[None]:
    """Write files that are made to be passed on, with the umask that the process began with."""
    if not _POSIX or _Umask.normal is None:
        yield
        return
    before = os.umask(_Umask.normal)
    try:
        yield
    finally:
        os.umask(before)


def open_to_others(places: Sequence[Path]) -> list[Path]:
    """Return those of the workspace's folders (or files) that others may enter or read.

    What lies in a closed folder is closed, whatever its own mode.
    """
    if not _POSIX:
        return []
    loose = []
    for place in places:
        with contextlib.suppress(OSError):
            mode = place.stat().st_mode
            if mode & (0o007 if _is_shared(place) else 0o077):
                loose.append(place)
    return loose


def tighten(root: Path, places: Sequence[Path] = ()) -> int:
    """Close a workspace and all that ddiseg made in it to others; returns how many were changed.

    A group stays as it is where the folder is shared with it.

    Args:
        places: its store and catalogue, where these are elsewhere.

    Raises:
        WorkspaceError: something belongs to another user.
    """
    return _close(root, places, None) if _POSIX else 0


def share(root: Path, places: Sequence[Path], group: str) -> None:
    """Let a group read and write a workspace, and nobody else.

    Raises:
        InputError: there is no such group, this user is no member of it, or this is Windows.
        WorkspaceError: something belongs to another user.
    """
    if not _POSIX:
        raise InputError(
            "--shared-group: Windows has no such groups; share the folder there instead"
        )
    import grp

    try:
        number = grp.getgrnam(group).gr_gid
    except KeyError:
        mine = sorted(
            each.gr_name for each in grp.getgrall() if each.gr_gid in (*os.getgroups(), os.getgid())
        )
        raise InputError(
            f"--shared-group: there is no group '{group}' (you are in {', '.join(mine)})"
        ) from None
    if os.geteuid() != 0 and number not in (*os.getgroups(), os.getgid()):
        raise InputError(
            f"--shared-group: you are no member of '{group}': ask for it, log in again"
        )
    _close(root, places, number)


def _close(root: Path, places: Sequence[Path], group: int | None) -> int:
    changed = 0
    for place in (root, *places):
        shared = group is not None or _is_shared(place)
        for path in _tree(place, only=OWN if place == root else _KINDS):
            secret = path != root and _is_secret(path, root)
            changed += _set_mode(path, shared=shared and not secret, group=group)
    return changed


def _set_mode(path: Path, *, shared: bool, group: int | None) -> bool:
    """Give a file or folder the mode of its workspace; returns whether that changed anything."""
    try:
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            mode = 0o2770 if shared else 0o700
        else:
            mode = (0o660 if shared else 0o600) | (status.st_mode & 0o100)
        wrong_group = shared and group is not None and status.st_gid != group
        if wrong_group and group is not None:
            os.chown(path, -1, group)
        if stat.S_IMODE(status.st_mode) == mode and not wrong_group:
            return False
        os.chmod(path, mode)
    except FileNotFoundError:  # a temporary file that is gone by now
        return False
    except PermissionError as error:
        raise WorkspaceError(
            f"{path} belongs to another user: let that user, or root, run the same command"
        ) from error
    return True


def _tree(place: Path, only: Sequence[str]) -> Iterator[Path]:
    """Yield a place and, of a folder, what has one of the names `only`, with all in it but links."""
    yield place
    if not place.is_dir():
        return
    for top in sorted(path for name in only for path in place.glob(name)):
        if top.is_symlink():
            continue
        yield top
        if top.is_dir():
            for at, folders, files in os.walk(top):
                inside = (Path(at, name) for name in (*folders, *files))
                yield from (path for path in inside if not path.is_symlink())


def _is_secret(path: Path, root: Path) -> bool:
    """Return whether a file is its owner's alone, in a shared workspace too: passwords, accounts."""
    return path.is_relative_to(root / "labelstudio")


def _is_shared(place: Path) -> bool:
    try:
        mode = place.stat().st_mode
    except OSError:
        return False
    folder = place if stat.S_ISDIR(mode) else place.parent
    mode = folder.stat().st_mode
    return bool(mode & stat.S_ISGID) and mode & 0o070 == 0o070
