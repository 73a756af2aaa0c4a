"""Clicks to reach a lesion IoU of 0.8 on real photographs: ours beside GrabCut and the random walker.

The photographs are those of pad300 and pad_hand (`benchmarks.photographs`). Our probes learn from 30
masks of either source. The mask of a photograph simulates the person: the first click is at the
lesion's innermost point, the same for all methods; each further one at the innermost point of the
method's own largest connected error, positive or negative by the mask, until the IoU is 0.8 or after
ten clicks. GrabCut and the random walker
know nothing but the photograph and the clicks (`benchmarks.click_methods`).

By default the learn parts are tested, as in `label_efficiency`; the test parts need `--read-test WHY`.
The numbers in `fedd/clicks.py` were chosen on 30 photographs of pad300's train90 part.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from annotation_protocol.estimates import Sample
from annotation_protocol.intervals import Scale
from benchmarks import reads, tables
from benchmarks.click_methods import GrabCut, Method, Ours, RandomWalker
from benchmarks.photographs import LESION, Photograph, Source, missing
from benchmarks.rows import ROWS, ProbeRow
from benchmarks.trials import Bench, Trial, bank, folds
from fedd.baselines.packages import define_missing_operators
from fedd.clicks import Click, prepare_clicks

MASKS, CLICKS, GOAL = 30, 10, 0.8

OURS, GRABCUT, WALKER = "ours", "GrabCut", "random walker"

HEADER = ("tested on", "method", "learned from", "clicks to 0.8 [95%]", "% reached with 1 to 10")
HEADER += ("IoU after 1 click [95%]", "CPU ms a click", "n", "patients")
WIDTHS = (9, 14, 12, 20, 30, 24, 14, 4, 8)

Region = NDArray[np.bool_]


@dataclass(frozen=True)
class Clicked:
    """A photograph after each click, until the goal is reached or CLICKS are made."""

    photograph: Photograph
    iou: tuple[float, ...]
    seconds: tuple[float, ...]  #: of the processor, of each click

    @property
    def needed(self) -> int:
        """Clicks made; CLICKS too where the goal is not reached."""
        return len(self.iou)

    def reached(self, clicks: int) -> bool:
        """Return whether so many clicks reach the goal."""
        return max(self.iou[:clicks]) >= GOAL


#: Results by what is tested, method, and what was learned from.
Found = dict[tuple[Source, str, str], list[Clicked]]


def main(arguments: Sequence[str] = ()) -> None:
    chosen = _arguments(arguments)
    if why := missing():
        print(why)
        return
    define_missing_operators()
    read = reads.asked(chosen, "clicks")
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(chosen.state or Path(temporary), read)
        found = measure(bench, chosen.row, chosen.most, chosen.jobs)
    rows = [_cells(place, of) for place, of in sorted(found.items())]
    print(f"{chosen.row}, {MASKS} masks, seed 0, one thread; the {bench.part} parts")
    print("\n".join(tables.line(cells, WIDTHS) for cells in (HEADER, *rows)))
    if chosen.out:
        tables.write(chosen.out, HEADER, rows)
    if read is not None:
        if chosen.docs:
            tables.fill(reads.ROOT / "docs" / "model.md", "clicks", HEADER, rows)
        read.log("; ".join(" ".join(cells[:4]) for cells in rows))


def measure(bench: Bench, row: str, most: int | None, jobs: int) -> Found:
    """Click on the photographs of both sources; the methods without a model do so once."""
    tasks = [(OURS, source) for source in Source] + [(name, None) for name in (GRABCUT, WALKER)]
    found: Found = {}
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for part in pool.map(partial(_measured, bench, row, most), tasks):
            found |= part
    return found


def _measured(bench: Bench, row: str, most: int | None, task: tuple[str, Source | None]) -> Found:
    """Click with one method; ours has learned from a source."""
    define_missing_operators()
    kind, learned_from = task
    found: Found = {}
    prepared = (
        _ours(bench, row, learned_from, most) if learned_from else _without(bench, row, kind, most)
    )
    for target, photograph, method in prepared:
        found.setdefault((target, kind, learned_from or ""), []).append(
            corrected(photograph, method)
        )
    return found


Prepared = Iterator[tuple[Source, Photograph, Method]]


def _ours(bench: Bench, row: str, source: Source, most: int | None) -> Prepared:
    for training, photographs in folds(bench, Trial(row, source, MASKS, 0)):
        tested = dict(_first(photographs, most))
        learning = [p.example for p in training], [p.example for p in tested.values()]
        probes, net = _probe_row(row).train(*learning, bank(bench), 0)
        for name, photograph in tested.items():
            pixels = photograph.example.photograph
            ours = Ours(prepare_clicks(probes, net, pixels, bank(bench)), LESION)
            yield Source(name.partition("/")[0]), photograph, ours


def _without(bench: Bench, row: str, kind: str, most: int | None) -> Prepared:
    """Yield the same photographs, each once, for a method without a model."""
    tested: dict[str, Photograph] = {}
    for source in Source:
        for _, photographs in folds(bench, Trial(row, source, MASKS, 0)):
            tested |= _first(photographs, most)
    method = GrabCut if kind == GRABCUT else RandomWalker
    for name, photograph in tested.items():
        yield Source(name.partition("/")[0]), photograph, method(photograph.example.photograph)


def corrected(photograph: Photograph, method: Method) -> Clicked:
    """Click as a person does who corrects the largest error."""
    truth = photograph.lesion
    clicks: list[Click] = []
    region = np.zeros_like(truth)
    scores, seconds = [], []
    for _ in range(CLICKS):
        if (region != truth).any():
            row, column = innermost(region != truth)
            clicks.append(Click(column, row, bool(truth[row, column])))
        started = time.process_time()
        region = method.region(clicks)
        seconds.append(time.process_time() - started)
        scores.append(float((region & truth).sum() / max(1, (region | truth).sum())))
        if scores[-1] >= GOAL:
            break
    return Clicked(photograph, tuple(scores), tuple(seconds))


def innermost(mask: Region) -> tuple[int, int]:
    """Return the pixel of the largest connected part that is farthest from its edge."""
    parts, _ = ndimage.label(mask)
    largest = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
    depth = ndimage.distance_transform_edt(np.pad(largest, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return int(row), int(column)


def _first(
    photographs: dict[str, Photograph], most: int | None
) -> Iterator[tuple[str, Photograph]]:
    """Yield at most so many photographs of each source."""
    for source in Source:
        of = [pair for pair in photographs.items() if pair[0].startswith(f"{source}/")]
        yield from of[:most]


def _probe_row(name: str) -> ProbeRow:
    row = ROWS[name]
    assert isinstance(row, ProbeRow)
    return row


def _cells(place: tuple[Source, str, str], clicked: Sequence[Clicked]) -> tuple[str, ...]:
    target, method, source = place
    patients = [c.photograph.example.patient for c in clicked]
    needed = Sample([float(c.needed) for c in clicked], patients, scale=Scale.POSITIVE)
    reached = [np.mean([c.reached(n) for c in clicked]) for n in range(1, CLICKS + 1)]
    return (
        target,
        method,
        source,
        needed.estimate().text(".1f"),
        " ".join(f"{100 * share:.0f}" for share in reached),
        Sample([c.iou[0] for c in clicked], patients).estimate().text(".2f"),
        f"{np.median([s for c in clicked for s in c.seconds]) * 1e3:.0f}",
        str(len(clicked)),
        str(len(set(patients))),
    )


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.clicks")
    parser.add_argument(
        "--row", choices=[n for n, r in ROWS.items() if isinstance(r, ProbeRow)], default="small"
    )
    parser.add_argument("--most", type=int, help="photographs of each source at most")
    parser.add_argument("--state", type=Path, help="folder of activations, as of label_efficiency")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--out", type=Path, help="write the table here too: .md, or CSV")
    parser.add_argument(
        "--docs", action="store_true", help="fill the table of docs/model.md, after a read"
    )
    reads.add_option(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
