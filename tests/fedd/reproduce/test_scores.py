from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from annotation_protocol import load_protocol
from annotation_protocol.estimates import estimate_classes
from fedd.dataset import TONES, DatasetImage
from fedd.malignancy.discrimination import roc_auc
from fedd.paper import published
from fedd.reproduce import Cell, PaperSplit
from fedd.reproduce.plan import Plan
from fedd.reproduce.results import Cost, Result
from fedd.reproduce.scores import by_key, class_mean_iou, scores
from tests.fedd.reproduce.conftest import TINY_PLAN

RNG = np.random.default_rng(0)
ITEMS = [
    DatasetImage(Path(f"{n:03d}.png"), TONES[n % 3], malignant=n // 3 % 2 == 0, mask=Path("m"))
    for n in range(36)
]
PARTS = PaperSplit({5: ITEMS[:3]}, ITEMS[:3], ITEMS, ITEMS)
CLASSES = load_protocol().class_names
LIKE_THE_PAPER = replace(TINY_PLAN, small=False)


def _segmented(seed: int, model: str = "FEDD") -> Result:
    rng = np.random.default_rng(seed)
    confusions = {i.stem: rng.integers(0, 50, (5, 5)).tolist() for i in ITEMS}
    return Result(Cell("segmentation", model, 5, seed), 30, Cost(1, 1), confusions, {})


def _classified(seed: int) -> Result:
    rng = np.random.default_rng(seed)
    found = {i.stem: float(rng.random() / 2 + 0.3 * bool(i.malignant)) for i in ITEMS}
    return Result(Cell("classification", "FEDD", 5, seed), 30, Cost(1, 1), {}, found, 0.4)


def test_class_mean_iou__by_hand() -> None:
    """Two photographs of two classes; the third class is nowhere and does not count."""
    one = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    two = np.array([[1, 1, 0], [2, 0, 0], [0, 0, 0]])
    found = class_mean_iou(np.stack([one, two]), ["a", "b"])
    assert found.value == pytest.approx((4 / 8 + 4 / 8) / 2)
    assert found.interval is None
    many = class_mean_iou(np.stack([one, two] * 6), [str(n) for n in range(12)])
    assert many.value == pytest.approx(found.value)
    assert many.low < many.value < many.high


def test_class_mean_iou__of_one_patient_has_no_interval() -> None:
    assert class_mean_iou(np.ones((3, 2, 2), np.int64), ["a"] * 3).interval is None


def test_scores__agree_with_the_shared_scoring() -> None:
    result = _segmented(0)
    known = by_key(scores([result], PARTS, TINY_PLAN))
    dark = [i for i in ITEMS if i.tone == "V-VI"]
    confusions = np.array([result.confusions[i.stem] for i in dark])
    patients = [i.stem for i in dark]
    expected = estimate_classes(confusions, patients, np.ones((12, 5), np.bool_), CLASSES)
    lesion = known["segmentation", "FEDD", 5, "V-VI", "lesion_iou"]
    assert (lesion.value, lesion.n) == (expected["lesion"].iou_pooled.value, 12)
    assert (lesion.low, lesion.high) == expected["lesion"].iou_pooled.interval
    miou = known["segmentation", "FEDD", 5, "V-VI", "miou"]
    assert miou.value == pytest.approx(np.mean([c.iou_pooled.value for c in expected.values()]))


def test_scores__every_figure_by_every_tone() -> None:
    found = scores([_segmented(0), _classified(0)], PARTS, TINY_PLAN)
    tones = {(s.task, s.metric): {t.tone for t in found if t.metric == s.metric} for s in found}
    assert all(of_metric == {"all", *TONES} for of_metric in tones.values())
    assert all(s.value is not None and s.n and s.patients for s in found)
    # Each tone has six malignant and six benign patients, too few for the classification.
    few = {(s.task, s.tone) for s in found if s.low is None}
    assert few == {("classification", tone) for tone in TONES}


def test_scores__beside_the_paper() -> None:
    known = by_key(scores([_segmented(0)], PARTS, LIKE_THE_PAPER))
    s = known["segmentation", "FEDD", 5, "I-II", "miou"]
    assert s.paper == published("segmentation", "miou", "I-II", "FEDD", 5) == 0.727
    assert s.value is not None
    assert s.difference == pytest.approx(s.value - 0.727)
    assert known["segmentation", "FEDD", 5, "III-IV", "miou"].paper is None


def test_scores__a_small_plan_is_compared_with_nothing() -> None:
    assert all(s.paper is None for s in scores([_segmented(0)], PARTS, TINY_PLAN))


def test_scores__seeds_are_averaged_and_their_range_kept() -> None:
    results = [_classified(seed) for seed in (0, 1)]
    plan: Plan = replace(TINY_PLAN, seeds=(0, 1))
    s = by_key(scores(results, PARTS, plan))["classification", "FEDD", 5, "all", "roc_auc"]
    truth = np.array([bool(i.malignant) for i in ITEMS])
    each = [roc_auc(truth, np.array([r.probabilities[i.stem] for i in ITEMS])) for r in results]
    assert s.value == pytest.approx(np.mean(each))
    assert (s.lowest, s.highest, s.seeds, s.n) == (min(each), max(each), 2, 36)


def test_scores__the_papers_threshold_flatters() -> None:
    known = by_key(scores([_classified(0)], PARTS, TINY_PLAN))
    figures = [known["classification", "FEDD", 5, "all", f].value for f in ("f1", "f1_validation")]
    assert figures[0] is not None
    assert figures[1] is not None
    assert figures[0] >= figures[1]


def test_scores__too_few_patients_have_a_value_without_interval() -> None:
    few = replace(PARTS, segmented=ITEMS[:9])
    known = by_key(scores([_segmented(0)], few, TINY_PLAN))
    dark = known["segmentation", "FEDD", 5, "V-VI", "miou"]
    assert dark.value is not None
    assert (dark.low, dark.high, dark.n, dark.patients) == (None, None, 3, 3)
