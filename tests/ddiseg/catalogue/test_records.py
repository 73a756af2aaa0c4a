"""Records: what is stored as JSON comes back as it was, whatever an older program left out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ddiseg.catalogue.records import (
    ClassifierRecord,
    EvaluationRecord,
    GateDecision,
    PullRecord,
    Record,
    RobustnessRecord,
    StoredTraining,
)

ESTIMATE = {"value": 0.8, "interval": [0.7, 0.9], "n": 12}
TOO_FEW = {"value": None, "interval": None, "n": 3}
SCORE = {
    **{"iou_mean": 0.7, "iou_mean_ci95": [0.6, 0.8], "iou_pooled": 0.6, "iou_pooled_ci95": None},
    **{"dice_mean": 0.8, "dice_mean_ci95": [0.7, 0.9], "n": 12, "patients": 11},
}
GROUP = {
    **{"n": 12, "painted": 2, "patients": 11, "candidate": {"lesion_iou": ESTIMATE}},
    **{"current": {"lesion_iou": ESTIMATE}, "difference": {"lesion_iou": TOO_FEW}},
}
BOOTSTRAP = {"over": "patients", "resamples": 2000, "seed": 0}

#: Rows as the program wrote them before there were records.
STORED: dict[type[Record], dict[str, Any]] = {
    StoredTraining: {
        **{"seconds": 3.1, "images": 60, "by_tone": {"I-II": 60}, "absent_classes": ["ruler"]},
        **{"went_on_from": "fedd-1", "steps": 400, "notes": ["a note"], "precision": "bfloat16"},
        "validation": {
            **{"images": 12, "by_tone": {"I-II": 12}, "members": ["abc"], "loss": 0.4},
            **{"calibration": {"temperature": 1.2}, "scores": {"lesion": SCORE}},
        },
    },
    ClassifierRecord: {
        **{"note": "research", "seconds": 1.0, "images": 30, "malignant": 9, "validation": 6},
        **{"by_tone": {"V-VI": 30}, "left_out": {"unknown": 1}, "epochs": 9, "best_epoch": 4},
        "threshold": 0.4,
        "precision": "float32",
        "on_its_validation_images": {
            "all": {
                **{"threshold": 0.4, "roc_auc": 0.8, "roc_auc_ci95": [0.5, 0.9], "f1": None},
                **{"f1_ci95": None, "accuracy": 0.7, "accuracy_ci95": None, "n": 6},
                **{"malignant": 2, "patients": 6},
            }
        },
    },
    GateDecision: {
        **{"passed": True, "judged": True, "reasons": ["it is better"], "compared_with": "fedd-1"},
        "tolerance": 0.02,
        "held_out": {
            **{"images": 12, "patients": 11, "by_tone": {"I-II": 12}},
            "members": ["abc"],
            "leaked": 1,
            "drawn_over_its_painting": {"unchanged": 1, "corrected": 1},
        },
        "overall": GROUP,
        "by_tone": {"I-II": {**GROUP, "current": None, "difference": None}},
        "bootstrap": {**BOOTSTRAP, "paired": True},
    },
    EvaluationRecord: {
        **{"truth": "/some/where", "format": "png", "subset": None, "models": {"fedd-1": 12}},
        **{"n_images": 12, "patients": 11, "learned_from": 3, "same_group": 2},
        "without_prediction": 0,
        **{"notes": ["a note"], "refused": ["x.png: why"], "bootstrap": BOOTSTRAP},
        **{"classes": {"lesion": SCORE}, "by_tone": {"I-II": {"lesion": SCORE}}},
    },
    RobustnessRecord: {
        **{"model": "fedd-1", "subset": "pilot", "states": ["new"], "per_tone": 30, "seed": 0},
        **{"n_images": 12, "patients": 11, "learned_from": 0, "same_group": 1, "refused": []},
        "control": "grey",
        **{"bootstrap": BOOTSTRAP, "without_lesion": 1, "by_change": {"+0.3 EV": {"all": SCORE}}},
        **{"together": {"all": {"iou_mean": 0.9}}, "difference": None, "beyond_noise": {"n": 1}},
        "sentences": ["Too few images."],
    },
    PullRecord: {"newest": 7},
}


def _now(stored: Any) -> Any:
    """What became of a row.

    `intervals` was "bootstrap", a gate's estimates have their patients, a classifier's scores may say
    which class is too small and another threshold of accuracy, a classifier has a recipe,
    and a training says what decides.
    """
    if not isinstance(stored, dict):
        return stored
    found = {"intervals" if k == "bootstrap" else k: _now(each) for k, each in stored.items()}
    for side in {"candidate", "current", "difference"} & found.keys() if "painted" in found else ():
        for estimate in (found[side] or {}).values():
            estimate["patients"] = found["patients"]
    if "best_epoch" in found:
        found |= {"recipe": "paper", "folds": 0, "covariates": [], "imputed": {}, "beside": {}}
    if "went_on_from" in found:
        found |= {"calibration": None, "own_masks": None, "out_of_fold": None, "styles": []}
    return found | ({"lacking": "", "accuracy_threshold": None} if "roc_auc" in found else {})


@pytest.mark.parametrize("kind", STORED, ids=lambda kind: kind.__name__)
def test_records__as_they_were_stored(kind: type[Record]) -> None:
    again = kind.from_json(json.loads(json.dumps(STORED[kind]))).to_json()
    assert again == _now(STORED[kind])
    assert json.loads(json.dumps(again)) == again


def test_records__keys_of_another_program() -> None:
    old = StoredTraining.from_json({"seconds": 3.1, "on_its_own_training_images": {"n": 1}})
    assert (old.seconds, old.went_on_from, old.notes, old.validation) == (3.1, None, (), None)
    assert old.by_tone is not StoredTraining().by_tone
    decision = GateDecision.from_json({"passed": True, "held_out": {"images": 2}})
    assert (decision.holdout.images, decision.holdout.over_predictions) == (2, {})


def test_records__types_all_the_way_down() -> None:
    decision = GateDecision.from_json(STORED[GateDecision])
    assert decision.max_drop == 0.02
    assert decision.overall.candidate["lesion_iou"].interval == (0.7, 0.9)
    assert decision.by_tone["I-II"].current is None
    evaluation = EvaluationRecord.from_json(STORED[EvaluationRecord])
    assert evaluation.by_tone["I-II"]["lesion"].dice_mean.value == 0.8
    classifier = ClassifierRecord.from_json(STORED[ClassifierRecord])
    auc = classifier.scores["all"].estimates["ROC-AUC"]
    assert (auc.value, auc.interval, auc.n) == (0.8, None, 6), "two malignant images"
    assert auc.text() == "0.80 (too few: 2 malignant, 4 benign)"
    beside = {"colour": {"all": {"roc_auc": 0.7, "n": 40, "malignant": 15, "patients": 30}}}
    ours = ClassifierRecord.from_json({"recipe": "ours", "folds": 5, "beside": beside})
    assert ours.beside["colour"]["all"].estimates["ROC-AUC"].value == 0.7
    fewer = {**GROUP, "patients": 2}
    old = GateDecision.from_json({"overall": fewer}).overall.candidate["lesion_iou"]
    assert (old.value, old.interval, old.groups) == (0.8, None, 2)
