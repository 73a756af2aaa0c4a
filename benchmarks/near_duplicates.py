"""Precision and recall of near-duplicates on real photographs and copies made of them.

517 photographs of PAD-UFES-20. Half of the patients, by the hash of their id, were used to set the
thresholds; the figures are of the other half. (Early trials of the method saw both.) A copy counts as found where it is paired with its
original among all photographs of that half. A pair of two photographs of different patients counts as wrong. The
peer is the perceptual hash of the package imagehash within 4 bits, which ddiseg used before.
"""

from __future__ import annotations

import csv
import hashlib
import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from annotation_protocol.phantoms.phantoms import TONES, draw_scene, render
from benchmarks.timing import seconds
from ddiseg import images, near_duplicates
from ddiseg.near_duplicates import MIN_CORRELATION, Index, compare, signatures, thumbnail

DATA = Path(__file__).parents[2] / "shared" / "data" / "pad300"

#: Bits by which perceptual hashes of a pair of the peer differ at most.
BITS = 4

#: Images of the catalogue for the time of an import of `NEW` more.
MANY, NEW = 100_000, 1_000

#: Phantoms of each tone: pad300 has one photograph of dark skin.
PHANTOMS = 200

Picture = Image.Image


def _recompressed(picture: Picture) -> Picture:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=40)
    return Image.open(file).convert("RGB")


def _cropped(picture: Picture, left: float, top: float, right: float, bottom: float) -> Picture:
    width, height = picture.size
    box = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
    return picture.crop(tuple(map(round, box)))  # type: ignore[arg-type]


COPIES: dict[str, Callable[[Picture], Picture]] = {
    "recompressed, JPEG quality 40": _recompressed,
    "resized to half": lambda p: p.resize((p.width // 2, p.height // 2)),
    "brightened by 30 %": lambda p: ImageEnhance.Brightness(p).enhance(1.3),
    "cropped by 5 % at each edge": lambda p: _cropped(p, 0.05, 0.05, 0.05, 0.05),
    "cropped by 2.5 % at each edge": lambda p: _cropped(p, 0.025, 0.025, 0.025, 0.025),
    "cropped by 5 % at one edge": lambda p: _cropped(p, 0, 0, 0.05, 0),
    "cropped by 5 % at a corner": lambda p: _cropped(p, 0.05, 0.05, 0, 0),
    "mirrored": ImageOps.mirror,
    "turned by 90 degrees": lambda p: p.rotate(90),
    "turned by 180 degrees": lambda p: p.rotate(180),
    "mirrored, turned, cropped by 5 %": lambda p: _cropped(
        ImageOps.mirror(p).rotate(90), *(0.05,) * 4
    ),
}


def main() -> None:
    if not DATA.is_dir():
        sys.exit(f"needs the photographs of {DATA}")
    with (DATA / "split.csv").open() as file:
        patients = {row["img_id"]: row["patient_id"] for row in csv.DictReader(file)}
    for chosen_on in (True, False):
        names = sorted(n for n in patients if _used_for_thresholds(patients[n]) is chosen_on)
        pictures = [Image.open(DATA / "images" / name).convert("RGB") for name in names]
        print(f"{'thresholds chosen on' if chosen_on else 'figures of'}: {len(names)} photographs")
        _report(pictures, [patients[name] for name in names])
    _report_phantoms()
    _time()


def _used_for_thresholds(patient: str) -> bool:
    return hashlib.sha256(patient.encode()).digest()[0] % 2 == 0


def _report(pictures: list[Picture], patients: list[str]) -> None:
    small = _thumbnails(pictures)
    index = Index(signatures(small))
    hashes = _hashes(pictures)
    wrong = proposed = right = 0
    for first, near in enumerate(index.near(signatures(small))):
        for second in near:
            if first < second:
                proposed += 1
                found = compare(small[first], small[second])[0] >= MIN_CORRELATION
                wrong += found and patients[first] != patients[second]
                right += found and patients[first] == patients[second]
    pairs = [
        (i, j) for i in range(len(hashes)) for j in range(i) if _apart(hashes[i], hashes[j]) <= BITS
    ]
    peer_wrong = sum(patients[i] != patients[j] for i, j in pairs)
    print(
        f"  pairs among the originals: {wrong + right} confirmed of {proposed} proposed, {wrong} of "
        f"different patients; peer {len(pairs)}, {peer_wrong} of different patients"
    )
    false_pairs = total = 0
    for kind, make in COPIES.items():
        copies = [make(picture) for picture in pictures]
        thumbs = _thumbnails(copies)
        found = 0
        for number, near in enumerate(index.near(signatures(thumbs))):
            for other in near:
                if compare(small[other], thumbs[number])[0] >= MIN_CORRELATION:
                    total += 1
                    found += other == number
                    false_pairs += patients[other] != patients[number]
        peer = sum(_apart(a, b) <= BITS for a, b in zip(_hashes(copies), hashes, strict=True))
        print(
            f"  {kind:<34} recall {found / len(copies):.3f}, peer {peer / len(copies):.3f}, n {len(copies)}"
        )
    print(
        f"  precision of all pairs of copies: {1 - false_pairs / total:.4f} "
        f"({false_pairs} of {total} of different patients)"
    )


def _report_phantoms() -> None:
    """Print the confirmed pairs of phantoms by tone: all of them are different pictures."""
    for tone in TONES:
        rng = np.random.default_rng(0)
        pictures = [
            Image.fromarray(render(draw_scene(rng, tone), rng).image) for _ in range(PHANTOMS)
        ]
        small = _thumbnails(pictures)
        pairs = [
            (first, int(second))
            for first, near in enumerate(Index(signatures(small)).near(signatures(small)))
            for second in near
            if first < second
        ]
        wrong = sum(compare(small[i], small[j])[0] >= MIN_CORRELATION for i, j in pairs)
        print(f"  {PHANTOMS} phantoms of tone {tone}: {wrong} wrong pairs of {len(pairs)} proposed")


def _time() -> None:
    """Print the time of comparing `NEW` photographs with `MANY`; the signatures are made up."""
    rng = np.random.default_rng(0)
    names = sorted((DATA / "images").iterdir())[:200]
    pad = signatures(_thumbnails([Image.open(name).convert("RGB") for name in names])).astype(float)
    mean, spread = pad.mean(0), np.linalg.cholesky(np.cov(pad.T) + 0.01 * np.eye(72))
    made = (mean + rng.normal(size=(MANY + NEW, 72)) @ spread.T).clip(0, 255).astype(np.uint8)
    index = Index(made[:MANY])
    counts: list[int] = []
    spent = seconds(lambda: counts.extend(len(near) for near in index.near(made[MANY:])))
    pair = near_duplicates.compare
    first, second = _thumbnails([Image.open(name).convert("RGB") for name in names[:2]])
    each = min(seconds(lambda: [pair(first, second) for _ in range(20)]) / 20 for _ in range(3))
    print(
        f"{NEW:,} new photographs among {MANY:,}: {spent:.1f} s to propose {sum(counts):,} pairs, at most "
        f"{sum(counts) * each:.1f} s to compare them ({1000 * each:.1f} ms each); seed 0, made-up signatures"
    )


def _thumbnails(pictures: list[Picture]) -> NDArray[np.uint8]:
    return np.stack([thumbnail(np.asarray(picture)) for picture in pictures])


def _hashes(pictures: list[Picture]) -> list[int]:
    return [int(images.perceptual_hash(np.asarray(picture)), 16) for picture in pictures]


def _apart(first: int, second: int) -> int:
    return (first ^ second).bit_count()


if __name__ == "__main__":
    main()
