"""Location of the workspace that a command works on: upwards from the current folder, as git does."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from ddiseg.errors import WorkspaceError

#: Files in the folder of a workspace: its settings, and the catalogue unless that is elsewhere.
SETTINGS, CATALOGUE = "ddiseg.toml", "catalogue.sqlite"

#: The file in a folder that ddiseg exported.
RELEASE_MANIFEST = "ddiseg-release.json"

#: Name of one of the COCO files of a large release: its number and how many there are.
COCO_PART = "coco-{:05d}-of-{:05d}.json"

#: The option and the environment variable that name a workspace.
OPTION, VARIABLE = "--workspace", "DDISEG_WORKSPACE"

#: Most workspaces that a message lists.
_NAMED = 3


def locate(given: Path | None, named_by: str) -> Path:
    """Return the absolute folder of the workspace.

    Args:
        given: the folder as a person named it; None: the nearest one, from the current folder upwards.
        named_by: OPTION or VARIABLE, for the message.

    Raises:
        WorkspaceError: there is no workspace; the message lists those nearby.
    """
    given = expanded(given) if given is not None else None
    folder = _absolute(given) if given is not None else enclosing(current_folder())
    if folder is not None and os.path.lexists(folder / SETTINGS):
        return folder  # opening it reports a dead link or a folder of that name
    if folder is not None and _is_workspace(folder):
        raise WorkspaceError(
            f"{_source(given, named_by, folder)} has a {CATALOGUE} but no {SETTINGS}: restore "
            f"{folder / SETTINGS} from a backup, or create it, an empty file, if all data are in that folder"
        )
    if folder is None:
        none = f"no workspace in {current_folder()} or in a folder above it"
        make = f"give {OPTION}, set {VARIABLE}, or make one with 'ddiseg init DIRECTORY'"
    else:
        none = f"{_source(given, named_by, folder)} is no workspace"
        make = _how_to_make(given, named_by, folder)
    found = _near(given, folder or current_folder())
    raise WorkspaceError(f"{none}: {_use(found, named_by) if found else make}")


def place_to_make(directory: Path | None, given: Path | None, named_by: str) -> Path:
    """Return the absolute folder in which to create a workspace, or to update the existing one.

    Args:
        directory: the folder given to the command.
        given: else the folder named by `named_by`; None: the current folder.
        named_by: OPTION or VARIABLE.

    Raises:
        WorkspaceError: an existing workspace was probably meant.
    """
    given = expanded(given) if given is not None else None
    named = expanded(directory) if directory is not None else given
    folder = _absolute(named) if named is not None else current_folder()
    if directory is not None or named_by == OPTION or _is_workspace(folder):
        return folder
    found = _of_ancestors(given) or [w for w in [enclosing(folder)] if w is not None]
    if not found:
        return folder
    another = f"to make another one in {folder}, type 'ddiseg init {_quoted(folder)}'"
    if given is None:
        up_to_date = f"'ddiseg init {_quoted(found[0])}' brings that one up to date"
        raise WorkspaceError(
            f"{folder} is inside the workspace {found[0]}: {up_to_date}; {another}"
        )
    raise WorkspaceError(
        f"{_source(given, named_by, folder)} is no workspace: {_use(found, named_by)}; {another}"
    )


def enclosing(folder: Path) -> Path | None:
    """Return the nearest workspace from a folder upwards, that folder included."""
    return next((each for each in (folder, *folder.parents) if _is_workspace(each)), None)


def current_folder() -> Path:
    """Return the current folder; raises WorkspaceError if it was deleted."""
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise WorkspaceError("the current folder no longer exists: cd to another one") from error


def _is_workspace(folder: Path) -> bool:
    """Return whether a folder holds a workspace, or one that has lost its settings."""
    # Not Path.is_file, which raises for a folder that we may not read.
    return os.path.lexists(folder / SETTINGS) or os.path.isfile(folder / CATALOGUE)


def expanded(path: Path) -> Path:
    """Return a path with a leading ~ replaced by the home folder, as a shell does.

    Raises:
        WorkspaceError: there is no such home folder.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise WorkspaceError(
            f"'{path}' names a home folder that does not exist: give the absolute path"
        ) from error


def _absolute(folder: Path) -> Path:
    # Only a relative path needs the current folder, which may have been deleted.
    return Path(os.path.abspath(folder if folder.is_absolute() else current_folder() / folder))


def _source(given: Path | None, named_by: str, folder: Path) -> str:
    """Return the name of a folder and where that came from, as the start of a sentence."""
    if given is None:
        return str(folder)
    if given.is_absolute():
        return f"{named_by} is '{folder}', which"
    return f"{named_by} is '{given}', and {folder}"


def _how_to_make(given: Path | None, named_by: str, folder: Path) -> str:
    if named_by == VARIABLE and given is not None and not given.is_absolute():
        return (
            "a relative path is another folder after each cd, so set the variable to the absolute "
            "path of your workspace"
        )
    other = "correct the variable" if named_by == VARIABLE else f"give another {OPTION}"
    return f"{other}, or make one there with 'ddiseg init {_quoted(folder)}'"


def _near(given: Path | None, folder: Path) -> list[Path]:
    """Return workspaces that may be meant: of the same name further up, around the folder, and in it."""
    around = enclosing(folder)
    inside = _inside(folder if folder.is_dir() else folder.parent)
    found = [*_of_ancestors(given), *([around] if around else []), *inside]
    return list(dict.fromkeys(found))


def _of_ancestors(given: Path | None) -> list[Path]:
    """Return the workspaces that a relative path would name in the folders above the current one."""
    if given is None or given.is_absolute():
        return []
    folders = [_absolute(parent / given) for parent in current_folder().parents]
    return [folder for folder in folders if _is_workspace(folder)]


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(child for child in folder.iterdir() if _is_workspace(child))
    except OSError:  # missing, or not readable
        return []


def _use(found: Sequence[Path], named_by: str) -> str:
    """Return what to type to use a workspace that was found."""
    first = _quoted(found[0])
    how = {
        OPTION: f"give {OPTION} {first}",
        VARIABLE: f"use it with 'export {VARIABLE}={first}'",
    }.get(named_by, f"use it with 'cd {first}' or {OPTION} {first}")
    others = len(found) - 1
    if not others:
        return f"{found[0]} is one, {how}"
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return f"there are {', '.join(map(str, found[:_NAMED]))}{more}; {how}, or another of them"


def _quoted(folder: Path) -> str:
    return shlex.quote(str(folder))
