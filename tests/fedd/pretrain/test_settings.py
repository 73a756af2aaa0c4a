from __future__ import annotations

import pytest

from fedd.errors import TrainingDataError
from fedd.pretrain.settings import PretrainSettings, with_changes
from tests.wording import Refusal


def test_with_changes__each_kind_of_value() -> None:
    changes = ["zoom=0.3,1.6", "batch-size = 8", "pair_share=0.25", "image_size=192"]
    settings = with_changes(PretrainSettings(steps=7), changes)
    assert settings == PretrainSettings(
        steps=7, zoom=(0.3, 1.6), batch_size=8, pair_share=0.25, image_size=192
    )


@pytest.mark.parametrize(
    "change",
    [
        "zooom=1",
        "zoom",
        "zoom=1",
        "zoom=1.6,0.3",
        "zoom=nan,1",
        "batch_size=8.5",
        "image_size=wide",
        "image_size=0",
        "learning_rate=much",
        "learning_rate=nan",
        "masked_share=40",
        "align_weight=-1",
        "pair_weight=nan",
        "heads_first=3000",
        "pair_share=0.05",
        "pair_share=0.75",
    ],
)
def test_with_changes__refused(change: str, refusal: Refusal) -> None:
    with refusal(TrainingDataError):
        with_changes(PretrainSettings(), [change])


def test_settings__composites_without_phantoms(refusal: Refusal) -> None:
    with refusal(TrainingDataError):
        PretrainSettings(phantoms=0, composite_share=1.0)


def test_settings__parts_of_a_batch() -> None:
    settings = PretrainSettings(batch_size=16, phantom_share=0.5, pair_share=0.25)
    assert (settings.rendered, settings.pairs, settings.photographs) == (8, 2, 4)
    assert PretrainSettings(batch_size=16, phantoms=0).photographs == 16


def test_identity__only_length_and_scoring_may_change() -> None:
    settings = PretrainSettings()
    longer = with_changes(settings, ["steps=9000", "score_every=10"])
    assert longer.identity() == settings.identity()
    assert with_changes(settings, ["seed=1"]).identity() != settings.identity()


@pytest.mark.parametrize("change", ["ema=1.5", "warmup=-1", "score_every=0", "zoom=0,1"])
def test_with_changes__out_of_range(change: str) -> None:
    with pytest.raises(TrainingDataError, match=change.partition("=")[0]):
        with_changes(PretrainSettings(), [change])
