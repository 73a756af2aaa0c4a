"""Masks: (H, W) uint8 arrays of class ids, their files, agreement and pictures."""

from ddiseg.masks.agreement import BoundaryDistance, boundary_distance, cohen_kappa
from ddiseg.masks.composition import Composition, Layer, Origin, compose
from ddiseg.masks.files import decode_png, encode_png, load_npy
from ddiseg.masks.mask import (
    FEW_VALUES,
    IGNORED,
    MAX_PIXELS,
    Mask,
    NoClassError,
    UnnamedValueError,
    ValuesError,
    check_mask,
    classes_in,
    count_unlabelled,
    mask_hash,
    parse_class_mapping,
    remap,
    stretch,
)
from ddiseg.masks.overlay import draw_overlay
from ddiseg.masks.quality import Rating, Triage, by_level, in_words, rate
from ddiseg.masks.rle import Rle, encode_classes

__all__ = [
    "FEW_VALUES",
    "IGNORED",
    "MAX_PIXELS",
    "BoundaryDistance",
    "Composition",
    "Layer",
    "Mask",
    "NoClassError",
    "Origin",
    "Rating",
    "Rle",
    "Triage",
    "UnnamedValueError",
    "ValuesError",
    "boundary_distance",
    "by_level",
    "check_mask",
    "classes_in",
    "cohen_kappa",
    "compose",
    "count_unlabelled",
    "decode_png",
    "draw_overlay",
    "encode_classes",
    "encode_png",
    "in_words",
    "load_npy",
    "mask_hash",
    "parse_class_mapping",
    "rate",
    "remap",
    "stretch",
]
