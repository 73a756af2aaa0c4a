"""Subsets drawn: nested, balanced, apart from each other, and the same every time."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import Catalogue, NewImage
from ddiseg.catalogue.tables import Image
from ddiseg.errors import InputError, NotFoundError
from ddiseg.images import near_duplicates
from ddiseg.outcomes import Outcome
from ddiseg.sampling.candidates import RankedCandidates
from ddiseg.sampling.subsets import SubsetDraw, SubsetRequest, _pick, _Pool, draw
from tests.wording import Refusal

TONES = ("I-II", "III-IV", "V-VI")
Fill = Callable[[Iterable[dict[str, Any]]], Catalogue]


@pytest.fixture
def fill(catalogue: Catalogue, new_image: Callable[..., NewImage]) -> Fill:
    """fill([{"tone": ..., ...}, ...]): a catalogue with these images, #1 being the first."""

    def fill_it(rows: Iterable[dict[str, Any]]) -> Catalogue:
        dataset = catalogue.images.dataset("clinic")
        batch = [new_image(number, **row) for number, row in enumerate(rows, 1)]
        catalogue.images.add(dataset.id, batch, "tester")
        return catalogue

    return fill_it


def _rows(per_tone: int, tones: Iterable[str] = TONES, **columns: Any) -> list[dict[str, Any]]:
    """Every third image malignant, two images a patient."""
    return [
        {"tone": tone, "malignant": n % 3 == 0, "patient": f"{tone} {n // 2}", **columns}
        for tone in tones
        for n in range(per_tone)
    ]


def _draw(catalogue: Catalogue, name: str, *per_tone: int, **options: Any) -> SubsetDraw:
    strict = options.pop("strict", False)
    return draw(catalogue, name, SubsetRequest(per_tone, **options), "tester", strict=strict)


def _images(catalogue: Catalogue, name: str) -> list[Image]:
    return list(catalogue.images.select(subset=name))


@pytest.mark.training
def test_draw__same_number_of_each_tone_and_nested(fill: Fill, wording: SnapshotAssertion) -> None:
    catalogue = fill([*_rows(40), {"tone": "unknown"}])
    drawn = _draw(catalogue, "train", 5, 10, 15)
    assert drawn.sizes == {f"train-{n}": dict.fromkeys(TONES, n) for n in (5, 10, 15)}
    assert set(drawn.outcomes.values()) == {Outcome.ADDED}
    for smaller, larger in pairwise(["train-5", "train-10", "train-15"]):
        assert catalogue.subsets.members(smaller) < catalogue.subsets.members(larger)
    assert drawn.lacking == []
    assert drawn.notes == wording


def test_draw__single_size_has_the_plain_name(fill: Fill) -> None:
    assert _draw(fill(_rows(6)), "batch", 2).sizes == {"batch": dict.fromkeys(TONES, 2)}


def test_draw__again_is_unchanged(fill: Fill) -> None:
    catalogue = fill(_rows(20))
    first = _draw(catalogue, "train", 4, 8)
    _draw(catalogue, "later", 3)
    catalogue.images.skip(_images(catalogue, "train-4")[0].id, "blurry", None, "anna")
    events = catalogue.events.count()
    again = _draw(catalogue, "train", 4, 8)
    assert set(again.outcomes.values()) == {Outcome.UNCHANGED}
    assert (again.sizes, again.notes, again.lacking) == (first.sizes, first.notes, first.lacking)
    assert catalogue.events.count() == events


def test_draw__a_longer_draw_goes_on_from_the_shorter(fill: Fill) -> None:
    catalogue = fill(_rows(30))
    _draw(catalogue, "train", 4, 6, balance_malignant=True)
    _draw(catalogue, "test", 5)
    longer = _draw(catalogue, "train", 4, 6, 8, balance_malignant=True)
    assert [o.value for o in longer.outcomes.values()] == ["unchanged", "unchanged", "added"]


@pytest.mark.parametrize("change", [{"seed": 2}, {"tones": ("I-II",)}])
def test_draw__other_members_under_the_same_name_are_refused(
    fill: Fill, change: dict[str, Any], refusal: Refusal
) -> None:
    catalogue = fill(_rows(20))
    _draw(catalogue, "train", 4, seed=1)
    before = catalogue.subsets.members("train")
    with refusal(InputError):
        _draw(catalogue, "train", 4, **{"seed": 1} | change)
    assert catalogue.subsets.members("train") == before


@pytest.mark.training
def test_draw__does_not_depend_on_the_order_of_rows(
    tmp_path: Path, new_image: Callable[..., NewImage]
) -> None:
    chosen = []
    rows = [new_image(n, **row) for n, row in enumerate(_rows(20))]
    for name, order in (("forth", rows), ("back", rows[::-1])):
        catalogue = Catalogue.create(f"sqlite:///{tmp_path / name}")
        catalogue.images.add(catalogue.images.dataset("clinic").id, order, "tester")
        _draw(catalogue, "train", 6, balance_malignant=True)
        chosen.append({image.name for image in _images(catalogue, "train")})
        catalogue.close()
    assert chosen[0] == chosen[1]


def test_draw__another_seed_draws_others(fill: Fill) -> None:
    catalogue = fill(_rows(40))
    _draw(catalogue, "a", 10, seed=1)
    _draw(catalogue, "b", 10, seed=2, disjoint_from=("a",))
    _draw(catalogue, "c", 10, seed=2, disjoint_from=())
    assert catalogue.subsets.members("c") != catalogue.subsets.members("a")
    assert catalogue.subsets.members("c") != catalogue.subsets.members("b")


def test_draw__halves_malignant_and_benign(fill: Fill) -> None:
    catalogue = fill(_rows(40))
    drawn = _draw(catalogue, "train", 4, 10, balance_malignant=True)
    assert drawn.lacking == drawn.notes == []
    for size in (4, 10):
        found = Counter((i.tone, i.malignant) for i in _images(catalogue, f"train-{size}"))
        assert found == {(tone, side): size // 2 for tone in TONES for side in (True, False)}


def test_draw__odd_size_says_which_side_has_one_more(
    fill: Fill, wording: SnapshotAssertion
) -> None:
    catalogue = fill(_rows(40))
    drawn = _draw(catalogue, "train", 5, balance_malignant=True, strict=True)
    assert drawn.notes == wording
    assert Counter(i.malignant for i in _images(catalogue, "train")) == {True: 9, False: 6}


def test_draw__tone_that_can_not_be_filled_or_balanced(
    fill: Fill, refusal: Refusal, wording: SnapshotAssertion
) -> None:
    benign = [{"tone": "V-VI", "malignant": False} for _ in range(12)]
    few = [{"tone": "III-IV", "malignant": n < 3} for n in range(6)]
    catalogue = fill([*_rows(30, ["I-II"]), *few, {"tone": "V-VI", "malignant": True}, *benign])
    with refusal(InputError):
        _draw(catalogue, "train", 10, balance_malignant=True, strict=True)
    assert catalogue.subsets.names() == []
    drawn = _draw(catalogue, "train", 10, balance_malignant=True)
    assert drawn.lacking == wording
    assert drawn.sizes["train"] == {"I-II": 10, "III-IV": 6, "V-VI": 10}
    with pytest.raises(InputError, match="--strict"):
        _draw(catalogue, "train", 10, balance_malignant=True, strict=True)


def test_draw__nested_though_one_side_runs_out(fill: Fill) -> None:
    catalogue = fill([{"tone": "I-II", "malignant": n < 3} for n in range(30)])
    _draw(catalogue, "train", 2, 4, 8, 12, balance_malignant=True)
    counts = [
        Counter(i.malignant for i in _images(catalogue, f"train-{size}")) for size in (2, 4, 8, 12)
    ]
    assert [(c[True], c[False]) for c in counts] == [(1, 1), (2, 2), (3, 5), (3, 9)]
    for smaller, larger in pairwise([2, 4, 8, 12]):
        members = catalogue.subsets.members
        assert members(f"train-{smaller}") < members(f"train-{larger}")


def test_draw__unknown_whether_malignant_is_left_out_of_halves(
    fill: Fill, wording: SnapshotAssertion
) -> None:
    catalogue = fill([*_rows(20, ["I-II"]), *_rows(5, ["I-II"], malignant=None)])
    drawn = _draw(catalogue, "train", 8, balance_malignant=True, tones=("I-II",))
    assert drawn.notes == wording
    assert all(image.malignant is not None for image in _images(catalogue, "train"))


def test_draw__apart_from_other_subsets_by_patient(fill: Fill, wording: SnapshotAssertion) -> None:
    catalogue = fill(_rows(20))
    for name in ("a", "b", "c"):
        _draw(catalogue, name, 3)
    patients = {n: {i.patient for i in _images(catalogue, n)} for n in ("a", "b", "c")}
    for one, other in combinations("abc", 2):
        assert not patients[one] & patients[other]
    notes = _draw(catalogue, "d", 1).notes
    assert notes == wording


def test_draw__images_without_a_patient_are_their_own(fill: Fill) -> None:
    catalogue = fill(_rows(6, patient=None))
    _draw(catalogue, "a", 3)
    drawn = _draw(catalogue, "b", 3)
    assert drawn.lacking == []
    assert not catalogue.subsets.members("a") & catalogue.subsets.members("b")


def test_draw__disjoint_from_named_subsets_only(fill: Fill, refusal: Refusal) -> None:
    catalogue = fill(_rows(4, patient=None))
    _draw(catalogue, "a", 2)
    _draw(catalogue, "b", 2)
    assert _draw(catalogue, "c", 2, disjoint_from=("a",)).lacking == []
    assert catalogue.subsets.members("c") == catalogue.subsets.members("b")
    with refusal(NotFoundError):
        _draw(catalogue, "d", 2, disjoint_from=("x",))


@pytest.fixture
def alike(fill: Fill) -> Catalogue:
    """Ten images of tone I-II: #1 to #4 near-duplicates in a chain, the rest like no other."""
    chain = [0x0, 0xF, 0xFF, 0xFFF]
    rows: list[dict[str, Any]] = [{"perceptual_hash": f"{look:016x}"} for look in chain]
    return fill([{"tone": "I-II", **row} for row in (*rows, *({} for _ in range(6)))])


def test_alike__is_a_chain(alike: Catalogue) -> None:
    hashes = [image.perceptual_hash for image in alike.images.select()]
    assert [(i, j) for i, j, _ in near_duplicates(hashes)] == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("seed", range(5))
def test_draw__one_of_a_group_of_near_duplicates(
    alike: Catalogue, seed: int, wording: SnapshotAssertion
) -> None:
    drawn = _draw(alike, "all", 10, seed=seed)
    assert drawn.lacking == wording
    assert len(alike.subsets.members("all") & {1, 2, 3, 4}) == 1


def test_draw__near_duplicates_of_another_subset_are_left_out(alike: Catalogue) -> None:
    alike.subsets.store({"other": [1]}, {}, "tester")
    drawn = _draw(alike, "train", 10, tones=("I-II",))
    assert alike.subsets.members("train") == {5, 6, 7, 8, 9, 10}
    assert drawn.notes[0].startswith("4 left out: in other, or in a group")


@pytest.mark.parametrize("seed", range(5))
def test_draw__each_patient_once_as_long_as_there_are_others(fill: Fill, seed: int) -> None:
    catalogue = fill([{"tone": "I-II", "patient": f"p{n % 4}"} for n in range(12)])
    options: dict[str, Any] = {"seed": seed, "tones": ("I-II",)}
    assert _draw(catalogue, "few", 4, **options).notes == []
    assert Counter(i.patient for i in _images(catalogue, "few")) == dict.fromkeys(
        ["p0", "p1", "p2", "p3"], 1
    )
    many = _draw(catalogue, "many", 6, disjoint_from=(), **options)
    assert len(many.notes) == 1
    assert "drawn more than once, as there were no others (p" in many.notes[0]
    assert len({i.patient for i in _images(catalogue, "many")}) == 4


def test_draw__from_a_subset(fill: Fill, refusal: Refusal) -> None:
    catalogue = fill(_rows(20))
    _draw(catalogue, "pool", 10)
    _draw(catalogue, "part", 3, source="pool")
    assert catalogue.subsets.members("part") < catalogue.subsets.members("pool")
    with refusal(NotFoundError):
        _draw(catalogue, "other", 3, source="x")


@pytest.mark.parametrize(
    ("tones", "drawn_from"),
    [
        ((), ["I-II", "V-VI", "unknown"]),
        (("I-II", "V-VI"), ["I-II", "V-VI"]),
        (("unknown", "V-VI"), ["V-VI", "unknown"]),
        (("I-II",), ["I-II"]),
    ],
)
def test_draw__tones(fill: Fill, tones: tuple[str, ...], drawn_from: list[str]) -> None:
    catalogue = fill(_rows(10, ["I-II", "V-VI", "unknown"]))
    drawn = _draw(catalogue, "train", 3, tones=tones)
    assert drawn.sizes["train"] == dict.fromkeys(drawn_from, 3)


def test_draw__many_without_a_tone_are_a_group_and_that_is_said(
    fill: Fill, wording: SnapshotAssertion
) -> None:
    catalogue = fill([*_rows(9, ["I-II", "V-VI"]), *_rows(22, ["unknown"])])
    drawn = _draw(catalogue, "train", 2, 4)
    tones = ["I-II", "V-VI", "unknown"]
    assert drawn.sizes == {f"train-{n}": dict.fromkeys(tones, n) for n in (2, 4)}
    assert catalogue.subsets.members("train-2") < catalogue.subsets.members("train-4")
    assert drawn.notes == wording
    without = _draw(catalogue, "known", 2, tones=("I-II", "V-VI"), disjoint_from=())
    assert without.sizes["known"] == {"I-II": 2, "V-VI": 2}


@pytest.mark.parametrize(("without", "drawn_from"), [(3, 3), (4, 4)])
def test_draw__a_tenth_without_a_tone_is_left_out(
    fill: Fill, without: int, drawn_from: int
) -> None:
    catalogue = fill([*_rows(9), *_rows(without, ["unknown"])])
    assert len(_draw(catalogue, "train", 1).sizes["train"]) == drawn_from


def test_draw__skipped_images_do_not_count_for_the_tenth(
    fill: Fill, wording: SnapshotAssertion
) -> None:
    catalogue = fill([*_rows(9), *_rows(4, ["unknown"])])
    catalogue.images.skip(31, "blurry", None, "anna")
    drawn = _draw(catalogue, "train", 1)
    assert drawn.sizes["train"] == dict.fromkeys(TONES, 1)
    assert drawn.notes == wording


def test_draw__the_tenth_is_of_the_images_that_are_drawn_from(fill: Fill) -> None:
    catalogue = fill([*_rows(30), *_rows(3, ["unknown"])])
    few = [*catalogue.images.select(ids=[1, 2, 91, 92])]
    catalogue.subsets.store({"pool": [image.id for image in few]}, {}, "tester")
    drawn = _draw(catalogue, "train", 1, source="pool", disjoint_from=())
    assert drawn.sizes["train"] == {"I-II": 1, "unknown": 1}


def test_draw__missing_tone_is_said(fill: Fill, wording: SnapshotAssertion) -> None:
    assert _draw(fill(_rows(10, ["I-II", "V-VI"])), "train", 3).notes == wording


def test_draw__tone_asked_for_and_not_there(fill: Fill, wording: SnapshotAssertion) -> None:
    catalogue = fill(_rows(10, ["I-II"]))
    drawn = _draw(catalogue, "train", 3, tones=("I-II", "V-VI"))
    assert drawn.lacking == wording


def test_draw__unknown_tone_alone_is_drawn(fill: Fill) -> None:
    drawn = _draw(fill(_rows(10, ["unknown"])), "train", 3)
    assert drawn.sizes["train"] == {"unknown": 3}


def test_draw__skipped_images_never(fill: Fill, wording: SnapshotAssertion) -> None:
    catalogue = fill(_rows(4, ["I-II"], patient=None))
    catalogue.images.skip(2, "blurry", None, "anna")
    drawn = _draw(catalogue, "train", 4)
    assert catalogue.subsets.members("train") == {1, 3, 4}
    assert "1 left out: skipped" in drawn.notes
    assert drawn.lacking == wording


def test_draw__nothing_there(fill: Fill, wording: SnapshotAssertion) -> None:
    catalogue = fill([])
    for tones in ((), ("V-VI",)):
        with pytest.raises(InputError) as error:
            _draw(catalogue, "train", 4, tones=tones)
        assert str(error.value) == wording


def test_draw__nothing_of_the_tone_asked_for(fill: Fill, wording: SnapshotAssertion) -> None:
    with pytest.raises(InputError) as error:
        _draw(fill(_rows(3, ["I-II"])), "train", 4, tones=("V-VI",))
    assert str(error.value) == wording


def test_draw__all_skipped_or_in_other_subsets_says_what_to_do(
    fill: Fill, wording: SnapshotAssertion
) -> None:
    catalogue = fill(_rows(2, ["I-II"], patient=None))
    _draw(catalogue, "train", 2)
    with pytest.raises(InputError) as error:
        _draw(catalogue, "test", 2)
    assert str(error.value) == wording
    for image in (1, 2):
        catalogue.images.skip(image, "blurry", None, "anna")
    with pytest.raises(InputError) as error:
        _draw(catalogue, "test", 2)
    assert str(error.value) == wording


def test_draw__nothing_known_to_balance(fill: Fill, refusal: Refusal) -> None:
    catalogue = fill(_rows(4, malignant=None))
    with refusal(InputError):
        _draw(catalogue, "train", 4, balance_malignant=True)
    assert catalogue.subsets.names() == []


@pytest.mark.parametrize(
    "name", ["", "-x", "a b", "a/b", "x" * 101, "fedd-2023", "fedd-2023-5", "FEDD-2023-mine"]
)
def test_draw__unusable_name(fill: Fill, name: str, refusal: Refusal) -> None:
    catalogue = fill(_rows(5))
    with refusal(InputError):
        _draw(catalogue, name, 2)


@pytest.mark.parametrize("sizes", [(), (0,), (-1,), (3, 2), (2, 2)])
def test_request__bad_sizes(sizes: tuple[int, ...], refusal: Refusal) -> None:
    with refusal(InputError):
        SubsetRequest(sizes)


def test_draw__exact_duplicates_are_one_image(
    catalogue: Catalogue, new_image: Callable[..., NewImage]
) -> None:
    dataset = catalogue.images.dataset("clinic")
    first = new_image(1, tone="I-II")
    batch = [first, replace(first, path="copy.png"), new_image(2, tone="I-II")]
    catalogue.images.add(dataset.id, batch, "tester")
    assert _draw(catalogue, "train", 3).sizes["train"] == {"I-II": 2}


_CANDIDATES = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from([-1, 1, 2, 3]), st.sampled_from([-1, 0, 1])),
    max_size=14,
)


@pytest.mark.property
@given(tones=st.lists(_CANDIDATES, min_size=1, max_size=3), size=st.integers(1, 9), balance=...)
def test_pick__as_by_a_look_at_all_that_are_left(
    tones: list[list[tuple[int, int, int]]], size: int, balance: bool
) -> None:
    """The queues give what the first draw of this program gave, which looked at every image each time."""
    number = itertools.count(1)
    by_tone = {
        f"{n}": RankedCandidates(
            np.array([next(number) for _ in rows], np.int64),
            *(np.array([row[k] for row in rows], np.int64) for k in range(3)),
        )
        for n, rows in enumerate(tones)
    }
    pending = {i: -2 - i % 3 for of in by_tone.values() for i in of.ids.tolist()}
    request = SubsetRequest((size,), balance_malignant=balance)
    picked = _pick(_Pool(by_tone, [], {}, {}), request, pending)
    found = {tone: [image.id for image in images] for tone, images in picked.items()}
    assert found == _by_hand(by_tone, request, pending)


def _by_hand(
    by_tone: dict[str, RankedCandidates], request: SubsetRequest, pending: dict[int, int]
) -> dict[str, list[int]]:
    waiting = {
        tone: list(zip(*(c.tolist() for c in vars(of).values()), strict=True))
        for tone, of in by_tone.items()
    }
    picked: dict[str, list[int]] = {tone: [] for tone in by_tone}
    taken: set[int] = set()
    groups: set[int] = set()
    for turn in range(request.per_tone[0]):
        for tone, images in waiting.items():
            labels = [turn % 2 == 0, turn % 2 != 0] if request.balance_malignant else [None]
            free = [i for i in images if (i[2] if i[2] >= 0 else pending[i[0]]) not in taken]
            for malignant in labels:
                suitable = [i for i in free if malignant is None or i[3] == malignant]
                if suitable:
                    fresh = (i for i in suitable if i[1] not in groups)
                    image = next(fresh, suitable[0])
                    picked[tone].append(image[0])
                    images.remove(image)
                    taken.add(image[2] if image[2] >= 0 else pending[image[0]])
                    groups.add(image[1])
                    break
    return picked
