"""/predict from stored predictions: goal 200 tasks a second.

One request holds 306 tasks, as many as Label Studio 1.23 was seen to send. The tasks are 300 x 300 phantoms of five classes with ragged rims, all different, as `label_push` has
them. The peer makes the same answer from masks that are in memory already: encode and dump, with no
catalogue, no file and no server.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from annotation_protocol import load_protocol
from benchmarks.predictions import five_classes, predict, ragged
from benchmarks.timing import paired
from ddiseg import images
from ddiseg.catalogue import Arm, Details, NewImage, NewTask, Purpose
from ddiseg.labelstudio.connection import EMBEDDED
from ddiseg.labelstudio.task_payload import image_key, prediction
from ddiseg.masks import Mask
from ddiseg.server.app import Backend, create_app
from ddiseg.server.auth import Credentials
from ddiseg.workspace.workspace import Workspace

COUNT, SIZE, RAGGED, ROUNDS, PROJECT = 306, 300, 2, 5, 7


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.create(Path(folder))
        masks = fill(workspace, COUNT)
        backend = Backend(workspace, "benchmark", Credentials("u", "p", "s"), {})
        with TestClient(create_app(backend, 64_000_000)) as client:
            request = {"tasks": asked(workspace), "project": f"{PROJECT}.1"}
            sizes = []

            def ask() -> None:
                answer = client.post("/predict", json=request, auth=("u", "p"))
                results = answer.json()["results"]
                assert len(results) == COUNT
                assert all(results)
                sizes.append(len(answer.content))

            started = time.perf_counter()
            ask()
            first = time.perf_counter() - started
            ours, peer = paired(ask, lambda: _from_memory(masks), ROUNDS)
        workspace.catalogue.close()
    print(
        f"/predict {COUNT / ours:.0f} tasks/s; encoded from memory {COUNT / peer:.0f} tasks/s: "
        f"{ours / peer:.2f} x the time ({COUNT} tasks in one request, {sizes[0] / 1e6:.0f} MB of "
        f"answer, {SIZE} x {SIZE}, seeds 0 to {COUNT - 1}, median of {ROUNDS}; the first time, when "
        f"each task is recorded as pre-annotated: {COUNT / first:.0f} tasks/s)"
    )


def fill(workspace: Workspace, count: int) -> list[Mask]:
    """Images with predictions, given to annotators who have not begun; returns the masks.

    The photographs themselves are left out: nothing here opens them.
    """
    catalogue = workspace.catalogue
    rows, masks, digests = [], [], []
    for seed in range(count):
        phantom = five_classes(seed, SIZE)
        masks.append(ragged(phantom.mask, RAGGED))
        digests.append(workspace.store_mask(masks[-1]))
        digest = images.content_hash(phantom.image)
        name = f"{seed:06d}.png"
        rows.append(
            NewImage(
                name, digest, 1, seed, digest, digest[:16], SIZE, SIZE, details=Details(tone="I-II")
            )
        )
    catalogue.images.add(catalogue.images.dataset("phantoms").id, rows, "benchmark")
    added = catalogue.images.select()
    predict(workspace, added, digests)
    project = catalogue.tasks.project(EMBEDDED, Purpose.ANNOTATION)
    catalogue.tasks.set_remote_id(project.id, PROJECT)
    new = [NewTask(image_key(i), i.id, None, Arm.BARE, SIZE, SIZE) for i in added]
    catalogue.tasks.plan(project.id, new, "benchmark", {})
    tasks = catalogue.tasks.tasks(project.id)
    catalogue.tasks.sent({task.id: task.id for task in tasks}, "benchmark", start=True)
    return masks


def asked(workspace: Workspace) -> list[dict[str, Any]]:
    """The tasks as Label Studio sends them."""
    project = workspace.catalogue.tasks.project(EMBEDDED, Purpose.ANNOTATION)
    return [
        {"id": task.remote_id, "project": PROJECT, "data": {"ddiseg": task.key}}
        for task in workspace.catalogue.tasks.tasks(project.id)
    ]


def _from_memory(masks: list[Mask]) -> None:
    protocol = load_protocol()
    json.dumps({"results": [prediction(mask, "0" * 64, protocol, 0.01) for mask in masks]})
