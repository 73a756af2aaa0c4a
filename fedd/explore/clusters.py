"""Maps of a backbone's activations and their K-means clusters, the paper's supplementary figure 1.

After Baranchuk et al., ICLR 2022, figure 3. Arrays: a photograph is (H, W, 3) uint8 RGB; a map is (h, w)
uint8 cluster ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fedd.backbone import DIFFUSION_STEPS, IMAGENET_256, Backbone, is_verified
from fedd.errors import ExplorationError
from fedd.features import check_finite
from fedd.figures import SERIES, ContactSheet, draw_contact_sheet, save
from fedd.network.architecture import Architecture
from fedd.pipeline import Source, activations
from fedd.weights.names import titled_weights

#: Larger dimension in pixels of a picture on the contact sheet: twice its printed size.
SIDE = 320

#: Photographs and pictures in a row on a page. A photograph has two rows: activations and clusters.
PHOTOGRAPHS, COLUMNS = 4, 12

#: Percentiles of an activation map that are drawn black and white.
_DARKEST, _BRIGHTEST = 2, 98

#: The grey activation map and the coloured clusters by block and timestep, (h, w, 3) each.
Maps: TypeAlias = dict[tuple[int, int], tuple[NDArray[np.uint8], NDArray[np.uint8]]]

#: Starts of K-means; the tightest clusters are kept.
_STARTS = 4


def default_blocks(config: Architecture) -> tuple[int, ...]:
    """Return the paper's network's blocks that show lesions best, every other block of another network."""
    return (4, 6, 8, 12) if config == IMAGENET_256 else tuple(range(1, config.decoder_blocks, 2))


def check_explorable(backbone: Backbone, blocks: Sequence[int], timesteps: Sequence[int]) -> None:
    """Raise ExplorationError for a block that `backbone` lacks, or a timestep out of the schedule."""
    if not (blocks and timesteps):
        raise ExplorationError("there is nothing to explore: give a block and a timestep")
    if unknown := sorted(set(blocks) - set(backbone.blocks)):
        raise ExplorationError(
            f"{backbone.name} has decoder blocks {backbone.blocks[0]} to {backbone.blocks[-1]}, "
            f"not {', '.join(map(str, unknown))}"
        )
    if strange := [t for t in timesteps if not 0 <= t < DIFFUSION_STEPS]:
        raise ExplorationError(f"a timestep is 0 to {DIFFUSION_STEPS - 1}, not {strange[0]}")


def supplement_blocks(config: Architecture) -> tuple[int, ...]:
    """Return the blocks of the paper's supplementary figure 1, in its order, or those of another network."""
    return (12, 10, 8, 6) if config == IMAGENET_256 else default_blocks(config)[::-1]


def activation_map(activation: Tensor, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the mean over the channels of one block's activation (C, h, w) as a grey map of `shape` (H, W).

    Up-sampled bilinearly; black and white are the map's own 2nd and 98th percentile. The paper does not
    say how its maps were made.
    """
    mean = check_finite(activation.detach().float().cpu()).mean(0)
    full = F.interpolate(mean[None, None], shape, mode="bilinear", align_corners=False)[0, 0]
    low, high = np.percentile(full.numpy(), (_DARKEST, _BRIGHTEST))
    grey = (full.numpy() - low) / max(high - low, 1e-12)
    return np.asarray((grey.clip(0, 1) * 255).round(), np.uint8)


def cluster_map(
    activation: Tensor, shape: tuple[int, int], k: int, seed: int = 0
) -> NDArray[np.uint8]:
    """Cluster one block's activation (C, h, w) by K-means, into a map of `shape` (H, W).

    The centres are those of the block's own positions. Each pixel of the map gets the centre nearest to
    the bilinearly up-sampled activation; |x - c|^2 = |x|^2 - 2 x.c + |c|^2 and |x|^2 is equal for all
    centres, so up-sampling k linear scores gives the same result. The map has fewer than k clusters if
    the activation has fewer distinct values. Deterministic for a seed.
    """
    activation = check_finite(activation.detach().float().cpu())
    points = activation.reshape(len(activation), -1).T.numpy()
    centres = torch.from_numpy(_centres(points, k, seed))
    scores = 2 * torch.einsum("kc,chw->khw", centres, activation)
    scores -= (centres**2).sum(1)[:, None, None]
    full = F.interpolate(scores[None], shape, mode="bilinear", align_corners=False)[0]
    found: NDArray[np.uint8] = full.argmax(0).to(torch.uint8).numpy()
    return found


def by_brightness(clusters: NDArray[np.uint8], photograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Renumber cluster ids from the darkest part of the photograph to the brightest.

    K-means numbers its clusters arbitrarily; now a colour tends to mean the same on all maps.
    `photograph` is (h, w, 3), of the map's size.
    """
    # Luma (ITU-R BT.601) is enough to order by.
    luma = photograph.astype(np.float64) @ (0.299, 0.587, 0.114)
    ids = np.unique(clusters)
    order = sorted(ids, key=lambda i: float(luma[clusters == i].mean()))
    renumbered = np.zeros(256, np.uint8)
    renumbered[order] = np.arange(len(order))
    return np.asarray(renumbered[clusters])


def write_cluster_maps(
    photographs: Sequence[tuple[str, NDArray[np.uint8]]],
    backbone: Backbone,
    blocks: Sequence[int],
    timesteps: Sequence[int],
    path: Path,
    *,
    k: int = 3,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[tuple[Path, str]]:
    """Draw two rows for each (name, photograph), a column for each block and timestep.

    Above, the activations' mean over the channels; below, their clusters. The backbone runs once per photograph and timestep. Several pages are written as FILE-1-of-4.png and
    so on; returns each file with what it shows. Raises ExplorationError for an unknown block or timestep,
    WeightsError if activations are not numbers, FigureError if the file can't be written.
    """
    check_explorable(backbone, blocks, timesteps)
    small = [_thumbnail(photograph) for _, photograph in photographs]
    maps: list[Maps] = [{} for _ in photographs]
    total = len(photographs) * len(timesteps)
    for done, timestep in enumerate(timesteps):
        sources = [Source(i, partial(np.asarray, p)) for i, (_, p) in enumerate(photographs)]
        passed = activations(backbone, sources, timestep, blocks)
        for index, found, _ in passed:
            for block, activation in zip(blocks, found or (), strict=True):
                height, width, _ = small[index].shape
                grey = activation_map(activation, (height, width))[..., None].repeat(3, -1)
                coloured = _coloured(activation, small[index], k, seed)
                maps[index][block, timestep] = grey, coloured
            progress(done * len(photographs) + index + 1, total)
    names = [name for name, _ in photographs]
    weights = titled_weights(backbone.name, backbone.hash, is_verified(backbone))
    made_with = f"{weights}, K = {k}, seed {seed}"
    return _write_pages(names, small, maps, blocks, timesteps, path, k, made_with)


def _centres(points: NDArray[np.float32], k: int, seed: int) -> NDArray[np.float32]:
    """Return up to `k` cluster centres of points (P, C)."""
    from scipy.cluster.vq import ClusterError, kmeans2

    rng = np.random.default_rng(seed)
    best, least = None, np.inf
    for _ in range(_STARTS):
        start = _spread_out(points, k, rng)
        try:
            centres, ids = kmeans2(points, start, iter=30, minit="matrix", missing="raise")
        except ClusterError:
            continue
        spread = float(((points - centres[ids]) ** 2).sum())
        if spread < least:
            best, least = centres, spread
    # Every start ended with an empty cluster: there are fewer clusters.
    return _centres(points, k - 1, seed) if best is None else np.asarray(best, np.float32)


def _spread_out(
    points: NDArray[np.float32], k: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Sample up to `k` distinct points to start from, far from each other (k-means++)."""
    chosen = [points[rng.integers(len(points))]]
    nearest = ((points - chosen[0]) ** 2).sum(1, dtype=np.float64)
    while len(chosen) < k and nearest.sum() > 0:
        chosen.append(points[rng.choice(len(points), p=nearest / nearest.sum())])
        nearest = np.minimum(nearest, ((points - chosen[-1]) ** 2).sum(1, dtype=np.float64))
    return np.stack(chosen)


def _thumbnail(photograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
    picture = Image.fromarray(photograph)
    picture.thumbnail((SIDE, SIDE))
    return np.array(picture)


def _coloured(
    activation: Tensor, photograph: NDArray[np.uint8], k: int, seed: int
) -> NDArray[np.uint8]:
    """Return the clusters of one activation in their colours, at the size of `photograph`."""
    height, width, _ = photograph.shape
    clusters = cluster_map(activation, (height, width), k, seed)
    colours = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in SERIES], np.uint8)
    return np.asarray(colours[by_brightness(clusters, photograph)])


def _write_pages(
    names: Sequence[str],
    photographs: Sequence[NDArray[np.uint8]],
    maps: Sequence[Maps],
    blocks: Sequence[int],
    timesteps: Sequence[int],
    path: Path,
    k: int,
    made_with: str,
) -> list[tuple[Path, str]]:
    pages = [
        (rows, columns)
        for rows in _even_ranges(len(names), PHOTOGRAPHS)
        for columns in _pages_of_columns(blocks, timesteps)
    ]
    written = []
    for number, (rows, columns) in enumerate(pages, 1):
        target = path
        if len(pages) > 1:
            target = path.with_stem(f"{path.stem}-{number:0{len(str(len(pages)))}}-of-{len(pages)}")
        spans = {block: [c for c in columns if c[0] == block] for block, _ in columns}
        shown = f"photographs {rows.start + 1} to {rows.stop} of {len(names)}, blocks " + ", ".join(
            map(str, spans)
        )
        sheet = ContactSheet(
            pictures=[
                [photographs[i], *(maps[i][c][kind] for c in columns)]
                for i in rows
                for kind in (0, 1)
            ],
            rows=[label for i in rows for label in (names[i], f"K-means, K = {k}")],
            columns=["photograph", *(f"t = {t}" for _, t in columns)],
            groups=[("", 1), *((f"block {b}", len(of)) for b, of in spans.items())],
            title="Activations and their clusters",
            note=f"{made_with}; {shown}.\nAbove: mean over the channels, black to white from the 2nd to the "
            "98th percentile of each map. Below: clusters in the order of the photograph's brightness.",
            key=_key(k),
        )
        save(draw_contact_sheet(sheet), target)
        written.append((target, shown))
    return written


def _key(k: int) -> list[tuple[str, str]]:
    labels = ["darkest cluster", *[""] * (k - 2), "brightest"]
    return list(zip(SERIES, labels, strict=False))


def _pages_of_columns(
    blocks: Sequence[int], timesteps: Sequence[int]
) -> list[list[tuple[int, int]]]:
    """Return (block, timestep) by page; a block stays on one page if it fits."""
    if len(timesteps) > COLUMNS:
        return [
            [(block, timesteps[i]) for i in part]
            for block in blocks
            for part in _even_ranges(len(timesteps), COLUMNS)
        ]
    parts = _even_ranges(len(blocks), COLUMNS // len(timesteps))
    return [[(blocks[i], t) for i in part for t in timesteps] for part in parts]


def _even_ranges(n: int, most: int) -> list[range]:
    """Divide 0 to n - 1 into the fewest ranges of at most `most`, as even as possible."""
    count = -(-n // most)
    ends = [round(n * i / count) for i in range(count + 1)]
    return [range(a, b) for a, b in pairwise(ends)]
