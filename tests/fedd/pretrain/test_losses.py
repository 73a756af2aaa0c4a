from __future__ import annotations

import math

import pytest
import torch

from annotation_protocol import UNLABELLED
from annotation_protocol.phantoms.phantoms import LESION, MARKER, SKIN
from fedd.pretrain import losses

#: One image without noise.
CLEAR = torch.ones(1)


def _logits(*of_class: float) -> torch.Tensor:
    """The same logits at each of 4 x 4 positions."""
    return (
        torch.tensor(of_class, dtype=torch.float32)[None, :, None, None]
        .expand(1, -1, 4, 4)
        .contiguous()
    )


def test_alignment__direction_only() -> None:
    target = torch.randn(1, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    for factor, expected in ((3.0, 0.0), (-1.0, 2.0)):
        found = losses.alignment({8: target * factor}, {8: target}, CLEAR)
        assert float(found) == pytest.approx(expected, abs=1e-5)


def test_alignment__noisy_images_count_less() -> None:
    target = torch.ones(2, 3, 4, 4)
    guess = torch.stack([target[0], -target[1]])
    found = losses.alignment({8: guess}, {8: target}, torch.tensor([0.75, 0.25]))
    assert float(found) == pytest.approx(0.25 * 2)


def test_segmentation__unknown_pixels_do_not_count() -> None:
    mask = torch.full((1, 8, 8), UNLABELLED)
    mask[:, :4] = SKIN
    sure = torch.zeros(1, 5, 4, 4)
    sure[:, SKIN, :2] = 50.0  # right where known
    sure[:, LESION, 2:] = 50.0  # anything where unknown
    assert float(losses.segmentation({5: sure}, mask, CLEAR)) == pytest.approx(0, abs=1e-4)
    known = losses.segmentation({5: torch.zeros(1, 5, 4, 4)}, mask, CLEAR)
    assert float(known) == pytest.approx(math.log(5), rel=1e-4)


def test_segmentation__nothing_known() -> None:
    mask = torch.full((1, 8, 8), UNLABELLED)
    assert float(losses.segmentation({5: torch.randn(1, 5, 4, 4)}, mask, CLEAR)) == 0


def test_invariance__is_the_divergence_of_the_lesions_probability() -> None:
    nowhere = torch.zeros(1, 16, 16, dtype=torch.bool)
    without, over = _logits(0, 0), _logits(0, math.log(3))  # lesion 1/2, and 3/4
    expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    found = losses.invariance({5: without}, {5: over}, nowhere, CLEAR)
    assert float(found) == pytest.approx(expected, rel=1e-4)
    assert float(losses.invariance({5: over}, {5: over}, nowhere, CLEAR)) == pytest.approx(0)


def test_invariance__not_under_the_pen_nor_beside_it() -> None:
    drawn = torch.zeros(1, 16, 16, dtype=torch.bool)
    drawn[:, :4] = True  # the first of four rows of positions; the second is beside it
    without, over = _logits(0, 0, 0), _logits(0, 0, 0).clone()
    over[:, MARKER, :2] = 9.0
    assert float(losses.invariance({5: without}, {5: over}, drawn, CLEAR)) == pytest.approx(0)
    over[:, MARKER, 2] = 9.0
    assert float(losses.invariance({5: without}, {5: over}, drawn, CLEAR)) > 0.1


def test_invariance__only_the_image_with_them_learns() -> None:
    without, over = _logits(0, 0).requires_grad_(), _logits(0, 1).requires_grad_()
    nowhere = torch.zeros(1, 16, 16, dtype=torch.bool)
    torch.autograd.backward(losses.invariance({5: without}, {5: over}, nowhere, CLEAR))
    assert without.grad is None
    assert over.grad is not None
    assert over.grad.abs().sum() > 0


def test_hidden_patches__a_share_of_every_second_image() -> None:
    images = torch.zeros(40, 3, 128, 128)
    hidden = losses.hidden_patches(images, 0.4, 64, torch.Generator().manual_seed(0))
    assert hidden.shape == (40, 1, 64, 64)
    assert not hidden[1::2].any()
    assert float(hidden[::2].float().mean()) == pytest.approx(0.4, abs=0.03)
    patches = hidden.view(40, 8, 8, 8, 8)
    assert (patches.all((2, 4)) | ~patches.any((2, 4))).all(), "patches are whole"
