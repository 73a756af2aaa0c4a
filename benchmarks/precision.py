"""Masks by a backbone computed in bfloat16 against those by the same one in float32.

The photographs are the first 20 of pad300's test part (PAD-UFES-20, CC BY 4.0); PAD300 names the
folder. The probes learn from 30 others in float32, and paint both. Goal: at least 99.5 % of the
pixels alike.
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
    judged = load(folder, ("test",))[:IMAGES]
    painted = [
        [probes.predict(net, [e.photograph])[0].mask for e in judged]
        for net in (exact, exact.to("cpu", "bfloat16"))
    ]
    alike = np.array([(a == b).mean() for a, b in zip(*painted, strict=True)])
    patients = [e.patient for e in judged]
    interval = Sample(alike, patients).interval()
    print(
        f"{alike.mean():.2%} of the pixels alike, 95 % [{interval[0]:.2%}, {interval[1]:.2%}], no "
        f"photograph below {alike.min():.2%}; n = {len(judged)} of {len(set(patients))} patients "
        f"(goal 99.5 %), seed {SMALL.seed}"
    )
