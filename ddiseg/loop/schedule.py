"""When a refresh of the model is due: enough new masks, or some and a model of some age."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ddiseg.catalogue import Catalogue
from ddiseg.outcomes import counted
from ddiseg.workspace.settings import TrainingSettings
from ddiseg.workspace.status import masks_to_learn
from ddiseg.workspace.workspace import Workspace


@dataclass(frozen=True)
class Due:
    """Whether a refresh is due, and why."""

    is_due: bool
    why: str


@dataclass(frozen=True)
class RefreshSettings:
    """When a refresh is due, and the source of each number.

    Raises:
        InputError: a number is out of range.
    """

    every: int
    max_age: float  #: days
    sources: dict[str, str]  #: by option, such as "--every"

    def __post_init__(self) -> None:
        TrainingSettings(every=self.every, max_age=self.max_age)

    @classmethod
    def read(
        cls, workspace: Workspace, every: int | None = None, max_age: float | None = None
    ) -> RefreshSettings:
        """Return the numbers given; else the workspace's; else the last round's; else the defaults."""
        row = workspace.catalogue.rounds.last_with_settings()
        changed = workspace.training().changed()
        recorded = (row.settings if row is not None else None) or {}
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for name, given in (("every", every), ("max_age", max_age)):
            option = f"--{name.replace('_', '-')}"
            if given is not None:
                values[name], sources[option] = given, "given here"
            elif (key := f"training.{option[2:]}") in changed:
                values[name], sources[option] = changed[key], "as in ddiseg.toml"
            elif row is not None and name in recorded:
                values[name], sources[option] = recorded[name], f"as in round {row.id}"
            else:
                values[name] = getattr(TrainingSettings, name)
                sources[option] = "the default, no round recorded its own"
        return cls(**values, sources=sources)

    @property
    def as_text(self) -> str:
        every, max_age = self.sources.values()
        numbers = f"--every {self.every}", f"--max-age {self.max_age:g}"
        if every == max_age:
            return f"{', '.join(numbers)} ({every})"
        return f"{numbers[0]} ({every}), {numbers[1]} ({max_age})"


def refresh_due(
    catalogue: Catalogue, every: int, max_age: timedelta, now: datetime | None = None
) -> Due:
    """Decide whether a refresh is due.

    Args:
        every: new accepted masks that make it due.
        max_age: age of the newest version with which one new mask makes it due.
    """
    newest = catalogue.models.newest_brief()
    waiting = masks_to_learn(catalogue)
    masks = counted(waiting, "accepted mask" if newest is None else "new accepted mask")
    if waiting >= every:
        return Due(True, f"{masks}, a refresh is due every {every}")
    if newest is not None and waiting:
        # If the clock was set back, a version may seem to be of tomorrow: then it is not old.
        age = (now or datetime.now(UTC)) - datetime.fromisoformat(newest.created_at)
        if age >= max_age:
            return Due(True, f"{masks}, and {newest.name} is {counted(age.days, 'day')} old")
    return Due(False, f"{masks} of the {every} that a refresh waits for")
