"""One training of a pretraining: network, heads, optimiser and moving average, and its step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from annotation_protocol import UNLABELLED
from fedd.backbone import DIFFUSION_STEPS, DiffusionUNet, UNetConfig, decoder_activations
from fedd.errors import WeightsError
from fedd.files import write_file
from fedd.network.devices import existing_device
from fedd.pretrain import losses
from fedd.pretrain.autocast import training_precision
from fedd.pretrain.data import Batch
from fedd.pretrain.encoder import Teacher
from fedd.pretrain.settings import PretrainSettings

#: Learning rate of the heads while the network stands still: a linear layer bears a high one.
HEADS_RATE = 3e-3


class Run:
    """Network, heads, optimiser and moving average, saved and loaded as one."""

    def __init__(
        self,
        start: UNetConfig | DiffusionUNet,
        settings: PretrainSettings,
        teacher: Teacher | None,
        device: str = "cpu",
    ) -> None:
        from guided_diffusion.script_util import create_gaussian_diffusion

        torch.manual_seed(settings.seed)
        self.settings, self.device = settings, existing_device(device)
        self.teacher = teacher if settings.align_weight else None
        self.config = network(start, settings)
        self.net = self.config.build().to(memory_format=torch.channels_last)
        if isinstance(start, DiffusionUNet):
            if len(start.blocks) < self.config.decoder_blocks:
                raise WeightsError(
                    f"the weights of {start.name} are stored only up to decoder block {start.blocks[-1]}: "
                    "training needs the whole network, so start from the whole file"
                )
            self.net.load_state_dict(start.net.state_dict())
        self.averaged = self.config.build()
        self.averaged.load_state_dict(self.net.state_dict())
        self.diffusion = create_gaussian_diffusion(
            steps=DIFFUSION_STEPS, learn_sigma=self.config.learn_sigma
        )
        self.alpha_bar = torch.from_numpy(self.diffusion.alphas_cumprod).float().to(self.device)
        own = start.config if isinstance(start, DiffusionUNet) else start
        self._make_heads(self.config.image_size / own.image_size)
        self.trained = nn.ModuleList([self.net, self.mask_heads, self.align_heads])
        self.trained.to(self.device)
        self.averaged.to(self.device)
        self.optimiser = torch.optim.AdamW(
            self.trained.parameters(), settings.learning_rate, weight_decay=0.01
        )
        self.step, self.minutes = 0, 0.0

    def train_step(self, batch: Batch, rng: torch.Generator) -> dict[str, float]:
        """Run one step; returns the losses by name."""
        s = self.settings
        still = self.step < s.heads_first
        for group in self.optimiser.param_groups:
            group["lr"] = HEADS_RATE if still else s.learning_rate * self._schedule()
        batch = batch.to(self.device)
        t = self._timesteps(batch, rng)
        with torch.set_grad_enabled(not still):
            denoising, kept = self._forward(batch, t, rng)
        found, total = self._losses(batch, kept, self.alpha_bar[t])
        if not still:
            total = total + denoising
        self.optimiser.zero_grad()
        if total.requires_grad:
            torch.autograd.backward(total)
            nn.utils.clip_grad_norm_(self.trained.parameters(), 1.0)
            self.optimiser.step()
        self.step += 1
        if not still:
            self._average()
        found = {"denoising": denoising, **found}
        return {name: round(float(loss.detach()), 4) for name, loss in found.items()}

    def backbone(self, name: str) -> DiffusionUNet:
        """Return a copy of the averaged network, on the CPU, to compute features with."""
        net = self.config.build()
        net.load_state_dict(self.averaged.state_dict())
        return DiffusionUNet(name, self.config, net, f"step {self.step} of a pretraining")

    def save(self, path: Path) -> None:
        state = {
            "step": self.step,
            "minutes": self.minutes,
            "trained": self.trained.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        write_file(path, lambda temporary: torch.save(state, temporary))

    def load(self, path: Path) -> None:
        state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        self.step, self.minutes = state["step"], state.get("minutes", 0.0)
        self.trained.load_state_dict(state["trained"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])

    def _make_heads(self, wider: float) -> None:
        """Choose the blocks that heads read, the same at any image size, and make the heads."""
        shapes = self._activation_shapes()
        last = self.config.decoder_blocks - 1
        self.mask_blocks = sorted({max(0, last - 4), max(0, last - 2), last})
        classes = dict.fromkeys(self.mask_blocks, len(losses.CLASS_WEIGHTS))
        self.mask_heads = losses.heads({b: shapes[b][1] for b in self.mask_blocks}, classes)
        size = self.config.image_size
        targets = (
            self.teacher(torch.zeros(1, 3, size, size, device=self.device)) if self.teacher else {}
        )
        self.align_blocks = {
            stride: _block_of_size(shapes, target.shape[-1] * wider)
            for stride, target in targets.items()
        }
        channels = {stride: shapes[block][1] for stride, block in self.align_blocks.items()}
        self.align_heads = losses.heads(channels, {s: t.shape[1] for s, t in targets.items()})

    def _activation_shapes(self) -> dict[int, torch.Size]:
        config = self.config
        x = torch.zeros(1, config.in_channels, config.grid, config.grid)
        blocks = range(config.decoder_blocks)
        with torch.no_grad():
            found = decoder_activations(self.net, x, torch.zeros(1, dtype=torch.long), blocks)
        return {block: a.shape for block, a in found.items()}

    def _timesteps(self, batch: Batch, rng: torch.Generator) -> Tensor:
        """Sample (N,) timesteps, a share of them at the low noise that probes read; pairs share theirs."""
        s, count = self.settings, len(batch.images)
        t = torch.randint(0, DIFFUSION_STEPS, (count,), generator=rng)
        low = torch.rand(count, generator=rng) < s.low_noise_share
        t = torch.where(low, t * s.low_noise // DIFFUSION_STEPS, t)
        return self._paired(t, batch).to(self.device)

    def _paired(self, values: Tensor, batch: Batch) -> Tensor:
        """Give the second image of each pair the value of the first."""
        over = len(batch.images) - len(batch.masks)
        without, second = over - batch.pairs, over + batch.pairs
        return torch.cat([values[:over], values[without:over], values[second:]])

    def _forward(
        self, batch: Batch, t: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Return the denoising loss and the activations (N, C, h, w) of the blocks with heads."""
        x = F.pixel_unshuffle(batch.images, self.config.patch)
        x = x.contiguous(memory_format=torch.channels_last)
        noise = self._paired(torch.randn(x.shape, generator=rng), batch).to(self.device)
        kept: dict[int, Tensor] = {}
        hooks = [
            self.net.output_blocks[b].register_forward_hook(
                lambda _m, _i, o, b=b: kept.__setitem__(b, o)
            )
            for b in {*self.mask_blocks, *self.align_blocks.values()}
        ]
        hidden = None
        if share := self.settings.masked_share:
            drawn = losses.hidden_patches(batch.images, share, self.config.grid, rng)
            hidden = self._paired(drawn, batch).to(self.device)
        with training_precision(self.device):
            found = self.diffusion.training_losses(
                lambda y, steps: self._denoised(y, steps, noise, hidden), x, t, noise=noise
            )
        for hook in hooks:
            hook.remove()
        return found["loss"].mean(), {block: a.float() for block, a in kept.items()}

    def _denoised(self, y: Tensor, t: Tensor, noise: Tensor, hidden: Tensor | None) -> Tensor:
        """Return the network's output for noised images; what is hidden has no part in the loss."""
        if hidden is None:
            output: Tensor = self.net(y, t).float()
            return output
        output = self.net(y.masked_fill(hidden, 0.0), t).float()
        channels = noise.shape[1]
        guess = torch.where(hidden, noise, output[:, :channels])
        return torch.cat([guess, output[:, channels:]], 1)

    def _losses(
        self, batch: Batch, kept: Mapping[int, Tensor], clear: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the losses besides denoising by name, and their weighted sum."""
        s, found = self.settings, {}
        total = clear.new_zeros(())
        if self.teacher is not None:
            projected = {
                stride: self.align_heads[str(stride)](kept[block])
                for stride, block in self.align_blocks.items()
            }
            found["align"] = losses.alignment(projected, self.teacher(batch.images), clear)
            total = total + s.align_weight * found["align"]
        if labelled := len(batch.masks):
            clear = clear[-labelled:]
            logits = self._logits(kept, slice(-labelled, None))
            found["phantom"] = losses.segmentation(logits, batch.masks, clear)
            total = total + s.phantom_weight * found["phantom"]
        if pairs := batch.pairs:
            drawn = batch.masks[:pairs] != UNLABELLED
            without = self._logits(kept, slice(-labelled - pairs, -labelled))
            over = {block: each[:pairs] for block, each in logits.items()}
            found["pair"] = losses.invariance(without, over, drawn, clear[:pairs])
            total = total + s.pair_weight * found["pair"]
        return found, total

    def _logits(self, kept: Mapping[int, Tensor], images: slice) -> dict[int, Tensor]:
        return {b: self.mask_heads[str(b)](kept[b][images]) for b in self.mask_blocks}

    def _schedule(self) -> float:
        """Return the share of the highest learning rate, of the steps in which the network learns."""
        s = self.settings
        step, steps = self.step - s.heads_first, s.steps - s.heads_first
        if step < s.warmup:
            return (step + 1) / s.warmup
        done = (step - s.warmup) / max(1, steps - s.warmup)
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        for mean, new in zip(self.averaged.parameters(), self.net.parameters(), strict=True):
            mean.lerp_(new, 1 - decay)


def network(start: UNetConfig | DiffusionUNet, settings: PretrainSettings) -> UNetConfig:
    """Return the architecture of a run: that of its start, at the image size of the settings.

    Attention stays at the same depth, so the weights fit at any size.
    """
    config = start.config if isinstance(start, DiffusionUNet) else start
    size = settings.image_size or config.image_size
    attention = tuple(r * size // config.image_size for r in config.attention_resolutions)
    return replace(config, image_size=size, attention_resolutions=attention)


def _block_of_size(shapes: dict[int, torch.Size], size: float) -> int:
    """Return the first block with a grid nearest, in octaves, to `size` x `size`."""
    return min(shapes, key=lambda block: abs(math.log2(shapes[block][-1] / size)))
