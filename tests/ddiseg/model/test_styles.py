"""Annotators who draw lesions of clearly different size are told; everything else is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ddiseg.catalogue.tables import Image, Mask
from ddiseg.model import styles
from ddiseg.model.styles import find_styles, style_text
from ddiseg.sampling.groups import Groups
from ddiseg.workspace.workspace import Workspace
from fedd.probes.own_masks import OwnMask
from tests.ddiseg.rows import new_image

Pairs = list[tuple[Image, Mask]]


def accepted(workspace: Workspace, annotators: list[str]) -> Pairs:
    """Images of a patient each, with a mask by these annotators in turn."""
    images = workspace.catalogue.images
    rows = [new_image(k, patient=f"p{k}") for k in range(len(annotators))]
    images.add(images.dataset("clinic").id, rows, "tester")
    return [
        (image, Mask(id=image.id, image_id=image.id, annotator=name))
        for image, name in zip(images.select(), annotators, strict=True)
    ]


def drawn(pairs: Pairs, width: dict[str, float], spread: float = 0.1) -> dict[int, OwnMask]:
    """Predictions of 1000 pixels, and masks so many times as large by annotator."""
    rng = np.random.default_rng(0)
    return {
        image.id: OwnMask(
            "", round(1000 * width[str(mask.annotator)] * np.exp(rng.normal(0, spread))), 1000
        )
        for image, mask in pairs
    }


def test_styles__one_draws_wider(workspace: Workspace) -> None:
    pairs = accepted(workspace, ["anna", "ben"] * 12)
    own = drawn(pairs, {"anna": 1.5, "ben": 1.0})
    (found,) = find_styles(workspace, pairs, Groups.read(workspace.catalogue), own)
    assert found.annotator == "anna"
    assert found.ratio == pytest.approx(1.5, rel=0.1)
    assert 1 < found.interval[0] < 1.5 < found.interval[1] < 2
    assert found.n == (12, 12)
    text = style_text(found.to_json(), "one annotator")
    assert "n = 12 masks, 12 of others" in text
    assert "anna" not in text


@pytest.mark.parametrize(
    ("width", "spread", "each"),
    [(1.0, 0.1, 12), (1.1, 0.01, 12), (1.5, 2.0, 12), (1.5, 0.1, 9)],
    ids=["alike", "clear but small", "unclear", "too few patients"],
)
def test_styles__nothing_is_told(
    workspace: Workspace, width: float, spread: float, each: int
) -> None:
    pairs = accepted(workspace, ["anna", "ben"] * each)
    own = drawn(pairs, {"anna": width, "ben": 1.0}, spread)
    assert find_styles(workspace, pairs, Groups.read(workspace.catalogue), own) == []


def test_styles__one_annotator_alone(workspace: Workspace) -> None:
    pairs = accepted(workspace, ["anna"] * 12)
    own = drawn(pairs, {"anna": 1.5})
    assert find_styles(workspace, pairs, Groups.read(workspace.catalogue), own) == []


def test_styles__a_lesion_that_only_one_of_both_shows_has_no_ratio(workspace: Workspace) -> None:
    pairs = accepted(workspace, ["anna", "ben"] * 12)
    own = drawn(pairs, {"anna": 1.5, "ben": 1.0})
    own = {k: replace(each, predicted=0) for k, each in own.items()}
    assert find_styles(workspace, pairs, Groups.read(workspace.catalogue), own) == []


def test_styles__photographs_that_both_masked_come_first(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their predictions anna draws wider; on the same photographs ben does."""
    pairs = accepted(workspace, ["anna", "ben"] * 10)
    readings = {}
    pixels: dict[int, NDArray[np.uint8]] = {}
    for image, mask in pairs[:12]:
        other = Mask(id=1000 + image.id, annotator="ben" if mask.annotator == "anna" else "anna")
        readings[image.id] = [mask, other]
        for each in (mask, other):
            drawn_ = np.full((10, 10), 4, np.uint8)
            drawn_[: 8 if each.annotator == "ben" else 4, : 5 + image.id % 2] = 1
            pixels[each.id] = drawn_
    monkeypatch.setattr(type(workspace.catalogue.tasks), "readings", lambda self: readings)
    monkeypatch.setattr(type(workspace), "mask_over", lambda self, image, mask: pixels[mask.id])
    own = drawn(pairs, {"anna": 1.5, "ben": 1.0})
    (found,) = find_styles(workspace, pairs, Groups.read(workspace.catalogue), own)
    assert found.read_by_both
    assert (found.annotator, found.ratio) == ("anna", pytest.approx(0.5))
    assert found.n == (12, 12)
    monkeypatch.setattr(styles, "MOST_READ", 9)
    (found,) = find_styles(workspace, pairs, Groups.read(workspace.catalogue), own)
    assert not found.read_by_both, "too few patients were read by both"
