"""File names of a release."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddiseg.release.naming import unique_stems


@pytest.mark.parametrize(
    ("images", "stems"),
    [
        ([(1, "000001.png", "ddi")], ["000001"]),
        ([(1, "a.png", "x"), (2, "a.png", "y")], ["x_a", "y_a"]),
        ([(1, "a.png", "x"), (2, "a.jpg", "x")], ["a_1", "a_2"]),
        ([(1, "a.png", "x"), (2, "A.png", "y")], ["x_a", "y_A"]),
        ([(1, "a.png", "x"), (2, "a.png", "y"), (3, "x_a.png", "z")], ["a_1", "y_a", "x_a_3"]),
        ([(1, "a.b.png", "x")], ["a.b"]),
        ([(1, "CON.png", "x")], ["_CON"]),
        ([(1, 'a:b*"c.png', "x")], ["a_b__c"]),
        ([(1, ".png", "x")], ["png"]),
        ([(1, "-rf.png", "x")], ["_-rf"]),
    ],
)
def test_unique_stems(images: list[tuple[int, str, str]], stems: list[str]) -> None:
    assert unique_stems(images) == stems


@pytest.mark.property
@given(st.lists(st.tuples(st.text("aA_1/.", max_size=5), st.sampled_from(["a", "A", "1", "a_1"]))))
def test_unique_stems__never_two_alike(pairs: list[tuple[str, str]]) -> None:
    stems = unique_stems([(k, name, dataset) for k, (name, dataset) in enumerate(pairs)])
    assert len({s.casefold() for s in stems}) == len(pairs)
    assert all(s and "/" not in s and not s.startswith((".", "-")) for s in stems)


def test_unique_stems__long_name_fits_a_file_system() -> None:
    (stem,) = unique_stems([(1, "é" * 250 + ".png", "x")])
    assert 0 < len(stem.encode()) <= 120
