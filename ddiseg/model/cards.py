"""Model cards: intended use, training data, metrics and limits of a model version.

The sections are those of Mitchell et al., "Model Cards for Model Reporting", FAT* 2019. A card is
made from the catalogue on demand, as JSON and as Markdown of that JSON. It does not name the people
who worked on the model, so that it can be published with a release.
"""

from __future__ import annotations

import contextlib
import hashlib
import html
import json
import os
import shlex
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path, PurePath
from typing import Any

from annotation_protocol import load_protocol
from annotation_protocol.estimates import Estimate, sample_size
from ddiseg.catalogue import ModelKind
from ddiseg.catalogue.malignancy import DISCLAIMER
from ddiseg.catalogue.tables import ModelVersion
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.model.performance import (
    LEGEND,
    LESION,
    PerformanceTable,
    lookup,
    performance_tables,
    row_texts,
    tones_text,
)
from ddiseg.model.registry import (
    GateStatus,
    flattened,
    gate_status,
    in_use,
    learned_from,
    refresh_command,
)
from ddiseg.model.styles import style_text
from ddiseg.outcomes import FileOutcome, Outcome
from ddiseg.sampling.leaks import leaked_since
from ddiseg.workspace.workspace import Workspace
from fedd.weights.names import (
    JOIN,
    OPENAI,
    OURS,
    ROUNDED,
    SHIPPED,
    is_named,
    part_names,
    weights_origin,
)

#: Identifies the file as a card, which a newer card may replace.
FORMAT = "ddiseg model card 1"

_PURPOSE = {
    ModelKind.SEGMENTATION: "Pre-annotation: it drafts masks of clinical photographs for people who "
    "correct every one of them, by the annotation protocol.",
    ModelKind.MALIGNANCY: "Research on how well malignancy can be told from photographs of each "
    f"tone group: {DISCLAIMER}.",
}
_NOT_FOR = (
    "Not a medical device. Not for diagnosis, triage or any decision about a patient, and not for "
    "masks that nobody checks."
)

#: Credits and known weaknesses of backbones, by name, or by whose weights they have.
_BACKBONES = {
    SHIPPED: "The backbone 'small' (weights CC BY 4.0) learned from 317 photographs of PAD-UFES-20 "
    "(Pacheco et al., Data in Brief 32, 2020, CC BY 4.0: credit them) and from rendered phantoms. "
    "Most of the photographs show light skin, so its features are least tested on dark skin.",
    "lite0": "The backbone 'lite0' is EfficientNet-Lite0 (Apache-2.0; Tan and Le, 2019: credit them). It "
    "learned from ImageNet, not from skin.",
    OPENAI: "The backbone 'imagenet-256' is OpenAI's unconditional guided-diffusion model "
    "(MIT licence; Dhariwal and Nichol, 2021: credit them). It learned from ImageNet, not from skin.",
}
_BACKBONES[ROUNDED] = _BACKBONES[OPENAI]

#: A tone with fewer training images is named as a limit.
_FEW_LEARNED = 5

_GATE_KEPT = ("compared_with", "tolerance", "reasons", "held_out")
_GATE_LIMITS = {
    GateStatus.REFUSED: "The gate refused it",
    GateStatus.NOT_EVALUATED: "The gate had too little to compare",
}


def model_card(workspace: Workspace, version: ModelVersion) -> dict[str, Any]:
    """Return the card of a version as JSON; the same catalogue gives the same card."""
    promotions = [
        {"at": p.created_at, "why": p.why, "forced": p.forced}
        for p in workspace.catalogue.models.promotions(ModelKind(version.kind))
        if p.model_version_id == version.id
    ]
    metrics = performance_tables(workspace, version)
    gate = version.gate or {}
    return {
        "card": FORMAT,
        "details": {
            "name": version.name,
            "kind": version.kind,
            "trained_at": version.created_at,
            "training_seconds": version.metrics.get("seconds"),
            "went_on_from": version.metrics.get("went_on_from"),
            "protocol_version": version.protocol_version,
            "backbone": _backbone_name(version),
            "backbone_hash": version.backbone_hash,
            "weights": _origin(version),
            "precision": version.metrics.get("precision", "float32"),
            "file_hash": version.file_hash,
            "in_use": in_use(workspace, version),
            "came_into_use": promotions,
        },
        "intended_use": {"for": _PURPOSE[ModelKind(version.kind)], "not_for": _NOT_FOR},
        "data": {
            "learned_from": _learned_what(version),
            "n": len(learned_from(version)),
            "by_tone": version.metrics.get("by_tone", {}),
            "digest": digest(learned_from(version)),
        },
        "metrics": metrics,
        "calibration": _calibration(version),
        "decision": version.metrics.get("own_masks"),
        "gate": {
            "said": gate_status(version).value,
            **{key: gate.get(key) for key in _GATE_KEPT},
            "intervals": gate.get("intervals", gate.get("bootstrap")),
        },
        "limits": _limits(workspace, version, metrics),
        "reproduce": {
            "command": f"{refresh_command(version)} --backbone {shlex.quote(_backbone_name(version))} "
            f"--seed {version.settings.get('seed', 0)}",
            "settings": flattened(version.settings),
        },
    }


def digest(hashes: Iterable[str]) -> str:
    """Return the SHA-256 of content hashes, sorted, one a line: it identifies a training set."""
    return hashlib.sha256("".join(f"{each}\n" for each in sorted(hashes)).encode()).hexdigest()


def markdown(card: Mapping[str, Any]) -> str:
    """Return a card as Markdown."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["plain"] = _plain
    environment.filters["tones"] = tones_text
    environment.filters["estimate"] = _estimate
    template = resources.files("ddiseg.model").joinpath("card.md.jinja").read_text("utf-8")
    return environment.from_string(template).render(card=card, legend=LEGEND, row_texts=row_texts)


def write_card(card: Mapping[str, Any], target: Path) -> list[FileOutcome]:
    """Write a card to a .md or .json file, or both into a folder; an earlier card is replaced.

    Raises:
        InputError: another ending, or a file that is not a card would be replaced.
        WorkspaceError: nothing can be written.
    """
    name = card["details"]["name"]
    if target.is_dir() or not target.suffix:
        paths = [target / f"{name}.md", target / f"{name}.json"]
    elif target.suffix in (".md", ".json"):
        paths = [target]
    else:
        raise InputError(f"{target}: a card is a .md or a .json file; or give a folder for both")
    texts = {
        ".md": lambda: markdown(card),
        ".json": lambda: json.dumps(card, indent=1, ensure_ascii=False) + "\n",
    }
    contents = [(path, texts[path.suffix]().encode()) for path in paths]
    try:
        for path in paths:
            _refuse_others(path)
        return [FileOutcome(str(path), _write(path, data)) for path, data in contents]
    except OSError as error:
        raise WorkspaceError(
            f"{error.filename or target}: {error.strerror or error}; no card was written: free some "
            "space, make the folder writable or give another name, then run the same command again"
        ) from error


def _calibration(version: ModelVersion) -> dict[str, Any] | None:
    if version.kind != ModelKind.SEGMENTATION:
        return None
    training = version.training
    of_split = training.validation.calibration if training.validation else None
    return training.calibration or of_split


def _learned_what(version: ModelVersion) -> str:
    if version.kind == ModelKind.MALIGNANCY:
        return "images of known malignancy"
    return "masks, each accepted by a second person"


def _backbone_name(version: ModelVersion) -> str:
    """Return the name of a backbone, its parts without the folders of their files."""
    return JOIN.join(
        part if is_named(part) else PurePath(part).name for part in part_names(version.backbone)
    )


def _origin(version: ModelVersion) -> str:
    """Return whose weights the backbone has; 'small' always came with the program, maybe an older one."""
    return OURS if version.backbone == SHIPPED else weights_origin(version.backbone_hash)


def _credits(version: ModelVersion) -> list[str]:
    """Return the credits and weaknesses of a backbone, of a composite those of each part."""
    parts = part_names(version.backbone)
    unknown = "is not part of this program: ask its makers for its licence and its training data."
    if len(parts) == 1:
        key = version.backbone if version.backbone in _BACKBONES else _origin(version)
        return [_BACKBONES.get(key, f"The backbone {unknown}")]
    return [
        _BACKBONES.get(part, f"The backbone's part {PurePath(part).name} {unknown}")
        for part in parts
    ]


def _limits(
    workspace: Workspace, version: ModelVersion, metrics: Mapping[str, PerformanceTable]
) -> list[str]:
    """Return the limits of a version, a sentence each."""
    found = []
    if absent := version.metrics.get("absent_classes"):
        found.append(
            f"It never predicts {', '.join(absent)}: its training masks show no, or almost no, pixels "
            "of that."
        )
    found += [line for tone in load_protocol().tones if (line := _tone_limit(version, tone.name))]
    if version.kind == ModelKind.SEGMENTATION:
        found += _unmeasured_tones(metrics)
    found += _leaked(workspace, version)
    found += [_sentence(note) for note in version.metrics.get("notes", ())]
    styles = version.metrics.get("styles", ())
    found += [_sentence(style_text(style, "one annotator")) for style in styles]
    status = gate_status(version)
    if status in _GATE_LIMITS:
        found.append(f"{_GATE_LIMITS[status]}: {(version.gate or {})['reasons'][0]}.")
    elif version.kind == ModelKind.SEGMENTATION and status is GateStatus.NOT_RUN:
        found.append("No gate compared it with an earlier version: there was no hold-out set.")
    return found + _credits(version)


def _leaked(workspace: Workspace, version: ModelVersion) -> list[str]:
    """Return a sentence where ids corrected after the training joined its images with its tests."""
    leaked = leaked_since(workspace.catalogue, version)
    parts = {
        "hold-out set": leaked.holdout,
        "validation split": leaked.validation,
        "last evaluation": leaked.evaluation,
    }
    if not any(parts.values()):
        return []
    counts = ", ".join(f"{n} of its {name}" for name, n in parts.items() if n)
    return [
        "Ids that were corrected after it was trained show that images of its tests share a group "
        f"(patient, lesion, near-duplicates) with images that it learned from ({counts}): its estimates "
        "there are too optimistic."
    ]


def _tone_limit(version: ModelVersion, tone: str) -> str | None:
    n = version.metrics.get("by_tone", {}).get(tone, 0)
    if tone == "unknown":
        return f"The tone of {n} of its training masks or images is not known." if n else None
    if n >= _FEW_LEARNED:
        return None
    return f"It learned from {'nothing' if not n else f'only n = {n}'} of tone {tone}."


def _unmeasured_tones(metrics: Mapping[str, PerformanceTable]) -> list[str]:
    """Return a sentence on the tones without an interval of lesion IoU, if there are any."""
    missing = []
    for tone in (t.name for t in load_protocol().tones if t.name != "unknown"):
        found = [lookup(table, tone, LESION)[0] for table in metrics.values()]
        estimates = [Estimate.from_json(each) for each in found if each]
        if all(estimate.interval is None for estimate in estimates):
            largest = max(estimates, key=lambda each: each.n, default=Estimate())
            missing.append(f"{tone} ({sample_size(largest.n, largest.groups)})")
    if not missing:
        return []
    return [
        f"There are too few test patients for an interval of lesion IoU on tone {', '.join(missing)}."
    ]


def _sentence(note: str) -> str:
    return note[:1].upper() + note[1:].rstrip(".") + "."


def _estimate(stored: Mapping[str, Any], form: str = ".3f") -> str:
    return Estimate.from_json(stored).sized(form)


def _plain(text: str) -> str:
    """Return text that a person typed, escaped for Markdown."""
    return html.escape(" ".join(str(text).split()), quote=False).replace("|", "&#124;")


def _refuse_others(path: Path) -> None:
    """Raise InputError where `path` is a file other than a card."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        head = file.read(200)
    if FORMAT.encode() not in head:
        raise InputError(
            f"{path} is not a model card, so it is not replaced: give another name or move it away"
        )


def _write(path: Path, data: bytes) -> Outcome:
    existed = path.exists()
    if existed and path.read_bytes() == data:
        return Outcome.UNCHANGED
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.part-{os.getpid()}"
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return Outcome.REPAIRED if existed else Outcome.ADDED
