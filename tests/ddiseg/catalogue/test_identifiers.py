"""Ids of patients and lesions: which mean unknown, and how each is spelled."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddiseg.catalogue.identifiers import fold_id, is_placeholder, normalise_id

pytestmark = pytest.mark.both_databases


@pytest.mark.parametrize(
    "text",
    [
        *("-", "--", "\u2014", "?", "??", ".", "*", "_", "/"),
        *("#N/A", "N/A", "n.a.", "NA", "NaN", "<NA>", "None", "NULL", "nil", "#REF!"),
        *(
            "unknown",
            "Unknown",
            "(unknown)",
            "'unknown'",
            " UNK ",
            "not recorded",
            "Not  Available",
        ),
        *("tbd", "TBD", "to be confirmed", "missing", "anonymous", "unbekannt", "k. A."),
        *("-1", "-1.0", "-999", "\uff0d", "\ufeff-"),
    ],
)
def test_normalise__placeholders_are_unknown(text: str) -> None:
    assert normalise_id(text) is None
    assert is_placeholder(text)


@pytest.mark.parametrize("text", ["", " ", "\t", "\u00a0"])
def test_normalise__a_blank_is_no_placeholder(text: str) -> None:
    assert normalise_id(text) is None
    assert not is_placeholder(text)


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("Jose\u0301", "Jos\u00e9"),
        (" Anna  Maria\u00a0", "Anna Maria"),
        ("P\u200b1\ufeff", "P1"),
        *(("17.0", "17"), ("17.00", "17"), ("17,0", "17"), ("17.000000", "17")),
        ("17.000", "17.000"),  # may be seventeen thousand
        ("17.5", "17.5"),
        *(("0", "0"), ("00", "00"), ("007", "007")),  # "0" is the first of those who count from it
        *(("Anna", "Anna"), ("anna", "anna")),
        *(("N", "N"), ("X", "X"), ("x-1", "x-1"), ("NA12", "NA12"), ("None-1", "None-1")),
    ],
)
def test_normalise__one_spelling(text: str, spelled: str) -> None:
    assert normalise_id(text) == spelled


def test_normalise__none() -> None:
    assert normalise_id(None) is None


@pytest.mark.property
@given(st.text(max_size=30))
def test_normalise__again_changes_nothing(text: str) -> None:
    spelled = normalise_id(text)
    assert normalise_id(spelled) == spelled
    assert normalise_id(f" {text}\t") == spelled
    assert normalise_id(unicodedata.normalize("NFD", text)) == spelled
    assert spelled is None or any(map(str.isalnum, spelled))


@pytest.mark.parametrize(
    ("one", "other"),
    [("Anna", "anna"), ("007", "7"), ("\uff11\uff17", "17"), ("A 1", "A1"), ("0", "000")],
)
def test_fold__probably_one(one: str, other: str) -> None:
    assert fold_id(one) == fold_id(other)


@pytest.mark.parametrize(("one", "other"), [("A1", "A01"), ("7", "70"), ("Anna", "Anne")])
def test_fold__two(one: str, other: str) -> None:
    assert fold_id(one) != fold_id(other)
