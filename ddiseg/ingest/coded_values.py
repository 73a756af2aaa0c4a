"""Tone and malignancy as datasets write them, and the codes by which they say that it is not known."""

from __future__ import annotations

import re
import unicodedata

from annotation_protocol import load_protocol
from ddiseg.errors import InputError

#: Texts that are no value in any column.
BLANK = {"", "na", "n/a", "nan", "none", "null", "unknown"}

_TRUE = {"true", "t", "yes", "y", "1", "1.0", "malignant"}
_FALSE = {"false", "f", "no", "n", "0", "0.0", "benign"}

#: Codes of datasets for a value that is not known. Fitzpatrick17k: -1; SCIN: none_selected; 99 and
#: 999 are codes of clinical forms. 0 and 9 are none of them in a tone: they belong to other scales.
_UNKNOWN = {
    *("-1", "-1.0", "-9", "-99", "-999", "99", "99.0", "999", "999.0"),
    *("-", "--", "?", ".", "#n/a", "n.a.", "<na>", "nil", "missing", "not available"),
    *(
        "not applicable",
        "not recorded",
        "not known",
        "not reported",
        "not specified",
        "unspecified",
    ),
    *("undetermined", "undefined", "unclear", "uncertain", "unsure", "other", "none selected"),
}
#: ISIC: indeterminate, also "indeterminate/benign" and "indeterminate/malignant", where nobody
#: settled it. Fitzpatrick17k: non-neoplastic is no growth at all, neither benign nor malignant.
_UNKNOWN_MALIGNANT = {"9", "9.0", "indeterminate", "equivocal", "non-neoplastic", "non neoplastic"}

_ROMAN = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5", "vi": "6"}
_DASH = r"\s*[-/\u2010-\u2015\u2212]\s*"
#: Words before a type, as in "FST 2", "phototype III", "type-3", "fst_2" and "F5".
_BEFORE = re.compile(
    r"^(?:(?:fitzpatrick|fitspatrick|fitz|fst|pst|photo|skin|tone|type|class|scale|f)(?:-|[\s_:.]*))+"
)


def parse_tone(text: str) -> tuple[str, int | None]:
    """Return the tone group and, where it is given, the exact Fitzpatrick type.

    12, 34, 56, 1 to 6, floats of these, roman numerals, groups such as I-II, each with or without
    words such as 'Fitzpatrick' and 'type' before it. A blank, a code that means unknown and a range
    over two groups, such as II-III, are unknown.

    Raises:
        InputError: anything else.
    """
    value = _BEFORE.sub("", _plain(text))
    if value in BLANK and (not value) == (not text.strip()):
        return "unknown", None
    if _means_unknown(value):
        return "unknown", None
    value = "-".join(_ROMAN.get(part, part) for part in re.split(_DASH, value))
    if exact := re.fullmatch(r"([1-6])([.,]0*)?", value):
        group = next(t for t in load_protocol().tones if exact[1] in str(t.code))
        return group.name, int(exact[1])
    if code := re.fullmatch(r"(1-?2|3-?4|5-?6)([.,]0*)?", value):
        return load_protocol().tone_coded(int(code[1].replace("-", ""))).name, None
    if (several := re.fullmatch(r"([1-6])-([1-6])", value)) and several[1] < several[2]:
        return "unknown", None
    raise InputError(
        f"tone '{text.strip()}' is none of 12, 34, 56, 1 to 6, I to VI, I-II, III-IV, V-VI or blank"
    )


def parse_malignant(text: str) -> bool | None:
    """Return True or False; None for a blank and for a code that means unknown.

    Raises:
        InputError: anything else.
    """
    plain = _plain(text)
    if plain in BLANK or _means_unknown(plain):
        return None
    if plain in _UNKNOWN_MALIGNANT or plain.startswith("indeterminate/"):
        return None
    if plain in _TRUE or plain in _FALSE:
        return plain in _TRUE
    raise InputError(
        f"malignant '{text.strip()}' is none of TRUE, FALSE, yes, no, 1, 0, malignant, benign or blank"
    )


def is_blank(text: str) -> bool:
    """Return whether a text is no value in any column."""
    return _plain(text) in BLANK


def _means_unknown(plain: str) -> bool:
    return plain in _UNKNOWN or " ".join(plain.replace("_", " ").split()) in _UNKNOWN


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip().lower()
