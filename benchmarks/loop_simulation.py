"""What to label next, tried out: lesion IoU against masks spent, by strategy, on real photographs.

`benchmarks.simulated_labelling` says how labelling is played. There are two pools:

- pad300: its learn and pool parts, tested on its test part;
- pad_hand: the learn parts of both sources, tested on pad_hand's test part.

Without `--read-test WHY` no test part is opened: pad300's learn parts, and pad_hand's, play the test, and
what is left of each pool is labelled from.

What is learned from a set of masks is kept in --state FOLDER, so that a run that was broken off goes on
where it was. A quarter of an hour: `python -m benchmarks loop_simulation --read-test WHY --figure curve.png`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks import reads, tables
from benchmarks.bootstrap import percentile_interval
from benchmarks.learning_curves import Bootstrap, area, at_point, share_saved
from benchmarks.photographs import Source, examples, learn_part, missing, pool, tested_part
from benchmarks.simulated_labelling import BATCH, RANDOM_SHARE, SETTINGS, START, Learned, Trial
from ddiseg.sampling.strategies import Strategy
from fedd import figures
from fedd.baselines.packages import define_missing_operators
from fedd.probes.training import Example
from fedd.weights.files import load_backbone

SEEDS = 5

HEADER = ("pool", "masks", "strategy", "lesion IoU, mean [95%]", "minus random [95%]")
HEADER += ("n", "patients", "seeds")
WIDTHS = (9, 6, 12, 24, 26, 4, 9, 6)


def main(arguments: Sequence[str] = ()) -> None:
    chosen = _arguments(arguments)
    if why := missing():
        print(why)
        return
    define_missing_operators()
    read = reads.asked(chosen, "loop_simulation")
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        for source in chosen.pools:
            trial = _trial(source, read, (chosen.state or Path(temporary)) / source, chosen.quick)
            print(
                f"{source}: pool {len(trial.pool)} photographs ({_tones(trial.pool)}), tested on "
                f"{len(trial.test)} ({_tones(trial.test)}), seeds 0 to {chosen.seeds - 1}, a random "
                f"share of {RANDOM_SHARE:.0%}\n{trial.settings}"
            )
            results.append(Result.of(source, trial, chosen.seeds))
    rows = [row for result in results for row in result.rows()]
    print(tables.line(HEADER, WIDTHS))
    print("\n".join(tables.line(row, WIDTHS) for row in rows))
    summary = [line for result in results for line in result.summary()]
    print("\n".join(summary))
    if read:
        read.log("; ".join(summary))
    if chosen.out:
        tables.write(chosen.out, HEADER, rows)
    if chosen.figure:
        figures.save(_figure(results), chosen.figure)


def _trial(source: Source, read: reads.TestRead | None, state: Path, quick: bool) -> Trial:
    learn, rest = learn_part(Source.PAD300), pool(Source.PAD300)
    hand = learn_part(Source.PAD_HAND)
    if source is Source.PAD300:
        waiting, test = ([*learn, *rest], None) if read else (rest, learn)
    else:
        waiting, test = ([*learn, *hand], None) if read else (learn, hand)
    if read is not None:
        test = tested_part(source, read)
    unlabelled, tested = examples(waiting), examples(test or [])
    if not quick:
        return Trial.of(unlabelled, tested, load_backbone(), state)
    settings = replace(SETTINGS, steps=40, views=0)
    return Trial.of(
        *(unlabelled[:60], tested[:20], load_backbone(), state),
        settings=settings,
        end=START + BATCH,
    )


@dataclass(frozen=True)
class Result:
    """What labelling from one pool gave: by strategy (S, P, T) lesion IoU, and what the models told."""

    source: Source
    trial: Trial
    curves: dict[Strategy, NDArray[np.float64]]
    told: list[Learned]

    @classmethod
    def of(cls, source: Source, trial: Trial, seeds: int) -> Result:
        started = time.monotonic()
        curves: dict[Strategy, list[list[NDArray[np.float64]]]] = {s: [] for s in Strategy}
        told = []
        for seed in range(seeds):
            for strategy in Strategy:
                run = list(trial.run(strategy, seed))
                curves[strategy].append([learned.iou for learned in run])
                told += run[:-1] if strategy is Strategy.RANDOM else []
                minutes = (time.monotonic() - started) / 60
                print(f"{source}, seed {seed}, {strategy}: {minutes:.1f} min", file=sys.stderr)
        return cls(source, trial, {s: np.array(runs) for s, runs in curves.items()}, told)

    @property
    def bootstrap(self) -> Bootstrap:
        patients = [example.patient for example in self.trial.test]
        return Bootstrap(patients, len(self.curves[Strategy.RANDOM]))

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield the rows of the table."""
        boot, images = self.bootstrap, len(self.trial.test)
        random = boot.means(self.curves[Strategy.RANDOM])
        for strategy, curve in self.curves.items():
            means = boot.means(curve)
            for point, masks in enumerate(self.trial.points):
                minus = at_point(means, point) - at_point(random, point)
                yield (
                    *(self.source.value, str(masks), strategy.value),
                    boot.text(at_point(means, point), images),
                    "" if strategy is Strategy.RANDOM else boot.text(minus, images, "+.3f"),
                    *(str(images), str(boot.patients), str(len(curve))),
                )

    def summary(self) -> Iterator[str]:
        """Yield a line for each strategy: the area under its curve and the masks that it saves."""
        boot, images, points = self.bootstrap, len(self.trial.test), self.trial.points
        random = boot.means(self.curves[Strategy.RANDOM])
        of_random = area(random, points)
        yield (
            f"{self.source}, random: mean height of the curve {boot.text(of_random, images)}, "
            f"n = {images} of {boot.patients} patients, {len(self.curves[Strategy.RANDOM])} seeds"
        )
        for strategy, curve in self.curves.items():
            if strategy is Strategy.RANDOM:
                continue
            means = boot.means(curve)
            gain = area(means, points) - of_random
            saved = share_saved(means, random, points)
            yield (
                f"{self.source}, {strategy}: mean height minus random {boot.text(gain, images, '+.3f')}, "
                f"saves {100 * saved.value:.0f} % of the masks to reach random's level at {points[-1]} "
                f"[{', '.join(f'{100 * end:.0f}' for end in percentile_interval(saved.resamples))}]"
            )
        yield self._told()

    def _told(self) -> str:
        """Return how well the models of the random curve ranked the photographs that were not labelled."""
        found = []
        for learned in self.told:
            known = np.isfinite(learned.pool_iou)
            if known.any():
                expected = spearmanr(learned.quality[known], learned.pool_iou[known])
                uncertain = spearmanr(learned.uncertainty[known], learned.pool_iou[known])
                found.append((expected.statistic, uncertain.statistic))
        expected, uncertain = np.mean(found, axis=0)
        return (
            f"{self.source}, {START} random masks: Spearman of reached lesion IoU with expected IoU "
            f"{expected:+.2f}, with uncertainty {uncertain:+.2f}, on the pool, mean of {len(found)} seeds"
        )


def _figure(results: Sequence[Result]) -> Any:
    """A panel for each pool, each with all strategies."""
    figure, grid = figures.new_figure(
        3.9 * len(results), 3.6, 1, len(results), sharey=False, gridspec_kw={"wspace": 0.2}
    )
    colours = dict(
        zip(Strategy, (figures.MUTED, *figures.SERIES[:2], *figures.SERIES[4:6]), strict=True)
    )
    for axes, result in zip(grid[0], results, strict=True):
        boot, points = result.bootstrap, np.array(result.trial.points)
        for offset, (strategy, curve) in enumerate(result.curves.items()):
            means = boot.means(curve)
            ends = np.array([percentile_interval(of_one) for of_one in means[1:].T])
            axes.errorbar(
                points + 1.2 * (offset - 2), means[0],
                np.abs(ends.T - means[0]), color=colours[strategy], label=strategy.value,
                marker="o", markersize=3.5, linewidth=1.4, elinewidth=0.8,
            )  # fmt: skip
        axes.set_title(
            f"{result.source}\n(n = {len(result.trial.test)}, {boot.patients} patients)",
            loc="left", fontsize=9, color=figures.INK,
        )  # fmt: skip
        axes.set_xticks(points)
        axes.set_xlabel("masks", color=figures.MUTED, fontsize=9)
        axes.grid(axis="y", color=figures.LINE)
    grid[0, 0].set_ylabel("lesion IoU, mean and 95 %", color=figures.MUTED, fontsize=9)
    grid[0, 0].legend(frameon=False, fontsize=8, labelcolor=figures.INK, loc="lower right")
    return figure


def _tones(photographs: Sequence[Example]) -> str:
    return ", ".join(f"{t} {n}" for t, n in sorted(Counter(e.tone for e in photographs).items()))


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.loop_simulation")
    parser.add_argument("--pools", nargs="+", type=Source, default=list(Source), choices=Source)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--state", type=Path, help="folder of what was learned; goes on from there")
    parser.add_argument("--quick", action="store_true", help="few images and steps: does it run")
    parser.add_argument("--out", type=Path, help="write the table here too: .md, or CSV")
    parser.add_argument("--figure", type=Path, help="draw the curves here: .png, .svg or .pdf")
    reads.add_option(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
