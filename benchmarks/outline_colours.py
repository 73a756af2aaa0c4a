"""Can a colour be seen as a thin line at a lesion's rim, by everybody? CIE 1976 colour differences.

The pixels within 6 px of the rim of every second photograph of pad300 (PAD-UFES-20, CC BY 4.0; PAD300
names the folder), 200 of each at random, against candidate colours: the 5th percentile of the
difference, lowest of the tone groups, for normal vision and three kinds of colour blindness
(Machado et al., IEEE TVCG 2009, severity 1). Decision 0017 rests on it.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from annotation_protocol import load_protocol
from benchmarks.photographs import Source, missing

Floats = NDArray[np.float64]

SAMPLES, RIM, SEED = 200, 6, 0

#: What the paper draws in, and one neighbour of each.
OTHERS = {"red": "#e6194b", "green": "#009e73", "purple": "#cc79a7"}

#: Linear RGB as each kind of vision has it.
VISIONS = {
    "normal": np.eye(3),
    "protan": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deutan": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "tritan": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}  # fmt: skip

_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE = np.array([0.95047, 1.0, 1.08883])


def main() -> None:
    if why := missing([Source.PAD300]):
        print(why)
        return
    rims = rim_pixels(Source.PAD300.folder)
    print(", ".join(f"{tone} n = {len(p) // SAMPLES}" for tone, p in sorted(rims.items())))
    print(f"{'colour':<26}" + "".join(f"{vision:>8}" for vision in VISIONS))
    named = {f"{c.name} (ours)": c.colour for c in load_protocol().classes} | OTHERS
    for name, colour in named.items():
        rgb = np.array([[*bytes.fromhex(colour[1:])]], float)
        lowest = (
            min(np.percentile(_difference(pixels, rgb, m), 5) for pixels in rims.values())
            for m in VISIONS.values()
        )
        print(f"{name:<18}{colour:<8}" + "".join(f"{value:>8.0f}" for value in lowest))


def rim_pixels(folder: Path) -> dict[str, Floats]:
    """Return pixels at lesions' rims by tone, (SAMPLES x images, 3), 0 to 255."""
    rng, found = np.random.default_rng(SEED), defaultdict(list)
    with (folder / "split.csv").open(newline="") as file:
        for row in list(csv.DictReader(file))[::2]:
            photograph = np.asarray(Image.open(folder / "images" / row["img_id"]).convert("RGB"))
            mask = np.asarray(Image.open(folder / "masks" / row["img_id"]).convert("L")) > 127
            grown = ndimage.binary_dilation(mask, iterations=RIM)
            pixels = photograph[grown & ~ndimage.binary_erosion(mask, iterations=RIM)]
            if len(pixels):
                found[row["tone"]].append(pixels[rng.integers(0, len(pixels), SAMPLES)])
    return {tone: np.concatenate(parts).astype(float) for tone, parts in found.items()}


def _difference(pixels: Floats, colour: Floats, vision: Floats) -> Floats:
    """Return the CIE 1976 difference of each pixel, (N,), from a colour, (1, 3)."""
    difference: Floats = np.linalg.norm(_lab(pixels, vision) - _lab(colour, vision), axis=-1)
    return difference


def _lab(rgb: Floats, vision: Floats) -> Floats:
    """Return CIELAB of sRGB, both (N, 3), as a kind of vision sees it."""
    c = rgb / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ vision.T, 0, 1) @ _XYZ.T / _WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lab = [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])]
    return np.stack(lab, -1)


if __name__ == "__main__":
    main()
