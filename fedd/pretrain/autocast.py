"""The number type of a pretraining's forward passes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def training_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Return the context of a forward pass: bfloat16 where the processor multiplies in it.

    On a CPU without matrix units, bfloat16 takes half as long again as float32.
    """
    has_units = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    if device.type == "cuda" or has_units():
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
