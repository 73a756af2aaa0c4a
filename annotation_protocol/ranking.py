"""A random order that a seed decides, the same on every machine and in every version of Python."""

from __future__ import annotations

import hashlib


def seeded_rank(*key: object) -> str:
    """Return what to sort by where chance is to decide.

    Args:
        key: the seed and what names the thing, such as a content hash: no row number, which differs
            between catalogues.
    """
    return hashlib.sha256(" ".join([f"{part}" for part in key]).encode()).hexdigest()
