"""Model versions: which probes and classifiers there were, and what made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from ddiseg.catalogue.database import Database
from ddiseg.catalogue.models import Event, ModelKind, ModelVersion
from ddiseg.errors import NotFoundError


@dataclass(frozen=True)
class NewModelVersion:
    """Trained probes, or a classifier, whose file is stored, ready to be catalogued."""

    file_hash: str
    backbone: str
    backbone_hash: str
    settings: dict[str, Any]
    training_masks: list[str]
    metrics: dict[str, Any]
    protocol_version: str
    kind: ModelKind = ModelKind.SEGMENTATION
    training_images: dict[str, Any] = field(default_factory=dict)


#: What versions of each kind are called, and what a person does where there is none.
_NAMES = {ModelKind.SEGMENTATION: "fedd", ModelKind.MALIGNANCY: "malignancy"}
_MISSING = {
    ModelKind.SEGMENTATION: "no model yet: accept some masks, then run 'ddiseg refresh'",
    ModelKind.MALIGNANCY: "no malignancy model yet: run 'ddiseg refresh --malignancy'",
}


class ModelVersions:
    """The model versions of a catalogue. Each method is one transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, new: NewModelVersion, actor: str) -> ModelVersion:
        """Record a version under the next free name of its kind: fedd-1, fedd-2, ..., malignancy-1."""
        learned = (
            {"images": len(new.training_images)}
            if new.kind is ModelKind.MALIGNANCY
            else {"masks": len(new.training_masks)}
        )
        with self._database.write() as session:
            others = session.scalars(
                select(ModelVersion.id).where(ModelVersion.kind == new.kind.value)
            )
            name = f"{_NAMES[new.kind]}-{len(others.all()) + 1}"
            row = ModelVersion(**{**new.__dict__, "kind": new.kind.value}, name=name)
            session.add(row)
            session.flush()
            session.add(Event(kind="refresh", actor=actor, detail={"model": name, **learned}))
            return row

    def current(self, kind: ModelKind = ModelKind.SEGMENTATION) -> ModelVersion:
        """The version of a kind in use; raises NotFoundError where none was trained yet."""
        newest = select(ModelVersion).order_by(ModelVersion.id.desc()).limit(1)
        with self._database.read() as session:
            row = session.scalars(newest.where(ModelVersion.kind == kind.value)).first()
        if row is None:
            raise NotFoundError(_MISSING[kind])
        return row

    def all(self, kind: ModelKind | None = None) -> Sequence[ModelVersion]:
        """The versions of a kind, or of every kind, oldest first."""
        query = select(ModelVersion).order_by(ModelVersion.id)
        if kind is not None:
            query = query.where(ModelVersion.kind == kind.value)
        with self._database.read() as session:
            return session.scalars(query).all()
