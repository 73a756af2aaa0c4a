"""Malignancy from diagnoses: known codes, what the options say, and what wins."""

from __future__ import annotations

from itertools import combinations

import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import Details
from ddiseg.errors import InputError
from ddiseg.ingest.diagnoses import (
    VOCABULARIES,
    MalignancyLabels,
    MalignantDiagnoses,
    label_malignancy,
)
from ddiseg.ingest.matching import Matched
from tests.wording import Refusal


def judge(
    *diagnoses: str | None, malignant: str | None = None, benign: str | None = None
) -> MalignancyLabels:
    """Judge files called 0, 1, ... with these diagnoses; one that ends in + or - says it itself."""
    details = {}
    for number, text in enumerate(diagnoses):
        itself = {"+": True, "-": False}.get((text or " ")[-1])
        name = text.rstrip("+-") if text else text
        details[str(number)] = Details(diagnosis=name, malignant=itself)
    matched = Matched(details=details, described=list(details.values()))
    return label_malignancy(matched, MalignantDiagnoses.parse(malignant, benign))


def verdicts(judged: MalignancyLabels) -> list[bool | None]:
    return [details.malignant for details in judged.matched.details.values()]


def summary(judged: MalignancyLabels) -> str:
    (line,) = judged.summary(judged.matched.details.values())
    return line


@pytest.mark.parametrize(
    ("diagnoses", "expected", "by"),
    [
        (
            ["BCC", "MEL", "SCC", "ACK", "NEV", "SEK", None],
            [True, True, True, False, False, False, None],
            "PAD-UFES-20's codes",
        ),
        (
            ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"],
            [None, True, False, False, True, False, False],
            "HAM10000's codes",
        ),
        (
            ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"],
            [True, False, True, False, False, False, False, True, None],
            "ISIC 2019's codes",
        ),
        ([" mel ", "Nv"], [True, False], "HAM10000 and ISIC 2019's codes"),
    ],
)
def test_judge__codes_of_a_dataset(
    diagnoses: list[str | None], expected: list[bool | None], by: str
) -> None:
    judged = judge(*diagnoses)
    assert verdicts(judged) == expected
    assert judged.by == by
    assert judged.notes == []


def test_vocabularies__agree_where_they_share_a_code() -> None:
    """Else a set of codes that fits two datasets would have two meanings."""
    for one, other in combinations(VOCABULARIES, 2):
        shared = one.verdicts.keys() & other.verdicts.keys()
        assert all(one.verdicts[code] == other.verdicts[code] for code in shared)
        assert not one.undecided & other.verdicts.keys()
        assert not other.undecided & one.verdicts.keys()
    for each in VOCABULARIES:
        assert not each.malignant & each.benign
        assert "https://" in each.source


def test_judge__one_foreign_diagnosis_and_nothing_is_guessed() -> None:
    judged = judge("BCC", "NEV", "wart")
    assert verdicts(judged) == [None, None, None]
    assert judged.by is None
    (note,) = judged.notes
    assert note.startswith("malignancy is not known: the diagnoses (BCC, NEV, wart) are not all")
    assert "--malignant DIAGNOSIS,... and --benign DIAGNOSIS,... (or --benign rest)" in note


def test_judge__codes_of_two_datasets_are_not_mixed() -> None:
    assert verdicts(judge("ACK", "akiec")) == [None, None]


def test_judge__codes_are_those_of_rows_without_a_file_too() -> None:
    details = {"0": Details(diagnosis="BCC")}
    described = [*details.values(), Details(diagnosis="wart")]
    judged = label_malignancy(Matched(details=details, described=described), MalignantDiagnoses())
    assert judged.by is None


def test_judge__no_diagnosis_is_no_news() -> None:
    assert (judge(None, None).by, judge(None).notes) == (None, [])


def test_judge__options_over_codes() -> None:
    judged = judge("ACK", "BCC", "NEV", malignant="ack")
    assert verdicts(judged) == [True, True, False]
    assert judged.by == "--malignant, PAD-UFES-20's codes"
    assert [d.malignant_source for d in judged.matched.details.values()] == [
        "diagnosis: --malignant",
        "diagnosis: PAD-UFES-20's codes",
        "diagnosis: PAD-UFES-20's codes",
    ]


def test_judge__options_for_the_diagnoses_that_are_no_codes() -> None:
    judged = judge("BCC", "NEV", "Wart", benign=" WART ")
    assert verdicts(judged) == [True, False, False]


def test_judge__malignant_alone_leaves_the_others_unknown(wording: SnapshotAssertion) -> None:
    judged = judge("naevus", "melanoma", "wart", malignant="Melanoma")
    assert verdicts(judged) == [None, True, None]
    assert summary(judged) == wording


def test_judge__rest_is_benign() -> None:
    judged = judge("naevus", "melanoma", None, malignant="melanoma", benign="rest")
    assert verdicts(judged) == [False, True, None]
    assert judged.by == "--malignant, --benign"
    sources = [d.malignant_source for d in judged.matched.details.values()]
    assert sources == ["diagnosis: --benign", "diagnosis: --malignant", None]
    assert verdicts(judge("BCC", "MEL", malignant="MEL", benign="rest")) == [False, True]


def test_judge__a_diagnosis_with_a_comma() -> None:
    judged = judge("carcinoma, basal", "x", malignant='"carcinoma, basal"')
    assert verdicts(judged) == [True, None]


def test_judge__what_rows_say_wins_and_contradictions_are_told(wording: SnapshotAssertion) -> None:
    judged = judge("BCC-", "NEV-", "MEL", malignant="BCC,MEL")
    assert verdicts(judged) == [False, False, True]
    assert judged.notes == wording


def test_judge__codes_only_where_no_row_says_it() -> None:
    judged = judge("BCC+", "NEV")
    assert verdicts(judged) == [True, None]
    assert (judged.by, judged.notes) == (None, [])


def test_judge__names_that_no_row_has(wording: SnapshotAssertion) -> None:
    notes = judge("BCC", "NEV", malignant="BCC,XYZ", benign="ABC").notes
    assert notes == wording


def test_judge__options_without_a_diagnosis(refusal: Refusal) -> None:
    with refusal(InputError):
        judge(None, malignant="BCC", benign="rest")


def test_summary__counts_what_is_stored(wording: SnapshotAssertion) -> None:
    judged = judge("BCC", "NEV")
    assert judged.summary([Details(malignant=True, diagnosis="BCC"), Details()]) == wording


@pytest.mark.parametrize(
    ("malignant", "benign"),
    [
        ("BCC,mel", "nev, MEL"),
        (" , ", None),
        ("a", ""),
        (None, "rest"),
        ("a\nb", None),
        ("a", "b\r\nc"),
    ],
)
def test_parse__refused(malignant: str | None, benign: str | None, refusal: Refusal) -> None:
    with refusal(InputError):
        MalignantDiagnoses.parse(malignant, benign)
