"""Masks predicted with the backbone in bfloat16, compared with those in float32.

The photographs are the first 20 of pad300's train90 part (PAD-UFES-20, CC BY 4.0); PAD300 names the
folder. The probes learn from 30 others in float32, and predict in both. Goal: at least 99.5 % equal
pixels.
"""

from __future__ import annotations

import numpy as np

from annotation_protocol.estimates import Sample
from benchmarks.photographs import CLASSES, Source, examples, learn_part, learned, missing
from fedd.probes.training import train_probes
from fedd.segment import SMALL
from fedd.weights.files import load_backbone

MASKS, IMAGES = 30, 20


def main() -> None:
    if why := missing([Source.PAD300]):
        print(why)
        return
    exact = load_backbone("small")
    probes = train_probes(examples(learned(Source.PAD300, MASKS)), exact, SMALL, CLASSES)
    rest = [p for p in learn_part(Source.PAD300) if p.part == "train90"]
    tested = examples(rest)[:IMAGES]
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
