"""The backbones that a workspace's models read, in memory: one object of each, on its device."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path
from typing import TypeAlias
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from annotation_protocol import UserError, load_protocol
from ddiseg.catalogue.tables import Image, ModelVersion
from ddiseg.model.photographs import open_photograph
from ddiseg.model.storage import LostModelError, stored_probes
from ddiseg.workspace.workspace import Workspace
from fedd.backbone import Backbone, LocalBackbone, Placed, other_precision, precision_of
from fedd.errors import FeddError
from fedd.network.devices import existing_devices
from fedd.precision import AUTO, MOST, Trial, place_in
from fedd.segment import Probes
from fedd.weights.files import backbone_files, load_backbone

logger = logging.getLogger(__name__)

#: Files of the weights as they are now, one for each part, devices and precision.
_Key: TypeAlias = tuple[tuple[tuple[str, int, int], ...], str, str]


class Backbones:
    """Backbones in memory, one object for each file (of a composite: files), device and precision.

    The one used last is kept; another one lives as long as somebody uses it. Threads may share them:
    on a GPU they take turns by batch.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._kept: Placed | None = None
        self._alive: WeakValueDictionary[_Key, Placed] = WeakValueDictionary()

    def get(self, backbone: str, device: str = "cpu", precision: str = "float32") -> Placed:
        """Return a backbone by name or path, loaded unless it is in memory already.

        Args:
            device: "auto" is all GPUs, or the CPU.
            precision: "auto" is bfloat16 where a GPU has it and masks are tested to stay the same,
                with the current model and a few photographs of the workspace.

        Raises:
            WeightsError: the weights are missing, or do not fit.
            MissingPackageError: the package of a part is not installed.
            DeviceError: there is no such device or precision.
        """
        files = tuple(_as_it_is(each.path) for each in backbone_files(backbone))
        targets = existing_devices(device)
        if precision == AUTO and targets == [torch.device("cpu")]:
            precision = "float32"
        devices = ", ".join(map(str, targets))
        with self._lock:
            found = self._alive.get((files, devices, precision))
            if found is None:
                self._kept = None  # two networks at once may need more memory than there is
                found = place_in(load_backbone(backbone), device, precision, self._trial)
                found = self._alive.setdefault((files, devices, found.precision), found)
                self._alive[files, devices, precision] = found
            self._kept = found
            return found

    def _trial(self, exact: LocalBackbone) -> Trial | None:
        """Return the current model's probes and a few photographs; None if it reads another backbone."""
        version = self._workspace.catalogue.models.current_or_none()
        if version is None or version.backbone_hash != exact.hash:
            return None
        try:
            probes = stored_probes(self._workspace, version)
        except (LostModelError, FeddError):  # whoever needs the model says so
            return None
        return Trial(probes, _photographs(self._workspace))


def load_version_on(
    workspace: Workspace,
    version: ModelVersion,
    device: str = "cpu",
    precision: str = "float32",
    backbones: Backbones | None = None,
) -> tuple[Probes, Placed]:
    """Return the probes of a model version, and their backbone on a device, in a precision.

    Raises:
        LostModelError: the stored file was changed or is missing.
        WeightsError: the backbone is missing or does not fit.
        UnreadableError, WorkspaceError: something can't be read just now.
        DeviceError: there is no such device or precision.
    """
    probes = stored_probes(workspace, version)
    net = (backbones or Backbones(workspace)).get(version.backbone, device, precision)
    probes.check_backbone(net)
    return probes, net


def say_precision(model: str, trained_in: str, net: Backbone) -> None:
    """Log where a model, which now gets photographs, predicts in another precision than it learned in."""
    if note := other_precision(model, trained_in, precision_of(net)):
        logger.info(note)


def _as_it_is(file: Path) -> tuple[str, int, int]:
    """Return a file's path, with its time and size: another one may take its place."""
    status = file.stat()
    return str(file), status.st_mtime_ns, status.st_size


def _photographs(workspace: Workspace) -> list[NDArray[np.uint8]]:
    """Return up to MOST photographs that can be opened, the tones in turn."""
    found: list[NDArray[np.uint8]] = []
    for image in tones_in_turn(workspace):
        try:
            found.append(open_photograph(workspace, image))
        except UserError:  # 'ddiseg verify' reports it
            continue
        if len(found) == MOST:
            break
    return found


def tones_in_turn(workspace: Workspace) -> Iterator[Image]:
    """Yield images, one of each tone after the other, whatever the order of the catalogue's rows."""
    tones = sorted({tone.name for tone in load_protocol().tones} | {"unknown"})
    rows = zip_longest(*map(workspace.catalogue.hashes.images_of_tone, tones))
    return (image for image in chain.from_iterable(rows) if image is not None)
