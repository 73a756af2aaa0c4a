"""The trained members as one computation on the activations of one image.

Arrays: M members, C channels of a block, K classes, h x w a block's grid, g the predicted grid.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedd.bilinear import matrix
from fedd.features import image_statistics
from fedd.probes.ensemble import HIDDEN

#: Numbers of the first layer that are in memory at once: on a CPU 6 MB, which its caches hold.
STRIP = {"cpu": 1_400_000, "cuda": 2**26}


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
        self._kept = threading.local()
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

    @torch.inference_mode()
    def probabilities(self, activations: Sequence[Tensor], size: int) -> Tensor:
        """Return each member's softmax, (M, K, size, size), from each block's activations (C, h, w)."""
        blocks = self._first_layer(activations, size)
        width = len(self._first)
        strip = min(size, max(1, self._strip // (width * size)))
        found = []
        for top in range(0, size, strip):
            rows = slice(top, min(size, top + strip))
            shape = (width, rows.stop - top, size)
            total = self._empty("total", shape)
            for number, (low, up) in enumerate(blocks):
                target = self._empty("part", shape) if number else total
                part = low[:, rows] if up is None else torch.matmul(up[rows], low, out=target)
                if number:
                    total.add_(part)
                elif up is None:
                    total.copy_(part)
            h = total.relu_().view(self._count, HIDDEN[0], -1)
            h = torch.baddbmm(self._second_bias, self._second, h).relu_()
            logits = torch.baddbmm(self._third_bias, self._third, h)
            found.append(logits.softmax(1).view(*logits.shape[:2], -1, size))
        return found[0] if len(found) == 1 else torch.cat(found, 2)

    def _first_layer(
        self, activations: Sequence[Tensor], size: int
    ) -> list[tuple[Tensor, Tensor | None]]:
        """Return each block's first layer, (M * 128, h, size), with the matrix (size, h) for its rows.

        No matrix where the block has the grid's height. The bias is in that of the first block, because
        up-sampling leaves a constant as it is.
        """
        weights, bias = self._weights(activations)
        found: list[tuple[Tensor, Tensor | None]] = []
        for number, (activation, weight) in enumerate(zip(activations, weights, strict=True)):
            height, width = activation.shape[1:]
            low = self._empty(f"low {number}", (len(weight), height * width))
            if number:
                torch.mm(weight, activation.flatten(1), out=low)
            else:
                torch.addmm(bias, weight, activation.flatten(1), out=low)
            low = low.view(-1, height, width)
            if width != size:
                wide = self._empty(f"wide {number}", (len(weight), height, size))
                low = torch.matmul(low, matrix(size, width, low.device).T, out=wide)
            found.append((low, None if height == size else matrix(size, height, low.device)))
        return found

    def _weights(self, activations: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Return the first layer's weights by block, (M * 128, C), and its bias, for one image.

        A standardised channel is a linear function of the raw one, so with `normalise` both halves of
        the layer become one matrix, specific to the image.
        """
        weights, bias, start = [], self._first_bias, 0
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
        return weights, bias

    def _empty(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return a tensor to be written over; on a CPU the same memory for each image of a thread.

        The system clears memory that it hands out, which takes as long as the computation.
        """
        if self._first.device.type != "cpu":
            return torch.empty(shape, device=self._first.device)
        kept: Tensor | None = getattr(self._kept, name, None)
        count = torch.Size(shape).numel()
        if kept is None or len(kept) < count:
            kept = torch.empty(count)
            setattr(self._kept, name, kept)
        return kept[:count].view(shape)
