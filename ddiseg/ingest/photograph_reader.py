"""Reading of photographs for an import: opened, stripped of metadata, hashed and stored.

Nothing here needs the catalogue, so that workers of a cluster can do it too.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ddiseg import images, near_duplicates
from ddiseg.catalogue import KnownSource, NewImage
from ddiseg.compute.job import Refused
from ddiseg.errors import InputError
from ddiseg.ingest.folder import FileStatus, FoundFile, read_file
from ddiseg.outcomes import Note, one_file
from ddiseg.pixel_budget import BUDGET
from ddiseg.workspace.store import Kind, Store
from ddiseg.workspace.stored_files import Condition, condition, is_intact


@dataclass(frozen=True)
class StoredPhotograph:
    """The result of one file; without an image it is unchanged, and was not read."""

    file: FoundFile
    image: NewImage | None = None
    changes: tuple[str, ...] = ()  #: what was done to get plain pixels
    repair: Note | None = None  #: what was wrong with the stored photograph
    refusal: str | None = None


@dataclass(frozen=True)
class PhotographReader:
    """Reads photographs, and stores those that are new, or whose copy needs a repair."""

    store: Store
    in_place: bool  #: reference them where they lie, and store none

    def take(self, file: FoundFile, known: KnownSource | None) -> StoredPhotograph:
        """Read and store one photograph, unless it is known and as it was. Runs in a thread.

        Its image has no details: who knows them adds them.
        """
        try:
            repair_reason = self._repair_reason(file, known) if known else None
            if known and not repair_reason and _untouched(file, known):
                return StoredPhotograph(file)
            if file.remote is not None:
                with one_file():
                    fetched = read_file(file)
                with BUDGET.hold(images.pixels_in(fetched[0])):
                    return self._read(file, known, repair_reason, fetched)
            with BUDGET.hold(images.pixels_in(file.place)):
                return self._read(file, known, repair_reason)
        except InputError as error:
            return StoredPhotograph(file, refusal=str(error))

    def _read(
        self,
        file: FoundFile,
        known: KnownSource | None,
        repair_reason: Note | None,
        fetched: tuple[bytes, FileStatus] | None = None,
    ) -> StoredPhotograph:
        """Read and store one photograph; raises InputError where it can't be read."""
        with one_file():
            data, status = fetched or read_file(file)
            opened = images.open_photograph(data)
            digest = images.content_hash(opened.pixels)
            perceptual_hash = images.perceptual_hash(opened.pixels)
            thumbnail = near_duplicates.describe(opened.pixels)
        stores = not self.in_place and keeps_name(known, digest)
        if stores and not is_intact(self.store, Kind.IMAGE, digest):
            self.store.put(Kind.IMAGE, digest, images.encode_png(opened.pixels), replace=True)
        height, width = opened.pixels.shape[:2]
        image = NewImage(
            path=file.path,
            file_hash=hashlib.sha256(data).hexdigest(),
            size=status.size,
            modified_ns=status.modified_ns,
            content_hash=digest,
            perceptual_hash=perceptual_hash,
            width=width,
            height=height,
            in_place=str(file.place) if self.in_place else None,
            orientation=opened.orientation,
            thumbnail=thumbnail,
        )
        return StoredPhotograph(file, image, opened.changes, repair_reason)

    def _repair_reason(self, file: FoundFile, known: KnownSource) -> Note | None:
        """Return why the photograph of a known file needs a repair; None where it needs none."""
        if known.in_place is None:
            # Its size and time tell nothing about damage; reading is a fifth of a first import.
            found = condition(self.store, Kind.IMAGE, known.content_hash)
            return None if found is Condition.INTACT else Note(f"its stored copy was {found.value}")
        if not os.path.isfile(known.in_place):
            return Note(
                f"it was no longer at {known.in_place}", "it was no longer where it was referenced"
            )
        if known.in_place == str(file.place) and not self.in_place:
            return Note("copied to the store, where it was only referenced")
        return None


def keeps_name(known: KnownSource | None, digest: str) -> bool:
    """Return whether a path is new or means the same photograph; else the catalogue refuses it.

    Of a refused photograph nothing is stored.
    """
    return known is None or known.content_hash == digest


class FileRow(NamedTuple):
    """What a worker is told of a file."""

    file: FoundFile
    known: KnownSource | None


@dataclass(frozen=True)
class ReadingJob:
    """Read photographs on a worker of a cluster, and store them from there."""

    store: str  #: URL
    in_place: bool
    umask: int  #: of the files that are stored, as here

    def open(self) -> Callable[[Sequence[FileRow]], Iterator[StoredPhotograph | Refused]]:
        os.umask(self.umask)
        reader = PhotographReader(Store(self.store), self.in_place)
        return lambda rows: (reader.take(*row) for row in rows)


def _untouched(file: FoundFile, known: KnownSource) -> bool:
    status = file.status()
    same = status is not None and status == (known.size, known.modified_ns)
    return same and known.orientation is not None  # else it is read once more, for that
