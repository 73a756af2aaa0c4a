"""Random smooth fields to render phantoms with, and how two colours are mixed.

Arrays: fields are (S, S) float32, pictures (S, S, 3) float32 in 0 to 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]
Reals = NDArray[np.floating[Any]]


class Canvas:
    """Random smooth fields and coordinates of one phantom."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng, self.size = rng, size
        axis = (np.arange(size, dtype=np.float32) + 0.5) / size
        self.y, self.x = np.meshgrid(axis, axis, indexing="ij")

    def smooth(self, cells: int) -> Floats:
        """Gaussian noise with `cells` bumps along a side, about unit variance, (S, S)."""
        coarse = self.rng.standard_normal((cells + 3, cells + 3)).astype(np.float32)
        picture = Image.fromarray(coarse)
        step = (cells + 3) / cells
        big = picture.resize((int(self.size * step) + 1,) * 2, Image.Resampling.BICUBIC)
        top, left = self.rng.integers(0, big.size[0] - self.size + 1, 2)
        return np.asarray(big, np.float32)[top : top + self.size, left : left + self.size] * 1.4

    def fractal(self, cells: int, octaves: int, persistence: float = 0.55) -> Floats:
        total = np.zeros((self.size, self.size), np.float32)
        for octave in range(octaves):
            if (count := cells * 2**octave) > self.size:
                break
            total += persistence**octave * self.smooth(count)
        return total

    def streaks(self, cells: int, stretch: float) -> Floats:
        """Noise drawn out along one random direction, as skin lines and cloth are."""
        angle = self.rng.uniform(0, np.pi)
        along = (self.x - 0.5) * np.cos(angle) + (self.y - 0.5) * np.sin(angle)
        across = -(self.x - 0.5) * np.sin(angle) + (self.y - 0.5) * np.cos(angle)
        across = across + 0.02 * self.smooth(4)
        table = self.rng.standard_normal((64, 1024)).astype(np.float32)
        u = (across * cells + 512) % 1023
        v = (along * cells / stretch + 32) % 63
        u0, v0 = u.astype(np.int32), v.astype(np.int32)
        fu, fv = ease(u - u0), ease(v - v0)
        top = table[v0, u0] * (1 - fu) + table[v0, u0 + 1] * fu
        bottom = table[v0 + 1, u0] * (1 - fu) + table[v0 + 1, u0 + 1] * fu
        return np.asarray(top * (1 - fv) + bottom * fv, np.float32)


def ease(t: Floats) -> Floats:
    return t * t * (3 - 2 * t)


def mix(a: Floats, b: Floats, alpha: Reals) -> Floats:
    return np.asarray(a + (b - a) * alpha[..., None], np.float32)


def sigmoid(x: Reals) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -30, 30))), np.float32)
