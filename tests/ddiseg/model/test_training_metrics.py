"""What is told of a training on its own images, each by the members that did not learn from it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from ddiseg.catalogue.tables import Mask
from ddiseg.model.performance import ALL, LESION, lookup, performance_tables
from ddiseg.model.training_metrics import out_of_fold
from ddiseg.sampling.groups import Groups
from ddiseg.workspace.workspace import Workspace
from fedd.probes.own_masks import OwnMask
from tests.ddiseg.model.version_rows import add_version, metrics
from tests.ddiseg.rows import new_image

CLASSES = ("background", "lesion", "marker", "ruler", "skin")


def _confusion(lesion: int, missed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Skin that is right, and a lesion of which some pixels are taken for skin."""
    found = np.zeros((5, 5), np.int64)
    found[4, 4], found[1, 1], found[1, 4] = 1000, lesion - missed, missed
    return found


def test_out_of_fold__iou_by_tone_and_in_the_tables(
    workspace: Workspace, tiny_weights: Any
) -> None:
    images = workspace.catalogue.images
    tones = ["I-II"] * 12 + ["V-VI"] * 12
    rows = [new_image(k, patient=f"p{k}", tone=tone) for k, tone in enumerate(tones)]
    images.add(images.dataset("clinic").id, rows, "tester")
    pairs = [(i, Mask(id=i.id, image_id=i.id, classes=[0, 1, 2, 3, 4])) for i in images.select()]
    own = {
        image.id: OwnMask("", 100, 100, _confusion(100, 20 if image.tone == "I-II" else 60))
        for image, _ in pairs[:-1]
    }
    probes = cast(Any, SimpleNamespace(classes=CLASSES))
    found = out_of_fold(probes, pairs, own, Groups.read(workspace.catalogue))
    assert found is not None
    assert (found["images"], found["by_tone"]) == (23, {"I-II": 12, "V-VI": 11})
    version = add_version(workspace, tiny_weights, metrics={**metrics(24), "out_of_fold": found})
    table = performance_tables(workspace, version)["out_of_fold"]
    of = {tone: lookup(table, tone, LESION)[0] for tone in (ALL, "I-II", "V-VI")}
    assert [(of[tone] or {})["value"] for tone in ("I-II", "V-VI")] == pytest.approx([0.8, 0.4])
    assert (of["V-VI"] or {})["n"] == 11
    assert lookup(table, ALL, "skin IoU")[0] is not None
    assert out_of_fold(probes, pairs, {}, Groups.read(workspace.catalogue)) is None
