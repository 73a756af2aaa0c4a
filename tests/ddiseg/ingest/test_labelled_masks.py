from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from syrupy.assertion import SnapshotAssertion

from annotation_protocol import UNLABELLED, load_protocol
from ddiseg.errors import FileError, InputError
from ddiseg.ingest.labelled_masks import Labels, compose_labelled, stack_labelled
from ddiseg.masks import Layer, Origin
from ddiseg.masks.stacking import StackedRegion
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


#: Those of the protocol, and unlabelled.
CLASSES = st.sampled_from([0, 1, 2, 3, 4, UNLABELLED])

Drawn = list[tuple[int, Origin, NDArray[np.bool_]]]


@pytest.mark.property
@given(
    st.lists(st.tuples(CLASSES, st.sampled_from(Origin), arrays(np.bool_, (3, 4))), max_size=6),
    st.one_of(st.none(), arrays(np.uint8, (3, 4), elements=st.integers(0, 4))),
    CLASSES,
)
def test_compose_labelled__no_class_vanishes_without_a_word(
    drawn: Drawn, base: NDArray[np.uint8] | None, rest: int
) -> None:
    layers = [Layer(i, region, origin, f"r{n}") for n, (i, origin, region) in enumerate(drawn)]
    labels = Labels(PROTOCOL, rest=rest)
    refused: str | None = None
    try:
        mask, notes = compose_labelled(layers, (3, 4), base, labels)
    except InputError as error:
        refused = str(error)
    if refused is not None:
        assert any(labels.name(index) in refused for index, _, _ in drawn)
        return
    said, shown = " ".join(note.text for note in notes), set(np.unique(mask).tolist())
    for index, _, region in drawn:
        name = labels.name(index)
        assert not region.any() or index in shown or name in said


@pytest.mark.property
@given(st.lists(st.tuples(CLASSES, arrays(np.bool_, (3, 4))), max_size=6))
def test_stack_labelled__no_class_vanishes_without_a_word(
    drawn: list[tuple[int, NDArray[np.bool_]]],
) -> None:
    regions = [StackedRegion(i, region, f"region {n}") for n, (i, region) in enumerate(drawn)]
    with_pixels = {index for index, region in drawn if region.any()}
    labels = Labels(PROTOCOL)
    refused: str | None = None
    try:
        mask, notes = stack_labelled(regions, (3, 4), labels)
    except FileError as error:
        refused = str(error)
    if refused is not None:
        assert any(f"{labels.name(i)} would vanish" in refused for i in with_pixels)
        return
    assert (mask is None) == (not with_pixels)
    assert mask is None or with_pixels <= set(np.unique(mask).tolist())
    empty = [each.name for each in regions if not each.region.any()]
    assert all(any(name in note.text for note in notes) for name in empty)
