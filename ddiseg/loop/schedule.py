"""When the probes are to be refreshed: enough new masks, or some and a version of some age."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ddiseg.catalogue import Catalogue, ModelKind
from ddiseg.workspace.status import masks_to_learn


@dataclass(frozen=True)
class Due:
    """Whether a refresh is due, and why."""

    is_due: bool
    why: str


def refresh_due(
    catalogue: Catalogue, every: int, max_age: timedelta, now: datetime | None = None
) -> Due:
    """Whether `every` accepted masks, or one and a version of `max_age`, wait to be learned from."""
    versions = catalogue.models.all(ModelKind.SEGMENTATION)
    newest = versions[-1] if versions else None
    waiting = masks_to_learn(catalogue)
    of = f"{waiting} new accepted masks" if newest is not None else f"{waiting} accepted masks"
    if waiting >= every:
        return Due(True, f"{of}, a refresh is due every {every}")
    if newest is not None and waiting:
        # A clock that was set back makes a version look as if it were of tomorrow: not old, then.
        age = (now or datetime.now(UTC)) - datetime.fromisoformat(newest.created_at)
        if age >= max_age:
            return Due(True, f"{of}, and {newest.name} is {age.days} days old")
    return Due(False, f"{of} of the {every} that a refresh waits for")
