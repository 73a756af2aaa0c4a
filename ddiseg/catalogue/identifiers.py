"""Identifiers of patients and lesions: placeholders that mean unknown, and one spelling of each id.

Ids are normalised when they are imported and again wherever images are grouped, so rows that an
older program imported are grouped alike.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

#: What stands for a missing id, casefolded, without brackets and quotes around it. Marks without a
#: letter or digit ("-", "?", ".") need no entry.
_PLACEHOLDERS = frozenset(
    word.strip()
    for line in """
    na, n/a, n.a, n.a., #n/a, #na, nan, #nan, -nan, nat, none, null, nil
    unknown, unkn, unk, unclear, unnamed, undefined, unspecified, unassigned, unavailable
    missing, blank, empty, not available, not applicable, not known, not recorded, not reported
    not specified, not provided, not given, not stated, no data, no id, n/d, n.d.
    tbd, tba, tbc, todo, to do, to be determined, to be defined, to be confirmed
    anonymous, anonymised, anonymized, anon, deidentified, de-identified, redacted, removed, withheld
    unbekannt, k.a., k. a., keine angabe, inconnu, inconnue, desconocido, desconocida, desconhecido
    sconosciuto, onbekend, okänd, ukjent
    #value!, #ref!, #name?, #div/0!, #null!, #num!, #error!
    -1, -9, -99, -999, -9999, -1.0, -9.0, -99.0, -999.0, -9999.0
    """.splitlines()
    for word in line.split(",")
)

#: Characters that show nothing: zero-width space, joiners of words, marks of direction, soft hyphen.
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u2060\ufeff\u200e\u200f\u00ad"))

#: A whole number that a table program wrote as a fraction; three zeros may be thousands.
_WHOLE = re.compile(r"([0-9]+)[.,](?:0{1,2}|0{4,})")


def normalise_id(text: str | None) -> str | None:
    """Return one spelling of an id, or None for a blank or a placeholder.

    Unicode NFC, no space around it and single spaces within, no invisible characters, "17" for
    "17.0". Case and leading zeros are kept: "a7" and "A7", "07" and "7" may be two patients.
    """
    if text is None:
        return None
    if text.isascii() and text.isalnum() and not text.isalpha():
        return text
    return _normalise(text)


@lru_cache(maxsize=65536)
def _normalise(text: str) -> str | None:
    spelled = " ".join(unicodedata.normalize("NFC", text).translate(_INVISIBLE).split())
    if not any(map(str.isalnum, spelled)):
        return None
    plain = unicodedata.normalize("NFKC", spelled).casefold().strip("()[]<>{}'\"` ")
    if plain in _PLACEHOLDERS:
        return None
    whole = _WHOLE.fullmatch(spelled)
    return whole[1] if whole else spelled


def is_placeholder(text: str) -> bool:
    """Return whether a cell has something in it that means that the id is unknown."""
    return bool(text.strip()) and normalise_id(text) is None


def fold_id(spelled: str) -> str:
    """Return a normalised id without case, compatibility forms, spaces and leading zeros.

    Two ids that differ only in these are probably one.
    """
    plain = unicodedata.normalize("NFKC", spelled).casefold().replace(" ", "")
    return plain.lstrip("0") or "0" if plain.isdecimal() else plain
