"""Files of the store, read and compared with the hash that they are named by.

Whatever trains, predicts, pushes or exports reads through here, so that a damaged or exchanged file
is refused and never used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import load_protocol
from ddiseg import images, masks
from ddiseg.errors import DamagedFileError, InputError, MissingFileError, WorkspaceError
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


class Condition(Enum):
    """What became of a file that the catalogue names."""

    INTACT = "intact"
    MISSING = "missing"  #: or empty
    DAMAGED = "damaged"


def read_photograph(store: Store, digest: str) -> images.Photograph:
    """Return the pixels of a stored photograph, (H, W, 3) uint8.

    The hash takes about a twentieth of the time that decoding takes, so every read is checked.

    Raises:
        MissingFileError, DamagedFileError: the message says what to do; the caller names the file.
    """
    return _decoded(store, Kind.IMAGE, digest, decode_photograph)[1]


def read_original(path: Path, digest: str) -> images.Photograph:
    """Return the pixels of a photograph that was imported in place, (H, W, 3) uint8.

    Raises:
        WorkspaceError: it can't be read; the caller names the photograph.
        InputError: it shows something else than it did.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WorkspaceError(
            f"{path} can't be read ({error.strerror}); it was imported --in-place"
        ) from error
    pixels = images.open_photograph(data).pixels
    if images.content_hash(pixels) != digest:
        raise InputError(f"{path} was changed after it was imported --in-place")
    return pixels


def read_photograph_png(store: Store, digest: str) -> bytes:
    """Return a stored photograph as the PNG that it is; checked, and raises, as by `read_photograph`."""
    return _decoded(store, Kind.IMAGE, digest, decode_photograph)[0]


def read_mask(store: Store, digest: str) -> masks.Mask:
    """Return a stored mask, (h, w) uint8 class ids; raises as `read_photograph` does."""
    return _decoded(store, Kind.MASK, digest, decode_mask)[1]


def decode_photograph(data: bytes, digest: str) -> images.Photograph:
    """Return the pixels of a stored file; raises InputError where they are not those of `digest`."""
    _refuse_empty(data)
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
    _refuse_empty(data)
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
    return condition(store, kind, digest) is Condition.INTACT


def condition(store: Store, kind: Kind, digest: str) -> Condition:
    """Return the condition of a file in the store itself, by one request to a remote one.

    Raises:
        OccupiedError, WorkspaceError: as by `Store.get`.
    """
    if not (data := store.fetch(kind, digest)):
        return Condition.MISSING
    return Condition.INTACT if matches(kind, data, digest) else Condition.DAMAGED


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


def _refuse_empty(data: bytes) -> None:
    if not data:
        raise InputError("is empty")


def _decoded(
    store: Store, kind: Kind, digest: str, decode: Callable[[bytes, str], NDArray[np.uint8]]
) -> tuple[bytes, NDArray[np.uint8]]:
    """Return the bytes of a stored file and what is in them.

    What arrives damaged from another machine, or lies damaged in the cache, is read once more.
    """
    for fresh in (False, True):
        try:
            data = store.get(kind, digest, fresh=fresh)
        except MissingFileError as error:
            raise MissingFileError(f"the stored file is missing; {REMEDIES[kind]}") from error
        try:
            return data, decode(data, digest)
        except InputError as error:
            if fresh or store.local:
                raise DamagedFileError(f"the stored file {error}; {REMEDIES[kind]}") from error
    raise AssertionError("a file was read twice")
