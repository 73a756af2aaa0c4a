"""The errors of ddiseg: what was given, what was wrong with it, what to do next."""

from __future__ import annotations

from annotation_protocol.errors import UserError


class DdisegError(UserError):
    """Base of the errors of ddiseg."""


class InputError(DdisegError, ValueError):
    """A file, row or option that can't be used as given."""


class FileError(InputError):
    """A fault of one file; `kind` is equal for all files with such a fault, and counted."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class NotFoundError(DdisegError, LookupError):
    """A name that the workspace does not know."""


class TransitionError(DdisegError):
    """A step that the life cycle of an image does not allow."""


class WorkspaceError(DdisegError):
    """A workspace that is missing, newer than this program, busy or can't be written."""


class NoSchemaError(WorkspaceError):
    """A database without the tables of a catalogue."""


class MissingFileError(WorkspaceError):
    """A file of the store that is not there."""


class DamagedFileError(WorkspaceError):
    """A stored file whose content is not what its name says, or that can't be read."""


class StoreError(WorkspaceError):
    """A store that can't be used just now: not reachable, not permitted, not as it should be."""

    def __init__(self, message: str, *, is_outage: bool = False) -> None:
        super().__init__(message)
        self.is_outage = is_outage  #: the next request would wait in vain too


class OccupiedError(InputError):
    """A folder in the place of a file of the store: only what belongs there can't be used."""


class ServerError(DdisegError):
    """A labelling server that does not answer, or not as it should; `status` is HTTP's, if any."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def defect(error: Exception) -> DdisegError:
    """Return an unexpected exception as an error with one line for a log."""
    first = str(error).strip().partition("\n")[0]
    return DdisegError(f"unexpected {type(error).__name__}: {first} (a defect: report it)")
