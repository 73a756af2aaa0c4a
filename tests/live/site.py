"""Two workspaces at one Label Studio, made to be stopped: all can be put back to where it began.

One runs the server and pushes; the other uses it as a team's and pulls. Tests without a browser
begin here, for a push or a pull takes a second or two.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import requests

from annotation_protocol.label_studio_config import IMAGE, MASK, SKIP_REASON
from ddiseg.labelstudio.embedded.accounts import Account, read_accounts
from ddiseg.labelstudio.embedded.settings import HOST
from ddiseg.labelstudio.folder import Folder, read_json
from ddiseg.masks import brush_rle
from tests.live.blobs import MARKER, SIDE, blob_workspace
from tests.live.commands import Command

IMAGES = 105  #: three requests of a push, three pages of a pull
CONTROL, TWICE = 20, 5  #: percent of them with the prediction withheld, and read by two people
PUSH = ("label", "push", "--control", CONTROL, "--readers", 2, "--sample", TWICE)
SKIPPED = 7  #: every seventh task is skipped

#: What is read of tasks, predictions and annotations; the server counts much more when not told.
_READ = "id,inner_id,data,overlap,predictions,annotations,result,updated_at"


@dataclass
class Site:
    """A Label Studio, the workspace that runs it, and one that uses it as a team's."""

    own: Path  #: pushes; nothing is pushed in its snapshot
    guest: Path  #: pulls; in its snapshot, everything is pushed and some of it pulled
    url: str
    accounts: dict[str, Account]
    kept: int = 0  #: the guest's project, which stays
    versions_before: set[tuple[int, int, str]] = field(default_factory=set)  #: pulled already
    versions: set[tuple[int, int, str]] = field(default_factory=set)  #: pulled in the end

    def push(self) -> Command:
        return Command(self.own, *PUSH)

    def pull(self) -> Command:
        return self.as_guest("label", "pull")

    def as_guest(self, *words: object) -> Command:
        token = self.accounts["admin"].token
        return Command(self.guest, *words, variables={"LABEL_STUDIO_API_KEY": token})

    def fresh_push(self) -> None:
        """Nothing is pushed, nor ever was."""
        _restore(self.own)
        shutil.rmtree(Folder(self.own).media)
        Folder(self.own).media.mkdir(mode=0o700)
        for project in self.get("/api/projects", page_size=100)["results"]:
            if project["id"] != self.kept:
                self.ask("DELETE", f"/api/projects/{project['id']}/")

    def fresh_pull(self) -> None:
        """Pulls have brought `versions_before`, and nothing of what was done since."""
        _restore(self.guest)

    def up(self) -> None:
        """Start the server again where it was."""
        port = self.url.rpartition(":")[2]
        assert Command(self.own, "label", "up", "--port", port).done().answer["url"] == self.url

    def kill(self) -> None:
        """SIGKILL to the server's process and to all that it started; its port is free afterwards."""
        running = read_json(Folder(self.own).server)
        assert running is not None
        os.killpg(running["process"]["pid"], signal.SIGKILL)
        deadline = time.monotonic() + 30
        while not _is_free(running["port"]):  # its threads do not end all at once
            assert time.monotonic() < deadline, "a killed server does not end"
            time.sleep(0.01)

    def get(self, path: str, **params: object) -> Any:
        return self.ask("GET", path, params=params).json()

    def ask(self, method: str, path: str, who: str = "admin", **more: Any) -> requests.Response:
        token = {"Authorization": f"Token {self.accounts[who].token}"}
        response = requests.request(method, self.url + path, headers=token, timeout=60, **more)
        response.raise_for_status()
        return response

    def tasks(self, project: int) -> list[dict[str, Any]]:
        """All tasks of a project as the server has them, with predictions and annotations."""
        everything = {"project": project, "page": 1, "page_size": 1000, "fields": "all"}
        found: list[dict[str, Any]] = self.get("/api/tasks", **everything, include=_READ)["tasks"]
        return found

    def annotate(self, task: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """As a browser sends it: the prediction unchanged, and a stroke; or a skip."""
        skipped = task["inner_id"] % SKIPPED == 0
        if skipped:
            chosen = {"type": "choices", "from_name": SKIP_REASON, "to_name": IMAGE}
            result = [{**chosen, "value": {"choices": ["blurry"]}}]
        else:
            predicted = [region for p in task["predictions"] for region in p["result"]]
            result = [*({**region, "origin": "prediction"} for region in predicted), stroke(rng)]
        answer = {"result": result, "was_cancelled": skipped, "lead_time": 3.5}
        made = self.ask("POST", f"/api/tasks/{task['id']}/annotations/", "annotator", json=answer)
        found: dict[str, Any] = made.json()
        return found

    def on_server(self) -> set[tuple[int, int, str]]:
        """(task, annotation, time of its last change) of all that was done in the guest's project."""
        return {
            (task["id"], annotation["id"], annotation["updated_at"])
            for task in self.tasks(self.kept)
            for annotation in task["annotations"]
        }


def make_site(folder: Path, started_once: Path) -> Site:
    """A site below `folder`, whose server runs; `started_once` as in conftest."""
    own = blob_workspace(folder / "own", IMAGES, seed=5)
    _restart_from_here(own)
    shutil.copytree(own, folder / "guest")
    shutil.copytree(started_once, Folder(own).path)
    up = Command(own, "label", "up", "--port", lasting_port()).done().answer
    return Site(own, folder / "guest", up["url"], read_accounts(own))


def give_to_annotator(site: Site) -> None:
    """The guest's project: pushed, a third annotated and pulled; then the rest, and a few edits."""
    assert site.as_guest("label", "connect", site.url).done().answer
    pushed = site.as_guest("label", "push", "--control", CONTROL).done().answer
    assert pushed["counts"]["added"] == IMAGES
    ((site.kept,),) = rows(
        site.guest, "SELECT remote_id FROM projects WHERE purpose = 'annotation'"
    )
    rng = np.random.default_rng(6)
    tasks = site.tasks(site.kept)
    first, later = tasks[::3], tasks[1::3] + tasks[2::3]
    done = [site.annotate(task, rng) for task in first]
    _spread(site, later + first, hours_ago=10)
    assert site.pull().done().answer["counts"]["added"] == len(first)
    site.versions_before = site.on_server()
    for task in later:
        site.annotate(task, rng)
    edited = [a for a in done if not a["was_cancelled"]][::4]
    for annotation in edited:
        result = {"result": [*annotation["result"], stroke(rng)]}
        site.ask("PATCH", f"/api/annotations/{annotation['id']}/", "annotator", json=result)
    _spread(site, later + [{"id": a["task"]} for a in edited], hours_ago=5)
    site.versions = site.versions_before | site.on_server()
    _restart_from_here(site.guest)


def _spread(site: Site, tasks: Sequence[Mapping[str, Any]], hours_ago: int) -> None:
    """Let two minutes lie between the last changes of tasks: a pull reads the last minute again.

    Else every change of a test that takes seconds would be read again, whatever was written down.
    """
    began = datetime.now(UTC) - timedelta(hours=hours_ago)
    changes = [
        (f"{began + timedelta(minutes=2 * step):%Y-%m-%d %H:%M:%S.%f}", task["id"])
        for step, task in enumerate(tasks)
    ]
    database = Folder(site.own).data / "label_studio.sqlite3"
    with closing(sqlite3.connect(database, timeout=30)) as server, server:
        server.executemany("UPDATE task SET updated_at = ? WHERE id = ?", changes)


def stroke(rng: np.random.Generator) -> dict[str, Any]:
    """A region as a browser sends it, of a marker somewhere."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    down, across = rng.integers(0, SIDE - 8, 2)
    mask[down : down + 8, across : across + 8] = MARKER
    rle = brush_rle.encode_classes(mask, [MARKER])[MARKER]
    return {
        "id": f"stroke{rng.integers(1 << 30)}",
        "type": "brushlabels",
        "from_name": MASK,
        "to_name": IMAGE,
        "original_width": SIDE,
        "original_height": SIDE,
        "image_rotation": 0,
        "origin": "manual",
        "value": {"format": "rle", "rle": rle, "brushlabels": ["marker"]},
    }


def rows(root: Path, query: str) -> list[Any]:
    """What a workspace's catalogue answers."""
    with closing(sqlite3.connect(root / "catalogue.sqlite")) as catalogue:
        return catalogue.execute(query).fetchall()


def lasting_port() -> int:
    """A free port below those that outgoing connections take: it stays free while the server is down."""
    return next(port for port in range(18080, 18180) if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


def _restart_from_here(root: Path) -> None:
    """Make the catalogue as it now is what `_restore` puts back."""
    with (
        closing(sqlite3.connect(root / "catalogue.sqlite")) as catalogue,
        closing(sqlite3.connect(root / "snapshot.sqlite")) as snapshot,
    ):
        catalogue.backup(snapshot)


def _restore(root: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        (root / f"catalogue.sqlite{ending}").unlink(missing_ok=True)
    shutil.copy(root / "snapshot.sqlite", root / "catalogue.sqlite")
