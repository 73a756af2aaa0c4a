"""Comparisons of two masks of an image: computed once, since masks never change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy.dialects import postgresql, sqlite

from ddiseg.catalogue.database import Repository
from ddiseg.catalogue.tables import ComparisonKind, MaskComparison


@dataclass(frozen=True)
class Comparison:
    """How far two masks agree; see `MaskComparison`."""

    mask_id: int
    other_id: int
    kind: ComparisonKind
    lesion_dice: float | None = None
    mean_dice: float | None = None
    changed: float | None = None


class Comparisons(Repository):
    """The comparisons of a catalogue."""

    def add(self, comparisons: Sequence[Comparison]) -> None:
        """Store comparisons; one that is stored already, by another process perhaps, is kept."""
        if not comparisons:
            return
        on_postgresql = self._database.engine.dialect.name == "postgresql"
        insert = (postgresql if on_postgresql else sqlite).insert
        with self._database.write([]) as session:
            session.execute(
                insert(MaskComparison).on_conflict_do_nothing(),
                [asdict(each) for each in comparisons],
            )
