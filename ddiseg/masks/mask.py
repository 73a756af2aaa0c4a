"""A mask, an (H, W) uint8 array of class ids: checks, identity and changes.

Class ids are those of the annotation protocol: 0 background, 1 lesion, 2 marker, 3 ruler, 4 skin.
A mask that is labelled in part holds UNLABELLED, 255, where nobody gave a class.

Arrays: H rows, W columns, row-major; row 0 is the top of the photograph, column 0 its left.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import UNLABELLED, UNLABELLED_NAME, load_protocol
from ddiseg.errors import InputError
from ddiseg.masks.colours import COLOUR, value_text

#: (H, W) uint8 class ids.
Mask: TypeAlias = NDArray[np.uint8]

#: More pixels than this are not decoded unless a caller asks for it: 200 megapixels.
MAX_PIXELS = 200_000_000


#: What options call pixels that are left without a class.
IGNORED = ("ignore", UNLABELLED_NAME)

#: A mask with more wrong values than this is no mask of a few values: they are not listed.
FEW_VALUES = 8


class ValuesError(InputError):
    """A mask with values that have no meaning: `wrong` are those, `seen` all values, ascending.

    The message names no number of pixels: masks with the same fault have the same message, which is
    then shown once for all of them.
    """

    def __init__(self, wrong: Sequence[int], seen: Sequence[int]) -> None:
        self.wrong, self.seen = tuple(wrong), tuple(seen)
        super().__init__(self.listing(wrong, seen) if self.few else self.too_many())

    @property
    def few(self) -> bool:
        """Whether the wrong values are few enough to be listed."""
        return len(self.wrong) <= FEW_VALUES

    @staticmethod
    def listing(wrong: Sequence[int], seen: Sequence[int]) -> str:
        """Return the message that lists the values, of one mask or of several together."""
        raise NotImplementedError

    @staticmethod
    def too_many() -> str:
        """Return the message for a mask with more wrong values than are listed."""
        raise NotImplementedError


class NoClassError(ValuesError):
    """A mask with values that are no class."""

    @staticmethod
    def listing(wrong: Sequence[int], seen: Sequence[int]) -> str:
        are = "is" if len(wrong) == 1 else "are"
        return f"mask {_counted(wrong)} {are} no class; values seen: {_listed(seen)}"

    @staticmethod
    def too_many() -> str:
        return f"mask has more than {FEW_VALUES} values that are no class (soft edges or a photograph?)"


class UnnamedValueError(ValuesError):
    """A mask with values that the class mapping does not name."""

    @staticmethod
    def listing(wrong: Sequence[int], seen: Sequence[int]) -> str:
        names = load_protocol().class_names
        example = "0=skin,255=lesion"
        ids = range(len(names))
        if wrong and set(wrong) <= set(ids) and set(seen) & set(ids[1:]):
            example = ",".join(f"{value}={names[value]}" for value in wrong)
        elif wrong and wrong[-1] >= COLOUR:
            example = f"'{value_text(wrong[-1])}=ignore'"
        return (
            f"the class mapping (--classes) does not name {_counted(wrong)}; values seen: "
            f"{_listed(seen)}; name every value, for example {example}"
        )

    @staticmethod
    def too_many() -> str:
        return (
            f"mask has more than {FEW_VALUES} values that the class mapping (--classes) does not name "
            "(soft edges or a photograph?)"
        )


def check_mask(array: NDArray[Any], class_count: int, *, unlabelled: bool = False) -> Mask:
    """Return `array` as a mask of the classes 0 to `class_count` - 1.

    Any integer or boolean dtype is accepted. The result is row-major and may be `array` itself.

    Args:
        array: (H, W).
        class_count: number of classes.
        unlabelled: accept UNLABELLED pixels, too. A file of another tool may mean anything by 255.

    Raises:
        NoClassError: a value that is no class.
        InputError: `array` is not (H, W), is empty or holds floats.
    """
    if not 1 <= class_count <= UNLABELLED:
        raise InputError(
            f"class_count is {class_count}; a uint8 mask holds 1 to {UNLABELLED} classes"
        )
    array = _whole_numbers(array)
    if int(array.min()) < 0 or int(array.max()) >= class_count:
        values = values_in(array)
        outside = values[(values < 0) | (values >= class_count)]
        if unlabelled:
            outside = outside[outside != UNLABELLED]
        if len(outside):
            raise NoClassError(outside.tolist(), values.tolist())
    return np.ascontiguousarray(array, dtype=np.uint8)


def mask_hash(mask: Mask) -> str:
    """Return the hash of a mask's size and pixels, 64 hex digits, whatever file they came from.

    SHA-256 of the ASCII line "mask HxW\\n", then the class ids row by row, a byte each.
    """
    height, width = check_uint8(mask).shape
    digest = hashlib.sha256(f"mask {height}x{width}\n".encode("ascii"))
    digest.update(np.ascontiguousarray(mask).data)
    return digest.hexdigest()


def classes_in(mask: Mask) -> tuple[int, ...]:
    """Return the class ids that at least one pixel has, ascending."""
    counts = np.bincount(check_uint8(mask).ravel(), minlength=256)
    return tuple(np.flatnonzero(counts[:UNLABELLED]).tolist())


def count_unlabelled(mask: Mask) -> int:
    """Return the number of pixels without a class."""
    return int(np.count_nonzero(check_uint8(mask) == UNLABELLED))


def remap(mask_values: NDArray[Any], mapping: Mapping[int, int]) -> Mask:
    """Return a mask from an array of other values; {0: 4, 255: 1} reads a black and white lesion mask.

    Args:
        mask_values: (H, W), any integer or boolean dtype.
        mapping: the class id of each value, or UNLABELLED.

    Raises:
        UnnamedValueError: a value that `mapping` does not name.
        InputError: `mapping` leads to no class id, or `mask_values` is no (H, W) of whole numbers.
    """
    bad_targets = sorted({target for target in mapping.values() if not 0 <= target <= 255})
    if bad_targets:
        raise InputError(f"class mapping leads to {bad_targets}; class ids are 0 to 255")
    array = _whole_numbers(mask_values)
    values = values_in(array)
    unnamed = values[[int(value) not in mapping for value in values]]
    if len(unnamed):
        raise UnnamedValueError(unnamed.tolist(), values.tolist())
    targets = np.array([mapping[int(value)] for value in values], dtype=np.uint8)
    return targets[np.searchsorted(values, array)]


def parse_class_mapping(text: str, names: Sequence[str]) -> dict[int, int]:
    """Parse "0=skin,1=lesion,255=ignore" into {0: 4, 1: 1, 255: UNLABELLED}.

    Args:
        text: comma-separated VALUE=CLASS; spaces are ignored; several values may lead to one class.
            A value is a whole number or a colour, '#800000' (see `ddiseg.masks.colours`).
            The class `ignore` (or `unlabelled`) is that of pixels that are left without one.
        names: the names of the classes by id.

    Raises:
        InputError: a malformed part, a value named twice, or a class that does not exist.
    """
    mapping: dict[int, int] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*([+-]?[0-9]+|#[0-9a-fA-F]{6})\s*=\s*(\S.*?)\s*", part, re.ASCII)
        if match is None:
            raise InputError(
                f"class mapping {text!r}: {part.strip()!r} is not VALUE=CLASS; "
                "write for example 0=skin,255=lesion, or '#800000=lesion' for a colour"
            )
        value, name = _value(match[1]), match[2]
        if name not in names and name not in IGNORED:
            raise InputError(
                f"class mapping {text!r}: there is no class {name!r}; "
                f"the classes are {', '.join(names)}, or ignore"
            )
        if value in mapping:
            raise InputError(
                f"class mapping {text!r}: value {value_text(value)} occurs twice; keep one of them"
            )
        mapping[value] = UNLABELLED if name in IGNORED else list(names).index(name)
    return mapping


def _value(text: str) -> int:
    return COLOUR | int(text[1:], 16) if text.startswith("#") else int(text)


def stretch(mask: Mask, size: tuple[int, int]) -> Mask:
    """Return `mask` at another size, nearest neighbour by pixel centres; the aspect ratio may change.

    At its own size it is `mask` itself.

    For a mask that was drawn on a photograph stretched to a square: stretched to the size of the
    photograph it lies over it again. Enlarging and shrinking back gives the same mask, exactly.

    Args:
        mask: (H, W) uint8.
        size: (height, width) of the result.
    """
    height, width = size
    if height < 1 or width < 1:
        raise InputError(f"cannot stretch a mask to {height} x {width}; both must be 1 or more")
    rows, columns = check_uint8(mask).shape
    if (rows, columns) == (height, width):
        return mask
    return mask[_nearest(rows, height)[:, None], _nearest(columns, width)]


def _nearest(source: int, target: int) -> NDArray[np.intp]:
    """Return the source pixel under the centre of each target pixel: floor((i + 1/2) source / target)."""
    # In integers, so that no rounding decides where a border falls.
    return (2 * np.arange(target, dtype=np.intp) + 1) * source // (2 * target)


def _whole_numbers(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim != 2:
        raise InputError(
            f"mask has shape {array.shape}; a mask is (height, width), one class id a pixel, "
            "not colours or a stack"
        )
    if array.size == 0:
        raise InputError(f"mask has shape {array.shape}, no pixels; give a mask of 1 x 1 or more")
    if array.dtype.kind not in "iub":
        raise InputError(
            f"mask has dtype {array.dtype}; class ids are whole numbers. Threshold or round it "
            "yourself, then pass integers"
        )
    return array.view(np.uint8) if array.dtype.kind == "b" else array


def check_uint8(mask: Mask) -> Mask:
    if mask.ndim != 2 or mask.size == 0 or mask.dtype != np.uint8:
        raise InputError(
            f"mask is {mask.dtype} of shape {mask.shape}, not (height, width) uint8; "
            "pass it through check_mask first"
        )
    return mask


def check_region(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if region.ndim != 2 or region.dtype != np.bool_:
        raise InputError(
            f"region is {region.dtype} of shape {region.shape}, not (height, width) bool; "
            "compare the mask with a class id first, such as mask == 1"
        )
    return region


def values_in(array: NDArray[Any]) -> NDArray[Any]:
    """Return the values in `array`, ascending."""
    low, high = int(array.min()), int(array.max())
    if low >= 0 and high < 65536:  # counting is many times faster than the sort in np.unique
        return np.flatnonzero(np.bincount(array.ravel().astype(np.uint16, copy=False)))
    # A mask is runs of equal values: one of each run is far fewer to sort.
    flat = array.ravel()
    values: NDArray[Any] = np.unique(flat[np.r_[True, flat[1:] != flat[:-1]]])
    return values


def _counted(values: Sequence[int]) -> str:
    return f"value{'s' * (len(values) != 1)} {_listed(values)}"


def _listed(values: Sequence[int], most: int = FEW_VALUES) -> str:
    listed = ", ".join(map(value_text, values[:most]))
    return f"{listed} and {len(values) - most} more" if len(values) > most else listed
