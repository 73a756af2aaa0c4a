"""Which model version is in use, who may change that, and how two versions differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from annotation_protocol import load_protocol
from ddiseg.catalogue import ModelKind
from ddiseg.catalogue.tables import ModelVersion
from ddiseg.errors import InputError
from ddiseg.model.performance import Table, beside, held_out, measured
from ddiseg.workspace.workspace import Workspace
from fedd.errors import FeddError, UnreadableError


class GateStatus(StrEnum):
    """What the gate said of a version, in a word."""

    PASSED = "passed"
    REFUSED = "refused"
    NOT_JUDGED = "not judged"  #: it was asked, and there was too little to compare
    NOT_ASKED = "not asked"  #: nothing was held out, or no gate is for its kind


@dataclass(frozen=True)
class PromotionChange:
    """The version that a promotion or a rollback left in use, and how it came to that."""

    version: ModelVersion
    before: ModelVersion | None  #: in use until then; None where there was none
    changed: bool  #: False where it was in use already
    forced: bool
    why: str


@dataclass(frozen=True)
class VersionDifference:
    """How two versions of a kind differ; a pair holds the first's, then the second's."""

    names: tuple[str, str]
    settings: dict[str, tuple[Any, Any]]  #: only those that differ; None where one has none
    in_both: dict[str, int]  #: masks (or images) that both learned from, by tone
    only: tuple[dict[str, int], dict[str, int]]  #: that only one learned from, by tone
    figures: dict[str, Table]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def gate_status(version: ModelVersion) -> GateStatus:
    """What the gate said of a version."""
    if version.gate is None:
        return GateStatus.NOT_ASKED
    if not version.gate["passed"]:
        return GateStatus.REFUSED
    return GateStatus.PASSED if version.gate["judged"] else GateStatus.NOT_JUDGED


def in_use(workspace: Workspace, version: ModelVersion) -> bool:
    """Whether a version is the one of its kind that is in use."""
    promotions = workspace.catalogue.models.promotions(ModelKind(version.kind))
    return bool(promotions) and promotions[-1].model_version_id == version.id


def promote(
    workspace: Workspace, name: str, actor: str, *, why: str | None = None, force: bool = False
) -> PromotionChange:
    """Bring a version into use.

    One that passed the gate, or that was in use before, needs no force. Another does, and a reason.

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
    entitled = _entitled(workspace, version)
    if entitled is None and not force:
        raise InputError(
            f"{_why_not(version)}: add --force --why 'TEXT' to bring it into use all the same"
        )
    forced, why = entitled is None, why or entitled or ""
    changed = models.promote(version.name, actor, why, forced=forced)
    return PromotionChange(version, before, changed, forced, why)


def rollback(
    workspace: Workspace,
    actor: str,
    *,
    why: str | None = None,
    kind: ModelKind = ModelKind.SEGMENTATION,
) -> PromotionChange:
    """Bring back the version that was in use before the present one.

    Coming back to a version forgets what came into use after it: after fedd-1, fedd-2, fedd-3 one
    rollback gives fedd-2, the next one fedd-1, and a third is refused. Never back and forth.

    Raises:
        NotFoundError: no version of the kind is in use.
        InputError, WorkspaceError: there was none before, or as in `promote`.
    """
    current = workspace.catalogue.models.current(kind)
    chain = _chain(workspace, kind)
    if len(chain) < 2:
        raise InputError(
            f"no version was in use before {current.name}: 'ddiseg models list' shows all, and "
            "'ddiseg models promote NAME' brings one into use"
        )
    version = chain[-2]
    check_usable(workspace, version)
    given = f": {' '.join(why.split())}" if why and why.strip() else ""
    said = f"rolled back from {current.name}{given}"
    changed = workspace.catalogue.models.promote(version.name, actor, said, forced=False)
    return PromotionChange(version, current, changed, forced=False, why=said)


def check_usable(workspace: Workspace, version: ModelVersion) -> None:
    """Raise InputError or WorkspaceError where a version can't paint here, whoever wants it to."""
    # Only this needs PyTorch: lists, cards and comparisons do without.
    from ddiseg.model.malignancy import load_classifier_version
    from ddiseg.model.storage import load_version

    anew = f"train anew with '{refresh_command(version)}'"
    protocol = load_protocol()
    if not protocol.has_classes_of(version.protocol_version):
        raise InputError(
            f"{version.name} learned the classes of protocol {version.protocol_version}, and this is "
            f"protocol {protocol.version}: it can't come into use, not by force either; {anew}"
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
            f"the backbone of {version.name} can't be used ({error}): put the one that it was "
            f"trained with back in its place, or {anew}"
        ) from error


def refresh_command(version: ModelVersion) -> str:
    """What trains a new version of the same kind."""
    return "ddiseg refresh" + (" --malignancy" if version.kind == ModelKind.MALIGNANCY else "")


def diff(workspace: Workspace, first: str, second: str) -> VersionDifference:
    """How two versions differ in settings, in what they learned from, and in what was measured.

    Raises NotFoundError for an unknown name, InputError where they are of two kinds.
    """
    a, b = (workspace.catalogue.models.get(name) for name in (first, second))
    if a.kind != b.kind:
        raise InputError(
            f"{a.name} is for {a.kind} and {b.name} for {b.kind}: compare two versions of one kind"
        )
    facts = _facts(a), _facts(b)
    tones = _tones(workspace, ModelKind(a.kind))
    learned = Counter(learned_from(a)), Counter(learned_from(b))
    return VersionDifference(
        names=(a.name, b.name),
        settings={
            key: (facts[0].get(key), facts[1].get(key))
            for key in dict.fromkeys([*facts[0], *facts[1]])
            if facts[0].get(key) != facts[1].get(key)
        },
        in_both=_by_tone(learned[0] & learned[1], tones),
        only=(_by_tone(learned[0] - learned[1], tones), _by_tone(learned[1] - learned[0], tones)),
        figures=_figures(workspace, a, b),
    )


def learned_from(version: ModelVersion) -> Sequence[str]:
    """Content hashes of the masks that a version learned from; of images, for a classifier."""
    if version.kind == ModelKind.MALIGNANCY:
        return list(version.training_images)
    return version.training_masks


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level: {"features": {"timestep": 50}} as {"features.timestep": 50}."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _chain(workspace: Workspace, kind: ModelKind) -> list[ModelVersion]:
    """The version in use, last, after those that a rollback may go back to, nearest last."""
    versions = {version.id: version for version in workspace.catalogue.models.all(kind)}
    chain: list[int] = []
    for promotion in workspace.catalogue.models.promotions(kind):
        if promotion.model_version_id in chain:
            del chain[chain.index(promotion.model_version_id) :]
        chain.append(promotion.model_version_id)
    return [versions[version_id] for version_id in chain]


def _entitled(workspace: Workspace, version: ModelVersion) -> str | None:
    """Why a version may come into use without force; None where it may not."""
    promotions = workspace.catalogue.models.promotions(ModelKind(version.kind))
    if any(promotion.model_version_id == version.id for promotion in promotions):
        return "it was in use before"
    return "the gate passed it" if gate_status(version) is GateStatus.PASSED else None


def _why_not(version: ModelVersion) -> str:
    if version.gate is None:
        return f"{version.name} was never judged by the gate"
    refused = gate_status(version) is GateStatus.REFUSED
    said = "was refused by the gate" if refused else "was not judged by the gate"
    return f"{version.name} {said} ({version.gate['reasons'][0]})"


def _facts(version: ModelVersion) -> dict[str, Any]:
    """All that decided what a version came to be, besides what it learned from."""
    return {
        "protocol_version": version.protocol_version,
        "backbone": version.backbone,
        "backbone_hash": version.backbone_hash,
        **flattened(version.settings),
        "went_on_from": version.metrics.get("went_on_from"),
        "absent_classes": version.metrics.get("absent_classes"),
    }


def _tones(workspace: Workspace, kind: ModelKind) -> dict[str, str]:
    """The tone that goes with each content hash; unknown where one stands for several tones."""
    images = {image.id: image for image in workspace.catalogue.images.select()}
    if kind is ModelKind.MALIGNANCY:
        return {image.content_hash: image.tone for image in images.values()}
    tones: dict[str, str] = {}
    for mask in workspace.catalogue.masks.all():
        tone = images[mask.image_id].tone
        if tones.setdefault(mask.content_hash, tone) != tone:
            tones[mask.content_hash] = "unknown"
    return tones


def _by_tone(learned: Counter[str], tones: Mapping[str, str]) -> dict[str, int]:
    counts = Counter(tones.get(digest, "unknown") for digest in learned.elements())
    return {tone.name: counts[tone.name] for tone in load_protocol().tones if counts[tone.name]}


def _figures(workspace: Workspace, a: ModelVersion, b: ModelVersion) -> dict[str, Table]:
    """What was measured of both, side by side; where the gate compared them, its difference too."""
    tables = {version.name: measured(workspace, version) for version in (a, b)}
    keys = dict.fromkeys(key for of_version in tables.values() for key in of_version)
    found = {
        key: beside({name: of[key] for name, of in tables.items() if key in of}) for key in keys
    }
    found["held_out"] = _judged_together(a, b) or found.get("held_out")
    return {key: table for key, table in found.items() if table is not None}


def _judged_together(a: ModelVersion, b: ModelVersion) -> Table | None:
    """The gate's own table, on the same images, where it compared one of the two with the other."""
    for version, other in ((b, a), (a, b)):
        table = held_out(version)
        if table is not None and table["paired"] and table["columns"][1] == other.name:
            return table
    return None
