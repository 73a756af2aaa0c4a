"""The batches that rounds draw: their names, and which images are predicted before a draw."""

from __future__ import annotations

import itertools
from collections.abc import Collection

from ddiseg.catalogue import Catalogue
from ddiseg.catalogue.tables import Image
from ddiseg.sampling.pool import BatchPool
from ddiseg.sampling.quotas import share_out

#: A draw judges at most so many times the images that it takes: of a large catalogue, painting all
#: that may be drawn would take longer than people take to label the batch.
JUDGED = 20

_NAME = "auto-"


def next_name(taken: Collection[str]) -> str:
    """Return the first name for a batch of a round that is free."""
    names = (f"{_NAME}{number}" for number in itertools.count(1))
    return next(name for name in names if name not in taken)


def images_to_score(catalogue: Catalogue, size: int, seed: int) -> list[Image]:
    """The images among which a draw of `size` chooses.

    All that may be drawn, or JUDGED times `size` of them, as many of each tone, by seed. A draw takes
    what is not painted only after all that is, so these are what it judges once they are painted.
    """
    pool = BatchPool.read(catalogue, None, (), size, seed, described=False)
    room = {tone: len(positions) for tone, positions in pool.candidates.items()}
    shares = share_out(JUDGED * size, room, seed)
    ids = [
        pool.rows[position].id
        for tone, positions in pool.candidates.items()
        for position in positions[: shares[tone]]
    ]
    return list(catalogue.images.select(ids=ids)) if ids else []
