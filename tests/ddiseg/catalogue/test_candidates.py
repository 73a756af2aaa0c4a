"""Candidates of a draw: all of them, whatever the size of the parts they are read in."""

from __future__ import annotations

import numpy as np
import pytest

from ddiseg.catalogue import Catalogue, State, database
from tests.ddiseg.rows import new_image


@pytest.fixture
def four(catalogue: Catalogue) -> Catalogue:
    """Images #1 to #4 of two datasets: malignant, benign, not known, not known."""
    for name, numbers in (("a", (1, 2)), ("b", (3, 4))):
        dataset = catalogue.images.dataset(name)
        rows = [new_image(n, tone="V-VI", malignant={1: True, 2: False}.get(n)) for n in numbers]
        catalogue.images.add(dataset.id, rows, "tester")
    return catalogue


@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_of_tones__no_image_is_lost_between_parts(
    four: Catalogue, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(database, "_ROWS_OF_A_PART", rows)
    parts = list(four.candidates.of_tones(["V-VI"]))
    assert len(parts) == -(-4 // rows)
    assert sorted(np.concatenate([part.ids for part in parts]).tolist()) == [1, 2, 3, 4]
    hashes = {
        i: name for part in parts for i, name in zip(part.ids, part.content_hashes, strict=True)
    }
    assert hashes == {image.id: image.content_hash for image in four.images.select()}


def test_of_tones__unknown_values_are_minus_one(four: Catalogue) -> None:
    (part,) = four.candidates.of_tones(["V-VI"], states=(State.NEW,))
    assert part.malignant[np.argsort(part.ids)].tolist() == [1, 0, -1, -1]
    of_image = {image.id: image for image in four.images.select()}
    for position, image_id in enumerate(part.ids.tolist()):
        image = of_image[image_id]
        near_group = -1 if image.near_group is None else image.near_group
        assert part.near_groups[position] == near_group
        assert part.groups[position] == image_id


def test_where__columns_stay_together(four: Catalogue) -> None:
    (part,) = four.candidates.of_tones(["V-VI"])
    kept = part.where(part.ids > 2)
    assert kept.ids.tolist() == [3, 4]
    assert list(kept.content_hashes) == list(part.content_hashes)[2:]
    assert list(kept.tones) == ["V-VI", "V-VI"]


def test_counts__over_all_datasets(four: Catalogue) -> None:
    assert four.candidates.counts() == {("V-VI", "new"): 4}
