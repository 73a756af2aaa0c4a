"""Masks: (H, W) uint8 arrays of class ids; their files, their agreement and their pictures."""

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
    "ClassScore",
    "Interval",
    "Mask",
    "Rle",
    "check_mask",
    "classes_in",
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
