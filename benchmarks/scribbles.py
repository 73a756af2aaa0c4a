"""Learning from scribbles: lesion IoU from masks in which three strokes a class are labelled, beside whole masks.

Each mask keeps STROKES strokes of each class, lines between two random pixels of it that stay clear of
its edge; all other pixels are unlabelled, 255. The same photographs with their whole masks are the
baseline. Only learn parts are read: a source's masks are tested on the learn part of the other, and on
what is left of their own, or by cross-validation (`benchmarks.trials.folds`).

    python -m benchmarks.scribbles --state STATE --row small --out scribbles.md
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks import tables
from benchmarks.label_efficiency import measure
from benchmarks.paired import Measured
from benchmarks.photographs import Photograph, Source, learned, missing
from benchmarks.rows import ROWS
from benchmarks.trials import Bench, Result, Scores, Trial, folds, made_from, store
from fedd.baselines.packages import define_missing_operators
from fedd.dataset import UNKNOWN

MASKS, SEEDS = 30, 3

#: Strokes a class; their width, and how far they stay from the edge of the class, in lengths of the
#: photograph's longer side.
STROKES, WIDTH, MARGIN = 3, 0.03, 0.01

WHOLE, SCRIBBLES = "whole masks", "scribbles"
LABELS = (WHOLE, SCRIBBLES)

HEADER = ("tested on", "learned from", "labels", "reading", "lesion IoU, mean [95%]", "SD of seeds")
HEADER += ("minus whole masks [95%]", "n", "patients", "seeds")
WIDTHS = (9, 12, 11, 23, 22, 11, 24, 4, 8, 5)


@dataclass(frozen=True)
class Point:
    """One training: masks of a source, whole or as scribbles, with one seed."""

    row: str
    source: Source
    labels: str
    seed: int


def main(arguments: Sequence[str] = ()) -> None:
    chosen = _arguments(arguments)
    if why := missing():
        print(why)
        return
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(chosen.state or Path(temporary))
        points = [
            Point(chosen.row, source, labels, seed)
            for seed in range(chosen.seeds)
            for source in Source
            for labels in LABELS
        ]
        with ProcessPoolExecutor(
            chosen.jobs, get_context("spawn"), torch.set_num_threads, (1,)
        ) as pool:
            scores = list(pool.map(_scores, [bench] * len(points), points))
        found = dict(zip(points, scores, strict=True))
        rows = list(table(found, bench.photographs(), chosen.seeds))
    shares = [np.mean([share(p) for p in learned(s, MASKS)]) for s in Source]
    print(
        f"{chosen.row}; {MASKS} masks; {STROKES} strokes a class: {shares[0]:.1%} of the pixels of"
    )
    print(f"{Source.PAD300} and {shares[1]:.1%} of {Source.PAD_HAND} are labelled; the learn parts")
    print("\n".join(tables.line(cells, WIDTHS) for cells in (HEADER, *rows)))
    if chosen.out:
        tables.write(chosen.out, HEADER, rows)


def scribbled(photograph: Photograph) -> Photograph:
    """Return a photograph with strokes in place of its mask, the same ones every time."""
    example = photograph.example
    rng = np.random.default_rng(list(hashlib.sha256(photograph.name.encode()).digest()))
    mask = np.full_like(example.mask, UNKNOWN)
    for class_id in np.unique(example.mask):
        mask[_strokes(example.mask == class_id, rng)] = class_id
    return replace(photograph, example=replace(example, mask=mask))


def share(photograph: Photograph) -> float:
    """Return the share of the pixels that the scribbles of a photograph label."""
    return float((scribbled(photograph).example.mask != UNKNOWN).mean())


def _strokes(region: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return STROKES lines between pixels of a region (H, W), inside it."""
    from scipy import ndimage

    longer = max(region.shape)
    inner = ndimage.distance_transform_edt(region) > MARGIN * longer
    inside = inner if inner.any() else region
    pixels = np.argwhere(inside)
    picture = Image.new("1", region.shape[::-1])
    draw = ImageDraw.Draw(picture)
    for _ in range(STROKES):
        (top, left), (bottom, right) = pixels[rng.integers(len(pixels), size=2)].tolist()
        draw.line((left, top, right, bottom), 1, max(1, round(WIDTH * longer)))
    strokes: NDArray[np.bool_] = np.array(picture) & inside
    return strokes


def _scores(bench: Bench, point: Point) -> dict[str, Scores]:
    """Return the scores of a point by reading, computed or stored."""
    define_missing_operators()
    name = f"{point.row}--{point.source}-{point.labels}--seed{point.seed}.json"
    path = bench.folder / "scribbles" / name.replace(" ", "-")
    if path.is_file():
        stored = json.loads(path.read_text())
        if stored["made_from"] == made_from(point.row):
            kept: dict[str, Scores] = stored["scores"]
            return kept
    scores: dict[str, Scores] = {}
    for training, photographs in folds(bench, Trial(point.row, point.source, MASKS, point.seed)):
        drawn = [scribbled(p) for p in training] if point.labels == SCRIBBLES else training
        found = bench.score(point.row, drawn, photographs, point.seed)
        for reading, of_reading in found.scores.items():
            scores.setdefault(reading, {}).update(of_reading)
    store(path, {"made_from": made_from(point.row), "scores": scores})
    print(f"{point}", file=sys.stderr, flush=True)
    return scores


def table(
    found: dict[Point, dict[str, Scores]], photographs: dict[str, Photograph], seeds: int
) -> Iterator[tuple[str, ...]]:
    """Yield a line for each source that is tested, source that is learned from, reading and labels."""
    measured: dict[str, dict[tuple[Source, Source, str], Measured]] = {}
    for labels in LABELS:
        of = {
            Trial(p.row, p.source, MASKS, p.seed): Result(scores)
            for p, scores in found.items()
            if p.labels == labels
        }
        measured[labels] = {
            (setup.tested, setup.learned, setup.reading): scores
            for setup, scores in measure(of, photographs).items()
        }
    for place in sorted(measured[WHOLE]):
        tested, source, reading = place
        for labels in LABELS:
            scores = measured[labels][place]
            yield (
                *(tested, source, labels, reading, scores.mean(), f"{scores.spread:.3f}"),
                "" if labels == WHOLE else scores.minus(measured[WHOLE][place]),
                *(*scores.sizes(), str(seeds)),
            )


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.scribbles")
    parser.add_argument("--row", choices=ROWS, default="default")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--state", type=Path, help="folder of activations, as of label_efficiency")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--out", type=Path, help="write the table here too: .md, or CSV")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
