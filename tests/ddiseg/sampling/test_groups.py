"""Groups of images that stay together, and that the same images give the same groups for ever."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping

import pytest

from ddiseg.catalogue.tables import Image
from ddiseg.sampling.groups import group_keys, near_duplicate_keys, patient_key
from ddiseg.sampling.splits import _by_group


def _image(number: int, **columns: str | int | None) -> Image:
    digest = hashlib.sha256(f"image {number}".encode()).hexdigest()
    look = hashlib.sha256(f"look {number}".encode()).hexdigest()[:16]
    defaults = {"dataset_id": 1, "content_hash": digest, "perceptual_hash": look}
    return Image(id=number, **defaults | columns)


def _partition(keys: Mapping[int, str]) -> set[frozenset[int]]:
    return {frozenset(i for i in keys if keys[i] == key) for key in keys.values()}


def test_groups__by_patient_and_near_duplicates_in_chains() -> None:
    images = [
        _image(1, patient="p", perceptual_hash="0" * 16),
        _image(2, patient="q", perceptual_hash="0" * 15 + "f"),
        _image(3, patient="q"),
        _image(4),
        _image(5),
    ]
    assert _partition(group_keys(images)) == {frozenset({1, 2, 3}), frozenset({4}), frozenset({5})}
    assert _partition(near_duplicate_keys(images)) == {
        frozenset({1, 2}),
        *(frozenset({n}) for n in (3, 4, 5)),
    }


@pytest.mark.parametrize(
    ("other", "together"),
    [
        ({"lesion": "7"}, True),
        ({"lesion": "8"}, False),
        ({"lesion": "7", "dataset_id": 2}, False),  # each data set counts its lesions anew
        ({"lesion": "7", "patient": "p"}, False),  # so do some for each patient
    ],
)
def test_groups__by_lesion_where_the_patient_is_not_known(
    other: dict[str, str | int], together: bool
) -> None:
    keys = group_keys([_image(1, lesion="7"), _image(2, **other)])
    assert (keys[1] == keys[2]) == together


def test_groups__keys_do_not_depend_on_rows() -> None:
    images = [_image(n, patient=f"p{n % 3}") for n in range(9)]
    assert group_keys(images) == group_keys(images[::-1])
    assert set(group_keys(images).values()) <= {image.content_hash for image in images}
    assert group_keys([]) == {}


def test_patient_key__is_the_image_itself_where_no_patient_is_known() -> None:
    assert patient_key(_image(1, patient="p")) == "p"
    assert patient_key(_image(1)) == _image(1).content_hash


def test_groups__golden() -> None:
    """Stored splits follow these groups: other ones would move a patient to the other split."""
    rng = random.Random(7)
    images = []
    for k in range(300):
        same = k if rng.random() < 0.7 else k // 3
        look = int(hashlib.sha256(f"look {same}".encode()).hexdigest()[:16], 16)
        look ^= 1 << rng.randrange(64)
        patient = rng.choice([None, f"p{k // 4}", f"p{rng.randrange(60)}"])
        content = hashlib.sha256(f"image {k}".encode()).hexdigest()
        columns = {"content_hash": content, "perceptual_hash": f"{look:016x}", "patient": patient}
        images.append(_image(k + 1, **columns))
    splits = _by_group(images, {})
    found = (
        group_keys(images),
        near_duplicate_keys(images),
        [splits[image.id].value for image in images],
    )
    digests = [hashlib.sha256(repr(each).encode()).hexdigest()[:16] for each in found]
    assert digests == ["e98aa978747ca4fb", "41056740f1d3567f", "acbd3ce81da9d1d5"]
