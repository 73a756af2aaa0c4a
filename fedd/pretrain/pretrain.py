"""Pretraining: a backbone trained on unlabelled photographs, from scratch or from another backbone.

Losses on the same forward pass:

- denoising: guided-diffusion's loss (`GaussianDiffusion.training_losses`), at every timestep;
- alignment, with a teacher: activations of decoder blocks, through a linear layer, align with the
  teacher's features of the clean image (representation alignment, Yu et al., arXiv 2410.06940; for
  UNets arXiv 2505.16792). With `masked_share`, patches are hidden from the network and not from the
  teacher (masked diffusion, Gao et al., arXiv 2303.14389);
- phantoms: a linear layer on decoder blocks predicts the classes of rendered phantoms, which may be
  composited into the photographs' own skin (`annotation_protocol/phantoms/on_skin.py`);
- pairs: that layer gives the lesion the same probability without and with pen or ruler.

All but the first are weighted by the share of the signal that the noise leaves. No mask of a photograph
is used to train. Everything about a run is in its folder; the same command resumes it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedd.backbone import DiffusionUNet, UNetConfig, parameter_count
from fedd.errors import TrainingDataError
from fedd.files import write_file
from fedd.pretrain.curve import Curve, ScoreTable
from fedd.pretrain.data import PHOTO_SIZE, PretrainingData, gather, squares
from fedd.pretrain.encoder import Teacher
from fedd.pretrain.run import Run, network
from fedd.pretrain.settings import PretrainSettings
from fedd.weights.files import save_backbone

__all__ = ["PretrainSettings", "pretrain"]

logger = logging.getLogger(__name__)

#: Steps from one checkpoint to the next, and from one line of the log to the next.
CHECKPOINT_EVERY, LOG_EVERY = 100, 25


def pretrain(
    photographs: Sequence[Path],
    out: Path,
    start: UNetConfig | DiffusionUNet,
    settings: PretrainSettings,
    teacher: Teacher | None,
    name: str,
    *,
    score: ScoreTable | None = None,
    device: str = "cpu",
) -> Path:
    """Train to `settings.steps` and write `out/<name>.safetensors` (fp16, averaged weights).

    `start` is an architecture with random weights, or a backbone to continue from. A stopped run in
    `out` is resumed, with the result of an uninterrupted one. With a `score` table, `out/curve.csv`
    gets a point before the first step, every `settings.score_every` steps and at the end.

    Raises:
        TrainingDataError: fewer than two photographs, or `out` holds another run.
        WeightsError: the backbone to start from lacks layers.
        DeviceError: there is no such device.
    """
    opened = _opened(photographs)
    run = Run(start, settings, teacher, device)
    out.mkdir(parents=True, exist_ok=True)
    _write_or_check_identity(out / "run.json", _identity(list(opened), start, settings, teacher))
    data = gather(opened, settings, out / "phantoms.npz")
    if (checkpoint := out / "checkpoint.pt").exists():
        run.load(checkpoint)
        logger.info("resuming at step %d", run.step)
    logger.info(
        "%.1f M parameters, %d photographs, %d phantoms",
        parameter_count(run.net) / 1e6,
        len(opened),
        len(data.phantoms),
    )
    _train(run, data, out, Curve(out, score) if score is not None else None)
    target = out / f"{name}.safetensors"
    about = {"settings": json.dumps(asdict(settings)), "steps": str(run.step)}
    if isinstance(start, DiffusionUNet):
        about["init"] = f"{start.name} {start.hash}"
    save_backbone(target, name, run.config, run.averaged.state_dict(), about)
    return target


def _train(run: Run, data: PretrainingData, out: Path, curve: Curve | None) -> None:
    """Run the steps that are left, with checkpoints, lines of the log and points of the curve."""
    settings = run.settings
    _measure(run, curve)
    while run.step < settings.steps:
        started = time.monotonic()
        # Seeded by (seed, step), so that a resumed run gets the batches of an uninterrupted one.
        rng = torch.Generator().manual_seed(settings.seed * 1_000_003 + run.step)
        found = run.train_step(data.batch(settings, run.config.image_size, rng), rng)
        run.minutes += (time.monotonic() - started) / 60
        last = run.step == settings.steps
        if run.step % LOG_EVERY == 0:
            line = json.dumps({"step": run.step, "minutes": round(run.minutes, 2), **found})
            with (out / "log.jsonl").open("a") as file:
                file.write(line + "\n")
            logger.info(line)
        measured = run.step % settings.score_every == 0
        if run.step % CHECKPOINT_EVERY == 0 or measured or last:
            run.save(out / "checkpoint.pt")
        if measured or last:
            _measure(run, curve)


def _measure(run: Run, curve: Curve | None) -> None:
    """Add a point to the curve, unless it has it: a checkpoint is written before its point."""
    due = run.step % run.settings.score_every == 0 or run.step == run.settings.steps
    if curve is not None and due and not curve.has(run.step):
        logger.info("step %d  %s", run.step, curve.add(run.step, run.minutes, run.backbone("run")))


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
    kept: dict[str, Any] = {
        **settings.identity(),
        "network": network(start, settings).to_dict(),
        "init": start.hash if isinstance(start, DiffusionUNet) else None,
        "teacher": teacher is not None and settings.align_weight > 0,
        "photographs": sorted(p.name for p in photographs),
    }
    read_back: dict[str, Any] = json.loads(json.dumps(kept))
    return read_back


def _write_or_check_identity(path: Path, identity: dict[str, Any]) -> None:
    """Write a run's identity into its folder; raise TrainingDataError if it holds another run."""
    if not path.exists():
        write_file(path, json.dumps(identity, indent=1))
        return
    # A run of an earlier version lacks the settings that came later: it had their defaults.
    defaults = json.loads(json.dumps(PretrainSettings().identity()))
    stored = {**defaults, **json.loads(path.read_text())}
    if changed := [key for key in identity if stored.get(key) != identity[key]]:
        raise TrainingDataError(
            f"{path.parent} holds a run with other {', '.join(changed)}: resume it with the same ones, "
            "or give another --out"
        )
