from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedd.backbone import DiffusionUNet
from fedd.errors import WeightsError
from fedd.probes.masks import agreement
from fedd.probes.quality import (
    FEWEST,
    NUMBERS,
    PRIOR,
    ClassQuality,
    Quality,
    absent_shares,
    fit_quality,
    prior_quality,
    region_numbers,
)
from fedd.probes.training import train_probes
from fedd.segment import load_probes
from tests.fedd.conftest import CLASSES, QUICK, like, spot
from tests.fedd.probes.test_training import TRAINING

SURE = np.array([0.9, 0.95, -1.0, 0.95])
UNSURE = np.array([0.3, 0.5, -1.5, 0.6])
NONE = np.array([0.0, 0.0, 0.0, 0.0])


def test_region_numbers__of_a_map_whose_values_are_known() -> None:
    lesion = torch.tensor([[0.9, 0.6, 0.4, 0.1]])
    maps = torch.stack([lesion, torch.zeros(1, 4), 1 - lesion])
    found = region_numbers(maps, torch.tensor([0.5, 0.0, 0.7]))
    expected = [1 / 3, 0.5, np.log10(0.5), 0.75]
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)
    assert found[1].tolist() == [0, 0, pytest.approx(np.log10(0.25)), 0]


def test_agreement__mean_iou_of_each_two_members() -> None:
    first, second = torch.tensor([[1.0, 1, 0, 0]]), torch.tensor([[1.0, 0, 0, 0]])
    members = torch.stack([torch.stack([m, 1 - m, torch.zeros(1, 4)]) for m in (first, second)])
    np.testing.assert_allclose(agreement(members), [1 / 2, 2 / 3, 0])


def test_agreement__one_member_agrees_with_itself() -> None:
    member = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 0.0]]]])
    assert agreement(member).tolist() == [1, 1, 0]


def test_expected__sure_regions_more_than_unsure_ones_and_none_as_counted() -> None:
    each = ClassQuality(not_predicted=0.25)
    assert each.expected(SURE) > 0.7 > 0.5 > each.expected(UNSURE)
    assert each.expected(NONE) == 0.25


def _cases(n: int, scale: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(n)
    share = rng.uniform(0, 1, n)
    numbers = UNSURE + share[:, None] * (SURE - UNSURE)
    return numbers, scale * (0.3 + 0.6 * share)


def test_fit__own_predictions_outweigh_the_prior_where_there_are_many() -> None:
    numbers, iou = _cases(400, 0.5)
    fitted = fit_quality(numbers, iou)
    expected = np.array([fitted.expected(each) for each in numbers])
    np.testing.assert_allclose(expected, iou, atol=0.06)
    assert abs(expected.mean() - iou.mean()) < 0.01


def test_fit__few_predictions_stay_near_the_prior_and_fewer_are_the_prior() -> None:
    numbers, iou = _cases(FEWEST, 0.5)
    few = fit_quality(numbers, iou)
    assert 0.02 < np.abs(np.array(few.weights) - PRIOR).max() < 1
    fewer = fit_quality(numbers[:-1], iou[:-1])
    assert (fewer.weights, fewer.n) == (PRIOR, 0)


def test_fit__a_class_that_is_not_predicted_is_expected_as_often_as_that_was_right() -> None:
    numbers = np.stack([NONE] * 9)
    assert fit_quality(numbers, np.array([1.0] * 8 + [0.0])).not_predicted == pytest.approx(0.85)


def test_absent_shares__half_a_mask_is_added_to_both_sides() -> None:
    shown = [frozenset({1, 4}), frozenset({4})]
    assert absent_shares(shown, (1, 2, 4)) == pytest.approx({1: 1.5 / 3, 2: 2.5 / 3, 4: 0.5 / 3})


def test_quality__of_another_program_is_refused() -> None:
    with pytest.raises(WeightsError, match="newer version"):
        Quality.from_dict({"1": {"slope": 1}})
    stored = Quality({1: ClassQuality(weights=(1.0, 2.0))}).to_dict()
    with pytest.raises(WeightsError, match=str(len(NUMBERS) + 1)):
        Quality.from_dict(stored)


@pytest.mark.training
def test_predict__expected_iou_of_each_known_class_but_background(
    tiny: DiffusionUNet, tmp_path: Path
) -> None:
    probes = train_probes(TRAINING, tiny, QUICK, CLASSES)
    photograph = spot(70)[0]
    found = probes.predict(tiny, [photograph])[0].expected_iou
    assert found.keys() == {1, 4}
    assert all(0 < value < 1 for value in found.values())
    assert found[4] > 0.5
    probes.save(tmp_path / "probes.safetensors")
    loaded = load_probes(tmp_path / "probes.safetensors")
    assert loaded.predict(tiny, [photograph])[0].expected_iou == found
    assert like(probes).predict(tiny, [photograph])[0].expected_iou == {}
    assert prior_quality(CLASSES, (0, 1), {}).classes.keys() == {1}
