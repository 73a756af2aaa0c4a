"""Masks predicted with the backbone in bfloat16, compared with those in float32.

The photographs are the first 20 of pad300's test part (PAD-UFES-20, CC BY 4.0); PAD300 names the
folder. The probes learn from 30 others in float32, and predict in both. Goal: at least 99.5 % equal
pixels.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from annotation_protocol.estimates import Sample
from benchmarks.label_efficiency import CLASSES, DEFAULT, PARTS, load
from fedd.probes.training import train_probes
from fedd.segment import SMALL
from fedd.weights.files import load_backbone

MASKS, IMAGES = 30, 20


def main() -> None:
    folder = Path(os.environ.get("PAD300", DEFAULT))
    if not (folder / "split.csv").is_file():
        print(f"skipped: no pad300 at {folder}; set PAD300 to its folder")
        return
    exact = load_backbone()
    probes = train_probes(load(folder, PARTS[MASKS]), exact, SMALL, CLASSES)
    tested = load(folder, ("test",))[:IMAGES]
    predicted = [
        [probes.predict(net, [e.photograph])[0].mask for e in tested]
        for net in (exact, exact.to("cpu", "bfloat16"))
    ]
    equal = np.array([(a == b).mean() for a, b in zip(*predicted, strict=True)])
    patients = [e.patient for e in tested]
    print(
        f"{Sample(equal, patients).estimate().text('.2%')} of the pixels equal (95 % interval), no "
        f"photograph below {equal.min():.2%}; n = {len(tested)} of {len(set(patients))} patients "
        f"(goal 99.5 %), seed {SMALL.seed}"
    )
