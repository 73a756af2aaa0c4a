"""Malignancy estimates of images by model versions: research output, not a diagnosis.

They are kept apart from the masks, so that nothing that shows or releases masks includes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import insert, select

from ddiseg.catalogue.database import Repository
from ddiseg.catalogue.tables import MalignancyEstimate
from ddiseg.outcomes import Outcome

#: Shown and stored with every estimate.
DISCLAIMER = "research output, not a diagnosis"


@dataclass(frozen=True)
class NewEstimate:
    """The probability of malignancy of an image by a model version."""

    image_id: int
    model_version_id: int
    probability: float


class MalignancyEstimates(Repository):
    """The estimates of a catalogue."""

    def add(self, batch: Sequence[NewEstimate]) -> list[Outcome]:
        """Store one estimate an image and model version; stored ones are kept."""
        with self._database.write([new.image_id for new in batch]) as session:
            versions = {new.model_version_id for new in batch}
            query = select(MalignancyEstimate.image_id, MalignancyEstimate.model_version_id).where(
                MalignancyEstimate.model_version_id.in_(versions)
            )
            stored = {(image_id, version) for image_id, version in session.execute(query)}
            is_new = [(n.image_id, n.model_version_id) not in stored for n in batch]
            rows = [asdict(new) for new, fresh in zip(batch, is_new, strict=True) if fresh]
            if rows:
                session.execute(insert(MalignancyEstimate), rows)
        return [Outcome.ADDED if fresh else Outcome.UNCHANGED for fresh in is_new]

    def estimated_by(self, model_version_id: int) -> set[int]:
        """Return the ids of images with an estimate by a model version."""
        query = select(MalignancyEstimate.image_id).where(
            MalignancyEstimate.model_version_id == model_version_id
        )
        return set(self._all(query))

    def of_image(self, image_id: int) -> Sequence[MalignancyEstimate]:
        """Return the estimates of an image, oldest model version first."""
        query = select(MalignancyEstimate).where(MalignancyEstimate.image_id == image_id)
        return self._all(query.order_by(MalignancyEstimate.model_version_id))

    def of_version(self, model_version_id: int) -> dict[int, float]:
        """Return the probabilities by a model version, by image id."""
        query = select(MalignancyEstimate.image_id, MalignancyEstimate.probability).where(
            MalignancyEstimate.model_version_id == model_version_id
        )
        return {image_id: value for image_id, value in self._rows(query)}
