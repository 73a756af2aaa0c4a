"""verify against a bare loop that reads, decodes and hashes the same files on as many threads, in one run.

A workspace of COUNT photographs of SIZE x SIZE pixels with a mask each; or the workspace named by
DDISEG_WORKSPACE. Goal: at least 80 % of the bare loop's rate, flat memory, and a stopped check that
goes on.
"""

from __future__ import annotations

import hashlib
import io
import os
import resource
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.timing import seconds
from ddiseg import images, masks
from ddiseg.workspace.store import Kind
from ddiseg.workspace.verify import verify
from ddiseg.workspace.workspace import Workspace

COUNT, SIZE, ROUNDS = 400, 512, 3


def main() -> None:
    if folder := os.environ.get("DDISEG_WORKSPACE"):
        _measure(Workspace.open(Path(folder)), 1)
        return
    with tempfile.TemporaryDirectory() as temporary:
        _measure(_workspace(Path(temporary) / "w"), ROUNDS)


def _measure(workspace: Workspace, rounds: int) -> None:
    threads = min(8, os.cpu_count() or 1)
    root = Path(workspace.store.path(Kind.IMAGE, "00")).parents[2]
    paths = sorted(p for kind in ("images", "masks") for p in (root / kind).rglob("*.png"))
    catalogue = [seconds(lambda: _without_files(workspace)) for _ in range(rounds)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours, bare = [], []
    for _ in range(rounds):
        ours.append(seconds(lambda: verify(workspace, restart=True)))
        bare.append(seconds(lambda: _bare(paths, threads)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    files = min(ours) - min(catalogue)
    print(
        f"verify of {len(paths)} files on {threads} threads: {min(ours):.1f} s, {len(paths) / min(ours):.0f} "
        f"files/s; a bare loop {min(bare):.1f} s: {min(bare) / min(ours):.0%} of its rate (files alone "
        f"{min(bare) / files:.0%}; the catalogue takes {min(catalogue):.1f} s); peak {peak // 1024} MB, "
        f"{(peak - before) // 1024} MB more than before (best of {rounds})"
    )


def _bare(paths: list[Path], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(_read, paths, chunksize=16))


def _read(path: Path) -> str:
    with Image.open(io.BytesIO(path.read_bytes())) as picture:
        return hashlib.sha256(np.asarray(picture).tobytes()).hexdigest()


def _without_files(workspace: Workspace) -> None:
    from ddiseg.sampling.leaks import find_leaks
    from ddiseg.workspace.verify import _orphans

    workspace.catalogue.events.contradictions()
    find_leaks(workspace.catalogue)
    _orphans(workspace)


def _workspace(root: Path) -> Workspace:
    from ddiseg.catalogue import NewImage, NewMask

    workspace = Workspace.create(root)
    catalogue = workspace.catalogue
    dataset = catalogue.images.dataset("random", "CC0", None)
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        coarse = rng.integers(0, 256, (16, 16, 3), np.uint8)
        smooth = Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        noise = rng.integers(0, 8, (SIZE, SIZE, 3), np.uint8)
        pixels = np.asarray(smooth) // 2 + noise
        digest = images.content_hash(pixels)
        workspace.store.put(Kind.IMAGE, digest, images.encode_png(pixels))
        new = NewImage(f"{number}.png", digest, 1, 1, digest, f"{number:016x}", SIZE, SIZE)
        catalogue.images.add(dataset.id, [new], "benchmark")
        mask = np.asarray(
            Image.fromarray(coarse[:, :, 0] % 5).resize((SIZE, SIZE), Image.Resampling.NEAREST)
        )
        stored = workspace.store_mask(mask)
        row = NewMask(
            *(number + 1, stored, SIZE, SIZE, "same", [0, 1, 2, 3, 4], "1.0"), annotator="a"
        )
        catalogue.masks.submit([row], reviewer="b")
    assert masks.count_unlabelled(mask) == 0
    return workspace


if __name__ == "__main__":
    main()
