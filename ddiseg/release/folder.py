"""The folder of a release: there whole, with its manifest, or not there at all.

Everything is written into a hidden folder beside the target, `.NAME.part-PID`, and renamed at the
end. A killed process leaves only such a folder, which the next export to the same target removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddiseg.catalogue.tables import now
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.formats import RELEASES, load_format
from ddiseg.outcomes import FileOutcome, Outcome, Progress, reasons_in_words, silent
from ddiseg.release.licence import LICENCE_FILE, licence_text
from ddiseg.release.release import ExportSummary, Item, Release

MANIFEST = "ddiseg-release.json"

#: Marks an unfinished folder as ours; locked for as long as the process that writes it lives.
_MARK = ".ddiseg-part"


@dataclass(frozen=True)
class Written:
    """A release that stands in `folder`, written now (`new`) or before."""

    folder: Path
    new: bool
    manifest: dict[str, Any]
    outcomes: tuple[FileOutcome, ...]


def write_release(
    release: Release,
    format_name: str,
    target: Path,
    *,
    images: bool = True,
    strict: bool = False,
    progress: Progress = silent,
) -> Written:
    """Write `release` to the folder `target`, or find it there already, exactly so.

    Raises InputError where `target` holds anything else, where no image could be exported, or
    where `strict` and one could not; WorkspaceError where the disk is full or can't be written.
    After any error, Ctrl-C included, `target` is as it was.
    """
    write = load_format(RELEASES, format_name)
    target = target.resolve()
    standing = _standing(target)
    content = release.content(format_name, images=images)
    if standing is not None and not standing["left_out"]:
        return _unchanged(release, target, standing, content)
    with _told(target), _part_folder(target) as part:
        summary: ExportSummary = write(release, part, images=images, progress=progress)
        refused = [o for o in summary.outcomes if o.outcome is Outcome.REFUSED]
        _refuse_gaps(refused, len(release.items), strict)
        exported, left_out = _parted(release, summary)
        (part / LICENCE_FILE).write_text(licence_text(exported, images=images), "utf-8")
        content = release.content(format_name, images=images, left_out=left_out)
        if standing is not None:
            return _unchanged(release, target, standing, content)
        manifest = {
            "format": format_name,
            "content": content,
            **_about(release, exported, summary, images=images),
            "left_out": [{"name": o.name, "reason": o.note} for o in refused],
            "files": _files(part),
        }
        _write_durably(part / MANIFEST, json.dumps(manifest, indent=1).encode())
        (part / _MARK).unlink()
        if not _renamed(part, target):  # another export was faster
            standing = _standing(target)
            if standing is None:
                raise InputError(f"{target} can't be replaced: give --to a folder inside it")
            return _unchanged(release, target, standing, content)
    return Written(target, True, manifest, summary.outcomes)


def _standing(target: Path) -> dict[str, Any] | None:
    """The manifest of the release in `target`; None where it is free. Else raises InputError."""
    if not target.exists():
        return None
    if not target.is_dir():
        raise InputError(f"{target} is a file: give --to the name of a new folder")
    there = sorted(p.name for p in target.iterdir())
    if not there:
        return None
    try:
        manifest = json.loads((target / MANIFEST).read_bytes())
        for key in ("format", "content", "created_at", "images"):
            manifest[key]
        for entry in manifest["files"]:
            entry["path"]
        for entry in manifest["left_out"]:
            entry["name"], entry["reason"]
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        listed = ", ".join(there[:3]) + (", ..." if len(there) > 3 else "")
        raise InputError(
            f"{target} holds files that are no ddiseg release ({listed}): give --to a new folder; "
            "nothing was changed"
        ) from None
    return dict(manifest)


def _unchanged(release: Release, target: Path, standing: dict[str, Any], content: str) -> Written:
    """The earlier release, if it is this one and its files are as they were written."""
    if standing["content"] != content:
        raise InputError(
            f"{target} holds another release ({standing['format']}, {standing['images']} images, "
            f"made {standing['created_at'][:16]}Z): give --to a new folder, or delete this one first; "
            "nothing was changed"
        )
    changed = [f["path"] for f in standing["files"] if _file(target, f["path"]) != f]
    if changed:
        raise InputError(
            f"{target} is this release, but {len(changed)} of its files were changed or removed since "
            f"({changed[0]}): delete the folder and run the same command again; nothing was changed"
        )
    absent = {entry["name"]: entry["reason"] for entry in standing["left_out"]}
    outcomes = tuple(
        FileOutcome(
            i.image.name,
            Outcome.REFUSED if i.image.name in absent else Outcome.UNCHANGED,
            absent.get(i.image.name),
        )
        for i in release.items
    )
    return Written(target, False, standing, outcomes)


@contextlib.contextmanager
def _told(target: Path) -> Iterator[None]:
    """Faults of the disk as one line that says what to do."""
    try:
        yield
    except OSError as error:
        raise WorkspaceError(
            f"{target}: {error.strerror or error}; nothing was written: free some space, make the folder "
            "above it writable or give --to another place, then run the same command again"
        ) from error


@contextlib.contextmanager
def _part_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` to write in, gone afterwards whatever happens."""
    made = [p for p in target.parents if not p.exists()]
    part = target.parent / f".{target.name}.part-{os.getpid()}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        part.mkdir()
        try:
            with open(part / _MARK, "w") as mark:
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)
    finally:
        if not target.exists():
            with contextlib.suppress(OSError):  # not empty: another process uses them by now
                for folder in made:
                    folder.rmdir()


def _remove_abandoned(target: Path) -> None:
    """Remove what killed exports to `target` left: their process is gone, or had our number."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.part-(\d+)")
    for folder in target.parent.iterdir():
        match = pattern.fullmatch(folder.name)
        if match is None or (int(match[1]) != os.getpid() and _alive(int(match[1]))):
            continue
        with contextlib.suppress(OSError):
            if any(folder.iterdir()):
                with open(folder / _MARK) as mark:  # none: not ours
                    fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)  # locked: a living process's
                    shutil.rmtree(folder, ignore_errors=True)
            else:
                folder.rmdir()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _renamed(part: Path, target: Path) -> bool:
    """Put the finished folder in its place; False where the place is taken."""
    try:
        os.rename(part, target)  # replaces an empty folder
    except OSError:
        if target.is_dir():
            return False
        raise
    return True


def _refuse_gaps(refused: list[FileOutcome], total: int, strict: bool) -> None:
    if not refused or (len(refused) < total and not strict):
        return
    reasons = reasons_in_words(refused, "images")
    if len(refused) == total:
        raise InputError(f"none of the {total} images could be exported; {reasons}")
    raise InputError(
        f"--strict: {len(refused)} of {total} images could not be exported, nothing was written; {reasons}"
    )


def _parted(release: Release, summary: ExportSummary) -> tuple[list[Item], list[int]]:
    """The items that were written, and the image ids of those that were not."""
    exported, left_out = [], []
    for item, outcome in zip(release.items, summary.outcomes, strict=True):
        if outcome.outcome is Outcome.REFUSED:
            left_out.append(item.image.id)
        else:
            exported.append(item)
    return exported, left_out


def _about(
    release: Release, exported: list[Item], summary: ExportSummary, *, images: bool
) -> dict[str, Any]:
    from ddiseg import __version__

    by_tone = {}
    for tone in release.protocol.tones:
        of_tone = [i for i in exported if i.image.tone == tone.name]
        if of_tone:
            accepted = sum(i.accepted for i in of_tone)
            by_tone[tone.name] = {
                "images": len(of_tone),
                "accepted": accepted,
                "predictions": len(of_tone) - accepted,
                "with_class": summary.with_class[tone.name],
            }
    per_dataset = Counter(i.dataset.id for i in exported)
    datasets = {i.dataset.id: i.dataset for i in exported}
    return {
        "created_at": now(),
        "ddiseg": __version__,
        "protocol": release.protocol.version,
        "subset": release.subset,
        "photographs": images,
        "images": len(exported),
        "accepted": sum(i.accepted for i in exported),
        "predictions": sum(not i.accepted for i in exported),
        "by_tone": by_tone,
        "with_class": {
            name: sum(found[name] for found in summary.with_class.values())
            for name in release.protocol.class_names
        },
        "datasets": [
            {
                "name": d.name,
                "licence": d.licence,
                "source": d.source,
                "synthetic": d.synthetic,
                "images": per_dataset[d.id],
            }
            for d in sorted(datasets.values(), key=lambda d: d.id)
        ],
    }


def _files(folder: Path) -> list[dict[str, Any]]:
    paths = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    found = [_file(folder, path, durably=True) for path in sorted(paths) if path != _MARK]
    return [f for f in found if f is not None]


def _file(folder: Path, path: str, *, durably: bool = False) -> dict[str, Any] | None:
    """Path, size and hash of a file, None where it is gone; `durably` waits until the disk has it."""
    try:
        with open(folder / path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if durably:
                os.fsync(file.fileno())
            return {"path": path, "bytes": file.tell(), "sha256": digest}
    except FileNotFoundError:
        return None


def _write_durably(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
