"""Prelabel on a Ray that runs on this machine against the same machine alone, with the shipped network.

What Ray costs at the start (processes, imports, the network on each worker) is said apart: rates are
from the first batch on. Each way predicts the same photographs in a copy of one workspace of its own;
the masks must be equal, bit for bit.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from benchmarks.prelabel import prepare_workspace
from ddiseg.compute.ray_cluster import Cluster, connect
from ddiseg.compute.ray_pool import CPU_BATCH
from ddiseg.model.predict import prelabel
from ddiseg.workspace.workspace import Workspace

IMAGES = 500


@dataclass
class Clock:
    """When photographs were done, in seconds from the start."""

    started: float = field(default_factory=time.perf_counter)
    done: list[float] = field(default_factory=list)

    def __call__(self, _done: int, _total: int) -> None:
        self.done.append(time.perf_counter() - self.started)

    def rate(self, warm: int) -> float:
        """Return the photographs a second after the first `warm`."""
        return (len(self.done) - warm) / (self.done[-1] - self.done[warm - 1])


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.ray_engine", description=__doc__)
    parser.add_argument("--images", type=int, default=IMAGES, help="photographs that are predicted")
    images = parser.parse_args(arguments).images
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    ways: dict[str, tuple[int, Callable[[], AbstractContextManager[Cluster | None]]]] = {
        "this machine alone": (0, nullcontext),
        f"Ray, {cores} workers": (cores, lambda: connect("local")),
        "Ray, 1 worker": (1, lambda: connect("local")),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare_workspace(folder / "work", images)
        rates, masks = {}, []
        for way, (workers, where) in ways.items():
            clock, hashes = _run(folder, workers, where)
            masks.append(hashes)
            rates[way] = clock.rate(warm=max(1, workers) * CPU_BATCH)
            print(
                f"{way:<22}{rates[way]:6.2f} images/s; first after {clock.done[0]:5.1f} s, all after "
                f"{clock.done[-1]:6.1f} s (n = {images})"
            )
    local, all_workers, one = rates.values()
    print(f"overhead of Ray after its start: {100 * (local / all_workers - 1):+.1f} % (goal: 15)")
    print(f"{cores} workers against one: {all_workers / one:.2f} x (goal: 1.6)")
    print(f"masks equal, bit for bit: {all(each == masks[0] for each in masks)}")


def _run(
    folder: Path, workers: int, where: Callable[[], AbstractContextManager[Cluster | None]]
) -> tuple[Clock, dict[int, str]]:
    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder / "work", copy)
    workspace = Workspace.open(copy)
    images = workspace.catalogue.images.select()
    clock = Clock()
    with where() as cluster:
        if cluster is not None:
            nodes = [replace(node, cpus=min(node.cpus, workers)) for node in cluster.nodes]
            cluster = replace(cluster, nodes=nodes)
        prelabel(workspace, images, clock, cluster=cluster)
    found = workspace.catalogue.masks.newest_predictions()
    workspace.catalogue.close()
    return clock, {image_id: mask.content_hash for image_id, mask in found.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
