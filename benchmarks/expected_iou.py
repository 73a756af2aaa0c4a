"""How well a prediction's expected IoU tells the lesion IoU that it reaches, on both sources of masks.

Reads what `benchmarks.label_efficiency` stored in its --state FOLDER, and computes what is missing there:

- Spearman: rank correlation of expected and reached IoU over photographs;
- AUC: how well it tells the worst quarter of the photographs from the others;
- bias: expected minus reached, on average; 0 is what calibration wants;
- reliability: reached IoU of the photographs whose expected IoU is in a bin.

Each is the mean over seeds of the probes, with the middle 95 % of resamples of patients.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from benchmarks import reads, tables
from benchmarks.bootstrap import percentile_interval
from benchmarks.label_efficiency import SEEDS
from benchmarks.photographs import Photograph, Source, missing
from benchmarks.rows import CHOSEN, ROWS, ProbeRow
from benchmarks.trials import Bench, Result, Scores, Trial
from fedd import figures

HEADER: tuple[str, ...] = (
    "tested on",
    "learned from",
    "masks",
    "Spearman [95%]",
    "AUC, worst quarter [95%]",
)
HEADER += ("bias [95%]", "n", "patients", "seeds")
WIDTHS = (9, 12, 5, 24, 24, 24, 4, 8, 5)

BIN_HEADER: tuple[str, ...] = (
    "tested on",
    "learned from",
    "expected IoU",
    "expected, mean",
    "reached, mean",
)
BIN_HEADER += ("photographs, mean of seeds",)

#: Bins of expected IoU; the inner ones are the levels that people see.
BINS = (0.0, 0.5, 0.65, 0.8, 1.0)

#: Masks learned from in the table and the figure of reliability.
BINS_AT = 30

RESAMPLES = 1000

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Told:
    """Expected and reached IoU of one source's photographs, (S, T) of S seeds, and their patients."""

    expected: Values
    reached: Values
    patients: list[str]

    @property
    def sizes(self) -> tuple[str, str, str]:
        return (
            str(len(self.patients)),
            str(len(set(self.patients))),
            str(len(self.expected)),
        )

    def text(self, statistic: Callable[[Values, Values], float], form: str = ".2f") -> str:
        """Return the mean over seeds of a statistic of (T,) and (T,), with its interval over patients."""

        def mean(rows: NDArray[np.intp]) -> float:
            pairs = zip(self.expected[:, rows], self.reached[:, rows], strict=True)
            return float(np.mean([statistic(*pair) for pair in pairs]))

        names, of_patient = np.unique(self.patients, return_inverse=True)
        rows_of = [np.flatnonzero(of_patient == i) for i in range(len(names))]
        rng = np.random.default_rng(0)
        found = [
            mean(np.concatenate([rows_of[i] for i in rng.integers(len(names), size=len(names))]))
            for _ in range(RESAMPLES)
        ]
        low, high = percentile_interval(np.array(found))
        value = mean(np.arange(len(self.patients)))
        return f"{value:{form}} [{low:{form}}, {high:{form}}]"

    def bins(self) -> Iterator[tuple[float, float, float, float, float]]:
        """Yield each bin that has photographs: its ends, mean expected, mean reached, photographs a seed."""
        for low, high in pairwise(BINS):
            inside = (self.expected >= low) & (self.expected < high)
            if inside.any():
                yield (
                    *(low, high, float(self.expected[inside].mean())),
                    *(float(self.reached[inside].mean()), inside.sum() / len(self.expected)),
                )


def spearman(expected: Values, reached: Values) -> float:
    """Return the rank correlation; NaN where one of them is constant."""
    ranks = rankdata(expected), rankdata(reached)
    if min(np.ptp(of) for of in ranks) == 0:
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def worst_quarter_auc(expected: Values, reached: Values) -> float:
    """Return the AUC of expected IoU for telling the worst quarter of the photographs; ties count half."""
    worst = reached <= np.quantile(reached, 0.25)
    ranks = rankdata(-expected)
    n = int(worst.sum())
    if n == len(worst):
        return float("nan")
    return float((ranks[worst].sum() - n * (n + 1) / 2) / (n * (len(worst) - n)))


def bias(expected: Values, reached: Values) -> float:
    """Return the mean of expected minus reached."""
    return float((expected - reached).mean())


def told(
    results: Mapping[Trial, Result], photographs: Mapping[str, Photograph], reading: str
) -> dict[tuple[Source, Source, int], Told]:
    """Return what was expected and reached by tested source, learned source and number of masks."""
    by: dict[tuple[Source, Source, int], list[tuple[Scores, Scores]]] = {}
    for trial, result in results.items():
        for source in Source:
            mine = {
                name: value
                for name, value in result.expected.get(reading, {}).items()
                if name.startswith(f"{source}/")
            }
            if mine:
                key = source, trial.source, trial.count
                by.setdefault(key, []).append((mine, result.scores[reading]))
    found = {}
    for key, seeds in by.items():
        names = sorted(seeds[0][0])
        found[key] = Told(
            np.array([[expected[name] for name in names] for expected, _ in seeds]),
            np.array([[reached[name] for name in names] for _, reached in seeds]),
            [photographs[name].example.patient for name in names],
        )
    return dict(sorted(found.items()))


def lines(found: Mapping[tuple[Source, Source, int], Told]) -> Iterator[tuple[str, ...]]:
    """Yield the lines of the table."""
    for (tested, learned, count), of in found.items():
        yield (
            *(tested, learned, str(count)),
            *(of.text(spearman, "+.2f"), of.text(worst_quarter_auc), of.text(bias, "+.3f")),
            *of.sizes,
        )


def bin_lines(found: Mapping[tuple[Source, Source, int], Told]) -> Iterator[tuple[str, ...]]:
    """Yield the lines of the table of reliability, of BINS_AT masks."""
    for (tested, learned, count), of in found.items():
        if count != BINS_AT:
            continue
        for low, high, expected, reached, n in of.bins():
            ends = f"{low:.2f} to {high:.2f}"
            yield tested, learned, ends, f"{expected:.2f}", f"{reached:.2f}", f"{n:.0f}"


def main(arguments: Sequence[str] = ()) -> None:
    chosen = _arguments(arguments)
    if why := missing():
        print(why)
        return
    with tempfile.TemporaryDirectory() as temporary:
        read = reads.asked(chosen, "expected_iou")
        bench = Bench(chosen.state or Path(temporary), read, frozenset(chosen.keep))
        trials = [
            Trial(chosen.row, source, count, seed)
            for source in Source
            for count in source.counts
            if count in chosen.masks
            for seed in range(chosen.seeds)
        ]
        found = told(bench.results(trials, chosen.jobs), bench.photographs(), chosen.reading)
    table, bins = list(lines(found)), list(bin_lines(found))
    print(f"{chosen.row}, {chosen.reading}; the {bench.part} parts")
    print("\n".join(tables.line(cells, WIDTHS) for cells in (HEADER, *table)))
    print(tables.markdown(BIN_HEADER, bins))
    if chosen.figure:
        figures.save(_figure(found), chosen.figure)
    if read is not None:
        if chosen.docs:
            page = reads.ROOT / "docs" / "model.md"
            tables.fill(page, "expected_iou", HEADER, table)
            tables.fill(page, "reliability", BIN_HEADER, bins)
        read.log("; ".join(f"{' '.join(cells[:3])}: Spearman {cells[3]}" for cells in table))


def _figure(found: Mapping[tuple[Source, Source, int], Told]) -> Any:
    """A panel for each tested source: reached against expected IoU, a line for each learned source."""
    figure, grid = figures.new_figure(3.6 * len(Source), 3.6, 1, len(Source))
    for axes, tested in zip(grid[0], Source, strict=True):
        axes.plot([0, 1], [0, 1], color=figures.LINE, linewidth=1)
        for colour, learned in zip(figures.SERIES, Source, strict=False):
            of = found.get((tested, learned, BINS_AT))
            if of is None:
                continue
            points = list(of.bins())
            axes.plot(
                [p[2] for p in points], [p[3] for p in points], color=colour, marker="o",
                markersize=4, linewidth=1.4, label=f"{BINS_AT} masks of {learned}",
            )  # fmt: skip
            n = len(of.patients)
        axes.set_title(f"{tested} (n = {n})", loc="left", fontsize=9, color=figures.INK)
        axes.set_xlabel("expected lesion IoU", color=figures.MUTED, fontsize=9)
        axes.legend(frameon=False, fontsize=8, labelcolor=figures.INK, loc="upper left")
    grid[0, 0].set_ylabel("reached lesion IoU, mean", color=figures.MUTED, fontsize=9)
    return figure


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.expected_iou")
    probes = [name for name, row in ROWS.items() if isinstance(row, ProbeRow)]
    parser.add_argument("--row", choices=probes, default="default")
    parser.add_argument("--reading", default=CHOSEN)
    parser.add_argument("--masks", nargs="+", type=int, choices=(10, 30, 90), default=[10, 30, 90])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--state", type=Path, help="folder of `label_efficiency`")
    parser.add_argument("--keep", nargs="+", choices=ROWS, default=[])
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--figure", type=Path, help="draw the reliability here")
    parser.add_argument("--docs", action="store_true", help="fill the tables of docs/model.md")
    reads.add_option(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
