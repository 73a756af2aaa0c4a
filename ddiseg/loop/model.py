"""Refresh the probes from accepted masks, and paint images with them.

The only room of ddiseg that knows `fedd`; what fedd refuses comes out as an InputError.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import load_protocol, scoring
from ddiseg.catalogue import NewMask, NewModelVersion, State
from ddiseg.catalogue.models import Image, Mask, ModelVersion
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.outcomes import FileOutcome, Outcome, Progress, silent
from ddiseg.store import Kind
from ddiseg.workspace import Workspace
from fedd.backbone import DiffusionUNet
from fedd.errors import FeddError
from fedd.segment import Probes, ProbeSettings, default_settings, load_probes, train_probes
from fedd.weights import SHIPPED, load_backbone

#: Photographs painted in one pass of the backbone, and predictions catalogued in one transaction.
BATCH, TRANSACTION = 8, 64

#: States whose images are painted only where they are asked for.
SETTLED = (State.ACCEPTED, State.SKIPPED)


@dataclass(frozen=True)
class Refreshed:
    """A model version and how it came about; `new` is False where it was there already."""

    version: ModelVersion
    new: bool

    @property
    def absent_classes(self) -> tuple[str, ...]:
        """Classes that its training masks do not show, so that it never paints them."""
        return tuple(self.version.metrics["absent_classes"])


def refresh(
    workspace: Workspace,
    actor: str,
    backbone: str = SHIPPED,
    seed: int = 0,
    settings: ProbeSettings | None = None,
    progress: Progress = silent,
) -> Refreshed:
    """Train probes on all accepted masks and record them as a new model version.

    `settings` are those that go with the backbone unless given; `seed` replaces theirs.

    The same masks, backbone and settings as the version in use leave it in use. Raises InputError
    where there is nothing to learn from or the weights do not fit.
    """
    pairs = _training_pairs(workspace)
    protocol = load_protocol()
    with fedd_errors():
        net = load_backbone(backbone)
        settings = replace(settings or default_settings(net.config), seed=seed)
        hashes = [mask.content_hash for _, mask in pairs]
        there = _same_version(workspace, net, settings, hashes)
        if there is not None:
            return Refreshed(there, False)
        started = time.monotonic()
        examples = ((workspace.photograph(i), workspace.mask(m)) for i, m in pairs)
        probes = train_probes(examples, net, settings, protocol.class_names, progress)
        seconds = time.monotonic() - started
        metrics = {
            "seconds": round(seconds, 1),
            "images": len(pairs),
            "by_tone": _count_tones(pairs),
            "absent_classes": [
                name for i, name in enumerate(probes.classes) if i not in probes.trained
            ],
            "on_its_own_training_images": _training_fit(workspace, probes, net, pairs),
        }
        digest = _store_probes(workspace, probes)
    version = workspace.catalogue.models.add(
        NewModelVersion(
            file_hash=digest,
            backbone=backbone if backbone == SHIPPED else str(Path(backbone).absolute()),
            backbone_hash=net.hash,
            settings=settings.to_dict(),
            training_masks=hashes,
            metrics=metrics,
            protocol_version=protocol.version,
        ),
        actor,
    )
    return Refreshed(version, True)


def prelabel(
    workspace: Workspace, images: Sequence[Image], progress: Progress = silent
) -> tuple[ModelVersion, list[FileOutcome]]:
    """Paint images with the model version in use; those that it has painted are unchanged.

    A prediction changes nothing about an image that people have begun, finished or skipped.
    Predictions are catalogued as they come, so a stopped run loses at most the last few.
    """
    version = workspace.catalogue.models.current()
    with fedd_errors():
        probes, net = _load_version(workspace, version)
    painted = workspace.catalogue.masks.predicted_by(version.id)
    outcomes: list[FileOutcome] = []
    todo = []
    for image in images:
        if image.id in painted:
            outcomes.append(FileOutcome(image.name, Outcome.UNCHANGED))
        else:
            todo.append(image)
    waiting: list[tuple[Image, NewMask]] = []
    for start in range(0, len(todo), BATCH):
        part, photographs = _open(workspace, todo[start : start + BATCH], outcomes)
        with fedd_errors():
            predictions = probes.predict(net, photographs) if part else []
        for image, prediction in zip(part, predictions, strict=True):
            new = NewMask(
                image_id=image.id,
                content_hash=workspace.store_mask(prediction.mask),
                width=image.width,
                height=image.height,
                mapping="same",
                classes=list(probes.trained),
                protocol_version=version.protocol_version,
                model_version_id=version.id,
                uncertainty=prediction.uncertainty,
            )
            waiting.append((image, new))
        if len(waiting) >= TRANSACTION or start + BATCH >= len(todo):
            added = workspace.catalogue.masks.add_predictions([new for _, new in waiting])
            outcomes += [FileOutcome(i.name, o) for (i, _), o in zip(waiting, added, strict=True)]
            waiting = []
        progress(min(start + BATCH, len(todo)), len(todo))
    return version, outcomes


@contextmanager
def fedd_errors() -> Iterator[None]:
    """What fedd refuses, as an error of ours."""
    try:
        yield
    except FeddError as error:
        raise InputError(str(error)) from error


def _training_pairs(workspace: Workspace) -> list[tuple[Image, Mask]]:
    """Accepted masks with their images, in an order that no row number decides."""
    accepted = workspace.catalogue.masks.accepted()
    if not accepted:
        raise InputError(
            "no accepted mask to learn from: import reviewed masks ('ddiseg masks import ... "
            "--annotator A --reviewer B') or have masks reviewed"
        )
    images = workspace.catalogue.images.select(ids=list(accepted))
    return sorted(
        ((image, accepted[image.id]) for image in images), key=lambda pair: pair[0].content_hash
    )


def _same_version(
    workspace: Workspace, net: DiffusionUNet, settings: ProbeSettings, hashes: list[str]
) -> ModelVersion | None:
    versions = workspace.catalogue.models.all()
    if not versions:
        return None
    newest = versions[-1]
    wanted = (net.hash, settings, sorted(hashes), load_protocol().version)
    there = (
        newest.backbone_hash,
        ProbeSettings.from_dict(newest.settings),
        sorted(newest.training_masks),
        newest.protocol_version,
    )
    usable = workspace.store.exists(Kind.MODEL, newest.file_hash)
    return newest if there == wanted and usable else None


def _count_tones(pairs: Sequence[tuple[Image, Mask]]) -> dict[str, int]:
    tones = [image.tone for image, _ in pairs]
    return {tone: tones.count(tone) for tone in sorted(set(tones))}


def _training_fit(
    workspace: Workspace,
    probes: Probes,
    net: DiffusionUNet,
    pairs: Sequence[tuple[Image, Mask]],
) -> dict[str, float]:
    """Pooled IoU by class on the training images: a check of the fit, not of the model."""
    n = len(probes.classes)
    total = np.zeros((n, n), np.int64)
    for image, mask in pairs:
        prediction = probes.predict(net, [workspace.photograph(image)])[0].mask
        total += scoring.confusion(workspace.mask_over(image, mask), prediction, n)
    found = scoring.iou_per_class(total)
    return {
        name: round(float(v), 4) for name, v in zip(probes.classes, found, strict=True) if v == v
    }


def _store_probes(workspace: Workspace, probes: Probes) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probes.safetensors"
        probes.save(path)
        data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    workspace.store.put(Kind.MODEL, digest, data)
    return digest


def _load_version(workspace: Workspace, version: ModelVersion) -> tuple[Probes, DiffusionUNet]:
    data = workspace.store.get(Kind.MODEL, version.file_hash)
    if hashlib.sha256(data).hexdigest() != version.file_hash:
        raise WorkspaceError(
            f"the file of model {version.name} was changed on disk: delete "
            f"{workspace.store.path(Kind.MODEL, version.file_hash)} and run 'ddiseg refresh'"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probes.safetensors"
        path.write_bytes(data)
        probes = load_probes(path)
    net = load_backbone(version.backbone)
    probes.check_backbone(net)
    return probes, net


def _open(
    workspace: Workspace, images: Sequence[Image], outcomes: list[FileOutcome]
) -> tuple[list[Image], list[NDArray[np.uint8]]]:
    """The photographs that can be opened; the others are added to `outcomes` as refused."""
    opened, photographs = [], []
    for image in images:
        try:
            photographs.append(workspace.photograph(image))
            opened.append(image)
        except (InputError, WorkspaceError) as error:
            outcomes.append(FileOutcome(image.name, Outcome.REFUSED, str(error)))
    return opened, photographs
