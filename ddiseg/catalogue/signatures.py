"""Signatures of thumbnails in blocks, so that an import reads those of a million images at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from ddiseg.catalogue.tables import SignatureBlock, Thumbnail

#: Image ids of one block: 74 KB are written again for each batch of an import.
BLOCK = 1024

#: Numbers of a signature, see `ddiseg.near_duplicates`.
LENGTH = 72

_PLACE = np.dtype("<u2")


def packed(signatures: Mapping[int, bytes]) -> tuple[bytes, bytes]:
    """Return the places and the signatures of images of one block, by image id, as they are stored."""
    ids = sorted(signatures)
    places = np.array(ids, np.int64) % BLOCK
    return places.astype(_PLACE).tobytes(), b"".join(signatures[image_id] for image_id in ids)


def unpacked(
    number: int, places: bytes, signatures: bytes
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return the image ids (n,) of a block, ascending, and their signatures (n, 72)."""
    ids = np.frombuffer(places, _PLACE).astype(np.int64) + number * BLOCK
    return ids, np.frombuffer(signatures, np.uint8).reshape(len(ids), LENGTH)


def store_thumbnails(session: Session, thumbnails: Mapping[int, tuple[bytes, bytes]]) -> None:
    """Store the (signature, pixels) of images without a thumbnail, by image id, in the caller's transaction."""
    if not thumbnails:
        return
    rows = [
        {"image_id": image_id, "signature": signature, "pixels": pixels}
        for image_id, (signature, pixels) in thumbnails.items()
    ]
    session.execute(insert(Thumbnail), rows)
    _store_signatures(session, {i: signature for i, (signature, _) in thumbnails.items()})


def _store_signatures(session: Session, signatures: Mapping[int, bytes]) -> None:
    by_block: dict[int, dict[int, bytes]] = {}
    for image_id, signature in signatures.items():
        by_block.setdefault(image_id // BLOCK, {})[image_id] = signature
    for number, new in sorted(by_block.items()):
        query = select(SignatureBlock).where(SignatureBlock.id == number).with_for_update()
        block = session.scalars(query).first()
        if block is None:
            block = SignatureBlock(id=number)
            session.add(block)
            stored: dict[int, bytes] = {}
        else:
            ids, found = unpacked(block.id, block.places, block.signatures)
            stored = {i: row.tobytes() for i, row in zip(ids.tolist(), found, strict=True)}
        block.places, block.signatures = packed(stored | new)
    session.flush()
