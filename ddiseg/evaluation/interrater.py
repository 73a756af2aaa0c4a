"""How far people agree: the masks of everyone who read an image by themselves, two by two.

The figures of a pair of masks, and of groups of them, go by these names:

- `lesion_dice`, `lesion_iou` and so on for each class of the protocol;
- `lesion_boundary_px` and `lesion_hd95_px`, the mean and the 95 % Hausdorff distance of the lesion's
  boundaries in pixels of the photograph; with `_percent` instead, in percent of its diagonal;
- `kappa`, Cohen's, over all pixels and classes.

Pixels that either reader left unlabelled are left out. Where the rest of one of the two masks holds one
class only, no measure is defined: the readers would agree by construction.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import UNLABELLED, load_protocol, metrics
from annotation_protocol.estimates import METHOD, Estimate, Sample
from annotation_protocol.intervals import Scale
from ddiseg import masks
from ddiseg.catalogue.tables import Image, Mask
from ddiseg.errors import InputError
from ddiseg.evaluation.partial_masks import PartialMasks
from ddiseg.masks import panels
from ddiseg.masks.agreement import BoundaryDistance, boundary_distance, cohen_kappa
from ddiseg.outcomes import Progress, silent
from ddiseg.sampling.groups import Groups
from ddiseg.workspace.workspace import Workspace

#: Colours of a map of differences: from Okabe and Ito's palette, none of them a class's.
ORANGE, PURPLE, GREEN = (230, 159, 0), (204, 121, 167), (0, 158, 115)


@dataclass(frozen=True)
class ReaderPair:
    """Masks of one image by two readers.

    A measure that is not defined is NaN: Dice and IoU of a class that neither mask has, or that one
    reader could not use; the distance of boundaries where one mask has no lesion, or one is labelled
    in part; kappa where the readers could not use the same classes, or both gave one class to the
    whole image.
    """

    image: Image
    group: str  #: key of the image's group
    readings: tuple[Mask, Mask]  #: in the order of their annotators' names
    measures: dict[str, float]  #: by the names above

    @property
    def readers(self) -> tuple[str, str]:
        return _reader(self.readings[0]), _reader(self.readings[1])

    def in_words(self) -> str:
        """Return the main measures on one line."""
        boundary = self.measures["lesion_boundary_px"]
        distance = "undefined"
        if not math.isnan(boundary):
            distance = (
                f"{boundary:.1f} px ({self.measures['lesion_boundary_percent']:.1f}% of the diagonal),"
                f" 95% Hausdorff {self.measures['lesion_hd95_px']:.1f} px"
            )
        iou, dice, kappa = (
            "undefined" if math.isnan(self.measures[name]) else f"{self.measures[name]:.3f}"
            for name in ("lesion_iou", "lesion_dice", "kappa")
        )
        return f"lesion IoU {iou}, Dice {dice}, boundary {distance}; kappa {kappa}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values; NaN as None."""
        return {
            "image": self.image.name,
            "id": self.image.id,
            "tone": self.image.tone,
            "readers": list(self.readers),
            "masks": [mask.id for mask in self.readings],
            "figures": {n: None if math.isnan(v) else v for n, v in self.measures.items()},
        }


@dataclass(frozen=True)
class AgreementGroup:
    """Mean agreement over pairs with something in common, such as a tone or the two readers."""

    images: int
    patients: int
    pairs: int
    means: dict[str, Estimate]  #: by the names above

    def as_dict(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "patients": self.patients,
            "comparisons": self.pairs,
            "figures": {name: mean.to_json("mean") for name, mean in self.means.items()},
        }


@dataclass(frozen=True)
class Agreement:
    """All pairs of readings, and the mean agreement by group.

    An image counts once in a mean: one with more than two readers counts with the mean of its pairs.
    """

    pairs: tuple[ReaderPair, ...]
    overall: AgreementGroup
    by_tone: dict[str, AgreementGroup]  #: in the protocol's order
    by_readers: dict[tuple[str, str], AgreementGroup]  #: in the order of their names
    notes: list[str]  #: on masks that are labelled in part

    def worst(self, count: int) -> list[ReaderPair]:
        """Return up to `count` pairs of the lowest lesion IoU, then kappa; undefined ones last.

        Pairs that agree about every pixel of the lesion are not among them.
        """

        def rank(pair: ReaderPair) -> tuple[float, float, int]:
            ranks = (pair.measures["lesion_iou"], pair.measures["kappa"])
            iou, kappa = (math.inf if math.isnan(value) else value for value in ranks)
            return iou, kappa, pair.image.id

        differ = [pair for pair in self.pairs if pair.measures["lesion_iou"] != 1]
        return sorted(differ, key=rank)[:count]

    def as_dict(self) -> dict[str, Any]:
        return {
            "intervals": METHOD,
            "notes": self.notes,
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
    """Compare all masks of the same image by different people, two by two; reads only.

    Args:
        workspace: holds the images and the masks' files.
        readings: masks of different people by image id, each drawn independently; images with one
            alone are passed over.
        progress: called with images done and images to do.

    Raises:
        InputError: no image has two masks, or one of them is a model's.
        WorkspaceError: a mask's file is missing.
    """
    read = {image_id: of_image for image_id, of_image in readings.items() if len(of_image) > 1}
    pairs: list[ReaderPair] = []
    partial_masks = PartialMasks()
    images = workspace.catalogue.images.select(ids=list(read))
    keys = Groups.read(workspace.catalogue).keys(images)
    for done, (image, group) in enumerate(zip(images, keys, strict=True), 1):
        pairs += _pairs(workspace, image, group, read[image.id], partial_masks)
        progress(done, len(read))
    if not pairs:
        raise InputError(
            "no image has two readings yet: 'ddiseg label push --readers 2' gives images to two "
            "people, 'ddiseg label pull' brings back what they drew"
        )
    tones = {
        tone.name: [pair for pair in pairs if pair.image.tone == tone.name]
        for tone in load_protocol().tones
    }
    return Agreement(
        pairs=tuple(pairs),
        overall=_group(pairs),
        by_tone={tone: _group(of_tone) for tone, of_tone in tones.items() if of_tone},
        by_readers={
            readers: _group([pair for pair in pairs if pair.readers == readers])
            for readers in sorted({pair.readers for pair in pairs})
        },
        notes=partial_masks.notes(),
    )


def write_pictures(
    workspace: Workspace, found: Agreement, folder: Path, worst: int = 10
) -> list[Path]:
    """Write a PNG of each of the `worst` pairs into a new or empty folder, the worst first.

    Each shows the photograph, the two masks over it, and where they differ.

    Raises:
        InputError: the folder is not empty, or it can't be written.
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
    for rank, pair in enumerate(found.worst(worst), 1):
        path = folder / f"{rank:02d}-image-{pair.image.id}.png"
        panels.write_new(path, _picture(workspace, pair))
        paths.append(path)
    return paths


def _pairs(
    workspace: Workspace,
    image: Image,
    group: str,
    readings: Sequence[Mask],
    partial_masks: PartialMasks,
) -> Iterator[ReaderPair]:
    """Yield all pairs of the readings of one image."""
    by_name = sorted(readings, key=_reader)
    pixels = [(mask, workspace.mask_over(image, mask)) for mask in by_name]
    for _, mask_pixels in pixels:
        partial_masks.count(mask_pixels)
    for (one, one_pixels), (other, other_pixels) in combinations(pixels, 2):
        measures = _measures(one_pixels, other_pixels, one.classes, other.classes)
        defined = [
            partial_masks.defines_overlaps(image.id, one_pixels, other_pixels),
            partial_masks.defines_overlaps(image.id, other_pixels, one_pixels),
        ]
        if not all(defined):
            measures = dict.fromkeys(measures, math.nan)
        yield ReaderPair(image, group, (one, other), measures)


def _reader(mask: Mask) -> str:
    if mask.annotator is None:
        raise InputError(
            f"mask #{mask.id} is a model's prediction; only people's masks are readings"
        )
    return mask.annotator


def _measures(
    one: masks.Mask, other: masks.Mask, one_classes: Sequence[int], other_classes: Sequence[int]
) -> dict[str, float]:
    """Return the measures of two masks of one size; the classes are those that each reader could use."""
    protocol = load_protocol()
    confusion = metrics.confusion(one, other, len(protocol.classes))
    dice, iou = metrics.dice_per_class(confusion), metrics.iou_per_class(confusion)
    overlaps: dict[str, float] = {}
    for entry in protocol.classes:
        comparable = entry.index in one_classes and entry.index in other_classes
        overlaps[f"{entry.name}_dice"] = float(dice[entry.index]) if comparable else math.nan
        overlaps[f"{entry.name}_iou"] = float(iou[entry.index]) if comparable else math.nan
    lesion = protocol.class_named("lesion").index
    boundary = BoundaryDistance(math.nan, math.nan)
    if not masks.count_unlabelled(one) and not masks.count_unlabelled(other):
        boundary = boundary_distance(one == lesion, other == lesion)
    percent = 100 / math.hypot(*one.shape)
    same = set(one_classes) == set(other_classes)
    return {
        **overlaps,
        "lesion_boundary_px": boundary.mean,
        "lesion_boundary_percent": percent * boundary.mean,
        "lesion_hd95_px": boundary.hd95,
        "lesion_hd95_percent": percent * boundary.hd95,
        "kappa": cohen_kappa(confusion) if same else math.nan,
    }


def _group(pairs: Sequence[ReaderPair]) -> AgreementGroup:
    return AgreementGroup(
        images=len({pair.image.id for pair in pairs}),
        patients=len({pair.group for pair in pairs}),
        pairs=len(pairs),
        means={name: _mean(pairs, name) for name in pairs[0].measures},
    )


def _mean(pairs: Sequence[ReaderPair], name: str) -> Estimate:
    by_image: dict[int, list[float]] = {}
    groups: dict[int, str] = {}
    for pair in pairs:
        value = pair.measures[name]
        if not math.isnan(value):
            by_image.setdefault(pair.image.id, []).append(value)
            groups[pair.image.id] = pair.group
    values = [float(np.mean(of_image)) for of_image in by_image.values()]
    return Sample(values, list(groups.values()), scale=_scale(name)).estimate()


def _scale(name: str) -> Scale:
    """Return the range of a measure: distances from 0, kappa from -1 to 1, overlaps from 0 to 1."""
    if name.endswith(("_px", "_percent")):
        return Scale.POSITIVE
    return Scale.SIGNED if name == "kappa" else Scale.FRACTION


def _picture(workspace: Workspace, pair: ReaderPair) -> bytes:
    image, (one, other) = pair.image, pair.readers
    photograph = panels.fitted(workspace.photograph(image))
    size = photograph.shape[0], photograph.shape[1]
    protocol = load_protocol()
    pixels = [masks.stretch(workspace.mask(mask), size) for mask in pair.readings]
    overlays = [masks.draw_overlay(photograph, mask, protocol) for mask in pixels]
    lesion = protocol.class_named("lesion").index
    return panels.join_panels(
        [
            ("photograph", photograph),
            (one, overlays[0]),
            (other, overlays[1]),
            ("differences", _differences(photograph, pixels[0], pixels[1], lesion)),
        ],
        title=[
            f"{image.name}, tone {image.tone}: {one} and {other}",
            pair.in_words(),
            f"differences: orange lesion of {one} only, purple lesion of {other} only, green others",
        ],
    )


def _differences(
    photograph: NDArray[np.uint8], one: masks.Mask, other: masks.Mask, lesion: int
) -> NDArray[np.uint8]:
    """Return the photograph in grey, with the pixels where the two masks differ in colour."""
    grey = photograph.mean(axis=2, keepdims=True).astype(np.uint8)
    picture = np.repeat(grey, 3, axis=2)
    differ = (one != other) & (one != UNLABELLED) & (other != UNLABELLED)
    picture[differ] = GREEN
    picture[differ & (one == lesion)] = ORANGE
    picture[differ & (other == lesion)] = PURPLE
    return picture
