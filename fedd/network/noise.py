"""Noise of images, seeded by their own pixels: it depends on no other image and on no order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

#: Threads that generate noise: a GPU would otherwise wait for it.
NOISE_THREADS = 8


def content_noise(image: Tensor, shape: Sequence[int], draw: int = 0) -> Tensor:
    """Return standard normal noise of `shape`, seeded by the pixels of `image` (3, S, S) in [-1, 1].

    Each `draw` (0, 1, ...) of an image is another noise sample.
    """
    found = torch.randn(tuple(shape), generator=_noise_generator(image, draw))
    return found.to(image.device)


def batch_noise(images: Tensor, shape: Sequence[int], draw: int, *, pin: bool = False) -> Tensor:
    """Return the content noise of each image, (N, *shape), on the CPU; with `pin` in pinned memory."""
    noise = torch.empty((len(images), *shape), pin_memory=pin)

    @torch.inference_mode()  # a thread does not inherit it
    def fill(image: Tensor, sample: Tensor) -> None:
        torch.randn(tuple(shape), generator=_noise_generator(image, draw), out=sample)

    if len(images) == 1:
        fill(images[0], noise[0])
    else:
        with ThreadPoolExecutor(NOISE_THREADS) as pool:
            list(pool.map(fill, images, noise))
    return noise


def _noise_generator(image: Tensor, draw: int) -> torch.Generator:
    """Return a generator that is seeded by an image's pixels and the number of the noise sample."""
    pixels = ((image + 1) * 127.5).round().to(torch.uint8).cpu().contiguous()
    content = hashlib.sha256(pixels.numpy().data)
    if draw:
        content.update(f"draw {draw}".encode())
    seed = int.from_bytes(content.digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(seed)
