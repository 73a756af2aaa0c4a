"""PNG files made from filtered rows (PNG specification, https://www.w3.org/TR/png-3/)."""

from __future__ import annotations

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def make_png(
    size: tuple[int, int], colour_type: int, compressed_rows: bytes, palette: bytes = b""
) -> bytes:
    """Return a PNG of 8 bits a channel that holds pixels and nothing else.

    Args:
        size: (height, width).
        colour_type: 2 for RGB, 3 for palette indices.
        compressed_rows: The rows, each after the byte of its filter, as one zlib stream.
        palette: Red, green and blue of each index.
    """
    height, width = size
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)),
        *([(b"PLTE", palette)] if palette else []),
        (b"IDAT", compressed_rows),
        (b"IEND", b""),
    ]
    return SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
