"""Lesion IoU on real photographs after 0 to 3 clicks, and the seconds that a click takes.

The photographs are pad300 (PAD-UFES-20, CC BY 4.0); PAD300 names the folder. The probes learn from
30 of its masks; the masks of the others simulate the person: the first click is at the lesion's
innermost point, each further one at the innermost point of the largest connected error, positive or
negative by the mask. 0 clicks is the probes' prediction. Nothing is chosen on the test images: the
numbers in `fedd/clicks.py` were chosen on 30 photographs of the train90 part (the default).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from annotation_protocol import metrics
from annotation_protocol.estimates import estimate_classes
from benchmarks import reads, tables
from benchmarks.photographs import (
    CLASSES,
    LESION,
    Source,
    examples,
    learn_part,
    learned,
    missing,
    tested_part,
)
from fedd.backbone import DiffusionUNet
from fedd.clicks import Click, ClickSegmenter, prepare_clicks
from fedd.probes.training import Example, train_probes
from fedd.segment import SMALL, Probes
from fedd.weights.files import load_backbone

MASKS, CLICKS = 30, 3

HEADER = ("clicks", "lesion IoU, mean [95%]", "lesion IoU, pooled [95%]", "n", "patients")
WIDTHS = (7, 24, 25, 4, 9)

Mask = NDArray[np.bool_]


def main(arguments: Sequence[str] = ()) -> None:
    chosen = _arguments(arguments)
    if why := missing([Source.PAD300]):
        print(why)
        return
    read = reads.asked(chosen, "clicks")
    net = load_backbone()
    probes = train_probes(examples(learned(Source.PAD300, MASKS)), net, SMALL, CLASSES)
    rest = [p for p in learn_part(Source.PAD300) if p.part == "train90"]
    tested = examples(tested_part(Source.PAD300, read) if read else rest)[: chosen.most]
    print(
        f"tested on pad300's {'test' if read else 'train90'} part, {len(tested)} photographs; probes of {MASKS} masks, "
        f"seed {SMALL.seed}"
    )
    masks, seconds, size = _clicked(probes, net, tested)
    rows = [_cells(count, tested, [of[count] for of in masks]) for count in range(CLICKS + 1)]
    print("\n".join(tables.line(cells, WIDTHS) for cells in (HEADER, *rows)))
    print(
        f"a click: median {np.median(seconds) * 1e3:.0f} ms, slowest {max(seconds) * 1e3:.0f} ms of "
        f"{len(seconds)} (goal 1000) on {torch.get_num_threads()} threads; a photograph takes "
        f"{size / 1e6:.1f} MB of memory"
    )
    if chosen.out:
        tables.write(chosen.out, HEADER, rows)


def _clicked(
    probes: Probes, net: DiffusionUNet, tested: Sequence[Example]
) -> tuple[list[list[Mask]], list[float], int]:
    """Return each photograph's masks after 0, 1, ... clicks, each click's seconds, and the largest size."""
    masks, seconds, size = [], [], 0
    for example in tested:
        truth = example.mask == LESION
        segmenter = prepare_clicks(probes, net, example.photograph)
        size = max(size, segmenter.nbytes)
        first = probes.predict(net, [example.photograph])[0].mask == LESION
        masks.append([first, *_corrected(segmenter, truth, seconds)])
    return masks, seconds, size


def _corrected(segmenter: ClickSegmenter, truth: Mask, seconds: list[float]) -> list[Mask]:
    """Return the region after each click of a person who corrects the largest error."""
    clicks: list[Click] = []
    found = [np.zeros_like(truth)]
    for _ in range(CLICKS):
        wrong = found[-1] != truth
        if wrong.any():
            row, column = _innermost(wrong)
            clicks.append(Click(column, row, bool(truth[row, column])))
        started = time.perf_counter()
        found.append(segmenter.region(clicks, LESION))
        seconds.append(time.perf_counter() - started)
    return found[1:]


def _innermost(mask: Mask) -> tuple[int, int]:
    """Return the pixel of the largest connected part that is farthest from its edge."""
    parts, _ = ndimage.label(mask)
    largest = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
    depth = ndimage.distance_transform_edt(np.pad(largest, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return int(row), int(column)


def _cells(count: int, tested: Sequence[Example], masks: Sequence[Mask]) -> tuple[str, ...]:
    matrices = np.stack(
        [
            metrics.confusion((e.mask == LESION).astype(np.uint8), m.astype(np.uint8), 2)
            for e, m in zip(tested, masks, strict=True)
        ]
    )
    valid = np.ones((len(tested), 2), bool)
    scores = estimate_classes(matrices, [e.patient for e in tested], valid, ("other", "lesion"))
    s = scores["lesion"]
    return (str(count), s.iou_mean.text(".3f"), s.iou_pooled.text(".3f"), str(s.n), str(s.groups))


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.clicks")
    reads.add_option(parser)
    parser.add_argument("--most", type=int, help="photographs at most")
    parser.add_argument("--out", type=Path, help="write the table here too: .md, or CSV")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
