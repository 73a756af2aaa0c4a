from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedd.backbone import DiffusionUNet
from fedd.dataset import UNKNOWN
from fedd.probes import pixels as module
from fedd.probes.pixels import Example, Sampling, prepare_example, sample
from tests.fedd.conftest import QUICK, TINY, spot

SAMPLING = Sampling(views=2, count=90, balance=0.5, seed=0)
EXAMPLES = [Example(*spot(s)) for s in range(4)]


@pytest.mark.slow
def test_sample__an_image_gives_the_same_whatever_is_beside_it(tiny: DiffusionUNet) -> None:
    """So one more mask leaves what was cached of the others as it is."""
    squares = [prepare_example(e, TINY.image_size) for e in EXAMPLES]
    together = sample(squares, tiny, QUICK.features, SAMPLING)
    for number in (3, 1):
        alone = sample([squares[number]], tiny, QUICK.features, SAMPLING)
        theirs = together.image == number
        torch.testing.assert_close(alone.activations, together.activations[theirs])
        assert torch.equal(alone.labels, together.labels[theirs])


@pytest.mark.slow
def test_sample__as_many_pixels_of_each_view_and_other_ones_for_another_seed(
    tiny: DiffusionUNet,
) -> None:
    squares = [prepare_example(e, TINY.image_size) for e in EXAMPLES]
    found = sample(squares, tiny, QUICK.features, SAMPLING)
    assert torch.bincount(found.image).tolist() == [90] * 4
    assert found.activations.dtype == torch.float16
    other = sample(squares, tiny, QUICK.features, replace(SAMPLING, seed=1))
    assert not torch.equal(other.activations, found.activations)


def test_views__are_8_bit_pixels_and_carry_unknown_along() -> None:
    """What a cache names an entry by is exactly what the backbone sees."""
    mask = EXAMPLES[0].mask.copy()
    mask[:, :20] = UNKNOWN
    item = prepare_example(replace(EXAMPLES[0], mask=mask), TINY.image_size)
    images, masks, corrected = module._views(item, SAMPLING)
    assert torch.equal(images[0], item.image)
    levels = (images + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)
    assert [UNKNOWN in m for m in masks] == [True] * 3
    assert set(torch.unique(masks).tolist()) <= {1, 4, UNKNOWN}
    assert not corrected.any()


def test_views__corrected_pixels_move_with_the_mask() -> None:
    """The correction is of the lesion: in every view it is where the lesion is, and nowhere else."""
    mask = EXAMPLES[0].mask
    item = prepare_example(replace(EXAMPLES[0], corrected=mask == 1), TINY.image_size)
    _, masks, corrected = module._views(item, replace(SAMPLING, views=3))
    assert torch.equal(corrected, masks == 1)
    assert not torch.equal(corrected[0], corrected[1])


def test_sample__tells_which_pixels_were_corrected(tiny: DiffusionUNet) -> None:
    examples = [replace(EXAMPLES[0], corrected=EXAMPLES[0].mask == 1), EXAMPLES[1]]
    squares = [prepare_example(e, TINY.image_size) for e in examples]
    found = sample(squares, tiny, QUICK.features, replace(SAMPLING, views=0))
    assert torch.equal(found.corrected, (found.labels == 1) & (found.image == 0))
    assert sum(found.channels) == found.activations.shape[1]
    assert len(found.channels) == len(QUICK.features.blocks)


def test_sample__unknown_pixels_are_never_read(tiny: DiffusionUNet) -> None:
    mask = np.full((40, 40), UNKNOWN, np.uint8)
    mask[5:8, 5:8] = 1
    nowhere = np.full((40, 40), UNKNOWN, np.uint8)
    examples = [replace(EXAMPLES[0], mask=mask), replace(EXAMPLES[1], mask=nowhere), EXAMPLES[2]]
    squares = [prepare_example(e, TINY.image_size) for e in examples]
    found = sample(squares, tiny, QUICK.features, replace(SAMPLING, views=0))
    assert set(found.labels[found.image == 0].tolist()) == {1}
    assert set(found.image.tolist()) == {0, 2}


def test_points__balance_evens_out_the_classes() -> None:
    mask = torch.full((32, 32), 4, dtype=torch.uint8)
    mask[:4, :4] = 1  # 1 of 64
    shares = []
    for balance in (0.0, 0.5, 1.0):
        points = module._balanced_points(mask, 4000, balance, torch.Generator().manual_seed(0))
        shares.append(float((mask[points[:, 0], points[:, 1]] == 1).float().mean()))
    np.testing.assert_allclose(shares, [1 / 64, 1 / (1 + 63**0.5), 0.5], atol=0.03)


def test_square__image_without_a_patient_is_of_its_own() -> None:
    one, two = (prepare_example(e, TINY.image_size) for e in EXAMPLES[:2])
    assert one.patient != two.patient
    assert one.classes == frozenset({1, 4})
    named = prepare_example(replace(EXAMPLES[0], patient="p"), TINY.image_size)
    assert (named.patient, named.digest) == ("p", one.digest)
