"""Windows around a lesion, and what the refinement pass in one changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from syrupy.assertion import SnapshotAssertion

from fedd.backbone import DiffusionUNet
from fedd.errors import TrainingDataError
from fedd.probes.decision import Decision, SecondPass
from fedd.probes.pixels import Example
from fedd.probes.refiner import SHORTEST, WINDOWS, lesion_windows, window_around
from fedd.probes.training import train_probes
from fedd.segment import Probes, load_probes
from tests.fedd.conftest import CLASSES, QUICK, like, spot
from tests.wording import Refusal

REFINING = replace(QUICK, refined_class="lesion", steps=40)


def block(rows: slice, columns: slice, shape: tuple[int, int] = (100, 200)) -> NDArray[np.bool_]:
    mask = np.zeros(shape, bool)
    mask[rows, columns] = True
    return mask


def examples(count: int) -> list[Example]:
    return [Example(*spot(seed), patient=f"p{seed}") for seed in range(count)]


@pytest.fixture(scope="module")
def probes(tiny: DiffusionUNet) -> Probes:
    return train_probes(examples(6), tiny, REFINING, CLASSES)


def test_window__around_the_largest_part_in_the_photographs_own_aspect() -> None:
    lesion = block(slice(40, 60), slice(100, 120)) | block(slice(0, 3), slice(0, 3))
    window = window_around(lesion, 1.5)
    assert window is not None
    assert window.slices(100, 200) == (slice(35, 65), slice(80, 140))
    assert window.slices(50, 50) == (slice(18, 33), slice(20, 35)), "of a mask at another size"


def test_window__no_lesion() -> None:
    assert window_around(np.zeros((10, 10), bool), 1.5) is None


def test_window__a_speck_is_not_blown_up_beyond_the_shortest_window() -> None:
    window = window_around(block(slice(50, 51), slice(100, 101)), 1.5)
    assert window is not None
    assert window.length == SHORTEST


@pytest.mark.property
@given(
    st.tuples(*[st.integers(0, 36)] * 2, *[st.integers(1, 20)] * 2),
    st.floats(1, 4),
    st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
def test_window__inside_any_photograph(
    lesion_at: tuple[int, int, int, int],
    reach: float,
    shift: tuple[float, float],
    size: tuple[int, int],
) -> None:
    row, column, height, width = lesion_at
    lesion = block(slice(row, row + height), slice(column, column + width), (37, 49))
    window = window_around(lesion, reach, shift)
    assert window is not None
    for part, length in zip(window.slices(*size), size, strict=True):
        assert 0 <= part.start < part.stop <= length
    if shift == (0, 0):
        assert window.of(lesion).sum() >= 0.9 * lesion.sum() - 1


def test_lesion_windows__cut_photograph_and_mask_alike_and_skip_masks_without_a_lesion() -> None:
    mask = np.where(block(slice(40, 60), slice(100, 120)), 1, 4).astype(np.uint8)
    photograph = np.repeat(mask[..., None], 3, 2) * 50
    cuts = list(lesion_windows(Example(photograph, mask, "p1", "V-VI"), 1, "a"))
    assert len(cuts) == WINDOWS
    for cut in cuts:
        np.testing.assert_array_equal(cut.photograph[..., 0], cut.mask * 50)
        assert (cut.patient, cut.tone) == ("p1", "V-VI")
        assert (cut.mask == 1).mean() > 2 * (mask == 1).mean()
    again = list(lesion_windows(Example(photograph, mask), 1, "a"))
    np.testing.assert_array_equal(again[1].mask, cuts[1].mask)
    assert list(lesion_windows(Example(photograph, np.full_like(mask, 4)), 1, "a")) == []


def test_lesion_windows__around_all_strokes_of_a_mask_that_is_labelled_in_part() -> None:
    """The strokes of a lesion are not parts of which the largest is the lesion."""
    lesion = block(slice(20, 60), slice(60, 140))
    whole = np.where(lesion, 1, 4).astype(np.uint8)
    strokes = np.full_like(whole, 255)
    for rows, columns in ((slice(20, 30), slice(60, 70)), (slice(55, 60), slice(130, 140))):
        strokes[rows, columns] = 1
    strokes[5:8, :] = 4
    photograph = np.zeros((*whole.shape, 3), np.uint8)
    of_whole = lesion_windows(Example(photograph, whole), 1, "a")
    of_strokes = lesion_windows(Example(photograph, strokes), 1, "a")
    for one, other in zip(of_whole, of_strokes, strict=True):
        assert one.mask.shape == other.mask.shape
        known = other.mask != 255
        np.testing.assert_array_equal(one.mask[known], other.mask[known])


@pytest.mark.training
def test_train__the_refiner_learns_from_the_same_patients(tiny: DiffusionUNet) -> None:
    """Windows of a validation image would leak into training."""
    stages: list[str] = []
    trained = train_probes(
        examples(24), tiny, REFINING, CLASSES, lambda s: lambda *_at: stages.append(s)
    )
    assert list(dict.fromkeys(stages)) == [
        *("Photographs through the backbone", "Training, steps"),
        *("Lesion windows through the backbone", "Training the refiner, steps"),
    ]
    assert trained.refiner is not None
    assert trained.refiner.settings == replace(REFINING, refined_class=None)
    assert not any("refinement" in note for note in trained.record.notes)
    wide, close = trained.record, trained.refiner.record
    assert len(wide.validation) > 0
    assert len(close.validation) == WINDOWS * len(wide.validation)
    assert len(close.learned) == WINDOWS * len(wide.learned)


@pytest.mark.training
def test_train__no_lesion_anywhere_no_refiner(
    tiny: DiffusionUNet, wording: SnapshotAssertion
) -> None:
    plain = [
        Example(e.photograph, np.where(e.mask == 1, 0, e.mask).astype(np.uint8))
        for e in examples(3)
    ]
    trained = train_probes(plain, tiny, REFINING, CLASSES)
    assert trained.refiner is None
    assert trained.record.notes[-1] == wording
    assert set(np.unique(trained.predict(tiny, [plain[0].photograph])[0].mask)) <= {0, 4}


@pytest.mark.training
def test_train__nothing_but_lesion_in_the_windows_no_refiner(
    tiny: DiffusionUNet, wording: SnapshotAssertion
) -> None:
    filled = [
        Example(e.photograph, np.full_like(e.mask, class_id))
        for e, class_id in zip(examples(2), (1, 4), strict=True)
    ]
    trained = train_probes(filled, tiny, REFINING, CLASSES)
    assert trained.refiner is None
    assert trained.record.notes[-1] == wording


def test_train__a_class_that_there_is_not(tiny: DiffusionUNet, refusal: Refusal) -> None:
    with refusal(TrainingDataError):
        train_probes(examples(2), tiny, replace(REFINING, refined_class="mole"), CLASSES)


@pytest.mark.training
def test_predict__refined_inside_the_window_only(
    tiny: DiffusionUNet, probes: Probes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert probes.refiner is not None
    monkeypatch.setattr(probes, "decision", Decision(SecondPass.REPLACE))
    photograph = spot(40)[0]
    first = like(probes).predict(tiny, [photograph])[0].mask
    # As if the refiner predicted nothing but ruler.
    only_ruler = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0]).view(1, 5, 1, 1).expand(1, 5, 8, 8)
    monkeypatch.setattr(probes.refiner, "probabilities", lambda activations, size: only_ruler)
    monkeypatch.setattr(probes.refiner, "trained", (1, 3))  # and never saw skin
    window = window_around(first == 1, 1.5)
    assert window is not None
    ruled = probes.predict(tiny, [photograph])[0].mask
    inside = np.zeros(first.shape, bool)
    inside[window.slices(*first.shape)] = True
    np.testing.assert_array_equal(ruled[~inside], first[~inside])
    np.testing.assert_array_equal(ruled[inside], np.where(first[inside] == 1, 3, first[inside]))
    assert (first[inside] == 1).any()
    assert (first[inside] == 4).any()


@pytest.mark.training
def test_predict__many_at_once_as_one_by_one(tiny: DiffusionUNet, probes: Probes) -> None:
    photographs = [spot(50)[0], np.full((40, 40, 3), 200, np.uint8), spot(51, (60, 30))[0]]
    together = probes.predict(tiny, photographs)
    for photograph, prediction in zip(photographs, together, strict=True):
        alone = probes.predict(tiny, [photograph])[0]
        np.testing.assert_array_equal(alone.mask, prediction.mask)


@pytest.mark.training
def test_save__both_passes_come_back(tiny: DiffusionUNet, probes: Probes, tmp_path: Path) -> None:
    probes.save(tmp_path / "probes.safetensors")
    loaded = load_probes(tmp_path / "probes.safetensors")
    assert loaded.refiner is not None
    assert probes.refiner is not None
    assert loaded.refiner.record == probes.refiner.record
    assert loaded.refiner.trained == probes.refiner.trained
    photograph = spot(60)[0]
    np.testing.assert_array_equal(
        loaded.predict(tiny, [photograph])[0].mask, probes.predict(tiny, [photograph])[0].mask
    )


@pytest.mark.training
def test_refiner__windows_not_mirrored_also_once_loaded(
    tiny: DiffusionUNet, tmp_path: Path
) -> None:
    settings = replace(REFINING, mirrored=True, mirrored_windows=False)
    trained = train_probes(examples(6), tiny, settings, CLASSES)
    trained.save(tmp_path / "probes.safetensors")
    for probes in (trained, load_probes(tmp_path / "probes.safetensors")):
        assert probes.refiner is not None
        assert (probes.settings.mirrored, probes.refiner.settings.mirrored) == (True, False)
