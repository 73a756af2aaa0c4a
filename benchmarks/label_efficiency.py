"""Lesion IoU on real photographs from 10, 30 and 90 masks, within a source of masks and across sources.

Every row learns from the same masks, of pad300 (semi-automatic) or of pad_hand (drawn by hand), with
several seeds, and is tested on photographs of both. A gain that is one annotator's style shows as a
loss on the other source. `benchmarks.photographs` says where the photographs are.

- colour: multi-scale colour and position, no network;
- untrained: the shipped network's architecture with random weights;
- lite0: EfficientNet-Lite0 trained on ImageNet;
- small: the backbone in the package, with the settings up to version 0.2;
- default: what this version trains without options;

read by the same probes, normalisation and augmentation, and two UNets trained end to end:

- unet-lite0: its encoder is EfficientNet-Lite0 trained on ImageNet;
- unet-scratch: a MobileNetV2 encoder and decoder, both from random weights.

Settings are chosen on the learn parts, which is what this tests by default: on what was not learned
from, or by cross-validation over patients. The test parts need `--read-test WHY`. Activations and
results stay in --state FOLDER, so that another seed takes seconds:

    python -m benchmarks.label_efficiency --state STATE --rows small lite0 --masks 10 30
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks import reads, tables
from benchmarks.paired import Measured, groups
from benchmarks.photographs import Photograph, Source, missing
from benchmarks.rows import REPLACE, ROWS
from benchmarks.trials import Bench, Result, Scores, Trial

SEEDS = 5

DOCS = reads.ROOT / "docs"

#: Masks of the tables by group in the docs.
GROUPS_AT = 30

HEADER = ("tested on", "learned from", "masks", "row", "lesion IoU, mean [95%]", "SD of seeds")
HEADER += ("minus AGAINST [95%]", "n", "patients", "seeds")
WIDTHS = (9, 12, 5, 24, 22, 11, 26, 4, 8, 5)

GROUP_HEADER = ("tested on", "learned from", "masks", "by", "group", "row")
GROUP_HEADER += ("lesion IoU, mean [95%]", "n", "patients")


@dataclass(frozen=True)
class Setup:
    """A line of the table: what learned from what, how it is read, and what it is tested on."""

    tested: Source
    learned: Source
    count: int
    row: str
    reading: str

    @property
    def name(self) -> str:
        return f"{self.row}, {self.reading}" if self.reading else self.row

    def cells(self) -> tuple[str, ...]:
        return (self.tested, self.learned, str(self.count))


def main(arguments: Sequence[str] = ()) -> None:
    chosen = _arguments(arguments)
    if why := missing():
        print(why)
        return
    with tempfile.TemporaryDirectory() as temporary:
        state = chosen.state or Path(temporary)
        read = reads.asked(chosen, "label_efficiency")
        bench = Bench(state, read, frozenset(chosen.keep), chosen.cache_limit)
        trials = [
            Trial(row, source, count, seed)
            for row in chosen.rows
            for source in Source
            for count in source.counts
            if count in chosen.masks
            for seed in range(chosen.seeds)
        ]
        found = bench.results(trials, chosen.jobs)
        measured = measure(found, bench.photographs())
    lines = list(table(measured, chosen.against))
    header = [cell.replace("AGAINST", chosen.against) for cell in HEADER]
    print(f"tested on the {bench.part} parts")
    print("\n".join(tables.line(cells, WIDTHS) for cells in (header, *lines)))
    if chosen.out:
        chosen.out.mkdir(parents=True, exist_ok=True)
        by_group = list(group_table(measured))
        for name, head, rows in (
            ("label_efficiency", header, lines),
            ("label_efficiency_groups", GROUP_HEADER, by_group),
        ):
            for ending in (".md", ".csv"):
                tables.write(chosen.out / f"{name}{ending}", head, rows)
    if read is not None:
        if chosen.docs:
            fill_docs(measured, header, lines, chosen.docs)
        read.log(". ".join(summary(measured)))


def fill_docs(
    measured: dict[Setup, Measured],
    header: Sequence[str],
    lines: Sequence[tuple[str, ...]],
    default: str,
) -> None:
    """Replace the tables of docs/benchmarks.md and docs/model.md, the latter for one row and reading."""
    tables.fill(DOCS / "benchmarks.md", "label_efficiency", header, lines)
    kept = [cells for cells in lines if cells[3].startswith(("small, ", default))]
    tables.fill(DOCS / "model.md", "accuracy", header, kept)
    for target in Source:
        head = ("by", "group", "n", "patients", *(f"learned from {s}" for s in Source))
        groups_of = list(two_sources(measured, default, target))
        tables.fill(DOCS / "model.md", f"groups_{target}", head, groups_of)


def two_sources(
    measured: dict[Setup, Measured], name: str, target: Source
) -> Iterator[tuple[str, ...]]:
    """Yield a line for each group of the photographs of a source, learned from either, with GROUPS_AT masks."""
    row, _, reading = name.partition(", ")
    both = [measured[Setup(target, source, GROUPS_AT, row, reading)] for source in Source]
    for kind, members in groups(both[0].photographs).items():
        for group, rows in members.items():
            of = [scores.of(rows) for scores in both]
            yield (kind, group, *of[0].sizes(), *(scores.mean() for scores in of))


def measure(
    found: Mapping[Trial, Result], photographs: dict[str, Photograph]
) -> dict[Setup, Measured]:
    """Return the scores of all seeds of each set-up, on the photographs of one source."""
    by: dict[Setup, list[Scores]] = {}
    for trial, result in found.items():
        for reading, scores in result.scores.items():
            for source in Source:
                setup = Setup(source, trial.source, trial.count, trial.row, reading)
                of_source = {k: v for k, v in scores.items() if k.startswith(f"{source}/")}
                if of_source:
                    by.setdefault(setup, []).append(of_source)
    measured = {}
    for setup, seeds in by.items():
        names = sorted(seeds[0])
        values = np.array([[scores[name] for name in names] for scores in seeds])
        measured[setup] = Measured(values, [photographs[name] for name in names])
    return measured


def table(measured: dict[Setup, Measured], against: str) -> Iterator[tuple[str, ...]]:
    """Yield the lines of the table, each with its difference from the row and reading `against`."""
    for setup in sorted(measured, key=_order):
        scores = measured[setup]
        row, _, reading = against.partition(", ")
        other = measured.get(Setup(*_where(setup), row, reading))
        yield (
            *setup.cells(),
            setup.name,
            scores.mean(),
            f"{scores.spread:.3f}",
            "" if other is None or setup.name == against else scores.minus(other),
            *scores.sizes(),
            str(len(scores.values)),
        )


def group_table(measured: dict[Setup, Measured]) -> Iterator[tuple[str, ...]]:
    """Yield a line for each set-up and group of photographs: tone, size and diagnosis."""
    for setup in sorted(measured, key=_order):
        scores = measured[setup]
        for kind, members in groups(scores.photographs).items():
            for group, rows in members.items():
                of = scores.of(rows)
                yield (*setup.cells(), kind, group, setup.name, of.mean(), *of.sizes())


def summary(measured: dict[Setup, Measured]) -> Iterator[str]:
    """Yield the means of each row by what it learned from and is tested on, for the log of reads."""
    lines: dict[tuple[str, str], list[str]] = {}
    for setup in sorted(measured, key=_order):
        where = f"{setup.tested} from {setup.learned}"
        lines.setdefault((setup.name, where), []).append(f"{measured[setup].values.mean():.3f}")
    for name in {name: None for name, _ in lines}:
        parts = [f"{where} {', '.join(means)}" for (n, where), means in lines.items() if n == name]
        yield f"**{name}**: {'; '.join(parts)}"


def _where(setup: Setup) -> tuple[Source, Source, int]:
    return setup.tested, setup.learned, setup.count


def _order(setup: Setup) -> tuple[object, ...]:
    return (
        setup.tested,
        setup.learned is not setup.tested,
        setup.count,
        list(ROWS).index(setup.row),
        setup.reading,
    )


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.label_efficiency")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--masks", nargs="+", type=int, choices=(10, 30, 90), default=[10, 30, 90])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument(
        "--against", default=f"small, {REPLACE}", help="row and reading to subtract"
    )
    parser.add_argument(
        "--state", type=Path, help="folder of activations and results; goes on from there"
    )
    parser.add_argument(
        "--keep",
        nargs="+",
        choices=ROWS,
        default=[],
        help="rows whose results of older code are used",
    )
    parser.add_argument(
        "--cache-limit", type=float, default=16e9, help="bytes of activations on disk"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--out", type=Path, help="folder for the tables: .md and .csv")
    parser.add_argument(
        "--docs",
        metavar="ROW, READING",
        help="fill the tables of docs/benchmarks.md and docs/model.md, with this as the default",
    )
    reads.add_option(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
