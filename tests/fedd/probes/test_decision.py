from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedd.backbone import DiffusionUNet
from fedd.errors import WeightsError
from fedd.features import extract, prepare
from fedd.probes.decision import Ensemble, combine
from fedd.probes.ensemble import HIDDEN
from fedd.segment import PAPER, SMALL, Probes, ProbeSettings
from tests.fedd.conftest import CLASSES, QUICK, TINY, spot

SIZE = TINY.image_size


def at_one_position(*members: list[float]) -> Tensor:
    """(members, K, 1, 1)"""
    return torch.tensor(members)[..., None, None]


def decided(*members: list[float], by: Ensemble) -> int:
    return int(combine(at_one_position(*members), by).argmax(0))


#: Two members find class 2 just likelier than 1, one is sure of 1.
SPLIT = ([0.0, 0.45, 0.55], [0.0, 0.45, 0.55], [0.0, 1.0, 0.0])


def test_combine__the_majority_outvotes_one_sure_member() -> None:
    assert decided(*SPLIT, by=Ensemble.VOTE) == 2
    assert decided(*SPLIT, by=Ensemble.MEAN) == 1


def test_combine__shares_of_the_members() -> None:
    assert combine(at_one_position(*SPLIT), Ensemble.VOTE).flatten().tolist() == pytest.approx(
        [0, 1 / 3, 2 / 3]
    )


def test_combine__a_tie_goes_to_the_lowest_class() -> None:
    tie = ([0.0, 0.1, 0.9], [0.0, 0.9, 0.1], [0.0, 0.9, 0.1], [0.0, 0.1, 0.9], [1.0, 0.0, 0.0])
    assert decided(*tie, by=Ensemble.VOTE) == 1


def test_combine__vote_is_the_mode_of_the_members_classes() -> None:
    rng = torch.Generator().manual_seed(0)
    members = torch.rand(3, 5, 4, 9, 7, generator=rng)
    peer = members.argmax(2).mode(1).values  # as ddpm-segmentation
    assert torch.equal(combine(members, Ensemble.VOTE).argmax(1), peer)


def probes_that_disagree(**changes: Any) -> Probes:
    """Untrained members: each thinks something else of the activations."""
    rng = torch.Generator().manual_seed(0)
    settings = replace(QUICK, members=5, **changes)
    widths = (4 * TINY.model_channels, *HIDDEN, len(CLASSES))  # raw and standardised, of two blocks
    tensors = {}
    for layer, (fan_in, fan_out) in enumerate(pairwise(widths), start=1):
        tensors[f"w{layer}"] = torch.randn(5, fan_in, fan_out, generator=rng) * fan_in**-0.5
        tensors[f"b{layer}"] = torch.randn(5, fan_out, generator=rng) * 0.1
    backbone = DiffusionUNet.random(TINY, seed=1)
    trained = tuple(range(len(CLASSES)))
    return Probes(settings, CLASSES, trained, backbone.name, backbone.hash, tensors)


def test_predict__the_members_decide_as_the_settings_say(tiny: DiffusionUNet) -> None:
    probes = probes_that_disagree(ensemble=Ensemble.VOTE)
    photograph = spot(3, (SIZE, SIZE))[0]
    activations = extract(tiny, prepare(photograph, SIZE)[None], probes.settings.features)
    members = probes.probabilities(activations, SIZE)
    by_vote = members.argmax(1).mode(0).values.numpy()
    by_mean = members.mean(0).argmax(0).numpy()
    assert (by_vote != by_mean).any()
    assert np.array_equal(probes.predict(tiny, [photograph])[0].mask, by_vote)
    probes.settings = replace(probes.settings, ensemble=Ensemble.MEAN)
    assert np.array_equal(probes.predict(tiny, [photograph])[0].mask, by_mean)


def test_settings__a_file_that_does_not_say_takes_the_mean() -> None:
    stored = PAPER.to_dict()
    assert stored.pop("ensemble") == "vote"
    assert ProbeSettings.from_dict(stored).ensemble is Ensemble.MEAN


def test_settings__paper_votes_and_the_shipped_ones_do_not() -> None:
    assert ProbeSettings.from_dict(PAPER.to_dict()).ensemble is Ensemble.VOTE
    assert SMALL.ensemble is Ensemble.MEAN


def test_settings__unknown_way_to_decide() -> None:
    with pytest.raises(WeightsError, match="'median', not one of mean, vote"):
        ProbeSettings.from_dict({**PAPER.to_dict(), "ensemble": "median"})


def test_trains_like__another_decision_but_no_other_training() -> None:
    voting = replace(SMALL, ensemble=Ensemble.VOTE)
    assert voting.trains_like(SMALL)
    assert not voting.trains_like(replace(SMALL, seed=1))
