"""Model versions: trained probes and classifiers, and which of them is the current model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from ddiseg.catalogue.database import Repository
from ddiseg.catalogue.provenance import store_training
from ddiseg.catalogue.tables import (
    Event,
    ImageSplit,
    ModelKind,
    ModelVersion,
    Promotion,
    TrainingImage,
)
from ddiseg.errors import NotFoundError, WorkspaceError


@dataclass(frozen=True)
class NewModelVersion:
    """Trained probes, or a classifier, to be catalogued; the file is stored already."""

    file_hash: str
    backbone: str
    backbone_hash: str
    settings: dict[str, Any]
    training_masks: list[str]
    metrics: dict[str, Any]
    protocol_version: str
    kind: ModelKind = ModelKind.SEGMENTATION
    training_images: dict[str, Any] = field(default_factory=dict)
    gate: dict[str, Any] | None = None


@dataclass(frozen=True)
class Snapshot:
    """What a training began from, and its version was compared with."""

    current_id: int | None  #: id of the current model, None where there was none
    has_holdout: bool  #: whether there was a hold-out set, which it then did not learn from


class StaleTrainingError(WorkspaceError):
    """The snapshot of a training is out of date, so its version can't be promoted."""


#: Prefix of the names of each kind, and the next step where there is no version.
_NAMES = {ModelKind.SEGMENTATION: "fedd", ModelKind.MALIGNANCY: "malignancy"}
_MISSING = {
    ModelKind.SEGMENTATION: "no model yet: accept some masks, then run 'ddiseg refresh'",
    ModelKind.MALIGNANCY: "no malignancy model yet: run 'ddiseg refresh --malignancy'",
}


class VersionBrief(NamedTuple):
    """What is shown of a model version, without what it learned from: that may be megabytes."""

    id: int
    name: str
    backbone: str
    backbone_hash: str
    created_at: str
    masks: int  #: number of masks that it learned from


_BRIEF = (
    *(ModelVersion.id, ModelVersion.name, ModelVersion.backbone, ModelVersion.backbone_hash),
    ModelVersion.created_at,
    func.json_array_length(ModelVersion.training_masks),
)


class ModelVersions(Repository):
    """The model versions of a catalogue."""

    def add(
        self,
        new: NewModelVersion,
        actor: str,
        *,
        promote: bool = True,
        why: str = "newly trained",
        snapshot: Snapshot | None = None,
    ) -> ModelVersion:
        """Store a version under the next name of its kind: fedd-1, fedd-2, ..., malignancy-1.

        Unless `promote` is False it is promoted in the same transaction, for the reason `why`.

        Raises:
            StaleTrainingError: the `snapshot` is out of date; nothing is stored.
        """
        learned = (
            {"images": len(new.training_images)}
            if new.kind is ModelKind.MALIGNANCY
            else {"masks": len(new.training_masks)}
        )
        with self._database.write() as session:
            if snapshot is not None:
                _check_snapshot(session, new.kind, snapshot)
            others = session.scalars(
                select(ModelVersion.id).where(ModelVersion.kind == new.kind.value)
            )
            name = f"{_NAMES[new.kind]}-{len(others.all()) + 1}"
            row = ModelVersion(**{**new.__dict__, "kind": new.kind.value}, name=name)
            session.add(row)
            session.flush()
            store_training(session, row)
            session.add(Event(kind="refresh", actor=actor, detail={"model": name, **learned}))
            if promote:
                _promote(session, row, actor, why, forced=False)
            return row

    def promote(self, name: str, actor: str, why: str, *, forced: bool) -> bool:
        """Promote a version; returns False where it is the current model already.

        Raises:
            NotFoundError: no version of that name.
        """
        with self._database.write() as session:
            row = _named(session, name)
            current = session.scalars(current_version(ModelKind(row.kind))).first()
            if current is not None and current.id == row.id:
                return False
            _promote(session, row, actor, why, forced=forced)
            return True

    def current(self, kind: ModelKind = ModelKind.SEGMENTATION) -> ModelVersion:
        """Return the current model of a kind; raises NotFoundError where none was trained yet."""
        row = self.current_or_none(kind)
        if row is None:
            raise NotFoundError(_MISSING[kind])
        return row

    def current_or_none(self, kind: ModelKind = ModelKind.SEGMENTATION) -> ModelVersion | None:
        """Return the current model of a kind; None where none was trained yet."""
        return self._first(current_version(kind))

    def current_brief(self) -> VersionBrief | None:
        """Return what is shown of the current segmentation model; None where none was trained yet."""
        query = current_version(ModelKind.SEGMENTATION).with_only_columns(*_BRIEF)
        return self._brief(query)

    def newest_brief(self) -> VersionBrief | None:
        """Return what is shown of the newest segmentation model, promoted or not."""
        of_kind = ModelVersion.kind == ModelKind.SEGMENTATION.value
        return self._brief(select(*_BRIEF).where(of_kind).order_by(ModelVersion.id.desc()).limit(1))

    def _brief(self, query: Select[Any]) -> VersionBrief | None:
        rows = self._rows(query)
        return VersionBrief._make(rows[0]) if rows else None

    def learned_from(self, version_id: int, content_hash: str) -> bool:
        """Return whether a classifier learned from an image."""
        query = select(TrainingImage.content_hash).where(
            TrainingImage.model_version_id == version_id, TrainingImage.content_hash == content_hash
        )
        return self._first(query) is not None

    def get(self, name: str) -> ModelVersion:
        """Return a version; raises NotFoundError, which lists the versions."""
        with self._database.read() as session:
            return _named(session, name)

    def promotions(self, kind: ModelKind = ModelKind.SEGMENTATION) -> Sequence[Promotion]:
        """Return the promotions of a kind, oldest first."""
        query = (
            select(Promotion)
            .join(ModelVersion, ModelVersion.id == Promotion.model_version_id)
            .where(ModelVersion.kind == kind.value)
            .order_by(Promotion.id)
        )
        return self._all(query)

    def names(self) -> dict[int, str]:
        """Return the names of all versions, by id: without what they learned from, which may be long."""
        rows = self._rows(select(ModelVersion.id, ModelVersion.name).order_by(ModelVersion.id))
        return {version_id: name for version_id, name in rows}

    def all(self, kind: ModelKind | None = None) -> Sequence[ModelVersion]:
        """Return the versions of a kind, or of every kind, oldest first."""
        query = select(ModelVersion).order_by(ModelVersion.id)
        if kind is not None:
            query = query.where(ModelVersion.kind == kind.value)
        return self._all(query)


def current_version(kind: ModelKind) -> Select[ModelVersion]:
    """Return the query for the version of a kind that was promoted last."""
    return (
        select(ModelVersion)
        .join(Promotion, Promotion.model_version_id == ModelVersion.id)
        .where(ModelVersion.kind == kind.value)
        .order_by(Promotion.id.desc())
        .limit(1)
    )


def _named(session: Session, name: str) -> ModelVersion:
    row = session.scalars(select(ModelVersion).where(ModelVersion.name == name)).first()
    if row is None:
        names = session.scalars(select(ModelVersion.name).order_by(ModelVersion.id)).all()
        raise NotFoundError(
            f"no model called '{name}' (there are: {', '.join(names) or 'none yet'})"
        )
    return row


def _check_snapshot(session: Session, kind: ModelKind, snapshot: Snapshot) -> None:
    current = session.scalars(current_version(kind)).first()
    if current is not None and current.id != snapshot.current_id:
        raise StaleTrainingError(
            f"{current.name} was promoted while this version was trained, and was not compared "
            "with it: run 'ddiseg refresh' again"
        )
    if not snapshot.has_holdout and session.scalars(select(ImageSplit.image_id).limit(1)).first():
        raise StaleTrainingError(
            "the hold-out set was begun while this version was trained, and it may have learned from "
            "some of its masks: run 'ddiseg refresh' again"
        )


def _promote(session: Session, row: ModelVersion, actor: str, why: str, *, forced: bool) -> None:
    session.add(Promotion(model_version_id=row.id, actor=actor, why=why, forced=forced))
    detail = {"model": row.name, "why": why, "forced": forced}
    session.add(Event(kind="promote", actor=actor, detail=detail))
