"""Outcomes and progress of long jobs over many files: one refused file never stops the rest."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from annotation_protocol.errors import UserError
from ddiseg.errors import InputError

_logger = logging.getLogger(__name__)


class Outcome(StrEnum):
    """The outcome of one file of a batch."""

    ADDED = "added"  #: new in the catalogue
    UNCHANGED = "unchanged"  #: was already there, identical
    REPAIRED = "repaired"  #: was already there; something was corrected or restored
    REFUSED = "refused"  #: not taken, for the reason given


@dataclass(frozen=True)
class Note:
    """A remark on one file, and its kind: equal for all files with such a remark, and counted."""

    text: str
    kind: str = ""  #: without the numbers and names of this file; "": the text itself

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", self.kind or self.text)


@dataclass(frozen=True)
class FileOutcome:
    """The outcome of one file; `note` is the reason of a refusal or a remark."""

    name: str
    outcome: Outcome
    note: str | None = None
    #: The parts of `note`, where they have kinds.
    remarks: tuple[Note, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def noted(cls, name: str, outcome: Outcome, remarks: Iterable[Note]) -> FileOutcome:
        """Return the outcome of a file with its remarks, each of which is kept once."""
        kept = tuple(dict.fromkeys(remarks))
        return cls(name, outcome, "; ".join(each.text for each in kept) or None, kept)

    @property
    def kinds(self) -> tuple[Note | None, ...]:
        """The remarks that a summary counts; None alone where there are none."""
        return self.remarks or (Note(self.note) if self.note is not None else None,)


def count(outcomes: Iterable[FileOutcome]) -> dict[str, int]:
    """Return the number of files by outcome, every outcome named."""
    found = Counter(o.outcome for o in outcomes)
    return {o.value: found.get(o, 0) for o in Outcome}


#: Files of one group, or reasons, named in a line.
NAMED = 3


@dataclass(frozen=True)
class OutcomeGroup:
    """Files of a batch that ended alike, for a reason of the same kind."""

    outcome: Outcome
    note: str | None  #: the text of a single file, the kind of several with different texts
    names: tuple[str, ...]
    whole: bool = True  #: `note` is the text of every file

    def in_words(self, what: str) -> str:
        """One line without the outcome: "a.png: reason" or "40 files: reason (a.png, b.png, ...)".

        Names may hold any character, and notes may hold names: control characters are escaped.
        """
        if len(self.names) == 1:
            return escaped(f"{self.names[0]}: {self.note}")
        more = ", ..." if len(self.names) > NAMED else ""
        named = ", ".join(self.names[:NAMED])
        return escaped(f"{len(self.names)} {what}: {self.note} ({named}{more})")


#: Controls of a terminal, ends of lines, changes of direction and lone surrogates.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escaped(text: str) -> str:
    """Return text whose control characters are written as in Python, so that a file's name can't forge a line."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def is_storable(text: str) -> bool:
    """Return whether every database can hold a text: no NUL, no half of a surrogate pair."""
    return not re.search("[\x00\ud800-\udfff]", text)


def fold(outcomes: Iterable[FileOutcome]) -> list[OutcomeGroup]:
    """Group files by outcome and kind of note, in the order in which each was met first.

    A file with several remarks is in several groups.
    """
    groups: dict[tuple[Outcome, str | None], list[tuple[str, str | None]]] = {}
    for each in outcomes:
        for remark in each.kinds:
            kind, text = (remark.kind, remark.text) if remark is not None else (None, None)
            groups.setdefault((each.outcome, kind), []).append((each.name, text))
    folded = []
    for (outcome, kind), files in groups.items():
        texts = {text for _, text in files}
        note = texts.pop() if len(texts) == 1 else kind
        folded.append(OutcomeGroup(outcome, note, tuple(n for n, _ in files), not texts))
    return folded


def refusals(outcomes: Iterable[FileOutcome]) -> list[FileOutcome]:
    """Return the files of a batch that were refused."""
    return [each for each in outcomes if each.outcome is Outcome.REFUSED]


def reasons_in_words(refused: Iterable[FileOutcome], what: str) -> str:
    """Return why files were refused in one line: the most frequent reasons, for an error message."""
    groups = sorted(fold(refused), key=lambda group: -len(group.names))
    words = [group.in_words(what) for group in groups[:NAMED]]
    rest = sum(len(group.names) for group in groups[NAMED:])
    return "; ".join([*words, *([f"{rest} more for other reasons"] if rest else [])])


def nothing_taken(outcomes: Sequence[FileOutcome]) -> bool:
    """Return whether a batch failed as a whole: there were files, and every one was refused."""
    return bool(outcomes) and len(refusals(outcomes)) == len(outcomes)


@contextmanager
def one_file() -> Iterator[None]:
    """Refuse one file, or one entry of a file, whose reader fails in a way that nobody foresaw.

    Only what reads a file belongs inside: a fault of the store or of the catalogue ends the import.

    Raises:
        InputError: instead of any exception that is no UserError; --debug shows its traceback.
    """
    try:
        yield
    except UserError:
        raise
    except MemoryError as error:
        _logger.debug("a file could not be read", exc_info=True)
        raise InputError("needs more memory than this computer has left") from error
    except Exception as error:
        _logger.debug("a file could not be read", exc_info=True)
        first = next(iter(str(error).strip().splitlines()), "")[:200]
        what = f"{type(error).__name__}: {first}" if first else type(error).__name__
        raise InputError(
            f"this looks like a damaged or unusual file ({what}): export it again"
        ) from error


def images_in_groups(images: int, groups: int) -> str:
    """Return "12 images in 9 groups (...)": where patients are not known, groups are no patients."""
    by = "by patient, lesion and near-duplicates; an image without is a group of its own"
    return f"{counted(images, 'image')} in {counted(groups, 'group')} ({by})"


#: Called with (done, total) as a long job goes on.
Progress = Callable[[int, int], None]


def silent(_done: int, _total: int) -> None:
    """A Progress that shows nothing."""


def halves(progress: Progress) -> tuple[Progress, Progress]:
    """Return the Progress of the first and of the second of two passes over the same items."""

    def first(done: int, total: int) -> None:
        progress(done // 2, total)

    def second(done: int, total: int) -> None:
        progress(total // 2 + (done + 1) // 2, total)

    return first, second


#: Returns the Progress of one stage of a job that has several, by what the stage is called.
Stages = Callable[[str], Progress]


def silent_stages(_stage: str) -> Progress:
    """A Stages that shows nothing."""
    return silent


T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def worker_threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Provide threads that drop what they have not begun where the work is broken off."""
    with ThreadPoolExecutor(workers) as pool:
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


def map_batches(
    pool: ThreadPoolExecutor, work: Callable[[T], R], items: Sequence[T], size: int
) -> Iterator[list[R]]:
    """Yield the results of `work` in batches; the next batch runs while the caller has one."""
    ahead: list[Future[R]] = []
    for start in range(0, len(items), size):
        running = [pool.submit(work, item) for item in items[start : start + size]]
        if ahead:
            yield [future.result() for future in ahead]
        ahead = running
    yield [future.result() for future in ahead]


def track(items: Sequence[T], progress: Progress) -> Iterator[T]:
    """Yield the items, and report to `progress` how many are done."""
    for done, item in enumerate(items):
        progress(done, len(items))
        yield item
    progress(len(items), len(items))


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: "1 image", "1,200 images"; `plural` where it isn't noun + s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
