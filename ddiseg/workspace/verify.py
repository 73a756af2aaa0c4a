"""Verification of a workspace: files against hashes, rows against files, states against events."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from annotation_protocol import load_protocol
from ddiseg import images, masks
from ddiseg.catalogue.tables import EvaluatedImage, Image, Mask, ModelVersion
from ddiseg.errors import DdisegError, InputError
from ddiseg.outcomes import Progress, silent
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace


class Part(StrEnum):
    """The part of a workspace with a problem."""

    IMAGE = "image"
    MASK = "mask"
    TRUTH = "truth"  #: true masks that an evaluation compared
    MODEL = "model"
    HISTORY = "history"  #: states of images against their events


@dataclass(frozen=True)
class Problem:
    """One problem; `line` says what, where and what to do next."""

    part: Part
    line: str


@dataclass(frozen=True)
class Findings:
    """Counts of what was checked, and the problems."""

    checked: dict[str, int]  #: number of images, mask files, model files
    orphans: dict[str, int]  #: files without a row, from a stopped run: harmless
    problems: list[Problem]


def verify(workspace: Workspace, progress: Progress = silent) -> Findings:
    """Read every file of a workspace once and compare it with the catalogue; changes nothing."""
    catalogue = workspace.catalogue
    photographs = {image.id: image for image in catalogue.images.select()}
    models = catalogue.models.all()
    mask_rows: dict[str, list[Mask]] = defaultdict(list)
    for row in catalogue.masks.all():
        mask_rows[row.content_hash].append(row)

    truths: dict[str, list[EvaluatedImage]] = defaultdict(list)
    for compared in catalogue.evaluations.all_compared():
        truths[compared.truth_hash].append(compared)

    checks: list[tuple[Part, Callable[[], None]]] = [
        *((Part.IMAGE, partial(_check_image, workspace, i)) for i in photographs.values()),
        *(
            (Part.MASK, partial(_check_mask, workspace, rows, photographs))
            for rows in mask_rows.values()
        ),
        *(
            (Part.TRUTH, partial(_check_truth, workspace, rows, photographs))
            for digest, rows in truths.items()
            if digest not in mask_rows  # else the file was checked as a mask
        ),
        *((Part.MODEL, partial(_check_model, workspace, model)) for model in models),
    ]
    problems = []
    for done, (part, check) in enumerate(checks, 1):
        try:
            check()
        except DdisegError as error:
            problems.append(Problem(part, str(error)))
        progress(done, len(checks))
    problems += [Problem(Part.HISTORY, line) for line in catalogue.events.contradictions()]

    known = {
        Kind.IMAGE: {image.content_hash for image in photographs.values()},
        Kind.MASK: mask_rows.keys() | truths.keys(),
        Kind.MODEL: {model.file_hash for model in models},
    }
    return Findings(
        checked={kind.value: len(digests) for kind, digests in known.items()},
        orphans={
            kind.value: len(workspace.store.digests(kind) - digests)
            for kind, digests in known.items()
        },
        problems=problems,
    )


def _check_image(workspace: Workspace, image: Image) -> None:
    name = f"{image.name} (#{image.id})"
    if image.in_place is None:
        remedy = "import the original again"
        data = _stored(workspace, Kind.IMAGE, image.content_hash, name, remedy)
        try:
            pixels = images.open_photograph(data).pixels
        except InputError as error:
            raise InputError(f"{name}: the stored file is {error}; {remedy}") from error
        if images.content_hash(pixels) != image.content_hash:
            raise InputError(f"{name}: the stored file shows other pixels; {remedy}")
    else:
        try:
            pixels = workspace.photograph(image)
        except DdisegError as error:
            raise InputError(f"{error}; put the file back as it was") from error
    _check_size(name, (image.height, image.width), pixels.shape)


def _check_mask(
    workspace: Workspace, rows: Sequence[Mask], photographs: Mapping[int, Image]
) -> None:
    """Check a mask file and all rows that share it."""
    drawn = ", ".join(f"{photographs[r.image_id].name} by {_author(r)}" for r in rows)
    remedy = "restore it from a backup, or import or predict it again"
    mask = _stored_mask(workspace, rows[0].content_hash, f"mask of {drawn}", remedy)
    for row in rows:
        image = photographs[row.image_id]
        row_name = f"mask of {image.name} by {_author(row)}"
        _check_size(row_name, (row.height, row.width), mask.shape)
        if row.mapping == "same":
            _check_size(f"image of the {row_name}", (image.height, image.width), mask.shape)


def _check_truth(
    workspace: Workspace, rows: Sequence[EvaluatedImage], photographs: Mapping[int, Image]
) -> None:
    """Check the file of a true mask and all comparisons that share it."""
    shown = [photographs[image_id] for image_id in sorted({row.image_id for row in rows})]
    name = f"true mask of {', '.join(image.name for image in shown)}"
    remedy = (
        "restore the file from a backup; 'ddiseg evaluate' with the same masks writes it where it is "
        "missing"
    )
    mask = _stored_mask(workspace, rows[0].truth_hash, name, remedy)
    for image in shown:
        _check_size(f"image of the {name}", (image.height, image.width), mask.shape)


def _stored_mask(workspace: Workspace, digest: str, name: str, remedy: str) -> masks.Mask:
    data = _stored(workspace, Kind.MASK, digest, name, remedy)
    try:
        mask = masks.check_mask(masks.decode_png(data), len(load_protocol().classes))
    except InputError as error:
        raise InputError(f"{name}: the stored {error}; {remedy}") from error
    if masks.mask_hash(mask) != digest:
        raise InputError(f"{name}: the stored file holds other pixels; {remedy}")
    return mask


def _check_model(workspace: Workspace, model: ModelVersion) -> None:
    name, remedy = f"model {model.name}", "restore it from a backup, or run 'ddiseg refresh'"
    data = _stored(workspace, Kind.MODEL, model.file_hash, name, remedy)
    if hashlib.sha256(data).hexdigest() != model.file_hash:
        raise InputError(f"{name}: the stored file was changed; {remedy}")


def _stored(workspace: Workspace, kind: Kind, digest: str, name: str, remedy: str) -> bytes:
    if not workspace.store.exists(kind, digest):
        path = workspace.store.path(kind, digest)
        raise InputError(f"{name}: {path} is missing; {remedy}")
    return workspace.store.get(kind, digest)


def _check_size(name: str, catalogued: tuple[int, int], found: Sequence[int]) -> None:
    if catalogued != tuple(found[:2]):
        raise InputError(
            f"{name}: the catalogue says {catalogued[1]} x {catalogued[0]} pixels, the file has "
            f"{found[1]} x {found[0]}; restore the catalogue from a backup"
        )


def _author(mask: Mask) -> str:
    return mask.annotator or f"model #{mask.model_version_id}"
