from __future__ import annotations

import pytest

from ddiseg.errors import InputError
from ddiseg.ingest.coded_values import parse_malignant, parse_tone
from tests.wording import Refusal


@pytest.mark.parametrize(
    ("text", "group", "exact"),
    [
        ("12", "I-II", None), ("34", "III-IV", None), ("56", "V-VI", None), ("56.0", "V-VI", None),
        *((str(n), ("I-II", "III-IV", "V-VI")[(n - 1) // 2], n) for n in range(1, 7)),
        *((f"{n}.0", ("I-II", "III-IV", "V-VI")[(n - 1) // 2], n) for n in range(1, 7)),
        ("I", "I-II", 1), ("ii", "I-II", 2), ("III", "III-IV", 3), ("iv", "III-IV", 4),
        ("V", "V-VI", 5), ("vi", "V-VI", 6), ("\u2163", "III-IV", 4), (" 5 ", "V-VI", 5),
        ("I-II", "I-II", None), ("III\u2013IV", "III-IV", None), ("V - vi", "V-VI", None),
        ("3-4", "III-IV", None), ("type IV", "III-IV", 4), ("FST 2", "I-II", 2),
        ("Fitzpatrick skin type V", "V-VI", 5), ("type-3", "III-IV", 3), ("phototype III", "III-IV", 3),
        ("F5", "V-VI", 5), ("fst_2", "I-II", 2), ("FST: 4", "III-IV", 4), ("skin_type_6", "V-VI", 6),
        ("Fitzpatrick II", "I-II", 2), ("Fitspatrick I-II", "I-II", None), ("3,0", "III-IV", 3),
        ("2.", "I-II", 2), ("FST1", "I-II", 1), ("type V/VI", "V-VI", None),
        *((code, "unknown", None) for code in ("-1", "-1.0", "99", "?", "-", "#N/A", "NONE_SELECTED")),
        *((code, "unknown", None) for code in ("fst -1", "type unknown", "FST: not recorded")),
        *((two, "unknown", None) for two in ("II-III", "IV/V", "I-VI", "1 - 3", "FST IV-V")),
        *((blank, "unknown", None) for blank in ("", "  ", "NA", "n/a", "NaN", "None", "unknown")),
    ],
)  # fmt: skip
def test_parse_tone(text: str, group: str, exact: int | None) -> None:
    assert parse_tone(text) == (group, exact)


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "9",
        "--3",
        "fair",
        "III-II",
        "23",
        "7",
        "-12",
        "3.5",
        "inf",
        "1e0",
        "13",
        "1234",
        "VII",
        "brown",
        "type",
        "I-",
    ],
)
def test_parse_tone__refused(text: str) -> None:
    with pytest.raises(InputError, match=f"tone '{text}' is none of 12, 34, 56"):
        parse_tone(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((yes, True) for yes in ("TRUE", "True", "yes", "Y", "1", "1.0", "malignant")),
        *((no, False) for no in ("FALSE", "false", "no", "n", "0", "0.0", "Benign")),
        *((blank, None) for blank in ("", " ", "NA", "unknown")),
        *((code, None) for code in ("Indeterminate", "indeterminate/malignant", "non-neoplastic")),
        *((code, None) for code in ("-1", "9", "?", "not available", "Not_Applicable")),
    ],
)
def test_parse_malignant(text: str, expected: bool | None) -> None:
    assert parse_malignant(text) is expected


@pytest.mark.parametrize("text", ["2", "perhaps", "BCC", "premalignant"])
def test_parse_malignant__refused(text: str, refusal: Refusal) -> None:
    with refusal(InputError):
        parse_malignant(text)
