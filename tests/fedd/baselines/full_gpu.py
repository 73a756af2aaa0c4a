"""A network whose GPU is full."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FullGPU(nn.Module):
    """Has another network's parameters, and no memory to run it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
