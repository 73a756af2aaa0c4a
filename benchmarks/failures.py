"""Pictures of the worst and the median predictions, and the kinds of failure counted.

    python -m benchmarks.failures --state STATE --out FOLDER --row small --reading "first pass"

One training of the row (seed 0) predicts the photographs of both sources. For each source and each
source learned from, FOLDER gets a sheet of the 12 photographs with the lowest lesion IoU and the 6 in
the middle, with the true and the predicted outline, and a CSV with a line for each photograph: what is
wrong by the rules below, and an empty column for what a person sees (hair, ink, scale). The kinds
overlap.

Masks of pad_hand have no stated licence: FOLDER must be outside the repository.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks import reads, tables
from benchmarks.paired import ALL
from benchmarks.photographs import LESION, Photograph, Source, missing
from benchmarks.rows import OFF, ROWS
from benchmarks.trials import Bench, Trial, folds, lesion_iou
from fedd import figures
from fedd.baselines.packages import define_missing_operators

WORST, MIDDLE = 12, 6

#: An IoU below this is a failure that is counted.
FAILED = 0.5

#: Rules: times the true area and share of it that is found; share of the prediction that is right.
LARGE, FOUND, SMALL, RIGHT = 1.5, 0.8, 0.67, 0.8

#: Below this IoU the lesion counts as missed, or as taken for something else if a region is elsewhere.
MISSED = 0.05

#: A further predicted region is a satellite from this share of the predicted area on.
SATELLITE = 0.05

#: CIELAB: how much redder than the skin falsely marked skin is, and how blue ink is.
REDDER, INK, INK_SHARE = 6.0, -4.0, 0.1

#: Colours of the true and of the predicted outline: seen on all skin, by colour-blind readers too.
TRUE, PREDICTED = figures.SERIES[3], figures.SERIES[1]

Region = NDArray[np.bool_]


@dataclass(frozen=True)
class Outcome:
    """A photograph, its predicted lesion (H, W), and what is wrong with that."""

    photograph: Photograph
    predicted: Region
    iou: float

    @property
    def ratio(self) -> float:
        """Predicted area as a multiple of the true one."""
        return float(self.predicted.sum() / max(1, self.photograph.lesion.sum()))

    def kinds(self) -> list[str]:
        """Return the kinds of failure by rule; none is exclusive."""
        truth, found = self.photograph.lesion, self.predicted
        both = int((truth & found).sum())
        if self.iou < MISSED:
            return ["missed" if self.ratio < MISSED else "wrong place"]
        kinds = []
        if self.ratio > LARGE and both >= FOUND * truth.sum():
            kinds.append("too large")
        if self.ratio < SMALL and both >= RIGHT * found.sum():
            kinds.append("too small")
        sizes = np.sort(np.bincount(ndimage.label(found)[0].ravel())[1:])
        if len(sizes) > 1 and sizes[:-1].sum() > SATELLITE * found.sum():
            kinds.append("satellites")
        return kinds + self._of_colour(found & ~truth, ~(found | truth))

    def _of_colour(self, wrong: Region, skin: Region) -> list[str]:
        """Return the kinds that the colour of falsely marked skin tells."""
        if wrong.sum() < FAILED * self.photograph.lesion.sum() / 2 or not skin.any():
            return []
        lab = _lab(self.photograph.example.photograph)
        kinds = []
        if np.median(lab[wrong][:, 1]) - np.median(lab[skin][:, 1]) > REDDER:
            kinds.append("redness")
        if (lab[wrong][:, 2] < INK).mean() > INK_SHARE:
            kinds.append("ink")
        return kinds


def main(arguments: Sequence[str] = ()) -> None:
    chosen = _arguments(arguments)
    if why := missing():
        print(why)
        return
    define_missing_operators()
    read = reads.asked(chosen, "failures")
    counts: list[tuple[str, ...]] = []
    chosen.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(chosen.state or Path(temporary), read)
        for source in Source:
            by_source = predicted(bench, Trial(chosen.row, source, chosen.masks, 0), chosen.reading)
            for target, outcomes in by_source.items():
                name = f"{target}_from_{source}"
                draw(
                    outcomes,
                    f"{target}, learned from {chosen.masks} masks of {source}",
                    chosen.out / f"{name}.png",
                )
                tables.write(chosen.out / f"{name}.csv", SHEET, [_line(o) for o in outcomes])
                counts += count(outcomes, target, source)
    print(f"{chosen.row}, {chosen.reading}, {chosen.masks} masks, seed 0; the {bench.part} parts")
    print(tables.markdown(COUNTS, counts) + f"pictures: {chosen.out}")
    tables.write(chosen.out / "counts.md", COUNTS, counts)
    if read is not None:
        if chosen.docs:
            tables.fill(reads.ROOT / "docs" / "model.md", "failures", COUNTS, counts)
        read.log("; ".join(" ".join(cells) for cells in counts if cells[2] == ALL))


def predicted(bench: Bench, trial: Trial, reading: str) -> dict[Source, list[Outcome]]:
    """Return the outcomes on each source's photographs, lowest IoU first."""
    found: dict[Source, list[Outcome]] = {source: [] for source in Source}
    for training, photographs in folds(bench, trial):
        predict = bench.learn(trial.row, training, photographs, trial.seed)
        for name, photograph in photographs.items():
            mask = predict(photograph.example.photograph)[reading].mask
            outcome = Outcome(photograph, mask == LESION, lesion_iou(photograph, mask))
            found[Source(name.partition("/")[0])].append(outcome)
    return {source: sorted(of, key=lambda o: o.iou) for source, of in found.items()}


COUNTS = ("tested on", "learned from", "photographs", "n", "IoU below 0.5", "kinds of these")


def count(outcomes: Sequence[Outcome], target: Source, source: Source) -> Iterator[tuple[str, ...]]:
    """Yield a line of counts for all photographs and for each size of lesion."""
    sizes = (ALL, *sorted({o.photograph.size for o in outcomes}))
    for size in sizes:
        chosen = [o for o in outcomes if size in (ALL, o.photograph.size)]
        failed = [o for o in chosen if o.iou < FAILED]
        kinds = Counter(kind for o in failed for kind in (o.kinds() or ["edge"]))
        text = ", ".join(f"{kind} {n}" for kind, n in kinds.most_common())
        yield (
            target,
            source,
            f"lesion {size}" if size != ALL else ALL,
            str(len(chosen)),
            str(len(failed)),
            text,
        )


SHEET = (
    "photograph",
    "IoU",
    "times the true area",
    "lesion",
    "diagnosis",
    "tone",
    "by rule",
    "by eye",
)


def _line(outcome: Outcome) -> tuple[str, ...]:
    p = outcome.photograph
    numbers = f"{outcome.iou:.3f}", f"{outcome.ratio:.2f}"
    return (p.name, *numbers, p.size, p.diagnosis, p.example.tone, ", ".join(outcome.kinds()), "")


def draw(outcomes: Sequence[Outcome], title: str, path: Path) -> None:
    """Draw the worst and the median photographs with both outlines."""
    middle = max(0, len(outcomes) // 2 - MIDDLE // 2)
    shown = [*outcomes[:WORST], *outcomes[middle : middle + MIDDLE]]
    figure, grid = figures.new_figure(14, 8.2, 3, 6, gridspec_kw={"hspace": 0.32, "wspace": 0.04})
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, outcome in zip(grid.flat, shown, strict=False):
        axes.imshow(outcome.photograph.example.photograph)
        _outline(axes, outcome.photograph.lesion, TRUE)
        _outline(axes, outcome.predicted, PREDICTED)
        p = outcome.photograph
        share = f"{p.lesion.mean():.1%}"
        caption = f"IoU {outcome.iou:.2f}, {share}, {p.diagnosis}, {p.example.tone}\n{', '.join(outcome.kinds())}"
        axes.set_title(caption, fontsize=8, color=figures.INK)
    note = f"{title}: the {WORST} lowest, then the {MIDDLE} in the middle of {len(outcomes)}. Blue: true outline; orange: predicted. Photographs: PAD-UFES-20, CC BY 4.0"
    figure.suptitle(note, fontsize=9, color=figures.MUTED)
    path.parent.mkdir(parents=True, exist_ok=True)
    figures.save(figure, path)


def _outline(axes: Any, region: Region, colour: str) -> None:
    if region.any() and not region.all():
        axes.contour(region.astype(float), [0.5], colors=[colour], linewidths=1.4)


def _lab(photograph: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return CIELAB, (H, W, 3) float32, of sRGB."""
    import cv2

    found: NDArray[np.float32] = cv2.cvtColor(
        photograph.astype(np.float32) / 255, cv2.COLOR_RGB2LAB
    )
    return found


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.failures")
    parser.add_argument("--row", choices=ROWS, default="small")
    parser.add_argument("--reading", default=OFF)
    parser.add_argument("--masks", type=int, choices=(10, 30), default=30)
    parser.add_argument("--state", type=Path, help="folder of activations, as of label_efficiency")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(tempfile.gettempdir()) / "ddiseg-failures",
        help="folder for the pictures, outside the repository",
    )
    parser.add_argument(
        "--docs", action="store_true", help="fill the table of docs/model.md, after a read"
    )
    reads.add_option(parser)
    chosen = parser.parse_args(arguments)
    if chosen.out.resolve().is_relative_to(reads.ROOT):
        parser.error(
            "--out is inside the repository: masks of pad_hand have no licence to be there"
        )
    if chosen.reading not in ROWS[chosen.row].readings:
        parser.error(f"{chosen.row} has the readings {', '.join(ROWS[chosen.row].readings)}")
    return chosen


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
