from __future__ import annotations

import pytest
from syrupy.assertion import SnapshotAssertion

from annotation_protocol import load_protocol
from ddiseg.errors import InputError
from ddiseg.ingest.labelled_masks import Labels
from tests.wording import Refusal

PROTOCOL = load_protocol()


def test_labels__same_name_whatever_its_case() -> None:
    labels = Labels(PROTOCOL)
    assert [labels.class_id(label) for label in ("lesion", " Skin", "RULER")] == [1, 4, 3]
    assert labels.rest_id == 0
    assert labels.known(["Lesion", "hair"]) == {1}


def test_labels__given_wins_over_the_same_name(refusal: Refusal) -> None:
    text = ' Nevus , common =lesion, "a, b" = marker,skin=background,x=y=ruler'
    with refusal(InputError):
        Labels.parse(text, None, PROTOCOL)
    labels = Labels.parse(
        'NEVUS  common=Lesion,"a, b=marker",skin=background,x=y=ruler', "skin", PROTOCOL
    )
    wanted = {"nevus common": 1, "A, b": 2, "Skin": 0, "x=y": 3, "lesion": 1}
    assert {label: labels.class_id(label) for label in wanted} == wanted
    assert labels.rest_id == 4


def test_labels__unknown_are_listed_with_what_to_type(wording: SnapshotAssertion) -> None:
    labels = Labels(PROTOCOL)
    with pytest.raises(InputError) as raised:
        labels.check(["nevus", "skin", "a, b", "nevus"])
    assert str(raised.value) == wording
    typed = '"a, b"=lesion,nevus=lesion'
    Labels.parse(typed, None, PROTOCOL).check(["nevus", "a, b"])


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("nevus", None),
        ("=lesion", None),
        ("nevus=", None),
        ("nevus=mole", None),
        ("nevus=lesion,Nevus=skin", None),
        ("nevus=lesion\npen=marker", None),
        (None, "mole"),
    ],
)
def test_labels__refused(text: str | None, rest: str | None, refusal: Refusal) -> None:
    with refusal(InputError):
        Labels.parse(text, rest, PROTOCOL)
