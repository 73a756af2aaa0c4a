"""Refresh the probes from accepted masks, and let the gate decide whether they come into use."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from annotation_protocol import load_protocol
from ddiseg.catalogue import ModelKind, NewModelVersion, Split
from ddiseg.catalogue.embeddings import embedding_space
from ddiseg.catalogue.model_versions import ModelVersions, Snapshot, StaleTrainingError
from ddiseg.catalogue.tables import Image, Mask, ModelVersion
from ddiseg.errors import InputError, NotFoundError
from ddiseg.evaluation import gate
from ddiseg.model.compare import compare_on_holdout, load_current_model
from ddiseg.model.storage import (
    LostModelError,
    model_file,
    recorded_backbone,
    store_model,
    stored_probes,
)
from ddiseg.model.training_metrics import count_tones, training_metrics
from ddiseg.outcomes import Stages, silent_stages, track
from ddiseg.sampling.groups import group_keys
from ddiseg.sampling.splits import assign_splits
from ddiseg.workspace.workspace import Workspace
from fedd.backbone import DiffusionUNet, Replicas, place
from fedd.cache import DEFAULT_LIMIT, FeatureCache
from fedd.probes.training import Example, train_probes
from fedd.segment import ProbeSettings, default_settings
from fedd.weights.files import load_backbone
from fedd.weights.names import SHIPPED

#: Where a workspace keeps activations: not part of its data, and made again where it is missing.
CACHE = Path("cache", "features")


@dataclass(frozen=True)
class Refreshed:
    """A model version and how it came about; `new` is False where it was there already."""

    version: ModelVersion
    new: bool
    in_use: str | None  #: name of the version in use afterwards, if there is one

    @property
    def absent_classes(self) -> tuple[str, ...]:
        """Classes that its training masks do not show, so that it never paints them."""
        return tuple(self.version.metrics["absent_classes"])

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about the training, such as that nothing could be held out."""
        return tuple(self.version.metrics.get("notes", ()))

    @property
    def reasons(self) -> tuple[str, ...]:
        """What the gate said, a line each; empty where it was not asked."""
        return tuple(self.version.gate["reasons"]) if self.version.gate else ()


def refresh(
    workspace: Workspace,
    actor: str,
    backbone: str = SHIPPED,
    seed: int = 0,
    settings: ProbeSettings | None = None,
    stages: Stages = silent_stages,
    *,
    from_scratch: bool = False,
    cache_limit: int = DEFAULT_LIMIT,
    device: str = "cpu",
    hold_out: bool = False,
    tolerance: float = gate.MAX_DROP,
) -> Refreshed:
    """Train probes on accepted masks and record them as a new model version.

    Training goes on from the version in use where that learned from some of the same masks, with
    the same backbone and settings. The same masks, backbone and settings as the newest version
    change nothing. Once masks are held out (`hold_out` begins it, and nothing ends it) none is
    ever learned from, and the version comes into use only where the gate lets it pass. It does not
    where another one came into use, or masks were first held out, while it was trained.

    Args:
        settings: those that go with the backbone unless given; `seed` replaces theirs.
        stages: shows how far each stage is; most of the time goes into the backbone's.
        from_scratch: do not go on from the version in use, nor leave in use one that went on.
        cache_limit: bytes that the activations kept for the next refresh may take; 0 keeps none.
        device: where the backbone is computed; "auto" is all GPUs, or the CPU.
        hold_out: from now on hold out about every fifth patient's masks.
        tolerance: by how much a tone's lower bound may fall, in IoU.

    Raises:
        InputError: the tolerance is none, there is nothing to learn from, or the weights do not fit.
        WorkspaceError: something can't be read or written just now, the version in use included.
    """
    gate.check_max_drop(tolerance)
    pairs, held_out = _sides(workspace, begin=hold_out)
    protocol = load_protocol()
    net = place(load_backbone(backbone), device)
    settings = replace(settings or default_settings(net.config), seed=seed)
    hashes = [mask.content_hash for _, mask in pairs]
    current = _in_use(workspace)
    if (same := _same(workspace, current, net, settings, hashes, from_scratch)) is not None:
        return Refreshed(same, False, current.name if current else None)
    incumbent, unusable = None, None
    if held_out is not None:
        incumbent, unusable = load_current_model(workspace, current, net)
    earlier = None if from_scratch else _earlier(workspace, current, net, settings, hashes)
    cache = feature_cache(workspace, cache_limit)
    family_of = group_keys([image for image, _ in pairs])
    started = time.monotonic()
    probes = train_probes(
        (
            _example(workspace, image, mask, family_of[image.id])
            for image, mask in track(pairs, stages("Reading photographs"))
        ),
        net,
        settings,
        protocol.class_names,
        stages,
        cache=cache,
        warm_start=stored_probes(workspace, earlier) if earlier else None,
    )
    seconds = time.monotonic() - started
    went_on_from = earlier.name if earlier and probes.record.warm_start else None
    record, descriptors = training_metrics(
        workspace, probes, net, pairs, cache, stages("Measuring, photographs")
    )
    metrics = {
        "seconds": round(seconds, 1),
        "images": len(pairs),
        "by_tone": count_tones([image for image, _ in pairs]),
        "absent_classes": list(probes.absent),
        "went_on_from": went_on_from,
        **record,
    }
    verdict = None
    if held_out is not None:
        verdict = compare_on_holdout(
            workspace,
            probes,
            net,
            incumbent,
            held_out,
            tolerance,
            cache=cache,
            unusable=unusable,
            progress=stages("Comparing with the version in use, photographs"),
        )
    digest = store_model(workspace, probes.save)
    # What is labelled must be known to the next draw: it keeps away from that.
    workspace.catalogue.embeddings.add(embedding_space(net.hash, settings.to_dict()), descriptors)
    new = NewModelVersion(
        file_hash=digest,
        backbone=recorded_backbone(backbone),
        backbone_hash=net.hash,
        settings=settings.to_dict(),
        training_masks=hashes,
        metrics=metrics,
        protocol_version=protocol.version,
        gate=verdict.to_json() if verdict else None,
    )
    stood = Snapshot(current.id if current else None, has_holdout=held_out is not None)
    version = _record(workspace.catalogue.models, new, actor, verdict, stood)
    in_use = _in_use(workspace)
    return Refreshed(version, True, in_use.name if in_use else None)


def feature_cache(workspace: Workspace, limit: int) -> FeatureCache | None:
    """The workspace's activations on disk, at most `limit` bytes of them; none where that is 0."""
    return FeatureCache(workspace.root / CACHE, limit) if limit else None


Pairs = list[tuple[Image, Mask]]


def _sides(workspace: Workspace, *, begin: bool) -> tuple[Pairs, Pairs | None]:
    """What is learned from and what is held out, accepted masks with their images.

    None is held out, and None returned, until that is begun. The order is one that no row number
    decides.
    """
    accepted = workspace.catalogue.masks.accepted()
    images = workspace.catalogue.images.select(ids=list(accepted))
    pairs = sorted(
        ((image, accepted[image.id]) for image in images), key=lambda pair: pair[0].content_hash
    )
    held_out = None
    if begin or workspace.catalogue.splits.all():
        sides = assign_splits(workspace.catalogue)
        # A mask that another process has reopened by now has no side: it is on neither.
        held_out = [pair for pair in pairs if sides.get(pair[0].id) is Split.HOLDOUT]
        pairs = [pair for pair in pairs if sides.get(pair[0].id) is Split.TRAINING]
    if not pairs:
        kept = f" ({len(held_out)} are held out for the gate)" if held_out else ""
        raise InputError(
            f"no accepted mask to learn from{kept}: import reviewed masks ('ddiseg masks import "
            "... --annotator A --reviewer B') or have masks reviewed"
        )
    return pairs, held_out


def _in_use(workspace: Workspace) -> ModelVersion | None:
    try:
        return workspace.catalogue.models.current()
    except NotFoundError:
        return None


def _same(
    workspace: Workspace,
    current: ModelVersion | None,
    net: DiffusionUNet | Replicas,
    settings: ProbeSettings,
    hashes: Sequence[str],
    from_scratch: bool,
) -> ModelVersion | None:
    """The newest version where it learned the same in the same way.

    One that the gate refused too, unless what it was refused beside is not in use any more.
    """
    versions = workspace.catalogue.models.all(ModelKind.SEGMENTATION)
    if not versions or not _alike(workspace, versions[-1], net, settings):
        return None
    newest = versions[-1]
    if from_scratch and newest.metrics.get("went_on_from"):
        return None
    if _refused_beside_another(newest, current):
        return None
    return newest if sorted(newest.training_masks) == sorted(hashes) else None


def _refused_beside_another(version: ModelVersion, current: ModelVersion | None) -> bool:
    """Whether the gate refused a version beside one that is not in use any more."""
    if version.gate is None or version.gate["passed"] or current is None:
        return False
    return current.name not in (version.name, version.gate["compared_with"])


def _earlier(
    workspace: Workspace,
    current: ModelVersion | None,
    net: DiffusionUNet | Replicas,
    settings: ProbeSettings,
    hashes: Sequence[str],
) -> ModelVersion | None:
    """The version in use, where training can go on from it: it learned a part of the same."""
    if current is None or not set(current.training_masks) < set(hashes):
        return None
    return current if _alike(workspace, current, net, settings) else None


def _alike(
    workspace: Workspace,
    version: ModelVersion,
    net: DiffusionUNet | Replicas,
    settings: ProbeSettings,
) -> bool:
    """Whether a version was trained as this one will be, and its file is there and whole."""
    if (
        version.backbone_hash != net.hash
        or ProbeSettings.from_dict(version.settings) != settings
        or not load_protocol().has_classes_of(version.protocol_version)
    ):
        return False
    try:
        with model_file(workspace, version):
            return True
    except LostModelError:  # 'ddiseg verify' says what is wrong with it
        return False


def _example(workspace: Workspace, image: Image, mask: Mask, family: str) -> Example:
    return Example(workspace.photograph(image), workspace.mask(mask), family, image.tone)


def _record(
    models: ModelVersions,
    new: NewModelVersion,
    actor: str,
    verdict: gate.GateDecision | None,
    stood: Snapshot,
) -> ModelVersion:
    """Record a version; in use, unless the gate refuses it or things no longer stand as they did."""
    if verdict is not None and not verdict.passed:
        return models.add(new, actor, promote=False)
    why = "; ".join(verdict.reasons) if verdict else "newly trained; no mask is held out"
    try:
        return models.add(new, actor, why=why, snapshot=stood)
    except StaleTrainingError as error:
        refused = gate.refuse(verdict, str(error))
        return models.add(replace(new, gate=refused.to_json()), actor, promote=False)
