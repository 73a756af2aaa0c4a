"""Push of 1,000 images to a real Label Studio: goal within 1.3 times the time of the bare requests.

The images are 300 x 300, each with a prediction of five classes. The peer posts the bodies that our
push sends, byte for byte, with requests.post into another project of the same server. Ours also
writes copies of the photographs, encodes the predictions, asks the server what is there already,
and writes all of it down; with a core to spare it does so while the server is at work on the batch
before. The two take turns at being first.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import requests
from PIL import Image

from annotation_protocol import load_protocol
from annotation_protocol.label_studio_config import annotation_config
from benchmarks.predictions import five_classes, predict, ragged
from benchmarks.timing import seconds
from ddiseg.labelstudio.connection import Connection
from ddiseg.workspace.workspace import Workspace

COUNT, SIZE, RAGGED, ROUNDS = 1_000, 300, 2, 2


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _fill(root)
        with _server(root / "server") as there:
            _, bodies = _push(root, there)  # unmeasured
            _post(there, bodies)
            turns = []
            for number in range(ROUNDS):
                bare = _post(there, bodies) if number % 2 else None
                ours, sent = _push(root, there)
                assert sent == bodies
                turns.append((ours, bare or _post(there, bodies)))
    us, them = (sum(turn[k] for turn in turns) for k in (0, 1))
    rounds = ", ".join(f"{ours:.1f} s to {bare:.1f} s" for ours, bare in turns)
    megabytes = sum(map(len, bodies)) / 1e6
    print(
        f"push {ROUNDS * COUNT / us:.1f} tasks/s, requests.post {ROUNDS * COUNT / them:.1f} tasks/s: "
        f"{us / them:.2f} x the time ({COUNT} tasks in {len(bodies)} requests, {megabytes:.0f} MB; "
        f"{SIZE} x {SIZE}, seeds 0 to {COUNT - 1}; {ROUNDS} rounds: {rounds})"
    )


def _push(root: Path, there: Connection) -> tuple[float, list[bytes]]:
    """Push from a workspace that never did; seconds, and the bodies of its imports."""
    from ddiseg.labelstudio.projects import ensure_projects
    from ddiseg.labelstudio.push import PushOptions, push

    assert there.media is not None
    shutil.rmtree(there.media / "images", ignore_errors=True)
    bodies: list[bytes] = []
    request = requests.Session.request

    def overheard(session: Any, method: str, url: str, **kwargs: Any) -> requests.Response:
        if url.endswith("/import"):
            bodies.append(kwargs["data"])
        return request(session, method, url, **kwargs)

    with tempfile.TemporaryDirectory(dir=root) as folder:
        shutil.copytree(root / "filled", Path(folder, "copy"))
        workspace = Workspace.open(Path(folder, "copy"))
        ensure_projects(workspace, there)  # as `ddiseg label up` does
        images = workspace.catalogue.images.select()
        with mock.patch.object(requests.Session, "request", overheard):
            spent = seconds(lambda: push(workspace, there, images, PushOptions(), "benchmark"))
        assert {i.state for i in workspace.catalogue.images.select()} == {"in_labelling"}
        workspace.catalogue.close()
    return spent, bodies


def _post(there: Connection, bodies: Sequence[bytes]) -> float:
    """Seconds of the bare requests, into a project of their own."""
    said = {"Authorization": f"Token {there.token}", "Content-Type": "application/json"}

    def post(path: str, **kwargs: Any) -> Any:
        response = requests.post(f"{there.url}/api/projects/{path}", headers=said, **kwargs)
        response.raise_for_status()
        return response.json()

    project = post("", json={"title": "Bare", "label_config": annotation_config(load_protocol())})

    def post_all() -> None:
        for body in bodies:
            post(f"{project['id']}/import", params={"return_task_ids": "true"}, data=body)

    return seconds(post_all)


def _fill(root: Path) -> None:
    """A workspace of images with predictions."""
    from ddiseg.ingest.photographs import import_photographs

    photographs = root / "photographs"
    photographs.mkdir()
    workspace = Workspace.create(root / "filled")
    digests = {}
    for seed in range(COUNT):
        phantom, name = five_classes(seed, SIZE), f"{seed:06d}.png"
        Image.fromarray(phantom.image).save(photographs / name)
        digests[name] = workspace.store_mask(ragged(phantom.mask, RAGGED))
    import_photographs(workspace, photographs)
    images = workspace.catalogue.images.select()
    predict(workspace, images, [digests[image.name] for image in images])
    workspace.catalogue.close()


@contextmanager
def _server(root: Path) -> Iterator[Connection]:
    """A Label Studio that is started here and stopped in the end."""
    from ddiseg.labelstudio import connection
    from ddiseg.labelstudio.embedded import server

    Workspace.create(root)
    server.up(root, _free_port())
    try:
        yield connection.find(root)
    finally:
        server.down(root)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
