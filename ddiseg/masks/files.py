"""Files of masks: palette PNG, and `.npy` as others write it.

Arrays: H rows, W columns; masks (H, W) uint8 class ids.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import UNLABELLED, UNLABELLED_RGB
from ddiseg.errors import InputError
from ddiseg.masks.mask import MAX_PIXELS, Mask, check_uint8
from ddiseg.png import SIGNATURE, make_png


def encode_png(mask: Mask, palette: Sequence[tuple[int, int, int]]) -> bytes:
    """Encode `mask` as an 8-bit palette PNG whose palette indices are the class ids.

    Args:
        mask: (H, W) uint8 class ids; UNLABELLED pixels get an entry of their own, 255.
        palette: red, green and blue (0 to 255) of each class by its id, as `Protocol.palette()`.

    Raises:
        InputError: a class without a colour, or a colour that is not three times 0 to 255.
    """
    height, width = check_uint8(mask).shape
    channels = [channel for colour in palette for channel in colour]
    if len(channels) != 3 * len(palette) or not all(0 <= channel <= 255 for channel in channels):
        raise InputError(
            f"palette {list(palette)} is not made of (red, green, blue), 0 to 255 each"
        )
    largest = int(mask.max())
    if largest == UNLABELLED and len(palette) <= UNLABELLED:
        channels += [0] * 3 * (UNLABELLED - len(palette)) + list(UNLABELLED_RGB)
        largest = int(mask.max(initial=0, where=mask != UNLABELLED))
    if largest >= len(palette):
        raise InputError(
            f"mask holds class {largest} but the palette has {len(palette)} colours; "
            "give one colour a class"
        )
    # Written here: Pillow stores so few colours in 4 bits, which some readers do not take.
    rows = np.zeros((height, width + 1), dtype=np.uint8)  # each row starts with its filter: 0, none
    rows[:, 1:] = mask
    return make_png((height, width), 3, _deflate_runs(rows.data), bytes(channels))


def decode_png(data: bytes, *, max_pixels: float = MAX_PIXELS) -> Mask:
    """Decode the stored values of a single-channel PNG: palette indices, grey levels, or 0 and 1.

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
    """Return the array in the bytes of a `.npy` file; nothing in them is ever unpickled.

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
        first = re.sub(r" at 0x[0-9a-f]+", "", str(error).partition("\n")[0])
        raise InputError(
            f".npy file has a broken header ({first}); copy or save it again"
        ) from error
    if dtype.hasobject:
        raise InputError(
            ".npy file holds Python objects, which could run code when read; save integers, "
            "such as numpy.save(path, mask.astype('uint8'))"
        )
    # Compared before anything is allocated: a header may promise more than the file holds.
    if min(shape, default=0) < 0:
        raise InputError(f".npy file has a broken header (shape {shape}); copy or save it again")
    promised, present = dtype.itemsize, len(data) - stream.tell()
    for length in shape:
        promised *= length
    if promised != present:
        trouble = "is truncated" if present < promised else "goes on after its array"
        raise InputError(
            f".npy file {trouble}: its header says shape {shape} of {dtype}; copy or save it again"
        )
    flat = np.frombuffer(data, dtype=dtype, offset=stream.tell()) if present else np.empty(0, dtype)
    array = flat.reshape(shape[::-1]).T if fortran_order else flat.reshape(shape)
    return np.array(array, order="C")


def _png_size(data: bytes) -> tuple[int, int]:
    """Width and height in a PNG's header, its first chunk (PNG specification, 11.2.1)."""
    if len(data) < 33 or data[:8] != SIGNATURE or data[12:16] != b"IHDR":
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
    # A mask is runs of few values: searching for these alone is some 30 times faster than for
    # any repeat, and costs a seventh more bytes where borders are ragged.
    deflate = zlib.compressobj(9, strategy=zlib.Z_RLE)
    return deflate.compress(data) + deflate.flush()


def _png_chunk_kinds(data: bytes) -> set[bytes]:
    """Return the chunks of a PNG up to its end mark, each checksum verified, which Pillow leaves out.

    Raises:
        InputError: a wrong checksum, or no end mark.
    """
    kinds: set[bytes] = set()
    view, start = memoryview(data), len(SIGNATURE)
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
