"""Compose one mask from the layers of a brush tool that does not know exclusive classes.

Label Studio's regions are independent layers: brushing lesion over skin leaves the skin region as
it was, and an edited region of the prediction keeps its place in the list. Applying the layers in
list order therefore loses what a person did. Here a pixel goes to the strongest claim on it:

1. what came with the prediction and stayed: untouched regions, and of an edited region the pixels
   that have its class in the prediction (the base); the later in the list wins;
2. the pixels that an edit of such a region newly switched on;
3. the pixels that a person drew as a region of its own, also where that repeats the base.

Where two claims of level 2, or two of level 3, name different classes the protocol's precedence
decides, in whatever order they were made: Label Studio does not say which stroke came later. So a
person takes a stroke back by erasing it, not by drawing a class of lower precedence over it.

Arrays: H rows, W columns; masks (H, W) uint8 class ids, regions (H, W) bool.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import UNLABELLED, Protocol
from ddiseg.errors import InputError
from ddiseg.masks.mask import Mask, check_mask, check_region

#: (H, W) bool.
Region: TypeAlias = NDArray[np.bool_]


class Origin(StrEnum):
    """Where a region comes from, in Label Studio's terms."""

    PREDICTION = "prediction"  #: came with the prediction and was left as it is
    CHANGED = "prediction-changed"  #: came with the prediction and was edited by a person
    MANUAL = "manual"  #: drawn by a person


@dataclass(frozen=True, eq=False)
class Layer:
    """One brush region: the pixels that it covers and the class that it claims for them.

    Raises:
        InputError: `region` is not (H, W) bool.
    """

    class_id: int
    region: Region
    origin: Origin
    name: str = ""  #: what its file calls it, for example "region r1"

    def __post_init__(self) -> None:
        check_region(self.region)


@dataclass(frozen=True, eq=False)
class Composition:
    """A composed mask, and how much of it was doubtful."""

    mask: Mask  #: (H, W) uint8
    conflicts: int  #: pixels that people's edits, levels 2 and 3, claim for two classes or more
    holes: int  #: pixels that no layer covers: erased, never drawn, or unlabelled in the base
    #: Pixels that have another class than in the base; None without a base. Where that is unlabelled,
    #: those that a person gave a class; the others become holes like any that nobody drew.
    changed: int | None


def compose(
    layers: Sequence[Layer], size: tuple[int, int], base: Mask | None, protocol: Protocol
) -> Composition:
    """Compose `layers` into one mask by the three levels above; holes get the hole fill.

    Layers of one level and class are united. Nothing that is passed in is modified.

    Args:
        layers: in the order of Label Studio's list; without any the mask is one hole.
        size: (height, width) of the mask.
        base: (height, width) uint8, the mask that the regions came with, which may be labelled in
            part. Where it is None all of an edited region counts as newly switched on.
        protocol: the classes with their precedence, and the hole fill.

    Raises:
        InputError: a region or the base has another size, or a class that the protocol has not.
    """
    _check_layers(layers, size, protocol)
    if base is not None:
        base = check_mask(base, len(protocol.classes), unlabelled=True)
        _check_size("base mask", base.shape, size)
    added = _united(
        (layer.class_id, _added(layer, base)) for layer in layers if layer.origin is Origin.CHANGED
    )
    strokes = _united(
        (layer.class_id, layer.region) for layer in layers if layer.origin is Origin.MANUAL
    )
    mask = np.full(size, protocol.class_named(protocol.hole_fill).index, dtype=np.uint8)
    for layer in layers:  # level 1; what an edit claims is set again below
        np.copyto(mask, layer.class_id, where=layer.region)
    edits = [*_ascending(added, protocol), *_ascending(strokes, protocol)]
    for class_id, region in edits:
        np.copyto(mask, class_id, where=region)
    covered, _ = _overlap([layer.region for layer in layers], size)
    _, twice = _overlap(_united(edits).values(), size)
    return Composition(
        mask=mask,
        conflicts=int(np.count_nonzero(twice)),
        holes=int(np.count_nonzero(~covered)),
        changed=None if base is None else _count_changed(mask, base, covered),
    )


def _count_changed(mask: Mask, base: Mask, covered: Region) -> int:
    left: Region = (base == UNLABELLED) & ~covered
    return int(np.count_nonzero((mask != base) & ~left))


def _check_layers(layers: Sequence[Layer], size: tuple[int, int], protocol: Protocol) -> None:
    for layer in layers:
        if not 0 <= layer.class_id < len(protocol.classes):
            raise InputError(
                f"brush region has class id {layer.class_id}; the class ids are 0 to "
                f"{len(protocol.classes) - 1}"
            )
        name = protocol.class_at(layer.class_id).name
        _check_size(f"brush region of {name}", layer.region.shape, size)


def _check_size(what: str, shape: tuple[int, ...], size: tuple[int, int]) -> None:
    if shape != size:
        raise InputError(
            f"{what} is {shape[0]} x {shape[1]}, the picture {size[0]} x {size[1]} (height x "
            "width): it belongs to another picture or another size of it, and is never resized"
        )


def _added(layer: Layer, base: Mask | None) -> Region:
    """Return the pixels that an edit of a region added: level 2."""
    if base is None:
        return layer.region
    other: Region = base != layer.class_id
    return layer.region & other


def _united(claims: Iterable[tuple[int, Region]]) -> dict[int, Region]:
    """Return the union of the regions of each class."""
    united: dict[int, Region] = {}
    for class_id, region in claims:
        united[class_id] = united[class_id] | region if class_id in united else region
    return united


def _ascending(regions: dict[int, Region], protocol: Protocol) -> list[tuple[int, Region]]:
    """Return classes and regions, the highest precedence last."""
    return sorted(regions.items(), key=lambda item: protocol.class_at(item[0]).precedence)


def _overlap(regions: Iterable[Region], size: tuple[int, int]) -> tuple[Region, Region]:
    """Return the pixels in one region or more, and in two or more."""
    once = np.zeros(size, dtype=np.bool_)
    twice = np.zeros_like(once)
    for region in regions:
        twice |= once & region
        once |= region
    return once, twice
