"""What `benchmarks.gpu` measures with: an untrained network, phantoms, photographs, the machine's name."""

from __future__ import annotations

import io
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from guided_diffusion.unet import UNetModel
from numpy.typing import NDArray
from PIL import Image

from annotation_protocol.phantoms.phantoms import TONES, draw_scene, render
from fedd.network.unet import UNetConfig
from fedd.probes.pixels import Example

#: Spread of the weights that guided_diffusion starts at zero.
ZERO_LAYERS_STD = 0.02


def machine(device: torch.device) -> str:
    """Return the names and versions that a figure depends on, in a line."""
    parts = [f"{core_count()} cores"]
    if device.type == "cuda":
        driver = _driver()
        parts = [
            torch.cuda.get_device_name(device),
            *([f"driver {driver}"] if driver else []),
            f"CUDA {torch.version.cuda}",
            f"cuDNN {_cudnn()}",
            *parts,
        ]
    return ", ".join([*parts, f"torch {torch.__version__}", f"Python {platform.python_version()}"])


def core_count() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def untrained_network(config: UNetConfig, device: torch.device, seed: int = 0) -> UNetModel:
    """Return a network of random weights, made on the device: half a billion take long on a CPU."""
    torch.manual_seed(seed)
    with torch.device(device):
        net = config.build().eval().requires_grad_(False)
        fill_zero_layers(net)
    return net


def fill_zero_layers(net: torch.nn.Module) -> None:
    """Fill guided-diffusion layers that start at zero, which would make any comparison too easy."""
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() > 1 and not parameter.any():
                parameter.normal_(0, ZERO_LAYERS_STD)


def phantoms(count: int, size: int, seed: int) -> list[Example]:
    """Return phantoms of all tones, (size, size), each of a patient of its own."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda i: _phantom([seed, i], size), range(count)))


def write_photographs(
    folder: Path, examples: Sequence[Example], size: tuple[int, int], count: int
) -> list[Path]:
    """Write `count` JPEG files of `size` (width, height) made from the examples, enlarged, with noise."""
    folder.mkdir()
    with ThreadPoolExecutor() as pool:
        encoded = list(pool.map(lambda e: _jpeg(e.photograph, size), examples))
    paths = [folder / f"{number:05d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(encoded[number % len(encoded)])
    return paths


def _phantom(seed: list[int], size: int) -> Example:
    rng = np.random.default_rng(seed)
    scene = draw_scene(rng, TONES[seed[1] % len(TONES)])
    phantom = render(replace(scene, blur=0.0), rng, size)  # blurring would need scipy
    return Example(phantom.image, phantom.mask, f"patient {seed}", phantom.scene.tone)


def _jpeg(photograph: NDArray[np.uint8], size: tuple[int, int]) -> bytes:
    """Return a JPEG file, enlarged and with a camera's noise, so that it is as long as a photograph's."""
    large = Image.fromarray(photograph).resize(size, Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).integers(-4, 5, (size[1], size[0], 3))
    noisy = np.clip(np.asarray(large) + noise, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=90)
    return file.getvalue()


def _cudnn() -> str:
    version = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return str(version)


def _driver() -> str:
    """Return the version of NVIDIA's driver; empty if nvidia-smi doesn't tell."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    ask = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(ask, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.partition("\n")[0].strip() if done.returncode == 0 else ""
