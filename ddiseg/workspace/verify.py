"""Verification of a workspace: files, rows, states against events, and sets that must share no group.

It changes nothing; `ddiseg.workspace.repair` puts back what it can.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from ddiseg import masks
from ddiseg.catalogue.tables import EvaluatedImage, Image, Mask, ModelVersion
from ddiseg.errors import DdisegError, InputError, OccupiedError
from ddiseg.outcomes import Progress, silent
from ddiseg.sampling.leaks import Leak, find_leaks
from ddiseg.workspace.access import open_to_others
from ddiseg.workspace.backup import how_to_restore
from ddiseg.workspace.pseudonyms import key_problem
from ddiseg.workspace.store import Kind
from ddiseg.workspace.stored_files import decode_mask, decode_photograph
from ddiseg.workspace.workspace import Workspace


class Part(StrEnum):
    """The part of a workspace with a problem."""

    IMAGE = "image"
    MASK = "mask"
    TRUTH = "truth"  #: true masks that an evaluation compared
    MODEL = "model"
    CATALOGUE = "catalogue"  #: rows that the store's files call for
    PSEUDONYMS = "pseudonyms"  #: the key with which releases were made
    ACCESS = "access"  #: who may read the workspace
    HISTORY = "history"  #: states of images against their events
    GROUPS = "groups"  #: hold-out set, subsets and validation splits that share a patient, say


@dataclass(frozen=True)
class BadFile:
    """A file that is missing or damaged, of the store or imported in place."""

    kind: Kind
    digest: str
    image_ids: tuple[int, ...] = ()  #: the images that it shows or belongs to


@dataclass(frozen=True)
class Problem:
    """One problem; `line` says what, where and what to do next."""

    part: Part
    line: str
    file: BadFile | None = None  #: what has to be put back, where it is a file
    leak: Leak | None = None


@dataclass(frozen=True)
class Findings:
    """Counts of what was checked, and the problems."""

    checked: dict[str, int]  #: number of images, mask files, model files
    #: Files without a row and temporary files, left by a stopped run: harmless.
    orphans: dict[str, int]
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
            problems.append(Problem(part, str(error), getattr(error, "file", None)))
        progress(done, len(checks))
    problems += [Problem(Part.HISTORY, line) for line in catalogue.events.contradictions()]
    problems += [Problem(Part.GROUPS, leak.line, leak=leak) for leak in find_leaks(catalogue)]

    if problem := key_problem(workspace):
        problems.append(Problem(Part.PSEUDONYMS, problem))

    known = {
        Kind.IMAGE: {image.content_hash for image in photographs.values()},
        Kind.MASK: mask_rows.keys() | truths.keys(),
        Kind.MODEL: {model.file_hash for model in models},
    }
    problems += [
        Problem(Part.ACCESS, f"{place} is open to other users of this machine; {_CLOSE}")
        for place in open_to_others(workspace.places)
    ]
    orphans = {
        kind.value: len(workspace.store.digests(kind) - digests) for kind, digests in known.items()
    }
    orphans["temporary"] = workspace.store.count_temporary()
    if not photographs and (orphans["images"] > _MOST_LEFT_BY_IMPORT or orphans["masks"]):
        problems.append(Problem(Part.CATALOGUE, _emptied(workspace, orphans)))
    return Findings(
        checked={kind.value: len(digests) for kind, digests in known.items()},
        orphans=orphans,
        problems=problems,
    )


_CLOSE = "'ddiseg init' or 'ddiseg verify --repair' closes it"

#: Photographs that a killed import may leave in the store without a row: two batches.
_MOST_LEFT_BY_IMPORT = 128


def _emptied(workspace: Workspace, orphans: Mapping[str, int]) -> str:
    return (
        f"the catalogue names no image, and the store has {orphans['images']} images and "
        f"{orphans['masks']} masks: it is not the catalogue of this workspace; "
        f"{how_to_restore(workspace.root)}"
    )


class _BadFileError(InputError):
    """A problem with a file."""

    def __init__(self, message: str, file: BadFile) -> None:
        super().__init__(message)
        self.file = file


def _check_image(workspace: Workspace, image: Image) -> None:
    name = f"{image.name} (#{image.id})"
    file = BadFile(Kind.IMAGE, image.content_hash, (image.id,))
    if image.in_place is None:
        remedy = "import the original again"
        data = _stored(workspace, file, name, remedy)
        try:
            pixels = decode_photograph(data, image.content_hash)
        except InputError as error:
            raise _BadFileError(f"{name}: the stored file {error}; {remedy}", file) from error
    else:
        try:
            pixels = workspace.photograph(image)
        except DdisegError as error:
            raise _BadFileError(f"{error}; put the file back as it was", file) from error
    _check_size(name, (image.height, image.width), pixels.shape)


def _check_mask(
    workspace: Workspace, rows: Sequence[Mask], photographs: Mapping[int, Image]
) -> None:
    """Check a mask file and all rows that share it."""
    drawn = ", ".join(f"{photographs[r.image_id].name} by {_author(r)}" for r in rows)
    remedy = "restore it from a backup, or import or predict it again"
    file = BadFile(Kind.MASK, rows[0].content_hash, tuple(row.image_id for row in rows))
    mask = _stored_mask(workspace, file, f"mask of {drawn}", remedy)
    unlabelled = masks.count_unlabelled(mask)
    for row in rows:
        image = photographs[row.image_id]
        if row.unlabelled != unlabelled:
            raise InputError(
                f"mask of {image.name} by {_author(row)}: the catalogue says {row.unlabelled} "
                f"unlabelled pixels, the file has {unlabelled}; restore the catalogue from a backup"
            )
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
    file = BadFile(Kind.MASK, rows[0].truth_hash, tuple(image.id for image in shown))
    mask = _stored_mask(workspace, file, name, remedy)
    for image in shown:
        _check_size(f"image of the {name}", (image.height, image.width), mask.shape)


def _stored_mask(workspace: Workspace, file: BadFile, name: str, remedy: str) -> masks.Mask:
    data = _stored(workspace, file, name, remedy)
    try:
        return decode_mask(data, file.digest)
    except InputError as error:
        raise _BadFileError(f"{name}: the stored file {error}; {remedy}", file) from error


def _check_model(workspace: Workspace, model: ModelVersion) -> None:
    name, remedy = f"model {model.name}", "restore it from a backup, or run 'ddiseg refresh'"
    file = BadFile(Kind.MODEL, model.file_hash)
    data = _stored(workspace, file, name, remedy)
    if hashlib.sha256(data).hexdigest() != model.file_hash:
        raise _BadFileError(f"{name}: the stored file was changed; {remedy}", file)


def _stored(workspace: Workspace, file: BadFile, name: str, remedy: str) -> bytes:
    try:
        exists = workspace.store.exists(file.kind, file.digest)
    except OccupiedError as error:
        raise InputError(f"{name}: {error}") from error
    if not exists and not _is_empty(workspace, file):
        path = workspace.store.path(file.kind, file.digest)
        raise _BadFileError(f"{name}: {path} is missing; {remedy}", file)
    data = workspace.store.get(file.kind, file.digest)
    if not data:
        raise _BadFileError(f"{name}: the stored file is empty; {remedy}", file)
    return data


def _is_empty(workspace: Workspace, file: BadFile) -> bool:
    try:
        return not workspace.store.get(file.kind, file.digest)
    except DdisegError:
        return False


def _check_size(name: str, catalogued: tuple[int, int], found: Sequence[int]) -> None:
    if catalogued != tuple(found[:2]):
        raise InputError(
            f"{name}: the catalogue says {catalogued[1]} x {catalogued[0]} pixels, the file has "
            f"{found[1]} x {found[0]}; restore the catalogue from a backup"
        )


def _author(mask: Mask) -> str:
    return mask.annotator or f"model #{mask.model_version_id}"
