"""The benchmark of expected IoU."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.expected_iou import Told, bias, spearman, told, worst_quarter_auc
from benchmarks.photographs import Photograph, Source
from benchmarks.rows import CHOSEN
from benchmarks.trials import Result, Trial
from fedd.probes.training import Example


def test_spearman__order_alone_counts() -> None:
    reached = np.array([0.1, 0.2, 0.7, 0.9])
    assert spearman(reached**3, reached) == pytest.approx(1)
    assert spearman(-reached, reached) == pytest.approx(-1)
    assert np.isnan(spearman(np.ones(4), reached))


def test_worst_quarter_auc__ties_count_half() -> None:
    reached = np.array([0.1, 0.5, 0.6, 0.7])
    assert worst_quarter_auc(np.array([0.2, 0.3, 0.4, 0.5]), reached) == 1
    assert worst_quarter_auc(np.array([0.9, 0.3, 0.4, 0.5]), reached) == 0
    assert worst_quarter_auc(np.full(4, 0.5), reached) == 0.5


def test_told__by_source_and_seed() -> None:
    blank = np.zeros((2, 2, 3), np.uint8)
    photographs = {
        f"{source}/{i}": Photograph(
            Example(blank, blank[..., 0], f"p{i}", "I-II"), str(i), "NEV", "t"
        )
        for source in Source
        for i in range(3)
    }
    scores = {name: 0.5 for name in photographs}
    results = {
        Trial("default", Source.PAD300, 30, seed): Result(
            {CHOSEN: scores}, {CHOSEN: {name: 0.5 + 0.1 * seed for name in photographs}}
        )
        for seed in range(2)
    }
    found = told(results, photographs, CHOSEN)
    assert list(found) == [(Source.PAD300, Source.PAD300, 30), (Source.PAD_HAND, Source.PAD300, 30)]
    of = found[Source.PAD_HAND, Source.PAD300, 30]
    assert of.sizes == ("3", "3", "2")
    assert of.text(bias, "+.3f") == "+0.050 [+0.050, +0.050]"
    assert list(of.bins()) == [(0.5, 0.65, pytest.approx(0.55), 0.5, 3)]


def test_bins__empty_ones_are_left_out() -> None:
    of = Told(np.array([[0.1, 0.9]]), np.array([[0.2, 0.8]]), ["a", "b"])
    assert [(low, n) for low, _, _, _, n in of.bins()] == [(0.0, 1), (0.8, 1)]
