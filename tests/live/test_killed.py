"""Push and pull are killed anywhere, here and on the server: run again, all is as if never stopped.

Two workspaces share one Label Studio: one runs it and pushes, the other uses it as a team's and pulls.
Each kill begins from the same snapshot of a catalogue; what an undisturbed run makes of it is what
every stopped and repeated one must make.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image as Pillow

from annotation_protocol.labelling_config import IMAGE, MASK, SKIP_REASON
from ddiseg.labelstudio.accounts import Account, read_accounts
from ddiseg.labelstudio.folder import Folder, read_json
from ddiseg.labelstudio.tasks import KEY
from ddiseg.masks import brush_rle
from tests.live.blobs import MARKER, SIDE, blob_workspace
from tests.live.commands import Command, Done
from tests.live.conftest import free_port

KILLS = 20
IMAGES = 105  #: three requests of a push, three pages of a pull
PUSH = ("label", "push", "--control", 20, "--readers", 2, "--sample", 5)
PULL = ("label", "pull")
NOTHING = {"added": 0, "unchanged": 0, "repaired": 0, "refused": 0}


def test_push__client_killed(site: Site, tell: Callable[[str], None]) -> None:
    whole, seconds = _undisturbed_push(site)
    written = []
    for moment in _moments("push", seconds):
        _kill_client(site.fresh_push, site.push, moment)
        written.append(_sent(site.own))
        assert site.push().done().answer["counts"]["refused"] == 0
        _check_push(site, whole)
    tell(f"push, {KILLS} kills of {seconds:.1f} s: tasks written down as sent {_told(written)}")
    assert any(0 < n < IMAGES for n in written), "no kill came in the middle of the work"


def test_pull__client_killed(site: Site, tell: Callable[[str], None]) -> None:
    whole, seconds = _undisturbed_pull(site)
    before, stored = len(site.versions_before), []
    for moment in _moments("pull", seconds):
        _kill_client(site.fresh_pull, site.pull, moment)
        stored.append(_versions(site.guest))
        assert site.pull().done().answer["counts"]["refused"] == 0
        _check_pull(site, whole)
    tell(f"pull, {KILLS} kills of {seconds:.1f} s: versions stored {_told(stored)}")
    assert any(before < n < len(site.versions) for n in stored), "no kill came in the middle"


def test_push_and_pull__server_killed(site: Site, tell: Callable[[str], None]) -> None:
    """Each kill of the server hits a push and a pull, each at a moment of its own."""
    pushed, push_seconds = _undisturbed_push(site)
    pulled, pull_seconds = _undisturbed_pull(site)
    written, stored, ups = [], [], []
    pairs = zip(_moments("push", push_seconds), _moments("pull", 1.3 * pull_seconds), strict=True)
    for push_moment, pull_moment in pairs:
        push, pull = _kill_server(site, push_moment, pull_moment)
        ups.append(_timed(site.up))
        for stopped in (push.done(), pull.done()):
            _check_told(stopped)
        written.append(_sent(site.own))
        stored.append(_versions(site.guest))
        push, pull = site.push(), site.pull()
        for again in (push.done(), pull.done()):
            assert again.answer["counts"]["refused"] == 0
        _check_push(site, pushed)
        _check_pull(site, pulled)
    tell(
        f"server, {KILLS} kills, up again in {min(ups):.1f} to {max(ups):.1f} s: "
        f"tasks written down as sent {_told(written)}; versions stored {_told(stored)}"
    )
    assert any(0 < n < IMAGES for n in written), "no kill came in the middle of a push"


@dataclass
class Site:
    """A Label Studio, the workspace that runs it, and one that uses it as a team's."""

    own: Path  #: pushes; nothing is pushed in its snapshot
    guest: Path  #: pulls; in its snapshot, everything is pushed and some of it pulled
    url: str
    accounts: dict[str, Account]
    kept: int = 0  #: the guest's project, which stays
    versions_before: set[tuple[int, int, str]] = field(default_factory=set)
    versions: set[tuple[int, int, str]] = field(default_factory=set)  #: on the server

    def push(self) -> Command:
        return Command(self.own, *PUSH)

    def pull(self) -> Command:
        return self.as_guest(*PULL)

    def as_guest(self, *words: object) -> Command:
        token = self.accounts["admin"].token
        return Command(self.guest, *words, variables={"LABEL_STUDIO_API_KEY": token})

    def fresh_push(self) -> None:
        """Nothing is pushed, nor ever was."""
        _restore(self.own)
        shutil.rmtree(Folder(self.own).media, ignore_errors=True)
        Folder(self.own).media.mkdir(mode=0o700)
        for project in self.get("/api/projects", page_size=100)["results"]:
            if project["id"] != self.kept:
                self.ask("DELETE", f"/api/projects/{project['id']}/")

    def fresh_pull(self) -> None:
        _restore(self.guest)

    def up(self) -> None:
        """Start the server again where it was."""
        port = self.url.rpartition(":")[2]
        assert Command(self.own, "label", "up", "--port", port).done().answer["url"] == self.url

    def kill(self) -> None:
        """SIGKILL to the server's process and to all that it started."""
        running = read_json(Folder(self.own).server)
        assert running is not None
        os.killpg(running["process"]["pid"], signal.SIGKILL)

    def get(self, path: str, **params: object) -> Any:
        return self.ask("GET", path, params=params).json()

    def ask(self, method: str, path: str, who: str = "admin", **more: Any) -> requests.Response:
        token = {"Authorization": f"Token {self.accounts[who].token}"}
        response = requests.request(method, self.url + path, headers=token, timeout=60, **more)
        response.raise_for_status()
        return response

    def tasks(self, project: int) -> list[dict[str, Any]]:
        """All tasks of a project as the server has them."""
        everything = {"project": project, "page": 1, "page_size": 1000, "fields": "all"}
        found: list[dict[str, Any]] = self.get("/api/tasks", **everything)["tasks"]
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, started_once: Path) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("killed")
    own = blob_workspace(folder / "own", IMAGES, seed=5)
    _restart_from_here(own)
    shutil.copytree(own, folder / "guest")
    shutil.copytree(started_once, Folder(own).path)
    up = Command(own, "label", "up", "--port", free_port()).done().answer
    site = Site(own, folder / "guest", up["url"], read_accounts(own))
    try:
        _give_to_annotator(site)
        yield site
    finally:
        assert Command(own, "label", "down").done().answer["stopped"]


def _give_to_annotator(site: Site) -> None:
    """The guest's project: pushed, partly annotated and pulled, then annotated further and edited."""
    assert site.as_guest("label", "connect", site.url).done().answer
    assert (
        site.as_guest("label", "push", "--control", 20).done().answer["counts"]["added"] == IMAGES
    )
    ((site.kept,),) = _rows(
        site.guest, "SELECT remote_id FROM projects WHERE purpose = 'annotation'"
    )
    tasks = site.tasks(site.kept)
    rng = np.random.default_rng(6)
    first = [_annotate(site, task, rng) for task in tasks[::3]]
    assert site.pull().done().answer["counts"]["added"] == len(first)
    site.versions_before = _versions_on_server(site)
    for task in tasks[1::3]:
        _annotate(site, task, rng)
    for annotation in first[::4]:
        edited = [*annotation["result"], _stroke(rng)]
        path = f"/api/annotations/{annotation['id']}/"
        site.ask("PATCH", path, "annotator", json={"result": edited})
    site.versions = site.versions_before | _versions_on_server(site)
    _restart_from_here(site.guest)


def _annotate(site: Site, task: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """As a browser sends it: the prediction as it was painted, and a stroke; or a skip."""
    if task["inner_id"] % 7 == 0:
        reason = {"type": "choices", "from_name": SKIP_REASON, "to_name": IMAGE}
        result = [{**reason, "value": {"choices": ["blurry"]}}]
    else:
        painted = [r for p in task["predictions"] for r in p["result"]]
        result = [*({**region, "origin": "prediction"} for region in painted), _stroke(rng)]
    answer = {"result": result, "was_cancelled": task["inner_id"] % 7 == 0, "lead_time": 3.5}
    made = site.ask("POST", f"/api/tasks/{task['id']}/annotations/", "annotator", json=answer)
    found: dict[str, Any] = made.json()
    return found


def _stroke(rng: np.random.Generator) -> dict[str, Any]:
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


def _moments(what: str, seconds: float) -> list[float]:
    """KILLS moments, spread evenly over a run and drawn by lot within their share of it."""
    lot = random.Random(f"kill {what}")
    moments = [(part + lot.random()) / KILLS * seconds for part in range(KILLS)]
    return lot.sample(moments, KILLS)


def _kill_client(fresh: Callable[[], None], start: Callable[[], Command], moment: float) -> None:
    """Kill a command at a moment of its run; where it was quicker this time, a little earlier."""
    while True:
        fresh()
        command = start()
        if not command.ends_within(moment) and command.kill().status == -signal.SIGKILL:
            return
        moment *= 0.9


def _kill_server(site: Site, push_moment: float, pull_moment: float) -> tuple[Command, Command]:
    """Kill the server under a push and a pull, each at a moment of its run."""
    while True:
        site.fresh_push()
        site.fresh_pull()
        later = abs(push_moment - pull_moment)
        if push_moment > pull_moment:
            push = site.push()
            time.sleep(later)
            pull = site.pull()
        else:
            pull = site.pull()
            time.sleep(later)
            push = site.push()
        time.sleep(min(push_moment, pull_moment))
        ended = push.ends_within(0), pull.ends_within(0)
        if not any(ended):
            site.kill()
            return push, pull
        push.done()
        pull.done()
        push_moment *= 0.9 if ended[0] else 1
        pull_moment *= 0.9 if ended[1] else 1


def _check_told(stopped: Done) -> None:
    """One line that says what happened; or it had all that it needed."""
    assert stopped.status in (0, 1)
    if stopped.status:
        (line,) = stopped.stderr.splitlines()
        assert line.startswith("Error: http://127.0.0.1:"), line


def _undisturbed_push(site: Site) -> tuple[Any, float]:
    """What a push makes, and its seconds."""
    site.fresh_push()
    seconds = _timed(lambda: site.push().done().answer)
    shown, _ = _shown(site)
    assert len({task[KEY] for task, *_ in shown}) == len(shown) == IMAGES
    painted = dict(
        _rows(
            site.own, "SELECT t.key, m.content_hash FROM tasks t JOIN masks m ON m.id = t.mask_id"
        )
    )
    control = {key for (key,) in _rows(site.own, "SELECT key FROM tasks WHERE arm = 'control'")}
    assert len(control) == IMAGES * 20 // 100
    for data, _, predictions in shown:
        key = data[KEY]
        assert len(predictions) == (key not in control)
        assert all(r.startswith(painted[key][:16]) for regions in predictions for r in regions)
    assert sum(overlap == 2 for _, overlap, _ in shown) == round(IMAGES * 5 / 100)
    return (shown, _story(site.own)), seconds


def _check_push(site: Site, whole: Any) -> None:
    """All is on the server once and whole, the catalogue knows where; another push has nothing to do."""
    verify = Command(site.own, "verify")
    shown, numbers = _shown(site)
    assert (shown, _story(site.own)) == whole
    assert dict(_rows(site.own, "SELECT key, remote_id FROM tasks")) == numbers
    for data, *_ in shown:
        path = Folder(site.own).media / data[IMAGE].partition("?d=")[2]
        with Pillow.open(path) as picture:
            picture.load()
    assert verify.done().answer["ok"]
    assert site.push().done().answer["counts"] == {**NOTHING, "unchanged": IMAGES}
    assert _shown(site) == (shown, numbers)


def _shown(site: Site) -> tuple[list[Any], dict[str, int]]:
    """Every task as people find it: data, readers, regions of its predictions; and the numbers by key."""
    ((project,),) = _rows(site.own, "SELECT remote_id FROM projects WHERE purpose = 'annotation'")
    mark = _rows(site.own, "SELECT key FROM projects WHERE purpose = 'annotation'")[0][0]
    projects = site.get("/api/projects", page_size=100)["results"]
    assert [p["id"] for p in projects if mark in p["description"]] == [project]
    assert len(site.get("/api/storages/localfiles", project=project)) == 1
    tasks = site.tasks(project)
    shown = [
        (
            task["data"],
            task["overlap"],
            [[region["id"] for region in p["result"]] for p in task["predictions"]],
        )
        for task in tasks
    ]
    numbers = {task["data"][KEY]: task["id"] for task in tasks}
    return sorted(shown, key=lambda task: str(task[0][KEY])), numbers


def _undisturbed_pull(site: Site) -> tuple[Any, float]:
    """What a pull makes, and its seconds."""
    site.fresh_pull()
    seconds = _timed(lambda: site.pull().done().answer)
    stored = _rows(
        site.guest,
        "SELECT t.remote_id, a.remote_id, a.updated_at FROM annotations a "
        "JOIN tasks t ON t.id = a.task_id",
    )
    assert sorted(stored) == sorted(site.versions), "one row a version"
    outcomes = Counter(o for (o,) in _rows(site.guest, "SELECT outcome FROM annotations"))
    assert outcomes["mask"] + outcomes["skip"] == len(site.versions)
    drawn = _rows(site.guest, "SELECT id FROM masks WHERE annotator IS NOT NULL")
    assert len(drawn) == outcomes["mask"], "one mask a version"
    assert len(_rows(site.guest, "SELECT id FROM skips")) == outcomes["skip"]
    return _story(site.guest), seconds


def _check_pull(site: Site, whole: Any) -> None:
    """Every version came once, images are where it puts them; another pull has nothing to do."""
    verify = Command(site.guest, "verify")
    assert _story(site.guest) == whole
    assert verify.done().answer["ok"]
    assert site.pull().done().answer["counts"] == NOTHING
    assert _story(site.guest) == whole


def _story(root: Path) -> list[list[Any]]:
    """All that a catalogue says of images, tasks and people's work, but for its own numbers and times."""
    return [
        sorted(_rows(root, query), key=repr)
        for query in (
            "SELECT id, state FROM images",
            "SELECT key, arm, readers, deleted_at, remote_id IS NULL FROM tasks",
            "SELECT image_id, kind, actor FROM events",
            "SELECT t.key, a.remote_id, a.updated_at, a.people, a.outcome, a.changed, a.deleted_at "
            "FROM annotations a JOIN tasks t ON t.id = a.task_id",
            "SELECT m.image_id, m.content_hash, m.annotator, m.origin, p.content_hash "
            "FROM masks m LEFT JOIN masks p ON p.id = m.parent_id",
            "SELECT s.image_id, m.content_hash FROM submissions s JOIN masks m ON m.id = s.mask_id",
            "SELECT image_id, reason, annotator, reopened_at IS NULL FROM skips",
            "SELECT watermark FROM projects",
        )
    ]


def _sent(root: Path) -> int:
    ((n,),) = _rows(root, "SELECT count(*) FROM tasks WHERE remote_id IS NOT NULL")
    return int(n)


def _versions(root: Path) -> int:
    ((n,),) = _rows(root, "SELECT count(*) FROM annotations")
    return int(n)


def _versions_on_server(site: Site) -> set[tuple[int, int, str]]:
    """(task, annotation, time of its last change)."""
    return {
        (task["id"], annotation["id"], annotation["updated_at"])
        for task in site.tasks(site.kept)
        for annotation in task["annotations"]
    }


def _rows(root: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(root / "catalogue.sqlite")) as catalogue:
        return catalogue.execute(query).fetchall()


def _restart_from_here(root: Path) -> None:
    """Make the catalogue as it now is what every kill begins from."""
    with (
        closing(sqlite3.connect(root / "catalogue.sqlite")) as catalogue,
        closing(sqlite3.connect(root / "snapshot.sqlite")) as snapshot,
    ):
        catalogue.backup(snapshot)


def _restore(root: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        (root / f"catalogue.sqlite{ending}").unlink(missing_ok=True)
    shutil.copy(root / "snapshot.sqlite", root / "catalogue.sqlite")


def _timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _told(counts: Sequence[int]) -> str:
    return ", ".join(f"{n}: {times} x" for n, times in sorted(Counter(counts).items()))
