"""A batch of 100 out of 100,000 images with predictions: goal under 2 s, with any strategy.

The rows are made up: three tones, two images a patient, 2,000 of them accepted, random
uncertainties, embeddings of 320 numbers with falling variance as in real ones. The time is that of
the whole draw with all its queries, from a newly opened catalogue. The peer reads the same images
as SQLAlchemy objects and takes the 100 most uncertain, without regard to patient or tone.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np
from sqlalchemy import insert

from benchmarks.timing import seconds
from ddiseg.catalogue import Catalogue
from ddiseg.catalogue.database import Database
from ddiseg.catalogue.embeddings import embedding_space
from ddiseg.catalogue.tables import Base, Dataset, Embedding, Image, Mask, ModelVersion, Promotion
from ddiseg.sampling.batches import BatchRequest, draw_batch
from ddiseg.sampling.strategies import Strategy

IMAGES, ACCEPTED, SIZE, DIMENSIONS, ROUNDS = 100_000, 2_000, 100, 320, 3

TONES = ("I-II", "III-IV", "V-VI")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder, 'catalogue.sqlite')}"
        Catalogue.create(url).close()
        _fill(url)
        peer = min(seconds(lambda: _most_uncertain(url)) for _ in range(ROUNDS))
        print(
            f"{SIZE} out of {IMAGES:,} images, {ACCEPTED:,} of them accepted, {DIMENSIONS} numbers "
            f"an embedding, seed 0; the fastest of {ROUNDS} rounds; peer {peer:.2f} s"
        )
        for strategy in Strategy:
            ours = min(_draw(url, strategy, number) for number in range(ROUNDS))
            print(f"{strategy:<12} {ours:.2f} s, {ours / peer:.2f} x the peer's time")


def _draw(url: str, strategy: Strategy, number: int) -> float:
    catalogue = Catalogue.open(url)
    name = f"{strategy}-{number}"
    request = BatchRequest(SIZE, strategy)
    spent = seconds(lambda: draw_batch(catalogue, name, request, "benchmark"))
    assert len(catalogue.batches.members(name)) == SIZE
    catalogue.batches.close(name, "benchmark")
    catalogue.close()
    return spent


def _most_uncertain(url: str) -> None:
    catalogue = Catalogue.open(url)
    images = {image.id: image for image in catalogue.images.select()}
    masks = catalogue.masks.newest_predictions()
    order = sorted(masks.values(), key=lambda mask: -(mask.uncertainty or 0))
    assert len([images[mask.image_id] for mask in order[:SIZE]]) == SIZE
    catalogue.close()


def _fill(url: str) -> None:
    rng = np.random.default_rng(0)
    numbers = range(1, IMAGES + 1)
    digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in numbers]
    scale = np.geomspace(1, 0.01, DIMENSIONS)
    vectors = (rng.normal(size=(IMAGES, DIMENSIONS)) * scale).astype("<f4")
    common = {"width": 600, "height": 450}
    version = {"settings": {}, "training_masks": [], "metrics": {}, "protocol_version": "1.0"}
    rows: dict[type[Base], list[dict[str, object]]] = {
        Dataset: [{"id": 1, "name": "made up"}],
        Image: [
            {
                "id": number,
                "dataset_id": 1,
                "name": f"{number:06d}.png",
                "content_hash": digest,
                "perceptual_hash": digest[:16],
                "near_group": number,
                "tone": TONES[number % 3],
                "patient": f"patient {number // 2}",
                "state": "accepted" if number <= ACCEPTED else "prelabelled",
                **common,
            }
            for number, digest in zip(numbers, digests, strict=True)
        ],
        ModelVersion: [
            {"id": 1, "name": "fedd-1", "file_hash": "", "backbone": "small", **version}
            | {"backbone_hash": "b"}
        ],
        Promotion: [{"model_version_id": 1, "actor": "benchmark", "why": "", "forced": False}],
        Mask: [
            {
                "image_id": number,
                "content_hash": digest,
                "mapping": "same",
                "classes": [1, 4],
                "model_version_id": 1,
                "protocol_version": "1.0",
                "uncertainty": float(uncertainty),
                **common,
            }
            for number, digest, uncertainty in zip(
                numbers, digests, rng.random(IMAGES), strict=True
            )
        ],
        Embedding: [
            {"image_id": number, "space": embedding_space("b", {}), "vector": vector.tobytes()}
            for number, vector in zip(numbers, vectors, strict=True)
        ],
    }
    database = Database(url)
    with database.write() as session:
        for table, values in rows.items():
            session.execute(insert(table), values)
    database.engine.dispose()


if __name__ == "__main__":
    main()
