"""Own masks added to those of another source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import adaptation
from benchmarks.adaptation import Point, Way, draw, measure, table, training
from benchmarks.photographs import LESION, SKIN, Photograph, Source
from benchmarks.trials import Bench
from fedd.probes.pixels import Example


@pytest.fixture(autouse=True)
def photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(source: Source, count: int) -> list[Photograph]:
        mask = np.full((4, 4), SKIN, np.uint8)
        mask[0] = LESION
        pixels = np.zeros((4, 4, 3), np.uint8)
        return [
            Photograph(Example(pixels, mask, f"{source} {i}"), f"{i}.png", "NEV", "learn10")
            for i in range(count)
        ]

    monkeypatch.setattr(adaptation, "_learn_part", lambda source: made(source, 30))
    monkeypatch.setattr(adaptation, "_others", lambda source: made(source, 30))


def _patients(way: Way, own: int) -> tuple[list[str], list[str]]:
    point = Point("small", Source.PAD_HAND, way, own, 0)
    examples, tested = training(Bench(Path()), point)
    return [p.example.patient for p in examples], [p.example.patient for p in tested.values()]


def test_training__none_of_the_tested_is_learned() -> None:
    for way in Way:
        examples, tested = _patients(way, 20)
        assert len(tested) == adaptation.LEFT
        assert not set(examples) & set(tested)


def test_training__ways() -> None:
    pooled, _ = _patients(Way.POOLED, 5)
    weighted, _ = _patients(Way.WEIGHTED, 5)
    alone, _ = _patients(Way.ALONE, 5)
    assert (len(pooled), len(weighted), len(alone)) == (35, 60, 5)
    assert sum(p.startswith("pad_hand") for p in weighted) == 30
    assert set(alone) < set(pooled) == set(weighted)


def test_training__masks_are_added_to_those_before() -> None:
    assert set(_patients(Way.ALONE, 5)[0]) < set(_patients(Way.ALONE, 10)[0])


def test_table__gain_over_no_own_masks(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    found = {}
    for seed in range(2):
        for own in (0, 10):
            point = Point("small", Source.PAD_HAND, Way.POOLED, own, seed)
            names = training(bench, point)[1]
            found[point] = {"first pass": {name: 0.5 + own / 100 for name in names}}
    curve = measure(bench, found)
    lines = {cells[1]: cells for cells in table(curve, 2)}
    assert lines["10"][6] == "+0.100 [+0.100, +0.100]"
    assert lines["0"][6] == ""
    assert lines["10"][7] == "20"
    draw(curve)
