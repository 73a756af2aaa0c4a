"""A random order that a seed decides, the same on every machine and in every version of Python."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def seeded_rank(*key: object) -> str:
    """Return what to sort by where chance is to decide.

    Args:
        key: the seed and what names the thing, such as a content hash: no row number, which differs
            between catalogues.
    """
    return hashlib.sha256(" ".join([f"{part}" for part in key]).encode()).hexdigest()


def first_bits(seed: int, names: Iterable[str]) -> NDArray[np.int64]:
    """Return the first 60 bits of `seeded_rank(seed, name)` of each name, (N,)."""
    sha256, begin = hashlib.sha256, f"{seed} "
    digests = b"".join([sha256((begin + name).encode()).digest() for name in names])
    words = np.frombuffer(digests, ">u8").reshape(-1, 4)  # 256 bits each
    return (words[:, 0] >> np.uint64(4)).astype(np.int64)
