"""A server that misbehaves on command, and one that can be down."""

from __future__ import annotations

import json
import threading
from http.client import HTTPConnection, IncompleteRead, RemoteDisconnected
from urllib.error import URLError

import pytest

from tests.fake_label_studio import (
    FakeLabelStudio,
    Fault,
    cut,
    done_then_cut,
    garbage,
    html,
    meanwhile,
    slow,
    status,
    truncated,
)
from tests.fake_label_studio.conftest import IMPORT, items, push
from tests.fake_label_studio.conversation import region
from tests.fake_label_studio.talk import Talk


@pytest.fixture
def others() -> set[threading.Thread]:
    """The threads of other tests' servers, which live as long as the session."""
    return set(threading.enumerate())


@pytest.mark.parametrize(
    ("code", "kind"), [(401, "{"), (403, "{"), (404, "{"), (429, "{"), (500, "{"), (503, "<")]
)
def test_status__refuses_without_doing(
    label_studio: FakeLabelStudio, talk: Talk, code: int, kind: str
) -> None:
    label_studio.misbehave("POST", "/api/projects/*/import", status(code))
    answer = talk.ask("POST", IMPORT, items("a"))
    assert talk.status == code
    assert (answer == "page") is (kind == "<")
    assert not label_studio.tasks


def test_status__with_a_body_and_headers(label_studio: FakeLabelStudio) -> None:
    label_studio.misbehave("GET", "/health", status(429, "slowly", {"Retry-After": "7"}))
    connection = HTTPConnection(label_studio.url.removeprefix("http://"))
    connection.request("GET", "/health")
    answer = connection.getresponse()
    assert (answer.headers["Retry-After"], answer.read()) == ("7", b"slowly")
    connection.close()


def test_html__where_json_was_asked_for(label_studio: FakeLabelStudio, talk: Talk) -> None:
    label_studio.misbehave("POST", "/api/projects/*/import", html())
    assert talk.ask("POST", IMPORT, items("a")) == "page"
    assert talk.status == 200
    assert not label_studio.tasks


@pytest.mark.parametrize(("fault", "done"), [(cut(), 0), (done_then_cut(), 1)])
def test_cut__before_or_after_it_was_done(
    label_studio: FakeLabelStudio, talk: Talk, fault: Fault, done: int
) -> None:
    label_studio.misbehave("POST", "/api/projects/*/import", fault)
    with pytest.raises(RemoteDisconnected):
        talk.ask("POST", IMPORT, items("a"))
    assert len(label_studio.tasks) == done
    assert label_studio.requests[-1].status is None


def test_truncated__ends_before_the_length_it_promised(
    label_studio: FakeLabelStudio, talk: Talk
) -> None:
    label_studio.misbehave("POST", "/api/projects/*/import", truncated())
    with pytest.raises(IncompleteRead):
        talk.ask("POST", IMPORT, items("a"))
    assert len(label_studio.tasks) == 1


def test_garbage__is_no_json(label_studio: FakeLabelStudio, talk: Talk) -> None:
    label_studio.misbehave("GET", "/api/users/", garbage())
    answer = talk.ask("GET", "/api/users/")
    assert isinstance(answer, bytes)
    assert talk.status == 200


@pytest.mark.slow
def test_slow__outlasts_a_client_s_patience_though_it_was_done(
    others: set[threading.Thread], label_studio: FakeLabelStudio, talk: Talk
) -> None:
    label_studio.misbehave("POST", "/api/projects/*/import", slow(60))
    connection = HTTPConnection(label_studio.url.removeprefix("http://"), timeout=0.2)
    headers = {"Authorization": f"Token {label_studio.token}", "Content-Type": "application/json"}
    connection.request("POST", IMPORT, json.dumps(items("a")), headers)
    with pytest.raises(TimeoutError):
        connection.getresponse()
    connection.close()
    assert len(label_studio.tasks) == 1
    label_studio.stop()  # does not wait for the 60 s
    assert set(threading.enumerate()) <= others


def test_meanwhile__a_change_between_two_pages_pushes_a_task_past_the_reader(
    label_studio: FakeLabelStudio, talk: Talk, annotator: int
) -> None:
    tasks = push(talk, "a", "b", "c", "d")
    label_studio.misbehave(
        "GET",
        "/api/tasks",
        meanwhile(lambda: label_studio.annotate(tasks[0], annotator, [region()])),
        skip=1,
    )
    seen = []
    for page in (1, 2):
        order = json.dumps({"ordering": ["tasks:updated_at"]})
        answer = talk.ask("GET", "/api/tasks", project=1, page=page, page_size=2, query=order)
        seen += [task["id"] for task in answer["tasks"]]
    assert seen == [tasks[0], tasks[1], tasks[3], tasks[0]]


def test_meanwhile__what_goes_wrong_in_it_is_told() -> None:
    def ask() -> None:
        with FakeLabelStudio() as server:
            server.misbehave("GET", "/health", meanwhile(lambda: 1 / 0))
            with pytest.raises(RemoteDisconnected):
                Talk(server.url, server.token).ask("GET", "/health")

    with pytest.raises(ZeroDivisionError):
        ask()


def test_misbehave__skips_and_stops(label_studio: FakeLabelStudio, talk: Talk) -> None:
    label_studio.misbehave("GET", "/api/users/", status(500), skip=1, times=2)
    answers = []
    for _ in range(5):
        talk.ask("GET", "/api/users/")
        answers.append(talk.status)
    assert answers == [200, 500, 500, 200, 200]


def test_misbehave__on_these_paths_and_methods_only(
    label_studio: FakeLabelStudio, talk: Talk
) -> None:
    label_studio.misbehave("DELETE", "/api/*", status(500), times=None)
    label_studio.misbehave("*", "/api/tasks/*", status(403), times=None)
    asked = {
        ("GET", "/api/users/"): 200,
        ("DELETE", "/api/users/"): 500,
        ("GET", "/api/tasks"): 404,
        ("GET", "/api/tasks/1/"): 403,
    }
    for (method, path), answer in asked.items():
        talk.ask(method, path)
        assert talk.status == answer
    label_studio.behave()
    talk.ask("DELETE", "/api/users/")
    assert talk.status == 405


def test_version__can_be_another(label_studio: FakeLabelStudio, talk: Talk) -> None:
    for release in ("2.0.0", "0.9"):
        label_studio.version = release
        assert talk.ask("GET", "/api/version")["release"] == release
        assert talk.ask("GET", "/api/users/nobody") == "page"
        assert talk.ask("GET", "/api/tasks/9/")["version"] == release


def test_stop__refuses_and_start_listens_on_the_same_port_with_all_rows(
    label_studio: FakeLabelStudio, talk: Talk
) -> None:
    push(talk, "a")
    kept_alive = HTTPConnection(label_studio.url.removeprefix("http://"))
    kept_alive.request("GET", "/health")
    kept_alive.getresponse().read()
    url = label_studio.url
    label_studio.stop()
    kept_alive.sock.settimeout(5)
    assert kept_alive.sock.recv(1) == b""  # hung up
    kept_alive.close()
    with pytest.raises(URLError, match="refused"):
        talk.ask("GET", "/health")
    label_studio.start()
    assert label_studio.url == url
    assert talk.ask("GET", "/api/tasks", project=1)["total"] == 1


def test_requests__are_logged_with_parameters_size_and_status(
    label_studio: FakeLabelStudio, talk: Talk
) -> None:
    talk.ask("POST", IMPORT, [], return_task_ids="true")
    logged = label_studio.requests[-1]
    assert (logged.method, logged.path) == ("POST", IMPORT)
    assert (logged.params, logged.size, logged.status) == ({"return_task_ids": "true"}, 2, 400)
    assert label_studio.count("POST", "/api/projects/*") == 2
    assert label_studio.count("GET", "/api/projects/*") == 0


@pytest.mark.slow
def test_connections__eight_at_once(label_studio: FakeLabelStudio, talk: Talk) -> None:
    def push_some(who: int) -> None:
        own = Talk(label_studio.url, label_studio.token)
        for number in range(20):
            push(own, f"{who}-{number}")

    threads = [threading.Thread(target=push_some, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(task.inner_id for task in label_studio.tasks.values()) == list(range(1, 161))


def test_leaving__tells_what_the_fake_cannot_do() -> None:
    def ask_too_much() -> None:
        with FakeLabelStudio() as server:
            talk = Talk(server.url, server.token)
            talk.ask("POST", "/api/projects/", {"title": "masks"})
            talk.ask("POST", IMPORT, files={"a.png": b""})
            assert talk.status == 500

    with pytest.raises(NotImplementedError, match="commit_to_project"):
        ask_too_much()
