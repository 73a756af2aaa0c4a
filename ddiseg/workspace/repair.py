"""Repair of a workspace: what `verify` found is put back, closed or excluded. Nothing is removed.

A file is put back only where its content has the hash that the catalogue knows: from folders that a
person names (originals, a copy of the store, a release), or from the store itself for a photograph
that was imported in place. Hold-out images that share a group with the training split become
EXCLUDED: neither trained on nor compared.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ddiseg import images
from ddiseg.catalogue import Split
from ddiseg.catalogue.tables import Image
from ddiseg.errors import InputError
from ddiseg.outcomes import Progress, counted, silent, track
from ddiseg.sampling.leaks import Leak
from ddiseg.workspace.access import tighten
from ddiseg.workspace.pseudonyms import Pseudonyms
from ddiseg.workspace.store import Kind
from ddiseg.workspace.stored_files import is_intact, matches
from ddiseg.workspace.verify import BadFile, Part, Problem
from ddiseg.workspace.workspace import Workspace

#: A larger file is not read to look for a lost one, in bytes.
_MAX_BYTES = 2_000_000_000


@dataclass(frozen=True)
class Repairs:
    """What was put back, a line each, and the problems that are left."""

    repaired: list[str]
    left: list[Problem]


def repair(
    workspace: Workspace,
    problems: Sequence[Problem],
    originals: Sequence[Path],
    actor: str,
    progress: Progress = silent,
) -> Repairs:
    """Put back the files of `problems`, as far as they are found; close what is open, exclude what leaks.

    Args:
        originals: folders with the original photographs, a copy of the store, or a release.

    Raises:
        InputError: one of `originals` is no folder.
        WorkspaceError: the store or the catalogue can't be written; what was repaired stays so.
    """
    job = _Repair(workspace, _files_by_name(originals), actor)
    repaired, left = [], []
    for problem in track(problems, progress):
        if problem.part is Part.ACCESS:
            root, *elsewhere = workspace.places
            tighten(root, elsewhere)
            repaired.append(f"{problem.line.partition('; ')[0]}: closed")
            continue
        if problem.leak is not None and problem.leak.of_holdout:
            repaired.append(_exclude(workspace, problem.leak, actor))
            continue
        found = job.put_back(problem.file) if problem.file is not None else None
        if found is None:
            left.append(problem)
        else:
            repaired.append(f"{problem.line.partition('; ')[0]}: put back from {found}")
    return Repairs(repaired, left)


def _exclude(workspace: Workspace, leak: Leak, actor: str) -> str:
    """Take the hold-out images of a leak out of the hold-out set; returns a line that says so."""
    reason = f"shares a group with {leak.other}"
    moved = workspace.catalogue.splits.exclude(leak.images, reason, actor)
    left = sum(s is Split.HOLDOUT for s in workspace.catalogue.splits.all().values())
    they_are = "it is" if len(moved) == 1 else "they are"
    return (
        f"{leak.of}: {counted(len(moved), 'image')} excluded, so that {they_are} neither trained on nor "
        f"compared; {counted(left, 'image')} left in it"
    )


def _files_by_name(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the files under `folders` by their name in lower case."""
    found: dict[str, list[Path]] = defaultdict(list)
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder.absolute()} is no folder: give --originals FOLDER")
        for at, _, names in os.walk(folder):
            for name in names:
                found[name.lower()].append(Path(at, name).absolute())
    return found


@dataclass(frozen=True)
class _Repair:
    workspace: Workspace
    files: dict[str, list[Path]]
    actor: str

    def put_back(self, file: BadFile) -> str | None:
        """Put a file back; returns where its content came from, None where it was not found."""
        rows = self.workspace.catalogue.images.select(ids=list(file.image_ids))
        if file.kind is Kind.IMAGE and rows[0].in_place is not None:
            return self._put_back_in_place(rows[0])
        for path in self._candidates(file, rows):
            data = _content(file, path)
            if data is not None:
                self.workspace.store.put(file.kind, file.digest, data, replace=True)
                return str(path)
        return None

    def _put_back_in_place(self, image: Image) -> str | None:
        """Let a photograph that is gone from its place refer to a copy of it."""
        catalogue, store = self.workspace.catalogue.images, self.workspace.store
        if is_intact(store, Kind.IMAGE, image.content_hash):
            catalogue.move(image.id, None, self.actor)
            return "the store"
        file = BadFile(Kind.IMAGE, image.content_hash, (image.id,))
        for path in self._candidates(file, [image]):
            if _content(file, path) is not None:
                catalogue.move(image.id, str(path), self.actor)
                return str(path)
        return None

    def _candidates(self, file: BadFile, rows: Sequence[Image]) -> Iterator[Path]:
        """Yield files whose name may be that of a lost one: its own, its origin's, a copy's."""
        names = [f"{file.digest}.{file.kind.ending}"]
        pseudonyms = Pseudonyms.existing(self.workspace)
        for row in rows:
            if pseudonyms is not None:
                names.append(f"{pseudonyms.image(row.content_hash)}.png")  # in a release
            sources = self.workspace.catalogue.images.sources(row.id)
            names += [source.name for source in sources]
            names += [f"{source.name.rpartition('.')[0]}.png" for source in sources]
            names.append(f"{file.digest[:32]}-{row.width}x{row.height}.png")  # Label Studio's copy
            if file.kind is Kind.MASK:
                of_image = self.workspace.catalogue.masks.of_image(row.id)
                names += [Path(mask.origin).name for mask in of_image if mask.origin]
        for name in dict.fromkeys(each.lower() for each in names):
            yield from self.files.get(name, ())


def _content(file: BadFile, path: Path) -> bytes | None:
    """Return what the store holds for a file, read from `path`; None where that is something else."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            return None
        data = path.read_bytes()
        if file.kind is not Kind.IMAGE:
            return data if matches(file.kind, data, file.digest) else None
        pixels = images.open_photograph(data).pixels
    except (OSError, InputError):
        return None
    return images.encode_png(pixels) if images.content_hash(pixels) == file.digest else None
