"""Phantoms: the same seed gives the same bytes, and the mask tells the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from annotation_protocol.phantoms.phantoms import (
    BACKGROUND,
    DIAGNOSES,
    LESION,
    MARKER,
    RULER,
    SKIN,
    TONES,
    Kind,
    Phantom,
    Scene,
    Tone,
    draw_scene,
    render,
)

SIZE = 96

EVERYTHING = Scene("III-IV", "ulcerated", marker=True, ruler=True, cloth=True)


def _render(scene: Scene, seed: int = 0, size: int = SIZE) -> Phantom:
    return render(scene, np.random.default_rng(seed), size)


@pytest.mark.parametrize("tone", TONES)
def test_render__same_seed_same_bytes(tone: Tone) -> None:
    scene = Scene(tone, "scaly", marker=True, ruler=True, cloth=True, hair=0.3, blur=0.01)
    one, again, other = _render(scene), _render(scene), _render(scene, seed=1)
    assert one.image.tobytes() == again.image.tobytes()
    assert one.mask.tobytes() == again.mask.tobytes()
    assert (one.diagnosis, one.malignant) == (again.diagnosis, again.malignant)
    assert one.image.tobytes() != other.image.tobytes()


@pytest.mark.parametrize("size", [48, 96, 130])
def test_render__shape_and_type(size: int) -> None:
    phantom = _render(Scene("III-IV", "pearly"), size=size)
    assert phantom.image.shape == (size, size, 3)
    assert phantom.image.dtype == np.uint8
    assert phantom.mask.shape == (size, size)
    assert phantom.mask.dtype == np.uint8


@pytest.mark.parametrize("tone", TONES)
@pytest.mark.parametrize("kind", DIAGNOSES)
def test_render__lesion_on_skin(tone: Tone, kind: Kind) -> None:
    phantom = _render(Scene(tone, kind))
    assert set(np.unique(phantom.mask)) == {LESION, SKIN}
    assert phantom.mask[SIZE // 2, SIZE // 2] == LESION
    assert 0.02 < np.mean(phantom.mask == LESION) < 0.4
    assert (phantom.diagnosis, phantom.malignant) in DIAGNOSES[kind]


@pytest.mark.parametrize("tone", TONES)
@pytest.mark.parametrize("seed", range(3))
def test_render__everything_asked_for(tone: Tone, seed: int) -> None:
    scene = Scene(tone, "pigmented", marker=True, ruler=True, cloth=True)
    found = set(np.unique(_render(scene, seed).mask))
    assert found == {BACKGROUND, LESION, MARKER, RULER, SKIN}


@pytest.mark.parametrize(
    ("without", "class_id"),
    [
        (replace(EVERYTHING, marker=False), MARKER),
        (replace(EVERYTHING, ruler=False), RULER),
        (replace(EVERYTHING, cloth=False), BACKGROUND),
    ],
)
def test_render__nothing_that_is_not_asked_for(without: Scene, class_id: int) -> None:
    assert class_id in _render(EVERYTHING).mask
    assert class_id not in _render(without).mask


@pytest.mark.parametrize("tone", TONES)
def test_render__plaster_hides_most_of_the_lesion(tone: Tone) -> None:
    scene = Scene(tone, "erythematous", radius=0.15)
    bare, covered = _render(scene).mask, _render(replace(scene, plaster=True)).mask
    assert np.all(bare[covered == LESION] == LESION)
    assert np.sum(covered == LESION) < 0.5 * np.sum(bare == LESION)


@pytest.mark.parametrize("tone", TONES)
def test_render__hair_is_what_it_lies_on(tone: Tone) -> None:
    scene = Scene(tone, "pigmented")
    bare, hairy = _render(scene), _render(replace(scene, hair=0.5))
    assert np.array_equal(bare.mask, hairy.mask)
    assert not np.array_equal(bare.image, hairy.image)


@pytest.mark.parametrize("tone", TONES)
def test_render__blur_keeps_the_mask(tone: Tone) -> None:
    scene = Scene(tone, "pigmented", wild=0.0)
    sharp, blurred = _render(scene), _render(replace(scene, blur=0.04))
    assert np.array_equal(sharp.mask, blurred.mask)

    def steepest(phantom: Phantom) -> float:
        rows = phantom.image.astype(np.float32).mean(2)
        return float(np.percentile(np.abs(np.diff(rows[::4, ::4], axis=1)), 99))

    assert steepest(blurred) < steepest(sharp)


@pytest.mark.slow
def test_render__tones_differ_in_lightness() -> None:
    light = [
        np.mean([_render(Scene(tone, "pale", wild=0.0), seed).image.mean() for seed in range(4)])
        for tone in TONES
    ]
    assert light[0] > light[1] > light[2]


def test_render__several_lesions() -> None:
    scene = Scene("I-II", "pigmented", radius=0.1)
    one, three = _render(scene).mask, _render(replace(scene, lesions=3)).mask
    assert np.sum(three == LESION) > 1.5 * np.sum(one == LESION)


@pytest.mark.parametrize("tone", TONES)
def test_draw_scene__within_bounds(tone: Tone) -> None:
    rng = np.random.default_rng(5)
    scenes = [draw_scene(rng, tone, wild=wild) for wild in (0.0, 0.5, 1.0) for _ in range(30)]
    assert {scene.tone for scene in scenes} == {tone}
    assert {scene.kind for scene in scenes} == set(DIAGNOSES)
    assert all(0.05 <= scene.radius <= 0.36 for scene in scenes)
    assert all(0.25 <= scene.contrast <= 1 for scene in scenes)
    assert all(scene.hair >= 0 and scene.blur >= 0 for scene in scenes)
    for option in ("marker", "ruler", "cloth"):
        assert {getattr(scene, option) for scene in scenes} == {True, False}


def test_draw_scene__same_seed_same_scene() -> None:
    one, again = (draw_scene(np.random.default_rng(3), "V-VI") for _ in range(2))
    assert one == again
