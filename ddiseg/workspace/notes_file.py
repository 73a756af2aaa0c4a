"""The file with every note of an import: `imports/` in the workspace, one a run."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from annotation_protocol.files import atomic_write
from ddiseg.errors import WorkspaceError
from ddiseg.outcomes import FileOutcome, escaped

FOLDER = "imports"


def write_notes(root: Path, outcomes: Iterable[FileOutcome], what: str) -> Path:
    """Write a line for each file with a note, "refused  a.png: why"; returns the new file.

    Args:
        root: the workspace.
        what: what was imported, in the plural: the first part of the file's name.

    Raises:
        WorkspaceError: the file can't be written; the import itself is kept.
    """
    lines = [
        escaped(f"{each.outcome.value}  {each.name}: {remark.text}") + "\n"
        for each in outcomes
        for remark in each.kinds
        if remark is not None
    ]
    # To the microsecond: two runs have two files.
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    path = root / FOLDER / f"{what.replace(' ', '-')}-{moment}.txt"
    try:
        path.parent.mkdir(exist_ok=True)
        atomic_write(path, "".join(lines))
    except OSError as error:
        raise WorkspaceError(
            f"{path}: {error.strerror}; the import is kept, and --output json lists its notes"
        ) from error
    return path
