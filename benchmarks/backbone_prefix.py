"""The backbone's forward pass in fedd, compared with the whole forward pass with hooks.

ddpm-segmentation hooks the decoder blocks of guided_diffusion's whole forward pass. The network is the
paper's (ImageNet 256 x 256, 552.8 M parameters) with random weights, one image. Goal: at least 3.3
times as fast in float32 with the same features to 1e-4, at least 5 times in bfloat16. On a GPU:
`python -m benchmarks.gpu`.
"""

from __future__ import annotations

import copy

import torch
from guided_diffusion.unet import UNetModel
from torch import Tensor

from benchmarks.gpu_inputs import fill_zero_layers
from benchmarks.timing import paired
from fedd.backbone import IMAGENET_256, DiffusionUNet, content_noise

BLOCKS, TIMESTEP, ROUNDS, SEED = (6, 8), 100, 2, 0


def main() -> None:
    torch.manual_seed(SEED)
    net = IMAGENET_256.build().eval().requires_grad_(False)
    fill_zero_layers(net)
    image = torch.rand(1, 3, 256, 256) * 2 - 1
    ours = DiffusionUNet("imagenet-256", IMAGENET_256, copy.deepcopy(net), "random")
    full = _HookedForward(net, image)
    expected = full()
    print(f"1 image, blocks {BLOCKS}, {torch.get_num_threads()} threads, {ROUNDS} rounds, medians")
    for precision in ("float32", "bfloat16"):
        backbone = ours.to("cpu", precision)
        found = backbone.activations(image, TIMESTEP, BLOCKS)
        worst = max(
            float((found[b] - expected[b]).abs().max() / expected[b].abs().max()) for b in BLOCKS
        )
        fast, slow = paired(lambda b=backbone: b.activations(image, TIMESTEP, BLOCKS), full, ROUNDS)
        print(
            f"CPU {precision}: {fast:.2f} s, hooked full forward in float32 {slow:.2f} s: "
            f"{slow / fast:.2f} x faster; features differ by at most {worst:.1e} of the largest"
        )


class _HookedForward:
    """guided_diffusion's own forward pass, with hooks on the blocks."""

    def __init__(self, net: UNetModel, image: Tensor) -> None:
        from guided_diffusion.script_util import create_gaussian_diffusion

        self.net, self.t = net, torch.tensor([TIMESTEP])
        noise = content_noise(image[0], image.shape[1:])[None]
        diffusion = create_gaussian_diffusion(steps=1000, learn_sigma=True)
        self.x = diffusion.q_sample(image, self.t, noise)
        self.kept: dict[int, Tensor] = {}
        for block in BLOCKS:
            net.output_blocks[block].register_forward_hook(
                lambda _m, _i, out, block=block: self.kept.__setitem__(block, out)
            )

    @torch.inference_mode()
    def __call__(self) -> dict[int, Tensor]:
        self.net(self.x, self.t)
        return self.kept
