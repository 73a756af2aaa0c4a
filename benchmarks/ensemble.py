"""Masks that the members decide by majority, compared with those of the mean of their softmaxes.

ddpm-segmentation (Baranchuk et al., ICLR 2022) takes the majority (`predict_labels` in its
`src/pixel_classifier.py`). The photographs are pad300's train90 part, or with `--read-test WHY` its test part (PAD-UFES-20, CC BY 4.0); PAD300
names the folder. The probes learn from 30 others; the same members decide both ways.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import metrics
from annotation_protocol.estimates import Sample, estimate_classes
from annotation_protocol.intervals import Scale
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
from fedd.cache import FeatureCache
from fedd.probes.training import Example, train_probes
from fedd.segment import SMALL, Ensemble, Probes
from fedd.weights.files import load_backbone

MASKS = 30

HEADER = ("tone", "vote, lesion IoU", "mean, lesion IoU", "vote - mean", "pixels that differ", "n")
WIDTHS = (8, 22, 22, 26, 26, 0)

Masks = Sequence[NDArray[np.uint8]]


def main(arguments: Sequence[str] = ()) -> None:
    if why := missing([Source.PAD300]):
        print(why)
        return
    read = _arguments(arguments)
    net = load_backbone("small")
    with tempfile.TemporaryDirectory() as activations:
        cache = FeatureCache(Path(activations))
        probes = train_probes(
            examples(learned(Source.PAD300, MASKS)), net, SMALL, CLASSES, cache=cache
        )
        tested = examples(
            tested_part(Source.PAD300, read)
            if read
            else [p for p in learn_part(Source.PAD300) if p.part == "train90"]
        )
        vote, mean = (
            [deciding.predict(net, [e.photograph], cache)[0].mask for e in tested]
            for deciding in (_by(probes, Ensemble.VOTE), _by(probes, Ensemble.MEAN))
        )
    print(
        f"pad300's {'test' if read else 'train90'} part, {len(tested)} photographs; probes of {MASKS} masks, {SMALL.members} "
        f"members, seed {SMALL.seed}; mean [95 % interval over patients]"
    )
    print(tables.line(HEADER, WIDTHS))
    tones = [e.tone or "unknown" for e in tested]
    for tone in ("all", *sorted(set(tones))):
        rows = [i for i, of in enumerate(tones) if tone in ("all", of)]
        cells = _cells(tone, rows, tested, vote, mean)
        print(tables.line(cells, WIDTHS))
        if read and tone == "all":
            read.log(f"vote {cells[1]}, mean {cells[2]}")


def _arguments(arguments: Sequence[str]) -> reads.TestRead | None:
    parser = argparse.ArgumentParser("python -m benchmarks.ensemble")
    reads.add_option(parser)
    return reads.asked(parser.parse_args(arguments), "ensemble")


def _by(probes: Probes, ensemble: Ensemble) -> Probes:
    """Return the same members, deciding in this way; the refinement pass too."""
    found = copy.copy(probes)
    found.settings = replace(probes.settings, ensemble=ensemble)
    return found


def _cells(
    tone: str, rows: Sequence[int], tested: Sequence[Example], vote: Masks, mean: Masks
) -> tuple[str, ...]:
    patients = [tested[i].patient for i in rows]
    truths = [tested[i].mask == LESION for i in rows]
    matrices = [
        np.stack([_confusion(truth, masks[i]) for truth, i in zip(truths, rows, strict=True)])
        for masks in (vote, mean)
    ]
    valid = np.ones((len(rows), 2), bool)
    scores = [estimate_classes(m, patients, valid, ("other", "lesion"))["lesion"] for m in matrices]
    gains = metrics.iou_per_class(matrices[0])[:, 1] - metrics.iou_per_class(matrices[1])[:, 1]
    differ = np.array([(vote[i] != mean[i]).mean() for i in rows])
    known = ~np.isnan(gains)  # neither the truth nor a mask has a lesion
    of_known = [p for p, keep in zip(patients, known, strict=True) if keep]
    return (
        tone,
        *(score.iou_mean.text(".3f") for score in scores),
        Sample(gains[known], of_known, scale=Scale.SIGNED).estimate().text("+.4f"),
        Sample(differ, patients).estimate().text(".2%"),
        f"{len(rows)} of {len(set(patients))} patients",
    )


def _confusion(truth: NDArray[np.bool_], mask: NDArray[np.uint8]) -> NDArray[np.int64]:
    return metrics.confusion(truth.astype(np.uint8), (mask == LESION).astype(np.uint8), 2)


if __name__ == "__main__":
    main(sys.argv[1:])
