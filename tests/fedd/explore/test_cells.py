from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedd.backbone import DiffusionUNet
from fedd.explore.cells import RecordedBackbone
from tests.fedd.counting import Counting


@pytest.mark.slow
def test_recorded__gives_what_the_backbone_gives_and_forgets_what_only_passes(
    tiny: DiffusionUNet, tmp_path: Path
) -> None:
    counting = Counting(tiny)
    recorded = RecordedBackbone(counting, (1, 3), tmp_path)
    assert recorded.device == tiny.device
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images = ((images + 1) * 127.5).round() / 127.5 - 1
    kept = recorded.activations(images[:1], 10, (3,))
    with recorded.transient():
        both = recorded.activations(images, 10, (1, 3))
    assert sum(counting.passed.values()) == 3
    for block, expected in tiny.activations(images, 10, (1, 3)).items():
        torch.testing.assert_close(both[block], expected.half().float(), rtol=2e-3, atol=1e-3)
    assert torch.equal(kept[3], both[3][:1])
    assert len(list(tmp_path.iterdir())) == 2, "blocks of the one image that was not only passing"
    recorded.activations(images[:1], 10, (1,))
    assert sum(counting.passed.values()) == 3
    recorded.activations(images[:1], 11, (1,))
    recorded.activations(images[:1], 10, (1,), 1)
    assert sum(counting.passed.values()) == 5, "another timestep or noise is another pass"
    with pytest.raises(ValueError, match="are recorded, not"):
        recorded.activations(images, 10, (5,))
