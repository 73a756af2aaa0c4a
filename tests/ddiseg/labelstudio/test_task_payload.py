"""What a task says and shows."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from annotation_protocol import load_protocol
from ddiseg import masks
from ddiseg.catalogue import NewMask
from ddiseg.catalogue.tables import Image, Mask
from ddiseg.labelstudio.task_payload import (
    expectation,
    image_key,
    preannotated_mask,
    prediction,
    review_key,
    score_of,
    task_data,
)
from ddiseg.masks import brush_rle

PROTOCOL = load_protocol()
MASK = np.array([[4, 4, 1, 1], [4, 2, 1, 1], [4, 4, 4, 4]], np.uint8)
DIGEST = masks.mask_hash(MASK)


def image(content_hash: str = "a" * 64) -> Image:
    return Image(id=7, name="7.png", content_hash=content_hash, width=4, height=3)


def drawn(annotator: str = "annotator-1", content_hash: str = DIGEST) -> Mask:
    new = NewMask(7, content_hash, 4, 3, "same", [0, 1, 2, 3, 4], "1.0", annotator)
    return Mask(**asdict(new))


def test_prediction__one_region_a_class_whose_id_tells_the_mask() -> None:
    painted = prediction(MASK, DIGEST, PROTOCOL, None)
    assert painted.keys() == {"model_version", "result"}
    assert [r["id"] for r in painted["result"]] == [
        f"{DIGEST[:16]}-{name}" for name in ("lesion", "marker", "skin")
    ]
    for region, class_id in zip(painted["result"], (1, 2, 4), strict=True):
        assert (region["type"], region["from_name"], region["to_name"]) == (
            "brushlabels",
            "mask",
            "image",
        )
        size = (region["original_width"], region["original_height"], region["image_rotation"])
        assert size == (4, 3, 0)
        assert region["value"]["format"] == "rle"
        assert region["value"]["brushlabels"] == [PROTOCOL.class_at(class_id).name]
        alpha = brush_rle.decode(region["value"]["rle"], (3, 4))
        np.testing.assert_array_equal(alpha >= brush_rle.ALPHA_THRESHOLD, class_id == MASK)


def test_prediction__unlabelled_pixels_have_no_region() -> None:
    mask = np.where(MASK == 4, 255, MASK).astype(np.uint8)
    regions = prediction(mask, DIGEST, PROTOCOL, None)["result"]
    assert [r["value"]["brushlabels"] for r in regions] == [["lesion"], ["marker"]]


@pytest.mark.parametrize(
    ("uncertainty", "score"),
    [(0.0, 1.0), (math.log(5) / 2, 0.5), (math.log(5), 0.0), (2.0, 0.0), (0.1, 0.9379)],
)
def test_score__without_expected_iou_falls_as_the_members_disagree(
    uncertainty: float, score: float
) -> None:
    assert score_of(Mask(uncertainty=uncertainty), PROTOCOL) == score


def test_score__is_the_expected_iou_and_a_person_has_none() -> None:
    predicted = Mask(model_version_id=1, uncertainty=0.1, quality=0.62)
    assert score_of(predicted, PROTOCOL) == 0.62
    assert prediction(MASK, DIGEST, PROTOCOL, 0.62)["score"] == 0.62
    assert score_of(Mask(annotator="anna"), PROTOCOL) is None
    assert "score" not in prediction(MASK, DIGEST, PROTOCOL, None)


def test_expectation__of_predictions_alone() -> None:
    assert expectation(Mask(model_version_id=1, quality=0.62)) == {
        "expected": "expected IoU 0.62: probably needs correction"
    }
    assert expectation(Mask(model_version_id=1, uncertainty=0.1)) == {"expected": ""}
    assert expectation(Mask(annotator="anna")) == {}


@pytest.mark.parametrize(
    ("ids", "digits"),
    [
        ([f"{DIGEST[:16]}-skin", f"{DIGEST[:16]}-lesion"], DIGEST[:16]),
        (["Zk3_stroke", f"{DIGEST[:16]}-skin"], DIGEST[:16]),
        ([], None),
        (["None"], None),
        ([DIGEST[:16]], None),  # no class: not ours
        ([f"{DIGEST[:15]}-skin"], None),
        ([f"{DIGEST[:15]}X-skin"], None),
        (["0123456789ABCDEF-skin"], None),
    ],
)
def test_painted_mask__by_the_ids_of_regions(ids: list[str], digits: str | None) -> None:
    assert preannotated_mask(ids) == digits


def test_image_key__is_the_photograph_s() -> None:
    assert image_key(image("0123456789abcdef" * 4)) == "0123456789abcdef"
    assert image_key(image("b" * 64)) != image_key(image("c" * 64))


def test_review_key__another_for_each_mask_person_and_round() -> None:
    keys = [
        review_key(image(), drawn(), 0),
        review_key(image(), drawn(), 1),
        review_key(image(), drawn("annotator-2"), 0),
        review_key(image(), drawn(content_hash="c" * 64), 0),
        review_key(image("b" * 64), drawn(), 0),
        image_key(image()),
    ]
    assert len({*keys, review_key(image(), drawn(), 0)}) == len(keys)
    assert {len(key) for key in keys} == {16}


def test_task_data__ids_and_what_else_is_said() -> None:
    assert task_data(image(), "k", "/data/x.png", tone="V-VI") == {
        "image": "/data/x.png",
        "ddiseg": "k",
        "image_id": 7,
        "name": "7.png",
        "review_comment": "",
        "tone": "V-VI",
    }


def test_task_data__more_goes_before(monkeypatch: pytest.MonkeyPatch) -> None:
    more: dict[str, Any] = {"review_comment": "once more"}
    assert task_data(image(), "k", "x", **more)["review_comment"] == "once more"
