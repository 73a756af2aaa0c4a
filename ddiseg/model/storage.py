"""Storage of model files."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ddiseg.catalogue.tables import ModelVersion
from ddiseg.errors import WorkspaceError
from ddiseg.model.registry import refresh_command
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from fedd.backbone import LocalBackbone
from fedd.segment import Probes, load_probes
from fedd.weights.files import load_backbone
from fedd.weights.names import JOIN, is_named, part_names


def recorded_backbone(backbone: str) -> str:
    """Return a backbone as a version records it: names, or the absolute paths of files."""
    return JOIN.join(
        part if is_named(part) else str(Path(part).absolute()) for part in part_names(backbone)
    )


class LostModelError(WorkspaceError):
    """The stored file of a version is missing or was changed."""


def store_model(workspace: Workspace, save: Callable[[Path], None]) -> str:
    """Store the file that `save` writes, replacing one that was changed on disk; return its SHA-256."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save(path)
        data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if workspace.store.fetch(Kind.MODEL, digest) != data:
        workspace.store.put(Kind.MODEL, digest, data, replace=True)
    workspace.store.flush_names(Kind.MODEL, [digest])
    return digest


def load_version(workspace: Workspace, version: ModelVersion) -> tuple[Probes, LocalBackbone]:
    """Return the probes of a model version and their backbone.

    Raises:
        LostModelError: the stored file was changed or is missing.
        WeightsError: the backbone is missing or does not fit.
        UnreadableError, WorkspaceError: something can't be read just now.
    """
    probes = stored_probes(workspace, version)
    net = load_backbone(version.backbone)
    probes.check_backbone(net)
    return probes, net


def stored_probes(workspace: Workspace, version: ModelVersion) -> Probes:
    """Return the probes of a model version without their backbone; raises as `load_version`."""
    with model_file(workspace, version) as path:
        return load_probes(path)


@contextmanager
def model_file(workspace: Workspace, version: ModelVersion) -> Iterator[Path]:
    """Yield a copy of a version's file; raise LostModelError where the stored one is not intact."""
    path = workspace.store.path(Kind.MODEL, version.file_hash)
    anew = f"'{refresh_command(version)}'"
    try:
        data = workspace.store.get(Kind.MODEL, version.file_hash)
    except WorkspaceError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise LostModelError(
                f"the file of {version.name} is missing: put {path} back from a backup, or train "
                f"anew with {anew}"
            ) from error
        raise
    if hashlib.sha256(data).hexdigest() != version.file_hash and not workspace.store.local:
        data = workspace.store.get(Kind.MODEL, version.file_hash, fresh=True)
    if hashlib.sha256(data).hexdigest() != version.file_hash:
        raise LostModelError(
            f"the file of model {version.name} was changed on disk: delete {path} and run {anew}"
        )
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.safetensors"
        copy.write_bytes(data)
        yield copy
