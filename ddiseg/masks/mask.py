"""A mask: an (H, W) uint8 array of class ids; its identity, its files, its changes.

Class ids are those of the annotation protocol: 0 background, 1 lesion, 2 marker, 3 ruler, 4 skin.

Arrays: H rows, W columns, row-major; row 0 is the top of the photograph, column 0 its left.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ddiseg.errors import InputError

#: (H, W) uint8 class ids.
Mask: TypeAlias = NDArray[np.uint8]

#: More pixels than this are not decoded unless a caller asks for it: 200 megapixels.
MAX_PIXELS = 200_000_000

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


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
        """Return the message that lists the values, of one mask or of several together."""
        are = "is" if len(wrong) == 1 else "are"
        return f"mask {_counted(wrong)} {are} no class; values seen: {_listed(seen)}"

    @staticmethod
    def too_many() -> str:
        """Return the message for a mask with more wrong values than are listed."""
        return f"mask has more than {FEW_VALUES} values that are no class (soft edges or a photograph?)"


class UnnamedValueError(ValuesError):
    """A mask with values that the class mapping does not name."""

    @staticmethod
    def listing(wrong: Sequence[int], seen: Sequence[int]) -> str:
        """Return the message that lists the values, of one mask or of several together."""
        return (
            f"the class mapping (--classes) does not name {_counted(wrong)}; values seen: "
            f"{_listed(seen)}; name every value, for example 0=skin,255=lesion"
        )

    @staticmethod
    def too_many() -> str:
        """Return the message for a mask with more wrong values than are listed."""
        return (
            f"mask has more than {FEW_VALUES} values that the class mapping (--classes) does not name "
            "(soft edges or a photograph?)"
        )


def check_mask(array: NDArray[Any], class_count: int) -> Mask:
    """`array` as a mask of the classes 0 to `class_count` - 1.

    Any integer or boolean dtype is accepted. The result is row-major and may be `array` itself.

    Raises:
        NoClassError: a value that is no class.
        InputError: `array` is not (H, W), is empty or holds floats.
    """
    if not 1 <= class_count <= 256:
        raise InputError(f"class_count is {class_count}; a uint8 mask holds 1 to 256 classes")
    array = _whole_numbers(array)
    if int(array.min()) < 0 or int(array.max()) >= class_count:
        values = _values_in(array)
        outside = values[(values < 0) | (values >= class_count)]
        raise NoClassError(outside.tolist(), values.tolist())
    return np.ascontiguousarray(array, dtype=np.uint8)


def mask_hash(mask: Mask) -> str:
    """The identity of a mask, 64 hex digits: its size and pixels, whatever file they came from.

    SHA-256 of the ASCII line "mask HxW\\n", then the class ids row by row, a byte each.
    """
    height, width = _uint8_mask(mask).shape
    digest = hashlib.sha256(f"mask {height}x{width}\n".encode("ascii"))
    digest.update(np.ascontiguousarray(mask).data)
    return digest.hexdigest()


def classes_in(mask: Mask) -> tuple[int, ...]:
    """The class ids that at least one pixel has, ascending."""
    counts = np.bincount(_uint8_mask(mask).ravel(), minlength=256)
    return tuple(np.flatnonzero(counts).tolist())


def encode_png(mask: Mask, palette: Sequence[tuple[int, int, int]]) -> bytes:
    """`mask` as an 8-bit palette PNG whose palette indices are the class ids.

    Args:
        mask: (H, W) uint8 class ids.
        palette: red, green and blue (0 to 255) of each class by its id, as `Protocol.palette()`.

    Raises:
        InputError: a class without a colour, or a colour that is not three times 0 to 255.
    """
    height, width = _uint8_mask(mask).shape
    channels = [channel for colour in palette for channel in colour]
    if len(channels) != 3 * len(palette) or not all(0 <= channel <= 255 for channel in channels):
        raise InputError(
            f"palette {list(palette)} is not made of (red, green, blue), 0 to 255 each"
        )
    if int(mask.max()) >= len(palette):
        raise InputError(
            f"mask holds class {int(mask.max())} but the palette has {len(palette)} colours; "
            "give one colour a class"
        )
    # Written here: Pillow stores so few colours in 4 bits, which some readers do not take.
    rows = np.zeros((height, width + 1), dtype=np.uint8)  # each row starts with its filter: 0, none
    rows[:, 1:] = mask
    return b"".join(
        (
            _PNG_SIGNATURE,
            _png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            _png_chunk(b"PLTE", bytes(channels)),
            _png_chunk(b"IDAT", _deflate_runs(rows.data)),
            _png_chunk(b"IEND", b""),
        )
    )


def decode_png(data: bytes, *, max_pixels: float = MAX_PIXELS) -> Mask:
    """The stored values of a single-channel PNG: palette indices, grey levels, or 0 and 1.

    Every checksum in the file is verified. The values are not compared with the classes of the
    protocol; `check_mask` and `remap` do that.

    Args:
        data: the bytes of the file.
        max_pixels: a larger picture is refused before any of it is decompressed.

    Raises:
        InputError: not a PNG, truncated or corrupt, too large, animated, or of a kind that does not
            hold class ids (RGB, an alpha channel, 16 bits, or 2- or 4-bit grey).
    """
    from PIL.PngImagePlugin import PngImageFile

    width, height = _png_size(data)
    if width * height > max_pixels:
        raise InputError(
            f"mask PNG is {width} x {height} = {width * height:,} pixels, over the limit of "
            f"{max_pixels:,.0f}; export it at the photograph's size, or raise max_pixels"
        )
    if b"acTL" in _png_chunk_kinds(data):
        raise InputError("mask PNG is animated; export a single picture")
    try:
        # Not Image.open: its limit on pixels is a global of the process, ours is an argument.
        with PngImageFile(io.BytesIO(data)) as image:
            return np.array(image, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise _broken_png(str(error)) from error


def load_npy(data: bytes) -> NDArray[Any]:
    """The array in the bytes of a `.npy` file; nothing in them is ever unpickled.

    Raises:
        InputError: not a `.npy` file, a pickle or an array of Python objects, truncated, or
            with bytes left over.
    """
    if data[:2] == b"PK":
        raise InputError(
            "file is a zip archive, perhaps .npz; save each mask with numpy.save instead"
        )
    if not data.startswith(b"\x93NUMPY"):
        what = (
            "a pickle, which could run code when read" if data[:1] == b"\x80" else "not a .npy file"
        )
        raise InputError(f"file is {what}; save the mask with numpy.save(..., allow_pickle=False)")
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)  # type: ignore[no-untyped-call]
        if version == (1, 0):
            header = np.lib.format.read_array_header_1_0(stream)  # type: ignore[no-untyped-call]
        elif version == (2, 0):
            header = np.lib.format.read_array_header_2_0(stream)  # type: ignore[no-untyped-call]
        else:
            raise InputError(
                f".npy file has format version {version[0]}.{version[1]}, which only arrays with "
                "named fields need; save plain integers"
            )
        shape, fortran_order, dtype = header
    except InputError:
        raise
    except (ValueError, TypeError, SyntaxError, EOFError) as error:
        raise InputError(
            f".npy file has a broken header ({error}); copy or save it again"
        ) from error
    if dtype.hasobject:
        raise InputError(
            ".npy file holds Python objects, which could run code when read; save integers, "
            "such as numpy.save(path, mask.astype('uint8'))"
        )
    # Compared before anything is allocated: a header may promise more than the file holds.
    promised, present = dtype.itemsize, len(data) - stream.tell()
    for side in shape:
        promised *= side
    if promised != present:
        trouble = "is truncated" if present < promised else "goes on after its array"
        raise InputError(
            f".npy file {trouble}: its header says shape {shape} of {dtype}; copy or save it again"
        )
    flat = np.frombuffer(data, dtype=dtype, offset=stream.tell()) if present else np.empty(0, dtype)
    array = flat.reshape(shape[::-1]).T if fortran_order else flat.reshape(shape)
    return np.array(array, order="C")


def remap(mask_values: NDArray[Any], mapping: Mapping[int, int]) -> Mask:
    """A mask from an array of foreign values; {0: 4, 255: 1} reads a black and white lesion mask.

    Args:
        mask_values: (H, W), any integer or boolean dtype.
        mapping: the class id of each foreign value.

    Raises:
        UnnamedValueError: a value that `mapping` does not name.
        InputError: `mapping` leads to no class id, or `mask_values` is no (H, W) of whole numbers.
    """
    bad_targets = sorted({target for target in mapping.values() if not 0 <= target <= 255})
    if bad_targets:
        raise InputError(f"class mapping leads to {bad_targets}; class ids are 0 to 255")
    array = _whole_numbers(mask_values)
    values = _values_in(array)
    unnamed = values[[int(value) not in mapping for value in values]]
    if len(unnamed):
        raise UnnamedValueError(unnamed.tolist(), values.tolist())
    targets = np.array([mapping[int(value)] for value in values], dtype=np.uint8)
    return targets[np.searchsorted(values, array)]


def parse_class_mapping(text: str, names: Sequence[str]) -> dict[int, int]:
    """The mapping that "0=skin,255=lesion" says, as {0: 4, 255: 1}.

    Args:
        text: comma-separated VALUE=CLASS; spaces are ignored; several values may lead to one class.
        names: the names of the classes by id.

    Raises:
        InputError: a malformed part, a value named twice, or a class that does not exist.
    """
    mapping: dict[int, int] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*([+-]?[0-9]+)\s*=\s*(\S.*?)\s*", part)
        if match is None:
            raise InputError(
                f"class mapping {text!r}: {part.strip()!r} is not VALUE=CLASS; "
                "write for example 0=skin,255=lesion"
            )
        value, name = int(match[1]), match[2]
        if name not in names:
            raise InputError(
                f"class mapping {text!r}: there is no class {name!r}; "
                f"the classes are {', '.join(names)}"
            )
        if value in mapping:
            raise InputError(
                f"class mapping {text!r}: value {value} stands twice; keep one of them"
            )
        mapping[value] = list(names).index(name)
    return mapping


def stretch(mask: Mask, size: tuple[int, int]) -> Mask:
    """`mask` at another size, nearest neighbour by pixel centres; the aspect ratio may change.

    At its own size it is `mask` itself.

    For a mask that was drawn on a photograph stretched to a square: stretched to the size of the
    photograph it lies over it again. Enlarging and shrinking back gives the same mask, exactly.

    Args:
        mask: (H, W) uint8.
        size: (height, width) of the result.
    """
    height, width = size
    if height < 1 or width < 1:
        raise InputError(
            f"cannot stretch a mask to {height} x {width}; both sides must be 1 or more"
        )
    rows, columns = _uint8_mask(mask).shape
    if (rows, columns) == (height, width):
        return mask
    return mask[_nearest(rows, height)[:, None], _nearest(columns, width)]


def _nearest(source: int, target: int) -> NDArray[np.intp]:
    """The source pixel under the centre of each target pixel: floor((i + 1/2) source / target)."""
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


def _uint8_mask(mask: Mask) -> Mask:
    if mask.ndim != 2 or mask.size == 0 or mask.dtype != np.uint8:
        raise InputError(
            f"mask is {mask.dtype} of shape {mask.shape}, not (height, width) uint8; "
            "pass it through check_mask first"
        )
    return mask


def _values_in(array: NDArray[Any]) -> NDArray[Any]:
    """The values in `array`, ascending."""
    low, high = int(array.min()), int(array.max())
    if low >= 0 and high < 65536:  # counting is many times faster than the sort in np.unique
        return np.flatnonzero(np.bincount(array.ravel().astype(np.uint16, copy=False)))
    values: NDArray[Any] = np.unique(array)
    return values


def _counted(values: Sequence[int]) -> str:
    return f"value{'s' * (len(values) != 1)} {_listed(values)}"


def _listed(values: Sequence[int], most: int = FEW_VALUES) -> str:
    listed = ", ".join(map(str, values[:most]))
    return f"{listed} and {len(values) - most} more" if len(values) > most else listed


def _png_size(data: bytes) -> tuple[int, int]:
    """Width and height in a PNG's header, its first chunk (PNG specification, 11.2.1)."""
    if len(data) < 33 or data[:8] != _PNG_SIGNATURE or data[12:16] != b"IHDR":
        raise InputError("mask is not a PNG, or stops within its header; give a PNG of class ids")
    width, height, depth, colour_type = struct.unpack(">IIBB", data[16:26])
    kind = {
        0: f"{depth}-bit grey",
        2: "RGB",
        3: f"{depth}-bit palette",
        4: "grey with alpha",
        6: "RGBA",
    }.get(colour_type, f"of unknown colour type {colour_type}")
    # Grey of 2 or 4 bits is refused: readers scale it to 0..255, so its values are not class ids.
    if colour_type not in (0, 3) or (colour_type == 0 and depth not in (1, 8)):
        raise InputError(
            f"mask PNG is {kind}; a mask has one value a pixel. Export it as palette ('P') or "
            "8-bit grey ('L')"
        )
    if not width or not height:
        raise InputError(f"mask PNG is {width} x {height}, no pixels; export it again")
    return width, height


def _deflate_runs(data: memoryview) -> bytes:
    # A mask is runs of few values: looking for these alone is some 30 times faster than looking
    # for any repeat, and costs a seventh more bytes where borders are ragged.
    deflate = zlib.compressobj(9, strategy=zlib.Z_RLE)
    return deflate.compress(data) + deflate.flush()


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png_chunk_kinds(data: bytes) -> set[bytes]:
    """The chunks of a PNG up to its end mark, each checksum verified, which Pillow leaves out.

    Raises:
        InputError: a wrong checksum, or no end mark.
    """
    kinds: set[bytes] = set()
    view, start = memoryview(data), len(_PNG_SIGNATURE)
    while b"IEND" not in kinds:
        length = int.from_bytes(data[start : start + 4], "big")
        end = start + 12 + length
        if end > len(data):
            raise _broken_png("it stops before its end mark")
        kind, checksum = data[start + 4 : start + 8], int.from_bytes(data[end - 4 : end], "big")
        if zlib.crc32(view[start + 4 : end - 4]) != checksum:
            raise _broken_png(f"wrong checksum in chunk {kind!r}")
        kinds.add(kind)
        start = end
    return kinds


def _broken_png(trouble: str) -> InputError:
    return InputError(f"mask PNG is truncated or corrupt ({trouble}); export or copy it again")
