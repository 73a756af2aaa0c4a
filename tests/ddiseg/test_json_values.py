from __future__ import annotations

import pytest

from ddiseg.json_values import finite_number, size_of, whole_number, whole_numbers


@pytest.mark.parametrize("given", [90, 90.0, "90", "90.0", "90.00"])
def test_whole_number__however_it_is_written(given: object) -> None:
    assert whole_number(given) == 90
    assert type(whole_number(given)) is int
    assert finite_number(given) == 90
    assert size_of(given, given) == (90, 90)


@pytest.mark.parametrize(
    "given",
    [
        90.5,
        "90.5",
        "9" * 30,
        " 90",
        "x",
        "",
        True,
        None,
        [90],
        float("nan"),
        float("inf"),
        "\u0669",
    ],
)
def test_whole_number__is_none(given: object) -> None:
    assert whole_number(given) is None
    assert size_of(given, 1) is None


@pytest.mark.parametrize("given", ["nan", "inf", 10**400, "", None, True, [1]])
def test_finite_number__is_none(given: object) -> None:
    assert finite_number(given) is None


@pytest.mark.parametrize("height", [0, -1])
def test_size_of__no_size(height: int) -> None:
    assert size_of(height, 5) is None


def test_whole_numbers() -> None:
    assert whole_numbers([1.0, 2, "3"]) == [1, 2, 3]
    for given in ([1.5], "12", None, (1, 2)):
        assert whole_numbers(given) == given
