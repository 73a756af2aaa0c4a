"""The pixel probes: 5 small MLPs that read a class from the activations at a pixel.

As in FEDD and ddpm-segmentation, each is in -> 128 -> 32 -> classes with ReLU and batch norm, and
the prediction is the mean of the members' softmaxes. Two things are done differently, with the same
result: the members are trained together as one batched computation, and the first layer, being
linear, is applied at each block's own resolution and its 128 outputs are up-sampled, instead of the
1024 inputs (bilinear up-sampling and a linear layer commute).

Arrays: photographs (H, W, 3) uint8, masks (H, W) uint8 class ids, S the backbone's image size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from fedd.augment import augmented_views
from fedd.backbone import IMAGENET_256, Backbone, UNetConfig
from fedd.errors import TrainingDataError, WeightsError
from fedd.features import FeatureSpec, at_points, extract, image_statistics, prepare
from fedd.weights import read_safetensors, write_safetensors

PROBES_KIND = "fedd-probes"
HIDDEN = (128, 32)


@dataclass(frozen=True)
class ProbeSettings:
    """Everything that decides the outcome of a training, besides images and backbone."""

    features: FeatureSpec
    members: int = 5
    views: int = 3  #: augmented views of each image, besides the image itself
    pixels_per_image: int = 2048  #: over all views
    class_balance: float = 0.5  #: 0 samples pixels as they come, 1 every class alike
    steps: int = 500
    batch_size: int = 1024  #: pixels of one member's step
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    seed: int = 0
    grid: int | None = None  #: side of the grid that the members vote on; None: the backbone's S
    mirrored: bool = False  #: vote on the mirror image too, whose noise is another draw

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ProbeSettings:
        features = dict(values["features"])
        features["blocks"] = tuple(features["blocks"])
        return cls(**{**values, "features": FeatureSpec(**features)})


#: The paper's setting for OpenAI's ImageNet backbone: blocks 6 and 8 at t = 100, plain activations.
PAPER = ProbeSettings(FeatureSpec(blocks=(6, 8), timestep=100), views=0, class_balance=1.0)

#: The setting for the backbone that ships with the package; chosen on pad300's train90 part. Its
#: finest block has 64 x 64 positions, and voting on more gains nothing.
SMALL = ProbeSettings(
    FeatureSpec(blocks=(1, 3, 5), timestep=50, normalise=True), grid=64, mirrored=True
)


def default_settings(config: UNetConfig) -> ProbeSettings:
    """The setting that goes with a backbone: the paper's for its network, else the small one's."""
    return PAPER if config == IMAGENET_256 else SMALL


@dataclass(frozen=True)
class Prediction:
    """A mask (H, W) uint8 and how much the members disagree.

    `uncertainty` is the mutual information between class and member, in nats, mean over pixels.
    """

    mask: NDArray[np.uint8]
    uncertainty: float


class Probes:
    """Trained members with what they were trained for; see `train_probes` and `load_probes`."""

    def __init__(
        self,
        settings: ProbeSettings,
        classes: tuple[str, ...],
        trained: tuple[int, ...],
        backbone_name: str,
        backbone_hash: str,
        tensors: dict[str, Tensor],
    ) -> None:
        self.settings, self.classes, self.trained = settings, classes, trained
        self.backbone_name, self.backbone_hash = backbone_name, backbone_hash
        self.tensors = tensors

    def predict(
        self, backbone: Backbone, photographs: Sequence[NDArray[np.uint8]]
    ) -> list[Prediction]:
        """Masks of photographs (H, W, 3), each at its own size; one pass of the backbone for all.

        Raises WeightsError where the backbone is not the one that the probes were trained on.
        """
        self.check_backbone(backbone)
        size = backbone.image_size
        images = torch.stack([prepare(p, size) for p in photographs])
        with torch.inference_mode():
            votes = self._votes(backbone, images)
            if self.settings.mirrored:
                votes = (votes + self._votes(backbone, images.flip(-1)).flip(-1)) / 2
            return [
                _prediction(each, p.shape[:2]) for each, p in zip(votes, photographs, strict=True)
            ]

    def check_backbone(self, backbone: Backbone) -> None:
        if backbone.hash != self.backbone_hash:
            raise WeightsError(
                f"these probes read the backbone {self.backbone_name} ({self.backbone_hash[:12]}), "
                f"not {backbone.name} ({backbone.hash[:12]}): give that one, or train probes anew"
            )

    def probabilities(self, activations: Sequence[Tensor], size: int) -> Tensor:
        """Softmax of each member, (members, classes, size, size), for one image's activations."""
        weights, bias = self._first_layer(activations)
        members = self.settings.members
        total = torch.zeros(1, members * HIDDEN[0], size, size) + bias[None, :, None, None]
        for activation, weight in zip(activations, weights, strict=True):
            low = F.conv2d(activation, weight[:, :, None, None])
            total += F.interpolate(low, (size, size), mode="bilinear", align_corners=False)
        pixels = total[0].flatten(1)
        absent = [c for c in range(len(self.classes)) if c not in self.trained]
        softmaxes = []
        for m in range(members):
            h = F.relu(pixels[m * HIDDEN[0] : (m + 1) * HIDDEN[0]])
            t = {k: v[m] for k, v in self.tensors.items()}
            h = F.relu(t["w2"].T @ h + t["b2"][:, None])
            logits = t["w3"].T @ h + t["b3"][:, None]
            logits[absent] = -torch.inf
            softmaxes.append(logits.softmax(0))
        return torch.stack(softmaxes).view(members, len(self.classes), size, size)

    def save(self, path: Path, extra: dict[str, str] | None = None) -> None:
        """Write the probes, whole or not at all."""
        header = {
            "kind": PROBES_KIND,
            "settings": json.dumps(self.settings.to_dict()),
            "classes": json.dumps(self.classes),
            "trained": json.dumps(self.trained),
            "backbone_name": self.backbone_name,
            "backbone_hash": self.backbone_hash,
            **(extra or {}),
        }
        write_safetensors(path, {k: v.contiguous() for k, v in self.tensors.items()}, header)

    def _first_layer(self, activations: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """First-layer weights by block, (members * 128, C), and the bias, for one image.

        A standardised channel is a linear function of the raw one, so with `normalise` both halves
        of the first layer become one matrix of the image's own.
        """
        w1 = self.tensors["w1"].transpose(1, 2).flatten(0, 1)
        bias = self.tensors["b1"].flatten()
        weights, start = [], 0
        for activation in activations:
            channels = activation.shape[1]
            weight = w1[:, start : start + channels]
            start += channels
            if self.settings.features.normalise:
                mean, std = (s.flatten() for s in image_statistics(activation))
                relative = w1[:, start : start + channels] / std
                start += channels
                weight = weight + relative
                bias = bias - relative @ mean
            weights.append(weight)
        return weights, bias

    def _votes(self, backbone: Backbone, images: Tensor) -> Tensor:
        """Softmax of each member for each image, (N, members, classes, grid, grid)."""
        grid = self.settings.grid or backbone.image_size
        activations = extract(backbone, images, self.settings.features)
        each = [
            self.probabilities([a[i : i + 1] for a in activations], grid)
            for i in range(len(images))
        ]
        return torch.stack(each)


def train_probes(
    examples: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
    backbone: Backbone,
    settings: ProbeSettings,
    classes: Sequence[str],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Probes:
    """Train on (photograph, mask) pairs; masks of another size are brought to the backbone's grid.

    Classes that no mask shows are never predicted. Deterministic for `settings.seed` on CPU.
    Raises TrainingDataError where there is nothing to tell apart.
    """
    samples, labels = _sample(examples, backbone, settings, len(classes))
    trained = tuple(int(c) for c in torch.unique(labels))
    if len(trained) < 2:
        shown = classes[trained[0]] if trained else "no class"
        raise TrainingDataError(
            f"the masks show only {shown}: probes need masks with at least two classes"
        )
    tensors = _fit(samples, labels, settings, len(classes), progress)
    return Probes(settings, tuple(classes), trained, backbone.name, backbone.hash, tensors)


def load_probes(path: Path) -> Probes:
    """Probes from a file; raises WeightsError where it holds none."""
    if not path.is_file():
        raise WeightsError(f"no probes at {path}: train them first")
    tensors, header = read_safetensors(path, PROBES_KIND)
    return Probes(
        ProbeSettings.from_dict(json.loads(header["settings"])),
        tuple(json.loads(header["classes"])),
        tuple(json.loads(header["trained"])),
        header["backbone_name"],
        header["backbone_hash"],
        tensors,
    )


def _prediction(votes: Tensor, shape: tuple[int, ...]) -> Prediction:
    """The mask at `shape` (H, W) that the members' softmaxes (members, classes, S, S) agree on."""
    mean = votes.mean(0)
    if not torch.isfinite(mean).all():
        raise WeightsError(
            "the backbone gave activations that are not numbers: its weights are damaged"
        )
    disagreement = _entropy(mean, 0) - _entropy(votes, 1).mean(0)
    full = F.interpolate(mean[None], tuple(shape), mode="bilinear", align_corners=False)[0]
    return Prediction(
        full.argmax(0).to(torch.uint8).numpy(), float(disagreement.mean().clamp_min(0))
    )


def _entropy(p: Tensor, dim: int) -> Tensor:
    return -(p * p.clamp_min(1e-12).log()).sum(dim)


def _sample(
    examples: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
    backbone: Backbone,
    settings: ProbeSettings,
    class_count: int,
) -> tuple[Tensor, Tensor]:
    """Activations at sampled pixels, (P, C) float16, and their classes, (P,) int64."""
    size = backbone.image_size
    rng = torch.Generator().manual_seed(settings.seed)
    found, classes = [], []
    views = settings.views + 1
    for images, masks in _views(examples, size, settings, rng):
        points = torch.stack(
            [
                _balanced_points(
                    m, settings.pixels_per_image // views, settings.class_balance, class_count, rng
                )
                for m in masks
            ]
        )
        with torch.inference_mode():
            activations = extract(backbone, images, settings.features)
            read = at_points(activations, points, size, settings.features.normalise)
        found.append(read.flatten(0, 1).half())
        picked = [m[p[:, 0], p[:, 1]] for m, p in zip(masks, points, strict=True)]
        classes.append(torch.cat(picked).long())
    if not found:
        raise TrainingDataError("there are no masks to learn from")
    samples = torch.cat(found)
    if not torch.isfinite(samples).all():
        raise TrainingDataError(
            "the backbone gave activations that are not numbers: its weights are damaged"
        )
    return samples, torch.cat(classes)


def _views(
    examples: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
    size: int,
    settings: ProbeSettings,
    rng: torch.Generator,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each example as a batch: itself and its augmented views, (V, 3, S, S) and (V, S, S)."""
    for photograph, mask in examples:
        image = prepare(photograph, size)
        small = Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST)
        label = torch.from_numpy(np.array(small))
        images, labels = augmented_views(image, label, settings.views, rng)
        yield torch.cat([image[None], images]), torch.cat([label[None], labels])


def _balanced_points(
    mask: Tensor, count: int, balance: float, class_count: int, rng: torch.Generator
) -> Tensor:
    """`count` pixels (row, column) of a mask, its classes weighted by share ** (1 - balance)."""
    flat = mask.flatten().long()
    share = torch.bincount(flat, minlength=class_count).double() / len(flat)
    weights = (share.clamp_min(1e-12) ** -balance)[flat]
    chosen = torch.multinomial(weights, count, replacement=True, generator=rng)
    width = mask.shape[1]
    return torch.stack([chosen // width, chosen % width], 1)


def _fit(
    samples: Tensor,
    labels: Tensor,
    settings: ProbeSettings,
    class_count: int,
    progress: Callable[[int, int], None],
) -> dict[str, Tensor]:
    """Train all members together; returns weights that read plain activations (statistics folded in).

    Tensors by name, the member first: w1 (M, C, 128), b1 (M, 128), w2 (M, 128, 32), ...
    """
    rng = torch.Generator().manual_seed(settings.seed + 1)
    mean = samples.float().mean(0)
    std = samples.float().std(0).clamp_min(1e-4)
    members = settings.members
    net = _Ensemble(members, samples.shape[1], class_count, rng)
    optimiser = torch.optim.AdamW(
        net.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, settings.steps
    )
    for step in range(settings.steps):
        pick = torch.randint(0, len(samples), (members, settings.batch_size), generator=rng)
        x = (samples[pick].float() - mean) / std
        logits = net(x)
        loss = F.cross_entropy(logits.flatten(0, 1), labels[pick].flatten(), reduction="sum")
        optimiser.zero_grad()
        torch.autograd.backward(loss / settings.batch_size)
        optimiser.step()
        schedule.step()
        progress(step + 1, settings.steps)
    return net.folded(mean, std)


class _Ensemble(nn.Module):
    """Members of in -> 128 -> 32 -> classes, ReLU and batch norm between, computed side by side."""

    def __init__(self, members: int, inputs: int, class_count: int, rng: torch.Generator) -> None:
        super().__init__()
        widths = (inputs, *HIDDEN, class_count)
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in pairwise(widths):
            bound = fan_in**-0.5  # as nn.Linear
            self.weights.append(
                torch.empty(members, fan_in, fan_out).uniform_(-bound, bound, generator=rng)
            )
            self.biases.append(
                torch.empty(members, 1, fan_out).uniform_(-bound, bound, generator=rng)
            )
        self.norms = nn.ModuleList([nn.BatchNorm1d(members * width) for width in HIDDEN])

    def forward(self, x: Tensor) -> Tensor:
        """(M, B, C) -> logits (M, B, classes)."""
        for layer, norm in enumerate(self.norms):
            x = F.relu(x @ self.weights[layer] + self.biases[layer])
            members, batch, width = x.shape
            flat = x.transpose(0, 1).reshape(batch, members * width)
            x = norm(flat).view(batch, members, width).transpose(0, 1)
        logits: Tensor = x @ self.weights[-1] + self.biases[-1]
        return logits

    @torch.no_grad()
    def folded(self, mean: Tensor, std: Tensor) -> dict[str, Tensor]:
        """Plain weights: input statistics and batch norms folded into the layers beside them."""
        w1 = self.weights[0] / std[None, :, None]
        tensors = {"w1": w1, "b1": self.biases[0][:, 0] - torch.einsum("c,mcf->mf", mean, w1)}
        for layer, norm in enumerate(self.norms, start=1):
            members = self.weights[layer].shape[0]
            assert isinstance(norm, nn.BatchNorm1d)
            assert norm.running_var is not None
            assert norm.running_mean is not None
            scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).view(members, -1)
            shift = norm.bias.view(members, -1) - norm.running_mean.view(members, -1) * scale
            weight = self.weights[layer]
            tensors[f"w{layer + 1}"] = weight * scale[:, :, None]
            tensors[f"b{layer + 1}"] = self.biases[layer][:, 0] + torch.einsum(
                "mf,mfg->mg", shift, weight
            )
        return {k: v.detach().clone() for k, v in tensors.items()}
