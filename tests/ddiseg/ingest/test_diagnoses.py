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


def label(
    *diagnoses: str | None, malignant: str | None = None, benign: str | None = None
) -> MalignancyLabels:
    """Label files called 0, 1, ... with these diagnoses; one that ends in + or - says it itself."""
    details = {}
    for number, text in enumerate(diagnoses):
        itself = {"+": True, "-": False}.get((text or " ")[-1])
        name = text.rstrip("+-") if text else text
        details[str(number)] = Details(diagnosis=name, malignant=itself)
    matched = Matched(details=details, described=list(details.values()))
    return label_malignancy(matched, MalignantDiagnoses.parse(malignant, benign))


def verdicts(labelled: MalignancyLabels) -> list[bool | None]:
    return [details.malignant for details in labelled.matched.details.values()]


def summary(labelled: MalignancyLabels) -> str:
    (line,) = labelled.summary(labelled.matched.details.values())
    return line


@pytest.mark.parametrize(
    ("diagnoses", "by"),
    [
        (["BCC+", "MEL+", "SCC+", "ACK-", "NEV-", "SEK-", None], "PAD-UFES-20's codes"),
        (["akiec", "bcc+", "bkl-", "df-", "mel+", "nv-", "vasc-"], "HAM10000's codes"),
        (
            ["MEL+", "NV-", "BCC+", "AK-", "BKL-", "DF-", "VASC-", "SCC+", "UNK"],
            "ISIC 2019's codes",
        ),
        ([" mel +", "Nv-"], "HAM10000 and ISIC 2019's codes"),
    ],
)
def test_label__codes_of_a_dataset(diagnoses: list[str | None], by: str) -> None:
    """Each diagnosis ends in what its code says: + malignant, - benign."""
    labelled = label(*((text or "").rstrip("+-") or None for text in diagnoses))
    says = {"+": True, "-": False}
    assert verdicts(labelled) == [says.get((text or " ")[-1]) for text in diagnoses]
    assert labelled.by == by
    assert labelled.notes == []


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


def test_label__one_foreign_diagnosis_and_nothing_is_guessed() -> None:
    labelled = label("BCC", "NEV", "wart")
    assert verdicts(labelled) == [None, None, None]
    assert labelled.by is None
    (note,) = labelled.notes
    assert note.startswith("malignancy is not known: the diagnoses (BCC, NEV, wart) are not all")
    assert "--malignant DIAGNOSIS,... and --benign DIAGNOSIS,... (or --benign rest)" in note


def test_label__codes_of_two_datasets_are_not_mixed() -> None:
    assert verdicts(label("ACK", "akiec")) == [None, None]


def test_label__codes_are_those_of_rows_without_a_file_too() -> None:
    details = {"0": Details(diagnosis="BCC")}
    described = [*details.values(), Details(diagnosis="wart")]
    labelled = label_malignancy(Matched(details=details, described=described), MalignantDiagnoses())
    assert labelled.by is None


def test_label__no_diagnosis_is_no_news() -> None:
    assert (label(None, None).by, label(None).notes) == (None, [])


def test_label__options_over_codes() -> None:
    labelled = label("ACK", "BCC", "NEV", malignant="ack")
    assert verdicts(labelled) == [True, True, False]
    assert labelled.by == "--malignant, PAD-UFES-20's codes"
    assert [d.malignant_source for d in labelled.matched.details.values()] == [
        "diagnosis: --malignant",
        "diagnosis: PAD-UFES-20's codes",
        "diagnosis: PAD-UFES-20's codes",
    ]


def test_label__options_for_the_diagnoses_that_are_no_codes() -> None:
    labelled = label("BCC", "NEV", "Wart", benign=" WART ")
    assert verdicts(labelled) == [True, False, False]


def test_label__malignant_alone_leaves_the_others_unknown(wording: SnapshotAssertion) -> None:
    labelled = label("naevus", "melanoma", "wart", malignant="Melanoma")
    assert verdicts(labelled) == [None, True, None]
    assert summary(labelled) == wording


def test_label__rest_is_benign() -> None:
    labelled = label("naevus", "melanoma", None, malignant="melanoma", benign="rest")
    assert verdicts(labelled) == [False, True, None]
    assert labelled.by == "--malignant, --benign"
    sources = [d.malignant_source for d in labelled.matched.details.values()]
    assert sources == ["diagnosis: --benign", "diagnosis: --malignant", None]
    assert verdicts(label("BCC", "MEL", malignant="MEL", benign="rest")) == [False, True]


def test_label__a_diagnosis_with_a_comma() -> None:
    labelled = label("carcinoma, basal", "x", malignant='"carcinoma, basal"')
    assert verdicts(labelled) == [True, None]


def test_label__what_rows_say_wins_and_contradictions_are_told(wording: SnapshotAssertion) -> None:
    labelled = label("BCC-", "NEV-", "MEL", malignant="BCC,MEL")
    assert verdicts(labelled) == [False, False, True]
    assert labelled.notes == wording


def test_label__codes_only_where_no_row_says_it() -> None:
    labelled = label("BCC+", "NEV")
    assert verdicts(labelled) == [True, None]
    assert (labelled.by, labelled.notes) == (None, [])


def test_label__names_that_no_row_has(wording: SnapshotAssertion) -> None:
    notes = label("BCC", "NEV", malignant="BCC,XYZ", benign="ABC").notes
    assert notes == wording


def test_label__options_without_a_diagnosis(refusal: Refusal) -> None:
    with refusal(InputError):
        label(None, malignant="BCC", benign="rest")


def test_summary__counts_what_is_stored(wording: SnapshotAssertion) -> None:
    labelled = label("BCC", "NEV")
    assert labelled.summary([Details(malignant=True, diagnosis="BCC"), Details()]) == wording


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
