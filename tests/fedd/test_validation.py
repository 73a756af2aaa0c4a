from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedd.errors import TrainingDataError
from fedd.validation import FEWEST_IMAGES, Candidate, stratified_validation, validation_split
from tests.wording import Refusal

TONES = ("I-II", "III-IV", "V-VI")
BOTH = frozenset({1, 4})


def candidate(number: int, patient: str, tone: str, classes: frozenset[int] = BOTH) -> Candidate:
    return Candidate(f"digest-{number}", patient, tone, classes)


CROWD = [candidate(i, f"p{i // 2}", TONES[(i // 2) % 3]) for i in range(60)]

crowds = st.lists(
    st.tuples(
        st.integers(0, 15),
        st.sampled_from([*TONES, "unknown"]),
        st.frozensets(st.integers(0, 4), min_size=1),
    ),
    min_size=FEWEST_IMAGES,
    max_size=60,
).map(lambda rows: [candidate(i, f"p{p}", t, c) for i, (p, t, c) in enumerate(rows)])


@pytest.mark.property
@given(crowds, st.floats(0.1, 0.5), st.integers(0, 5))
def test_split__patients_apart_and_nothing_lost_to_training(
    crowd: list[Candidate], share: float, seed: int
) -> None:
    chosen = set(validation_split(crowd, share, seed).images)
    left = [c for i, c in enumerate(crowd) if i not in chosen]
    assert {crowd[i].patient for i in chosen}.isdisjoint(c.patient for c in left)
    assert {c.tone for c in crowd} == {c.tone for c in left}
    assert frozenset().union(*(c.classes for c in crowd)) == frozenset().union(
        *(c.classes for c in left)
    )


def test_split__tones_alike_though_one_is_rare() -> None:
    tones = ["I-II"] * 40 + ["III-IV"] * 14 + ["V-VI"] * 6
    crowd = [candidate(i, f"p{i}", tone) for i, tone in enumerate(tones)]
    chosen = validation_split(crowd, 0.2, 0)
    assert Counter(crowd[i].tone for i in chosen.images) == {"I-II": 4, "III-IV": 4, "V-VI": 4}
    assert chosen.note == ""


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
    chosen = validation_split(crowd, share, 0)
    assert chosen.images == ()
    assert says in chosen.note


def test_stratified__its_share_of_each_label_and_tone() -> None:
    """20 of each of 6 strata, one a patient: 4 of each are validated on."""
    malignant = [n % 2 == 0 for n in range(120)]
    tones = [TONES[n // 2 % 3] for n in range(120)]
    part = stratified_validation(malignant, tones, [str(n) for n in range(120)], 0.2, seed=3)
    counts = Counter(zip(np.array(malignant)[part], np.array(tones)[part], strict=True))
    assert set(counts.values()) == {4}
    assert len(counts) == 6


def test_stratified__small_strata_share_what_their_label_is_due() -> None:
    """5 malignant images, one or two a tone: one of them is validated on, not none and not one a tone."""
    malignant = [True] * 5 + [False] * 20
    tones = [TONES[n % 3] for n in range(25)]
    part = stratified_validation(malignant, tones, [str(n) for n in range(25)], 0.2)
    assert part[:5].sum() == 1
    assert part[5:].sum() == 4


Rows = list[tuple[bool, str, int]]


@pytest.mark.property
@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from(TONES), st.integers(0, 12)),
        min_size=2,
        max_size=80,
    ),
    st.sampled_from([0.01, 0.1, 0.2, 0.5, 0.9]),
    st.integers(0, 5),
)
def test_stratified__apart_by_patient_with_both_labels_in_both(
    rows: Rows, share: float, seed: int
) -> None:
    malignant = np.array([label for label, _, _ in rows])
    patients = np.array([f"p{p}" for _, _, p in rows])
    patients_of = {label: set(patients[malignant == label]) for label in (True, False)}
    if min(map(len, patients_of.values())) < 2:
        with pytest.raises(TrainingDataError):
            stratified_validation(malignant, [t for _, t, _ in rows], patients, share, seed)
        return
    part = stratified_validation(malignant, [t for _, t, _ in rows], patients, share, seed)
    assert not set(patients[part]) & set(patients[~part])
    for label in (True, False):
        assert (malignant[part] == label).any()
        assert (malignant[~part] == label).any()


@pytest.mark.property
@given(st.integers(0, 20), st.permutations(range(24)))
def test_stratified__the_order_of_the_rows_decides_nothing(seed: int, order: list[int]) -> None:
    malignant = [n % 3 == 0 for n in range(24)]
    tones = [TONES[n % 2] for n in range(24)]
    patients = [f"p{n // 2}" for n in range(24)]
    part = stratified_validation(malignant, tones, patients, seed=seed)
    shuffled = stratified_validation(
        [malignant[n] for n in order], [tones[n] for n in order], [patients[n] for n in order],
        seed=seed,
    )  # fmt: skip
    np.testing.assert_array_equal(part[order], shuffled)


def test_stratified__another_seed_another_part() -> None:
    rows = [n % 2 == 0 for n in range(40)], ["I-II"] * 40, [str(n) for n in range(40)]
    assert not np.array_equal(
        stratified_validation(*rows, seed=0), stratified_validation(*rows, seed=1)
    )


def test_stratified__patients_with_many_images_each() -> None:
    """Two patients a label, of 10 images: one of each is validated on, though that is more than a share."""
    patients = [f"p{n // 10}" for n in range(40)]
    part = stratified_validation([n < 20 for n in range(40)], ["I-II"] * 40, patients, 0.1)
    assert part.sum() == 20
    assert len({p for p, chosen in zip(patients, part, strict=True) if chosen}) == 2


@pytest.mark.parametrize(
    ("malignant", "patients"),
    [
        ([True, True, True], "abc"),
        ([False, False, False], "abc"),
        ([True, False, False], "abc"),
        ([True, True, False, False], "aabc"),
    ],
)
def test_stratified__can_not_be(malignant: list[bool], patients: str, refusal: Refusal) -> None:
    with refusal(TrainingDataError):
        stratified_validation(malignant, ["I-II"] * len(malignant), list(patients))


@pytest.mark.parametrize("share", [0, 1, -0.1, 2])
def test_stratified__share_that_is_none(share: float, refusal: Refusal) -> None:
    with refusal(TrainingDataError):
        stratified_validation([True, False], ["I-II"] * 2, ["a", "b"], share)
