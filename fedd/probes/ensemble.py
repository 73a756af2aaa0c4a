"""The members in training: M networks of in -> 128 -> 32 -> classes as one batched computation.

Arrays: M members, B pixels of a step, C channels, K classes. Inside, pixels come last: batch norm
then takes (1, M * width, B) without a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Widths of the hidden layers, as in FEDD and ddpm-segmentation.
HIDDEN = (128, 32)


class Ensemble(nn.Module):
    """Members whose input pixels are standardised by `mean` and `std`, (C,) each.

    `reads` (M, C) bool tells which channels a member reads, all where it is None: its weights for the
    others are 0 and stay so, because their gradient is 0 and weight decay leaves a 0 as it is.
    """

    def __init__(
        self,
        members: int,
        classes: int,
        mean: Tensor,
        std: Tensor,
        rng: torch.Generator,
        reads: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.mean, self.std, self.members = mean, std, members
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in pairwise((len(mean), *HIDDEN, classes)):
            bound = fan_in**-0.5  # as nn.Linear
            weight = torch.empty(members, fan_out, fan_in).uniform_(-bound, bound, generator=rng)
            bias = torch.empty(members, fan_out, 1).uniform_(-bound, bound, generator=rng)
            self.weights.append(weight.to(mean.device))
            self.biases.append(bias.to(mean.device))
        self.norms = nn.ModuleList(
            [nn.BatchNorm1d(members * width, device=mean.device) for width in HIDDEN]
        )
        if reads is not None:
            self._restrict(reads.to(mean.device))

    @torch.no_grad()
    def _restrict(self, reads: Tensor) -> None:
        """Let members read these channels only; their weights are as large as those of a smaller layer."""
        share = reads.float().mean(1)[:, None, None]  # of the channels, by member
        self.weights[0].mul_(reads[:, None] * share.rsqrt())
        self.biases[0].mul_(share.rsqrt())
        self.weights[0].register_hook(lambda gradient: gradient * reads[:, None])

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (M, B, K) for each member's pixels (M, B, C), or (1, B, C) for all members."""
        h = self._standardised(x)
        for weight, bias, norm in zip(self.weights, self.biases, self.norms, strict=False):
            h = F.relu(torch.baddbmm(bias, weight, h))
            h = norm(h.flatten(0, 1)[None]).view_as(h)
        return torch.baddbmm(self.biases[-1], self.weights[-1], h).transpose(1, 2)

    @torch.no_grad()
    def folded(self) -> dict[str, Tensor]:
        """Return plain layers for raw pixels: w1 (M, C, 128), b1 (M, 128), w2 (M, 128, 32), ...

        Input statistics and batch norms are folded into the neighbouring layers. On the CPU.
        """
        w1 = self.weights[0] / self.std
        tensors = {"w1": w1.mT, "b1": self.biases[0][..., 0] - w1 @ self.mean}
        for layer, norm in enumerate(self.norms, start=1):
            scale, shift = _as_affine(norm, self.members)
            weight, bias = self.weights[layer], self.biases[layer]
            tensors[f"w{layer + 1}"] = (weight * scale.mT).mT
            tensors[f"b{layer + 1}"] = (bias + weight @ shift)[..., 0]
        return {k: v.cpu().contiguous() for k, v in tensors.items()}

    @torch.no_grad()
    def unfold(self, tensors: dict[str, Tensor], x: Tensor) -> None:
        """Load layers that `folded` returned; the members then predict the same.

        The batch norms start as the identity, with the statistics of pixels x as in `forward`.
        """
        t = {k: v.to(x.device) for k, v in tensors.items()}
        self.weights[0].copy_(t["w1"].mT * self.std)
        self.biases[0].copy_((t["b1"] + self.mean @ t["w1"])[..., None])
        h = self._standardised(x)
        for layer, norm in enumerate(self.norms, start=1):
            h = F.relu(torch.baddbmm(self.biases[layer - 1], self.weights[layer - 1], h))
            var, mean = torch.var_mean(h, 2, correction=0)
            _set_identity(norm, mean.flatten(), var.flatten())
            self.weights[layer].copy_(t[f"w{layer + 1}"].mT)
            self.biases[layer].copy_(t[f"b{layer + 1}"][..., None])

    @torch.no_grad()
    def load(self, parameters: Sequence[Tensor], x: Tensor) -> None:
        """Load parameters, in the order of `parameters()`, and measure the batch norms' statistics.

        Args:
            x: pixels as in `forward`, enough for a mean and a variance: the statistics of other
                parameters say nothing about these.
        """
        for own, given in zip(self.parameters(), parameters, strict=True):
            own.copy_(given)
        h = self._standardised(x)
        for layer, norm in enumerate(self.norms):
            h = F.relu(torch.baddbmm(self.biases[layer], self.weights[layer], h))
            var, mean = torch.var_mean(h, 2, correction=0)
            _set_statistics(norm, mean.flatten(), var.flatten())
            scale, shift = _as_affine(norm, self.members)
            h = h * scale + shift

    def _standardised(self, x: Tensor) -> Tensor:
        """Pixels (M or 1, B, C) float16 or float32 -> (M, C, B) float32, with one copy."""
        return torch.sub(x, self.mean).div_(self.std).expand(self.members, -1, -1).transpose(1, 2)


def _as_affine(norm: nn.Module, members: int) -> tuple[Tensor, Tensor]:
    """Return a batch norm in evaluation mode as scale and shift, (M, width, 1) each."""
    n: Any = norm
    scale = n.weight / (n.running_var + n.eps).sqrt()
    shift = n.bias - n.running_mean * scale
    return scale.view(members, -1, 1), shift.view(members, -1, 1)


def _set_identity(norm: nn.Module, mean: Tensor, var: Tensor) -> None:
    n: Any = norm
    _set_statistics(norm, mean, var)
    n.bias.copy_(mean)
    n.weight.copy_((var + n.eps).sqrt())


def _set_statistics(norm: nn.Module, mean: Tensor, var: Tensor) -> None:
    n: Any = norm
    n.running_mean.copy_(mean)
    n.running_var.copy_(var)
