from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from annotation_protocol.estimates import Sample
from annotation_protocol.intervals import Scale
from fedd.dataset import TONES
from fedd.reproduce import ImageSet
from fedd.reproduce.improvement import ChosenOn, Improvement, improvements
from fedd.reproduce.results import Result
from fedd.reproduce.scores import by_key, scores
from fedd.reproduce.table import tables
from tests.fedd.reproduce.test_scores import (
    EVERY,
    LIKE_THE_PAPER,
    PARTS,
    TINY_PLAN,
    VALIDATION,
    _classified,
    _segmented,
)

REMAINING = PARTS.sets[ImageSet.REMAINING]


def _gains(*results: Result, small: bool = False) -> list[Improvement]:
    plan = TINY_PLAN if small else LIKE_THE_PAPER
    return improvements(results, scores(results, PARTS, plan), PARTS, plan)


def _swapped(result: Result, stems: list[str]) -> Result:
    """The result with these probabilities turned round."""
    found = {s: 1 - p if s in stems else p for s, p in result.probabilities.items()}
    return replace(result, probabilities=found)


def test_improvements__accuracy_on_the_remaining_photographs() -> None:
    fedd, vgg = _classified(0, lift=0.5), _classified(1, "VGG16", lift=0.2)
    gain = _gains(fedd, vgg)[0]
    assert (gain.measured_on, gain.metric, gain.next_best) == (
        ImageSet.REMAINING,
        "accuracy",
        "VGG16",
    )
    truth = np.array([bool(i.malignant) for i in REMAINING])
    right = [
        truth == (np.array([r.probabilities[i.stem] for i in REMAINING]) > 0.5) for r in (fedd, vgg)
    ]
    paired = Sample(
        right[0].astype(float) - right[1], [i.stem for i in REMAINING], scale=Scale.SIGNED
    ).estimate()
    assert (gain.estimate.value, gain.estimate.n) == (pytest.approx(paired.value), 24)
    assert gain.estimate.interval == pytest.approx(paired.interval)
    assert gain.paper == 0.14
    assert gain.difference == pytest.approx(paired.value - 0.14)


def test_improvements__iou_is_the_difference_of_the_scores() -> None:
    results = _segmented(0), _segmented(1, "VGG16")
    known = by_key(scores(results, PARTS, LIKE_THE_PAPER))
    values = [
        known[ImageSet.SEGMENTATION_TEST, m, 5, "all", "miou"].value for m in ("FEDD", "VGG16")
    ]
    gain = _gains(*results)[0]
    assert gain.estimate.value == pytest.approx(values[0] - values[1])
    assert gain.paper == 0.18
    assert gain.estimate.low < gain.estimate.value < gain.estimate.high


def test_improvements__next_best_on_the_test_and_on_validation() -> None:
    """VGG16 is best on the test, DenseNet121 on validation."""
    right = _classified(1, lift=0.5)
    tested = {i.stem for i in EVERY} - {i.stem for i in VALIDATION}
    cells = [replace(right.cell, model=m) for m in ("VGG16", "DenseNet121")]
    vgg = replace(_swapped(right, [i.stem for i in VALIDATION]), cell=cells[0])
    dense = replace(_swapped(right, sorted(tested)[:12]), cell=cells[1])
    on = {gain.chosen_on: gain for gain in _gains(_classified(0), vgg, dense)}
    assert on[ChosenOn.TEST].next_best == "VGG16"
    assert on[ChosenOn.VALIDATION].next_best == "DenseNet121"
    assert on[ChosenOn.TEST].paper == 0.14
    assert on[ChosenOn.VALIDATION].paper is None, "the paper chose on the test"
    assert on[ChosenOn.VALIDATION].estimate.value > on[ChosenOn.TEST].estimate.value


def test_improvements__of_seeds_are_of_their_mean() -> None:
    of_seeds = [_classified(0), _classified(1), *(_classified(s, "VGG16") for s in (0, 2))]
    gain = _gains(*of_seeds)[0]
    known = by_key(scores(of_seeds, PARTS, LIKE_THE_PAPER))
    values = [known[ImageSet.REMAINING, m, 5, "all", "accuracy"].value for m in ("FEDD", "VGG16")]
    assert gain.estimate.value == pytest.approx(values[0] - values[1])


def test_improvements__too_few_of_a_class_for_an_interval_as_of_their_parts() -> None:
    """Of 24 remaining photographs nine are malignant: neither accuracy has an interval."""
    malignant = [i for i in REMAINING if i.malignant]
    fewer = [i for i in REMAINING if i not in malignant[9:]]
    parts = replace(PARTS, sets={**PARTS.sets, ImageSet.REMAINING: fewer})
    results = _classified(0), _classified(1, "VGG16")
    found = scores(results, parts, LIKE_THE_PAPER)
    gain = improvements(results, found, parts, LIKE_THE_PAPER)[0]
    of_part = by_key(found)[ImageSet.REMAINING, "FEDD", 5, "all", "accuracy"]
    assert gain.estimate.interval is None
    assert gain.estimate.value is not None
    assert gain.estimate.lacking == of_part.too_few == "9 malignant, 12 benign"


def _with_iou(result: Result, model: str, good: str) -> Result:
    """The result of a model whose masks of one tone are right, and wrong elsewhere."""
    right, wrong = (100 * np.eye(5, dtype=int)), np.full((5, 5), 20)
    confusions = {i.stem: (right if i.tone == good else wrong).tolist() for i in EVERY}
    return replace(result, cell=replace(result.cell, model=model), confusions=confusions)


@pytest.mark.parametrize(("tones", "best", "by"), [(3, "VGG16", "miou"), (2, "ResNet50", "miou_pooled")])  # fmt: skip
def test_improvements__validation_chooses_by_the_mean_of_the_tones(
    tones: int, best: str, by: str
) -> None:
    """Most photographs are of the first tone: pooled, the model that is right there is the best."""
    of = [[i for i in VALIDATION if i.tone == tone] for tone in TONES[:tones]]
    validation = [*of[0], *of[1][:1], *(of[2][:1] if tones == 3 else [])]
    parts = replace(PARTS, sets={**PARTS.sets, ImageSet.SEGMENTATION_VALIDATION: validation})
    one = _with_iou(_segmented(1), "ResNet50", TONES[0])
    other = _with_iou(_segmented(1), "VGG16", TONES[1])
    right = {
        i.stem: (100 * np.eye(5, dtype=int)).tolist() for i in VALIDATION if i.tone == TONES[2]
    }
    other = replace(other, confusions={**other.confusions, **right})
    results = _segmented(0), one, other
    found = scores(results, parts, LIKE_THE_PAPER)
    gains = improvements(results, found, parts, LIKE_THE_PAPER)
    gain = next(g for g in gains if g.chosen_on is ChosenOn.VALIDATION)
    assert (gain.next_best, gain.chosen_by) == (best, by)
    note = tables(found, gains, results, LIKE_THE_PAPER)[0].note
    assert ("lack a tone" in note) == (tones == 2)


def test_improvements__need_fedd_and_another() -> None:
    assert not _gains(_classified(0))
    assert not _gains(_classified(0, "VGG16"))


def test_improvements__a_small_plan_is_compared_with_nothing() -> None:
    assert _gains(_classified(0), _classified(1, "VGG16"), small=True)[0].paper is None
