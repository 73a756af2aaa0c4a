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
    return json.loads(resources.files("fedd.paper").joinpath("splits.json").read_text("utf-8"))
