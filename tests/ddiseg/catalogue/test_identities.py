"""Streams and look-ups against what a reader of whole tables finds, on small random catalogues."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ddiseg.catalogue import Catalogue
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.release.conftest import Builder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def random_catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """20 images of 3 tones; masks by people and a model, some with the same pixels; reviews; skips."""
    root: Path = tmp_path_factory.mktemp("random")
    builder = Builder(Workspace.create(root / "w"))
    rng = np.random.default_rng(3)
    tones = ["I-II", "V-VI", "unknown"]
    for number in range(20):
        details = {"tone": str(rng.choice(tones)), "diagnosis": rng.choice(["nevus", None, "scc"])}
        image = builder.image(f"{number}.png", patient=f"p{number % 4}", **details)
        mask = np.full((12, 10), rng.integers(0, 3), np.uint8)
        if rng.random() < 0.4:
            builder.prediction(image, mask)
        if rng.random() < 0.5:
            builder.fixed(image, mask, mask + 1)
        elif rng.random() < 0.5:
            reason = builder.workspace.catalogue.images.skip(
                image, "other", "n", f"skipper-{number}"
            )
            assert reason
            if rng.random() < 0.5:
                builder.workspace.catalogue.images.reopen(image, "boss")
    return builder.workspace.catalogue


def test_people__everybody_of_masks_reviews_and_open_skips(random_catalogue: Catalogue) -> None:
    masks = random_catalogue.masks.all()
    reviews = random_catalogue.masks.reviews([mask.id for mask in masks])
    assert random_catalogue.identities.people() == {
        *(mask.annotator for mask in masks if mask.annotator is not None),
        *(review.reviewer for review in reviews),
        *(skip.annotator for skip in random_catalogue.images.skips()),
    }


def test_images_and_moments__are_those_of_the_rows(random_catalogue: Catalogue) -> None:
    images, masks = random_catalogue.images.select(), random_catalogue.masks.all()
    streamed = list(random_catalogue.identities.images())
    assert [tuple(each) for each in streamed] == [
        (i.dataset_id, i.content_hash, i.name, i.patient, i.lesion, i.created_at) for i in images
    ]
    reviews = random_catalogue.masks.reviews([mask.id for mask in masks])
    moments = sorted([*(m.created_at for m in masks), *(r.created_at for r in reviews)])
    assert sorted(random_catalogue.identities.moments()) == moments
    assert set(random_catalogue.identities.diagnoses()) == {i.diagnosis for i in images} - {None}


def test_tones__by_hash(random_catalogue: Catalogue) -> None:
    images = {image.id: image for image in random_catalogue.images.select()}
    tones: dict[str, str] = {}
    for mask in random_catalogue.masks.all():
        tone = images[mask.image_id].tone
        if tones.setdefault(mask.content_hash, tone) != tone:
            tones[mask.content_hash] = "unknown"
    assert random_catalogue.hashes.tones_of_masks([*tones, "none"]) == tones
    by_hash = {image.content_hash: image.tone for image in images.values()}
    some = list(by_hash)[::3]
    assert random_catalogue.hashes.tones_of_images(some) == {d: by_hash[d] for d in some}
    ids = {image.id for image in images.values() if image.content_hash in some}
    assert random_catalogue.hashes.image_ids(some) == ids


def test_images_of_tone__in_the_order_of_their_hashes(
    random_catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddiseg.catalogue.hashes._PAGE", 2)
    for tone in ("I-II", "III-IV", "V-VI"):
        of_tone = [i for i in random_catalogue.images.select() if i.tone == tone]
        expected = [i.id for i in sorted(of_tone, key=lambda i: i.content_hash)]
        assert [i.id for i in random_catalogue.hashes.images_of_tone(tone)] == expected


def test_last_reviews__of_some_images(random_catalogue: Catalogue) -> None:
    masks = {mask.id: mask for mask in random_catalogue.masks.all()}
    newest: dict[int, int] = {}
    for review in random_catalogue.masks.reviews(list(masks)):
        image_id = masks[review.mask_id].image_id
        newest[image_id] = max(review.id, newest.get(image_id, 0))
    some = [image_id for image_id in range(1, 21) if image_id % 3]
    found = random_catalogue.masks.last_reviews(some)
    assert {i: review.id for i, review in found.items()} == {
        i: number for i, number in newest.items() if i in some
    }
