"""A decision is chosen only where its gain over patients is clear; every figure has its n."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pytest

from fedd.probes.choice import FEWEST, THRESHOLDS, Choice, choose, default_choice
from fedd.probes.decision import DEFAULT, Decision, Refinement, SecondPass
from fedd.probes.unseen import Unseen


@dataclass(frozen=True)
class _Patient:
    patient: str


class _Scored:
    """An image whose IoU with each decision is given."""

    def __init__(self, patient: str, score: Callable[[Decision], float]) -> None:
        self.kept, self._score = _Patient(patient), score

    def mask(self, decision: Decision) -> Decision:
        return decision

    def iou(self, mask: Decision) -> list[float]:
        return [0.0, self._score(mask)]


def chosen(gain: Callable[[Decision], float], spread: float = 0.005, n: int = 20) -> Choice:
    """The choice on images of which a decision gains so much, give or take the spread."""
    rng = np.random.default_rng(0)

    def image(number: int) -> Any:
        noise: dict[Decision, float] = {}

        def score(decision: Decision) -> float:
            off = noise.setdefault(decision, rng.normal(0, spread))
            return 0.6 + gain(decision) + off

        return _Scored(f"p{number}", score)

    return choose(cast(list[Unseen], [image(number) for number in range(n)]), 1)


def test_choose__a_clear_gain_of_the_first_pass_alone() -> None:
    found = chosen(lambda d: 0.05 * (d.second_pass is SecondPass.OFF))
    assert found.decision == replace(DEFAULT, second_pass=SecondPass.OFF)
    assert "+0.0" in found.why
    assert "n = 20 images of 20 patients" in found.why


def test_choose__a_clear_gain_of_a_threshold() -> None:
    found = chosen(lambda d: 0.05 * (d.threshold == THRESHOLDS[0]))
    assert found.decision == replace(DEFAULT, threshold=THRESHOLDS[0])


def test_choose__noise_chooses_nothing() -> None:
    found = chosen(lambda d: 0.01 * (d.second_pass is SecondPass.REPLACE), spread=0.1)
    assert found.decision == DEFAULT
    assert found.why.startswith("the default: nothing else is clearly better")
    assert any((c.gain.value or 0) > 0.005 for c in found.candidates), "one looked better"


def test_choose__a_clear_gain_too_small_to_count() -> None:
    found = chosen(lambda d: 0.003 * (d.second_pass is SecondPass.OFF), spread=1e-6)
    assert found.decision == DEFAULT
    best = max(found.candidates, key=lambda c: c.gain.value or 0)
    assert best.gain.low is not None
    assert best.gain.low > 0, "it was clear"


def test_choose__better_without_grabcut_only() -> None:
    """What is better than the plain default is not better with GrabCut, which undoes the gain."""

    def gain(decision: Decision) -> float:
        cut = decision.refinement is Refinement.GRABCUT
        return 0.05 if cut else 0.03 * (decision.second_pass is SecondPass.OFF)

    assert chosen(gain).decision == DEFAULT


def test_choose__grabcut_that_hurts_is_left_out() -> None:
    found = chosen(lambda d: -0.05 * (d.refinement is Refinement.GRABCUT))
    assert found.decision == replace(DEFAULT, refinement=Refinement.NONE)


def test_choose__images_of_one_patient_are_no_independent_evidence() -> None:
    """Half of the images gain: of as many patients, or of one."""
    offs = np.random.default_rng(1).normal(0, 0.02, 40)

    def image(number: int, patient: str) -> Any:
        gain = offs[number] + 0.1 * (number < 20)
        return _Scored(patient, lambda d: 0.5 + float(gain) * (d.second_pass is SecondPass.OFF))

    apart = [image(k, f"p{k}") for k in range(40)]
    of_one = [image(k, "q" if k < 20 else f"p{k}") for k in range(40)]
    assert choose(apart, 1).decision.second_pass is SecondPass.OFF
    assert choose(of_one, 1).decision == DEFAULT


def test_choose__tells_all_that_was_tried() -> None:
    stored = chosen(lambda d: 0.0).to_dict()
    assert len(stored["candidates"]) == len(SecondPass) * len(THRESHOLDS) + 1
    assert stored["is_default"] is True
    one = stored["candidates"][0]
    assert one["iou"]["n"] == one["gain"]["n"] == 20
    assert one["gain"]["patients"] == 20
    assert one["gain"]["interval"][0] <= one["gain"]["value"] <= one["gain"]["interval"][1]


@pytest.mark.parametrize("patients", [0, 1, FEWEST - 1])
def test_default_choice__says_how_few(patients: int) -> None:
    found = default_choice(patients)
    assert found.decision == DEFAULT
    assert found.candidates == ()
    assert (str(patients) if patients else "no unseen masks") in found.why
