"""What the FEDD paper published: its splits of DDI, its results as numbers.

Carrion and Norouzi, MICCAI 2023, LNCS 14226, 270-279; figures 4 and 7, supplementary tables 1 to 3.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any


@cache
def splits() -> Any:
    """`subsets`: DDI file stems by subset name; `test_tones`: the test's by tone; `source`."""
    return _data("splits.json")


@cache
def results() -> Any:
    """The published figures by task, figure, tone and model, one for each of `fractions`.

    `reading` says how the numbers were had, `reading_error` how far each figure may be off. The
    paper's light and dark skin are the tones I-II and V-VI.
    """
    return _data("results.json")


def published(task: str, figure: str, tone: str, model: str, fraction: int) -> float | None:
    """What the paper gives for a figure of a model trained on `fraction` percent; None for nothing."""
    paper = results()
    values = paper[task].get(figure, {}).get(tone, {}).get(model)
    if values is None or fraction not in paper["fractions"]:
        return None
    return float(values[paper["fractions"].index(fraction)])


def _data(name: str) -> Any:
    return json.loads(resources.files("fedd.paper").joinpath(name).read_text("utf-8"))
