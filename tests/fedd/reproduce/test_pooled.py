from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedd.backbone import DiffusionUNet
from fedd.errors import WeightsError
from fedd.malignancy.classifier import ClassifierSettings, features_of
from fedd.reproduce import ImageSet, PaperSplit
from fedd.reproduce.plan import CLASSIFICATION
from fedd.reproduce.pooled import PooledFeatures


@pytest.mark.slow
def test_of__what_the_classifier_reads(
    tiny: DiffusionUNet, parts: PaperSplit, tmp_path: Path
) -> None:
    pooled = PooledFeatures(tiny, (2, 4), 10, tmp_path)
    items = parts.sets[ImageSet.SEGMENTATION_TEST][:10]  # more than one pass
    for block in (2, 4):
        photographs = [item.photograph() for item in items]
        expected = features_of(photographs, tiny, ClassifierSettings(block, 10))
        torch.testing.assert_close(pooled.of(items, block), expected)


def test_of__one_pass_for_all_blocks_and_runs(
    tiny: DiffusionUNet, parts: PaperSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = PooledFeatures(tiny, (2, 4), 10, tmp_path).of(parts.validation(CLASSIFICATION), 2)
    monkeypatch.setattr(tiny, "activations", _never)
    again = PooledFeatures(tiny, (2, 4), 10, tmp_path)
    assert torch.equal(again.of(parts.validation(CLASSIFICATION), 2), first)
    assert again.of(parts.validation(CLASSIFICATION), 4).shape[0] == len(
        parts.validation(CLASSIFICATION)
    )


def test_of__damaged_file_is_computed_anew(
    tiny: DiffusionUNet, parts: PaperSplit, tmp_path: Path
) -> None:
    first = PooledFeatures(tiny, (2,), 10, tmp_path).of(parts.validation(CLASSIFICATION), 2)
    for path in tmp_path.iterdir():
        path.write_bytes(b"damaged")
    assert torch.equal(
        PooledFeatures(tiny, (2,), 10, tmp_path).of(parts.validation(CLASSIFICATION), 2), first
    )


def test_of__activations_that_are_not_numbers(
    tiny: DiffusionUNet, parts: PaperSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(images: Tensor, timestep: int, blocks: Sequence[int]) -> dict[int, Tensor]:
        return {block: torch.full((len(images), 8, 4, 4), torch.nan) for block in blocks}

    monkeypatch.setattr(tiny, "activations", damaged)
    with pytest.raises(WeightsError, match="not numbers"):
        PooledFeatures(tiny, (2,), 10, tmp_path).of(parts.validation(CLASSIFICATION), 2)


def _never(*_: object) -> dict[int, Tensor]:
    raise AssertionError("the backbone ran again")
