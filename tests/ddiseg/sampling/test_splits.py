"""Which masks are held out: by families, by a fixed rule, for ever."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ddiseg.catalogue import Catalogue, NewImage, NewMask, NewModelVersion, Split
from ddiseg.catalogue.linking import IdScope
from ddiseg.catalogue.tables import Image
from ddiseg.sampling.groups import Groups, identities
from ddiseg.sampling.splits import HOLDOUT_SHARE, _hashed, assign_splits
from ddiseg.sampling.splits import _by_group as by_group


def _image(number: int, patient: str | None = None, look: int | None = None) -> Image:
    """`look`: images of one look are near-duplicates."""
    # Hashes of 64 bits that differ in about half of them, but for images of one look.
    perceptual = f"{((look if look is not None else number) * 0x9E3779B97F4A7C15) % 2**64:016x}"
    return Image(
        id=number,
        dataset_id=1,
        content_hash=f"{number:064x}",
        patient=patient,
        perceptual_hash=perceptual,
    )


def _by_group(images: Sequence[Image], known: dict[int, Split]) -> dict[int, Split]:
    scopes = {1: IdScope("clinic")}
    groups = Groups(images, scopes)
    numbers = {image.id: groups.number(image.id) for image in images}
    return by_group(list(numbers), known, identities(images, numbers, scopes))


def _patient_of(side: Split) -> str:
    return next(f"p{n}" for n in range(100) if _by_group([_image(1, f"p{n}")], {})[1] is side)


def test_share__about_every_fifth_patient() -> None:
    drawn = [_hashed(f"patient {n}") for n in range(2000)]
    assert abs(drawn.count(Split.HOLDOUT) / 2000 - HOLDOUT_SHARE) < 0.03


@pytest.mark.parametrize("side", [Split.TRAINING, Split.HOLDOUT])
def test_family__patients_and_near_duplicates_stay_together(side: Split) -> None:
    patient = _patient_of(side)
    images = [_image(1, patient), _image(2, patient), _image(3, None, look=2), _image(4)]
    sides = _by_group(images, {})
    assert {sides[1], sides[2], sides[3]} == {side}


def test_family__a_newcomer_follows_what_stands() -> None:
    other = {Split.TRAINING: Split.HOLDOUT, Split.HOLDOUT: Split.TRAINING}
    for side in other:
        images = [_image(1, _patient_of(other[side])), _image(2, None, look=1)]
        assert _by_group(images, {2: side}) == {1: side, 2: side}


def test_family__joined_from_both_sides_the_newcomer_is_on_neither() -> None:
    images = [_image(1, "a"), _image(2, "b"), _image(3, "a")]
    for image, near_group in zip(images, (1, 2, 2), strict=True):
        image.near_group = near_group
    known = {1: Split.TRAINING, 2: Split.HOLDOUT}
    assert _by_group(images, known) == {**known, 3: Split.EXCLUDED}


@pytest.mark.property
@given(data=st.data())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sides__as_masks_come_none_changes_and_no_family_is_on_both(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    patients = [data.draw(st.sampled_from(["a", "b", "c", None])) for _ in range(count)]
    looks = [data.draw(st.integers(0, 12)) for _ in range(count)]
    images = [_image(n, p, look=k) for n, (p, k) in enumerate(zip(patients, looks, strict=True))]
    known: dict[int, Split] = {}
    for upto in range(1, count + 1):
        sides = _by_group(images[:upto], known)
        assert known.items() <= sides.items()
        known = sides
    for patient in {p for p in patients if p is not None}:
        found = {known[i.id] for i in images if i.patient == patient} - {Split.EXCLUDED}
        assert len(found) <= 1


def test_decide__what_a_model_has_learned_from_is_not_held_out(
    catalogue: Catalogue,
    new_image: Callable[..., NewImage],
    new_mask: Callable[..., NewMask],
) -> None:
    patient = _patient_of(Split.HOLDOUT)
    dataset = catalogue.images.dataset("clinic")
    images: list[Any] = [new_image(1, patient=patient), new_image(2, patient=f"{patient}")]
    catalogue.images.add(dataset.id, images, "tester")
    catalogue.masks.submit([new_mask(1, "anna")], reviewer="ben")
    (mask,) = catalogue.masks.accepted().values()
    catalogue.models.add(NewModelVersion("f", "b", "h", {}, [mask.content_hash], {}, "1"), "tester")
    assert assign_splits(catalogue) == {1: Split.TRAINING}
    catalogue.masks.submit([new_mask(2, "anna")], reviewer="ben")
    assert assign_splits(catalogue) == {1: Split.TRAINING, 2: Split.TRAINING}


def _learned_from(catalogue: Catalogue, image_id: int) -> None:
    digest = catalogue.masks.accepted()[image_id].content_hash
    catalogue.models.add(NewModelVersion("f", "b", "h", {}, [digest], {}, "1"), "tester")


@pytest.mark.parametrize("redrawn", [True, False])
def test_decide__learned_from_and_reopened_is_not_held_out(
    catalogue: Catalogue,
    new_image: Callable[..., NewImage],
    new_mask: Callable[..., NewMask],
    redrawn: bool,
) -> None:
    """Neither under another mask, nor through a sibling while it is in rework."""
    patient = _patient_of(Split.HOLDOUT)
    dataset = catalogue.images.dataset("clinic")
    catalogue.images.add(dataset.id, [new_image(n, patient=patient) for n in (1, 2)], "tester")
    catalogue.masks.submit([new_mask(1, "anna")], reviewer="ben")
    _learned_from(catalogue, 1)
    catalogue.images.reopen(1, "ben")
    if redrawn:
        catalogue.masks.submit([new_mask(1, "anna", "corrected")], reviewer="ben")
    else:
        catalogue.masks.submit([new_mask(2, "anna", "sibling's")], reviewer="ben")
    assert set(assign_splits(catalogue).values()) == {Split.TRAINING}


def test_decide__what_comes_in_between_is_seen(
    catalogue: Catalogue,
    new_image: Callable[..., NewImage],
    new_mask: Callable[..., NewMask],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another process learns from the image between the look at what was learned and the decision."""
    dataset = catalogue.images.dataset("clinic")
    new = new_image(1, patient=_patient_of(Split.HOLDOUT))
    catalogue.images.add(dataset.id, [new], "tester")
    catalogue.masks.submit([new_mask(1, "anna")], reviewer="ben")
    decide, asked = catalogue.splits.decide, 0

    def late(*args: Any) -> bool:
        nonlocal asked
        asked += 1
        if asked == 1:
            _learned_from(catalogue, 1)
        return decide(*args)

    monkeypatch.setattr(catalogue.splits, "decide", late)
    assert assign_splits(catalogue) == {1: Split.TRAINING}
    assert asked == 2


def test_decide__only_accepted_masks_have_a_side(
    catalogue: Catalogue, new_image: Callable[..., NewImage], new_mask: Callable[..., NewMask]
) -> None:
    dataset = catalogue.images.dataset("clinic")
    catalogue.images.add(dataset.id, [new_image(n) for n in (1, 2, 3)], "tester")
    catalogue.masks.submit([new_mask(2, "anna")], reviewer="ben")
    first = assign_splits(catalogue)
    assert first.keys() == {2}
    catalogue.images.reopen(2, "ben")
    assert assign_splits(catalogue) == {}
    assert catalogue.splits.all() == first
