"""What is said of how well a version does: each figure with its n and interval, or that there are too few."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from syrupy.assertion import SnapshotAssertion

from annotation_protocol.estimates import Estimate
from ddiseg import masks
from ddiseg.catalogue import NewMask
from ddiseg.catalogue.batches import NewMember
from ddiseg.catalogue.tables import ModelVersion
from ddiseg.evaluation import gate
from ddiseg.evaluation.segmentation import evaluate
from ddiseg.model.performance import (
    ALL,
    LESION,
    PerformanceRow,
    PerformanceTable,
    estimate_text,
    holdout_lesion_iou,
    holdout_table,
    lookup,
    performance_tables,
    row_texts,
    side_by_side,
    tones_text,
)
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.model.version_rows import (
    add_classifier,
    add_version,
    decided,
    holdout_images,
    metrics,
)

TONES = ("I-II", "III-IV", "V-VI")


@pytest.mark.parametrize(
    ("estimate", "signed", "text"),
    [
        (None, False, "not measured"),
        (Estimate(None, None, None, 2, 2), False, "too few n=2/2"),
        (Estimate(0.5, None, None, 7, 3), True, "+0.500 (too few) n=7/3"),
        (Estimate(0.815, 0.75, 0.861, 23, 20), False, "0.81 [0.75, 0.86] n=23/20"),
        (Estimate(0.0, -0.0101, 0.052, 23), True, "+0.000 [-0.010, +0.052] n=23"),
    ],
)
def test_estimate_text(estimate: Estimate | None, signed: bool, text: str) -> None:
    assert estimate_text(estimate and estimate.to_json(), signed=signed) == text


def test_tones_text__in_the_protocols_order(wording: SnapshotAssertion) -> None:
    assert tones_text({"unknown": 1, "V-VI": 3, "I-II": 20}) == wording


@pytest.mark.training
def test_held_out__of_a_version_that_was_compared(
    workspace: Workspace, tiny_weights: Path, wording: SnapshotAssertion
) -> None:
    shown = holdout_images(TONES[:2], 0.68, 0.6, each=10) + holdout_images(
        TONES[2:], 0.7, 0.69, each=2
    )
    version = add_version(workspace, tiny_weights, verdict=decided(shown, "fedd-0"))
    table = holdout_table(version)
    assert table is not None
    assert table["columns"] == ["fedd-1", "fedd-0", "fedd-1 minus fedd-0"]
    assert table["about"].startswith("n = 22 images of 22 patients")
    assert "drawn over" not in table["about"]
    assert {row["tone"] for row in table["rows"]} == {ALL, *TONES}
    by_row = {(row["tone"], row["measure"]): row_texts(table, row) for row in table["rows"]}
    own, other, difference = by_row["I-II", LESION]
    assert own.startswith("0.72 [")
    assert other.startswith("0.64 [")
    assert difference.endswith(" n=10/10"), "of all three"
    assert "n=" not in own + other
    assert difference == wording
    assert by_row["V-VI", LESION] == [
        "0.70 (too few)",
        "0.69 (too few)",
        "+0.010 (too few) n=2/2",
    ]
    assert holdout_lesion_iou(version) == lookup(table, ALL, LESION)[0]


def test_held_out__says_how_many_masks_lean_towards_the_other_version(
    workspace: Workspace, tiny_weights: Path
) -> None:
    verdict = decided(holdout_images(TONES, 0.68, 0.6), "fedd-0")
    leaning = {gate.CurrentPrediction.UNCHANGED.value: 3, gate.CurrentPrediction.CORRECTED.value: 2}
    holdout = dataclasses.replace(verdict.holdout, over_predictions=leaning)
    verdict = dataclasses.replace(verdict, holdout=holdout)
    table = holdout_table(add_version(workspace, tiny_weights, verdict=verdict))
    assert table is not None
    assert "5 of their masks were corrected from predictions of fedd-0, which" in table["about"]


@pytest.mark.training
def test_held_out__of_a_first_version_and_of_none(workspace: Workspace, tiny_weights: Path) -> None:
    first = add_version(workspace, tiny_weights, verdict=decided(holdout_images(TONES, 0.6, None)))
    table = holdout_table(first)
    assert table is not None
    assert table["columns"] == ["fedd-1"]
    assert not table["paired"]
    for verdict in (decided([]), None):
        version = add_version(workspace, tiny_weights, verdict=verdict)
        assert holdout_table(version) is None
        assert holdout_lesion_iou(version) is None


@pytest.mark.training
def test_measured__what_ended_the_training(workspace: Workspace, tiny_weights: Path) -> None:
    def score(n: int, interval: list[float] | None) -> dict[str, object]:
        return {"iou_mean": 0.5, "iou_mean_ci95": interval, "n": n, "patients": n}

    validation = {
        "images": 12,
        "by_tone": {"I-II": 12},
        "scores": {
            "lesion": score(12, [0.4, 0.6]),
            "ruler": score(4, [0.4, 0.6]),
            "skin": score(12, None),
        },
    }
    made = {**metrics(60), "validation": validation}
    tables = performance_tables(workspace, add_version(workspace, tiny_weights, metrics=made))
    assert list(tables) == ["validation"]
    shown = {row["measure"]: row["figures"][0] for row in tables["validation"]["rows"]}
    assert shown == {
        LESION: Estimate(0.5, 0.4, 0.6, 12, 12).to_json(),
        "ruler IoU": Estimate(0.5, None, None, 4, 4).to_json(),
        "skin IoU": Estimate(0.5, None, None, 12, 12).to_json(),
    }
    assert "12 images (I-II 12)" in tables["validation"]["about"]


def test_measured__a_classifier(workspace: Workspace) -> None:
    tables = performance_tables(workspace, add_classifier(workspace))
    assert list(tables) == ["validation"]
    auc = lookup(tables["validation"], ALL, "ROC-AUC")[0]
    assert auc is not None
    assert auc["value"] is not None
    assert auc["n"] == 12
    few = lookup(tables["validation"], "V-VI", "F1")[0]
    assert few is not None
    assert few["value"] is not None
    assert (few["interval"], few["n"], few["patients"]) == (None, 3, 3)
    assert "8 of them malignant" in tables["validation"]["about"]


def test_beside__each_its_own_images() -> None:
    def table(name: str, tone: str, value: float) -> PerformanceTable:
        figure = Estimate(value, 0, 1, 9).to_json()
        row = PerformanceRow(tone=tone, measure=LESION, figures=[figure])
        return PerformanceTable(
            title="T", about=f"of {name}.", columns=[name], paired=False, rows=[row]
        )

    both = side_by_side({"a": table("a", "I-II", 0.1), "b": table("b", "V-VI", 0.2)})
    assert both is not None
    assert both["columns"] == ["a", "b"]
    assert both["about"].startswith("a: of a. b: of b. The images may differ")
    assert [[f and f["value"] for f in row["figures"]] for row in both["rows"]] == [
        [0.1, None],
        [None, 0.2],
    ]
    assert side_by_side({}) is None
    one = side_by_side({"a": table("a", "I-II", 0.1)})
    assert one is not None
    assert "same images" not in one["about"]


def _mask(workspace: Workspace, image_id: int, *, shift: int = 0) -> dict[str, Any]:
    """Columns of a mask: what the true one shows, `shift` pixels to the right."""
    truth = workspace.root.parent / "truth" / f"{image_id - 1}.png"
    mask = np.roll(masks.decode_png(truth.read_bytes()), shift, axis=1)
    height, width = mask.shape
    return {
        "image_id": image_id,
        "content_hash": workspace.store_mask(mask),
        "width": width,
        "height": height,
        "mapping": "same",
        "classes": [0, 1, 2, 3, 4],
        "protocol_version": "1.0",
    }


def _paint(workspace: Workspace, version: ModelVersion, image_ids: Sequence[int]) -> None:
    rows = [
        NewMask(**_mask(workspace, i, shift=1 + i % 4), model_version_id=version.id)
        for i in image_ids
    ]
    workspace.catalogue.masks.add_predictions(rows)


def _accept(workspace: Workspace, image_id: int, parent_id: int | None = None) -> None:
    new = NewMask(**_mask(workspace, image_id), annotator="annotator-1", parent_id=parent_id)
    workspace.catalogue.masks.submit([new], reviewer="reviewer-1")


def _accept_with_a_fix(workspace: Workspace, image_id: int, parent_id: int) -> None:
    """What a reviewer accepts is a fix of what an annotator drew over the parent."""
    drawn = NewMask(
        **_mask(workspace, image_id, shift=3), annotator="annotator-1", parent_id=parent_id
    )
    workspace.catalogue.masks.submit([drawn])
    waiting = workspace.catalogue.masks.in_review()[image_id]
    fix = NewMask(**_mask(workspace, image_id), annotator="reviewer-1", parent_id=waiting.id)
    workspace.catalogue.masks.review(waiting.id, "reviewer-1", "fixed", fix=fix)


def _drawn(workspace: Workspace, random: Sequence[int], others: Sequence[int] = ()) -> None:
    members = [NewMember(i, i in random, "drawn") for i in (*random, *others)]
    workspace.catalogue.batches.store("first", members, {}, "annotator-1")


#: Images of `spots` without an accepted mask; two a patient, but for the last.
OPEN = (5, 6, 7, 8, 9)


@pytest.mark.training
def test_measured__on_images_drawn_at_random(spots: Workspace, tiny_weights: Path) -> None:
    catalogue = spots.catalogue
    version = add_version(spots, tiny_weights)
    _drawn(spots, OPEN[1:], OPEN[:1])
    _paint(spots, version, OPEN)
    assert "random" not in performance_tables(spots, version), "none is accepted yet"
    for image_id in OPEN[:-1]:
        painted = catalogue.masks.newest_predictions()[image_id].id
        if image_id == 7:
            _accept_with_a_fix(spots, image_id, painted)
        else:
            _accept(spots, image_id, painted if image_id == 6 else None)

    table = performance_tables(spots, version)["random"]
    assert table["about"].startswith("n = 3 images of 2 patients"), (
        "5 was not sampled at random, 9 not accepted"
    )
    assert "from this version's own predictions, which favours it: 2." in table["about"]
    [found_at_random] = lookup(table, ALL, LESION)
    assert found_at_random is not None
    assert found_at_random["value"] is not None
    sizes = {"interval": None, "n": 3, "patients": 2}
    assert sizes.items() <= found_at_random.items()

    learned = [catalogue.masks.accepted()[i].content_hash for i in (6, 7, 8)]
    again = add_version(spots, tiny_weights, learned=learned)
    _paint(spots, again, OPEN)
    assert "random" not in performance_tables(spots, again), "it learned from all of them"


@pytest.mark.training
def test_measured__at_random_is_what_evaluate_finds(spots: Workspace, tiny_weights: Path) -> None:
    version = add_version(spots, tiny_weights)
    _drawn(spots, OPEN)
    _paint(spots, version, OPEN)
    for image_id in OPEN:
        _accept(spots, image_id)
    found = evaluate(spots, "annotator-1", truth=None)
    assert found["models"] == {version.name: 5}
    tables = performance_tables(spots, version)
    figure = lookup(tables["random"], ALL, LESION)[0]
    assert figure is not None
    assert 0.3 < found["classes"]["lesion"]["iou_mean"] < 1
    assert figure["value"] == found["classes"]["lesion"]["iou_mean"]
    assert figure["interval"] == found["classes"]["lesion"]["iou_mean_ci95"]
    assert lookup(tables["evaluation"], ALL, LESION) == [figure]
    [few] = lookup(tables["evaluation"], "V-VI", LESION)
    assert few is not None
    assert (few["interval"], few["n"]) == (None, 2)
    assert "accepted masks" in tables["evaluation"]["about"]
    other = add_version(spots, tiny_weights)
    assert "evaluation" not in performance_tables(spots, other), "it was not of this version"
