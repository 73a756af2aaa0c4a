"""Model versions' files: made whole where they were edited."""

from __future__ import annotations

from pathlib import Path

from ddiseg.model.storage import store_model
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace


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
