"""Outcomes of a batch: equal reasons are one, and a batch of refusals has taken nothing."""

from __future__ import annotations

import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.outcomes import (
    FileOutcome,
    Outcome,
    fold,
    halves,
    images_in_groups,
    nothing_taken,
    reasons_in_words,
)

A = FileOutcome("a.png", Outcome.REFUSED, "is no mask")
B = FileOutcome("b.png", Outcome.REFUSED, "is too large")
ADDED = FileOutcome("c.png", Outcome.ADDED)


def refused(count: int) -> list[FileOutcome]:
    return [FileOutcome(f"{n}.png", Outcome.REFUSED, "is no mask") for n in range(count)]


def test_fold__by_outcome_and_note() -> None:
    groups = fold([A, B, ADDED, FileOutcome("d.png", Outcome.REFUSED, "is no mask")])
    assert [(g.outcome, g.note, g.names) for g in groups] == [
        (Outcome.REFUSED, "is no mask", ("a.png", "d.png")),
        (Outcome.REFUSED, "is too large", ("b.png",)),
        (Outcome.ADDED, None, ("c.png",)),
    ]


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (1, "0.png: is no mask"),
        (3, "3 masks: is no mask (0.png, 1.png, 2.png)"),
        (4, "4 masks: is no mask (0.png, 1.png, 2.png, ...)"),
    ],
)
def test_in_words(count: int, words: str) -> None:
    assert [group.in_words("masks") for group in fold(refused(count))] == [words]


def test_in_words__names_forge_no_line() -> None:
    """Names from elsewhere may hold anything: ends of lines, commands to the terminal."""
    names = ["a\nrefused  everything.png", "\x1b[2Jb.png", "\u202egnp.c", "\u00e4 \u76ae.png"]
    shown = [r"a\nrefused  everything.png", r"\x1b[2Jb.png", r"\u202egnp.c", "\u00e4 \u76ae.png"]
    for name, one in zip(names, shown, strict=True):
        (group,) = fold([FileOutcome(name, Outcome.REFUSED, f"same as {name}")])
        assert group.names == (name,)
        assert group.in_words("masks") == f"{one}: same as {one}"
    (group,) = fold([FileOutcome(name, Outcome.REFUSED, "no") for name in names[:3]])
    assert group.in_words("masks") == f"3 masks: no ({', '.join(shown[:3])})"


def test_halves__of_two_passes() -> None:
    told: list[tuple[int, int]] = []
    first, second = halves(lambda done, total: told.append((done, total)))
    for half in (first, second):
        for done in range(4):
            half(done, 3)
    assert told == [(0, 3), (0, 3), (1, 3), (1, 3), (1, 3), (2, 3), (2, 3), (3, 3)]


def test_reasons_in_words__the_most_frequent_first(wording: SnapshotAssertion) -> None:
    others = [FileOutcome(name, Outcome.REFUSED, f"reason {name}") for name in "vwx"]
    assert reasons_in_words([B, *others, *refused(2)], "masks") == wording


@pytest.mark.parametrize(
    ("outcomes", "expected"), [([], False), ([A, B], True), ([A, ADDED], False), ([ADDED], False)]
)
def test_nothing_taken(outcomes: list[FileOutcome], expected: bool) -> None:
    assert nothing_taken(outcomes) is expected


def test_images_in_groups__are_not_called_patients() -> None:
    text = images_in_groups(12, 1)
    assert text.startswith("12 images in 1 group (by patient, ")
