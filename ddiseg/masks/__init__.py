"""Masks: (H, W) uint8 arrays of class ids; their files, their agreement and their pictures."""

from ddiseg.masks.agreement import BoundaryDistance, boundary_distance, cohen_kappa
from ddiseg.masks.composition import Composition, Layer, Origin, compose
from ddiseg.masks.mask import (
    MAX_PIXELS,
    Mask,
    check_mask,
    classes_in,
    decode_png,
    encode_png,
    load_npy,
    mask_hash,
    parse_class_mapping,
    remap,
    stretch,
)
from ddiseg.masks.metrics import (
    ClassScore,
    Interval,
    confusion,
    dice_per_class,
    iou_per_class,
    score,
    score_by_group,
)
from ddiseg.masks.painting import paint
from ddiseg.masks.rle import Rle, encode_classes

__all__ = [
    "MAX_PIXELS",
    "BoundaryDistance",
    "ClassScore",
    "Composition",
    "Interval",
    "Layer",
    "Mask",
    "Origin",
    "Rle",
    "boundary_distance",
    "check_mask",
    "classes_in",
    "cohen_kappa",
    "compose",
    "confusion",
    "decode_png",
    "dice_per_class",
    "encode_classes",
    "encode_png",
    "iou_per_class",
    "load_npy",
    "mask_hash",
    "paint",
    "parse_class_mapping",
    "remap",
    "score",
    "score_by_group",
    "stretch",
]
