"""Pull of 10,000 annotated tasks: goal flat memory and 100 masks/s from region to catalogue.

A task holds a 512 x 512 prediction of five classes with ragged borders: four regions as they came,
the lesion edited, and one stroke; no two tasks compose to the same mask. The server runs in a
process of its own and joins its pages from annotations that were encoded before, so that its time
and memory count for nothing. Each pull runs in a process of its own as well, whose peak is of that
job alone.

The peer is what a script does with Label Studio's own tools: label-studio-sdk's converter for each
region, composed in the list's order, and Pillow for the PNG. It neither keeps edits apart, nor knows
what was stored already, nor has a catalogue.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image

from annotation_protocol import load_protocol
from benchmarks.predictions import five_classes, predict, ragged
from benchmarks.timing import seconds
from ddiseg import masks
from ddiseg.masks import Mask, brush_rle
from ddiseg.workspace.workspace import Workspace

COUNTS = (1_000, 5_000, 10_000)
SCENES, STROKES = 50, 200  #: every task of the largest count has a pair of its own
SIZE, RAGGED, PEER_TASKS = 512, 4, 100
ANNOTATOR = "annotator-1@example.org"
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Measured:
    """One pull: seconds by what they were spent on, and megabytes."""

    whole: float
    spent: dict[str, float]
    before: float
    peak: float


def main() -> None:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, _server(context) as (url, predictions):
        for count in COUNTS:
            root = Path(folder) / str(count)
            _give_out(root, url, count, predictions)
            with context.Pool(1) as pool:
                measured = pool.apply(_pull, (root, url, count))
            _print(count, measured)
        with context.Pool(1) as pool:
            them = pool.apply(_peer, (url,))
    spent = measured.spent
    us = COUNTS[-1] / (spent[READ] + spent[STORED])
    print(
        f"region to catalogue {us:.0f} masks/s, label-studio-sdk {version('label-studio-sdk')}'s "
        f"converter and Pillow {them:.0f} masks/s: {us / them:.2f} x ({SIZE} x {SIZE}, six regions "
        f"each, seeds 0 to {SCENES - 1}; one run)"
    )


def _print(count: int, measured: Measured) -> None:
    rest = measured.whole - sum(measured.spent.values())
    split = ", ".join(f"{what} {s:.1f} s" for what, s in {**measured.spent, "rest": rest}.items())
    print(
        f"{count:>6,} tasks: peak memory {measured.peak:.0f} MB ({measured.before:.0f} MB before "
        f"the pull), {measured.whole:.1f} s: {split}"
    )


# -- the pull, in a process of its own

WAITED, PARSED = "waiting for the server", "reading JSON"
READ, STORED = "decoding, composing, storing files", "catalogue"


def _pull(root: Path, url: str, count: int) -> Measured:
    from requests import Response, Session

    from ddiseg.catalogue import Purpose
    from ddiseg.catalogue.tasks import Tasks
    from ddiseg.labelstudio import pull
    from ddiseg.labelstudio.connection import Connection
    from ddiseg.outcomes import Outcome

    workspace = Workspace.open(root)
    connection = Connection(url, "token", embedded=False, media=None)
    spent: dict[str, float] = {}
    before = _peak_mb()
    with ExitStack() as stack:
        stack.enter_context(_timed(Session, "request", spent, WAITED))
        stack.enter_context(_timed(Response, "json", spent, PARSED))
        stack.enter_context(_timed(pull, "read_answers", spent, READ))
        stack.enter_context(_timed(Tasks, "receive", spent, STORED))
        began = time.perf_counter()
        done = pull.pull(workspace, connection, Purpose.ANNOTATION, "benchmark")
        whole = time.perf_counter() - began
    peak = _peak_mb()
    assert [o.outcome for o in done.outcomes] == [Outcome.ADDED] * count
    drawn = {m.content_hash for m in workspace.catalogue.masks.all() if m.annotator == ANNOTATOR}
    assert len(drawn) == count
    return Measured(whole, spent, before, peak)


@contextmanager
def _timed(owner: Any, name: str, spent: dict[str, float], what: str) -> Iterator[None]:
    """Adds the time that calls of a function take to `spent`."""
    original = getattr(owner, name)
    spent[what] = 0.0

    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            spent[what] += time.perf_counter() - began

    with mock.patch.object(owner, name, timed):
        yield


def _peak_mb() -> float:
    # Not getrusage: its peak begins with that of the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


def _peer(url: str) -> float:
    """Masks a second of the peer."""
    import requests
    from label_studio_sdk.converter import brush

    query = {
        "filters": {"items": [{"filter": "filter:tasks:id", "value": [*range(1, PEER_TASKS + 1)]}]}
    }
    answer = requests.get(f"{url}/api/tasks", {"project": PEER_TASKS, "query": json.dumps(query)})
    tasks = answer.json()["tasks"]
    ids = {entry.name: entry.index for entry in load_protocol().classes}
    palette = [channel for colour in load_protocol().palette() for channel in colour]

    def convert() -> None:
        for number, task in enumerate(tasks):
            mask = np.zeros((SIZE, SIZE), np.uint8)
            for region in task["annotations"][0]["result"]:
                value = region["value"]
                alpha = brush.decode_rle(value["rle"]).reshape(SIZE, SIZE, 4)[:, :, 3]
                mask[alpha >= 128] = ids[value["brushlabels"][0]]
            picture = Image.fromarray(mask, "P")
            picture.putpalette(palette)
            picture.save(f"{folder}/{number}.png")

    with tempfile.TemporaryDirectory() as folder:
        return PEER_TASKS / seconds(convert)


def _give_out(root: Path, url: str, count: int, predictions: list[bytes]) -> None:
    """A workspace whose catalogue has given out `count` images; there are no photographs."""
    from ddiseg.catalogue import Arm, NewImage, NewTask, Purpose

    workspace = Workspace.create(root)
    decoded = [masks.decode_png(data) for data in predictions]
    digests = [workspace.store_mask(mask) for mask in decoded]
    catalogue = workspace.catalogue
    hashes = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]
    catalogue.images.add(
        catalogue.images.dataset("phantoms").id,
        [
            NewImage(f"{number:05d}.png", h, 1, 0, h, h[:16], SIZE, SIZE)
            for number, h in enumerate(hashes)
        ],
        "benchmark",
    )
    images = catalogue.images.select()
    predict(workspace, images, [digests[number % SCENES] for number in range(count)])
    shown = catalogue.masks.newest_predictions()
    project = catalogue.tasks.project(url, Purpose.ANNOTATION)
    catalogue.tasks.set_remote_id(project.id, count)
    catalogue.tasks.plan(
        project.id,
        [
            NewTask(
                image.content_hash[:16], image.id, shown[image.id].id, Arm.PREDICTED, SIZE, SIZE
            )
            for image in images
        ],
        "benchmark",
        {},
    )
    tasks = catalogue.tasks.tasks(project.id)
    numbers = {task.id: number for number, task in enumerate(tasks, start=1)}
    catalogue.tasks.sent(numbers, "benchmark", start=True)
    catalogue.close()


# -- the server, in a process of its own


@contextmanager
def _server(context: Any) -> Iterator[tuple[str, list[bytes]]]:
    """Its URL, and the predictions that its tasks began with, as PNG."""
    ours, its = context.Pipe()
    process = context.Process(target=_serve, args=(its,), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


def _serve(pipe: Pipe) -> None:
    scenes = [ragged(five_classes(seed, SIZE).mask, RAGGED) for seed in range(SCENES)]
    palette = load_protocol().palette()
    answers = _Answers([_scene(scene) for scene in scenes], [_stroke(n) for n in range(STROKES)])
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(answers))
    url = f"http://127.0.0.1:{server.server_port}"
    pipe.send((url, [masks.encode_png(scene, palette) for scene in scenes]))
    server.serve_forever()


def _scene(prediction: Mask) -> bytes:
    """The regions of a prediction, of which a person has edited the lesion's."""
    from ddiseg.labelstudio.task_payload import prediction as regions_of

    protocol = load_protocol()
    rows, columns = np.ogrid[:SIZE, :SIZE]
    added = (rows - SIZE / 2) ** 2 + (columns - SIZE / 2) ** 2 < (SIZE / 6) ** 2
    regions = regions_of(prediction, masks.mask_hash(prediction), protocol, None)["result"]
    lesion = protocol.class_named("lesion")
    for region in regions:
        region["origin"] = "prediction"
        if region["value"]["brushlabels"] == [lesion.name]:
            region["origin"] = "prediction-changed"
            region["value"]["rle"] = brush_rle.encode((prediction == lesion.index) | added)
    return json.dumps(regions).encode()[1:-1]


def _stroke(number: int) -> bytes:
    """A stroke of the marker, two pixels lower than the one before it."""
    region = np.zeros((SIZE, SIZE), np.bool_)
    top = 2 * number
    region[top : top + 12, 40 : SIZE - 40] = True
    entry = {
        "id": f"stroke{number}",
        "type": "brushlabels",
        "from_name": "mask",
        "to_name": "image",
        "origin": "manual",
        "original_width": SIZE,
        "original_height": SIZE,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": brush_rle.encode(region), "brushlabels": ["marker"]},
    }
    return json.dumps(entry).encode()


class _Answers:
    """What the server says. Project N has the tasks 1 to N, changed one each second."""

    def __init__(self, scenes: list[bytes], strokes: list[bytes]) -> None:
        from annotation_protocol.label_studio_config import annotation_config

        self._scenes, self._strokes = scenes, strokes
        self._config = annotation_config(load_protocol())

    def to(self, path: str, params: dict[str, str]) -> bytes:
        if path == "/api/tasks":
            return b'{"tasks":[' + b",".join(self._tasks(params)) + b"]}"
        if path.startswith("/api/projects/"):
            number = int(path.split("/")[3])
            return json.dumps({"id": number, "title": "", "label_config": self._config}).encode()
        return json.dumps(
            {
                "/health": {"status": "UP"},
                "/api/version": {"release": "1.23.2"},
                "/api/users": [{"id": 1, "email": ANNOTATOR}],
            }[path]
        ).encode()

    def _tasks(self, params: dict[str, str]) -> Iterator[bytes]:
        items = json.loads(params["query"])["filters"]["items"]
        asked = {item["filter"].rsplit(":", 1)[1]: item["value"] for item in items}
        if "id" in asked:
            yield from map(self._whole, asked["id"])
            return
        since = asked.get("updated_at")
        changed = 0 if since is None else (datetime.fromisoformat(since) - BEGAN) // _SECOND
        first = changed + 1 + (int(params["page"]) - 1) * int(params["page_size"])
        last = min(int(params["project"]), first + int(params["page_size"]) - 1)
        yield from map(self._light, range(first, last + 1))

    def _light(self, number: int) -> bytes:
        at = _changed_at(number)
        known = {"id": number, "updated_at": at}
        return json.dumps({**known, "annotations": [known]}).encode()

    def _whole(self, number: int) -> bytes:
        known = f'"id":{number},"updated_at":"{_changed_at(number)}"'
        people = '"completed_by":1,"updated_by":1,"was_cancelled":false,"lead_time":12.5'
        stroke, scene = divmod(number - 1, SCENES)
        return (
            f'{{{known},"annotations":[{{{known},{people},"result":['.encode()
            + self._scenes[scene]
            + b","
            + self._strokes[stroke]
            + b"]}]}"
        )


_SECOND = timedelta(seconds=1)


def _changed_at(number: int) -> str:
    return (BEGAN + number * _SECOND).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _handler(answers: _Answers) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # header and body in one piece

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            params = {name: values[0] for name, values in parse_qs(parts.query).items()}
            body = answers.to(parts.path.rstrip("/"), params)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: Any) -> None: ...

    return Handler
