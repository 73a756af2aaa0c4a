"""The gate's arithmetic and what it says, on figures made by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from syrupy.assertion import SnapshotAssertion

from annotation_protocol.estimates import Estimate
from ddiseg.errors import InputError
from ddiseg.evaluation.gate import (
    LESION,
    MEAN,
    CurrentPrediction,
    GateDecision,
    HoldoutImage,
    decide,
    refuse,
)
from tests.wording import Refusal

CLASSES = 5
TONES = ("I-II", "III-IV", "V-VI")


def _matrix(hit: int, missed: int = 0, false: int = 0) -> NDArray[np.int64]:
    """Lesion (1) on skin (4): IoU of the lesion is hit / (hit + missed + false)."""
    matrix = np.zeros((CLASSES, CLASSES), np.int64)
    matrix[1, 1], matrix[1, 4], matrix[4, 1], matrix[4, 4] = hit, missed, false, 100
    return matrix


def _image(
    number: int, tone: str, candidate: int, current: int | None, **options: str
) -> HoldoutImage:
    """An image whose lesion of 100 pixels was found to so many."""
    before = None if current is None else _matrix(current, 100 - current)
    matrix = _matrix(candidate, 100 - candidate)
    return HoldoutImage(options.get("patient", f"p{number}"), tone, (1, 4), matrix, before)


def _many(per_tone: dict[str, tuple[int, int]], n: int = 10) -> list[HoldoutImage]:
    return [
        _image(k * n + j, tone, candidate + j % 3, current + j % 3)
        for k, (tone, (candidate, current)) in enumerate(per_tone.items())
        for j in range(n)
    ]


def test_decide__better_for_all_passes(wording: SnapshotAssertion) -> None:
    decision = decide(_many(dict.fromkeys(TONES, (80, 70))), "fedd-1")
    assert (decision.passed, decision.evaluated) == (True, True)
    difference = decision.overall.difference
    assert difference is not None
    assert difference[LESION].value == pytest.approx(0.1)
    assert difference[LESION].interval == pytest.approx((0.1, 0.1))
    assert decision.reasons[1] == wording
    assert decision.holdout.by_tone == dict.fromkeys(TONES, 10)


def test_decide__worse_for_one_tone_is_refused_though_the_mean_rose(
    wording: SnapshotAssertion,
) -> None:
    decision = decide(_many({"I-II": (90, 60), "III-IV": (90, 60), "V-VI": (60, 70)}), "fedd-1")
    difference = decision.overall.difference
    assert difference is not None
    assert (difference[MEAN].value or 0) > 0
    assert not decision.passed
    assert decision.evaluated
    assert decision.reasons == wording


def test_decide__tolerance_decides() -> None:
    images = _many({"I-II": (75, 70), "V-VI": (67, 70)})
    assert not decide(images, "fedd-1", 0.02).passed
    assert decide(images, "fedd-1", 0.05).passed


def test_decide__worse_overall_is_refused_within_every_tolerance_of_a_tone(
    wording: SnapshotAssertion,
) -> None:
    decision = decide(_many(dict.fromkeys(TONES, (69, 70))), "fedd-1", 0.05)
    assert not decision.passed
    assert decision.reasons[1] == wording


def _over_its_painting(tone: str, n: int, start: int) -> list[HoldoutImage]:
    """Masks that people left as the version in use had painted them: none can do better."""
    return [
        replace(_image(start + k, tone, 73, 100), drawn_over=CurrentPrediction.UNCHANGED)
        for k in range(n)
    ]


def test_decide__masks_over_the_painting_of_the_version_in_use_do_not_speak_for_it() -> None:
    """Half of the held-out masks were accepted unchanged, and the candidate is better by 0.03."""
    images = _many(dict.fromkeys(TONES, (73, 70)))
    for k, tone in enumerate(TONES):
        images += _over_its_painting(tone, 10, 100 * (k + 1))
    for number in (-1, -2):
        images[number] = replace(images[number], drawn_over=CurrentPrediction.CORRECTED)
    decision = decide(images, "fedd-1")
    assert (decision.passed, decision.evaluated) == (True, True)
    difference = decision.overall.difference
    assert difference is not None
    assert difference[LESION].value == pytest.approx(0.03)
    assert (decision.overall.n, decision.overall.over_predictions) == (30, 0)
    assert (
        "30 of 60 hold-out masks were drawn over a prediction of fedd-1, which favours it "
        "(28 unchanged, 2 corrected): they count only where there are too few others"
    ) in decision.reasons
    assert decision.to_json()["held_out"] == {
        "images": 60,
        "patients": 60,
        "by_tone": dict.fromkeys(TONES, 20),
        "members": [],
        "leaked": 0,
        "drawn_over_its_painting": {"unchanged": 28, "corrected": 2},
    }


def test_decide__masks_over_its_painting_count_where_the_others_are_too_few() -> None:
    images = [*_many({"I-II": (90, 60)}), *_over_its_painting("V-VI", 8, 100)]
    decision = decide(images, "fedd-1")
    assert not decision.passed, "nothing else is known of V-VI"
    assert decision.by_tone["V-VI"].over_predictions == 8
    assert (
        "V-VI: too few others, so 8 of them count (n = 8 images of 8 patients)" in decision.reasons
    )
    assert not any(reason.startswith("overall:") for reason in decision.reasons)
    alone = decide(images[7:], "fedd-1")
    assert (alone.overall.n, alone.overall.over_predictions) == (11, 8)
    assert (
        "overall: too few others, so 8 of them count (n = 11 images of 11 patients)"
        in alone.reasons
    )


def test_refuse__keeps_what_was_measured(wording: SnapshotAssertion) -> None:
    decision = decide(_many(dict.fromkeys(TONES, (80, 70))), "fedd-1")
    refused = refuse(decision, "fedd-2 came into use")
    assert not refused.passed
    assert refused.reasons == ("fedd-2 came into use", *decision.reasons)
    assert refused.overall == decision.overall
    nothing = refuse(None, "masks were held out")
    assert (nothing.passed, nothing.evaluated, nothing.compared_with) == (False, False, None)
    assert nothing.reasons == wording


@pytest.mark.parametrize("tolerance", [-0.1, 1.5, float("nan")])
def test_decide__a_tolerance_that_is_none(tolerance: float, refusal: Refusal) -> None:
    with refusal(InputError):
        decide([], "fedd-1", tolerance)


def test_decide__nothing_held_out_says_so_and_passes() -> None:
    decision = decide([], "fedd-1")
    assert (decision.passed, decision.evaluated) == (True, False)
    assert decision.reasons == (
        "not evaluated: the hold-out set has no accepted mask yet",
        *(f"{tone}: no hold-out mask" for tone in TONES),
    )
    assert (decision.overall.n, decision.by_tone) == (0, {})


def test_decide__the_first_version_has_nothing_beside_it() -> None:
    decision = decide([_image(n, "V-VI", 80, None) for n in range(6)], None)
    assert (decision.passed, decision.evaluated) == (True, False)
    assert "no current model" in decision.reasons[0]
    assert decision.by_tone["V-VI"].candidate[LESION].value == pytest.approx(0.8)


def test_decide__one_tone_only_says_of_the_others_that_there_is_none(
    wording: SnapshotAssertion,
) -> None:
    decision = decide(_many({"I-II": (80, 70)}), "fedd-1")
    assert decision.passed
    assert decision.reasons[-2:] == wording


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([_image(n, "V-VI", 10, 90) for n in range(4)], "n = 4 images of 4 patients"),
        ([_image(n, "V-VI", 10, 90, patient="p") for n in range(9)], "n = 9 images of 1 patient"),
    ],
)
def test_decide__too_few_to_compare_shows_the_value(images: list[HoldoutImage], said: str) -> None:
    decision = decide(images, "fedd-1")
    assert (decision.passed, decision.evaluated) == (True, False)
    assert said in decision.reasons[0]
    assert decision.overall.candidate[LESION].value == pytest.approx(0.1)
    assert decision.overall.candidate[LESION].interval is None


@pytest.mark.parametrize(("candidate", "passed"), [(60, False), (69, True), (75, True)])
def test_decide__too_few_for_an_interval_compares_values(
    candidate: int, passed: bool, wording: SnapshotAssertion
) -> None:
    decision = decide([_image(n, "V-VI", candidate + n % 3, 70) for n in range(6)], "fedd-1")
    assert (decision.passed, decision.evaluated) == (passed, True)
    assert decision.overall.candidate[LESION].interval is None
    assert decision.reasons == wording


def test_decide__a_tone_with_too_few_does_not_refuse_but_is_named() -> None:
    images = _many({"I-II": (90, 60)}, 20) + [_image(100 + n, "V-VI", 10, 90) for n in range(3)]
    decision = decide(images, "fedd-1")
    assert decision.passed
    assert (
        "V-VI: not evaluated: too few hold-out masks (n = 3 images of 3 patients)"
        in decision.reasons
    )


def test_decide__masks_of_one_class() -> None:
    matrix = np.zeros((CLASSES, CLASSES), np.int64)
    matrix[4, 4] = 50
    images = [HoldoutImage(f"p{n}", "V-VI", (1, 4), matrix, matrix) for n in range(6)]
    decision = decide(images, "fedd-1")
    assert decision.passed
    assert decision.overall.candidate[LESION] == Estimate(groups=0)
    assert decision.overall.candidate[MEAN].value == 1.0


def test_decide__a_lesion_painted_where_none_is_counts_against_who_painted_it() -> None:
    nothing = np.zeros((CLASSES, CLASSES), np.int64)
    nothing[4, 4] = 100
    images = [HoldoutImage(f"p{n}", "V-VI", (1, 4), _matrix(0, 0, 20), nothing) for n in range(6)]
    difference = decide(images, "fedd-1").overall.difference
    assert difference is not None
    assert difference[LESION].value == -1.0


def test_decide__classes_that_the_annotator_could_not_use_do_not_count() -> None:
    matrix = _matrix(80, 20)
    matrix[4, 2] = 50  # a marker painted over skin, where markers were not asked for
    images = [HoldoutImage(f"p{n}", "V-VI", (1, 4), matrix, matrix) for n in range(6)]
    value = decide(images, "fedd-1").overall.candidate[MEAN].value
    assert value == pytest.approx((0.8 + 100 / 170) / 2)


def test_decide__a_hard_patient_weighs_on_both_alike() -> None:
    """Paired: the difference is the same for every patient, so its interval has no width."""
    images = [_image(n, "V-VI", 20 + 7 * n, 10 + 7 * n) for n in range(10)]
    decision: GateDecision = decide(images, "fedd-1")
    difference, candidate = decision.overall.difference, decision.overall.candidate
    assert difference is not None
    low, high = difference[LESION].interval or (0, 1)
    assert high - low < 1e-9
    low, high = candidate[LESION].interval or (0, 0)
    assert high - low > 0.1


def test_as_dict__is_json_with_what_made_the_intervals() -> None:
    values = json.loads(
        json.dumps(decide(_many(dict.fromkeys(TONES, (80, 70))), "fedd-1").to_json())
    )
    assert values["held_out"] == {
        "images": 30,
        "patients": 30,
        "by_tone": dict.fromkeys(TONES, 10),
        "members": [],
        "leaked": 0,
        "drawn_over_its_painting": {"unchanged": 0, "corrected": 0},
    }
    assert "patients" not in values
    assert values["by_tone"]["V-VI"]["candidate"][LESION]["n"] == 10
    assert values["intervals"] == {
        "over": "patients",
        "method": "jackknife",
        "fewest_patients": 10,
        "paired": True,
    }
