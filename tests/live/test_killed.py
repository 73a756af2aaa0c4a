"""Push and pull are killed anywhere, here and on the server: run again, all is as if never stopped.

Each kill begins from the same snapshot of a catalogue; what an undisturbed run makes of it is what
every stopped and repeated one must make.
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from annotation_protocol.label_studio_config import IMAGE
from ddiseg.errors import ServerError
from ddiseg.labelstudio import connection
from ddiseg.labelstudio.folder import Folder
from ddiseg.labelstudio.http import HttpClient
from ddiseg.labelstudio.push import PushOptions, push
from ddiseg.labelstudio.task_payload import KEY
from ddiseg.workspace.workspace import Workspace
from tests.live.commands import Command, Done
from tests.live.site import CONTROL, IMAGES, TWICE, Site, give_to_annotator, make_site, rows

#: Kills at random moments of the client, and of the server, which takes some ten seconds each to start again.
#: DDISEG_KILLS=20 DDISEG_SERVER_KILLS=3 for as many as before a release.
#: They may miss the middle of the work on a slow machine: one kill more is aimed at it.
KILLS = int(os.environ.get("DDISEG_KILLS", "4"))
SERVER_KILLS = int(os.environ.get("DDISEG_SERVER_KILLS", "1"))
TRIES = 5  #: of an aimed kill
SLACK = 1.3  #: moments are spread over this much more than a run: the next one may be slower
NOTHING = {"added": 0, "unchanged": 0, "repaired": 0, "refused": 0}
ANNOTATION = "FROM projects WHERE purpose = 'annotation'"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, started_once: Path) -> Iterator[Site]:
    site = make_site(tmp_path_factory.mktemp("killed"), started_once)
    try:
        give_to_annotator(site)
        yield site
    finally:
        assert Command(site.own, "label", "down").done().answer["stopped"]


def test_push__client_killed(site: Site, tell: Callable[[str], None]) -> None:
    whole, seconds = _undisturbed_push(site)
    sent = []
    for moment in _moments("push", SLACK * seconds):
        _kill_client(site.fresh_push, site.push, moment)
        sent.append(_sent(site))
        _redo(site.push)
        _check_push(site, whole)
    _kill_client_amid(site.fresh_push, site.push, lambda: _amid_push(site))
    sent.append(_sent(site))
    _redo(site.push)
    _check_push(site, whole)
    tell(
        f"push, {len(sent)} kills of {seconds:.1f} s: tasks written down as sent {_in_words(sent)}"
    )


def test_pull__client_killed(site: Site, tell: Callable[[str], None]) -> None:
    whole, seconds = _undisturbed_pull(site)
    stored = []
    for moment in _moments("pull", SLACK * seconds):
        _kill_client(site.fresh_pull, site.pull, moment)
        stored.append(_stored(site))
        _redo(site.pull)
        _check_pull(site, whole)
    _kill_client_amid(site.fresh_pull, site.pull, lambda: _amid_pull(site))
    stored.append(_stored(site))
    _redo(site.pull)
    _check_pull(site, whole)
    tell(f"pull, {len(stored)} kills of {seconds:.1f} s: versions stored {_in_words(stored)}")


def test_push_and_pull__server_killed(site: Site, tell: Callable[[str], None]) -> None:
    """Each kill of the server hits a push and a pull, each at a moment of its own."""
    pushed, _ = _undisturbed_push(site)
    pulled, _ = _undisturbed_pull(site)
    push_seconds, pull_seconds = _seconds_together(site)
    push_moments = _moments("push", push_seconds, SERVER_KILLS)
    pull_moments = _moments("pull", pull_seconds, SERVER_KILLS)
    sent, stored, ups = [], [], []

    def go_on(stopped: Sequence[Command]) -> None:
        ups.append(_timed(site.up))
        for command in stopped:
            _check_messages(command.done())
        sent.append(_sent(site))
        stored.append(_stored(site))
        _redo(site.push, site.pull)
        with ThreadPoolExecutor(2) as pool:
            checks = pool.submit(_check_push, site, pushed), pool.submit(_check_pull, site, pulled)
        for check in checks:
            check.result()

    for push_moment, pull_moment in zip(push_moments, pull_moments, strict=True):
        go_on(_kill_server(site, push_moment, pull_moment))
    for amid in _amid_push, _amid_pull:
        go_on(_kill_server_amid(site, amid))
    tell(
        f"server, {len(ups)} kills, up again in {min(ups):.1f} to {max(ups):.1f} s: "
        f"tasks written down as sent {_in_words(sent)}; versions stored {_in_words(stored)}"
    )


def test_push__given_up_request_is_done_while_it_is_repeated(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server works on after its client was killed, so a lookup before sending may come too early."""
    site.fresh_push()
    send, given_up = HttpClient.import_tasks, []

    def lose(_server: HttpClient, _project: int, tasks: Sequence[bytes]) -> None:
        given_up.append(tasks)
        raise ServerError("the line is broken")

    def send_both(
        server: HttpClient, project: int, tasks: Sequence[bytes]
    ) -> tuple[list[int], int]:
        if given_up:
            send(server, project, given_up.pop())
        return send(server, project, tasks)

    monkeypatch.setattr(HttpClient, "import_tasks", lose)
    with pytest.raises(ServerError, match="the line is broken"):
        _push_here(site, 8)
    monkeypatch.setattr(HttpClient, "import_tasks", send_both)
    _push_here(site, 8)
    shown, where = _shown(site)
    assert [readers for _, readers, _ in shown] == [2] * 8
    assert {len(predictions) for *_, predictions in shown} == {1}
    assert dict(rows(site.own, "SELECT key, remote_id FROM tasks")) == where


def test_pull__given_up_request_is_done_after_its_repetition(site: Site) -> None:
    """Somebody has annotated the task that nobody here knows: it stays, the known one goes."""
    (shown, _), _ = _undisturbed_push(site)
    ((project,),) = rows(site.own, f"SELECT remote_id {ANNOTATION}")
    known = [t for t in site.tasks(project) if t["overlap"] == 2 and t["predictions"]]
    late = [{"data": t["data"], "predictions": t["predictions"]} for t in known]
    path = f"/api/projects/{project}/import?return_task_ids=true"
    numbers = site.ask("POST", path, json=late).json()["task_ids"]
    double = next(t for t in site.tasks(project) if t["id"] == numbers[-1])
    annotation = site.annotate({**double, "inner_id": 1}, np.random.default_rng(7))
    assert Command(site.own, "label", "pull").done().answer["counts"]["added"] == 1
    assert rows(site.own, "SELECT remote_id FROM annotations") == [(annotation["id"],)]
    now_shown, where = _shown(site)
    assert now_shown == shown
    assert where[known[-1]["data"][KEY]] == numbers[-1]
    assert dict(rows(site.own, "SELECT key, remote_id FROM tasks")) == where


def _push_here(site: Site, n: int) -> None:
    """Push the first `n` images to two readers each, in this process."""
    workspace = Workspace.open(site.own)
    images = workspace.catalogue.images.select(ids=range(1, n + 1))
    try:
        push(workspace, connection.find(site.own), images, PushOptions(readers=2), "tester")
    finally:
        workspace.catalogue.close()


def _moments(what: str, seconds: float, kills: int = KILLS) -> list[float]:
    """Moments spread evenly over a run, each at random within its part of it."""
    rng = random.Random(f"kill {what}")
    moments = [(part + rng.random()) / kills * seconds for part in range(kills)]
    return rng.sample(moments, kills)


def _kill_client(fresh: Callable[[], None], start: Callable[[], Command], moment: float) -> None:
    """Kill a command at a moment of its run; where it was quicker this time, a little earlier."""
    while True:
        fresh()
        command = start()
        if not command.ends_within(moment) and command.kill().status == -signal.SIGKILL:
            return
        moment *= 0.9


def _kill_client_amid(
    fresh: Callable[[], None], start: Callable[[], Command], amid: Callable[[], bool]
) -> None:
    """Kill a command when some of its work, and not all of it, is written down."""
    for _ in range(TRIES):
        fresh()
        command = start()
        while not command.ends_within(0.001) and not amid():
            pass
        if command.kill().status == -signal.SIGKILL and amid():
            return
    raise AssertionError("no kill came in the middle of the work")


def _kill_server(site: Site, push_moment: float, pull_moment: float) -> Sequence[Command]:
    """Kill the server under a push and a pull, each at a moment of its run."""
    while True:
        site.fresh_push()
        site.fresh_pull()
        lead = push_moment - pull_moment
        starts = (site.push, site.pull) if lead > 0 else (site.pull, site.push)
        first = starts[0]()
        time.sleep(abs(lead))
        second = starts[1]()
        time.sleep(min(push_moment, pull_moment))
        if not first.ends_within(0) and not second.ends_within(0):
            site.kill()
            return first, second
        first.done()
        second.done()
        push_moment *= 0.9
        pull_moment *= 0.9


def _kill_server_amid(site: Site, amid: Callable[[Site], bool]) -> Sequence[Command]:
    """Kill the server under a push and a pull when some of the work of one of them is written down."""
    for _ in range(TRIES):
        site.fresh_push()
        site.fresh_pull()
        running = [site.push(), site.pull()]
        while not amid(site) and not all(command.ends_within(0.001) for command in running):
            pass
        site.kill()
        if amid(site):
            return running
        for command in running:
            _check_messages(command.done())
        site.up()
    raise AssertionError("no kill came in the middle of the work")


def _seconds_together(site: Site) -> tuple[float, float]:
    """What a push and a pull take that run at the same time."""
    site.fresh_push()
    site.fresh_pull()
    began = time.monotonic()
    running = [site.push(), site.pull()]
    ended = [0.0, 0.0]
    while not all(ended):
        for number, command in enumerate(running):
            if not ended[number] and command.ends_within(0.01):
                ended[number] = time.monotonic() - began
                assert command.done().answer
    return ended[0], ended[1]


def _redo(*starts: Callable[[], Command]) -> None:
    """Run the stopped commands again, side by side."""
    for command in [start() for start in starts]:
        assert command.done().answer["counts"]["refused"] == 0


def _check_messages(stopped: Done) -> None:
    """One line that says what happened, after the stages that were through; or it had all."""
    assert stopped.status in (0, 1)
    if stopped.status:
        *stages, line = stopped.stderr.splitlines()
        assert all(re.fullmatch(r"[^:]+: \d+ (in|of) .+", stage) for stage in stages), stages
        assert line.startswith("Error: "), line
        assert "a defect" not in line, line


def _undisturbed_push(site: Site) -> tuple[Any, float]:
    """What a push makes, and its seconds."""
    site.fresh_push()
    seconds = _timed(lambda: _redo(site.push))
    shown, _ = _shown(site)
    assert len({data[KEY] for data, *_ in shown}) == len(shown) == IMAGES
    query = "SELECT t.key, m.content_hash FROM tasks t JOIN masks m ON m.id = t.mask_id"
    predicted = dict(rows(site.own, query))
    control = {key for (key,) in rows(site.own, "SELECT key FROM tasks WHERE arm = 'control'")}
    assert len(control) == round(IMAGES * CONTROL / 100)
    assert sum(readers == 2 for _, readers, _ in shown) == round(IMAGES * TWICE / 100)
    for data, _, predictions in shown:
        assert len(predictions) == (data[KEY] not in control), "each is predicted exactly once"
        regions = [region for prediction in predictions for region in prediction]
        assert all(region.startswith(predicted[data[KEY]][:16]) for region in regions)
    return (shown, _story(site.own)), seconds


def _check_push(site: Site, whole: Any) -> None:
    """All is on the server, once and whole; the catalogue knows where; another push finds nothing to do."""
    verify = Command(site.own, "verify")
    shown, where = _shown(site)
    assert (shown, _story(site.own)) == whole
    assert dict(rows(site.own, "SELECT key, remote_id FROM tasks")) == where
    for data, *_ in shown:
        with Pillow.open(Folder(site.own).media / data[IMAGE].partition("?d=")[2]) as picture:
            picture.load()
    assert verify.done().answer["ok"]
    assert site.push().done().answer["counts"] == {**NOTHING, "unchanged": IMAGES}
    assert _shown(site) == (shown, where)


def _shown(site: Site) -> tuple[list[Any], dict[str, int]]:
    """Each task as people find it (data, readers, region ids of its predictions); numbers by key."""
    ((project, key),) = rows(site.own, f"SELECT remote_id, key {ANNOTATION}")
    projects = site.get("/api/projects", page_size=100)["results"]
    assert [p["id"] for p in projects if key in p["label_config"]] == [project]
    assert len(site.get("/api/storages/localfiles", project=project)) == 1
    tasks = sorted(site.tasks(project), key=lambda task: str(task["data"][KEY]))
    shown = [
        (t["data"], t["overlap"], [[r["id"] for r in p["result"]] for p in t["predictions"]])
        for t in tasks
    ]
    return shown, {t["data"][KEY]: t["id"] for t in tasks}


def _undisturbed_pull(site: Site) -> tuple[Any, float]:
    """What a pull makes, and its seconds."""
    site.fresh_pull()
    seconds = _timed(lambda: _redo(site.pull))
    stored = rows(
        site.guest,
        "SELECT t.remote_id, a.remote_id, a.updated_at "
        "FROM annotations a JOIN tasks t ON t.id = a.task_id",
    )
    assert sorted(stored) == sorted(site.versions), "one row a version"
    outcomes = Counter(o for (o,) in rows(site.guest, "SELECT outcome FROM annotations"))
    assert outcomes["mask"] + outcomes["skip"] == len(stored)
    drawn = rows(site.guest, "SELECT id FROM masks WHERE annotator IS NOT NULL")
    assert len(drawn) == outcomes["mask"], "one mask a version"
    assert len(rows(site.guest, "SELECT id FROM skips")) == outcomes["skip"]
    return _story(site.guest), seconds


def _check_pull(site: Site, whole: Any) -> None:
    """Every version came once, images are where it puts them; another pull finds nothing to do."""
    verify = Command(site.guest, "verify")
    assert _story(site.guest) == whole
    assert verify.done().answer["ok"]
    assert site.pull().done().answer["counts"] == NOTHING
    assert _story(site.guest) == whole


def _story(root: Path) -> list[list[Any]]:
    """All that a catalogue says of images, tasks and work, but for its own numbers and times."""
    return [
        sorted(rows(root, query), key=repr)
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
            f"SELECT watermark {ANNOTATION}",
        )
    ]


def _amid_push(site: Site) -> bool:
    return 0 < _sent(site) < IMAGES


def _amid_pull(site: Site) -> bool:
    return len(site.versions_before) < _stored(site) < len(site.versions)


def _sent(site: Site) -> int:
    ((n,),) = rows(site.own, "SELECT count(*) FROM tasks WHERE remote_id IS NOT NULL")
    return int(n)


def _stored(site: Site) -> int:
    ((n,),) = rows(site.guest, "SELECT count(*) FROM annotations")
    return int(n)


def _timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _in_words(counts: Sequence[int]) -> str:
    return ", ".join(f"{n}: {times} x" for n, times in sorted(Counter(counts).items()))
