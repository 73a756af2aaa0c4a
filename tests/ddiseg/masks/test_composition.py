"""One mask from brush layers, against a slow reading of the rules, pixel by pixel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from annotation_protocol import load_protocol
from ddiseg.errors import InputError
from ddiseg.masks import Mask
from ddiseg.masks.composition import Composition, Layer, Origin, Region, compose
from tests.wording import Refusal

PROTOCOL = load_protocol()
BACKGROUND, LESION, MARKER, RULER, SKIN = range(5)
PRECEDENCE = [entry.precedence for entry in PROTOCOL.classes]
HOLE_FILL = PROTOCOL.class_named(PROTOCOL.hole_fill).index
SIZE = (3, 4)

Case = tuple[list[Layer], Mask | None]

bases = hnp.arrays(np.uint8, SIZE, elements=st.integers(0, 4))
regions = hnp.arrays(np.bool_, SIZE)
class_ids = st.integers(0, 4)


def layer(origin: st.SearchStrategy[Origin]) -> st.SearchStrategy[Layer]:
    return st.builds(Layer, class_ids, regions, origin)


any_layers = st.lists(layer(st.sampled_from(Origin)), max_size=6)


@st.composite
def annotations(draw: st.DrawFn) -> tuple[list[Layer], Mask]:
    """A prediction after a person worked on it: each region of it left alone, edited or deleted,
    and strokes besides; in any order."""
    base = draw(bases)
    layers = draw(st.lists(layer(st.sampled_from([Origin.CHANGED, Origin.MANUAL])), max_size=4))
    for class_id in range(5):
        fate = draw(st.sampled_from([Origin.PREDICTION, Origin.CHANGED, None]))
        if fate is Origin.PREDICTION:
            layers.append(Layer(class_id, base == class_id, fate))
        elif fate is Origin.CHANGED:
            layers.append(Layer(class_id, draw(regions), fate))
    return draw(st.permutations(layers)), base


def predicted(base: Mask) -> list[Layer]:
    return [Layer(class_id, base == class_id, Origin.PREDICTION) for class_id in range(5)]


def at(*pixels: tuple[int, int]) -> Region:
    region = np.zeros(SIZE, dtype=np.bool_)
    for pixel in pixels:
        region[pixel] = True
    return region


def slowly(layers: list[Layer], base: Mask | None) -> dict[str, Any]:
    """The rules as they are written down, one pixel at a time."""
    mask = np.zeros(SIZE, dtype=np.uint8)
    conflicts = holes = 0
    for pixel in np.ndindex(SIZE):
        stayed, added, new = [], [], []
        for one in layers:
            if not one.region[pixel]:
                continue
            if one.origin is Origin.MANUAL:
                new.append(one.class_id)
            elif one.origin is Origin.PREDICTION or (
                base is not None and base[pixel] == one.class_id
            ):
                stayed.append(one.class_id)
            else:
                added.append(one.class_id)
        if new:
            mask[pixel] = max(new, key=PRECEDENCE.__getitem__)
        elif added:
            mask[pixel] = max(added, key=PRECEDENCE.__getitem__)
        elif stayed:
            mask[pixel] = stayed[-1]
        else:
            mask[pixel] = HOLE_FILL
            holes += 1
        conflicts += len({*added, *new}) > 1
    return {"mask": mask.tolist(), "conflicts": conflicts, "holes": holes}


def plainly(composition: Composition) -> dict[str, Any]:
    return {
        "mask": composition.mask.tolist(),
        "conflicts": composition.conflicts,
        "holes": composition.holes,
    }


@pytest.mark.property
@given(any_layers, st.none() | bases)
def test_compose__as_a_slow_loop_over_pixels(layers: list[Layer], base: Mask | None) -> None:
    found = compose(layers, SIZE, base, PROTOCOL)
    assert plainly(found) == slowly(layers, base)
    assert found.mask.dtype == np.uint8
    assert found.changed == (None if base is None else int((found.mask != base).sum()))


@pytest.mark.property
@given(bases, st.randoms())
def test_compose__untouched_prediction_is_the_base(base: Mask, random: Any) -> None:
    layers = predicted(base)
    random.shuffle(layers)
    found = compose(layers, SIZE, base, PROTOCOL)
    np.testing.assert_array_equal(found.mask, base)
    assert (found.conflicts, found.holes, found.changed) == (0, 0, 0)


@pytest.mark.property
@given(annotations(), st.randoms())
def test_compose__order_of_the_layers_changes_nothing(case: Case, random: Any) -> None:
    layers, base = case
    shuffled = random.sample(layers, len(layers))
    assert plainly(compose(shuffled, SIZE, base, PROTOCOL)) == plainly(
        compose(layers, SIZE, base, PROTOCOL)
    )


@pytest.mark.property
@given(any_layers, st.none() | bases)
@example([Layer(LESION, at((0, 0)), Origin.MANUAL), Layer(LESION, at((1, 1)), Origin.MANUAL)], None)
def test_compose__modifies_nothing_that_it_is_given(layers: list[Layer], base: Mask | None) -> None:
    given_arrays = [one.region for one in layers] + ([] if base is None else [base])
    before = [array.copy() for array in given_arrays]
    for array in given_arrays:
        array.flags.writeable = False
    mask = compose(layers, SIZE, base, PROTOCOL).mask
    mask[:] = 9  # the result is the caller's own, too
    for array, copy in zip(given_arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_compose__an_edit_is_not_lost_under_a_later_untouched_region() -> None:
    """The lesion region was extended over skin; the skin region, untouched, stands after it."""
    base = np.full(SIZE, SKIN, np.uint8)
    base[1, 1] = LESION
    edited = Layer(LESION, at((1, 1), (1, 2)), Origin.CHANGED)
    for layers in ([edited, predicted(base)[SKIN]], [predicted(base)[SKIN], edited]):
        found = compose(layers, SIZE, base, PROTOCOL)
        assert found.mask[1, 2] == found.mask[1, 1] == LESION
        assert (found.conflicts, found.holes, found.changed) == (0, 0, 1)


def test_compose__a_stroke_beats_an_edit_of_higher_precedence_and_is_a_conflict() -> None:
    base = np.full(SIZE, BACKGROUND, np.uint8)
    edited = Layer(RULER, at((0, 0), (0, 1)), Origin.CHANGED)
    stroke = Layer(SKIN, at((0, 0)), Origin.MANUAL)
    found = compose([edited, stroke, *predicted(base)], SIZE, base, PROTOCOL)
    assert found.mask[0, :3].tolist() == [SKIN, RULER, BACKGROUND]
    assert found.conflicts == 1


def test_compose__a_stroke_that_repeats_the_base_wins_and_is_no_conflict_by_itself() -> None:
    base = np.full(SIZE, SKIN, np.uint8)
    stroke = Layer(SKIN, at((0, 0), (0, 1)), Origin.MANUAL)
    found = compose([*predicted(base), stroke], SIZE, base, PROTOCOL)
    assert (found.conflicts, found.changed) == (0, 0)
    edited = Layer(LESION, at((0, 0)), Origin.CHANGED)
    found = compose([*predicted(base), stroke, edited], SIZE, base, PROTOCOL)
    assert found.mask[0, 0] == SKIN
    assert found.conflicts == 1


def test_compose__erased_pixels_become_holes() -> None:
    base = np.full(SIZE, SKIN, np.uint8)
    rest = np.ones(SIZE, dtype=np.bool_)
    rest[2] = False
    found = compose([Layer(SKIN, rest, Origin.CHANGED)], SIZE, base, PROTOCOL)
    assert (found.mask[2] == HOLE_FILL).all()
    assert (found.holes, found.changed, found.conflicts) == (4, 4, 0)


def test_compose__unlabelled_pixels_of_the_base() -> None:
    base = np.full(SIZE, SKIN, np.uint8)
    base[2] = 255
    untouched = predicted(base)[SKIN]
    found = compose([untouched], SIZE, base, PROTOCOL)
    assert (found.mask[2] == HOLE_FILL).all(), "what a person hands in is whole"
    assert (found.holes, found.changed) == (4, 0), "nobody changed them"
    drawn = Layer(LESION, at((2, 0), (1, 0)), Origin.MANUAL)
    found = compose([untouched, drawn], SIZE, base, PROTOCOL)
    assert (found.holes, found.changed) == (3, 2)


def test_compose__hole_fill_is_the_protocols() -> None:
    protocol = replace(PROTOCOL, hole_fill="skin")
    found = compose([], SIZE, np.full(SIZE, SKIN, np.uint8), protocol)
    assert (found.mask == SKIN).all()
    assert (found.holes, found.changed) == (12, 0)


def test_compose__without_a_base_an_edited_region_is_newly_drawn() -> None:
    edited = Layer(LESION, at((0, 0), (0, 1)), Origin.CHANGED)
    untouched = Layer(RULER, at((0, 0)), Origin.PREDICTION)
    stroke = Layer(SKIN, at((0, 1)), Origin.MANUAL)
    found = compose([edited, untouched, stroke], SIZE, None, PROTOCOL)
    assert found.mask[0, :2].tolist() == [LESION, SKIN]
    assert (found.conflicts, found.changed) == (1, None)


def test_compose__a_relabelled_region_claims_all_its_pixels() -> None:
    base = np.full(SIZE, SKIN, np.uint8)
    found = compose([Layer(BACKGROUND, base == SKIN, Origin.CHANGED)], SIZE, base, PROTOCOL)
    assert (found.mask == BACKGROUND).all()
    assert (found.holes, found.changed) == (0, 12)


def test_origin__is_label_studios_word() -> None:
    assert [Origin("prediction"), Origin("prediction-changed"), Origin("manual")] == list(Origin)


@pytest.mark.parametrize(
    ("shape", "class_id", "base"),
    [
        ((3, 5), LESION, None),
        ((4, 3), SKIN, None),
        (SIZE, 5, None),
        (SIZE, -1, None),
        (SIZE, SKIN, np.zeros((4, 3), np.uint8)),
        (SIZE, SKIN, np.full(SIZE, 7, np.uint8)),
    ],
)
def test_compose__refused(
    shape: tuple[int, int], class_id: int, base: Mask | None, refusal: Refusal
) -> None:
    one = Layer(class_id, np.ones(shape, dtype=np.bool_), Origin.MANUAL)
    with refusal(InputError):
        compose([one], SIZE, base, PROTOCOL)


@pytest.mark.parametrize("region", [np.ones(SIZE, np.uint8), np.ones((1, *SIZE), bool)])
def test_layer__refused(region: Any, refusal: Refusal) -> None:
    with refusal(InputError):
        Layer(LESION, region, Origin.MANUAL)
