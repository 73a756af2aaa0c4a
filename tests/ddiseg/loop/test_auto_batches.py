"""Batches of rounds: names, and what is predicted before one is selected."""

from __future__ import annotations

import pytest

from ddiseg.loop import auto_batches
from ddiseg.loop.auto_batches import images_to_score, next_name
from ddiseg.sampling.batches import BatchRequest, draw_batch
from ddiseg.workspace.workspace import Workspace

pytestmark = pytest.mark.both_databases


def test_next_name__fills_gaps() -> None:
    assert next_name(set()) == "auto-1"
    assert next_name({"auto-1", "auto-3", "week-1"}) == "auto-2"


@pytest.mark.slow
def test_images_to_score__all_that_may_be_selected(spots: Workspace) -> None:
    (begun,) = draw_batch(spots.catalogue, "week-1", BatchRequest(1), "manager").members
    spots.catalogue.images.skip(9, "unusable", None, "manager")
    scored = {image.id for image in images_to_score(spots.catalogue, 1, seed=0)}
    assert scored == {5, 6, 7, 8} - {begun.image.id}


@pytest.mark.slow
def test_images_to_score__of_more_a_sample_by_tone_and_seed(
    spots: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto_batches, "CANDIDATES", 1)

    def sample(seed: int) -> dict[str, int]:
        return {image.tone: image.id for image in images_to_score(spots.catalogue, 3, seed)}

    samples = [sample(seed) for seed in range(8)]
    assert all(set(each) == {"I-II", "III-IV", "V-VI"} for each in samples)
    assert sample(seed=0) == samples[0]
    assert any(each != samples[0] for each in samples)


@pytest.mark.slow
def test_images_to_score__nothing(spots: Workspace) -> None:
    for number in range(5, 10):
        spots.catalogue.images.skip(number, "unusable", None, "manager")
    assert images_to_score(spots.catalogue, 3, seed=0) == []
