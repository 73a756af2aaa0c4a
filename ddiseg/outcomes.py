"""What became of each file of a batch: one refused file never stops the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar


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


#: Returns the Progress of one stage of a job that has several, by what the stage is called.
Stages = Callable[[str], Progress]


def silent_stages(_stage: str) -> Progress:
    """A Stages that shows nothing."""
    return silent


T = TypeVar("T")


def counted(items: Sequence[T], progress: Progress) -> Iterator[T]:
    """Yield the items, and tell `progress` how many of them are done with."""
    for done, item in enumerate(items):
        progress(done, len(items))
        yield item
    progress(len(items), len(items))
