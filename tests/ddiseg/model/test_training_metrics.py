from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from annotation_protocol import load_protocol
from ddiseg.model.training_metrics import training_metrics
from ddiseg.workspace.workspace import Workspace
from fedd.backbone import DiffusionUNet
from fedd.cache import FeatureCache
from fedd.probes.training import Example, train_probes
from tests.fedd.conftest import QUICK, TINY
from tests.fedd.counting import Counting


def test_metrics__only_what_was_held_out_is_painted(spots: Workspace, tmp_path: Path) -> None:
    accepted = spots.catalogue.masks.accepted()
    pairs = [(i, accepted[i.id]) for i in spots.catalogue.images.select(ids=list(accepted))]
    examples = [Example(spots.photograph(i), spots.mask(m), f"p{i.id}", i.tone) for i, m in pairs]
    net, cache = Counting(DiffusionUNet.random(TINY, 1)), FeatureCache(tmp_path / "cache")
    probes = train_probes(
        examples[:3],
        net,
        replace(QUICK, mirrored=True, steps=20),
        load_protocol().class_names,
        validation=examples[3:],
        cache=cache,
    )
    trained = net.passed.total()

    record, descriptors = training_metrics(spots, probes, net, pairs, cache)
    assert net.passed.total() - trained == 1, "the mirror image of the one that was held out"
    assert record["validation"]["images"] == 1
    assert set(descriptors) == {image.id for image, _ in pairs}
    for image, _ in pairs:
        (painted,) = probes.predict(net, [spots.photograph(image)], cache)
        assert np.array_equal(descriptors[image.id], painted.descriptor)
