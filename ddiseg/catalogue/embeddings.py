"""How backbones see the images: pooled activations, for drawing batches of images that differ."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert, select

from ddiseg.catalogue.database import Database, in_parts
from ddiseg.catalogue.tables import Embedding

#: How a vector is stored.
_STORED = np.dtype("<f4")


class Embeddings:
    """The descriptors of a catalogue's images. Each method is one transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, space: str, vectors: Mapping[int, NDArray[np.float32]]) -> None:
        """Vectors (D,) by image id; an image that has one in this space keeps it."""
        with self._database.write() as session:
            there: set[int] = set()
            for part in in_parts(vectors):
                query = select(Embedding.image_id).where(Embedding.image_id.in_(part))
                there |= set(session.scalars(query.where(Embedding.space == space)))
            rows = [
                {
                    "image_id": image_id,
                    "space": space,
                    "vector": np.asarray(vector, _STORED).tobytes(),
                }
                for image_id, vector in vectors.items()
                if image_id not in there
            ]
            if rows:
                session.execute(insert(Embedding), rows)

    def of(self, space: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids (N,) of the images that have one in this space, and their vectors (N, D)."""
        query = select(Embedding.image_id, Embedding.vector).where(Embedding.space == space)
        with self._database.read() as session:
            rows = session.execute(query.order_by(Embedding.image_id)).all()
        ids = np.array([image_id for image_id, _ in rows], np.int64)
        joined = np.frombuffer(b"".join(vector for _, vector in rows), _STORED)
        return ids, joined.reshape(len(rows), -1 if rows else 0).astype(np.float32, copy=False)
