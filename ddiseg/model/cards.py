"""Model cards: what a version is for, what it learned from, how well it does, and where it ends.

The sections are those of Mitchell et al., "Model Cards for Model Reporting", FAT* 2019. A card is
made from the catalogue whenever it is asked for, as JSON and as Markdown of that JSON. It does not
name the people who worked on it, so that it may go out with a release.
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
from annotation_protocol.estimates import FEW
from ddiseg.catalogue import ModelKind
from ddiseg.catalogue.malignancy import DISCLAIMER
from ddiseg.catalogue.tables import ModelVersion
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.model.performance import LEGEND, LESION, Table, lookup, measured, row_texts, tones_text
from ddiseg.model.registry import (
    GateStatus,
    flattened,
    gate_status,
    in_use,
    learned_from,
    refresh_command,
)
from ddiseg.outcomes import FileOutcome, Outcome
from ddiseg.workspace.workspace import Workspace
from fedd.weights.names import SHIPPED, is_named

#: Says what a file is, and lets a newer card replace it.
FORMAT = "ddiseg model card 1"

_PURPOSE = {
    ModelKind.SEGMENTATION: "Pre-annotation: it paints masks of clinical photographs for people who "
    "correct every one of them, by the annotation protocol.",
    ModelKind.MALIGNANCY: "Research on how well malignancy can be told from photographs of each "
    f"tone group: {DISCLAIMER}.",
}
_NOT_FOR = (
    "Not a medical device. Not for diagnosis, triage or any decision about a patient, and not for "
    "masks that nobody looks at."
)

#: Whom to credit for a backbone, and what is known against it.
_BACKBONES = {
    SHIPPED: "The backbone 'small' (weights CC BY 4.0) learned from 317 photographs of PAD-UFES-20 "
    "(Pacheco et al., Data in Brief 32, 2020, CC BY 4.0: name them) and from rendered phantoms. The "
    "photographs are of mostly light skin, so its features are least tried on dark skin.",
    "imagenet-256": "The backbone 'imagenet-256' is OpenAI's unconditional guided-diffusion model "
    "(MIT licence; Dhariwal and Nichol, 2021: name them). It learned from ImageNet, not from skin.",
}

_GATE_KEPT = ("compared_with", "tolerance", "reasons", "held_out", "bootstrap")
_GATE_SAID = {GateStatus.REFUSED: "refused it", GateStatus.NOT_JUDGED: "could not judge it"}


def model_card(workspace: Workspace, version: ModelVersion) -> dict[str, Any]:
    """The card of a version, ready to be JSON; the same catalogue gives the same card."""
    promotions = [
        {"at": p.created_at, "why": p.why, "forced": p.forced}
        for p in workspace.catalogue.models.promotions(ModelKind(version.kind))
        if p.model_version_id == version.id
    ]
    metrics = measured(workspace, version)
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
        "calibration": (version.metrics.get("validation") or {}).get("calibration")
        if version.kind == ModelKind.SEGMENTATION
        else None,
        "gate": {
            "said": gate_status(version).value,
            **{key: (version.gate or {}).get(key) for key in _GATE_KEPT},
        },
        "limits": _limits(version, metrics),
        "reproduce": {
            "command": f"{refresh_command(version)} --backbone {shlex.quote(_backbone_name(version))} "
            f"--seed {version.settings.get('seed', 0)}",
            "settings": flattened(version.settings),
        },
    }


def digest(hashes: Iterable[str]) -> str:
    """SHA-256 of content hashes, sorted, one a line: the same for the same training set."""
    return hashlib.sha256("".join(f"{each}\n" for each in sorted(hashes)).encode()).hexdigest()


def markdown(card: Mapping[str, Any]) -> str:
    """A card as Markdown."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["plain"] = _plain
    environment.filters["tones"] = tones_text
    template = resources.files("ddiseg.model").joinpath("card.md.jinja").read_text("utf-8")
    return environment.from_string(template).render(card=card, legend=LEGEND, row_texts=row_texts)


def write_card(card: Mapping[str, Any], target: Path) -> list[FileOutcome]:
    """Write a card to a .md or .json file, or both into a folder; an earlier card is replaced.

    Raises InputError where the name says neither or another file is in the place, WorkspaceError
    where nothing can be written.
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


def _learned_what(version: ModelVersion) -> str:
    if version.kind == ModelKind.MALIGNANCY:
        return "images of known malignancy"
    return "masks, each accepted by a second person"


def _backbone_name(version: ModelVersion) -> str:
    """What a backbone is called, without the folder that it lay in."""
    return version.backbone if is_named(version.backbone) else PurePath(version.backbone).name


def _limits(version: ModelVersion, metrics: Mapping[str, Table]) -> list[str]:
    """What a person should know before they trust the version, a sentence each."""
    found = []
    if absent := version.metrics.get("absent_classes"):
        found.append(
            f"It never paints {', '.join(absent)}: its training masks show nothing, or next to "
            "nothing, of that."
        )
    found += [line for tone in load_protocol().tones if (line := _of_tone(version, tone.name))]
    if version.kind == ModelKind.SEGMENTATION:
        found += _unmeasured(metrics)
    found += [_sentence(note) for note in version.metrics.get("notes", ())]
    said = gate_status(version)
    if said in (GateStatus.REFUSED, GateStatus.NOT_JUDGED):
        found.append(f"The gate {_GATE_SAID[said]}: {(version.gate or {})['reasons'][0]}.")
    elif version.kind == ModelKind.SEGMENTATION and said is GateStatus.NOT_ASKED:
        found.append("No gate compared it with an earlier version: no mask was held out.")
    found.append(
        _BACKBONES.get(
            version.backbone,
            "The backbone is not one that this program knows: ask who made it for its licence and "
            "for what it learned from.",
        )
    )
    return found


def _of_tone(version: ModelVersion, tone: str) -> str | None:
    n = version.metrics.get("by_tone", {}).get(tone, 0)
    if tone == "unknown":
        return f"Of {n} that it learned from the tone is not known." if n else None
    if n >= FEW:
        return None
    return f"It learned from {'nothing' if not n else f'n = {n} only'} of tone {tone}."


def _unmeasured(metrics: Mapping[str, Table]) -> list[str]:
    """A sentence for each tone of which lesion IoU is not known from any test."""
    missing = []
    for tone in (t.name for t in load_protocol().tones if t.name != "unknown"):
        figures = [lookup(table, tone, LESION)[0] for table in metrics.values()]
        if all(figure is None or figure["value"] is None for figure in figures):
            n = max((figure["n"] for figure in figures if figure), default=0)
            missing.append(f"{tone} (n = {n})")
    if not missing:
        return []
    return [f"Too few test images to say how well it does on tone {', '.join(missing)}."]


def _sentence(note: str) -> str:
    return note[:1].upper() + note[1:].rstrip(".") + "."


def _plain(text: str) -> str:
    """Text that was typed by a person, so that Markdown shows it and does not obey it."""
    return html.escape(" ".join(str(text).split()), quote=False).replace("|", "&#124;")


def _refuse_others(path: Path) -> None:
    """Raise InputError where `path` is there and is no card."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        head = file.read(200)
    if FORMAT.encode() not in head:
        raise InputError(
            f"{path} is no model card, so it is not replaced: give another name or move it away"
        )


def _write(path: Path, data: bytes) -> Outcome:
    there = path.exists()
    if there and path.read_bytes() == data:
        return Outcome.UNCHANGED
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.part-{os.getpid()}"
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return Outcome.REPAIRED if there else Outcome.ADDED
