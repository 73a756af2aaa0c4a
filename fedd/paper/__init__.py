"""Published data of the FEDD paper: its splits of DDI, and its results as numbers.

Carrion and Norouzi, MICCAI 2023, LNCS 14226, 270-279; figures 4, 6 and 7, supplementary figure 2 and tables 1 to 3.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any


@cache
def splits() -> Any:
    """Return the paper's sets of photographs as DDI file stems.

    `subsets` by name, `test_tones`, the segmentation test's by tone, `photographs`, all of DDI, and
    `classification`: the sizes of its validation and test, whose photographs are not published, and
    `test_masks`, which are taken for some of the test's. `source` says where each is from.
    """
    found = _data("splits.json")
    return {**found, "photographs": [f"{n:06d}" for n in range(1, found["photographs"] + 1)]}


@cache
def results() -> Any:
    """Return the published values by set of photographs, metric, tone and model, one for each of `fractions`.

    `reading` says how the numbers were obtained, `reading_error` how far each may be off. The paper's
    light and dark skin are the tones I-II and V-VI. `roc_curves` are steps (benign, malignant) of
    `images_of_each_class`.
    """
    return _data("results.json")


def published(measured_on: str, metric: str, tone: str, model: str, fraction: int) -> float | None:
    """Return the paper's value for a model trained on `fraction` percent; None if it has none.

    `measured_on` is a `fedd.reproduce.split.ImageSet`.
    """
    values = results().get(measured_on, {}).get(metric, {}).get(tone, {}).get(model)
    return _of_fraction(values, fraction)


def published_improvement(measured_on: str, metric: str, fraction: int) -> float | None:
    """Return by how much FEDD is better than the next best model (supplementary table 3)."""
    found = results()["improvement_over_next_best"].get(measured_on, {})
    return _of_fraction(found.get(metric), fraction)


def _of_fraction(values: list[float | None] | None, fraction: int) -> float | None:
    fractions = results()["fractions"]
    if values is None or fraction not in fractions:
        return None
    value = values[fractions.index(fraction)]
    return None if value is None else float(value)


def _data(name: str) -> Any:
    return json.loads(resources.files("fedd.paper").joinpath(name).read_text("utf-8"))
