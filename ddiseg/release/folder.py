"""The folder of a release: written whole, with its manifest, or not at all.

Everything is written into a hidden folder next to the target, `.NAME.part-PID`, and renamed at the
end. A killed process leaves only such a folder, which the next export to the same target removes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotation_protocol.errors import BusyError
from annotation_protocol.files import atomic_write, locked
from ddiseg.catalogue.tables import now
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.formats import RELEASES, load_format
from ddiseg.locate import RELEASE_MANIFEST
from ddiseg.outcomes import (
    FileOutcome,
    Outcome,
    Progress,
    counted,
    reasons_in_words,
    refusals,
    silent,
)
from ddiseg.release.release import Release
from ddiseg.release.summary import ExportSummary
from ddiseg.workspace.access import normal_umask

MANIFEST = RELEASE_MANIFEST

LICENCE_FILE = "LICENCE.txt"

#: Lock file in an unfinished folder: it shows that an export made the folder and whether that runs.
_MARK = ".ddiseg-part"


@dataclass(frozen=True)
class WrittenRelease:
    """A release in `folder`, written now (`new`) or earlier."""

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
) -> WrittenRelease:
    """Write `release` to the folder `target`, unless the same release is there already.

    After any error, Ctrl-C included, `target` is as it was.

    Raises:
        InputError: `target` holds anything else, no image could be exported, or `strict` and one
            could not.
        WorkspaceError: The disk is full or can't be written.
    """
    write = load_format(RELEASES, format_name)
    target = target.resolve()
    release = release.in_format(format_name, images=images)
    earlier = _read_earlier(target)
    release.names.write_table()
    if earlier is not None and not earlier["left_out"]:
        return _unchanged(release, target, earlier, release.content())
    with normal_umask(), _disk_errors(target), _part_folder(target) as part:
        with locked(part / _MARK, "another export writes {holder}"):
            summary: ExportSummary = write(release, part, images=images, progress=progress)
            _refuse_gaps(refusals(summary.outcomes), len(release), strict)
            (part / LICENCE_FILE).write_text(licence_text(summary, images=images), "utf-8")
            content = summary.content
            if earlier is not None:
                return _unchanged(release, target, earlier, content)
            manifest = {
                "format": format_name,
                "content": content,
                **_summary(release, summary),
                "left_out": [
                    {"name": each.name, "reason": release.names.reason(each.reason)}
                    for each in summary.left_out
                ],
                "files": _files(part),
            }
            atomic_write(part / MANIFEST, json.dumps(manifest, indent=1))
        (part / _MARK).unlink()
        if not _rename(part, target):  # another export was faster
            earlier = _read_earlier(target)
            if earlier is None:
                raise InputError(f"{target} can't be replaced: give --to a folder inside it")
            return _unchanged(release, target, earlier, content)
    return WrittenRelease(target, True, manifest, tuple(summary.outcomes))


def _read_earlier(target: Path) -> dict[str, Any] | None:
    """Return the manifest of the release in `target`, None for an empty or missing folder.

    Raises:
        InputError: `target` holds anything else.
    """
    if not target.exists():
        return None
    if not target.is_dir():
        raise InputError(f"{target} is a file: give --to the name of a new folder")
    names = sorted(p.name for p in target.iterdir())
    if not names:
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
        listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise InputError(
            f"{target} holds files that are no ddiseg release ({listed}): give --to a new folder; "
            "nothing was changed"
        ) from None
    return dict(manifest)


def _unchanged(
    release: Release, target: Path, earlier: dict[str, Any], content: str
) -> WrittenRelease:
    """Return the earlier release, if it is this one and its files are as they were written."""
    if earlier["content"] != content:
        raise InputError(
            f"{target} holds another release ({earlier['format']}, "
            f"{counted(earlier['images'], 'image')}, made {earlier['created_at'][:16]}Z): give --to "
            "a new folder, or delete this one first; nothing was changed"
        )
    changed = [f["path"] for f in earlier["files"] if _file(target, f["path"]) != f]
    if changed:
        raise InputError(
            f"{target} is this release, but someone has changed or removed {counted(len(changed), 'file')} of it "
            f"({changed[0]}): delete the folder and run the same command again; nothing was changed"
        )
    reasons = {entry["name"]: entry["reason"] for entry in earlier["left_out"]}
    outcomes = tuple(
        FileOutcome(
            i.image.name,
            Outcome.REFUSED if i.identity.name in reasons else Outcome.UNCHANGED,
            reasons.get(i.identity.name, i.identity.note),
        )
        for i in release.items()
    )
    return WrittenRelease(target, False, earlier, outcomes)


@contextlib.contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    """Raise errors of the disk as a WorkspaceError that says what to do."""
    try:
        yield
    except OSError as error:
        raise WorkspaceError(
            f"{target}: {error.strerror or error}; nothing was written: free some space, make the folder "
            "above it writable or give --to another place, then run the same command again"
        ) from error


@contextlib.contextmanager
def _part_folder(target: Path) -> Iterator[Path]:
    """Make a folder next to `target` to write in; remove what is left of it afterwards."""
    made = [p for p in target.parents if not p.exists()]
    part = target.parent / f".{target.name}.part-{os.getpid()}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        part.mkdir()
        try:
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)
    finally:
        if not target.exists():
            with contextlib.suppress(OSError):  # not empty: another process uses them by now
                for folder in made:
                    folder.rmdir()


def _remove_abandoned(target: Path) -> None:
    """Remove the part folders of killed exports to `target`: those that nobody has locked."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.part-\d+")
    for folder in target.parent.iterdir():
        if not pattern.fullmatch(folder.name):
            continue
        with contextlib.suppress(OSError, BusyError):
            if (folder / _MARK).is_file():
                with locked(folder / _MARK, ""):
                    pass
                shutil.rmtree(folder, ignore_errors=True)
            else:  # killed at once, or not ours and not empty
                folder.rmdir()


def _rename(part: Path, target: Path) -> bool:
    """Rename the finished folder; return False where there is a release or another folder."""
    try:
        if os.name == "nt" and target.is_dir():
            target.rmdir()  # elsewhere renaming replaces an empty folder
        os.rename(part, target)
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
        raise InputError(f"no image could be exported, of {total}; {reasons}")
    raise InputError(
        f"--strict: {len(refused)} of {total} images could not be exported, nothing was written; {reasons}"
    )


def _summary(release: Release, summary: ExportSummary) -> dict[str, Any]:
    from ddiseg import __version__

    return {
        "created_at": now(),
        "ddiseg": __version__,
        "protocol": release.protocol.version,
        "subset": release.public_subset,
        "names": "original" if release.names.are_kept else "pseudonyms",
        "photographs": release.images,
        "images": summary.images,
        "accepted": summary.accepted,
        "predictions": summary.predictions,
        "by_tone": {
            tone.name: {
                "images": counts.accepted + counts.predictions,
                "accepted": counts.accepted,
                "predictions": counts.predictions,
                "with_class": summary.with_class(tone.name),
            }
            for tone in release.protocol.tones
            if (counts := summary.tones.get(tone.name)) is not None
        },
        "partly_labelled": {
            "images": summary.partly_labelled,
            "unlabelled_pixels": summary.unlabelled_pixels,
        },
        "with_class": summary.with_class(),
        "datasets": [
            {name: getattr(d, name) for name in ("name", "licence", "source", "synthetic")}
            | {"images": summary.per_dataset[d.id]}
            for d in summary.exported_datasets
        ],
    }


def licence_text(summary: ExportSummary, *, images: bool) -> str:
    """Return the licence and source of each dataset, and what they mean for this release."""
    lines = ["Licences and sources", ""]
    for dataset in summary.exported_datasets:
        lines += [
            f"{dataset.name}: {counted(summary.per_dataset[dataset.id], 'image')}",
            f"  licence: {dataset.licence or 'not recorded; ask the source before you pass this on'}",
            f"  source:  {dataset.source or 'not recorded'}",
            "",
        ]
    lines.append(
        "The photographs in this folder stay under the licence of their dataset. The masks were drawn "
        "from them and may be used as that licence allows."
        if images
        else "This folder holds masks only. Get the photographs from their source, under the "
        "licence of their dataset, and the masks may be used as that licence allows."
    )
    lines.append("Name the source of each dataset in whatever you publish.")
    if summary.predictions:
        lines.append(
            f"Predictions of a model that no person has reviewed: {summary.predictions} of {counted(summary.images, 'mask')}. "
            "They are marked as not accepted, are research output and no diagnosis."
        )
    return "\n".join(lines) + "\n"


def _files(folder: Path) -> list[dict[str, Any]]:
    paths = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    listed = (path for path in sorted(paths) if not path.startswith(_MARK))
    return [f for path in listed if (f := _file(folder, path, flush=True)) is not None]


def _file(folder: Path, path: str, *, flush: bool = False) -> dict[str, Any] | None:
    """Return path, size and hash of a file, None where it is missing.

    With `flush` also wait until it is on the disk.
    """
    try:
        place = folder / path
        # What is to be flushed is opened for writing: Windows wants it so.
        with open(place, "rb+") if flush else open(place, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if flush:
                os.fsync(file.fileno())
            return {"path": path, "bytes": file.tell(), "sha256": digest}
    except FileNotFoundError:
        return None
