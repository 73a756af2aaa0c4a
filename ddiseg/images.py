"""Read photographs safely as plain upright sRGB pixels; encode and hash them.

Arrays: a photograph is (H, W, 3) uint8 sRGB.
"""

from __future__ import annotations

import hashlib
import io
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError, features

from ddiseg.errors import InputError
from ddiseg.masks.orientation import turn_upright
from ddiseg.png import make_png
from ddiseg.sample_depth import (
    has_wide_colours,
    refuse_separate_planes,
    scale_colours,
    scale_grey,
)

#: File endings that an imported folder is searched for.
ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif"),
    *(".heic", ".heif", ".hif", ".avif"),
)

#: Formats that Pillow may open; the ending of a file does not decide.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF")

#: Brands of files in ISO's container (ISO/IEC 23008-12, ISO/IEC 14496-12) by their format.
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys(
        (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), "HEIF"
    ),
}

#: The largest photograph taken, in pixels; beyond it a file is taken for a decompression bomb.
#: Just below Pillow's own limit, so that this one decides.
MAX_PIXELS = 178_000_000

#: Perceptual hashes that differ in no more bits than this are listed as near-duplicates.
NEAR_DUPLICATE_BITS = 4

#: Rows that are converted at a time: whole copies of a large photograph take gigabytes.
STRIP = 256

# Pillow allocates blocks of 16 MB, which glibc keeps for the thread that freed them: several threads
# keep several large photographs. Blocks of this size go back to the system.
Image.core.set_block_size(1 << 26)  # type: ignore[attr-defined]

Photograph = NDArray[np.uint8]


@dataclass(frozen=True)
class Opened:
    """A photograph as plain upright 8-bit sRGB, and the changes that took."""

    pixels: Photograph
    changes: tuple[str, ...]
    orientation: int = 1  #: EXIF orientation of the file, 1 to 8; the pixels are upright


def pixels_in(source: Path | bytes) -> int:
    """Return how many pixels a file says it has, from its header alone; 0 where it can't be read."""
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
            formats = _formats(file.read(256))
            file.seek(0)
            with _quiet_pillow(), Image.open(file, formats=formats) as picture:
                return picture.width * picture.height
    except (*_DAMAGED, InputError, Image.DecompressionBombError):
        return 0


def open_photograph(data: bytes) -> Opened:
    """Read a photograph from the bytes of a file; raises InputError that says what is wrong.

    EXIF orientation is applied, an embedded colour profile converted to sRGB, transparency laid
    on white, more than 8 bits a channel brought to 8. Animated files are refused: it is not clear
    which frame is meant.
    """
    formats = _formats(data)
    try:
        with _quiet_pillow(), Image.open(io.BytesIO(data), formats=formats) as picture:
            return _read(picture, lambda: Image.open(io.BytesIO(data), formats=formats))
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(_bomb()) from error
    except UnidentifiedImageError as error:
        raise InputError(_unreadable(data, formats)) from error
    except _DAMAGED as error:
        raise InputError(f"damaged or cut short ({_first_line(error)})") from error


def encode_png(photograph: Photograph) -> bytes:
    """Encode the pixels, and nothing else, as PNG.

    Each row is stored as its difference from the one above: half the time of Pillow's encoder,
    which tries all five filters on every row, for files of the same size.
    """
    height, width = photograph.shape[:2]
    deflate = zlib.compressobj(1)
    parts: list[bytes] = []
    above = np.zeros(3 * width, np.uint8)
    for start in range(0, height, STRIP):
        flat = photograph[start : start + STRIP].reshape(-1, 3 * width)
        rows = np.empty((len(flat), 1 + 3 * width), np.uint8)
        rows[:, 0] = 2  # filter type Up (PNG specification, 9.2)
        np.subtract(flat[0], above, out=rows[0, 1:])
        np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])
        above = flat[-1]
        parts.append(deflate.compress(rows.data))
    return make_png((height, width), 2, b"".join(parts) + deflate.flush())


def content_hash(photograph: Photograph) -> str:
    """Return the SHA-256 of size and pixels: the same for every file that shows exactly this."""
    height, width = photograph.shape[:2]
    digest = hashlib.sha256(f"image {height}x{width}\n".encode())
    digest.update(np.ascontiguousarray(photograph).data)
    return digest.hexdigest()


def perceptual_hash(photograph: Photograph) -> str:
    """Return the 64-bit DCT hash as 16 hexadecimal digits; survives scaling and recompression."""
    import imagehash

    grey = np.empty(photograph.shape[:2], np.uint8)
    for top in range(0, len(grey), STRIP):
        strip = Image.fromarray(photograph[top : top + STRIP])
        grey[top : top + STRIP] = np.asarray(strip.convert("L"))
    return str(imagehash.phash(Image.fromarray(grey).reduce(max(1, min(grey.shape) // 128))))


def near_duplicates(
    hashes: Sequence[str], bits: int = NEAR_DUPLICATE_BITS
) -> list[tuple[int, int, int]]:
    """Return pairs (i, j, differing bits) of perceptual hashes at most `bits` apart, i < j.

    Two hashes that differ in at most `bits` bits agree in at least one of `bits + 1` bands, so
    only those that share a band are compared.
    """
    values = np.frombuffer(bytes.fromhex("".join(hashes)), ">u8").astype(np.uint64)
    width = -(-64 // (bits + 1))
    found: list[NDArray[np.intp]] = [np.empty(0, np.intp)]  # pairs as i * (number of hashes) + j
    for shift in range(0, width * (bits + 1), width):
        # A band beyond the last bit is empty, so all hashes share it.
        mask = (1 << width) - 1 if shift < 64 else 0
        band = ((values >> np.uint64(min(shift, 63))) & np.uint64(mask)).astype(
            np.uint16 if width <= 16 else np.uint64  # NumPy sorts 16 bits in linear time
        )
        order = np.argsort(band, kind="stable")
        band, ordered, step = band[order], values[order], 1
        left: NDArray[np.intp] = np.arange(len(values))
        # Sorted like this, hashes that share a band are neighbours: compare 1, 2, ... places apart.
        while (left := left[: np.searchsorted(left, len(values) - step)]).size:
            left = left[band[left] == band[left + step]]
            near = left[_differing_bits(ordered[left], ordered[left + step]) <= bits]
            found.append(order[near] * len(values) + order[near + step])
            step += 1
    i, j = np.divmod(np.unique(np.concatenate(found)), max(1, len(values)))
    differing = _differing_bits(values[i], values[j])
    return list(zip(i.tolist(), j.tolist(), differing.tolist(), strict=True))


def _differing_bits(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the number of bits in which numbers differ; sums ever wider fields, as in Hacker's Delight."""
    x = a ^ b
    x -= (x >> np.uint64(1)) & np.uint64(0x5555555555555555)
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (x * np.uint64(0x0101010101010101)) >> np.uint64(56)


#: What Pillow raises on files that are damaged, including errors of its parsers.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zlib.error,
    ImageCms.PyCMSError,
)


class _Quiet:
    """How many threads are inside `_quiet_pillow`, and what undoes it."""

    lock = threading.Lock()
    inside = 0
    undo = ExitStack()


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Keep Pillow's warnings, on large pictures and odd metadata, off the screen.

    Warning filters belong to the process, so the first thread in sets them and the last one out
    puts them back; each on its own would undo what another still needs.
    """
    with _Quiet.lock:
        if not _Quiet.inside:
            _Quiet.undo.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        _Quiet.inside += 1
    try:
        yield
    finally:
        with _Quiet.lock:
            _Quiet.inside -= 1
            if not _Quiet.inside:
                _Quiet.undo.close()


def _formats(data: bytes) -> tuple[str, ...]:
    """Return the formats that Pillow may take a file for.

    Raises:
        InputError: a format that needs a package that is not installed.
    """
    kind = _brand(data)
    if kind == "HEIF":
        try:
            import pillow_heif
        except ImportError as error:
            raise InputError(
                "is HEIC, as iPhones write it: pip install 'ddiseg[heif]', or convert it to JPEG"
            ) from error
        pillow_heif.register_heif_opener()
        return ("HEIF",)
    if kind == "AVIF":
        if not features.check("avif"):
            raise InputError("is AVIF: pip install 'pillow>=11.3', or convert it to PNG or JPEG")
        return ("AVIF",)
    return _FORMATS


def _brand(data: bytes) -> str | None:
    """Return the format of a file in ISO's container by its brands, the more specific first."""
    if data[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(data[:4]), 256)
    brands = [data[8:12], *(data[i : i + 4] for i in range(16, end, 4))]
    found = {_BRANDS[brand] for brand in brands if brand in _BRANDS}
    return "AVIF" if "AVIF" in found else next(iter(found), None)


def _unreadable(data: bytes, formats: tuple[str, ...]) -> str:
    if data[:4] in (b"II*\0", b"MM\0*"):
        return (
            "a TIFF whose kind of pixels can't be read, such as floating-point colours: export it "
            "with 8 or 16 bits a channel"
        )
    if formats != _FORMATS:
        return f"damaged or cut short ({formats[0]})"
    if data[4:8] == b"ftyp":
        return "a video or a format that can't be read: export it as JPEG or PNG"
    return f"not a photograph that can be read ({', '.join((*formats, 'HEIC', 'AVIF'))})"


def _read(
    picture: Image.Image, reopen: Callable[[], AbstractContextManager[Image.Image]]
) -> Opened:
    changes: list[str] = []
    if picture.width * picture.height > MAX_PIXELS:
        raise InputError(_bomb())
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format != "MPO":
        raise InputError(f"holds {frames} frames: export the one that is meant as a still image")
    profile, transparency = picture.info.get("icc_profile"), "transparency" in picture.info
    refuse_separate_planes(picture)
    wide, orientation = has_wide_colours(picture), _orientation(picture)
    picture.load()
    left = _orientation(picture)  # Pillow turns a TIFF while it loads it
    if picture.mode.startswith(("I", "F")):
        picture, change = scale_grey(picture)
        changes.append(change)
    elif wide:
        picture, change = scale_colours(picture, reopen)
        changes.append(change)
    if orientation != 1:
        changes.append("turned upright")
    if picture.mode == "LAB":
        changes.append("colours converted from Lab to sRGB")
    has_alpha = "A" in picture.getbands() or "a" in picture.getbands() or transparency
    colours = "RGB" if has_alpha or picture.mode == "P" else picture.mode
    to_srgb = None
    if profile and colours in ("RGB", "CMYK", "L"):
        to_srgb = _transform(profile, colours, changes)
    pixels = np.empty((picture.height, picture.width, 3), np.uint8)
    clear = False
    for top in range(0, picture.height, STRIP):
        bottom = min(top + STRIP, picture.height)
        strip = picture.crop((0, top, picture.width, bottom))
        strip, seen_through = _plain_colours(strip, has_alpha)
        clear |= seen_through
        if to_srgb is not None:
            strip = ImageCms.applyTransform(strip, to_srgb) or strip
        pixels[top:bottom] = np.asarray(strip.convert("RGB"))
    if clear:
        changes.append("transparency laid on white")
    picture.im = None  # type: ignore[assignment] # its memory is needed for the turn
    return Opened(turn_upright(pixels, left), tuple(changes), orientation)


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; Pillow turns nothing at any other value."""
    value = picture.getexif().get(0x0112, 1)
    return value if value in range(2, 9) else 1


def _plain_colours(strip: Image.Image, has_alpha: bool) -> tuple[Image.Image, bool]:
    """Return a part of a picture without alpha, palette and Lab, and whether white was laid under it."""
    if strip.mode in ("RGBa", "La"):
        strip = strip.convert(strip.mode.upper())
    if strip.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(strip, lab, srgb, outputMode="RGB") or strip, False
    if has_alpha:
        rgba = strip.convert("RGBA")
        clear = rgba.getchannel("A").getextrema()[0] < 255  # type: ignore[operator]
        if clear:
            rgba = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        return rgba.convert("RGB"), clear
    return (strip.convert("RGB") if strip.mode == "P" else strip), False


def _transform(profile: bytes, mode: str, changes: list[str]) -> ImageCms.ImageCmsTransform | None:
    """Return what converts colours of a profile to sRGB; None where they are sRGB, or it is unreadable."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return None
        srgb = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, srgb, mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        changes.append("unreadable colour profile ignored")
        return None
    changes.append("colours converted to sRGB")
    return transform


def _bomb() -> str:
    return f"larger than {MAX_PIXELS // 1_000_000} megapixels when unpacked: refused as a decompression bomb"


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
