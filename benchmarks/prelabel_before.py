"""Prelabel as it was before the pipeline, for comparison: everything in turn, but for the decoding.

Photographs in parts of 8, opened on 4 threads; then, one photograph after the other: resized, each
block's first layer up-sampled by F.interpolate, every probability looked at, argmax over the classes,
one flush of the disk for each mask and one for its folder.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from annotation_protocol import load_protocol
from annotation_protocol.files import atomic_write
from ddiseg import masks
from ddiseg.catalogue import NewMask
from ddiseg.catalogue.embeddings import embedding_space
from ddiseg.catalogue.tables import Image
from ddiseg.images import Photograph
from ddiseg.model.predict import Predictor
from ddiseg.workspace.store import Kind
from fedd.backbone import Backbone
from fedd.features import extract, prepare
from fedd.probes.ensemble import HIDDEN
from fedd.probes.refiner import REACH, Window, window_around
from fedd.segment import Prediction, Probes

PART, AHEAD, THREADS, TRANSACTION = 8, 2, 4, 64


def predict_before(predictor: Predictor, images: Sequence[Image]) -> None:
    """Predict and store masks of images that have none."""
    parts = [images[start : start + PART] for start in range(0, len(images), PART)]
    waiting: list[tuple[Image, Prediction, str]] = []
    with ThreadPoolExecutor(THREADS) as pool:
        opening = deque(pool.map(predictor.workspace.photograph, part) for part in parts[:AHEAD])
        for index, part in enumerate(parts):
            photographs = list(opening.popleft())
            if index + AHEAD < len(parts):
                opening.append(pool.map(predictor.workspace.photograph, parts[index + AHEAD]))
            found = predict_masks(predictor.probes, predictor.net, photographs)
            for image, prediction in zip(part, found, strict=True):
                waiting.append((image, prediction, _store(predictor, prediction.mask)))
            if len(waiting) >= TRANSACTION or index + 1 == len(parts):
                _commit(predictor, waiting)
                waiting = []


@torch.inference_mode()
def predict_masks(
    probes: Probes, backbone: Backbone, photographs: Sequence[Photograph]
) -> list[Prediction]:
    """Predict masks of photographs, the refinement pass included."""
    members, activations = _members(probes, backbone, photographs)
    embeddings = torch.cat([a.mean((2, 3)) for a in activations], 1).numpy()
    refined: dict[int, tuple[Window, Tensor]] = {}
    if probes.refiner is not None and probes.settings.refined_class is not None:
        class_id = probes.classes.index(probes.settings.refined_class)
        size = (backbone.image_size,) * 2
        for index, each in enumerate(members):
            if window := window_around(_resized(each.mean(0), size) == class_id, REACH):
                crop = window.of(photographs[index])
                refined[index] = window, _members(probes.refiner, backbone, [crop])[0][0].mean(0)
    found = []
    for index, each in enumerate(members):
        mean = each.mean(0)
        information = _entropy(mean, 0) - _entropy(each, 1).mean(0)
        mask = _resized(mean, photographs[index].shape[:2])
        if index in refined and probes.refiner is not None:
            window, probabilities = refined[index]
            inside = mask[window.slices(*mask.shape)]
            known = np.isin(inside, probes.refiner.trained)
            inside[known] = _resized(probabilities, inside.shape)[known]
        uncertainty = float(information.mean().clamp_min(0))
        found.append(Prediction(mask, uncertainty, embeddings[index]))
    return found


def _members(
    probes: Probes, backbone: Backbone, photographs: Sequence[Photograph]
) -> tuple[Tensor, list[Tensor]]:
    """Return the members' probabilities, (N, M, K, g, g), and the activations of the photographs."""
    images = torch.stack([prepare(p, backbone.image_size) for p in photographs])
    grid = probes.settings.grid or backbone.image_size

    def of(views: Tensor) -> tuple[Tensor, list[Tensor]]:
        activations = extract(backbone, views, probes.settings.features)
        each = [
            _probabilities(probes, [a[i : i + 1] for a in activations], grid)
            for i in range(len(views))
        ]
        return torch.stack(each), activations

    members, activations = of(images)
    if probes.settings.mirrored:
        members = (members + of(images.flip(-1))[0].flip(-1)) / 2
    assert torch.isfinite(members).all()
    return members, activations


def _probabilities(probes: Probes, activations: Sequence[Tensor], size: int) -> Tensor:
    if type(probes) is not Probes:  # a stand-in
        return probes.probabilities(activations, size)
    weights, bias = _first_layer(probes, activations)
    t = probes.tensors
    total = bias[None, :, None, None].repeat(1, 1, size, size)
    for activation, weight in zip(activations, weights, strict=True):
        low = F.conv2d(activation, weight[:, :, None, None])
        total += F.interpolate(low, (size, size), mode="bilinear", align_corners=False)
    h = F.relu_(total[0].view(len(t["w1"]), HIDDEN[0], size * size))
    h = F.relu_(torch.baddbmm(t["b2"][..., None], t["w2"].mT, h))
    logits = torch.baddbmm(t["b3"][..., None], t["w3"].mT, h) / probes.temperature
    logits[:, [c for c in range(len(probes.classes)) if c not in probes.trained]] = -torch.inf
    return logits.softmax(1).view(*logits.shape[:2], size, size)


def _first_layer(probes: Probes, activations: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    w1 = probes.tensors["w1"].transpose(1, 2).flatten(0, 1)
    bias = probes.tensors["b1"].flatten()
    weights, start = [], 0
    for activation in activations:
        channels = activation.shape[1]
        weight = w1[:, start : start + channels]
        start += channels
        if probes.settings.features.normalise:
            mean = activation.mean((0, 2, 3))
            std = activation.std((0, 2, 3), correction=0).clamp_min(1e-5)
            relative = w1[:, start : start + channels] / std
            start += channels
            weight = weight + relative
            bias = bias - relative @ mean
        weights.append(weight)
    return weights, bias


def _resized(probabilities: Tensor, shape: Sequence[int]) -> NDArray[np.uint8]:
    full = F.interpolate(probabilities[None], tuple(shape), mode="bilinear", align_corners=False)
    return full[0].argmax(0).to(torch.uint8).numpy()


def _entropy(p: Tensor, dim: int) -> Tensor:
    return -(p * p.clamp_min(1e-12).log()).sum(dim)


def _store(predictor: Predictor, mask: NDArray[np.uint8]) -> str:
    digest = masks.mask_hash(mask)
    path = Path(predictor.workspace.store.path(Kind.MASK, digest))
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, masks.encode_png(mask, load_protocol().palette()))
    return digest


def _commit(predictor: Predictor, predicted: Sequence[tuple[Image, Prediction, str]]) -> None:
    version = predictor.version
    rows = [
        NewMask(
            image_id=image.id,
            content_hash=digest,
            width=image.width,
            height=image.height,
            mapping="same",
            classes=list(predictor.probes.trained),
            protocol_version=version.protocol_version,
            model_version_id=version.id,
            uncertainty=each.uncertainty,
        )
        for image, each, digest in predicted
    ]
    space = embedding_space(version.backbone_hash, version.settings)
    embeddings = {image.id: each.embedding for image, each, _ in predicted}
    predictor.workspace.catalogue.masks.add_predictions(rows, (space, embeddings))
