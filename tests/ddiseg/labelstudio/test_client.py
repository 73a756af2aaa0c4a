"""One request at a time: what is tried again, what never is, and what is said of it."""

from __future__ import annotations

import gc
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ddiseg.errors import ServerError
from ddiseg.labelstudio import http
from ddiseg.labelstudio.client import Client
from tests.ddiseg.labelstudio.studio import ANNOTATOR, Studio, box, stroke
from tests.fake_label_studio import (
    Fault,
    cut,
    done_then_cut,
    garbage,
    html,
    slow,
    status,
    truncated,
)

Asking = Callable[[Client], Any]

TASK = {"data": {"image": "x.png", "ddiseg": "k"}, "predictions": []}
CONFIG = (
    '<View><BrushLabels name="mask" toName="image"><Label value="lesion"/></BrushLabels>'
    '<Image name="image" value="$image"/></View>'
)


@pytest.fixture
def client(studio: Studio) -> Iterator[Client]:
    """A client of a server with project 1, in which there is nothing."""
    with Client(studio.connection) as client:
        client.create_project(title="masks", label_config=CONFIG)
        yield client


def read_tasks(client: Client) -> Any:
    return client.plain.tasks(1, [], page=1, size=10, whole=True)


def send_task(client: Client) -> Any:
    return client.plain.import_tasks(1, [http.as_json(TASK)])


def make_project(client: Client) -> Any:
    return client.create_project(title="more", label_config=CONFIG)


#: What is asked plainly and what through the SDK, by what the answer is called.
READS: dict[str, tuple[Asking, str]] = {
    "tasks of project 1": (read_tasks, "/api/tasks"),
    "its users": (Client.users, "/api/users/"),
}
WRITES: dict[str, tuple[Asking, str]] = {
    "project 1": (send_task, "/api/projects/*/import"),
    "a new project": (make_project, "/api/projects/"),
}


def refused(ask: Asking, client: Client) -> str:
    """The line that a request ends with."""
    with pytest.raises(ServerError) as raised:
        ask(client)
    line = str(raised.value)
    assert line.startswith(client.url)
    assert "\n" not in line
    return line


@pytest.mark.training
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (status(400), "400 for {}: it refuses what was sent (it says: Bad Request)"),
        (status(401), "401 for {}: the token is not valid there (any longer): make a new one"),
        (status(403), "403 for {}: this account may not do that there: use the token of a member"),
        (status(404), "404 for {}: it has no such thing (any longer): 'ddiseg label status'"),
        (status(413), "413 for {}: too much at once for the server or a proxy before it"),
        (status(418), "418 for {}: it refuses that"),
        (status(429), "429 for {}: it is asked too often: wait a minute and run the same command"),
        (status(500), "had an error of its own (500, {}): see its log, then run the same command"),
        (status(503), "answered with a web page instead of data (503, {}): is the URL right"),
        (html(), "answered with a web page instead of data (200, {}): is the URL right"),
        (html(404), "answered with a web page instead of data (404, {}): is the URL right"),
        (garbage(), "answered with data that can't be read ({}); run the same command again"),
        (status(200, "[[]]"), "is this Label Studio 1.x?|can't be read ({})"),
        (status(200, "null"), "is this Label Studio 1.x?|can't be read ({})"),
        (
            status(302, headers={"Location": "/login"}),
            "redirects to another page (302, {}): give the addre",
        ),
        (truncated(), "broke the connection off ({}): is it running? 'ddiseg label status'"),
        (cut(), "broke the connection off ({}): is it running? 'ddiseg label status'"),
    ],
)
def test_fault__one_line_that_says_what_where_and_what_to_do(
    studio: Studio, client: Client, fault: Fault, said: str
) -> None:
    for what, (ask, path) in {**READS, **WRITES}.items():
        studio.server.misbehave("*", path, fault, times=None)
        line = refused(ask, client)
        assert any(part in line for part in said.format(what).split("|")), line


def test_fault__a_page_is_not_the_server_s_own_word(studio: Studio, client: Client) -> None:
    for fault, code in ((status(404), 404), (html(404), None)):
        studio.server.misbehave("GET", "/api/projects/*/", fault)
        with pytest.raises(ServerError) as raised:
            client.project(1)
        assert raised.value.status == code


@pytest.mark.training
def test_slow__is_given_up(studio: Studio, impatient: None) -> None:
    with Client(studio.connection) as client:
        make_project(client)
        studio.server.misbehave("*", "/api/*", slow(60), times=None)
        for ask, _ in READS.values():
            line = refused(ask, client)
            assert "does not answer in time" in line
            assert "It may have done what it was asked" not in line
        for ask, _ in WRITES.values():
            line = refused(ask, client)
            assert "does not answer in time" in line
            assert "It may have done what it was asked" in line


def test_down__is_told(studio: Studio, client: Client) -> None:
    studio.server.stop()
    for ask, _ in (*READS.values(), *WRITES.values()):
        line = refused(ask, client)
        assert "can't be reached" in line
        assert "It may have done" not in line


@pytest.mark.training
@pytest.mark.parametrize(
    "fault", [status(500), status(502), status(429), cut()], ids=["500", "502", "429", "cut"]
)
def test_read__is_tried_again(studio: Studio, client: Client, fault: Fault) -> None:
    for ask, path in READS.values():
        studio.server.misbehave("GET", path, fault, times=2)
        ask(client)
        assert studio.server.count("GET", path) == 3


@pytest.mark.training
@pytest.mark.parametrize(
    ("fault", "done"),
    [
        (status(500), 0),
        (status(502), 0),
        (cut(), 0),
        (done_then_cut(), 1),
        (truncated(), 1),
        (garbage(), 1),
    ],
    ids=["500", "502", "cut", "done, then cut", "truncated", "garbage"],
)
def test_write__that_may_have_happened_is_never_sent_again(
    studio: Studio, client: Client, fault: Fault, done: int
) -> None:
    sent = studio.server.count("POST", "/api/*")
    for ask, path in WRITES.values():
        studio.server.misbehave("POST", path, fault, times=None)
        refused(ask, client)
        sent += 1
        assert studio.server.count("POST", "/api/*") == sent
    assert (len(studio.server.tasks), len(studio.server.projects)) == (done, 1 + done)


@pytest.mark.parametrize("ask", [read_tasks, send_task])
def test_429__is_tried_again_when_the_server_said_so(
    studio: Studio, client: Client, naps: list[float], ask: Callable[[Client], Any]
) -> None:
    studio.server.misbehave("*", "/api/*", status(429, headers={"Retry-After": "7"}), times=2)
    ask(client)
    assert naps == [7, 7]
    assert len(studio.server.tasks) == (ask is send_task)


def test_429__nobody_waits_for_hours(studio: Studio, client: Client, naps: list[float]) -> None:
    studio.server.misbehave("GET", "/api/tasks", status(429, headers={"Retry-After": "86400"}))
    read_tasks(client)
    assert naps == [60]


@pytest.mark.parametrize(
    ("release", "fine"), [("1.0.0", True), ("1.99", True), ("2.0.0", False), ("0.9", False)]
)
def test_check_version__another_major_one(
    studio: Studio, client: Client, release: str, fine: bool
) -> None:
    studio.server.version = release
    if fine:
        assert client.check_version() == release
    else:
        assert refused(Client.check_version, client) == (
            f"{client.url} is Label Studio {release}, and this ddiseg works with 1.x: connect "
            "another server, or upgrade ddiseg"
        )


def test_personal_token__is_exchanged_once_and_renewed_before_it_ends(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(replace(studio.connection, token=studio.server.pat)) as client:
        now = time.monotonic()
        for seconds, exchanged in ((0, 1), (200, 1), (http.BEARER_SECONDS + 1, 2)):
            monkeypatch.setattr(time, "monotonic", lambda at=now + seconds: at)
            assert client.users()
            client.create_project(title="masks", label_config=CONFIG)
            read_tasks(client)
            send_task(client)
            assert studio.server.count("POST", "/api/token/refresh/") == exchanged


def test_personal_token__that_the_server_s_clock_ended_early_is_renewed(studio: Studio) -> None:
    with Client(replace(studio.connection, token=studio.server.pat)) as client:
        make_project(client)
        asked = [*READS.values(), *WRITES.values()]
        for exchanged, (ask, _) in enumerate(asked, 2):
            studio.server.expire_access_tokens()
            ask(client)
            assert studio.server.count("POST", "/api/token/refresh/") == exchanged
        assert (len(studio.server.tasks), len(studio.server.projects)) == (1, 2)


def test_personal_token__revoked(studio: Studio) -> None:
    studio.server.revoke_pat()
    with Client(replace(studio.connection, token=studio.server.pat)) as client:
        for ask, _ in (*READS.values(), *WRITES.values()):
            line = refused(ask, client)
            assert "401 for the access token: the token is not valid there" in line
            assert studio.server.pat not in line


def test_personal_token__the_exchange_goes_wrong(studio: Studio) -> None:
    with Client(replace(studio.connection, token=studio.server.pat)) as client:
        for fault in (html(), garbage(), status(200, "{}"), status(200, "[]"), cut()):
            for ask, _ in (*READS.values(), *WRITES.values()):
                studio.server.misbehave("POST", "/api/token/refresh/", fault)
                assert "access" in refused(ask, client)


def test_legacy_tokens__disabled(studio: Studio, client: Client) -> None:
    studio.server.disable_legacy_tokens()
    for ask in (read_tasks, Client.users):
        line = refused(ask, client)
        assert "401 for" in line
        assert "legacy token authentication has been disabled" in line


def test_netrc__does_not_take_the_token_s_place(
    team: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Client(team.connection) as client:
        make_project(client)
        assert read_tasks(client) == []
        assert client.users()


def test_proxy__stands_before_a_team_s_server_only(
    studio: Studio, team: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # where nobody listens
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Client(studio.connection) as client:
        make_project(client)
        for ask, _ in (*READS.values(), *WRITES.values()):
            ask(client)
    with Client(team.connection) as client:
        for ask, _ in (*READS.values(), *WRITES.values()):
            assert re.search("can't be reached|the proxy does not", refused(ask, client))
    assert team.server.requests == []


def test_tasks__past_the_last_page(client: Client) -> None:
    assert client.plain.tasks(1, [], page=2, size=10, whole=True) == []


def test_tasks__of_a_project_that_is_gone_are_not_none(studio: Studio, client: Client) -> None:
    del studio.server.projects[1]
    assert "404 for tasks of project 1" in refused(read_tasks, client)


@pytest.mark.training
def test_find_tasks__thousands_of_keys(studio: Studio, client: Client) -> None:
    client.plain.import_tasks(
        1, [http.as_json({"data": {"image": "x", "ddiseg": f"{n:016x}"}}) for n in range(2500)]
    )
    client.plain.import_tasks(1, [http.as_json({"data": {"image": "x", "ddiseg": f"{7:016x}"}})])
    found = client.plain.find_tasks(1, "ddiseg", [f"{n:016x}" for n in range(3000)])
    assert found == {f"{n:016x}": [n + 1, 2501] if n == 7 else [n + 1] for n in range(2500)}
    assert studio.server.count("GET", "/api/tasks") == 30


def test_has_work__submitted_skipped_or_begun_by_anybody(studio: Studio, client: Client) -> None:
    numbers, _ = client.plain.import_tasks(1, [http.as_json(TASK)] * 4)
    lesion = [stroke("lesion", box(slice(2), slice(2)))]
    studio.submit(numbers[0], lesion)
    studio.skip(numbers[1])
    studio.server.draft(numbers[2], studio.people[ANNOTATOR], lesion)
    assert [client.has_work(n) for n in numbers] == [True, True, True, False]


@pytest.fixture
def others() -> set[threading.Thread]:
    """The threads of other tests' servers, which live as long as the session."""
    return set(threading.enumerate())


@pytest.mark.training
def test_close__leaves_no_connection_open(others: set[threading.Thread], studio: Studio) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        with Client(studio.connection) as client:
            client.users()
            client.create_project(title="masks", label_config=CONFIG)
            read_tasks(client)
        del client
        gc.collect()
    studio.server.stop()
    assert set(threading.enumerate()) <= others
