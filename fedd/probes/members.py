"""The trained members as one computation on the activations of one image.

Arrays: M members, C channels of a block, K classes, h x w a block's grid, g the predicted grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedd.bilinear import matrix
from fedd.features import image_statistics
from fedd.probes.ensemble import HIDDEN

#: Numbers of the first layer that are in memory at once: what fits into a CPU's cache, 256 MB on a GPU.
STRIP = {"cpu": 2**19, "cuda": 2**26}


class Members:
    """The members' weights on a device, as prediction uses them: with temperature and classes built in."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        normalise: bool,
        trained: Sequence[int],
        temperature: float,
        device: torch.device,
    ) -> None:
        t = {name: tensor.to(device) for name, tensor in tensors.items()}
        self._normalise, self._strip = normalise, STRIP.get(device.type, STRIP["cuda"])
        self._count = len(t["w1"])
        self._first = t["w1"].mT.flatten(0, 1).contiguous()  # (M * 128, C of all blocks)
        self._first_bias = t["b1"].flatten()[:, None]
        self._second, self._second_bias = t["w2"].mT.contiguous(), t["b2"][..., None]
        self._third = t["w3"].mT.contiguous() / temperature
        self._third_bias = t["b3"][..., None] / temperature
        never = [c for c in range(self._third.shape[1]) if c not in trained]
        self._third_bias[:, never] = -torch.inf

    def probabilities(self, activations: Sequence[Tensor], size: int) -> Tensor:
        """Return each member's softmax, (M, K, size, size), from each block's activations (C, h, w)."""
        lines = self._first_layer(activations, size)
        found = []
        strip = max(1, self._strip // (len(self._first) * size))
        for top in range(0, size, strip):
            rows = slice(top, min(size, top + strip))
            parts = [
                low[:, rows] if up is None else torch.matmul(up[rows], low) for low, up in lines
            ]
            total = parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)
            h = total.relu().reshape(self._count, HIDDEN[0], -1)
            h = torch.baddbmm(self._second_bias, self._second, h).relu_()
            logits = torch.baddbmm(self._third_bias, self._third, h)
            found.append(logits.softmax(1).view(*logits.shape[:2], -1, size))
        return found[0] if len(found) == 1 else torch.cat(found, 2)

    def _first_layer(
        self, activations: Sequence[Tensor], size: int
    ) -> list[tuple[Tensor, Tensor | None]]:
        """Return each block's first layer, (M * 128, h, size), with the matrix (size, h) for its rows.

        No matrix where the block has the grid's size. The bias is in that of the first block, because
        up-sampling leaves a constant as it is. A standardised channel is a linear function of the raw
        one, so with `normalise` both halves of the layer become one matrix, specific to the image.
        """
        found: list[tuple[Tensor, Tensor | None]] = []
        bias, start = self._first_bias, 0
        weights = []
        for activation in activations:
            channels = len(activation)
            weight = self._first[:, start : start + channels]
            start += channels
            if self._normalise:
                mean, std = (s.flatten() for s in image_statistics(activation[None]))
                relative = self._first[:, start : start + channels] / std
                start += channels
                weight = weight + relative
                bias = bias - (relative @ mean)[:, None]
            weights.append(weight)
        for activation, weight in zip(activations, weights, strict=True):
            pixels = activation.flatten(1)
            low = weight @ pixels if found else torch.addmm(bias, weight, pixels)
            low = low.view(len(low), *activation.shape[1:])
            height, width = low.shape[1:]
            if width != size:
                low = low @ matrix(size, width, low.device).T
            found.append((low, None if height == size else matrix(size, height, low.device)))
        return found
