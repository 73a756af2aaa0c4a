"""Pretraining: a backbone trained on unlabelled photographs, from scratch or from another backbone.

Three losses on the same forward pass:

- denoising: guided-diffusion's loss (`GaussianDiffusion.training_losses`), at every timestep;
- alignment, with a teacher: activations of decoder blocks, through a linear layer, align with the
  teacher's features of the clean image (representation alignment, Yu et al., arXiv 2410.06940; for
  UNets arXiv 2505.16792);
- phantoms: a linear layer on decoder blocks predicts the classes of rendered phantoms.

The last two are weighted by the share of the signal that the noise leaves. No mask of a photograph is
used. Everything about a run is in its folder; the same command resumes it.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedd.backbone import (
    DIFFUSION_STEPS,
    DiffusionUNet,
    UNetConfig,
    decoder_activations,
    parameter_count,
)
from fedd.errors import TrainingDataError, WeightsError
from fedd.files import write_file
from fedd.pretrain.data import PHOTO_SIZE, gather, squares
from fedd.pretrain.encoder import Teacher
from fedd.weights.files import save_backbone

logger = logging.getLogger(__name__)

#: Steps from one checkpoint to the next, and from one line of the log to the next.
CHECKPOINT_EVERY, LOG_EVERY = 100, 25

#: Weights of the phantoms' classes in the loss: lesions and pen strokes cover little of an image.
CLASS_WEIGHTS = (1.0, 2.0, 2.0, 1.0, 1.0)


@dataclass(frozen=True)
class PretrainSettings:
    """Everything that determines a run's outcome besides photographs, network and teacher."""

    steps: int = 3000
    batch_size: int = 16
    phantoms: int = 4000
    phantom_share: float = 0.5
    learning_rate: float = 4e-4
    warmup: int = 200
    ema: float = 0.999
    align_weight: float = 0.5
    phantom_weight: float = 0.5
    low_noise_share: float = 0.5  #: share of the timesteps sampled below `low_noise`
    low_noise: int = 150
    seed: int = 0


def pretrain(
    photographs: Sequence[Path],
    out: Path,
    start: UNetConfig | DiffusionUNet,
    settings: PretrainSettings,
    teacher: Teacher | None,
    name: str,
) -> Path:
    """Train to `settings.steps` and write `out/<name>.safetensors` (fp16, averaged weights).

    `start` is an architecture with random weights, or a backbone to continue from. A stopped run in
    `out` is resumed, with the result of an uninterrupted one.

    Raises:
        TrainingDataError: fewer than two photographs, or `out` holds another run.
        WeightsError: the backbone to start from lacks layers.
    """
    opened = _opened(photographs)
    run = _Run(start, settings, teacher)
    out.mkdir(parents=True, exist_ok=True)
    _write_or_check_identity(out / "run.json", _identity(list(opened), start, settings, teacher))
    stacked = torch.stack(list(opened.values()))
    data = gather(stacked, settings.phantoms, settings.seed, out / "phantoms.npz")
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        run.load(checkpoint)
        logger.info("resuming at step %d", run.step)
    logger.info(
        "%.1f M parameters, %d photographs, %d phantoms",
        parameter_count(run.net) / 1e6,
        len(opened),
        len(data.phantoms),
    )
    phantoms = round(settings.batch_size * settings.phantom_share) if settings.phantoms else 0
    started, first = time.monotonic(), run.step
    while run.step < settings.steps:
        # Seeded by (seed, step), so that a resumed run gets the batches of an uninterrupted one.
        rng = torch.Generator().manual_seed(settings.seed * 1_000_003 + run.step)
        images, masks = data.batch(
            settings.batch_size - phantoms, phantoms, run.config.image_size, rng
        )
        losses = run.train_step(images, masks, rng)
        if run.step % LOG_EVERY == 0:
            pace = round((time.monotonic() - started) / (run.step - first), 3)
            line = json.dumps({"step": run.step, "seconds_a_step": pace, **losses})
            with (out / "log.jsonl").open("a") as file:
                file.write(line + "\n")
            logger.info(line)
        if run.step % CHECKPOINT_EVERY == 0 or run.step == settings.steps:
            run.save(checkpoint)
    target = out / f"{name}.safetensors"
    about = {"settings": json.dumps(asdict(settings)), "steps": str(run.step)}
    if isinstance(start, DiffusionUNet):
        about["init"] = f"{start.name} {start.hash}"
    save_backbone(target, name, run.config, run.averaged.state_dict(), about)
    return target


def _opened(photographs: Sequence[Path]) -> dict[Path, Tensor]:
    """Return the photographs that can be opened, (3, PHOTO_SIZE, PHOTO_SIZE) uint8; log the others."""
    refused: list[str] = []
    opened = dict(squares(photographs, PHOTO_SIZE, refused))
    for line in refused:
        logger.info("refused  %s", line)
    if refused:
        counts = len(photographs), len(opened), len(refused)
        logger.info("%d photographs: %d read, %d refused", *counts)
    if len(opened) < 2:
        raise TrainingDataError(
            f"pretraining needs photographs, {len(opened)} found; name a folder that holds them"
        )
    return opened


def _identity(
    photographs: Sequence[Path],
    start: UNetConfig | DiffusionUNet,
    settings: PretrainSettings,
    teacher: Teacher | None,
) -> dict[str, Any]:
    """Return what must stay the same when a run is resumed; only its length may change."""
    config = start.config if isinstance(start, DiffusionUNet) else start
    kept: dict[str, Any] = {
        **asdict(settings),
        "network": config.to_dict(),
        "init": start.hash if isinstance(start, DiffusionUNet) else None,
        "teacher": teacher is not None,
        "photographs": sorted(p.name for p in photographs),
    }
    del kept["steps"]
    read_back: dict[str, Any] = json.loads(json.dumps(kept))
    return read_back


def _write_or_check_identity(path: Path, identity: dict[str, Any]) -> None:
    """Write a run's identity into its folder; raise TrainingDataError if it holds another run."""
    if not path.exists():
        write_file(path, json.dumps(identity, indent=1))
        return
    stored = json.loads(path.read_text())
    if changed := [key for key in identity if stored.get(key) != identity[key]]:
        raise TrainingDataError(
            f"{path.parent} holds a run with other {', '.join(changed)}: resume it with the same ones, "
            "or give another --out"
        )


class _Run:
    """Network, heads, optimiser and moving average, saved and loaded as one."""

    def __init__(
        self, start: UNetConfig | DiffusionUNet, settings: PretrainSettings, teacher: Teacher | None
    ) -> None:
        from guided_diffusion.script_util import create_gaussian_diffusion

        torch.manual_seed(settings.seed)
        self.settings, self.teacher = settings, teacher
        self.config = start.config if isinstance(start, DiffusionUNet) else start
        self.net = self.config.build().to(memory_format=torch.channels_last)
        if isinstance(start, DiffusionUNet):
            if len(start.blocks) < self.config.decoder_blocks:
                raise WeightsError(
                    f"the weights of {start.name} are stored only up to decoder block {start.blocks[-1]}: "
                    "training needs the whole network, so start from the whole file"
                )
            self.net.load_state_dict(start.net.state_dict())
        self.diffusion = create_gaussian_diffusion(
            steps=DIFFUSION_STEPS, learn_sigma=self.config.learn_sigma
        )
        self.alpha_bar = torch.from_numpy(self.diffusion.alphas_cumprod).float()
        shapes = self._activation_shapes()
        last = self.config.decoder_blocks - 1
        self.mask_blocks = sorted({max(0, last - 4), max(0, last - 2), last})
        self.mask_heads = nn.ModuleDict(
            {str(b): nn.Conv2d(shapes[b][1], len(CLASS_WEIGHTS), 1) for b in self.mask_blocks}
        )
        size = self.config.image_size
        targets = teacher(torch.zeros(1, 3, size, size)) if teacher else {}
        self.align_blocks = {
            stride: _block_of_size(shapes, target.shape[-1]) for stride, target in targets.items()
        }
        self.align_heads = nn.ModuleDict(
            {
                str(stride): nn.Conv2d(shapes[block][1], targets[stride].shape[1], 1)
                for stride, block in self.align_blocks.items()
            }
        )
        self.trained = nn.ModuleList([self.net, self.mask_heads, self.align_heads])
        self.optimiser = torch.optim.AdamW(
            self.trained.parameters(), settings.learning_rate, weight_decay=0.01
        )
        self.averaged = self.config.build()
        self.averaged.load_state_dict(self.net.state_dict())
        self.step = 0

    def train_step(
        self, images: Tensor, phantom_masks: Tensor | None, rng: torch.Generator
    ) -> dict[str, float]:
        """Run one step on `images` (N, 3, S, S), of which the last len(phantom_masks) are phantoms."""
        s = self.settings
        for group in self.optimiser.param_groups:
            group["lr"] = s.learning_rate * self._schedule()
        t = self._timesteps(len(images), rng)
        denoising, kept = self._forward(images, t, rng)
        clear = self.alpha_bar[t]
        losses = {"denoising": denoising}
        total = denoising
        if self.teacher is not None:
            losses["align"] = self._alignment(self.teacher(images), kept, clear)
            total = total + s.align_weight * losses["align"]
        if phantom_masks is not None:
            losses["phantom"] = self._phantom_loss(kept, phantom_masks, clear)
            total = total + s.phantom_weight * losses["phantom"]
        self.optimiser.zero_grad()
        torch.autograd.backward(total)
        nn.utils.clip_grad_norm_(self.trained.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        self._average()
        return {name: round(float(loss.detach()), 4) for name, loss in losses.items()}

    def save(self, path: Path) -> None:
        state = {
            "step": self.step,
            "trained": self.trained.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        write_file(path, lambda temporary: torch.save(state, temporary))

    def load(self, path: Path) -> None:
        state: dict[str, Any] = torch.load(path, weights_only=True)
        self.step = state["step"]
        self.trained.load_state_dict(state["trained"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])

    def _activation_shapes(self) -> dict[int, torch.Size]:
        config = self.config
        x = torch.zeros(1, config.in_channels, config.grid, config.grid)
        blocks = range(config.decoder_blocks)
        with torch.no_grad():
            found = decoder_activations(self.net, x, torch.zeros(1, dtype=torch.long), blocks)
        return {block: a.shape for block, a in found.items()}

    def _timesteps(self, count: int, rng: torch.Generator) -> Tensor:
        """Sample (count,) timesteps, a share of them at the low noise that probes read."""
        s = self.settings
        t = torch.randint(0, DIFFUSION_STEPS, (count,), generator=rng)
        low = torch.rand(count, generator=rng) < s.low_noise_share
        return torch.where(low, t * s.low_noise // DIFFUSION_STEPS, t)

    def _forward(
        self, images: Tensor, t: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Return the denoising loss and the activations (N, C, h, w) of the blocks with heads."""
        x = F.pixel_unshuffle(images, self.config.patch)
        x = x.contiguous(memory_format=torch.channels_last)
        noise = torch.randn(x.shape, generator=rng)
        kept: dict[int, Tensor] = {}
        hooks = [
            self.net.output_blocks[b].register_forward_hook(
                lambda _m, _i, o, b=b: kept.__setitem__(b, o)
            )
            for b in {*self.mask_blocks, *self.align_blocks.values()}
        ]
        with torch.autocast("cpu", torch.bfloat16):
            losses = self.diffusion.training_losses(
                lambda y, steps: self.net(y, steps).float(), x, t, noise=noise
            )
        for hook in hooks:
            hook.remove()
        return losses["loss"].mean(), {block: a.float() for block, a in kept.items()}

    def _alignment(
        self, targets: dict[int, Tensor], kept: dict[int, Tensor], clear: Tensor
    ) -> Tensor:
        total = torch.zeros(())
        for stride, block in self.align_blocks.items():
            ours = self.align_heads[str(stride)](kept[block])
            theirs = F.interpolate(
                targets[stride], ours.shape[-2:], mode="bilinear", align_corners=False
            )
            distance = 1 - F.cosine_similarity(ours, theirs, dim=1).mean((1, 2))
            total = total + (distance * clear).sum() / clear.sum()
        return total / len(self.align_blocks)

    def _phantom_loss(self, kept: dict[int, Tensor], masks: Tensor, clear: Tensor) -> Tensor:
        weights = torch.tensor(CLASS_WEIGHTS)
        clear = clear[-len(masks) :]
        total = torch.zeros(())
        for block in self.mask_blocks:
            logits = self.mask_heads[str(block)](kept[block][-len(masks) :])
            small = F.interpolate(masks[:, None].float(), logits.shape[-2:], mode="nearest")
            each = F.cross_entropy(logits, small[:, 0].long(), weights, reduction="none")
            total = total + (each.mean((1, 2)) * clear).sum() / clear.sum()
        return total / len(self.mask_blocks)

    def _schedule(self) -> float:
        s = self.settings
        if self.step < s.warmup:
            return (self.step + 1) / s.warmup
        done = (self.step - s.warmup) / max(1, s.steps - s.warmup)
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        for mean, new in zip(self.averaged.parameters(), self.net.parameters(), strict=True):
            mean.lerp_(new, 1 - decay)


def _block_of_size(shapes: dict[int, torch.Size], size: int) -> int:
    """Return the first block with a grid nearest, in octaves, to `size` x `size`."""
    return min(shapes, key=lambda block: abs(math.log2(shapes[block][-1] / size)))
