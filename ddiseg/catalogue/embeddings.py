"""Embeddings: pooled activations of a backbone, for sampling batches of images that differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from ddiseg.catalogue.database import Repository, in_parts, number_columns, plain_parts, scalars_in
from ddiseg.catalogue.tables import Embedding

#: How a vector is stored.
_STORED = np.dtype("<f4")


class Embeddings(Repository):
    """The embeddings of a catalogue's images."""

    def add(self, space: str, vectors: Mapping[int, NDArray[np.float32]]) -> None:
        """Store vectors (D,) by image id; an image that has one in this space keeps it."""
        with self._database.write(vectors) as session:
            store_embeddings(session, space, vectors)

    def of(self, space: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the ids (N,) of images with an embedding in this space, and the vectors (N, D)."""
        query = select(Embedding.image_id, Embedding.vector).where(Embedding.space == space)
        rows = self._rows(query.order_by(Embedding.image_id))
        ids = np.array([image_id for image_id, _ in rows], np.int64)
        joined = np.frombuffer(b"".join(vector for _, vector in rows), _STORED)
        return ids, joined.reshape(len(rows), -1 if rows else 0).astype(np.float32, copy=False)

    def known(self, space: str) -> NDArray[np.int64]:
        """Return the ids (N,) of images with an embedding in this space, ascending."""
        query = select(Embedding.image_id).where(Embedding.space == space)
        with self._database.read() as session:
            (found,) = number_columns(session, query)
        return np.sort(found.astype(np.int64))

    def vectors(self, space: str, image_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of images that have one in this space, (n, D), in the order of `image_ids`."""
        query = select(Embedding.image_id, Embedding.vector).where(Embedding.space == space)
        rows: dict[int, bytes] = {}
        with self._database.read() as session:
            for part in in_parts(image_ids.tolist()):
                for found in plain_parts(session, query.where(Embedding.image_id.in_(part))):
                    rows.update((image_id, vector) for image_id, vector in found)
        joined = b"".join(rows[image_id] for image_id in image_ids.tolist())
        vectors = np.frombuffer(joined, _STORED).reshape(len(image_ids), -1 if rows else 0)
        return vectors.astype(np.float32, copy=False)


def store_embeddings(
    session: Session, space: str, vectors: Mapping[int, NDArray[np.float32]]
) -> None:
    """Store vectors as `Embeddings.add` does, in the caller's transaction."""
    query = select(Embedding.image_id).where(Embedding.space == space)
    stored = set(scalars_in(session, query, Embedding.image_id, vectors))
    rows = [
        {"image_id": image_id, "space": space, "vector": np.asarray(vector, _STORED).tobytes()}
        for image_id, vector in vectors.items()
        if image_id not in stored
    ]
    if rows:
        session.execute(insert(Embedding), rows)


def embedding_space(backbone_hash: str, settings: Mapping[str, Any]) -> str:
    """Return the name of the space of embeddings: 64 hex digits of a backbone and of what is read of it.

    Only embeddings of one space can be compared. It stays the same whatever probes are trained since.

    Args:
        settings: of the probes, as a model version keeps them (`ProbeSettings.to_dict`).
    """
    made_by = {"backbone": backbone_hash, "features": settings.get("features")}
    return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()
