"""The curve of a pretraining: how well probes segment on its features, measured every so many steps.

A table (CSV) names sets of photographs with masks. Each set is cross-validated on its own: probes learn
from four fifths of its patients and are tested on the others. They are small and quick here, so the
IoU is lower than what the same backbone reaches in use; it is for comparing steps and runs.

Arrays: masks are (H, W) uint8 class ids of the protocol; 255 is a pixel of unknown class.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import UNLABELLED
from annotation_protocol.csv_files import csv_text, unescape_cell
from annotation_protocol.estimates import Estimate, Sample
from annotation_protocol.intervals import Scale
from annotation_protocol.metrics import confusion, iou_per_class
from fedd.backbone import Backbone
from fedd.cache import FeatureCache
from fedd.dataset import DatasetImage, resized_mask
from fedd.errors import TrainingDataError
from fedd.files import write_file
from fedd.probes.folds import PATIENTS_PER_FOLD, unseen_by
from fedd.probes.settings import SMALL, ProbeSettings
from fedd.probes.training import Example, train_probes

CLASSES = ("background", "lesion", "marker", "ruler", "skin")
LESION, SKIN = CLASSES.index("lesion"), CLASSES.index("skin")

_COLUMNS = ("set", "photograph", "mask", "patient")

#: Seeds of the probes and of their folds.
SEEDS = (0, 1, 2)

#: A fraction of the work of the product's training: one look at each image, two members for a fold.
PROBES = replace(
    SMALL,
    members=10,
    folds=5,
    views=0,
    steps=150,
    averaging=0.5,
    validation_share=0.0,
    mirrored=False,
    refined_class=None,
)

_HEADER = (
    *("step", "minutes", "set", "n", "patients", "iou", "low", "high", "sd_of_seeds"),
    *("since_start", "since_start_low", "since_start_high"),
)


#: Photographs with masks by the name of their set.
ScoreTable: TypeAlias = Mapping[str, tuple[Example, ...]]


@dataclass(frozen=True)
class Point:
    """A point of the curve: the lesion IoU by set, seed and image, in the table's order."""

    step: int
    minutes: float
    iou: Mapping[str, Sequence[Sequence[float]]]


def read_score_table(path: Path) -> ScoreTable:
    """Read a table with the columns set, photograph, mask and patient; paths are relative to its folder.

    A mask holds class ids, or only 0 and 255: then 255 is the lesion and 0 is skin.

    Raises:
        TrainingDataError: a missing column, a set of too few patients to cross-validate.
        DatasetError: a photograph or a mask that can't be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingDataError(f"{path} can't be read as a CSV table: {error}") from error
    if missing := [c for c in _COLUMNS if not rows or c not in rows[0]]:
        raise TrainingDataError(
            f"{path} needs the columns {', '.join(_COLUMNS)} and rows below them; it lacks "
            f"{', '.join(missing)}"
        )
    cells = [{c: unescape_cell(row[c] or "").strip() for c in _COLUMNS} for row in rows]
    _check_patients(path, cells)
    sets: dict[str, list[Example]] = {}
    for row in cells:
        sets.setdefault(row["set"], []).append(_example(path.parent, row))
    return {name: tuple(examples) for name, examples in sets.items()}


def score(
    backbone: Backbone, table: ScoreTable, settings: ProbeSettings
) -> dict[str, list[list[float]]]:
    """Return the lesion IoU by set, seed of the probes, and image, each image tested by cross-validation."""
    with TemporaryDirectory() as folder:
        cache = FeatureCache(Path(folder))
        return {
            name: [
                _cross_validated(backbone, examples, replace(settings, seed=seed), cache)
                for seed in SEEDS
            ]
            for name, examples in table.items()
        }


def _cross_validated(
    backbone: Backbone, examples: Sequence[Example], settings: ProbeSettings, cache: FeatureCache
) -> list[float]:
    """Return the lesion IoU of each example, predicted by the members that did not see its patient."""
    probes = train_probes(examples, backbone, settings, CLASSES, cache=cache)
    found = [math.nan] * len(examples)
    for fold in range(settings.folds):
        tested = [i for i, own in enumerate(probes.record.folds) if own == fold]
        shown = [examples[i].photograph for i in tested]
        masks = unseen_by(probes, fold).predict(backbone, shown, cache)
        for i, predicted in zip(tested, masks, strict=True):
            found[i] = _lesion_iou(examples[i].mask, predicted.mask)
    return found


class Curve:
    """The points of a run, in `points.jsonl` with every image's IoU and in `curve.csv` with intervals."""

    def __init__(self, folder: Path, table: ScoreTable) -> None:
        self._folder, self._table = folder, table
        self._file = folder / "points.jsonl"
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        self.points = [Point(**json.loads(line)) for line in lines]

    def has(self, step: int) -> bool:
        return any(point.step == step for point in self.points)

    def add(self, step: int, minutes: float, backbone: Backbone) -> str:
        """Measure a point, write it to both files, and return it as a line of text."""
        point = Point(step, round(minutes, 2), score(backbone, self._table, PROBES))
        self.points.append(point)
        lines = "".join(json.dumps(asdict(point)) + "\n" for point in self.points)
        write_file(self._file, lines)
        rows = [row for point in self.points for row in self._rows(point)]
        write_file(self._folder / "curve.csv", csv_text([_HEADER, *rows]))
        return ", ".join(f"{n}: IoU {e.text('.3f')}" for n, e in self._estimates(point).items())

    def _estimates(self, point: Point) -> dict[str, Estimate]:
        return {
            name: Sample(np.mean(iou, 0), self._patients(name)).estimate()
            for name, iou in point.iou.items()
        }

    def _patients(self, name: str) -> list[str]:
        return [example.patient or f"image {i}" for i, example in enumerate(self._table[name])]

    def _rows(self, point: Point) -> list[tuple[object, ...]]:
        rows: list[tuple[object, ...]] = []
        for name, found in self._estimates(point).items():
            iou, first = np.asarray(point.iou[name]), np.asarray(self.points[0].iou[name])
            change = iou.mean(0) - first.mean(0)
            since = Sample(change, self._patients(name), scale=Scale.SIGNED).estimate()
            spread = f"{iou.mean(1).std(ddof=1):.4f}"
            sizes = point.step, point.minutes, name, found.n, found.groups
            rows.append((*sizes, *_ends(found), spread, *_ends(since)))
        return rows


def _ends(estimate: Estimate) -> tuple[str, ...]:
    return tuple(
        "" if value is None else f"{value:.4f}"
        for value in (estimate.value, *(estimate.interval or (None, None)))
    )


def _check_patients(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Raise TrainingDataError for a set of too few patients; a row without one is its own patient."""
    least = PROBES.folds * PATIENTS_PER_FOLD
    for name in {row["set"] for row in rows}:
        own = [row["patient"] for row in rows if row["set"] == name]
        if (count := len({*filter(None, own)}) + own.count("")) < least:
            raise TrainingDataError(
                f"{path} has {count} patients in the set {name!r}: {PROBES.folds} folds of a "
                f"cross-validation need {least}"
            )


def _example(folder: Path, cells: Mapping[str, str]) -> Example:
    image = DatasetImage(folder / cells["photograph"], mask=folder / cells["mask"])
    return Example(image.photograph(), _mask(image), cells["patient"])


def _mask(image: DatasetImage) -> NDArray[np.uint8]:
    found = image.class_ids(len(CLASSES))
    if set(np.unique(found)) <= {0, UNLABELLED}:
        return np.where(found == UNLABELLED, LESION, SKIN).astype(np.uint8)
    return found


def _lesion_iou(truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> float:
    """Return the IoU of the lesion; 1 where neither mask shows one."""
    matrix = confusion(truth, resized_mask(predicted, truth.shape), len(CLASSES))
    return float(np.nan_to_num(iou_per_class(matrix)[LESION], nan=1.0))
