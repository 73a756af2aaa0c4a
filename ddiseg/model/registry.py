"""Registry of model versions: promotion, rollback and comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from annotation_protocol import load_protocol
from ddiseg.catalogue import ModelKind
from ddiseg.catalogue.tables import ModelVersion
from ddiseg.errors import InputError
from ddiseg.model.performance import (
    PerformanceTable,
    holdout_table,
    performance_tables,
    side_by_side,
)
from ddiseg.workspace.workspace import Workspace
from fedd.errors import FeddError, UnreadableError


class GateStatus(StrEnum):
    """The result of the gate for a version."""

    PASSED = "passed"
    REFUSED = "refused"
    NOT_EVALUATED = "not evaluated"  #: there was too little to compare
    NOT_RUN = "not asked"  #: there was no hold-out set, or its kind has no gate


@dataclass(frozen=True)
class PromotionChange:
    """The outcome of a promotion or a rollback."""

    version: ModelVersion  #: the current model afterwards
    before: ModelVersion | None  #: the current model until then
    changed: bool  #: False where it was the current model already
    forced: bool
    why: str


@dataclass(frozen=True)
class VersionDifference:
    """The differences between two versions of a kind; pairs hold the first's value, then the second's."""

    names: tuple[str, str]
    settings: dict[str, tuple[Any, Any]]  #: only those that differ; None where one has none
    in_both: dict[str, int]  #: masks (or images) that both learned from, by tone
    only: tuple[dict[str, int], dict[str, int]]  #: that only one learned from, by tone
    tables: dict[str, PerformanceTable]

    def to_dict(self) -> dict[str, Any]:
        """Return the differences as `models diff --output json` prints them."""
        values = asdict(self)
        values["figures"] = values.pop("tables")
        return values


def gate_status(version: ModelVersion) -> GateStatus:
    """Return the result of the gate for a version."""
    if (decision := version.decision) is None:
        return GateStatus.NOT_RUN
    if not decision.passed:
        return GateStatus.REFUSED
    return GateStatus.PASSED if decision.evaluated else GateStatus.NOT_EVALUATED


def in_use(workspace: Workspace, version: ModelVersion) -> bool:
    """Return whether a version is the current model of its kind."""
    current = workspace.catalogue.models.current_or_none(ModelKind(version.kind))
    return current is not None and current.id == version.id


def promote(
    workspace: Workspace, name: str, actor: str, *, why: str | None = None, force: bool = False
) -> PromotionChange:
    """Make a version the current model.

    A version that passed the gate, or that was the current model before, needs no force. Any other
    needs force and a reason.

    Raises:
        NotFoundError: there is no version of that name.
        InputError: it needs force; force has no reason; the version is of another protocol
            version, or its backbone can't be loaded.
        WorkspaceError: its file is missing or was changed on disk.
    """
    why = " ".join(why.split()) if why else ""
    if force and not why:
        raise InputError("--force needs --why TEXT: the reason stays on record with the promotion")
    models = workspace.catalogue.models
    version = models.get(name)
    chain = _chain(workspace, ModelKind(version.kind))
    before = chain[-1] if chain else None
    if before is not None and before.id == version.id:
        return PromotionChange(
            version, before, changed=False, forced=False, why="it is in use already"
        )
    check_usable(workspace, version)
    right = _right_to_promotion(workspace, version)
    if right is None and not force:
        raise InputError(f"{_why_not(version)}: add --force --why 'TEXT' to promote it anyway")
    forced, why = right is None, why or right or ""
    changed = models.promote(version.name, actor, why, forced=forced)
    return PromotionChange(version, before, changed, forced, why)


def rollback(
    workspace: Workspace,
    actor: str,
    *,
    why: str | None = None,
    kind: ModelKind = ModelKind.SEGMENTATION,
) -> PromotionChange:
    """Promote the version that was the current model before the present one.

    A rollback forgets the promotions after that version: after fedd-1, fedd-2, fedd-3 the first
    rollback gives fedd-2, the second fedd-1, and a third is refused.

    Raises:
        NotFoundError: no version of the kind is in use.
        InputError, WorkspaceError: there was none before, or as in `promote`.
    """
    current = workspace.catalogue.models.current(kind)
    chain = _chain(workspace, kind)
    if len(chain) < 2:
        raise InputError(
            f"no version was in use before {current.name}: 'ddiseg models list' lists all versions, and "
            "'ddiseg models promote NAME' promotes one"
        )
    version = chain[-2]
    check_usable(workspace, version)
    given = f": {' '.join(why.split())}" if why and why.strip() else ""
    reason = f"rolled back from {current.name}{given}"
    changed = workspace.catalogue.models.promote(version.name, actor, reason, forced=False)
    return PromotionChange(version, current, changed, forced=False, why=reason)


def check_usable(workspace: Workspace, version: ModelVersion) -> None:
    """Raise InputError or WorkspaceError where a version can't predict here."""
    # Imported here, as only this needs PyTorch.
    from ddiseg.model.malignancy import load_classifier_version
    from ddiseg.model.storage import load_version

    anew = f"train anew with '{refresh_command(version)}'"
    protocol = load_protocol()
    if not protocol.has_classes_of(version.protocol_version):
        raise InputError(
            f"{version.name} learned the classes of protocol {version.protocol_version}, and this is "
            f"protocol {protocol.version}: it can't be promoted, not even with --force; {anew}"
        )
    try:
        if version.kind == ModelKind.MALIGNANCY:
            load_classifier_version(workspace, version)
        else:
            load_version(workspace, version)
    except UnreadableError:
        raise
    except FeddError as error:
        raise InputError(
            f"the backbone of {version.name} can't be used ({error}): put the file that it was "
            f"trained with back, or {anew}"
        ) from error


def refresh_command(version: ModelVersion) -> str:
    """Return the command that trains a new version of the same kind."""
    return "ddiseg refresh" + (" --malignancy" if version.kind == ModelKind.MALIGNANCY else "")


def diff(workspace: Workspace, first: str, second: str) -> VersionDifference:
    """Return how two versions differ in settings, training data and performance.

    Raises:
        NotFoundError: an unknown name.
        InputError: the versions are of two kinds.
    """
    a, b = (workspace.catalogue.models.get(name) for name in (first, second))
    if a.kind != b.kind:
        raise InputError(
            f"{a.name} is for {a.kind} and {b.name} for {b.kind}: compare two versions of one kind"
        )
    facts = _facts(a), _facts(b)
    learned = Counter(learned_from(a)), Counter(learned_from(b))
    tones = _tones(workspace, ModelKind(a.kind), [*learned[0], *learned[1]])
    return VersionDifference(
        names=(a.name, b.name),
        settings={
            key: (facts[0].get(key), facts[1].get(key))
            for key in dict.fromkeys([*facts[0], *facts[1]])
            if facts[0].get(key) != facts[1].get(key)
        },
        in_both=_by_tone(learned[0] & learned[1], tones),
        only=(_by_tone(learned[0] - learned[1], tones), _by_tone(learned[1] - learned[0], tones)),
        tables=_tables(workspace, a, b),
    )


def learned_from(version: ModelVersion) -> Sequence[str]:
    """Return the content hashes of the masks, or images, that a version learned from."""
    if version.kind == ModelKind.MALIGNANCY:
        return list(version.training_images)
    return version.training_masks


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one level: {"features.timestep": 50}."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _chain(workspace: Workspace, kind: ModelKind) -> list[ModelVersion]:
    """Return the promoted versions that were not rolled back, oldest first; the last is the current model."""
    versions = {version.id: version for version in workspace.catalogue.models.all(kind)}
    chain: list[int] = []
    for promotion in workspace.catalogue.models.promotions(kind):
        if promotion.model_version_id in chain:
            del chain[chain.index(promotion.model_version_id) :]
        chain.append(promotion.model_version_id)
    return [versions[version_id] for version_id in chain]


def _right_to_promotion(workspace: Workspace, version: ModelVersion) -> str | None:
    """Return why a version may be promoted without force; None where it may not."""
    promotions = workspace.catalogue.models.promotions(ModelKind(version.kind))
    if any(promotion.model_version_id == version.id for promotion in promotions):
        return "it was in use before"
    return "the gate passed it" if gate_status(version) is GateStatus.PASSED else None


def _why_not(version: ModelVersion) -> str:
    if (decision := version.decision) is None:
        return f"{version.name} was never compared by the gate"
    refused = gate_status(version) is GateStatus.REFUSED
    status = "was refused by the gate" if refused else "could not be compared by the gate"
    return f"{version.name} {status} ({decision.reasons[0]})"


def _facts(version: ModelVersion) -> dict[str, Any]:
    """Return what determines a version, apart from its training data."""
    return {
        "protocol_version": version.protocol_version,
        "backbone": version.backbone,
        "backbone_hash": version.backbone_hash,
        **flattened(version.settings),
        "precision": version.metrics.get("precision", "float32"),
        "went_on_from": version.metrics.get("went_on_from"),
        "absent_classes": version.metrics.get("absent_classes"),
    }


def _tones(workspace: Workspace, kind: ModelKind, learned: Iterable[str]) -> dict[str, str]:
    """Return the tone of each content hash; unknown where images of several tones have it."""
    hashes = workspace.catalogue.hashes
    if kind is ModelKind.MALIGNANCY:
        return hashes.tones_of_images(learned)
    return hashes.tones_of_masks(learned)


def _by_tone(learned: Counter[str], tones: Mapping[str, str]) -> dict[str, int]:
    counts = Counter(tones.get(digest, "unknown") for digest in learned.elements())
    return {tone.name: counts[tone.name] for tone in load_protocol().tones if counts[tone.name]}


def _tables(workspace: Workspace, a: ModelVersion, b: ModelVersion) -> dict[str, PerformanceTable]:
    """Return what was measured of both; with the difference where the gate compared them."""
    tables = {version.name: performance_tables(workspace, version) for version in (a, b)}
    keys = dict.fromkeys(key for of_version in tables.values() for key in of_version)
    found = {
        key: side_by_side({name: of[key] for name, of in tables.items() if key in of})
        for key in keys
    }
    found["held_out"] = _gate_comparison(a, b) or found.get("held_out")
    return {key: table for key, table in found.items() if table is not None}


def _gate_comparison(a: ModelVersion, b: ModelVersion) -> PerformanceTable | None:
    """Return the gate's own table, on the same images, if it compared these two versions."""
    for version, other in ((b, a), (a, b)):
        table = holdout_table(version)
        if table is not None and table["paired"] and table["columns"][1] == other.name:
            return table
    return None
