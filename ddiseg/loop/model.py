"""Refresh the probes from accepted masks, and paint images with them.

The only room of ddiseg that knows `fedd`; what fedd refuses comes out as an InputError.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from annotation_protocol import load_protocol
from ddiseg.catalogue import ModelKind, NewMask, NewModelVersion, State
from ddiseg.catalogue.models import Image, Mask, ModelVersion
from ddiseg.errors import InputError
from ddiseg.loop.model_files import model_file, opened_ahead, store_model
from ddiseg.loop.training_metrics import count_tones, training_metrics
from ddiseg.outcomes import FileOutcome, Outcome, Progress, silent
from ddiseg.store import Kind
from ddiseg.workspace import Workspace
from fedd.backbone import DiffusionUNet
from fedd.cache import DEFAULT_LIMIT, FeatureCache
from fedd.errors import FeddError
from fedd.network.replicas import Replicas, place
from fedd.probes.training import Example, train_probes
from fedd.segment import Probes, ProbeSettings, default_settings, load_probes
from fedd.weights.files import SHIPPED, is_named, load_backbone

#: Photographs opened and painted at a time, on a CPU and on GPUs, and predictions a transaction.
BATCH, GPU_BATCH, TRANSACTION = 8, 64, 64

#: States whose images are painted only where they are asked for.
SETTLED = (State.ACCEPTED, State.SKIPPED)


#: Where a workspace keeps activations: not part of its data, and made again where it is missing.
CACHE = Path("cache", "features")


@dataclass(frozen=True)
class Refreshed:
    """A model version and how it came about; `new` is False where it was there already."""

    version: ModelVersion
    new: bool

    @property
    def absent_classes(self) -> tuple[str, ...]:
        """Classes that its training masks do not show, so that it never paints them."""
        return tuple(self.version.metrics["absent_classes"])

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about the training, such as that nothing could be held out."""
        return tuple(self.version.metrics.get("notes", ()))


def refresh(
    workspace: Workspace,
    actor: str,
    backbone: str = SHIPPED,
    seed: int = 0,
    settings: ProbeSettings | None = None,
    progress: Progress = silent,
    *,
    from_scratch: bool = False,
    cache_limit: int = DEFAULT_LIMIT,
    device: str = "cpu",
) -> Refreshed:
    """Train probes on all accepted masks and record them as a new model version.

    Training goes on from the version in use where that learned from some of the same masks, with
    the same backbone and settings. The same masks, backbone and settings as the version in use
    leave it in use.

    Args:
        settings: those that go with the backbone unless given; `seed` replaces theirs.
        from_scratch: do not go on from the version in use, nor leave in use one that went on.
        cache_limit: bytes that the activations kept for the next refresh may take; 0 keeps none.
        device: where the backbone is computed; "auto" is all GPUs, or the CPU.

    Raises:
        InputError: there is nothing to learn from, or the weights do not fit.
    """
    pairs = _training_pairs(workspace)
    protocol = load_protocol()
    with fedd_errors():
        net = place(load_backbone(backbone), device)
        settings = replace(settings or default_settings(net.config), seed=seed)
        hashes = [mask.content_hash for _, mask in pairs]
        newest = _newest_alike(workspace, net, settings)
        if from_scratch and newest is not None and newest.metrics.get("went_on_from"):
            newest = None
        if newest is not None and sorted(newest.training_masks) == sorted(hashes):
            return Refreshed(newest, False)
        grown = newest is not None and set(newest.training_masks) < set(hashes)
        earlier = newest if grown and not from_scratch else None
        cache = feature_cache(workspace, cache_limit)
        started = time.monotonic()
        probes = train_probes(
            (_example(workspace, image, mask) for image, mask in pairs),
            net,
            settings,
            protocol.class_names,
            progress,
            cache=cache,
            warm_start=load_version(workspace, earlier)[0] if earlier else None,
        )
        seconds = time.monotonic() - started
        went_on_from = earlier.name if earlier and probes.record.warm_start else None
        metrics = {
            "seconds": round(seconds, 1),
            "images": len(pairs),
            "by_tone": count_tones([image for image, _ in pairs]),
            "absent_classes": list(probes.absent),
            "went_on_from": went_on_from,
            **training_metrics(workspace, probes, net, pairs, cache),
        }
        digest = store_model(workspace, probes.save)
    version = workspace.catalogue.models.add(
        NewModelVersion(
            file_hash=digest,
            backbone=backbone if is_named(backbone) else str(Path(backbone).absolute()),
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
    workspace: Workspace,
    images: Sequence[Image],
    progress: Progress = silent,
    *,
    device: str = "cpu",
    precision: str = "float32",
) -> tuple[ModelVersion, list[FileOutcome]]:
    """Paint images with the model version in use; those that it has painted are unchanged.

    A prediction changes nothing about an image that people have begun, finished or skipped.
    Predictions are catalogued as they come, so a stopped run loses at most the last few. The
    backbone is computed on `device` ("auto" is all GPUs, or the CPU) in `precision`.
    """
    version = workspace.catalogue.models.current()
    with fedd_errors():
        probes, found = load_version(workspace, version)
        net = place(found, device, precision)
    painted = workspace.catalogue.masks.predicted_by(version.id)
    outcomes: list[FileOutcome] = []
    todo = []
    for image in images:
        if image.id in painted:
            outcomes.append(FileOutcome(image.name, Outcome.UNCHANGED))
        else:
            todo.append(image)
    waiting: list[tuple[Image, NewMask]] = []
    size = BATCH if net.devices[0].type == "cpu" else GPU_BATCH
    parts = [todo[start : start + size] for start in range(0, len(todo), size)]
    for done, (part, photographs) in enumerate(opened_ahead(workspace, parts, outcomes), start=1):
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
        if len(waiting) >= TRANSACTION or done == len(parts):
            added = workspace.catalogue.masks.add_predictions([new for _, new in waiting])
            outcomes += [FileOutcome(i.name, o) for (i, _), o in zip(waiting, added, strict=True)]
            waiting = []
        progress(min(done * size, len(todo)), len(todo))
    return version, outcomes


def load_version(workspace: Workspace, version: ModelVersion) -> tuple[Probes, DiffusionUNet]:
    """The probes of a model version and the backbone that they read.

    Raises WorkspaceError where the stored file was changed, FeddError where the weights do not fit.
    """
    with model_file(workspace, version) as path:
        probes = load_probes(path)
    net = load_backbone(version.backbone)
    probes.check_backbone(net)
    return probes, net


def feature_cache(workspace: Workspace, limit: int) -> FeatureCache | None:
    """The workspace's activations on disk, at most `limit` bytes of them; none where that is 0."""
    return FeatureCache(workspace.root / CACHE, limit) if limit else None


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


def _newest_alike(
    workspace: Workspace, net: DiffusionUNet | Replicas, settings: ProbeSettings
) -> ModelVersion | None:
    """The version in use, where it was trained as this one will be and its file is there."""
    versions = workspace.catalogue.models.all(ModelKind.SEGMENTATION)
    if not versions:
        return None
    newest = versions[-1]
    alike = (
        newest.backbone_hash == net.hash
        and ProbeSettings.from_dict(newest.settings) == settings
        and newest.protocol_version == load_protocol().version
    )
    usable = workspace.store.exists(Kind.MODEL, newest.file_hash)
    return newest if alike and usable else None


def _example(workspace: Workspace, image: Image, mask: Mask) -> Example:
    return Example(
        workspace.photograph(image), workspace.mask(mask), image.patient or "", image.tone
    )
