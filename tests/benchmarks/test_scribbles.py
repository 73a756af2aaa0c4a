"""The benchmark of scribbles: strokes in place of masks, and the table."""

from __future__ import annotations

import numpy as np

from benchmarks.photographs import Photograph, Source
from benchmarks.scribbles import MASKS, Point, scribbled, share, table
from benchmarks.trials import key
from fedd.dataset import UNKNOWN
from fedd.probes.training import Example


def photograph(name: str, patient: str = "p") -> Photograph:
    mask = np.full((60, 90), 4, np.uint8)
    mask[20:50, 30:70] = 1
    blank = np.zeros((60, 90, 3), np.uint8)
    return Photograph(Example(blank, mask, patient, "I-II"), name, "NEV", "learn30")


def test_scribbled__strokes_of_each_class_inside_it() -> None:
    whole = photograph("a.png")
    drawn, again = (scribbled(whole).example.mask for _ in range(2))
    np.testing.assert_array_equal(drawn, again)
    known = drawn != UNKNOWN
    np.testing.assert_array_equal(drawn[known], whole.example.mask[known])
    assert set(np.unique(drawn)) == {1, 4, UNKNOWN}
    assert 0.01 < share(whole) == known.mean() < 0.2
    assert (scribbled(photograph("b.png")).example.mask != drawn).any()


def test_table__scribbles_minus_whole_masks() -> None:
    photographs = {
        key(source, p): p for source in Source for p in (photograph("a", "p"), photograph("b", "q"))
    }
    found = {
        Point("small", Source.PAD300, labels, seed): {"first pass": dict.fromkeys(photographs, iou)}
        for labels, iou in (("whole masks", 0.5), ("scribbles", 0.4))
        for seed in range(2)
    }
    rows = list(table(found, photographs, 2))
    assert MASKS == 30
    assert [row[:4] for row in rows] == [
        (tested, "pad300", labels, "first pass")
        for tested in ("pad300", "pad_hand")
        for labels in ("whole masks", "scribbles")
    ]
    assert [row[4][:5] for row in rows] == ["0.500", "0.400"] * 2
    assert [row[6][:6] for row in rows] == ["", "-0.100"] * 2
    assert {row[-1] for row in rows} == {"2"}
