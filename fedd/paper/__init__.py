"""Published data of the FEDD paper: its splits of DDI, and its results as numbers.

Carrion and Norouzi, MICCAI 2023, LNCS 14226, 270-279; figures 4 and 7, supplementary tables 1 to 3.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any


@cache
def splits() -> Any:
    """Return `subsets`, DDI file stems by subset name, `test_tones`, the test's by tone, and `source`."""
    return _data("splits.json")


@cache
def results() -> Any:
    """Return the published values by task, metric, tone and model, one for each of `fractions`.

    `reading` says how the numbers were obtained, `reading_error` how far each may be off. The paper's
    light and dark skin are the tones I-II and V-VI.
    """
    return _data("results.json")


def published(task: str, metric: str, tone: str, model: str, fraction: int) -> float | None:
    """Return the paper's value for a model trained on `fraction` percent; None if it has none."""
    paper = results()
    values = paper[task].get(metric, {}).get(tone, {}).get(model)
    if values is None or fraction not in paper["fractions"]:
        return None
    return float(values[paper["fractions"].index(fraction)])


def _data(name: str) -> Any:
    return json.loads(resources.files("fedd.paper").joinpath(name).read_text("utf-8"))
