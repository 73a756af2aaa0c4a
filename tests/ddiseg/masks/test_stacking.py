"""Regions without an order: the smaller lies on top, and no class vanishes without a word."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from annotation_protocol import load_protocol
from ddiseg.masks.stacking import Hidden, StackedRegion, stack

PROTOCOL = load_protocol()
BACKGROUND, LESION, MARKER, RULER, SKIN = range(5)
SIZE = (8, 9)


def box(class_id: int, rows: slice, columns: slice, order: int = 0) -> StackedRegion:
    region = np.zeros(SIZE, bool)
    region[rows, columns] = True
    return StackedRegion(class_id, region, f"region of {class_id}", order)


DISC = box(MARKER, slice(1, 7), slice(1, 8))
SPOT = box(LESION, slice(3, 5), slice(3, 6))


@pytest.mark.parametrize("regions", [[DISC, SPOT], [SPOT, DISC]])
def test_stack__ring_that_became_a_disc(regions: list[StackedRegion]) -> None:
    found = stack(regions, SIZE, SKIN, PROTOCOL)
    np.testing.assert_array_equal(
        found.mask, np.select([SPOT.region, DISC.region], [LESION, MARKER], SKIN)
    )
    assert found.overlaps == {(LESION, MARKER): 6}
    assert found.enclosed == {(LESION, MARKER): 6}
    assert not found.hidden


def test_stack__lesion_on_skin_is_no_lost_hole() -> None:
    found = stack([box(SKIN, slice(0, 8), slice(0, 9)), SPOT], SIZE, BACKGROUND, PROTOCOL)
    assert found.overlaps == {(LESION, SKIN): 6}
    assert not found.enclosed


def test_stack__equal_regions_by_precedence_and_the_other_is_hidden() -> None:
    marker = box(MARKER, slice(3, 5), slice(3, 6))
    for regions in ([SPOT, marker], [marker, SPOT]):
        found = stack(regions, SIZE, SKIN, PROTOCOL)
        lost = Hidden(LESION, "region of 1", 6, "region of 2", MARKER, 6)
        assert list(found.hidden) == [lost]


def test_stack__z_order_wins_over_size() -> None:
    disc = box(MARKER, slice(1, 7), slice(1, 8), order=2)
    found = stack([disc, box(LESION, slice(3, 5), slice(3, 6), order=1)], SIZE, SKIN, PROTOCOL)
    assert [h.class_id for h in found.hidden] == [LESION]


def test_stack__hidden_by_several_names_the_one_that_hides_the_most() -> None:
    lesion = box(LESION, slice(0, 4), slice(0, 4))
    parts = [box(RULER, slice(0, 1), slice(0, 4)), box(MARKER, slice(1, 4), slice(0, 4))]
    (lost,) = stack([*parts, lesion], SIZE, SKIN, PROTOCOL).hidden
    assert (lost.region, lost.over, lost.over_pixels) == ("region of 1", "region of 2", 12)


def test_stack__nothing_and_regions_without_pixels() -> None:
    for regions in ([], [box(LESION, slice(0, 0), slice(0, 0))]):
        found = stack(regions, SIZE, SKIN, PROTOCOL)
        assert (found.mask == SKIN).all()
        assert not found.regions


Regions = list[tuple[int, NDArray[np.bool_]]]


@pytest.mark.property
@given(
    st.lists(st.tuples(st.integers(0, 4), arrays(np.bool_, (4, 5))), max_size=7),
    st.integers(0, 4),
)
def test_stack__every_class_is_in_the_mask_or_named_as_hidden(drawn: Regions, rest: int) -> None:
    regions = [StackedRegion(index, region, f"r{n}") for n, (index, region) in enumerate(drawn)]
    found = stack(regions, (4, 5), rest, PROTOCOL)
    with_pixels = {index for index, region in drawn if region.any()}
    shown, hidden = set(np.unique(found.mask).tolist()), {h.class_id for h in found.hidden}
    assert with_pixels == (with_pixels & shown) | hidden
    assert not hidden & shown
    covered = np.any([region for _, region in drawn] or [np.zeros((4, 5), bool)], axis=0)
    assert (found.mask[~covered] == rest).all()
    for (y, x), index in np.ndenumerate(found.mask):
        sizes = [(region.sum(), i) for i, region in drawn if region[y, x]]
        assert not sizes or (min(sizes)[0], index) in sizes
