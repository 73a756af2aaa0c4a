"""Marks of a catalogue that no command may open: a copy that has not ended, and one that was moved.

A mark stands where the version of the schema stands, so that earlier versions of ddiseg refuse such a
catalogue, too: they take it for a newer schema.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from ddiseg.errors import WorkspaceError

_COPYING, _MOVED = "copying", "moved"


class UnfinishedCopyError(WorkspaceError):
    """A catalogue that is the beginning of a copy."""


class MovedError(WorkspaceError):
    """A catalogue whose rows were moved to another database."""


@dataclass(frozen=True)
class Mark:
    """What stands in place of the schema's version, such as copying-0011-0a1b2c3d4e5f."""

    kind: str
    schema: str
    source: str = ""  #: of a copy: the fingerprint of what it copies

    @classmethod
    def copying(cls, schema: str, source: str) -> Mark:
        """Return the mark of a copy that has not ended."""
        return cls(_COPYING, schema, source)

    @classmethod
    def moved(cls, schema: str) -> Mark:
        """Return the mark of a catalogue that was moved."""
        return cls(_MOVED, schema)

    @classmethod
    def read(cls, version: str | None) -> Mark | None:
        """Return the mark in a stored version; None where it is the version of a schema."""
        kind, _, rest = (version or "").partition("-")
        schema, _, source = rest.partition("-")
        return cls(kind, schema, source) if kind in (_COPYING, _MOVED) else None

    @property
    def is_moved(self) -> bool:
        return self.kind == _MOVED

    def __str__(self) -> str:
        return "-".join(part for part in (self.kind, self.schema, self.source) if part)


def store_version(session: Session, version: Mark | str) -> None:
    """Store a mark, or the version of a schema in its place, in the caller's transaction."""
    session.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": str(version)})


def refuse_marked(version: str | None, place: str) -> None:
    """Raise where a catalogue has a mark.

    Raises:
        UnfinishedCopyError, MovedError: it has.
    """
    mark = Mark.read(version)
    if mark is None:
        return
    if mark.is_moved:
        raise MovedError(
            f"catalogue {place} was moved to another database by 'ddiseg catalogue copy --switch': write "
            "that one's place into the line catalogue of ddiseg.toml, or run the same command again where "
            "it started before the move"
        )
    raise UnfinishedCopyError(
        f"catalogue {place} is a copy that did not end: run the same 'ddiseg catalogue copy' again, "
        "which goes on from there"
    )
