"""The two sets of real photographs with lesion masks that benchmarks learn from and are tested on.

Both are photographs of PAD-UFES-20 (Pacheco et al., Data in Brief 2020, CC BY 4.0), of different
patients. pad300's masks are semi-automatic and hug the colour edge; pad_hand's are drawn by hand, with
a wide rim. PAD300 and PAD_HAND name their folders.

A test part is opened only for a `TestRead` (`benchmarks.reads`): settings are chosen on the learn
parts.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.reads import TestRead
from fedd.probes.training import Example

CLASSES = ("background", "lesion", "marker", "ruler", "skin")
LESION, SKIN = 1, 4

TEST = "test"

#: Size classes of a lesion: smallest share of the photograph, and name.
SIZES = ((0.15, "over 15 %"), (0.02, "2 to 15 %"), (0.0, "under 2 %"))

_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


class Source(StrEnum):
    """A set of photographs whose masks were made in one way."""

    PAD300 = "pad300"
    PAD_HAND = "pad_hand"

    @property
    def folder(self) -> Path:
        return Path(os.environ.get(self.upper(), _DATA / self))

    @property
    def counts(self) -> tuple[int, ...]:
        """Numbers of masks that can be learned from."""
        return tuple(_PARTS[self])

    @property
    def other(self) -> Source:
        return Source.PAD_HAND if self is Source.PAD300 else Source.PAD300


#: The parts to learn from, by number of masks: each holds the smaller ones.
_PARTS: dict[Source, dict[int, tuple[str, ...]]] = {
    Source.PAD300: {
        10: ("train10",),
        30: ("train10", "train30"),
        90: ("train10", "train30", "train90"),
    },
    Source.PAD_HAND: {10: ("learn10",), 30: ("learn10", "learn30")},
}


@dataclass(frozen=True)
class Photograph:
    """A photograph with its mask, and what its metadata tell."""

    example: Example
    name: str
    diagnosis: str
    part: str

    @property
    def lesion(self) -> NDArray[np.bool_]:
        """The true lesion, (H, W)."""
        return self.example.mask == LESION

    @property
    def size(self) -> str:
        """The lesion's size class."""
        share = float(self.lesion.mean())
        return next(name for smallest, name in SIZES if share >= smallest)


def missing(sources: Sequence[Source] = tuple(Source)) -> str:
    """Return why a benchmark of these sources is skipped; empty if it can run."""
    for source in sources:
        if not (source.folder / "split.csv").is_file():
            return f"skipped: no {source} at {source.folder}; set {source.upper()} to its folder"
    return ""


def learned(source: Source, count: int) -> list[Photograph]:
    """Return the photographs of a source that "`count` masks" means."""
    return _load(source, _PARTS[source][count])


def learn_part(source: Source) -> list[Photograph]:
    """Return all photographs of a source that may be learned from."""
    return learned(source, source.counts[-1])


def pool(source: Source) -> list[Photograph]:
    """Return the photographs of a source that are in no other part; none for pad_hand."""
    return _load(source, ("pool",))


def tested_part(source: Source, read: TestRead) -> list[Photograph]:
    """Return the test part of a source; `read` says why it is opened."""
    return read.of(_load(source, (TEST,)))


def examples(photographs: Sequence[Photograph]) -> list[Example]:
    return [photograph.example for photograph in photographs]


def _load(source: Source, parts: Sequence[str]) -> list[Photograph]:
    with (source.folder / "split.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] in parts]
    return [_photograph(source, row) for row in rows]


def _photograph(source: Source, row: dict[str, str]) -> Photograph:
    """Open the photograph of a row; pad_hand's rows name the files of photograph and mask apart."""
    image, mask = row.get("image", row["img_id"]), row.get("mask", row["img_id"])
    with Image.open(source.folder / "images" / image) as picture:
        pixels = np.array(picture.convert("RGB"))
    with Image.open(source.folder / "masks" / mask) as picture:
        lesion = np.array(picture.convert("L")) > 127
    classes = np.where(lesion, LESION, SKIN).astype(np.uint8)
    example = Example(pixels, classes, row["patient_id"], row["tone"])
    return Photograph(example, row["img_id"], row["diagnostic"], row["part"])
