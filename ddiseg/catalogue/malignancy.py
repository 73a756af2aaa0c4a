"""How likely images are malignant, by model version: research output, not a diagnosis.

Kept apart from the masks, so that nothing that gives masks to people or to a release carries it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import insert, select

from ddiseg.catalogue.database import Database
from ddiseg.catalogue.tables import MalignancyEstimate
from ddiseg.outcomes import Outcome

#: Stands wherever an estimate is shown or stored.
DISCLAIMER = "research output, not a diagnosis"


@dataclass(frozen=True)
class NewEstimate:
    """The probability that a model version gave an image."""

    image_id: int
    model_version_id: int
    probability: float


class MalignancyEstimates:
    """The estimates of a catalogue. Each method is one transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, batch: Sequence[NewEstimate]) -> list[Outcome]:
        """Estimates, one an image and model version; a second run leaves the first."""
        with self._database.write() as session:
            versions = {new.model_version_id for new in batch}
            query = select(MalignancyEstimate.image_id, MalignancyEstimate.model_version_id).where(
                MalignancyEstimate.model_version_id.in_(versions)
            )
            there = {(image_id, version) for image_id, version in session.execute(query)}
            is_new = [(n.image_id, n.model_version_id) not in there for n in batch]
            rows = [asdict(new) for new, fresh in zip(batch, is_new, strict=True) if fresh]
            if rows:
                session.execute(insert(MalignancyEstimate), rows)
        return [Outcome.ADDED if fresh else Outcome.UNCHANGED for fresh in is_new]

    def estimated_by(self, model_version_id: int) -> set[int]:
        """Images that a model version has given a probability."""
        query = select(MalignancyEstimate.image_id).where(
            MalignancyEstimate.model_version_id == model_version_id
        )
        with self._database.read() as session:
            return set(session.scalars(query))

    def of_image(self, image_id: int) -> Sequence[MalignancyEstimate]:
        """The estimates of an image, by the oldest model version first."""
        query = select(MalignancyEstimate).where(MalignancyEstimate.image_id == image_id)
        with self._database.read() as session:
            return session.scalars(query.order_by(MalignancyEstimate.model_version_id)).all()

    def of_version(self, model_version_id: int) -> dict[int, float]:
        """The probabilities that a model version gave, by image id."""
        query = select(MalignancyEstimate.image_id, MalignancyEstimate.probability).where(
            MalignancyEstimate.model_version_id == model_version_id
        )
        with self._database.read() as session:
            return {image_id: value for image_id, value in session.execute(query)}
