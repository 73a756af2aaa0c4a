from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedd.errors import TrainingDataError
from fedd.validation import stratified_validation
from tests.wording import Refusal

TONES = ("I-II", "III-IV", "V-VI")


def test_part__its_share_of_each_label_and_tone() -> None:
    """20 of each of 6 strata, one a patient: 4 of each are held out."""
    malignant = [n % 2 == 0 for n in range(120)]
    tones = [TONES[n // 2 % 3] for n in range(120)]
    part = stratified_validation(malignant, tones, [str(n) for n in range(120)], 0.2, seed=3)
    counts = Counter(zip(np.array(malignant)[part], np.array(tones)[part], strict=True))
    assert set(counts.values()) == {4}
    assert len(counts) == 6


def test_part__small_strata_share_what_their_label_is_due() -> None:
    """5 malignant images, one or two a tone: one of them is held out, not none and not one a tone."""
    malignant = [True] * 5 + [False] * 20
    tones = [TONES[n % 3] for n in range(25)]
    part = stratified_validation(malignant, tones, [str(n) for n in range(25)], 0.2)
    assert part[:5].sum() == 1
    assert part[5:].sum() == 4


Rows = list[tuple[bool, str, int]]


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from(TONES), st.integers(0, 12)),
        min_size=2,
        max_size=80,
    ),
    st.sampled_from([0.01, 0.1, 0.2, 0.5, 0.9]),
    st.integers(0, 5),
)
def test_part__apart_by_patient_with_both_labels_on_both_sides(
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


@given(st.integers(0, 20), st.permutations(range(24)))
def test_part__the_order_of_the_rows_decides_nothing(seed: int, order: list[int]) -> None:
    malignant = [n % 3 == 0 for n in range(24)]
    tones = [TONES[n % 2] for n in range(24)]
    patients = [f"p{n // 2}" for n in range(24)]
    part = stratified_validation(malignant, tones, patients, seed=seed)
    shuffled = stratified_validation(
        [malignant[n] for n in order], [tones[n] for n in order], [patients[n] for n in order],
        seed=seed,
    )  # fmt: skip
    np.testing.assert_array_equal(part[order], shuffled)


def test_part__another_seed_another_part() -> None:
    rows = [n % 2 == 0 for n in range(40)], ["I-II"] * 40, [str(n) for n in range(40)]
    assert not np.array_equal(
        stratified_validation(*rows, seed=0), stratified_validation(*rows, seed=1)
    )


def test_part__patients_with_many_images_each() -> None:
    """Two patients a label, of 10 images: one of each is held out, though that is more than a share."""
    patients = [f"p{n // 10}" for n in range(40)]
    part = stratified_validation([n < 20 for n in range(40)], ["I-II"] * 40, patients, 0.1)
    assert part.sum() == 20
    assert len({p for p, held in zip(patients, part, strict=True) if held}) == 2


@pytest.mark.parametrize(
    ("malignant", "patients"),
    [
        ([True, True, True], "abc"),
        ([False, False, False], "abc"),
        ([True, False, False], "abc"),
        ([True, True, False, False], "aabc"),
    ],
)
def test_part__can_not_be(malignant: list[bool], patients: str, refusal: Refusal) -> None:
    with refusal(TrainingDataError):
        stratified_validation(malignant, ["I-II"] * len(malignant), list(patients))


@pytest.mark.parametrize("share", [0, 1, -0.1, 2])
def test_part__share_that_is_none(share: float, refusal: Refusal) -> None:
    with refusal(TrainingDataError):
        stratified_validation([True, False], ["I-II"] * 2, ["a", "b"], share)
