"""Training: fit probes to accepted masks, and promote them where the gate lets them pass."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from annotation_protocol import load_protocol
from ddiseg import masks
from ddiseg.catalogue import ModelKind, NewModelVersion, Split
from ddiseg.catalogue.embeddings import embedding_space
from ddiseg.catalogue.model_versions import ModelVersions, Snapshot, StaleTrainingError
from ddiseg.catalogue.tables import Image, Mask, ModelVersion
from ddiseg.compute.ray_cluster import Cluster
from ddiseg.errors import InputError
from ddiseg.evaluation import gate
from ddiseg.model.backbones import Backbones
from ddiseg.model.cluster_backbone import ClusterBackbone, Net, backbone_for
from ddiseg.model.compare import compare_on_holdout, load_current_model
from ddiseg.model.photographs import examples, predictions_under
from ddiseg.model.storage import (
    LostModelError,
    model_file,
    recorded_backbone,
    store_model,
    stored_probes,
)
from ddiseg.model.training_metrics import count_tones, training_metrics
from ddiseg.outcomes import Stages, silent_stages, track
from ddiseg.sampling.groups import Groups
from ddiseg.sampling.leaks import leaked_since
from ddiseg.sampling.splits import assign_splits
from ddiseg.workspace.settings import TrainingSettings
from ddiseg.workspace.workspace import Workspace
from fedd.cache import DEFAULT_LIMIT, FeatureCache
from fedd.precision import AUTO
from fedd.probes.pixels import sample
from fedd.probes.training import train_probes
from fedd.segment import Ensemble, ProbeSettings, default_settings
from fedd.weights.names import DEFAULT

#: Folder of a workspace for activations: not part of its data, and computed again where missing.
CACHE = Path("cache", "features")


@dataclass(frozen=True)
class Refreshed:
    """The outcome of a refresh."""

    version: ModelVersion
    new: bool  #: False where the same training had made this version before
    in_use: str | None  #: name of the current model afterwards

    @property
    def absent_classes(self) -> tuple[str, ...]:
        """Classes that its training masks do not show, so that it never predicts them."""
        return self.version.training.absent_classes

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the training, such as that there were too few masks for a validation split."""
        return self.version.training.notes

    @property
    def reasons(self) -> tuple[str, ...]:
        """The gate's reasons, a line each; empty without a gate decision."""
        return decision.reasons if (decision := self.version.decision) else ()


def train_version(
    workspace: Workspace,
    actor: str,
    backbone: str = DEFAULT,
    seed: int = 0,
    settings: ProbeSettings | None = None,
    stages: Stages = silent_stages,
    *,
    from_scratch: bool = False,
    cache_limit: int = DEFAULT_LIMIT,
    device: str = "cpu",
    start_holdout: bool = False,
    max_drop: float = gate.MAX_DROP,
    ensemble: str = TrainingSettings.ensemble,
    corrected_weight: float = TrainingSettings.corrected_weight,
    precision: str = "float32",
    backbones: Backbones | None = None,
    cluster: Cluster | None = None,
) -> Refreshed:
    """Train probes on accepted masks and record them as a new model version.

    Training continues from the current model where that learned from some of the same masks with the
    same backbone and settings. If masks, backbone and settings are those of the newest version,
    nothing changes. Once there is a hold-out set (`start_holdout` begins one, nothing ends it), its
    masks are never learned from, and the version is promoted only if it passes the gate. It is not
    promoted either if another version was promoted, or the hold-out set begun, while it was trained.

    Args:
        settings: those that go with the backbone unless given; `seed` replaces theirs.
        stages: reports the progress of each stage; the backbone takes most of the time.
        from_scratch: do not continue from the current model, nor keep a version that did.
        cache_limit: bytes of activations to keep for the next refresh; 0 keeps none.
        device: where the backbone runs; "auto" is all GPUs, or the CPU.
        start_holdout: from now on keep the masks of about every fifth patient in the hold-out set.
        max_drop: by how much a tone's lower bound may fall, in IoU.
        ensemble: how the members decide, "vote" or "mean"; "auto" is as the settings say.
        corrected_weight: in the loss, of pixels that a person changed in a prediction, and 1 of all
            others; 1 is as the settings say.
        precision: of the backbone, as `Backbones.get` takes it; the gate's predictions have it too.
        backbones: those that are in memory.
        cluster: its workers do all passes through the backbone, and keep no activations.

    Raises:
        InputError: an impossible `max_drop`, nothing to learn from, or weights that do not fit.
        WorkspaceError: something can't be read or written just now, the current model included.
    """
    gate.check_max_drop(max_drop)
    pairs, holdout = _split_accepted(workspace, start_holdout=start_holdout)
    protocol = load_protocol()
    backbones = backbones or Backbones(workspace)
    net = backbone_for(workspace, backbone, device, precision, backbones, cluster, cache_limit)
    settings = replace(settings or default_settings(net), seed=seed)
    if ensemble != TrainingSettings.ensemble:
        settings = replace(settings, ensemble=Ensemble(ensemble))
    if corrected_weight != TrainingSettings.corrected_weight:
        settings = replace(settings, corrected_weight=corrected_weight)
    hashes = [mask.content_hash for _, mask in pairs]
    _refuse_one_class(workspace, pairs)
    current = workspace.catalogue.models.current_or_none()
    if (
        identical := _find_identical_version(
            workspace, current, net, settings, hashes, from_scratch, precision
        )
    ) is not None:
        return Refreshed(identical, False, current.name if current else None)
    loaded, unusable = None, None
    if holdout is not None:
        loaded, unusable = load_current_model(workspace, current, net, device, backbones)
    earlier = (
        None if from_scratch else _warm_start_source(workspace, current, net, settings, hashes)
    )
    cache = feature_cache(workspace, cache_limit) if cluster is None else None
    groups = Groups.read(workspace.catalogue)
    keys = groups.keys([image for image, _ in pairs])
    predictions = {}
    if settings.corrected_weight != 1:  # else nothing depends on them, and they are not read
        predictions = predictions_under(workspace, [mask.id for _, mask in pairs])
    started = time.monotonic()
    probes = train_probes(
        (
            example
            for _, example in zip(
                track(pairs, stages("Reading photographs")),
                examples(workspace, pairs, keys, predictions),
                strict=True,
            )
        ),
        net,
        settings,
        protocol.class_names,
        stages,
        cache=cache,
        warm_start=stored_probes(workspace, earlier) if earlier else None,
        sampler=net.sample if isinstance(net, ClusterBackbone) else sample,
    )
    seconds = time.monotonic() - started
    record, embeddings = training_metrics(
        workspace, probes, net, pairs, groups, cache, stages("Measuring, photographs")
    )
    measured = {
        "seconds": round(seconds, 1),
        "images": len(pairs),
        "by_tone": count_tones([image for image, _ in pairs]),
        "absent_classes": list(probes.absent),
        "went_on_from": earlier.name if earlier and probes.record.warm_start else None,
        "precision": net.precision,
        **record,
    }
    decision = None
    if holdout is not None:
        decision = compare_on_holdout(
            workspace,
            probes,
            net,
            loaded,
            holdout,
            max_drop,
            groups=groups,
            learned=[image.id for image, _ in pairs],
            cache=cache,
            unusable=unusable,
            progress=stages("Comparing with the current model, photographs"),
        )
    digest = store_model(workspace, probes.save)
    # The next draw keeps away from labelled images, so it needs their embeddings.
    workspace.catalogue.embeddings.add(embedding_space(net.hash, settings.to_dict()), embeddings)
    new = NewModelVersion(
        file_hash=digest,
        backbone=recorded_backbone(backbone),
        backbone_hash=net.hash,
        settings=settings.to_dict(),
        training_masks=hashes,
        metrics=measured,
        protocol_version=protocol.version,
        gate=decision.to_json() if decision else None,
    )
    snapshot = Snapshot(current.id if current else None, has_holdout=holdout is not None)
    version = _record(workspace.catalogue.models, new, actor, decision, snapshot)
    current = workspace.catalogue.models.current_or_none()
    return Refreshed(version, True, current.name if current else None)


def feature_cache(workspace: Workspace, limit: int) -> FeatureCache | None:
    """Return the workspace's activations on disk, at most `limit` bytes of them; None for 0."""
    return FeatureCache(workspace.root / CACHE, limit) if limit else None


Pairs = list[tuple[Image, Mask]]


def _split_accepted(workspace: Workspace, *, start_holdout: bool) -> tuple[Pairs, Pairs | None]:
    """Return the accepted masks, with their images, of the training split and of the hold-out set.

    There is no hold-out set, and None is returned, until it is begun. The order does not depend on
    row numbers.
    """
    accepted = workspace.catalogue.masks.accepted()
    images = workspace.catalogue.images.select(ids=list(accepted))
    pairs = sorted(
        ((image, accepted[image.id]) for image in images), key=lambda pair: pair[0].content_hash
    )
    holdout = None
    if start_holdout or workspace.catalogue.splits.all():
        splits = assign_splits(workspace.catalogue)
        # A mask that another process has reopened by now is in neither.
        holdout = [pair for pair in pairs if splits.get(pair[0].id) is Split.HOLDOUT]
        pairs = [pair for pair in pairs if splits.get(pair[0].id) is Split.TRAINING]
    if not pairs:
        kept = f" ({len(holdout)} are in the hold-out set of the gate)" if holdout else ""
        raise InputError(
            f"no accepted mask to learn from{kept}: import reviewed masks ('ddiseg masks import "
            "... --annotator A --reviewer B') or have masks reviewed"
        )
    return pairs, holdout


def _refuse_one_class(workspace: Workspace, pairs: Pairs) -> None:
    """Raise InputError where the masks label one class alone, and leave all else unlabelled."""
    if not all(mask.unlabelled for _, mask in pairs):
        return
    found: set[int] = set()
    for _, mask in pairs:
        found.update(masks.classes_in(workspace.mask(mask)))
        if len(found) > 1:
            return
    names = [load_protocol().classes[index].name for index in found]
    only = names[0] if names else "nothing"
    n = "the accepted mask labels" if len(pairs) == 1 else f"all {len(pairs)} accepted masks label"
    raise InputError(
        f"{n} {only} alone and leave all other pixels unlabelled: a model would find {only} everywhere; "
        "accept a mask that labels another class too, or import them again with a class for the rest "
        "('ddiseg masks import ... --classes VALUE=lesion,rest=skin', or 0=skin)"
    )


def _find_identical_version(
    workspace: Workspace,
    current: ModelVersion | None,
    net: Net,
    settings: ProbeSettings,
    hashes: Sequence[str],
    from_scratch: bool,
    precision: str,
) -> ModelVersion | None:
    """Return the newest version if it learned from the same masks in the same way.

    Also one that the gate refused, unless the current model has changed since. Another precision is
    another way only where it was asked for.
    """
    versions = workspace.catalogue.models.all(ModelKind.SEGMENTATION)
    if not versions or not _has_same_setup(workspace, versions[-1], net, settings):
        return None
    newest = versions[-1]
    if ProbeSettings.from_dict(newest.settings) != settings:
        return None  # its members decide otherwise
    if precision != AUTO and newest.training.precision != net.precision:
        return None
    leaked = leaked_since(workspace.catalogue, newest)
    if leaked.holdout or leaked.validation:
        return None  # another training gives estimates without what leaks
    if from_scratch and newest.training.went_on_from:
        return None
    if _refused_against_former_model(newest, current):
        return None
    return newest if sorted(newest.training_masks) == sorted(hashes) else None


def _refused_against_former_model(version: ModelVersion, current: ModelVersion | None) -> bool:
    """Return whether the gate refused a version against one that is no longer the current model."""
    if (decision := version.decision) is None or decision.passed or current is None:
        return False
    return current.name not in (version.name, decision.compared_with)


def _warm_start_source(
    workspace: Workspace,
    current: ModelVersion | None,
    net: Net,
    settings: ProbeSettings,
    hashes: Sequence[str],
) -> ModelVersion | None:
    """Return the current model if training can continue from it: it learned from some of the masks."""
    if current is None or not set(current.training_masks) < set(hashes):
        return None
    return current if _has_same_setup(workspace, current, net, settings) else None


def _has_same_setup(
    workspace: Workspace,
    version: ModelVersion,
    net: Net,
    settings: ProbeSettings,
) -> bool:
    """Return whether a version was trained in the same way, and its file is intact."""
    if (
        version.backbone_hash != net.hash
        or not ProbeSettings.from_dict(version.settings).trains_like(settings)
        or not load_protocol().has_classes_of(version.protocol_version)
    ):
        return False
    try:
        with model_file(workspace, version):
            return True
    except LostModelError:  # 'ddiseg verify' reports it
        return False


def _record(
    models: ModelVersions,
    new: NewModelVersion,
    actor: str,
    decision: gate.GateDecision | None,
    snapshot: Snapshot,
) -> ModelVersion:
    """Record a version, promoted unless the gate refused it or the snapshot is out of date."""
    if decision is not None and not decision.passed:
        return models.add(new, actor, promote=False)
    why = "; ".join(decision.reasons) if decision else "newly trained; there is no hold-out set"
    try:
        return models.add(new, actor, why=why, snapshot=snapshot)
    except StaleTrainingError as error:
        refused = gate.refuse(decision, str(error))
        return models.add(replace(new, gate=refused.to_json()), actor, promote=False)
