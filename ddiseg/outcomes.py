"""What became of each file of a batch: one refused file never stops the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How one file of a batch ended."""

    ADDED = "added"  #: new in the catalogue
    UNCHANGED = "unchanged"  #: was there already, exactly so
    REPAIRED = "repaired"  #: was there; something missing or corrected was put right
    REFUSED = "refused"  #: not taken, for the reason given


@dataclass(frozen=True)
class FileOutcome:
    """The outcome of one file; `note` is the reason of a refusal or what is worth knowing."""

    name: str
    outcome: Outcome
    note: str | None = None


def count(outcomes: Iterable[FileOutcome]) -> dict[str, int]:
    """Number of files by outcome, every outcome named."""
    found = Counter(o.outcome for o in outcomes)
    return {o.value: found.get(o, 0) for o in Outcome}


#: Called with (done, total) as a long job goes on.
Progress = Callable[[int, int], None]


def silent(_done: int, _total: int) -> None:
    """A Progress that shows nothing."""
