"""Masks with rings, rulers and holes, written by other tools: none loses its lesion."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from annotation_protocol import load_protocol
from benchmarks.mask_round_trips import WRITTEN, RoundTrip, Written, iou_of, round_trip, truths

pytestmark = [pytest.mark.peers, pytest.mark.slow]

LESION, MARKER, RULER = (
    load_protocol().class_named(n).index for n in ("lesion", "marker", "ruler")
)

read = cache(round_trip)


@pytest.fixture(params=WRITTEN, ids=lambda written: f"{written.tool}, {written.what}")
def written(request: pytest.FixtureRequest) -> Written:
    assert isinstance(request.param, Written)
    return request.param


@pytest.fixture
def done(written: Written) -> RoundTrip:
    return read(written)


def test_round_trip__no_class_and_no_mask_is_lost(done: RoundTrip) -> None:
    assert not done.refused
    assert set(done.masks) == set(truths())
    for name, truth in truths().items():
        # What is cut off at the edges of outlines is background.
        assert set(np.unique(done.masks[name])) - {0} == set(np.unique(truth)) - {0}


def test_round_trip__lesion_and_ruler_agree(done: RoundTrip) -> None:
    iou = iou_of(done)
    assert iou[LESION] > 0.88
    assert iou[RULER] > 0.9


def test_round_trip__marker_is_exact_or_told(written: Written, done: RoundTrip) -> None:
    told = any("an outline that lost its hole" in kind for kind in done.kinds)
    assert told != written.keeps_holes
    assert (iou_of(done)[MARKER] == 1) == written.keeps_holes
