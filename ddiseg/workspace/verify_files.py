"""Check of stored files against the rows that name them, on several threads."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from itertools import islice
from typing import Any

from ddiseg import masks
from ddiseg.catalogue.stored_rows import MaskRow, ModelRow, TruthRow
from ddiseg.catalogue.tables import Image
from ddiseg.errors import DdisegError, InputError, OccupiedError, StoreError
from ddiseg.outcomes import Progress, worker_threads
from ddiseg.sampling.leaks import Leak
from ddiseg.workspace.store import Kind
from ddiseg.workspace.stored_files import decode_mask, decode_photograph
from ddiseg.workspace.verify_progress import VerifyProgress, number_of
from ddiseg.workspace.workspace import Workspace

#: Files that a thread checks one after the other: handing over each alone would take as long as a small mask.
_AT_ONCE = 16

#: Threads that wait for an object store; of a disk, one for each core.
_WAITING = 16


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
class _Unit:
    """The check of one file."""

    part: Part
    order: tuple[int, ...]  #: problems of a part are told in this order
    number: int  #: see `number_of`
    check: Callable[[], None]


@dataclass
class FileCheck:
    """The check of all files of a workspace."""

    workspace: Workspace
    kept: VerifyProgress
    skipped: int = 0  #: files that a stopped check has found whole
    _found: list[tuple[tuple[int, ...], Problem]] = field(default_factory=list)

    def problems(self, total: int, progress: Progress) -> list[Problem]:
        """Check `total` files; return what is wrong, by part and in the order of the catalogue."""
        done = 0
        workers = min(8, os.cpu_count() or 1) if self.workspace.store.local else _WAITING
        with worker_threads(workers) as pool:
            for units, results in _run(pool, self._left(), ahead=2 * workers):
                whole = [u.number for u, wrong in zip(units, results, strict=True) if wrong is None]
                self.kept.add(whole)
                for unit, wrong in zip(units, results, strict=True):
                    done += 1
                    progress(min(done + self.skipped, total), total)
                    if wrong is not None:
                        problem = Problem(unit.part, str(wrong), getattr(wrong, "file", None))
                        self._found.append((unit.order, problem))
        return [problem for _, problem in sorted(self._found, key=lambda found: found[0])]

    def _left(self) -> Iterator[_Unit]:
        """Yield the checks that were not done yet."""
        for unit in self._units():
            if unit.number in self.kept:
                self.skipped += 1
            else:
                yield unit

    def _units(self) -> Iterator[_Unit]:
        stored, workspace = self.workspace.catalogue.stored_rows, self.workspace
        for image in stored.images():
            facts = image.id, image.content_hash, image.width, image.height, image.in_place
            check = partial(_check_image, workspace, image)
            yield _unit(Part.IMAGE, (0, image.id), facts, check)
        for rows in stored.masks():
            yield _unit(Part.MASK, (1, rows[0].id), rows, partial(_check_mask, workspace, rows))
        for compared in stored.truths():
            first = compared[0]
            check = partial(_check_truth, workspace, compared)
            yield _unit(Part.TRUTH, (2, first.event_id, first.image_id), compared, check)
        for place, model in enumerate(stored.models()):
            yield _unit(Part.MODEL, (3, place), model, partial(_check_model, workspace, model))


def _unit(part: Part, order: tuple[int, ...], facts: Any, check: Callable[[], None]) -> _Unit:
    return _Unit(part, order, number_of(part.value, facts), check)


def _run(
    pool: ThreadPoolExecutor, units: Iterator[_Unit], ahead: int
) -> Iterator[tuple[Sequence[_Unit], list[DdisegError | None]]]:
    """Yield what each check of a few files found, a few of them ahead of their turn."""
    waiting: deque[tuple[Sequence[_Unit], Future[list[DdisegError | None]]]] = deque()
    while few := tuple(islice(units, _AT_ONCE)):
        waiting.append((few, pool.submit(_check_all, few)))
        if len(waiting) > ahead:
            done, future = waiting.popleft()
            yield done, future.result()
    for done, future in waiting:
        yield done, future.result()


def _check_all(units: Sequence[_Unit]) -> list[DdisegError | None]:
    """Return what is wrong with each file, None where it is whole."""
    return [_wrong(unit) for unit in units]


def _wrong(unit: _Unit) -> DdisegError | None:
    try:
        unit.check()
    except DdisegError as error:
        if isinstance(error, StoreError):
            raise  # that the store can't be asked says nothing of its files
        return error
    return None


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


def _check_mask(workspace: Workspace, rows: Sequence[MaskRow]) -> None:
    """Check a mask file and all rows that share it."""
    drawn = ", ".join(f"{row.image_name} by {row.author}" for row in rows)
    remedy = "restore it from a backup, or import or predict it again"
    file = BadFile(Kind.MASK, rows[0].content_hash, tuple(row.image_id for row in rows))
    mask = _stored_mask(workspace, file, f"mask of {drawn}", remedy)
    unlabelled = masks.count_unlabelled(mask)
    for row in rows:
        name = f"mask of {row.image_name} by {row.author}"
        if row.unlabelled != unlabelled:
            raise InputError(
                f"{name}: the catalogue says {row.unlabelled} unlabelled pixels, the file has "
                f"{unlabelled}; restore the catalogue from a backup"
            )
        _check_size(name, (row.height, row.width), mask.shape)
        if row.mapping == "same":
            _check_size(f"image of the {name}", (row.image_height, row.image_width), mask.shape)


def _check_truth(workspace: Workspace, rows: Sequence[TruthRow]) -> None:
    """Check the file of a true mask and all comparisons that share it."""
    by_image = {row.image_id: row for row in rows}
    shown = [by_image[image_id] for image_id in sorted(by_image)]
    name = f"true mask of {', '.join(row.image_name for row in shown)}"
    remedy = (
        "restore the file from a backup; 'ddiseg evaluate' with the same masks writes it where it is "
        "missing"
    )
    file = BadFile(Kind.MASK, rows[0].truth_hash, tuple(row.image_id for row in shown))
    mask = _stored_mask(workspace, file, name, remedy)
    for row in shown:
        _check_size(f"image of the {name}", (row.image_height, row.image_width), mask.shape)


def _stored_mask(workspace: Workspace, file: BadFile, name: str, remedy: str) -> masks.Mask:
    data = _stored(workspace, file, name, remedy)
    try:
        return decode_mask(data, file.digest)
    except InputError as error:
        raise _BadFileError(f"{name}: the stored file {error}; {remedy}", file) from error


def _check_model(workspace: Workspace, model: ModelRow) -> None:
    name, remedy = f"model {model.name}", "restore it from a backup, or run 'ddiseg refresh'"
    file = BadFile(Kind.MODEL, model.file_hash)
    data = _stored(workspace, file, name, remedy)
    if hashlib.sha256(data).hexdigest() != model.file_hash:
        raise _BadFileError(f"{name}: the stored file was changed; {remedy}", file)


def _stored(workspace: Workspace, file: BadFile, name: str, remedy: str) -> bytes:
    store = workspace.store
    try:
        data = store.get(file.kind, file.digest, fresh=True)
    except OccupiedError as error:
        raise InputError(f"{name}: {error}") from error
    except StoreError:
        raise
    except DdisegError as error:
        if store.exists(file.kind, file.digest):
            raise
        missing = f"{name}: {store.path(file.kind, file.digest)} is missing; {remedy}"
        raise _BadFileError(missing, file) from error
    if not data:
        raise _BadFileError(f"{name}: the stored file is empty; {remedy}", file)
    return data


def _check_size(name: str, catalogued: tuple[int, int], found: Sequence[int]) -> None:
    if catalogued != tuple(found[:2]):
        raise InputError(
            f"{name}: the catalogue says {catalogued[1]} x {catalogued[0]} pixels, the file has "
            f"{found[1]} x {found[0]}; restore the catalogue from a backup"
        )
