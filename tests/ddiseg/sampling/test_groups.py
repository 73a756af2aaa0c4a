"""Groups of images that stay together, and that the same images give the same groups for ever."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddiseg.catalogue import Catalogue
from ddiseg.catalogue.linking import IdScope
from ddiseg.catalogue.tables import Image
from ddiseg.sampling.groups import Groups, identities, near_duplicates
from ddiseg.sampling.splits import _by_group
from tests.ddiseg.rows import new_image


def _image(number: int, **columns: str | int | None) -> Image:
    digest = hashlib.sha256(f"image {number}".encode()).hexdigest()
    look = hashlib.sha256(f"look {number}".encode()).hexdigest()[:16]
    defaults = {"dataset_id": 1, "content_hash": digest, "perceptual_hash": look}
    return Image(id=number, **defaults | columns)


def _partition(numbers: Mapping[int, int]) -> set[frozenset[int]]:
    return {frozenset(i for i in numbers if numbers[i] == n) for n in numbers.values()}


def _groups(
    images: Sequence[Image], scopes: Mapping[int, IdScope] | None = None
) -> set[frozenset[int]]:
    groups = Groups(images, scopes)
    return _partition({image.id: groups.number(image.id) for image in images})


def test_groups__by_patient_and_near_duplicates_in_chains() -> None:
    images = [
        _image(1, patient="p", near_group=1),
        _image(2, patient="q", near_group=1),
        _image(3, patient="q", near_group=3),
        _image(4, near_group=4),
        _image(5, near_group=5),
    ]
    assert _groups(images) == {frozenset({1, 2, 3}), frozenset({4}), frozenset({5})}
    assert _partition(near_duplicates(images)) == {
        frozenset({1, 2}),
        *(frozenset({n}) for n in (3, 4, 5)),
    }


def test_groups__patient_and_lesion_are_both_links() -> None:
    """1 and 4 are linked by the lesion of 2, which has no patient, and by the patient of 3."""
    images = [
        _image(1, patient="p", lesion="a"),
        _image(2, lesion="a"),
        _image(3, patient="p", lesion="b"),
        _image(4, lesion="b"),
        _image(5, patient="q", lesion="c"),
    ]
    assert _groups(images) == {frozenset({1, 2, 3, 4}), frozenset({5})}


@pytest.mark.parametrize(
    ("other", "together"),
    [
        ({"lesion": "7"}, True),
        ({"lesion": "8"}, False),
        ({"lesion": "7", "dataset_id": 2}, False),  # each dataset counts its lesions anew
        ({"lesion": "7", "patient": "p"}, True),
    ],
)
def test_groups__by_lesion(other: dict[str, str | int], together: bool) -> None:
    assert (len(_groups([_image(1, lesion="7"), _image(2, **other)])) == 1) == together


def test_groups__lesions_numbered_for_each_patient() -> None:
    images = [_image(n, patient=p, lesion="1") for n, p in enumerate(("p", "q", None, None), 1)]
    assert len(_groups(images)) == 1
    per_patient = {1: IdScope("clinic", lesions_per_patient=True)}
    assert _groups(images, per_patient) == {frozenset({1}), frozenset({2}), frozenset({3, 4})}


def test_groups__patients_belong_to_their_dataset() -> None:
    images = [_image(1, patient="1", lesion="x"), _image(2, patient="1", dataset_id=2, lesion="x")]
    assert len(_groups(images)) == 2
    assert len(_groups(images, {1: IdScope("a"), 2: IdScope("b")})) == 2
    assert len(_groups(images, {1: IdScope("a"), 2: IdScope("a")})) == 1


@pytest.mark.parametrize(
    "id_", ["-", "?", "#N/A", "unknown", "none", "", " ", "NaN", "n/a", "tbd", "."]
)
@pytest.mark.parametrize("column", ["patient", "lesion"])
def test_groups__placeholders_that_an_older_program_stored(column: str, id_: str) -> None:
    assert len(_groups([_image(n, **{column: id_}) for n in range(3)])) == 3


@pytest.mark.parametrize(
    ("one", "other"), [("Jos\u00e9", "Jose\u0301"), ("17", "17.0"), ("a  b", " a b ")]
)
def test_groups__spellings_that_an_older_program_stored(one: str, other: str) -> None:
    assert len(_groups([_image(1, patient=one), _image(2, patient=other)])) == 1


def test_keys__do_not_depend_on_rows_or_on_other_images() -> None:
    images = [_image(n, patient=f"p{n % 3}") for n in range(9)]
    keys = dict(zip(images, Groups(images).keys(images), strict=True))
    assert dict(zip(images, Groups(images[::-1]).keys(images), strict=True)) == keys
    more = [*images, *(_image(n, patient=f"p{n % 3}") for n in range(9, 99))]
    assert Groups(more).keys(images) == list(keys.values())
    assert set(keys.values()) <= {image.content_hash for image in images}
    assert Groups([]).keys([]) == []


def test_groups__of_an_image_that_came_in_between() -> None:
    """Another process imports while this one reads: the image is a group of its own."""
    groups = Groups([_image(1, patient="p")])
    assert groups.count([1, 2, 3]) == 3
    assert groups.relatives({2}) == {2}


def test_sharing__only_those_with_a_relative_among_the_others() -> None:
    images = [_image(n, patient=p) for n, p in enumerate(("p", "p", "q", None))]
    groups = Groups(images)
    assert groups.sharing([0, 2, 3], [1]) == {0}
    assert groups.relatives({0}) == {0, 1}


_IDS = st.sampled_from([None, "-", "p", "q", "r", "7", "7.0", " p", "P"])
_IMAGES = st.lists(st.tuples(_IDS, _IDS, st.integers(1, 3), st.integers(0, 20)), max_size=25)


def _made(rows: Sequence[tuple[str | None, str | None, int, int]]) -> list[Image]:
    """Return images; those of one look are near-duplicates."""
    return [
        _image(
            number,
            patient=patient,
            lesion=lesion,
            dataset_id=dataset,
            near_group=look,
        )
        for number, (patient, lesion, dataset, look) in enumerate(rows)
    ]


@pytest.mark.property
@given(rows=_IMAGES, joined=st.booleans(), seed=st.integers(0, 99))
def test_groups__are_an_equivalence_relation(
    rows: Sequence[tuple[str | None, str | None, int, int]], joined: bool, seed: int
) -> None:
    """The smallest one that has all links, in any order: compared with a search over all pairs."""
    images = _made(rows)
    scopes = {n: IdScope("x" if joined else f"{n}") for n in (1, 2, 3)}
    shuffled = images.copy()
    random.Random(seed).shuffle(shuffled)
    assert _groups(images, scopes) == _groups(shuffled, scopes) == _by_hand(images, scopes)


def _by_hand(images: Sequence[Image], scopes: Mapping[int, IdScope]) -> set[frozenset[int]]:
    def linked(a: Image, b: Image) -> bool:
        same_scope = scopes[a.dataset_id].patients == scopes[b.dataset_id].patients
        spelled = {"7.0": "7", " p": "p", "-": None, None: None}
        ids = [
            (spelled.get(x, x), spelled.get(y, y))
            for x, y in ((a.patient, b.patient), (a.lesion, b.lesion))
        ]
        same_id = any(x is not None and x == y for x, y in ids)
        return a.near_group == b.near_group or (same_scope and same_id)

    groups = [{image.id} for image in images]
    of = {image.id: image for image in images}
    merged = True
    while merged:
        merged = False
        for one in groups:
            for other in groups:
                if one is not other and any(linked(of[a], of[b]) for a in one for b in other):
                    groups.remove(other)
                    one |= other
                    merged = True
                    break
            if merged:
                break
    return {frozenset(group) for group in groups}


def test_read__closure_passes_through_all_datasets_of_the_catalogue(catalogue: Catalogue) -> None:
    for number, name in enumerate("ab", 1):
        dataset = catalogue.images.dataset(name)
        catalogue.images.add(dataset.id, [new_image(number, patient="1")], "tester")
    first, second = catalogue.images.select()
    assert Groups.read(catalogue).count([first.id, second.id]) == 2
    assert catalogue.grouping.share_patients("b", "a", "tester")
    assert Groups.read(catalogue).count([first.id, second.id]) == 1


def test_groups__not_compared_yet() -> None:
    """Images of an older program: near hashes count, but not of two known patients."""
    near = {"perceptual_hash": "0" * 16}
    images = [
        _image(1, patient="p", **near),
        _image(2, patient="q", **near),
        _image(3, near_group=3, **near),
    ]
    assert len(_partition(near_duplicates(images))) == 3
    for patient in ("p", None):
        images[1].patient = patient
        assert _partition(near_duplicates(images)) == {frozenset({1, 2}), frozenset({3})}


def test_groups__golden() -> None:
    """Splits that are yet to be decided follow these groups: others would put patients elsewhere."""
    rng = random.Random(7)
    images = []
    first: dict[int, int] = {}
    for k in range(300):
        same = k if rng.random() < 0.7 else k // 3
        look = int(hashlib.sha256(f"look {same}".encode()).hexdigest()[:16], 16)
        look ^= 1 << rng.randrange(64)
        patient = rng.choice([None, f"p{k // 4}", f"p{rng.randrange(60)}"])
        content = hashlib.sha256(f"image {k}".encode()).hexdigest()
        columns = {"content_hash": content, "perceptual_hash": f"{look:016x}", "patient": patient}
        images.append(_image(k + 1, near_group=first.setdefault(same, k + 1), **columns))
    groups = Groups(images, {1: IdScope("clinic")})
    ids = [image.id for image in images]
    numbers = {image_id: groups.number(image_id) for image_id in ids}
    splits = _by_group(ids, {}, identities(images, numbers, {1: IdScope("clinic")}))
    found = groups.keys(images), [splits[image_id].value for image_id in ids]
    digests = [hashlib.sha256(repr(each).encode()).hexdigest()[:16] for each in found]
    assert digests == ["4a0fe75e66146a28", "3ad4ab8fec1655d1"]
