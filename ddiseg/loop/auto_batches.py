"""Batches of rounds: their names, and the candidates that are predicted first."""

from __future__ import annotations

import itertools
from collections.abc import Collection

from ddiseg.catalogue import Catalogue
from ddiseg.catalogue.tables import Image
from ddiseg.sampling.pool import BatchPool
from ddiseg.sampling.quotas import share_out

#: Candidates per image of a batch: in a large catalogue, predicting all of them would take longer
#: than labelling the batch.
CANDIDATES = 20


def next_name(taken: Collection[str]) -> str:
    """Return the first free name for a batch of a round."""
    names = (f"auto-{number}" for number in itertools.count(1))
    return next(name for name in names if name not in taken)


def images_to_score(catalogue: Catalogue, size: int, seed: int) -> list[Image]:
    """Return the images to predict before a batch of `size` is selected.

    All that may be selected, or CANDIDATES times `size` of them, equally many of each tone, by seed.
    Predicted images are preferred, so the batch is chosen among these once they are predicted.
    """
    pool = BatchPool.read(catalogue, None, (), size, seed, with_embeddings=False)
    room = {tone: len(positions) for tone, positions in pool.candidates.items()}
    quotas = share_out(CANDIDATES * size, room, seed)
    ids = [
        image_id
        for tone, positions in pool.candidates.items()
        for image_id in pool.ids[positions[: quotas[tone]]].tolist()
    ]
    return list(catalogue.images.select(ids=ids)) if ids else []
