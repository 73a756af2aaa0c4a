"""Label Studio's run-length encoding of brush regions, as its browser writes and reads it.

A region is an RGBA canvas of the image's size whose four channels all hold the opacity.
Its bytes, row by row, are packed as a stream of bits, the highest bit first (rle-pack of thi.ng,
https://codeberg.org/thi.ng/umbrella, packages/rle-pack):

    header  32 bits count of words, 5 bits word size - 1, four times 4 bits of a count size - 1
    token   1 bit kind, 2 bits k, as many bits as count size k says: count of words - 1, then
            kind 1, a run: the word that is repeated; kind 0, a literal: all its words

zeros up to a whole byte end it. Label Studio's words have 8 bits, its count sizes are 3, 4, 8, 16.
Its canvases are grey, so they come as runs; literals come from writers that draw in colour.

Arrays: H rows, W columns; masks (H, W) uint8 class ids, regions (H, W) bool, alpha (H, W) uint8.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ddiseg.errors import InputError
from ddiseg.masks.mask import MAX_PIXELS, Mask, check_region, check_uint8

#: A pixel is in the region if its alpha is this or more. Label Studio draws strokes antialiased: alpha is
#: the share of the pixel, in 255ths, that the brush covers; from half on the pixel is the stroke's.
ALPHA_THRESHOLD = 128

_CHANNELS = 4
_WORD_BITS = 8
_COUNT_BITS = (3, 4, 8, 16)
_COUNT_LIMITS = tuple(1 << bits for bits in _COUNT_BITS)

#: Bits of the count of words, the size of a word, and the four sizes of a count.
_HEADER_WIDTHS = (32, 5, 4, 4, 4, 4)
_HEADER_BITS = sum(_HEADER_WIDTHS)

#: Bits at the start of a token that say how long it is: its kind, k, and a count of up to 16 bits.
_HEAD_BITS = 3 + 16

#: Bits of a token with a count of 1 bit and one word; none can start nearer to the end.
_SHORTEST_TOKEN = 3 + 1 + _WORD_BITS

#: Padding behind the data, so that a head or a word that starts in its last byte can be read.
_PADDING = 3

#: Bytes that are searched for tokens at once; doing so takes about 200 times as much memory.
_CHUNK_BYTES = 1 << 15

_Positions: TypeAlias = NDArray[np.int64]
_Heads: TypeAlias = NDArray[np.integer[Any]]
_Scalar = TypeVar("_Scalar", bound=np.generic)


class _Tokens(NamedTuple):
    """The tokens of a stream in their order, (N,) each."""

    is_run: NDArray[np.bool_]
    #: Words of the canvas that the token encodes.
    counts: NDArray[np.int64]
    #: The bit at which the word of a run, or the first word of a literal, starts.
    payloads: _Positions


def encode(region: NDArray[np.bool_]) -> list[int]:
    """Encode a region, (H, W) bool: bytes as whole numbers, as Label Studio's JSON has them."""
    _check_size(check_region(region).shape)
    return _encode_runs(*_runs(region), region.size)


def encode_classes(mask: Mask, class_ids: Iterable[int]) -> dict[int, list[int]]:
    """Encode each of `class_ids` that has a pixel in `mask`; the others are left out.

    The runs of the mask are found once; those of a class are joined from them.
    """
    _check_size(check_uint8(mask).shape)
    starts, values = _runs(mask)
    regions = ((class_id, values == class_id) for class_id in class_ids)
    return {
        class_id: _encode_runs(starts, inside, mask.size)
        for class_id, inside in regions
        if inside.any()
    }


def decode(rle: Sequence[int], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode the alpha channel of an RLE, (H, W) uint8: the opacity of each pixel, 0 to 255.

    A pixel of ALPHA_THRESHOLD or more belongs to the region. Count sizes other than Label Studio's,
    literals, and zeros after the end are read as well.

    Args:
        rle: the bytes, as whole numbers in a list or tuple, or as bytes.
        size: (height, width) of the image below.

    Raises:
        InputError: not bytes, truncated or corrupt, of another size, or over MAX_PIXELS.
    """
    height, width = _check_size(size)
    data = _octets(rle)
    words = height * width * _CHANNELS
    count_bits = _read_header(data, words)
    stream = np.frombuffer(data + bytes(_PADDING), dtype=np.uint8)
    tokens = _within(_tokens(stream, count_bits), data, words)
    return _alpha(stream, tokens).reshape(height, width)


def _check_size(size: tuple[int, ...]) -> tuple[int, int]:
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise InputError(
            f"brush region has size {size!r}; it must be (height, width), both 1 or more"
        )
    height, width = size
    if height * width > MAX_PIXELS:
        raise InputError(
            f"brush region is {height} x {width} = {height * width:,} pixels, over the limit of "
            f"{MAX_PIXELS:,}; push a smaller image to Label Studio"
        )
    return height, width


def _runs(array: NDArray[_Scalar]) -> tuple[_Positions, NDArray[_Scalar]]:
    """Return the first pixel of each run of equal values, row by row, and its value."""
    flat = array.ravel()
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    return starts, flat[starts]


def _encode_runs(starts: _Positions, inside: NDArray[np.bool_], pixels: int) -> list[int]:
    """Encode a region from runs of pixels; neighbours alike, inside or outside, are joined."""
    firsts = np.concatenate(([0], np.flatnonzero(inside[1:] != inside[:-1]) + 1))
    counts, filled = _split(_CHANNELS * np.diff(starts[firsts], append=pixels), inside[firsts])
    k = np.searchsorted(_COUNT_LIMITS, counts)
    count_bits = np.array(_COUNT_BITS)[k]
    tokens = ((4 | k) << count_bits | (counts - 1)) << _WORD_BITS | 255 * filled
    header = (_CHANNELS * pixels, _WORD_BITS - 1, *(bits - 1 for bits in _COUNT_BITS))
    codes = np.concatenate((header, tokens)).astype(np.uint64)
    return list(_pack(codes, np.concatenate((_HEADER_WIDTHS, 3 + count_bits + _WORD_BITS))))


def _split(
    counts: NDArray[np.int64], values: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return runs of which none is longer than a token can say; the last part of a run has the rest."""
    most = _COUNT_LIMITS[-1]
    parts = -(-counts // most)
    split = np.full(parts.sum(), most)
    split[np.cumsum(parts) - 1] = counts - (parts - 1) * most
    return split, np.repeat(values, parts)


def _pack(codes: NDArray[np.uint64], widths: NDArray[np.int64]) -> bytes:
    """Return the lowest `widths` bits, 1 to 32, of each of `codes`, one after the other."""
    ends = np.cumsum(widths)
    starts = ends - widths
    # A code lies in two neighbours of 32 bits; codes share no bit, so that adding joins them.
    aligned = codes << (64 - widths - starts % 32).astype(np.uint64)
    packed = np.zeros(ends[-1] // 32 + 2, dtype=np.uint64)
    np.add.at(packed, starts // 32, aligned >> np.uint64(32))
    np.add.at(packed, starts // 32 + 1, aligned & np.uint64(0xFFFFFFFF))
    return packed.astype(">u4").tobytes()[: -(-int(ends[-1]) // 8)]


def _octets(rle: Sequence[int]) -> bytes:
    if isinstance(rle, list | tuple | bytes):
        try:
            return bytes(rle)
        except (TypeError, ValueError) as error:
            trouble = str(error)
    else:
        trouble = f"it is of type {type(rle).__name__}"
    raise InputError(
        f"brush RLE is not a list of whole numbers from 0 to 255 ({trouble}); "
        "export the annotation again"
    )


def _read_header(data: bytes, words: int) -> tuple[int, ...]:
    """Return the bits of each of the four count sizes."""
    if 8 * len(data) < _HEADER_BITS + _SHORTEST_TOKEN:
        raise _broken(data, "it stops before its first word")
    header = int.from_bytes(data[:8], "big") >> (64 - _HEADER_BITS)
    given_words = header >> 21
    word_bits = (header >> 16 & 31) + 1
    if word_bits != _WORD_BITS:
        raise InputError(
            f"brush RLE has words of {word_bits} bits, Label Studio's have {_WORD_BITS}; "
            "it is corrupt or of another program, submit the annotation again"
        )
    if given_words != words:
        raise InputError(
            f"brush RLE holds {given_words:,} words, but its image has {words:,}, "
            f"{_CHANNELS} a pixel; it belongs to an image of another size, or is corrupt"
        )
    return tuple((header >> shift & 15) + 1 for shift in (12, 8, 4, 0))


def _tokens(stream: NDArray[np.uint8], count_bits: tuple[int, ...]) -> _Tokens:
    """Return the tokens from the header to the end of the data, padding read as tokens included."""
    position, end = _HEADER_BITS, 8 * (stream.size - _PADDING)
    chunks = []
    while position + _SHORTEST_TOKEN <= end:
        first = position // 8
        heads = _heads(stream[first : first + _CHUNK_BYTES + 3])
        lengths = _token_lengths(count_bits).take(heads)
        walked = _walk(lengths, position - 8 * first)
        chunks.append((walked + 8 * first, heads[walked]))
        position = int(8 * first + walked[-1] + lengths[walked[-1]])
    starts, heads = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    is_run, sizes, counts = _read_heads(heads, count_bits)
    return _Tokens(is_run, counts, starts + 3 + sizes)


def _heads(octets: NDArray[np.uint8]) -> _Heads:
    """The head of the token that would start at each bit of all bytes but the last three."""
    wide = octets.astype(np.uint32)
    windows = wide[:-3] << 24 | wide[1:-2] << 16 | wide[2:-1] << 8 | wide[3:]
    shifts = np.arange(32 - _HEAD_BITS, 32 - _HEAD_BITS - 8, -1, dtype=np.uint32)
    heads = np.repeat(windows, 8)
    heads >>= np.tile(shifts, windows.size)
    heads &= (1 << _HEAD_BITS) - 1
    return heads


def _read_heads(
    heads: _Heads, count_bits: tuple[int, ...]
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """What heads, 1 bit kind, 2 bits k and 16 bits, say: is it a run, its count's size, its count."""
    sizes = np.array(count_bits)[heads >> 16 & 3]
    return heads >> 18 == 1, sizes, ((heads & 0xFFFF) >> (16 - sizes)) + 1


@lru_cache(maxsize=4)
def _token_lengths(count_bits: tuple[int, ...]) -> NDArray[np.int32]:
    """The bits of a token by its head."""
    is_run, sizes, counts = _read_heads(np.arange(1 << _HEAD_BITS), count_bits)
    return np.asarray(3 + sizes + _WORD_BITS * np.where(is_run, 1, counts), dtype=np.int32)


def _walk(lengths: NDArray[np.int32], start: int) -> _Positions:
    """`start` and the positions that steps of `lengths` lead to from there, without the last bit.

    Each step needs the one before. A search in the graph where every position has one edge, to
    where its step ends, does the same, and SciPy's is compiled.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order

    edges = np.arange(lengths.size + 1, dtype=np.int32)
    ends = edges[:-1] + lengths
    np.minimum(ends, lengths.size - 1, out=ends)  # steps that leave the array end in its last bit
    # SciPy wants weights in float64, though this search uses none: one number for all.
    graph = csr_array((np.broadcast_to(1.0, ends.size), ends, edges), shape=(ends.size, ends.size))
    walked = breadth_first_order(graph, start, return_predecessors=False)[:-1]
    return np.asarray(walked, dtype=np.int64)


def _within(tokens: _Tokens, data: bytes, words: int) -> _Tokens:
    """The tokens that make up the `words` of the canvas, checked to fill it; padding is left out."""
    covered = np.cumsum(tokens.counts)
    last = int(np.searchsorted(covered, words))
    if last == covered.size:
        raise _broken(data, f"it stops after {covered[-1]:,} of {words:,} words")
    if covered[last] != words:
        raise _broken(data, f"a token leads to word {covered[last]:,} of {words:,}")
    payload_words = 1 if tokens.is_run[last] else int(tokens.counts[last])
    end = int(tokens.payloads[last]) + _WORD_BITS * payload_words
    rest = 8 * len(data) - end
    if rest < 0:
        raise _broken(data, f"it stops {-rest} bits before the end of its last word")
    if int.from_bytes(data[end // 8 :], "big") & ((1 << rest) - 1):
        raise _broken(data, f"{rest} bits that are not all zero follow its last word")
    used = slice(last + 1)
    return _Tokens(tokens.is_run[used], tokens.counts[used], tokens.payloads[used])


def _alpha(stream: NDArray[np.uint8], tokens: _Tokens) -> NDArray[np.uint8]:
    """(H * W,): every fourth word."""
    covered = np.cumsum(tokens.counts)
    pixels = np.diff(covered // _CHANNELS, prepend=0)
    alpha = np.repeat(_octets_at(stream, tokens.payloads), pixels)
    literal = ~tokens.is_run
    if literal.any():
        where = np.flatnonzero(np.repeat(literal, pixels))
        # Where the canvas's first word would lie if the literal reached back to it.
        origins = tokens.payloads - _WORD_BITS * (covered - tokens.counts)
        bits = np.repeat(origins[literal], pixels[literal])
        bits += _WORD_BITS * (_CHANNELS * where + _CHANNELS - 1)
        alpha[where] = _octets_at(stream, bits)
    return alpha


def _octets_at(stream: NDArray[np.uint8], positions: _Positions) -> NDArray[np.uint8]:
    """The eight bits from each position of the stream."""
    first = positions // 8
    pairs = stream[first].astype(np.uint16) << 8 | stream[first + 1]
    return (pairs >> (8 - positions % 8).astype(np.uint16)).astype(np.uint8)


def _broken(data: bytes, trouble: str) -> InputError:
    return InputError(
        f"brush RLE of {len(data):,} bytes is truncated or corrupt ({trouble}); "
        "submit the annotation again"
    )
