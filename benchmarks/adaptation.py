"""Adaptation to another style of masks: lesion IoU after 0, 5, 10 and 20 own masks.

A model has learned from 30 masks of the other source. Then a user's own masks are added, and it learns
anew. The ways to add them:

- pooled: own and other masks count alike;
- weighted: own masks are repeated until they are half of all;
- own only: the other source's masks are left out.

By default the rest of the learn part is tested: the own masks are drawn at random from it, others for
each seed, and the last LEFT in that order are tested. With `--read-test WHY` it is the test part.

    python -m benchmarks.adaptation --state STATE --row small --out curve.md --figure curve.png
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import reads, tables
from benchmarks.paired import Measured
from benchmarks.photographs import Photograph, Source, learn_part, learned, missing, tested_part
from benchmarks.rows import ROWS
from benchmarks.trials import Bench, Scores, key, made_from, store
from fedd import figures
from fedd.baselines.packages import define_missing_operators

#: Masks of the other source, numbers of own masks, seeds, and photographs of a learn part that are tested.
OTHERS, OWN, SEEDS, LEFT = 30, (0, 5, 10, 20), 5, 10


class Way(StrEnum):
    """How own masks are added to those of the other source."""

    POOLED = "pooled"
    WEIGHTED = "weighted"
    ALONE = "own only"


@dataclass(frozen=True)
class Point:
    """One training: own masks of a source, added in one way, with one seed."""

    row: str
    source: Source
    way: Way
    own: int
    seed: int


HEADER = ("tested on", "own masks", "way", "reading", "lesion IoU, mean [95%]", "SD of seeds")
HEADER += ("minus no own masks [95%]", "n", "patients", "seeds")
WIDTHS = (9, 9, 9, 14, 22, 11, 25, 4, 8, 5)

#: Results by source, way, own masks and reading.
Curve = dict[tuple[Source, Way, int, str], Measured]


def main(arguments: Sequence[str] = ()) -> None:
    chosen = _arguments(arguments)
    if why := missing():
        print(why)
        return
    read = reads.asked(chosen, "adaptation")
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(chosen.state or Path(temporary), read)
        points = [
            Point(chosen.row, source, way, own, seed)
            for source in Source
            for way in chosen.ways
            for own in OWN
            if own or way is Way.POOLED
            for seed in range(chosen.seeds)
        ]
        with ProcessPoolExecutor(
            chosen.jobs, get_context("spawn"), torch.set_num_threads, (1,)
        ) as pool:
            scores = list(pool.map(_scores, [bench] * len(points), points))
        curve = measure(bench, dict(zip(points, scores, strict=True)))
    rows = list(table(curve, chosen.seeds))
    print(f"{chosen.row}; {OTHERS} masks of the other source; the {bench.part} parts")
    print("\n".join(tables.line(cells, WIDTHS) for cells in (HEADER, *rows)))
    if chosen.out:
        tables.write(chosen.out, HEADER, rows)
    if chosen.figure:
        figures.save(draw(curve), chosen.figure)
    if read is not None:
        if chosen.docs:
            kept = [cells for cells in rows if cells[3] == chosen.docs]
            tables.fill(reads.ROOT / "docs" / "model.md", "adaptation", HEADER, kept)
        read.log("; ".join(" ".join(cells[:5]) for cells in rows))


def training(bench: Bench, point: Point) -> tuple[list[Photograph], dict[str, Photograph]]:
    """Return what a point learns from and what it is tested on; no patient is in both."""
    mine = own_masks(point.source, point.seed)
    if bench.read is None:
        tested = mine[-LEFT:]
        mine = mine[:-LEFT]
    else:
        tested = tested_part(point.source, bench.read)
    patients = {p.example.patient for p in tested}
    own = [p for p in mine if p.example.patient not in patients][: point.own]
    others = [] if point.way is Way.ALONE else _others(point.source.other)
    if point.way is Way.WEIGHTED:
        own = own * max(1, round(len(others) / len(own)))
    return [*others, *own], {key(point.source, p): p for p in tested}


def own_masks(source: Source, seed: int) -> list[Photograph]:
    """Return the learn part in the order in which a simulated user draws its masks."""
    photographs = _learn_part(source)
    order = np.random.default_rng(seed).permutation(len(photographs))
    return [photographs[i] for i in order]


def _scores(bench: Bench, point: Point) -> dict[str, Scores]:
    """Return the scores of a point by reading, computed or stored."""
    define_missing_operators()
    name = f"{point.row}--{point.source}-{point.way}-{point.own}--seed{point.seed}.json"
    path = bench.folder / f"adaptation-{bench.part}" / name.replace(" ", "-")
    if path.is_file():
        stored = json.loads(path.read_text())
        if stored["made_from"] == made_from(point.row):
            scores: dict[str, Scores] = stored["scores"]
            return scores
    scores = bench.score(point.row, *training(bench, point), point.seed).scores
    store(path, {"made_from": made_from(point.row), "scores": scores})
    print(f"{point}", file=sys.stderr, flush=True)
    return scores


def measure(bench: Bench, found: dict[Point, dict[str, Scores]]) -> Curve:
    """Return the scores of all seeds together; on learn parts each seed tests other photographs."""
    curve: Curve = {}
    by: dict[tuple[Source, Way, int, str], list[tuple[int, Scores]]] = {}
    for point, readings in found.items():
        for reading, scores in readings.items():
            by.setdefault((point.source, point.way, point.own, reading), []).append(
                (point.seed, scores)
            )
    for place, seeds in by.items():
        source = place[0]
        if bench.read is not None:
            photographs = {key(source, p): p for p in tested_part(source, bench.read)}
            names = sorted(photographs)
            values = np.array([[scores[name] for name in names] for _, scores in seeds])
            curve[place] = Measured(values, [photographs[name] for name in names])
            continue
        own = {key(source, p): p for p in _learn_part(source)}
        pairs = [(name, value) for _, scores in seeds for name, value in sorted(scores.items())]
        curve[place] = Measured(
            np.array([[value for _, value in pairs]]), [own[name] for name, _ in pairs]
        )
    return curve


def table(curve: Curve, seeds: int) -> Iterator[tuple[str, ...]]:
    """Yield a line for each number of own masks, way and reading.

    On learn parts each seed tests other photographs: there is no spread between seeds to tell.
    """
    for (source, way, own, reading), scores in sorted(curve.items()):
        start = curve.get((source, Way.POOLED, 0, reading))
        yield (
            source,
            str(own),
            way,
            reading,
            scores.mean(),
            "" if math.isnan(scores.spread) else f"{scores.spread:.3f}",
            "" if not own or start is None else scores.minus(start),
            *scores.sizes(),
            str(seeds),
        )


def draw(curve: Curve) -> Any:
    """Draw the curves of each source, a panel each; the reading with the best mean of all."""
    readings = sorted({reading for *_, reading in curve})
    best = max(
        readings, key=lambda r: np.mean([s.values.mean() for k, s in curve.items() if k[3] == r])
    )
    figure, grid = figures.new_figure(8, 3.4, 1, len(Source), sharey=True)
    for axes, source in zip(grid[0], Source, strict=True):
        for way, colour in zip(Way, figures.SERIES, strict=False):
            points = {
                own: curve[source, w, own, best].values.mean()
                for own in OWN
                for w in [Way.POOLED if not own and way is not Way.ALONE else way]
                if (source, w, own, best) in curve
            }
            axes.plot([*points], [*points.values()], marker="o", color=colour, label=way.value)
        axes.set_title(
            f"{source}, after {OTHERS} masks of {source.other}", fontsize=9, color=figures.INK
        )
        axes.set_xlabel("own masks", fontsize=9, color=figures.MUTED)
        axes.grid(axis="y", color=figures.LINE)
    grid[0, 0].set_ylabel(f"lesion IoU, {best}", fontsize=9, color=figures.MUTED)
    grid[0, 0].legend(frameon=False, fontsize=8, labelcolor=figures.INK)
    return figure


@cache
def _learn_part(source: Source) -> list[Photograph]:
    return learn_part(source)


@cache
def _others(source: Source) -> list[Photograph]:
    return learned(source, OTHERS)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.adaptation")
    parser.add_argument("--row", choices=ROWS, default="small")
    parser.add_argument("--ways", nargs="+", type=Way, choices=list(Way), default=list(Way))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--state", type=Path, help="folder of activations, as of label_efficiency")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--out", type=Path, help="write the table here too: .md, or CSV")
    parser.add_argument("--figure", type=Path, help="draw the curves here: .png, .svg or .pdf")
    parser.add_argument(
        "--docs",
        metavar="READING",
        help="fill the table of docs/model.md with a reading, after a read",
    )
    reads.add_option(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
