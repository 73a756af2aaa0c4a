"""Model versions: which probes there were, and what made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from ddiseg.catalogue.database import Database
from ddiseg.catalogue.models import Event, ModelVersion
from ddiseg.errors import NotFoundError


@dataclass(frozen=True)
class NewModelVersion:
    """Trained probes whose file is stored, ready to be catalogued."""

    file_hash: str
    backbone: str
    backbone_hash: str
    settings: dict[str, Any]
    training_masks: list[str]
    metrics: dict[str, Any]
    protocol_version: str


class ModelVersions:
    """The model versions of a catalogue. Each method is one transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, new: NewModelVersion, actor: str) -> ModelVersion:
        """Record a version under the next free name: fedd-1, fedd-2, ..."""
        with self._database.write() as session:
            number = len(session.scalars(select(ModelVersion.id)).all()) + 1
            row = ModelVersion(name=f"fedd-{number}", **new.__dict__)
            session.add(row)
            session.flush()
            session.add(
                Event(
                    kind="refresh",
                    actor=actor,
                    detail={"model": row.name, "masks": len(new.training_masks)},
                )
            )
            return row

    def current(self) -> ModelVersion:
        """The version in use; raises NotFoundError where none was trained yet."""
        with self._database.read() as session:
            row = session.scalars(
                select(ModelVersion).order_by(ModelVersion.id.desc()).limit(1)
            ).first()
        if row is None:
            raise NotFoundError("no model yet: accept some masks, then run 'ddiseg refresh'")
        return row

    def all(self) -> Sequence[ModelVersion]:
        with self._database.read() as session:
            return session.scalars(select(ModelVersion).order_by(ModelVersion.id)).all()
