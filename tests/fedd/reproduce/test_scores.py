from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from annotation_protocol import load_protocol
from annotation_protocol.estimates import estimate_classes
from annotation_protocol.metrics import iou_per_class
from fedd.dataset import TONES, DatasetImage
from fedd.malignancy.discrimination import f1, paper_threshold, roc_auc, youden_threshold
from fedd.paper import published
from fedd.reproduce import Cell, ImageSet, PaperSplit
from fedd.reproduce.plan import Plan
from fedd.reproduce.results import Cost, Result
from fedd.reproduce.scores import by_key, scores, truth_and_probabilities
from tests.fedd.reproduce.conftest import TINY_PLAN

RNG = np.random.default_rng(0)
ITEMS = [
    DatasetImage(Path(f"{n:03d}.png"), TONES[n % 3], malignant=n // 3 % 2 == 0, mask=Path("m"))
    for n in range(36)
]
BALANCED = [i for n, i in enumerate(ITEMS) if n >= 24]
VALIDATION = [
    DatasetImage(Path(f"v{n:02d}.png"), TONES[n % 3], malignant=n // 3 % 2 == 0, mask=Path("m"))
    for n in range(12)
]
PARTS = PaperSplit(
    {5: ITEMS[:3]},
    {
        ImageSet.SEGMENTATION_TEST: ITEMS,
        ImageSet.SEGMENTATION_VALIDATION: VALIDATION[:6],
        ImageSet.REMAINING: [i for i in ITEMS if i not in BALANCED],
        ImageSet.UNSEEN: ITEMS,
        ImageSet.BALANCED: BALANCED,
        ImageSet.CLASSIFICATION_VALIDATION: VALIDATION,
    },
)
CLASSES = load_protocol().class_names
LIKE_THE_PAPER = replace(TINY_PLAN, small=False)
EVERY = [*ITEMS, *VALIDATION]


def _segmented(seed: int, model: str = "FEDD") -> Result:
    rng = np.random.default_rng(seed)
    confusions = {i.stem: rng.integers(0, 50, (5, 5)).tolist() for i in EVERY}
    return Result(Cell("segmentation", model, 5, seed), 30, Cost(1, 1), confusions, {})


def _classified(seed: int, model: str = "FEDD", lift: float = 0.3) -> Result:
    rng = np.random.default_rng(seed)
    found = {i.stem: float(rng.random() / 2 + lift * bool(i.malignant)) for i in EVERY}
    return Result(Cell("classification", model, 5, seed), 30, Cost(1, 1), {}, found)


TEST = ImageSet.SEGMENTATION_TEST


def test_scores__agree_with_the_shared_scoring() -> None:
    result = _segmented(0)
    known = by_key(scores([result], PARTS, TINY_PLAN))
    dark = [i for i in ITEMS if i.tone == "V-VI"]
    confusions = np.array([result.confusions[i.stem] for i in dark])
    patients = [i.stem for i in dark]
    expected = estimate_classes(confusions, patients, np.ones((12, 5), np.bool_), CLASSES)
    lesion = known[TEST, "FEDD", 5, "V-VI", "lesion_iou"]
    assert (lesion.value, lesion.n) == (expected["lesion"].iou_pooled.value, 12)
    assert (lesion.low, lesion.high) == expected["lesion"].iou_pooled.interval
    miou = known[TEST, "FEDD", 5, "V-VI", "miou"]
    assert miou.value == pytest.approx(np.mean([c.iou_pooled.value for c in expected.values()]))


@pytest.mark.parametrize("metric", ["miou", "lesion_iou", "skin_iou"])
def test_scores__all_is_the_mean_of_the_tones_and_pooled_stands_beside_it(metric: str) -> None:
    known = by_key(scores([_segmented(0)], PARTS, TINY_PLAN))
    of_tone = [known[TEST, "FEDD", 5, tone, metric].value for tone in TONES]
    mean = known[TEST, "FEDD", 5, "all", metric]
    assert mean.value == pytest.approx(np.mean(of_tone))
    assert (mean.n, mean.patients) == (36, 36)
    pooled = known[TEST, "FEDD", 5, "all", f"{metric}_pooled"]
    together = sum(np.array(_segmented(0).confusions[i.stem]) for i in ITEMS)
    iou = iou_per_class(together)
    index = None if metric == "miou" else CLASSES.index(metric.removesuffix("_iou"))
    assert pooled.value == pytest.approx(iou.mean() if index is None else iou[index])
    assert pooled.value != mean.value
    assert (TEST, "FEDD", 5, "V-VI", f"{metric}_pooled") not in known


def test_scores__every_figure_by_every_tone() -> None:
    found = scores([_segmented(0), _classified(0)], PARTS, TINY_PLAN)
    for s in found:
        assert s.value is not None, (s.measured_on, s.tone, s.metric)
        assert s.n
        assert s.patients
        of_metric = [t for t in found if (t.measured_on, t.metric) == (s.measured_on, s.metric)]
        tones = {t.tone for t in of_metric}
        assert tones == ({"all"} if s.metric.endswith("_pooled") else {"all", *TONES})
    # Each tone of the 36 has six malignant and six benign patients, too few for the classification.
    few = {(s.measured_on, s.tone) for s in found if s.low is None and s.n == 36}
    assert not few
    assert all(s.low is None for s in found if s.task == "classification" and s.tone != "all")


def test_scores__each_test_of_classification_has_its_own_threshold() -> None:
    result = _classified(0)
    known = by_key(scores([result], PARTS, TINY_PLAN))
    for name in (ImageSet.REMAINING, ImageSet.UNSEEN, ImageSet.BALANCED):
        truth, found = truth_and_probabilities(result, PARTS.sets[name])
        metrics = {m: known[name, "FEDD", 5, "all", m].value for m in METRICS}
        youden = truth == (found >= youden_threshold(truth, found))
        on_validation = youden_threshold(*truth_and_probabilities(result, VALIDATION))
        assert metrics == pytest.approx(
            {
                "roc_auc": roc_auc(truth, found),
                "f1": f1(truth, found >= paper_threshold(truth, found)),
                "accuracy": np.mean(truth == (found > 0.5)),
                "accuracy_youden": youden.mean(),
                "f1_validation": f1(truth, found >= on_validation),
                "accuracy_validation": np.mean(truth == (found >= on_validation)),
            }
        )
        assert known[name, "FEDD", 5, "all", "f1"].n == len(PARTS.sets[name])


METRICS = ("roc_auc", "f1", "accuracy", "accuracy_youden", "f1_validation", "accuracy_validation")


def test_scores__validation_is_scored_but_not_at_its_own_threshold() -> None:
    found = scores([_segmented(0), _classified(0)], PARTS, TINY_PLAN)
    of_set = {s.metric for s in found if s.measured_on is ImageSet.CLASSIFICATION_VALIDATION}
    assert of_set == {"roc_auc", "accuracy"}
    known = by_key(found)
    assert known[ImageSet.SEGMENTATION_VALIDATION, "FEDD", 5, "all", "miou_pooled"].n == 6


def test_scores__beside_the_paper() -> None:
    known = by_key(scores([_segmented(0), _classified(0)], PARTS, LIKE_THE_PAPER))
    s = known[TEST, "FEDD", 5, "I-II", "miou"]
    assert s.paper == published(TEST, "miou", "I-II", "FEDD", 5) == 0.727
    assert s.value is not None
    assert s.difference == pytest.approx(s.value - 0.727)
    assert known[TEST, "FEDD", 5, "III-IV", "miou"].paper is None
    assert known[TEST, "FEDD", 5, "all", "miou_pooled"].paper is None
    assert known[ImageSet.BALANCED, "FEDD", 5, "all", "roc_auc"].paper == 0.78
    assert known[ImageSet.REMAINING, "FEDD", 5, "all", "roc_auc"].paper is None


def test_scores__a_small_plan_is_compared_with_nothing() -> None:
    assert all(s.paper is None for s in scores([_segmented(0)], PARTS, TINY_PLAN))


def test_scores__seeds_are_averaged_and_their_range_kept() -> None:
    results = [_classified(seed) for seed in (0, 1)]
    plan: Plan = replace(TINY_PLAN, seeds=(0, 1))
    s = by_key(scores(results, PARTS, plan))[ImageSet.UNSEEN, "FEDD", 5, "all", "roc_auc"]
    truth = np.array([bool(i.malignant) for i in ITEMS])
    each = [roc_auc(truth, np.array([r.probabilities[i.stem] for i in ITEMS])) for r in results]
    assert s.value == pytest.approx(np.mean(each))
    assert (s.lowest, s.highest, s.seeds, s.n) == (min(each), max(each), 2, 36)


def test_scores__says_which_class_is_too_small() -> None:
    known = by_key(scores([_classified(0)], PARTS, TINY_PLAN))
    s = known[ImageSet.UNSEEN, "FEDD", 5, "V-VI", "roc_auc"]
    assert s.too_few == "6 malignant, 6 benign"
    assert s.estimate.text(".3f").endswith("(too few: 6 malignant, 6 benign)")


def test_scores__too_few_patients_have_a_value_without_interval() -> None:
    few = replace(PARTS, sets={**PARTS.sets, TEST: ITEMS[:9]})
    known = by_key(scores([_segmented(0)], few, TINY_PLAN))
    dark = known[TEST, "FEDD", 5, "V-VI", "miou"]
    assert dark.value is not None
    assert (dark.low, dark.high, dark.n, dark.patients) == (None, None, 3, 3)


def test_scores__a_mean_of_tones_needs_every_tone() -> None:
    light = [i for i in ITEMS if i.tone != "V-VI"]
    known = by_key(scores([_segmented(0)], replace(PARTS, sets={TEST: light}), TINY_PLAN))
    s = known[TEST, "FEDD", 5, "all", "miou"]
    assert (s.value, s.low) == (None, None)
    assert s.estimate.text() == "too few: 0 patients of V-VI"
    assert known[TEST, "FEDD", 5, "all", "miou_pooled"].value is not None
