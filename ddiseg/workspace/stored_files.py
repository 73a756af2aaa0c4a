"""Files of the store, read and compared with the hash that they are named by.

Whatever trains, predicts, pushes or exports reads through here, so that a damaged or exchanged file
is refused and never used.
"""

from __future__ import annotations

import hashlib

from annotation_protocol import load_protocol
from ddiseg import images, masks
from ddiseg.errors import DamagedFileError, InputError, MissingFileError
from ddiseg.pixel_budget import BUDGET
from ddiseg.workspace.store import Kind, Store

#: What puts a photograph, a mask or a model back.
REMEDIES = {
    Kind.IMAGE: "import the original again, or run 'ddiseg verify --repair'",
    Kind.MASK: "run 'ddiseg verify --repair --originals FOLDER' with a copy of the store, or import "
    "the mask again",
    Kind.MODEL: "run 'ddiseg verify --repair --originals FOLDER' with a copy of the store, or train "
    "anew",
}


def read_photograph(store: Store, digest: str) -> images.Photograph:
    """Return the pixels of a stored photograph, (H, W, 3) uint8.

    The hash takes about a twentieth of the time that decoding takes, so every read is checked.

    Raises:
        MissingFileError, DamagedFileError: the message says what to do; the caller names the file.
    """
    data = _read(store, Kind.IMAGE, digest)
    try:
        return decode_photograph(data, digest)
    except InputError as error:
        raise _damaged(Kind.IMAGE, error) from error


def read_mask(store: Store, digest: str) -> masks.Mask:
    """Return a stored mask, (h, w) uint8 class ids; raises as `read_photograph` does."""
    data = _read(store, Kind.MASK, digest)
    try:
        return decode_mask(data, digest)
    except InputError as error:
        raise _damaged(Kind.MASK, error) from error


def decode_photograph(data: bytes, digest: str) -> images.Photograph:
    """Return the pixels of a stored file; raises InputError where they are not those of `digest`."""
    try:
        with BUDGET.hold(images.pixels_in(data)):
            pixels = images.open_photograph(data).pixels
    except InputError as error:
        raise InputError(f"is {error}") from error
    if images.content_hash(pixels) != digest:
        raise InputError("shows other pixels")
    return pixels


def decode_mask(data: bytes, digest: str) -> masks.Mask:
    """Return the mask in a stored file; raises InputError where it is not that of `digest`."""
    try:
        mask = masks.check_mask(
            masks.decode_png(data), len(load_protocol().classes), unlabelled=True
        )
    except InputError as error:
        raise InputError(f"is damaged ({error})") from error
    if masks.mask_hash(mask) != digest:
        raise InputError("holds other pixels")
    return mask


def is_intact(store: Store, kind: Kind, digest: str) -> bool:
    """Return whether a file is stored and its content is that of `digest`."""
    return store.exists(kind, digest) and matches(kind, store.get(kind, digest), digest)


def matches(kind: Kind, data: bytes, digest: str) -> bool:
    """Return whether `data` is a file of the store with this hash."""
    try:
        if kind is Kind.IMAGE:
            decode_photograph(data, digest)
        elif kind is Kind.MASK:
            decode_mask(data, digest)
        else:
            return hashlib.sha256(data).hexdigest() == digest
    except InputError:
        return False
    return True


def _damaged(kind: Kind, reason: object) -> DamagedFileError:
    return DamagedFileError(f"the stored file {reason}; {REMEDIES[kind]}")


def _read(store: Store, kind: Kind, digest: str) -> bytes:
    try:
        return store.get(kind, digest)
    except MissingFileError as error:
        raise MissingFileError(f"the stored file is missing; {REMEDIES[kind]}") from error
