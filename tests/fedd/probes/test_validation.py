from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedd.validation import FEWEST_IMAGES, Candidate, validation_split

TONES = ("I-II", "III-IV", "V-VI", "unknown")
BOTH = frozenset({1, 4})


def candidate(number: int, patient: str, tone: str, classes: frozenset[int] = BOTH) -> Candidate:
    return Candidate(f"digest-{number}", patient, tone, classes)


CROWD = [candidate(i, f"p{i // 2}", TONES[(i // 2) % 3]) for i in range(60)]

crowds = st.lists(
    st.tuples(
        st.integers(0, 15), st.sampled_from(TONES), st.frozensets(st.integers(0, 4), min_size=1)
    ),
    min_size=FEWEST_IMAGES,
    max_size=60,
).map(lambda rows: [candidate(i, f"p{p}", t, c) for i, (p, t, c) in enumerate(rows)])


@given(crowds, st.floats(0.1, 0.5), st.integers(0, 5))
def test_split__patients_apart_and_nothing_lost_to_training(
    crowd: list[Candidate], share: float, seed: int
) -> None:
    held = set(validation_split(crowd, share, seed).images)
    left = [c for i, c in enumerate(crowd) if i not in held]
    assert {crowd[i].patient for i in held}.isdisjoint(c.patient for c in left)
    assert {c.tone for c in crowd} == {c.tone for c in left}
    assert frozenset().union(*(c.classes for c in crowd)) == frozenset().union(
        *(c.classes for c in left)
    )


def test_split__tones_alike_though_one_is_rare() -> None:
    tones = ["I-II"] * 40 + ["III-IV"] * 14 + ["V-VI"] * 6
    crowd = [candidate(i, f"p{i}", tone) for i, tone in enumerate(tones)]
    held = validation_split(crowd, 0.2, 0)
    assert Counter(crowd[i].tone for i in held.images) == {"I-II": 4, "III-IV": 4, "V-VI": 4}
    assert held.note == ""


def test_split__order_of_the_images_decides_nothing() -> None:
    forward = {CROWD[i].digest for i in validation_split(CROWD, 0.2, 0).images}
    turned = CROWD[::-1]
    assert {turned[i].digest for i in validation_split(turned, 0.2, 0).images} == forward
    assert {CROWD[i].digest for i in validation_split(CROWD, 0.2, 1).images} != forward


def test_split__grows_with_new_patients_only() -> None:
    before = {CROWD[i].digest for i in validation_split(CROWD, 0.2, 0).images}
    learned = {c.digest for c in CROWD} - before
    more = [*CROWD, *(candidate(100 + i, f"new{i}", TONES[i % 3]) for i in range(15))]
    after = {more[i].digest for i in validation_split(more, 0.2, 0, before, learned).images}
    assert before < after
    assert learned.isdisjoint(after)


def test_split__a_patient_validated_on_and_learned_from_leaks() -> None:
    before = {CROWD[i].digest for i in validation_split(CROWD, 0.2, 0).images}
    learned = {c.digest for c in CROWD} - before
    one, other = (next(c for c in CROWD if c.digest in part) for part in (before, learned))
    merged = [replace(c, patient=one.patient) if c is other else c for c in CROWD]
    found = validation_split(merged, 0.2, 0, before, learned)
    assert (found.images, found.leaked) == ((), True)
    assert f"(1 of {len({c.patient for c in merged})} patients)" in found.note


@pytest.mark.parametrize(
    ("crowd", "share", "says"),
    [
        (CROWD[: FEWEST_IMAGES - 1], 0.2, "19 images are too few"),
        ([candidate(i, "one", "I-II") for i in range(30)], 0.2, "(patients: 1)"),
        (CROWD, 0.0, "no validation split"),
    ],
)
def test_split__what_cannot_be_split_says_why(
    crowd: list[Candidate], share: float, says: str
) -> None:
    held = validation_split(crowd, share, 0)
    assert held.images == ()
    assert says in held.note
