"""Match names in a table or list to the files of a folder, without opening them."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ddiseg import images
from ddiseg.catalogue import Details
from ddiseg.errors import InputError
from ddiseg.ingest.folder import FoundFile
from ddiseg.ingest.metadata import Metadata, MetadataRow
from ddiseg.outcomes import FileOutcome, Outcome, counted


@dataclass
class Matched:
    """The rows of a table, matched to files."""

    details: dict[str, Details] = field(default_factory=dict)  #: by path
    described: list[Details] = field(default_factory=list)  #: by row, of files not found too
    faults: dict[str, str] = field(default_factory=dict)  #: why the row of a file can't be used
    refused_rows: list[FileOutcome] = field(default_factory=list)  #: that belong to no file
    rows_without_file: int = 0
    notes: list[str] = field(default_factory=list)


def match_rows(metadata: Metadata, files: Sequence[FoundFile]) -> Matched:
    """Match rows to `files`. A row names a file by path or by name, with or without the ending.

    A row with another ending (a.png for a.jpg, where photographs were converted) is matched to
    the file that no row names exactly, with a note; a.jpg.png is another photograph than a.jpg.
    So is one whose path ends in the whole path of a file, unless it leads out of the folder.
    Equal rows of one file are one row; if they contradict each other, the file has a
    fault. So has every file of a name that several have, where a row gives only the name.
    """
    matched = Matched(notes=list(metadata.notes))
    by_key = files_by_name(files)
    rows_of: dict[str, list[MetadataRow]] = defaultdict(list)
    unmatched: list[tuple[str, MetadataRow]] = []
    for row in metadata.rows:
        if row.image is None:
            matched.refused_rows.append(
                FileOutcome(f"{metadata.name}:{row.line}", Outcome.REFUSED, row.fault)
            )
            continue
        if row.fault is None:
            matched.described.append(row.details)
        paths = by_key.get(name_key(row.image), [])
        if len(paths) > 1:
            meant = f"'{row.image}' could mean {' or '.join(paths[:3])}: give the path"
            for path in paths:
                matched.faults[path] = f"{metadata.name}, line {row.line}: {meant}"
        elif paths:
            rows_of[paths[0]].append(row)
        else:
            unmatched.append((row.image, row))
    other_ending, below = [], []
    by_path = {key: f.path for f in files for key in (name_key(f.path), name_key(f.path_stem))}
    named = {*rows_of, *matched.faults}
    tails: dict[str | None, set[str]] = defaultdict(
        set
    )  # foo/a.png and bar/a.png: neither is a.png
    for name, _ in unmatched:
        tails[_tail(name, by_path)].add(name)
    for name, row in unmatched:
        tail = _tail(name, by_path)
        if tail is not None and tail not in named and tails[tail] == {name}:
            rows_of[tail].append(row)
            below.append(f"{name} for {tail}")
            continue
        paths = _with_another_ending(name, by_key) if name.lower().endswith(images.ENDINGS) else []
        if len(paths) == 1 and paths[0] not in named:
            rows_of[paths[0]].append(row)
            other_ending.append(f"{name} for {paths[0]}")
        else:
            matched.rows_without_file += 1
    if below:
        matched.notes.append(
            f"{metadata.name}: {counted(len(below), 'row')} with folders above those of the file: "
            + _some(below)
        )
    if other_ending:
        matched.notes.append(
            f"{metadata.name}: {counted(len(other_ending), 'row')} with another ending than the file: "
            + _some(other_ending)
        )
    repeated = []
    for path, rows in rows_of.items():
        # Without its line, which differs: a fault that many rows have is reported once.
        fault = next((f"its row in {metadata.name}: {r.fault}" for r in rows if r.fault), None)
        if fault is None and any(row.details != rows[0].details for row in rows):
            fault = f"{metadata.name}: {_lines(rows)} contradict each other: keep the right one"
        if fault is not None:
            matched.faults.setdefault(path, fault)
            continue
        matched.details[path] = rows[0].details
        if len(rows) > 1:
            repeated.append(f"{path} ({_lines(rows)})")
    if repeated:
        matched.notes.append(
            f"{metadata.name}: {counted(len(repeated), 'file')} with equal rows: {_some(repeated)}"
        )
    return matched


def refuse_other_photographs(
    metadata: Metadata, matched: Matched, files: Sequence[FoundFile]
) -> None:
    """Refuse a table without a usable row, or whose rows match no file.

    Raises:
        InputError: names what the table has and what the folder has.
    """
    names = [row.image for row in metadata.rows if row.image is not None and row.fault is None]
    if not names:
        raise InputError(
            f"{metadata.name} has no usable row: {_unusable(metadata)}; correct it, or import without "
            "--metadata"
        )
    if not matched.details and not matched.faults:
        raise InputError(
            f"{metadata.name}: no row is about one of the {counted(len(files), 'photograph')}; its rows name "
            f"{names[0]!r} and so on, the folder has '{files[0].path}': give the table of these "
            "photographs, or another column with --columns image=COLUMN,..."
        )


def _unusable(metadata: Metadata) -> str:
    if not metadata.rows:
        return "nothing follows its header"
    first, *others = metadata.rows
    more = f"; {counted(len(others), 'more row')} can't be used" if others else ""
    return f"line {first.line}: {first.fault}{more}"


def _tail(name: str, by_path: Mapping[str, str]) -> str | None:
    """Return the file whose whole path a longer path ends in; the table may be of a folder further up."""
    key = name_key(name)
    while "/" in key:
        key = key.partition("/")[2]
        if key in by_path:
            return by_path[key]
    return None


def _with_another_ending(name: str, by_key: Mapping[str, list[str]]) -> list[str]:
    stem = name_key(name.rsplit(".", 1)[0])
    paths = by_key.get(stem, [])
    # Else "a.jpg.png" would mean "a.jpg", whose whole name it begins with.
    return [p for p in paths if stem not in (name_key(p), name_key(p.rsplit("/", 1)[-1]))]


def _some(things: Sequence[str]) -> str:
    return ", ".join(things[:3]) + (", ..." if len(things) > 3 else "")


def files_by_name(files: Sequence[FoundFile]) -> dict[str, list[str]]:
    """Return paths by every key of a file: its path or its name, with or without the ending.

    The keys are `name_key`s; a more exact name hides a looser one.
    """
    keys = [(f.path, f.name, f.path.rsplit(".", 1)[0], f.stem) for f in files]
    found: dict[str, list[str]] = {}
    for kind in zip(*keys, strict=True):
        looser: dict[str, list[str]] = defaultdict(list)
        for file, key_text in zip(files, kind, strict=True):
            looser[name_key(key_text)].append(file.path)
        found = {**looser, **found}
    return found


def name_key(name: str) -> str:
    """Return a name in the form of `files_by_name`, whatever system wrote it."""
    # macOS writes accents as letters of their own; a table from elsewhere does not.
    return unicodedata.normalize("NFC", name.replace("\\", "/").removeprefix("./"))


def _lines(rows: Sequence[MetadataRow]) -> str:
    return "lines " + " and ".join(str(row.line) for row in rows)
