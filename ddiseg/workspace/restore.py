"""Replacement of a workspace's catalogue by a backup, whole or not at all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from annotation_protocol.files import atomic_write
from ddiseg.catalogue.copies import (
    copy_database,
    is_usable,
    overwrite_database,
    stored_photographs,
    upgrade_copy,
)
from ddiseg.catalogue.leases import ROUND, SERVE
from ddiseg.catalogue.marks import UnfinishedCopyError
from ddiseg.errors import DdisegError, InputError, WorkspaceError
from ddiseg.outcomes import counted
from ddiseg.workspace.access import use_umask
from ddiseg.workspace.backup import (
    Reason,
    make_folder,
    new_name,
    newest,
    not_written,
    postgres_advice,
    write_backup,
)
from ddiseg.workspace.pseudonym_key import back_up_key, checked_key, restore_key
from ddiseg.workspace.pseudonyms import key_problem
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace, catalogue_location, store_place


@dataclass(frozen=True)
class Restored:
    """What was restored."""

    schema: str  #: of the backup, before it was upgraded
    kept: Path | None  #: the catalogue that was replaced
    images: int
    masks: int
    stored: int  #: photographs of the catalogue whose file is in the store
    expected: int  #: those that should be, as they were not imported in place
    key: bool = False  #: the key of the pseudonyms was put back, too
    warning: str | None = None  #: what is wrong with it


def restore(root: Path, file: Path, *, force: bool = False) -> Restored:
    """Replace the catalogue of a workspace, which may be lost, by a backup.

    Args:
        force: also a catalogue of which most photographs are not in the store, though it holds others.

    Raises:
        InputError: `file` is no catalogue, damaged, or another workspace's; the catalogue is on a server.
        WorkspaceError: a server or a round runs, a newer schema, or a full disk. After any error the
            catalogue is as it was.
    """
    location = catalogue_location(root)
    catalogue = location.file
    if catalogue is None:
        raise InputError(postgres_advice(location.url))
    if not file.is_file():
        raise InputError(f"{file.absolute()} is no file: give one that 'ddiseg backup' wrote")
    if catalogue.exists() and os.path.samefile(file, catalogue):
        raise InputError(
            f"{file} is the catalogue itself: give a backup, such as {newest(root) or 'FILE'}"
        )
    key = checked_key(file)
    use_umask(root)
    _refuse_while_used(root)
    folder = make_folder(root)
    copy = folder / f".restore-{os.getpid()}.sqlite"
    try:
        schema = _checked_copy(file, copy)
        expected, in_store = stored_photographs(copy), store_place(root).digests(Kind.IMAGE)
        stored = len(expected & in_store)
        if in_store and stored < len(expected) / 2 and not force:
            raise InputError(
                f"{file}: {stored} of {counted(len(expected), 'photograph')} of this catalogue are in the "
                "store: it looks like the catalogue of another workspace, and nothing was replaced; "
                "--force restores it nevertheless"
            )
        kept = _set_aside(root, catalogue)
        if catalogue.exists():
            overwrite_database(copy, catalogue)
        else:
            atomic_write(catalogue, lambda part: copy_database(copy, part))
        key_restored = restore_key(root, key)
    except OSError as error:
        raise not_written(folder, error) from error
    finally:
        for each in folder.glob(f"{copy.name}*"):
            each.unlink()
    workspace = Workspace.open(root)
    images, masks = workspace.catalogue.images.count(), workspace.catalogue.masks.count()
    warning = key_problem(workspace)
    workspace.catalogue.close()
    return Restored(schema, kept, images, masks, stored, len(expected), key_restored, warning)


def _refuse_while_used(root: Path) -> None:
    """Raise WorkspaceError where a server or a round works with the catalogue."""
    try:
        workspace = Workspace.open(root)
    except UnfinishedCopyError:
        raise
    except WorkspaceError:  # lost, damaged, moved or of an older schema
        return
    holders = [workspace.catalogue.leases.holder(name) for name in (SERVE, ROUND)]
    workspace.catalogue.close()
    for holder, what in zip(holders, ("ddiseg serve", "a round of the loop"), strict=True):
        if holder:
            raise WorkspaceError(
                f"{what} runs ({holder}): stop it, then run the same command again"
            )


def _checked_copy(file: Path, copy: Path) -> str:
    """Copy a backup and upgrade the copy; returns the schema that it had."""
    for end in ("", "-wal"):  # the log of a catalogue that was copied while it was in use
        source, target = file.with_name(file.name + end), copy.with_name(copy.name + end)
        if source.exists():
            atomic_write(target, source.read_bytes())
    try:
        return upgrade_copy(copy)
    except DdisegError as error:
        raise type(error)(str(error).replace(str(copy), str(file))) from error


def _set_aside(root: Path, catalogue: Path) -> Path | None:
    """Keep the catalogue that is to be replaced; a damaged one is moved, with its log."""
    kept = new_name(root, Reason.REPLACED)
    if catalogue.exists() and catalogue.stat().st_size and is_usable(catalogue):
        return write_backup(root, catalogue, kept)
    there = catalogue.exists()
    back_up_key(root, kept)
    # The log of another catalogue must never be applied to the restored one: it moves first.
    for end in ("-wal", "-shm", ""):
        each = catalogue.with_name(catalogue.name + end)
        if each.exists():
            os.replace(each, kept.with_name(kept.name + end))
    return kept if there else None
