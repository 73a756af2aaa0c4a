"""What the blocks of a backbone see: K-means maps of their activations, the paper's supplementary
figure (after Baranchuk et al., ICLR 2022, figure 3).

Arrays: a photograph is (H, W, 3) uint8 RGB; a map is (h, w) uint8 cluster ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fedd.backbone import DIFFUSION_STEPS, IMAGENET_256, Backbone, UNetConfig
from fedd.errors import ExplorationError, WeightsError
from fedd.features import prepare
from fedd.figures import SERIES, Sheet, draw_sheet, save

#: Longer side of a picture on a sheet, in pixels: twice what it takes on paper.
SIDE = 320

#: Pictures that a page holds before a reader has to search.
ROWS, COLUMNS = 8, 12

#: Photographs in one pass of the backbone.
_BATCH = 4

#: Starts of K-means; the tightest clusters are kept.
_STARTS = 4


def default_blocks(config: UNetConfig) -> tuple[int, ...]:
    """Those of the paper's network where lesions show best, and every other one of another network."""
    return (4, 6, 8, 12) if config == IMAGENET_256 else tuple(range(1, config.decoder_blocks, 2))


def check_explorable(backbone: Backbone, blocks: Sequence[int], timesteps: Sequence[int]) -> None:
    """Raises ExplorationError for a block that `backbone` lacks, or a timestep out of the schedule."""
    if not (blocks and timesteps):
        raise ExplorationError("there is nothing to explore: give a block and a timestep")
    if unknown := sorted(set(blocks) - set(backbone.blocks)):
        raise ExplorationError(
            f"{backbone.name} has decoder blocks {backbone.blocks[0]} to {backbone.blocks[-1]}, "
            f"not {', '.join(map(str, unknown))}"
        )
    if strange := [t for t in timesteps if not 0 <= t < DIFFUSION_STEPS]:
        raise ExplorationError(f"a timestep is 0 to {DIFFUSION_STEPS - 1}, not {strange[0]}")


def cluster_map(
    activation: Tensor, shape: tuple[int, int], k: int, seed: int = 0
) -> NDArray[np.uint8]:
    """K-means clusters of one block's activation (C, h, w), as a map of `shape` (H, W).

    The centres are those of the block's own positions. Each pixel of the map gets the centre that is
    nearest to the activation up-sampled bilinearly to it; |x - c|^2 = |x|^2 - 2 x.c + |c|^2 and |x|^2
    is alike for all centres, so only k linear scores are up-sampled, with the same result. Fewer than
    k clusters come out where the activation has fewer distinct values. Deterministic for a seed.
    """
    channels = activation.shape[0]
    points = activation.detach().float().cpu().reshape(channels, -1).T.numpy()
    centres = torch.from_numpy(_centres(points, k, seed))
    scores = 2 * torch.einsum("kc,chw->khw", centres, activation.detach().float().cpu())
    scores -= (centres**2).sum(1)[:, None, None]
    full = F.interpolate(scores[None], shape, mode="bilinear", align_corners=False)[0]
    found: NDArray[np.uint8] = full.argmax(0).to(torch.uint8).numpy()
    return found


def by_brightness(clusters: NDArray[np.uint8], photograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cluster ids renumbered from the darkest part of the photograph to the brightest.

    K-means numbers its clusters by chance; this way a colour tends to mean the same from map to map.
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
    """Draw a row for each (name, photograph), a column for each block and timestep.

    The backbone runs once for each photograph and timestep, whatever the number of blocks. What does
    not fit on one page is split over files named FILE-1-of-4.png and so on; returns each file with
    what it shows. Raises ExplorationError for a block or timestep that there is not, WeightsError
    where activations are not numbers, FigureError where the file can't be written.
    """
    check_explorable(backbone, blocks, timesteps)
    small = [_thumbnail(photograph) for _, photograph in photographs]
    maps: list[dict[tuple[int, int], NDArray[np.uint8]]] = [{} for _ in photographs]
    total = len(photographs) * len(timesteps)
    for done, timestep in enumerate(timesteps):
        for start in range(0, len(photographs), _BATCH):
            part = range(start, min(start + _BATCH, len(photographs)))
            images = torch.stack([prepare(photographs[i][1], backbone.image_size) for i in part])
            with torch.inference_mode():
                found = backbone.activations(images, timestep, blocks)
            for place, index in enumerate(part):
                for block in blocks:
                    painted = _painted(found[block][place], small[index], k, seed)
                    maps[index][block, timestep] = painted
            progress(done * len(photographs) + part.stop, total)
    names = [name for name, _ in photographs]
    made_with = f"{backbone.name}, K = {k}, seed {seed}"
    return _write_pages(names, small, maps, blocks, timesteps, path, k, made_with)


def _centres(points: NDArray[np.float32], k: int, seed: int) -> NDArray[np.float32]:
    """Up to `k` cluster centres of points (P, C)."""
    from scipy.cluster.vq import ClusterError, kmeans2

    if not np.isfinite(points).all():
        raise WeightsError(
            "the backbone gave activations that are not numbers: its weights are damaged"
        )
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
    # A cluster ran empty every time: there are fewer of them than that.
    return _centres(points, k - 1, seed) if best is None else np.asarray(best, np.float32)


def _spread_out(
    points: NDArray[np.float32], k: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Up to `k` distinct points to start from, each likely far from the others (k-means++)."""
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


def _painted(
    activation: Tensor, photograph: NDArray[np.uint8], k: int, seed: int
) -> NDArray[np.uint8]:
    """The clusters of one activation in their colours, of the size of `photograph`."""
    height, width, _ = photograph.shape
    clusters = cluster_map(activation, (height, width), k, seed)
    colours = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in SERIES], np.uint8)
    return np.asarray(colours[by_brightness(clusters, photograph)])


def _write_pages(
    names: Sequence[str],
    photographs: Sequence[NDArray[np.uint8]],
    maps: Sequence[dict[tuple[int, int], NDArray[np.uint8]]],
    blocks: Sequence[int],
    timesteps: Sequence[int],
    path: Path,
    k: int,
    made_with: str,
) -> list[tuple[Path, str]]:
    pages = [
        (rows, columns)
        for rows in _parts(len(names), ROWS)
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
        sheet = Sheet(
            pictures=[[photographs[i], *(maps[i][c] for c in columns)] for i in rows],
            rows=[names[i] for i in rows],
            columns=["photograph", *(f"t = {t}" for _, t in columns)],
            groups=[("", 1), *((f"block {b}", len(of)) for b, of in spans.items())],
            title="K-means maps of activations",
            note=f"{made_with}; {shown}. Clusters of each map are in the order of the photograph's brightness.",
            key=_key(k),
        )
        save(draw_sheet(sheet), target)
        written.append((target, shown))
    return written


def _key(k: int) -> list[tuple[str, str]]:
    labels = ["darkest cluster", *[""] * (k - 2), "brightest"]
    return list(zip(SERIES, labels, strict=False))


def _pages_of_columns(
    blocks: Sequence[int], timesteps: Sequence[int]
) -> list[list[tuple[int, int]]]:
    """(block, timestep) by page; a block stays on one page where it can."""
    if len(timesteps) > COLUMNS:
        return [
            [(block, timesteps[i]) for i in part]
            for block in blocks
            for part in _parts(len(timesteps), COLUMNS)
        ]
    parts = _parts(len(blocks), COLUMNS // len(timesteps))
    return [[(blocks[i], t) for i in part for t in timesteps] for part in parts]


def _parts(n: int, most: int) -> list[range]:
    """0 to n - 1 in as few parts of at most `most` as there can be, as even as they can be."""
    count = -(-n // most)
    ends = [round(n * i / count) for i in range(count + 1)]
    return [range(a, b) for a, b in pairwise(ends)]
