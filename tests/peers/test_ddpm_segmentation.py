"""The backbone's activations are what ddpm-segmentation would take from the same network.

ddpm-segmentation (Baranchuk et al., ICLR 2022; `src/feature_extractors.py`) puts hooks on the decoder
blocks, runs the whole UNet on an image noised by `q_sample`, and keeps what the blocks returned. Its
noise is drawn anew for every run (or once, shared by all images); here it is the image's own.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from guided_diffusion.script_util import create_gaussian_diffusion
from guided_diffusion.unet import UNetModel
from torch import Tensor, nn

from fedd.backbone import IMAGENET_256, DiffusionUNet, content_noise

CONFIG = replace(
    IMAGENET_256,
    image_size=64,
    model_channels=64,
    channel_mult=(1, 2, 2),
    num_res_blocks=2,
    attention_resolutions=(16, 8),
)


class FeatureExtractor:
    """As `FeatureExtractorDDPM` there: steps, blocks, hooks, the whole forward."""

    def __init__(self, net: UNetModel, steps: list[int], blocks: list[int]) -> None:
        self.net, self.steps = net, steps
        self.diffusion = create_gaussian_diffusion(steps=1000, learn_sigma=True)
        self.saved = [net.output_blocks[b] for b in blocks]
        for block in self.saved:
            block.register_forward_hook(self._save)

    @staticmethod
    def _save(module: nn.Module, _inputs: object, out: Tensor) -> None:
        module.activations = out.detach()  # type: ignore[assignment]

    @torch.no_grad()
    def __call__(self, x: Tensor, noise: Tensor) -> list[Tensor]:
        found = []
        for step in self.steps:
            t = torch.tensor([step])
            self.net(self.diffusion.q_sample(x, t, noise=noise), t)
            found += [block.activations for block in self.saved]
        return found


@pytest.mark.parametrize("blocks", [(6, 8), (2,), (5, 0, 7)], ids=str)
def test_activations__equal_a_hooked_full_pass(blocks: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    net = CONFIG.build().eval()
    for parameter in net.parameters():
        if parameter.dim() > 1 and not parameter.any():
            nn.init.normal_(parameter, 0, 0.02)
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    theirs = FeatureExtractor(net, [50, 250], list(blocks))(
        image, content_noise(image[0], (3, 64, 64))[None]
    )
    state = {k: v.clone() for k, v in net.state_dict().items()}
    kept = CONFIG.build(max(blocks))
    kept.load_state_dict({k: state[k] for k in kept.state_dict()})
    backbone = DiffusionUNet("n", CONFIG, kept, "0")
    ours = [backbone.activations(image, t, blocks)[b] for t in (50, 250) for b in blocks]
    for found, expected in zip(ours, theirs, strict=True):
        assert found.shape == expected.shape
        assert float((found - expected).abs().max() / expected.abs().max()) < 1e-4
