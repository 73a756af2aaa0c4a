"""What to label next, tried out: lesion IoU against masks spent, by strategy, on real photographs.

The photographs are pad300 (PAD-UFES-20, CC BY 4.0); PAD300 names the folder. Its masks play the
annotator: 10 images drawn at random, then batches of 20 up to 90, drawn as `ddiseg batch draw`
draws them (equal by tone, of a patient one image a batch and none who is labelled already as long
as there are others, a fifth of each batch at random, the rest by the strategy). After each batch
probes learn anew from all masks so far and predict the test part, which nothing else ever sees.

To be affordable on two cores the probes are lighter than the product's: no refinement pass, no mirror
image, one augmented view, 200 steps, member probabilities on a grid of 32. That lowers every curve alike.

What is learned from a set of masks is kept in --state FOLDER, so that a run that was broken off goes
on where it was. An hour: `python -m benchmarks.loop_simulation --out curve.csv --figure curve.png`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from annotation_protocol.estimates import Estimate, too_few
from annotation_protocol.metrics import confusion, iou_per_class
from benchmarks import reads, tables
from benchmarks.bootstrap import RESAMPLES, bootstrap_weights, percentile_interval
from benchmarks.photographs import (
    CLASSES,
    LESION,
    Source,
    examples,
    learn_part,
    missing,
    pool,
    tested_part,
)
from ddiseg.sampling.quotas import share_out
from ddiseg.sampling.strategies import Candidates, Strategy, pick
from fedd import figures
from fedd.backbone import Backbone
from fedd.baselines.packages import define_missing_operators
from fedd.cache import FeatureCache
from fedd.features import FeatureSpec, prepare
from fedd.probes.training import Example, train_probes
from fedd.segment import SMALL, Prediction, Probes, ProbeSettings
from fedd.weights.files import load_backbone

START, BATCH, END, SEEDS, RANDOM_SHARE = 10, 20, 90, 5, 0.2

SETTINGS = replace(SMALL, refined_class=None, mirrored=False, views=1, steps=200, grid=32)


#: Bytes of activations on disk; all views of all seeds are less than half of it.
CACHE_LIMIT = 8 * 10**9

#: Strategies that ask for the uncertainty of what is not labelled yet.
UNCERTAIN = (Strategy.UNCERTAINTY, Strategy.MIXED)

#: Stands for all images in the table.
ALL = "all"

HEADER = ("masks", "strategy", "tone", "lesion IoU, mean [95%]", "minus random [95%]")
HEADER += ("n", "patients", "seeds")
WIDTHS = (6, 12, 8, 24, 24, 4, 9, 6)


def main(arguments: Sequence[str] = ()) -> None:
    chosen = _arguments(arguments)
    read = reads.asked(chosen, "loop_simulation")
    if why := missing([Source.PAD300]) or (
        "" if read else "skipped: it reads the test part, which needs --read-test WHY"
    ):
        print(why)
        return
    define_missing_operators()
    with tempfile.TemporaryDirectory() as temporary:
        trial = Trial.on(read, chosen.state or Path(temporary), chosen.quick)
        print(
            f"pool {len(trial.pool)} photographs ({_tones(trial.pool)}), test {len(trial.test)} "
            f"({_tones(trial.test)}), seeds 0 to {chosen.seeds - 1}, a random share of "
            f"{RANDOM_SHARE:.0%}\n{trial.settings}"
        )
        curves = trial.curves(chosen.seeds)
    rows = list(_rows(curves, trial))
    print(tables.line(HEADER, WIDTHS))
    print("\n".join(tables.line(row, WIDTHS) for row in rows))
    savings = list(_savings(curves, trial))
    print("\n".join(savings))
    read.log("; ".join(savings))
    if chosen.out:
        tables.write(chosen.out, HEADER, rows)
    if chosen.figure:
        figures.save(_figure(curves, trial), chosen.figure)


@dataclass(frozen=True)
class Learned:
    """What probes that learned from some masks make of all photographs."""

    iou: NDArray[np.float64]  #: (T,), of the lesion on the test part
    uncertainty: NDArray[np.float64]  #: (P,), on the pool; NaN where labelled or not asked for


#: By strategy: (seeds, points, T) lesion IoU of each test image at each number of masks.
Curves = dict[Strategy, NDArray[np.float64]]


@dataclass(frozen=True)
class Trial:
    """A pool to label from, a test part, and the network that sees both."""

    pool: Sequence[Example]
    test: Sequence[Example]
    embeddings: NDArray[np.float32]  #: (P, D), of the pool
    backbone: Backbone
    settings: ProbeSettings
    state: Path
    points: tuple[int, ...]  #: numbers of masks

    @classmethod
    def on(cls, read: reads.TestRead, state: Path, quick: bool) -> Trial:
        unlabelled = examples([*learn_part(Source.PAD300), *pool(Source.PAD300)])
        test = examples(tested_part(Source.PAD300, read))
        settings, end = SETTINGS, END
        if quick:
            unlabelled, test, end = unlabelled[:80], test[:20], START + BATCH
            settings = replace(settings, steps=40, views=0)
        backbone = load_backbone()
        embeddings = _embeddings(backbone, unlabelled, settings.features, _cache(state))
        points = tuple(range(START, end + 1, BATCH))
        return cls(unlabelled, test, embeddings, backbone, settings, state, points)

    def curves(self, seeds: int) -> Curves:
        """Lesion IoU of every strategy and seed."""
        started = time.monotonic()
        found: dict[Strategy, list[list[NDArray[np.float64]]]] = {s: [] for s in Strategy}
        for seed in range(seeds):
            for strategy in Strategy:
                found[strategy].append([learned.iou for learned in self._run(strategy, seed)])
                minutes = (time.monotonic() - started) / 60
                print(f"seed {seed}, {strategy}: {minutes:.1f} min", file=sys.stderr, flush=True)
        return {strategy: np.array(runs) for strategy, runs in found.items()}

    def _run(self, strategy: Strategy, seed: int) -> Iterator[Learned]:
        labelled = self._batch(Strategy.RANDOM, seed, START, [], np.full(len(self.pool), np.nan))
        learned = self._learn(labelled, seed, predict_pool=True)
        yield learned
        for before, now in pairwise(self.points):
            labelled += self._batch(strategy, seed, now - before, labelled, learned.uncertainty)
            asked_for = strategy in UNCERTAIN and now < self.points[-1]
            learned = self._learn(labelled, seed, predict_pool=asked_for)
            yield learned

    def _batch(
        self,
        strategy: Strategy,
        seed: int,
        size: int,
        labelled: Sequence[int],
        uncertainty: NDArray[np.float64],
    ) -> list[int]:
        """Return the positions in the pool of the images to label next, as `ddiseg batch draw` does."""
        ranked = np.random.default_rng(seed).permutation(len(self.pool))
        tones = np.array([example.tone for example in self.pool])
        waiting = {t: ranked[(tones[ranked] == t) & ~np.isin(ranked, labelled)] for t in set(tones)}
        waiting = dict(sorted(waiting.items()))
        quotas = share_out(size, {tone: len(images) for tone, images in waiting.items()}, seed)
        at_random = share_out(round(RANDOM_SHARE * size), quotas, seed)
        batch: list[int] = []
        for tone, images in waiting.items():
            full = len(batch) + quotas[tone]
            for way, aim in ((Strategy.RANDOM, len(batch) + at_random[tone]), (strategy, full)):
                # Patients who are labelled already come only for want of others.
                for barred in (labelled, ()):
                    known = [i for i in (*labelled, *batch) if tones[i] == tone]
                    candidates = Candidates(
                        uncertainty[images], self.embeddings[images], self.embeddings[known]
                    )
                    pick(way, candidates, aim - len(batch), self._take(images, batch, barred))
        return batch

    def _take(
        self, images: NDArray[np.intp], batch: list[int], barred: Sequence[int]
    ) -> Callable[[int], bool]:
        """Move an image to the batch, unless its patient is in it or barred."""
        patients = {self.pool[i].patient for i in (*batch, *barred)}

        def take(position: int) -> bool:
            image = int(images[position])
            if self.pool[image].patient in patients:
                return False
            patients.add(self.pool[image].patient)
            batch.append(image)
            return True

        return take

    def _learn(self, labelled: Sequence[int], seed: int, *, predict_pool: bool) -> Learned:
        """Learn from the masks of these images and predict the others; read from the state where stored."""
        settings = replace(self.settings, seed=seed)
        parts = len(self.pool), len(self.test), predict_pool
        name = json.dumps([sorted(map(int, labelled)), settings.to_dict(), parts])
        path = self.state / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.npz"
        if not path.is_file():
            cache = _cache(self.state)
            examples = [self.pool[i] for i in sorted(labelled)]
            probes = train_probes(examples, self.backbone, settings, CLASSES, cache=cache)
            iou = [_lesion_iou(e, p.mask) for e, p in self._painted(probes, self.test, cache)]
            rest = np.setdiff1d(np.arange(len(self.pool)), labelled)[: None if predict_pool else 0]
            uncertainty = np.full(len(self.pool), np.nan)
            found = self._painted(probes, [self.pool[i] for i in rest], cache)
            uncertainty[rest] = [prediction.uncertainty for _, prediction in found]
            temporary = path.with_name(f".{path.name}")
            np.savez(temporary, iou=iou, uncertainty=uncertainty)
            os.replace(temporary, path)
        with np.load(path) as stored:
            return Learned(stored["iou"], stored["uncertainty"])

    def _painted(
        self, probes: Probes, examples: Sequence[Example], cache: FeatureCache
    ) -> Iterator[tuple[Example, Prediction]]:
        for example in examples:
            yield example, probes.predict(self.backbone, [example.photograph], cache)[0]


def _cache(state: Path) -> FeatureCache:
    return FeatureCache(state / "features", limit=CACHE_LIMIT)


def _embeddings(
    backbone: Backbone, pool: Sequence[Example], spec: FeatureSpec, cache: FeatureCache
) -> NDArray[np.float32]:
    """Mean activation of each channel of the blocks, (P, D)."""
    rows = []
    for example in pool:
        image = prepare(example.photograph, backbone.image_size)[None]
        blocks = cache.extract(backbone, image, spec)
        rows.append(torch.cat([block.mean((2, 3)) for block in blocks], 1)[0].numpy())
    return np.stack(rows)


def _lesion_iou(example: Example, predicted: NDArray[np.uint8]) -> float:
    return float(iou_per_class(confusion(example.mask, predicted, len(CLASSES)))[LESION])


class Bootstrap:
    """Means over seeds and test images with 95 % intervals: seeds and patients are resampled.

    The same draws for every strategy, so that differences are paired.
    """

    def __init__(self, patients: Sequence[str], seeds: int) -> None:
        names, of_patient = np.unique(np.asarray(patients), return_inverse=True)
        self.patients = names.size
        self._member = np.eye(names.size)[of_patient]  # (T, patients)
        self._seeds = bootstrap_weights(seeds, RESAMPLES, 0)
        self._patients = bootstrap_weights(names.size, RESAMPLES, 1)

    def resampled(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean of (seeds, T) values in each sample, (RESAMPLES,)."""
        sums = self._seeds @ (values @ self._member)
        images = len(values) * (self._patients @ self._member.sum(axis=0))
        means: NDArray[np.float64] = (sums * self._patients).sum(axis=1) / images
        return means

    def text(self, values: NDArray[np.float64]) -> str:
        """Return the mean of (seeds, T) values and its interval, or that there are too few patients."""
        interval = None if too_few(self.patients) else percentile_interval(self.resampled(values))
        n = values.shape[1]
        return Estimate.of(float(values.mean()), interval, n, self.patients).text(".3f")


def _groups(trial: Trial) -> dict[str, NDArray[np.intp]]:
    """Positions in the test part of all images, then of each tone."""
    tones = np.array([example.tone for example in trial.test])
    groups = {ALL: np.arange(len(tones))}
    return groups | {tone: np.flatnonzero(tones == tone) for tone in sorted(set(tones))}


def _rows(curves: Curves, trial: Trial) -> Iterator[tuple[str, ...]]:
    for tone, images in _groups(trial).items():
        patients = [trial.test[i].patient for i in images]
        for strategy, curve in curves.items():
            boot = Bootstrap(patients, len(curve))
            for point, masks in enumerate(trial.points):
                values = curve[:, point, images]
                minus = values - curves[Strategy.RANDOM][:, point, images]
                is_random = strategy is Strategy.RANDOM
                yield (
                    str(masks),
                    strategy.value,
                    tone,
                    boot.text(values),
                    "" if is_random else boot.text(minus),
                    str(len(images)),
                    str(boot.patients),
                    str(len(curve)),
                )


def _savings(curves: Curves, trial: Trial) -> Iterator[str]:
    """How many masks fewer than random a strategy needs for the same lesion IoU."""
    weights = bootstrap_weights(len(curves[Strategy.RANDOM]), RESAMPLES, 0)
    seeds = len(curves[Strategy.RANDOM])
    for strategy, curve in curves.items():
        if strategy is Strategy.RANDOM:
            continue
        ours, theirs = curve.mean(axis=2), curves[Strategy.RANDOM].mean(axis=2)  # (seeds, points)
        for point in range(1, len(trial.points) - 1):
            masks = trial.points[point]
            saved = masks_saved(ours.mean(axis=0), theirs.mean(axis=0), trial.points, point)
            resampled = [
                masks_saved(w @ ours / seeds, w @ theirs / seeds, trial.points, point)
                for w in weights
            ]
            low, high = percentile_interval(np.array(resampled))
            result = f"saves {saved:.0f}" if saved > 0 else f"saves none ({saved:.0f})"
            yield (
                f"{strategy} with {masks} masks {result} masks against random "
                f"[95% over {seeds} seeds: {low:.0f}, {high:.0f}; at most "
                f"{trial.points[-1] - masks} can be seen]"
            )


def masks_saved(
    ours: NDArray[np.float64], random: NDArray[np.float64], points: Sequence[int], point: int
) -> float:
    """Return how many more masks than `points[point]` random needs to be as good as ours.

    Read off the random curve, interpolated and made to rise by the best so far; where that never
    gets so far, it is what is left to its end. Negative where random needs fewer.
    """
    rising = np.maximum.accumulate(random)
    if ours[point] > rising[-1]:
        return float(points[-1] - points[point])
    if ours[point] <= rising[0]:
        return float(points[0] - points[point])
    after = int(np.searchsorted(rising, ours[point]))
    share = (ours[point] - rising[after - 1]) / (rising[after] - rising[after - 1])
    needed = points[after - 1] + share * (points[after] - points[after - 1])
    return float(needed - points[point])


def _figure(curves: Curves, trial: Trial) -> Any:
    """A panel for all images and one for each tone that has enough, each with all strategies."""
    groups = {
        tone: images
        for tone, images in _groups(trial).items()
        if not too_few(len({trial.test[i].patient for i in images}))
    }
    figure, grid = figures.new_figure(
        3.1 * len(groups), 3.4, 1, len(groups), sharey=True, gridspec_kw={"wspace": 0.08}
    )
    colours = dict(
        zip(Strategy, (figures.MUTED, *figures.SERIES[:2], figures.SERIES[4]), strict=True)
    )
    for axes, (tone, images) in zip(grid[0], groups.items(), strict=True):
        patients = [trial.test[i].patient for i in images]
        for offset, (strategy, curve) in enumerate(curves.items()):
            boot = Bootstrap(patients, len(curve))
            values = [curve[:, point, images] for point in range(len(trial.points))]
            mean = np.array([v.mean() for v in values])
            ends = np.array([percentile_interval(boot.resampled(v)) for v in values])
            axes.errorbar(
                np.array(trial.points) + 1.2 * (offset - 1.5), mean,
                np.abs(ends.T - mean), color=colours[strategy], label=strategy.value,
                marker="o", markersize=3.5, linewidth=1.4, elinewidth=0.8,
            )  # fmt: skip
        name = "all test images" if tone == ALL else tone
        axes.set_title(
            f"{name}\n(n = {len(images)}, {boot.patients} patients)",
            loc="left", fontsize=9, color=figures.INK,
        )  # fmt: skip
        axes.set_xticks(trial.points)
        axes.set_xlabel("masks", color=figures.MUTED, fontsize=9)
        axes.grid(axis="y", color=figures.LINE)
    grid[0, 0].set_ylabel("lesion IoU, mean and 95 %", color=figures.MUTED, fontsize=9)
    grid[0, 0].legend(frameon=False, fontsize=8, labelcolor=figures.INK, loc="lower right")
    return figure


def _tones(examples: Sequence[Example]) -> str:
    return ", ".join(f"{t} {n}" for t, n in sorted(Counter(e.tone for e in examples).items()))


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.loop_simulation")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--state", type=Path, help="folder of what was learned; goes on from there")
    parser.add_argument("--quick", action="store_true", help="few images and steps: does it run")
    parser.add_argument("--out", type=Path, help="write the table here too: .md, or CSV")
    parser.add_argument("--figure", type=Path, help="draw the curves here: .png, .svg or .pdf")
    reads.add_option(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
