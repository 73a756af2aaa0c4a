from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedd.paper import published, results

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference" / "fedd2023.json"
TONES = {"all": "all", "light": "I-II", "dark": "V-VI"}


def test_published__what_the_paper_says() -> None:
    assert published("segmentation", "miou", "all", "FEDD", 5) == 0.703
    assert published("segmentation", "lesion_iou", "V-VI", "MobileNetV2", 20) == 0.216
    assert published("classification", "roc_auc", "all", "FEDD", 20) == 0.91
    assert published("classification", "f1", "I-II", "ResNet50", 5) == 0


def test_published__what_it_does_not_say() -> None:
    assert published("segmentation", "miou", "III-IV", "FEDD", 5) is None
    assert published("segmentation", "miou", "all", "FEDD", 7) is None
    assert published("classification", "f1_validation", "all", "FEDD", 5) is None


def test_results__a_value_for_each_fraction_and_a_reading_error_for_each_figure() -> None:
    paper = results()
    for task in ("segmentation", "classification"):
        for figure, by_tone in paper[task].items():
            assert paper["reading_error"][figure] > 0
            for by_model in by_tone.values():
                assert all(len(v) == len(paper["fractions"]) for v in by_model.values())
                assert all(0 <= x <= 1 for v in by_model.values() for x in v)


@pytest.mark.skipif(not REFERENCE.is_file(), reason="no reference figures beside this clone")
def test_results__as_the_reference_has_them() -> None:
    paper, reference = results(), json.loads(REFERENCE.read_text())
    segmentation: dict[str, Any] = reference["segmentation_iou_test198"]
    for ours, theirs in (("miou", "all_classes"), ("lesion_iou", "lesion")):
        renamed = {TONES[tone]: values for tone, values in segmentation[theirs].items()}
        assert paper["segmentation"][ours] == renamed
    of_classification = paper["classification"]
    assert of_classification["roc_auc"]["all"] == reference["classification_roc_auc_test30"]
    assert of_classification["accuracy"]["all"] == reference["classification_accuracy_test30"]
    renamed = {TONES[t]: values for t, values in reference["classification_f1_test30"].items()}
    assert of_classification["f1"] == renamed
