"""Model versions' files: made whole where they were edited, and what is said where they can't be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import SafetensorError

from ddiseg.errors import InputError, WorkspaceError
from ddiseg.model.storage import fedd_errors, store_model
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from fedd.errors import WeightsError


def test_store_model__a_file_that_was_edited_on_disk_is_made_whole(workspace: Workspace) -> None:
    def save(path: Path) -> None:
        path.write_bytes(b"probes")

    digest = store_model(workspace, save)
    stored = Path(workspace.store.path(Kind.MODEL, digest))
    stored.write_bytes(b"edited")
    assert store_model(workspace, save) == digest
    assert stored.read_bytes() == b"probes"
    written = stored.stat().st_mtime_ns
    store_model(workspace, save)
    assert stored.stat().st_mtime_ns == written, "one that is whole is left alone"


def test_fedd_errors__what_can_not_be_read_just_now_is_no_bad_input() -> None:
    def refuse(cause: Exception) -> None:
        with fedd_errors():
            raise WeightsError("x.safetensors can't be read") from cause

    with pytest.raises(WorkspaceError, match=r"x.safetensors can't be read"):
        refuse(OSError(5, "Input/output error"))
    with pytest.raises(InputError, match=r"x.safetensors can't be read"):
        refuse(SafetensorError("torn"))
