"""Label Studio's brush RLE: goal encoding and decoding 8 times faster than its SDK's converter, and
decoding within 3 times the time of label-studio-brush-rle-rs, the same codec compiled from Rust.

Phantoms with all five classes, clean (as drawn) and ragged (each pixel taken from a random place up
to RAGGED pixels away: borders as noisy as a weak model's). Encoding goes from a mask to the lists
of all its classes, decoding from a list to its alpha channel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation_protocol.phantoms.phantoms import TONES, draw_scene, render
from benchmarks.timing import paired
from ddiseg.masks import Mask, brush_rle

COUNT, SIZE, CLASSES, RAGGED = 4, 1024, range(5), 8
SDK_ROUNDS, RUST_ROUNDS = 7, 101


def main() -> None:
    clean = [_five_classes(seed) for seed in range(COUNT)]
    for kind, masks in (("clean", clean), ("ragged", [_ragged(mask) for mask in clean])):
        rles = [rle for mask in masks for rle in _encode(mask)]
        for rle in rles:
            for peer in (_sdk_decode, _rust_decode):
                np.testing.assert_array_equal(_decode(rle), peer(rle))
        lengths = sorted(map(len, rles))
        print(
            f"{kind}: {COUNT} masks of {SIZE} x {SIZE}, seeds 0 to {COUNT - 1}; {len(rles)} regions "
            f"of {lengths[0]:,} to {lengths[-1]:,} bytes"
        )
        sdk, rust = ("label-studio-sdk", SDK_ROUNDS), ("label-studio-brush-rle-rs", RUST_ROUNDS)
        _compare("encoding a mask", masks, _encode, _sdk_encode, *sdk)
        _compare("decoding a region", rles, _decode, _sdk_decode, *sdk)
        _compare("decoding a region", rles, _decode, _rust_decode, *rust)


def _compare(
    what: str,
    inputs: Sequence[Any],
    ours: Callable[[Any], Any],
    peer: Callable[[Any], Any],
    name: str,
    rounds: int,
) -> None:
    us, them = (
        1000 * seconds / len(inputs)
        for seconds in paired(lambda: _each(ours, inputs), lambda: _each(peer, inputs), rounds)
    )
    print(
        f"  {what} {us:.2f} ms, {name} {version(name)} {them:.2f} ms: "
        f"{them / us:.2f} x as fast (medians of {rounds} rounds)"
    )


def _each(job: Callable[[Any], Any], inputs: Sequence[Any]) -> None:
    # No result is kept: the peers' four channels would be timed for the memory they hold.
    for given in inputs:
        job(given)


def _encode(mask: Mask) -> list[list[int]]:
    return list(brush_rle.encode_classes(mask, CLASSES).values())


def _sdk_encode(mask: Mask) -> list[list[int]]:
    from label_studio_sdk.converter import brush

    return [brush.mask2rle(np.where(mask == i, 255, 0).astype(np.uint8)) for i in CLASSES]


def _decode(rle: list[int]) -> NDArray[np.uint8]:
    return brush_rle.decode(rle, (SIZE, SIZE))


def _sdk_decode(rle: list[int]) -> NDArray[np.uint8]:
    from label_studio_sdk.converter import brush

    return brush.decode_rle(rle).reshape(SIZE, SIZE, 4)[:, :, 3]


def _rust_decode(rle: list[int]) -> NDArray[np.uint8]:
    import label_studio_brush_rle_rs

    return label_studio_brush_rle_rs.decode_rle(rle, False).reshape(SIZE, SIZE, 4)[:, :, 3]


def _five_classes(seed: int) -> Mask:
    rng = np.random.default_rng(seed)
    scene = replace(draw_scene(rng, TONES[seed % len(TONES)]), marker=True, ruler=True, cloth=True)
    return render(scene, rng, SIZE).mask


def _ragged(mask: Mask) -> Mask:
    rng = np.random.default_rng(0)
    rows, columns = (
        np.clip(axis + rng.integers(-RAGGED, RAGGED + 1, mask.shape), 0, SIZE - 1)
        for axis in np.ogrid[:SIZE, :SIZE]
    )
    return mask[rows, columns]
