"""Trials: a row learns from the masks of one source with a seed, and is tested on both sources.

Results are stored in a folder, one file a trial. A stored result is used again as long as nothing that
it depends on has changed: masks, photographs, settings, weights and the code of `fedd`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from annotation_protocol.metrics import confusion, iou_per_class
from benchmarks.activation_bank import LIMIT, ActivationBank
from benchmarks.photographs import (
    CLASSES,
    LESION,
    Photograph,
    Source,
    examples,
    learn_part,
    learned,
    tested_part,
)
from benchmarks.reads import TestRead
from benchmarks.rows import ROWS, Predict, Reading
from fedd.baselines.packages import define_missing_operators

#: Fewest photographs besides those learned from that are tested without cross-validation, and its folds.
FEWEST, FOLDS = 20, 5

#: IoU of the lesion by photograph.
Scores = dict[str, float]


@dataclass(frozen=True)
class Result:
    """What a trial gave, by reading and photograph: the lesion IoU, and that which was expected."""

    scores: dict[str, Scores] = field(default_factory=dict)
    expected: dict[str, Scores] = field(default_factory=dict)

    def add(self, name: str, photograph: Photograph, readings: Mapping[str, Reading]) -> None:
        """Add what the readings make of a photograph."""
        for reading, each in readings.items():
            self.scores.setdefault(reading, {})[name] = lesion_iou(photograph, each.mask)
            if each.expected is not None:
                self.expected.setdefault(reading, {})[name] = each.expected

    def update(self, other: Result) -> None:
        """Add what was found on other photographs."""
        for mine, its in ((self.scores, other.scores), (self.expected, other.expected)):
            for reading, found in its.items():
                mine.setdefault(reading, {}).update(found)


@dataclass(frozen=True)
class Trial:
    """One row at one number of masks of one source, with one seed."""

    row: str
    source: Source
    count: int
    seed: int


@dataclass(frozen=True)
class Bench:
    """Where results and activations are kept, and whether the test parts are read."""

    folder: Path
    read: TestRead | None = None
    keep: frozenset[str] = frozenset()  #: rows whose stored results of another code are used
    limit: int = LIMIT  #: bytes of activations

    @property
    def part(self) -> str:
        return "learn" if self.read is None else "test"

    def path(self, trial: Trial) -> Path:
        name = f"{trial.row}--{trial.source}-{trial.count}--seed{trial.seed}.json"
        return self.folder / self.part / name

    def photographs(self) -> dict[str, Photograph]:
        """Return all photographs that are tested, by their key."""
        found: dict[str, Photograph] = {}
        for source in Source:
            photographs = tested_part(source, self.read) if self.read else learn_part(source)
            found |= {key(source, p): p for p in photographs}
        return found

    def results(self, trials: Sequence[Trial], jobs: int = 1) -> dict[Trial, Result]:
        """Return what each trial gave; computes those that are not stored."""
        found: dict[Trial, Result] = {}
        missing = []
        for trial in trials:
            stored = self.stored(trial)
            if stored is None:
                missing.append(trial)
            else:
                found[trial] = stored
        for number, (trial, result, seconds) in enumerate(self._computed(missing, jobs), start=1):
            found[trial] = result
            print(
                f"{number} of {len(missing)}: {trial.row}, {trial.count} masks of {trial.source}, "
                f"seed {trial.seed}: {seconds:.0f} s",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        return found

    def stored(self, trial: Trial) -> Result | None:
        path = self.path(trial)
        if not path.is_file():
            return None
        stored = json.loads(path.read_text())
        if trial.row not in self.keep and stored["made_from"] != made_from(trial.row):
            return None
        return Result(stored["scores"], stored.get("expected", {}))

    def learn(
        self,
        row: str,
        training: Sequence[Photograph],
        photographs: Mapping[str, Photograph],
        seed: int,
    ) -> Predict:
        """Return what a row that learned from `training` predicts; activations are kept."""
        seen = [p.example for p in photographs.values()]
        return ROWS[row].learn(examples(training), seen, bank(self), seed)

    def score(
        self,
        row: str,
        training: Sequence[Photograph],
        photographs: Mapping[str, Photograph],
        seed: int,
    ) -> Result:
        """Return what a row that learned from `training` gives on photographs, by key."""
        result, predict = Result(), self.learn(row, training, photographs, seed)
        for name, photograph in photographs.items():
            result.add(name, photograph, predict(photograph.example.photograph))
        return result

    def _computed(
        self, trials: Sequence[Trial], jobs: int
    ) -> Iterator[tuple[Trial, Result, float]]:
        if jobs == 1 or len(trials) < 2:
            for trial in trials:
                yield _compute(self, trial)
            return
        with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            yield from pool.map(_compute, [self] * len(trials), trials)


def key(source: Source, photograph: Photograph) -> str:
    return f"{source}/{photograph.name}"


def made_from(row: str) -> str:
    """Return the hash of a row and of the code."""
    return hashlib.sha256(f"{ROWS[row].made_of} {_code()}".encode()).hexdigest()


def _compute(bench: Bench, trial: Trial) -> tuple[Trial, Result, float]:
    """Run a trial and store what it gave, whole or not at all."""
    started = time.perf_counter()
    define_missing_operators()
    result = Result()
    for training, photographs in folds(bench, trial):
        result.update(bench.score(trial.row, training, photographs, trial.seed))
    store(bench.path(trial), {"made_from": made_from(trial.row), **asdict(result)})
    return trial, result, time.perf_counter() - started


def store(path: Path, values: Mapping[str, Any]) -> None:
    """Write results, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(values))
    os.replace(temporary, path)


def folds(bench: Bench, trial: Trial) -> Iterator[tuple[list[Photograph], dict[str, Photograph]]]:
    """Yield what is learned from and what is tested; no patient is in both.

    Without a read of the test parts, the masks are tested on the learn part of the other source and on
    what is left of their own; where that is too little, on themselves by cross-validation.
    """
    training = _learned(trial.source, trial.count)
    photographs = _tested(bench)
    if bench.read is not None:
        yield training, photographs
        return
    mine = {key(trial.source, p) for p in training}
    patients = {p.example.patient for p in training}
    rest = {
        name: p
        for name, p in photographs.items()
        if name not in mine and p.example.patient not in patients
    }
    own = [name for name in rest if name.startswith(f"{trial.source}/")]
    if len(own) >= FEWEST:
        yield training, rest
        return
    yield training, {name: p for name, p in rest.items() if name not in own}
    for held_out in patient_folds(training):
        yield (
            [p for i, p in enumerate(training) if i not in held_out],
            {key(trial.source, training[i]): training[i] for i in sorted(held_out)},
        )


def patient_folds(photographs: Sequence[Photograph], count: int = FOLDS) -> list[set[int]]:
    """Return the positions of each fold: patients at random, but the same ones every time."""
    patients = sorted({p.example.patient for p in photographs})
    ranked = np.random.default_rng(0).permutation(len(patients))
    fold = {patients[i]: place % count for place, i in enumerate(ranked)}
    return [
        {i for i, p in enumerate(photographs) if fold[p.example.patient] == number}
        for number in range(count)
    ]


def lesion_iou(photograph: Photograph, mask: NDArray[np.uint8]) -> float:
    """Return the IoU of the lesion; 1 where neither shows one."""
    matrix = confusion(photograph.example.mask, mask, len(CLASSES))
    return float(np.nan_to_num(iou_per_class(matrix)[LESION], nan=1.0))


@cache
def _learned(source: Source, count: int) -> list[Photograph]:
    return learned(source, count)


@cache
def _tested(bench: Bench) -> dict[str, Photograph]:
    return bench.photographs()


@cache
def bank(bench: Bench) -> ActivationBank:
    return ActivationBank(bench.folder / "activations", bench.limit)


@cache
def _code() -> str:
    """Return the hash of the source files of `fedd`."""
    import fedd

    files = sorted(Path(fedd.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(_contents(files))).hexdigest()


def _contents(files: Iterable[Path]) -> Iterator[bytes]:
    for file in files:
        yield file.read_bytes()
