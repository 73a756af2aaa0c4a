"""How far people agree: the masks of everyone who read an image by themselves, two by two.

The figures of a pair of masks, and of groups of them, go by these names:

- `lesion_dice`, `lesion_iou` and so on for each class of the protocol;
- `lesion_boundary_px` and `lesion_hd95_px`, the mean and the 95 % Hausdorff distance of the lesion's
  boundaries in pixels of the photograph; with `_percent` instead, in percent of its diagonal;
- `kappa`, Cohen's, over all pixels and classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import load_protocol, metrics
from annotation_protocol.metrics import Interval, mean_interval
from ddiseg import masks
from ddiseg.catalogue.tables import Image, Mask
from ddiseg.errors import InputError
from ddiseg.masks import panels
from ddiseg.masks.agreement import boundary_distance, cohen_kappa
from ddiseg.outcomes import Progress, silent
from ddiseg.workspace.workspace import Workspace

#: Bootstrap samples, and their seed.
RESAMPLES, SEED = 2000, 0

#: Colours of a map of differences: of Okabe and Ito's palette, but none that a class has.
ORANGE, PURPLE, GREEN = (230, 159, 0), (204, 121, 167), (0, 158, 115)


@dataclass(frozen=True)
class Comparison:
    """Two people's masks of one image.

    A figure that is not defined is NaN: Dice and IoU of a class that neither mask has, or that one
    of the two could not use; the distance of boundaries where one mask has no lesion; kappa where
    the two could not use the same classes, or gave one and the same class to the whole image.
    """

    image: Image
    readings: tuple[Mask, Mask]  #: in the order of their annotators' names
    figures: dict[str, float]  #: by the names above

    @property
    def readers(self) -> tuple[str, str]:
        return _reader(self.readings[0]), _reader(self.readings[1])

    def in_words(self) -> str:
        """The figures that matter most, on one line."""
        said = {
            name: "undefined" if math.isnan(v) else f"{v:.3f}" for name, v in self.figures.items()
        }
        distance = "undefined"
        if not math.isnan(self.figures["lesion_boundary_px"]):
            distance = (
                f"{self.figures['lesion_boundary_px']:.1f} px"
                f" ({self.figures['lesion_boundary_percent']:.1f}% of the diagonal),"
                f" 95% Hausdorff {self.figures['lesion_hd95_px']:.1f} px"
            )
        return (
            f"lesion IoU {said['lesion_iou']}, Dice {said['lesion_dice']}, boundary {distance}; "
            f"kappa {said['kappa']}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values; NaN as None."""
        return {
            "image": self.image.name,
            "id": self.image.id,
            "tone": self.image.tone,
            "readers": list(self.readers),
            "masks": [mask.id for mask in self.readings],
            "figures": {n: None if math.isnan(v) else v for n, v in self.figures.items()},
        }


@dataclass(frozen=True)
class Mean:
    """The mean of one figure over images, and its 95 % bootstrap interval over patients."""

    mean: float | None  #: None with no image
    ci95: Interval | None  #: None with fewer than two patients: too few to say anything
    n: int  #: images for which the figure is defined
    patients: int  #: whom these show


@dataclass(frozen=True)
class Group:
    """The comparisons that have something in common, such as a tone or the two readers."""

    images: int
    patients: int
    comparisons: int
    figures: dict[str, Mean]  #: by the names above

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Agreement:
    """All comparisons, and what they come to.

    An image counts once in a mean: where more than two people read it, with the mean of its pairs.
    """

    comparisons: tuple[Comparison, ...]
    overall: Group
    by_tone: dict[str, Group]  #: in the protocol's order
    by_readers: dict[tuple[str, str], Group]  #: in the order of their names

    def worst(self, count: int) -> list[Comparison]:
        """Up to `count` comparisons of the lowest lesion IoU, then kappa; undefined ones last."""

        def rank(comparison: Comparison) -> tuple[float, float, int]:
            return (
                _or_last(comparison.figures["lesion_iou"]),
                _or_last(comparison.figures["kappa"]),
                comparison.image.id,
            )

        return sorted(self.comparisons, key=rank)[:count]

    def as_dict(self) -> dict[str, Any]:
        """The groups as JSON has them."""
        return {
            "bootstrap": {"over": "patients", "resamples": RESAMPLES, "seed": SEED},
            "all": self.overall.as_dict(),
            "by_tone": {tone: group.as_dict() for tone, group in self.by_tone.items()},
            "by_readers": [
                {"readers": list(readers), **group.as_dict()}
                for readers, group in self.by_readers.items()
            ],
        }


def agreement(
    workspace: Workspace, readings: Mapping[int, Sequence[Mask]], progress: Progress = silent
) -> Agreement:
    """Compare all that people drew of the same image, two by two; reads only.

    Args:
        workspace: holds the images and the masks' files.
        readings: by image id the masks of different people, each drawn without sight of the others;
            one alone is nothing to compare.
        progress: called with images done and images to do.

    Raises:
        InputError: no image has two masks, or one of them is a model's.
        WorkspaceError: a mask's file is missing.
    """
    read = {image_id: found for image_id, found in readings.items() if len(found) > 1}
    comparisons: list[Comparison] = []
    for done, image in enumerate(workspace.catalogue.images.select(ids=list(read)), 1):
        comparisons += _comparisons(workspace, image, read[image.id])
        progress(done, len(read))
    if not comparisons:
        raise InputError(
            "no image has two readings yet: 'ddiseg label push --readers 2' gives images to two "
            "people, 'ddiseg label pull' brings back what they drew"
        )
    tones = {
        tone.name: [c for c in comparisons if c.image.tone == tone.name]
        for tone in load_protocol().tones
    }
    pairs = sorted({c.readers for c in comparisons})
    return Agreement(
        comparisons=tuple(comparisons),
        overall=_group(comparisons),
        by_tone={tone: _group(group) for tone, group in tones.items() if group},
        by_readers={pair: _group([c for c in comparisons if c.readers == pair]) for pair in pairs},
    )


def write_pictures(
    workspace: Workspace, found: Agreement, folder: Path, worst: int = 10
) -> list[Path]:
    """Write a PNG of each of the `worst` comparisons into a new or empty folder, the worst first.

    Each shows the photograph, the two masks painted over it, and where they differ.

    Raises:
        InputError: there is something in the folder already, or it can't be written.
        WorkspaceError: a file of the photograph or a mask is missing.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        occupied = any(folder.iterdir())
    except OSError as error:
        raise InputError(
            f"{folder} can't be written ({error.strerror}): name a new folder"
        ) from error
    if occupied:
        raise InputError(f"{folder} is not empty, and nothing is overwritten: name a new folder")
    paths = []
    for rank, comparison in enumerate(found.worst(worst), 1):
        path = folder / f"{rank:02d}-image-{comparison.image.id}.png"
        panels.write_new(path, _picture(workspace, comparison))
        paths.append(path)
    return paths


def _comparisons(
    workspace: Workspace, image: Image, readings: Sequence[Mask]
) -> Iterator[Comparison]:
    """Every two of the readings of one image."""
    by_name = sorted(readings, key=_reader)
    drawn = [(mask, workspace.mask_over(image, mask)) for mask in by_name]
    for (one, one_drawn), (other, other_drawn) in combinations(drawn, 2):
        figures = _figures(one_drawn, other_drawn, one.classes, other.classes)
        yield Comparison(image, (one, other), figures)


def _reader(mask: Mask) -> str:
    if mask.annotator is None:
        raise InputError(
            f"mask #{mask.id} was painted by a model; only people's masks are readings"
        )
    return mask.annotator


def _figures(
    one: masks.Mask, other: masks.Mask, one_could: Sequence[int], other_could: Sequence[int]
) -> dict[str, float]:
    """The figures of two masks of one size whose authors could use these classes."""
    protocol = load_protocol()
    confusion = metrics.confusion(one, other, len(protocol.classes))
    dice, iou = metrics.dice_per_class(confusion), metrics.iou_per_class(confusion)
    figures: dict[str, float] = {}
    for entry in protocol.classes:
        comparable = entry.index in one_could and entry.index in other_could
        figures[f"{entry.name}_dice"] = float(dice[entry.index]) if comparable else math.nan
        figures[f"{entry.name}_iou"] = float(iou[entry.index]) if comparable else math.nan
    lesion = protocol.class_named("lesion").index
    boundary = boundary_distance(one == lesion, other == lesion)
    percent = 100 / math.hypot(*one.shape)
    same = set(one_could) == set(other_could)
    return {
        **figures,
        "lesion_boundary_px": boundary.mean,
        "lesion_boundary_percent": percent * boundary.mean,
        "lesion_hd95_px": boundary.hd95,
        "lesion_hd95_percent": percent * boundary.hd95,
        "kappa": cohen_kappa(confusion) if same else math.nan,
    }


def _group(comparisons: Sequence[Comparison]) -> Group:
    return Group(
        images=len({c.image.id for c in comparisons}),
        patients=len({_patient(c.image) for c in comparisons}),
        comparisons=len(comparisons),
        figures={name: _mean(comparisons, name) for name in comparisons[0].figures},
    )


def _mean(comparisons: Sequence[Comparison], name: str) -> Mean:
    by_image: dict[int, list[float]] = {}
    patients: dict[int, str] = {}
    for comparison in comparisons:
        value = comparison.figures[name]
        if not math.isnan(value):
            by_image.setdefault(comparison.image.id, []).append(value)
            patients[comparison.image.id] = _patient(comparison.image)
    values = np.array([np.mean(pairs) for pairs in by_image.values()])
    whose = list(patients.values())
    return Mean(
        mean=float(values.mean()) if by_image else None,
        ci95=mean_interval(values, whose, resamples=RESAMPLES, seed=SEED),
        n=len(by_image),
        patients=len(set(whose)),
    )


def _patient(image: Image) -> str:
    return image.patient or f"image {image.id}"


def _or_last(value: float) -> float:
    """`value` to sort by; behind all others where it is not defined."""
    return math.inf if math.isnan(value) else value


def _picture(workspace: Workspace, comparison: Comparison) -> bytes:
    image, (one, other) = comparison.image, comparison.readers
    photograph = panels.fitted(workspace.photograph(image))
    size = photograph.shape[0], photograph.shape[1]
    protocol = load_protocol()
    drawn = [masks.stretch(workspace.mask(mask), size) for mask in comparison.readings]
    painted = [masks.paint(photograph, mask, protocol) for mask in drawn]
    lesion = protocol.class_named("lesion").index
    return panels.sheet(
        [
            ("photograph", photograph),
            (one, painted[0]),
            (other, painted[1]),
            ("differences", _differences(photograph, drawn[0], drawn[1], lesion)),
        ],
        title=[
            f"{image.name}, tone {image.tone}: {one} and {other}",
            comparison.in_words(),
            f"differences: orange lesion of {one} only, purple lesion of {other} only, green others",
        ],
    )


def _differences(
    photograph: NDArray[np.uint8], one: masks.Mask, other: masks.Mask, lesion: int
) -> NDArray[np.uint8]:
    """The photograph in grey, and in colour the pixels to which two masks give different classes."""
    grey = photograph.mean(axis=2, keepdims=True).astype(np.uint8)
    picture = np.repeat(grey, 3, axis=2)
    differ = one != other
    picture[differ] = GREEN
    picture[differ & (one == lesion)] = ORANGE
    picture[differ & (other == lesion)] = PURPLE
    return picture
