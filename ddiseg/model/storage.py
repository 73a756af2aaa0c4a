"""Model versions' files in the store, what they hold, and photographs on their way to a model.

What fedd refuses comes out of this room as an InputError.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddiseg.catalogue import ModelKind
from ddiseg.catalogue.tables import Image, ModelVersion
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.outcomes import FileOutcome, Outcome
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from fedd.backbone import DiffusionUNet
from fedd.segment import Probes, load_probes
from fedd.weights.files import load_backbone
from fedd.weights.names import is_named

#: Threads that open photographs, and parts that wait opened.
THREADS, AHEAD = 4, 2

_REFRESH = {
    ModelKind.SEGMENTATION: "ddiseg refresh",
    ModelKind.MALIGNANCY: "ddiseg refresh --malignancy",
}


def recorded_backbone(backbone: str) -> str:
    """How a version remembers its backbone: a name as it is, a file by where it lies."""
    return backbone if is_named(backbone) else str(Path(backbone).absolute())


class LostModelError(WorkspaceError):
    """The stored file of a version is missing, or is not the one that was stored."""


def store_model(workspace: Workspace, save: Callable[[Path], None]) -> str:
    """Store the file that `save` writes, over one that was changed on disk; returns its SHA-256."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save(path)
        data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    stored = workspace.store.put(Kind.MODEL, digest, data)
    if not stored and workspace.store.get(Kind.MODEL, digest) != data:
        workspace.store.put(Kind.MODEL, digest, data, replace=True)
    return digest


def load_version(workspace: Workspace, version: ModelVersion) -> tuple[Probes, DiffusionUNet]:
    """The probes of a model version and the backbone that they read.

    Raises LostModelError where the stored file was changed or is missing, WeightsError where its
    backbone is missing or does not fit, UnreadableError or WorkspaceError where something can't be
    read just now.
    """
    probes = stored_probes(workspace, version)
    net = load_backbone(version.backbone)
    probes.check_backbone(net)
    return probes, net


def stored_probes(workspace: Workspace, version: ModelVersion) -> Probes:
    """The probes of a model version alone, for who has their backbone; raises as `load_version`."""
    with model_file(workspace, version) as path:
        return load_probes(path)


@contextmanager
def model_file(workspace: Workspace, version: ModelVersion) -> Iterator[Path]:
    """A copy of a version's file; raises LostModelError where the stored one is not whole."""
    path = workspace.store.path(Kind.MODEL, version.file_hash)
    anew = f"'{_REFRESH[ModelKind(version.kind)]}'"
    try:
        data = workspace.store.get(Kind.MODEL, version.file_hash)
    except WorkspaceError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise LostModelError(
                f"the file of {version.name} is missing: put {path} back from a backup, or train "
                f"anew with {anew}"
            ) from error
        raise
    if hashlib.sha256(data).hexdigest() != version.file_hash:
        raise LostModelError(
            f"the file of model {version.name} was changed on disk: delete {path} and run {anew}"
        )
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.safetensors"
        copy.write_bytes(data)
        yield copy


def opened_ahead(
    workspace: Workspace, parts: Sequence[Sequence[Image]], outcomes: list[FileOutcome]
) -> Iterator[tuple[list[Image], list[NDArray[np.uint8]]]]:
    """Each part's photographs, opened on threads while the caller works on the part before.

    Those that can't be opened are left out and added to `outcomes` as refused.
    """

    def opened(image: Image) -> NDArray[np.uint8] | FileOutcome:
        try:
            return workspace.photograph(image)
        except (InputError, WorkspaceError) as error:
            return FileOutcome(image.name, Outcome.REFUSED, str(error))

    with ThreadPoolExecutor(THREADS) as pool:
        waiting = deque(pool.map(opened, part) for part in parts[:AHEAD])
        for index, part in enumerate(parts):
            found = list(zip(part, waiting.popleft(), strict=True))
            if index + AHEAD < len(parts):
                waiting.append(pool.map(opened, parts[index + AHEAD]))
            outcomes += [each for _, each in found if isinstance(each, FileOutcome)]
            good = [(image, each) for image, each in found if not isinstance(each, FileOutcome)]
            yield [image for image, _ in good], [photograph for _, photograph in good]
