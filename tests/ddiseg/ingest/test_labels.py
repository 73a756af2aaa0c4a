from __future__ import annotations

import pytest

from annotation_protocol import load_protocol
from ddiseg.errors import InputError
from ddiseg.ingest.labels import Labels

PROTOCOL = load_protocol()


def test_labels__same_name_whatever_its_case() -> None:
    labels = Labels(PROTOCOL)
    assert [labels.class_id(label) for label in ("lesion", " Skin", "RULER")] == [1, 4, 3]
    assert labels.rest_id == 0
    assert labels.known(["Lesion", "hair"]) == {1}


def test_labels__given_wins_over_the_same_name() -> None:
    text = ' Nevus , common =lesion, "a, b" = marker,skin=background,x=y=ruler'
    with pytest.raises(InputError, match="'Nevus' is not LABEL=CLASS"):
        Labels.parse(text, None, PROTOCOL)
    labels = Labels.parse(
        'NEVUS  common=Lesion,"a, b=marker",skin=background,x=y=ruler', "skin", PROTOCOL
    )
    wanted = {"nevus common": 1, "A, b": 2, "Skin": 0, "x=y": 3, "lesion": 1}
    assert {label: labels.class_id(label) for label in wanted} == wanted
    assert labels.rest_id == 4


def test_labels__unknown_are_listed_with_what_to_type() -> None:
    labels = Labels(PROTOCOL)
    with pytest.raises(InputError) as raised:
        labels.check(["nevus", "skin", "a, b", "nevus"])
    assert str(raised.value) == (
        'labels whose class is not known: "a, b", nevus; say what each means with --classes '
        "'\"a, b\"=lesion,nevus=lesion'; the classes are background, lesion, marker, ruler, skin"
    )
    typed = '"a, b"=lesion,nevus=lesion'
    Labels.parse(typed, None, PROTOCOL).check(["nevus", "a, b"])


@pytest.mark.parametrize(
    ("text", "rest", "says"),
    [
        ("nevus", None, "'nevus' is not LABEL=CLASS"),
        ("=lesion", None, "'=lesion' is not LABEL=CLASS"),
        ("nevus=", None, "no class ''"),
        ("nevus=mole", None, "--classes: there is no class 'mole'; the classes are background, "),
        ("nevus=lesion,Nevus=skin", None, "'Nevus' stands twice"),
        ("nevus=lesion\npen=marker", None, "--classes has several lines: write it in one line"),
        (None, "mole", "--rest: there is no class 'mole'"),
    ],
)
def test_labels__refused(text: str | None, rest: str | None, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Labels.parse(text, rest, PROTOCOL)
