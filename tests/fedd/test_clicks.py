from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedd.backbone import DiffusionUNet
from fedd.clicks import SMALLEST, Click, ClickSegmenter, prepare_clicks, region
from fedd.errors import ClickError, WeightsError
from fedd.probes.decision import Decision, SecondPass
from fedd.probes.training import Example, train_probes
from fedd.segment import Probes
from tests.fedd.conftest import CLASSES, QUICK, TINY, like, spot
from tests.fedd.counting import Counting
from tests.wording import Refusal

LESION, MARKER = 1, 2

#: A square whose features are at right angles to those around it, on a grid of 16 x 16.
SQUARE = np.s_[4:12, 4:12]


def segmenter(shape: tuple[int, int] = (64, 64), log_odds: float = 0.0) -> ClickSegmenter:
    """Other features in the square, and a probe that says the same of every place."""
    features = np.zeros((2, 16, 16), np.float16)
    features[0] = 1
    features[:, *SQUARE] = np.array([0, 1]).reshape(2, 1, 1)
    return ClickSegmenter(shape, features, np.full((5, 32, 32), log_odds, np.float16))


def shown(found: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The middle pixel of each of the 16 x 16 positions."""
    height, width = found.shape
    return found[height // 32 :: height // 16, width // 32 :: width // 16]


def expected(*squares: tuple[slice, slice]) -> NDArray[np.bool_]:
    whole = np.zeros((16, 16), bool)
    for each in squares:
        whole[each] = True
    return whole


def test_region__what_looks_like_the_click() -> None:
    found = segmenter().region([Click(32, 32)], LESION)
    assert found.dtype == bool
    np.testing.assert_array_equal(shown(found), expected(SQUARE))


def test_region__any_shape_of_photograph() -> None:
    found = segmenter((32, 160)).region([Click(80, 16)], LESION)
    assert found.shape == (32, 160)
    np.testing.assert_array_equal(shown(found), expected(SQUARE))


def test_region__only_the_part_that_was_clicked() -> None:
    two = segmenter()
    two.features[:, :, 7:9] = np.array([1, 0]).reshape(2, 1, 1)
    found = two.region([Click(20, 32)], LESION)
    np.testing.assert_array_equal(shown(found), expected(np.s_[4:12, 4:7]))
    both = two.region([Click(20, 32), Click(44, 32)], LESION)
    np.testing.assert_array_equal(shown(both), expected(np.s_[4:12, 4:7], np.s_[4:12, 9:12]))


def test_region__probe_of_the_class_decides_where_all_looks_alike() -> None:
    alike = segmenter()
    alike.features[:] = np.array([1, 0]).reshape(2, 1, 1)
    alike.log_odds[LESION] = -6
    alike.log_odds[LESION, 8:24, 8:24] = 6
    found = alike.region([Click(32, 32)], LESION)
    np.testing.assert_array_equal(shown(found), expected(SQUARE))
    assert alike.region([Click(32, 32)], MARKER).sum() > found.sum()


def test_region__negative_click_cuts_a_part_off() -> None:
    # The square's right half looks a little different from its left half.
    parts = segmenter()
    parts.features[:, 4:12, 8:12] = np.array([0.5, 0.866]).reshape(2, 1, 1)
    whole = parts.region([Click(24, 32)], LESION)
    assert shown(whole)[5:11, 4:11].all()
    cut = parts.region([Click(24, 32), Click(40, 32, positive=False)], LESION)
    assert shown(cut)[5:11, 4:7].all()
    assert not shown(cut)[:, 9:].any()


def test_region__negative_click_in_a_hole_keeps_it_open() -> None:
    ring = segmenter()
    ring.features[:, 7:9, 7:9] = np.array([1, 0]).reshape(2, 1, 1)
    clicks = [Click(20, 32), Click(32, 20), Click(44, 32)]
    filled = ring.region(clicks, LESION)
    np.testing.assert_array_equal(shown(filled), expected(SQUARE))
    open_ = ring.region([*clicks, Click(32, 32, positive=False)], LESION)
    assert not open_[28:36, 28:36].any()
    assert open_[32, 20]


def test_region__click_that_the_probe_denies_is_followed() -> None:
    found = segmenter(log_odds=-9).region([Click(32, 32)], LESION)
    assert shown(found)[7:9, 7:9].all()
    sure = segmenter(log_odds=9).region([Click(32, 32), Click(8, 8, positive=False)], LESION)
    assert not sure[4:12, 4:12].any()


@pytest.mark.parametrize(("x", "y"), [(0, 0), (63.9, 63.9), (0, 63), (63, 31.5)])
def test_region__click_at_the_very_border(x: float, y: float) -> None:
    assert segmenter().region([Click(x, y)], LESION)[int(y), int(x)]


@pytest.mark.parametrize(
    ("x", "y"), [(-0.1, 5), (5, -1), (64, 5), (5, 64), (float("nan"), 5), (5, float("inf"))]
)
@pytest.mark.parametrize("positive", [True, False])
def test_region__click_beside_the_photograph(
    x: float, y: float, positive: bool, refusal: Refusal
) -> None:
    with refusal(ClickError):
        segmenter().region([Click(32, 32), Click(x, y, positive)], LESION)


def test_region__one_pixel_clicked_both_ways(refusal: Refusal) -> None:
    with refusal(ClickError):
        segmenter().region([Click(3, 5), Click(3.5, 5.5, positive=False)], LESION)


@pytest.mark.parametrize("class_id", [-1, 5])
def test_region__a_class_that_there_is_not(class_id: int) -> None:
    with pytest.raises(ClickError, match=f"no class {class_id}: the probes know 0 to 4"):
        segmenter().region([Click(3, 5)], class_id)


def test_region__without_a_positive_click_is_empty() -> None:
    for clicks in ([], [Click(32, 32, positive=False)]):
        found = segmenter((40, 50), log_odds=9).region(clicks, LESION)
        assert (found.shape, found.any()) == ((40, 50), False)


@pytest.mark.property
@settings(max_examples=40)
@given(st.data())
def test_region__holds_positive_clicks_and_no_negative_ones(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    height, width = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    features = rng.normal(size=(3, 4, 4))
    some = ClickSegmenter(
        (height, width),
        (features / np.linalg.norm(features, axis=0)).astype(np.float16),
        rng.normal(scale=4, size=(2, 8, 8)).astype(np.float16),
    )
    pixels = data.draw(
        st.lists(
            st.tuples(st.integers(0, height - 1), st.integers(0, width - 1), st.booleans()),
            unique_by=lambda p: p[:2],
            max_size=6,
        )
    )
    found = some.region([Click(x + 0.5, y + 0.5, positive) for y, x, positive in pixels], 1)
    if any(positive for *_, positive in pixels):
        assert all(found[y, x] == positive for y, x, positive in pixels)
    else:
        assert not found.any()


@pytest.fixture(scope="module")
def probes(tiny: DiffusionUNet) -> Probes:
    settings = replace(QUICK, refined_class="lesion")
    return train_probes([Example(*spot(s)) for s in range(6)], tiny, settings, CLASSES)


@pytest.mark.training
def test_prepare_clicks__one_click_finds_the_spot(tiny: DiffusionUNet, probes: Probes) -> None:
    photograph, mask = spot(20, (40, 60))
    rows, columns = np.nonzero(mask == LESION)
    click = Click(float(columns.mean()), float(rows.mean()))
    found = region(probes, tiny, photograph, [click], LESION)
    truth = mask == LESION
    assert (found & truth).sum() / (found | truth).sum() > 0.7


def test_prepare_clicks__sees_what_predict_sees(tiny: DiffusionUNet, probes: Probes) -> None:
    """Where clicks move nothing, the likeliest class is that of the mask, refined but for GrabCut."""
    photograph = spot(21, (TINY.image_size, TINY.image_size))[0]
    probes = copy.copy(probes)
    probes.decision = Decision(SecondPass.MEAN)
    mask = probes.predict(tiny, [photograph])[0].mask
    seen = prepare_clicks(probes, tiny, photograph)
    np.testing.assert_array_equal(mask == LESION, seen.log_odds[LESION] > 0)
    without = like(probes, replace(probes.settings, refined_class=None))
    assert (prepare_clicks(without, tiny, photograph).log_odds != seen.log_odds).any()


def test_prepare_clicks__kept_in_memory(tiny: DiffusionUNet, probes: Probes) -> None:
    counting = Counting(tiny)
    seen = prepare_clicks(probes, counting, spot(20, (300, 400))[0])
    passes = len(counting.asked)
    seen.region([Click(150, 200)], LESION)
    assert len(counting.asked) == passes
    assert seen.shape == (300, 400)
    assert seen.nbytes == seen.features.nbytes + seen.log_odds.nbytes < 200_000
    np.testing.assert_allclose(
        np.linalg.norm(seen.features.astype(np.float64), axis=0), 1, atol=2e-3
    )


def test_prepare_clicks__class_never_trained_is_found_by_likeness(
    tiny: DiffusionUNet, probes: Probes
) -> None:
    assert "marker" in probes.absent
    photograph, mask = spot(20)
    seen = prepare_clicks(probes, tiny, photograph)
    assert not seen.log_odds[MARKER].any()
    assert np.abs(seen.log_odds.astype(float)).max() <= np.log(1 / SMALLEST) + 0.01
    rows, columns = np.nonzero(mask == LESION)
    place = Click(float(columns.mean()), float(rows.mean()))
    found = seen.region([place], MARKER)
    assert found[int(place.y), int(place.x)]
    assert found[mask == LESION].mean() > found[mask != LESION].mean() + 0.3


def test_prepare_clicks__another_backbone_is_refused(probes: Probes, refusal: Refusal) -> None:
    with refusal(WeightsError):
        prepare_clicks(probes, DiffusionUNet.random(TINY, seed=2), spot(20)[0])
