"""What the authors' Keras does otherwise than PyTorch, for the recipe `paper`.

The rules are those of tf.keras 2.12 and segmentation_models 1.0.1, with which the authors' notebooks ran.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

Net = TypeVar("Net", bound=nn.Module)

#: Adam's term against division by zero.
ADAM_EPSILON = 1e-7

#: Batch norm: the share of a new batch in the running statistics (Keras calls 1 - this momentum), and the
#: term against division by zero. Pretrained layers keep the latter, because their weights belong to it.
NEW_SHARE, NORM_EPSILON = 0.01, 1e-3

#: The learning rate on a plateau: factor, lowest, and the least that counts as better.
FACTOR, LOWEST_RATE, LEAST = 0.1, 1e-5, 1e-4


def slow_statistics(net: Net) -> Net:
    """Let the running statistics of a network's batch norms follow as slowly as in Keras."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = NEW_SHARE
    return net


def initialised(layers: Net) -> Net:
    """Give new dense layers and batch norms Keras' initial weights and constants."""
    for layer in layers.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm1d):
            layer.eps = NORM_EPSILON
    return slow_statistics(layers)


def reduced_on_plateau(
    optimiser: torch.optim.Optimizer, epochs: int
) -> torch.optim.lr_scheduler.ReduceLROnPlateau:
    """Return a schedule: after `epochs` epochs without a higher value, a tenth of the rate.

    torch waits for one bad epoch more than its patience, Keras does not.
    """
    return torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser,
        mode="max",
        factor=FACTOR,
        patience=epochs - 1,
        threshold=LEAST,
        threshold_mode="abs",
        min_lr=LOWEST_RATE,
    )


def batches(order: Tensor, size: int) -> list[Tensor]:
    """Return full batches and the rest; a single image joins the batch before it, for the batch norms."""
    parts = list(torch.split(order, size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts
