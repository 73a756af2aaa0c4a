"""`ddiseg serve` is connected once, whatever happens in between; what it replaces goes last."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from annotation_protocol.label_studio_config import CLICK, read_config
from ddiseg.errors import InputError, ServerError
from ddiseg.labelstudio import ml_backend
from ddiseg.labelstudio.client import Client
from ddiseg.labelstudio.ml_backend import (
    ACTIONS,
    TIMEOUT,
    TITLE,
    BackendAddress,
    connect_backend,
    disconnect_backend,
)
from ddiseg.labelstudio.projects import ensure_projects
from tests.ddiseg.labelstudio.studio import Studio
from tests.fake_label_studio import Fault, cut, done_then_cut, status
from tests.fake_label_studio.ml_backend import MLBackend
from tests.fake_label_studio.rows import Webhook
from tests.wording import Refusal

SECRET = "secret-of-the-webhooks"
NOBODY = "http://127.0.0.1:1"

#: Every request of a connection that takes another's place, as `misbehave` knows it.
STEPS = {
    "the backend is added": ("POST", "/api/ml*", 0),
    "a webhook is added": ("POST", "/api/webhooks*", 0),
    "the other webhook is added": ("POST", "/api/webhooks*", 1),
    "the first old webhook goes": ("DELETE", "/api/webhooks/*", 0),
    "the last old webhook goes": ("DELETE", "/api/webhooks/*", 2),
    "the old backend goes": ("DELETE", "/api/ml/*", 0),
    "predictions are shown again": ("PATCH", "/api/projects/1/", 0),
    "opened tasks are asked for": ("PATCH", "/api/projects/1/", 1),
}


@pytest.fixture
def backend() -> Iterator[MLBackend]:
    with MLBackend() as running:
        yield running


@pytest.fixture
def other() -> Iterator[MLBackend]:
    """The same server, moved to another port."""
    with MLBackend() as running:
        yield running


def address(url: str, **more: Any) -> BackendAddress:
    known = {"user": MLBackend.USER, "password": MLBackend.PASSWORD, "webhook_secret": SECRET}
    return BackendAddress(url, **{**known, **more})


def connect(studio: Studio, url: str, *, clicks: bool = False, **more: Any) -> int:
    """Connect what runs at `url`; the server's number of the annotation project."""
    known = address(url, **more)
    return connect_backend(studio.workspace, studio.connection, known, clicks=clicks).number


def disconnect(studio: Studio) -> bool:
    return disconnect_backend(studio.workspace, studio.connection)


def refused(attempt: Callable[[], object]) -> str:
    """The line that an attempt ends with; it holds no secret."""
    with pytest.raises(ServerError) as raised:
        attempt()
    line = str(raised.value)
    assert "\n" not in line
    assert MLBackend.PASSWORD not in line
    assert SECRET not in line
    return line


def connected(studio: Studio) -> tuple[list[str], list[tuple[int, str]]]:
    """The addresses of the backends, and project and address of the webhooks."""
    server = studio.server
    hooks = [(w.project.id, str(w.settings["url"])) for w in server.webhooks.values()]
    return [str(b.settings["url"]) for b in server.backends.values()], hooks


def once(url: str) -> tuple[list[str], list[tuple[int, str]]]:
    """`connected`, where all is as it should be."""
    return [url], [(project, f"{url}/webhook/{SECRET}") for project in (1, 2)]


def project(studio: Studio) -> dict[str, Any]:
    """The settings of the annotation project."""
    return studio.server.projects[1].settings


def clicks_shown(studio: Studio) -> bool:
    return CLICK in read_config(project(studio)["label_config"]).controls


def add_webhook(studio: Studio, number: int, url: str) -> Webhook:
    """Somebody makes a webhook of their own."""
    with Client(studio.connection) as client:
        made = client.add_webhook(number, url, ["ANNOTATION_CREATED"], {"X-Theirs": "1"})
    return studio.server.webhooks[made]


def add_foreign_backend(studio: Studio, url: str) -> int:
    with Client(studio.connection) as client:
        return client.add_backend(
            1, "somebody's model", url, MLBackend.USER, MLBackend.PASSWORD, timeout=10.0
        )


@pytest.mark.slow
def test_connect__both_projects(studio: Studio, backend: MLBackend) -> None:
    assert connect(studio, f"{backend.url}/", clicks=True) == 1
    assert connected(studio) == once(backend.url)
    [made] = studio.server.backends.values()
    assert made.project.id == 1
    assert made.state == "CO"
    assert {k: v for k, v in made.settings.items() if k not in ("project", "url")} == {
        "title": TITLE,
        "is_interactive": True,
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": MLBackend.USER,
        "basic_auth_pass": MLBackend.PASSWORD,
        "timeout": TIMEOUT,
    }
    for webhook in studio.server.webhooks.values():
        assert webhook.settings["actions"] == list(ACTIONS)
        assert webhook.settings["send_for_all_actions"] is False
        assert webhook.settings["send_payload"] is True
    assert project(studio)["evaluate_predictions_automatically"] is True
    assert project(studio)["model_version"] == TITLE
    assert clicks_shown(studio)


def test_connect__is_refused_without_credentials_by_no_webhook_that_came_by_itself(
    studio: Studio, backend: MLBackend
) -> None:
    """Label Studio makes one for each backend; `ddiseg serve` would answer 401 to all it sends."""
    connect(studio, backend.url)
    assert not [w for w in studio.server.webhooks.values() if SECRET not in w.settings["url"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "more", "moved"),
    [
        ("", {}, True),
        ("", {}, False),
        ("", {"webhook_secret": "the-former-secret"}, False),
        ("/ddiseg", {}, True),
    ],
    ids=["moved", "same", "a new secret", "behind a path"],
)
@pytest.mark.parametrize("removed", [False, True])
def test_connect__again_replaces(
    studio: Studio,
    backend: MLBackend,
    other: MLBackend,
    path: str,
    more: dict[str, str],
    moved: bool,
    removed: bool,
) -> None:
    """Also where somebody removed the backend in Settings > Model, where its webhooks stay."""
    connect(studio, f"{backend.url}{path}", clicks=True, **more)
    if removed:
        studio.server.backends.clear()
    new = other.url if moved else backend.url
    connect(studio, new)
    assert connected(studio) == once(new)
    assert project(studio)["model_version"] == TITLE
    assert not clicks_shown(studio)


@pytest.mark.parametrize("before", [True, False])
def test_connect__that_does_not_answer(studio: Studio, backend: MLBackend, before: bool) -> None:
    if before:
        connect(studio, backend.url, clicks=True)
    else:
        ensure_projects(studio.workspace, studio.connection)
    there, settings = connected(studio), dict(project(studio))
    line = refused(lambda: connect(studio, NOBODY))
    assert line == (
        f"{NOBODY} is not connected: Label Studio gets no answer there: is 'ddiseg serve' running, "
        "and is that where Label Studio's machine reaches it? What was connected before still is."
    )
    assert connected(studio) == there
    assert project(studio) == settings


def test_connect__of_another_workspace(studio: Studio, backend: MLBackend) -> None:
    line = refused(lambda: connect(studio, backend.url, password="of-another-workspace"))
    assert "what answers there does not know this workspace's account" in line
    assert "of-another-workspace" not in line


def test_connect__that_the_server_may_not_reach(studio: Studio, backend: MLBackend) -> None:
    said = '{"detail": "The provided URL was not allowed. URLs must use http:// or https://, ..."}'
    for path in ("/api/ml/", "/api/webhooks/"):
        studio.server.misbehave("POST", path, status(403, said))
        line = refused(lambda: connect(studio, backend.url))
        assert "unless it is started with LABEL_STUDIO_ML_BLOCK_LOCAL_IP=false" in line


@pytest.mark.slow
@pytest.mark.parametrize("code", [400, 401, 403, 500])
@pytest.mark.parametrize("skip", [0, 1])
def test_connect__webhooks_are_refused(
    studio: Studio, backend: MLBackend, other: MLBackend, code: int, skip: int
) -> None:
    """The new backend was there already, and goes again."""
    connect(studio, backend.url)
    studio.server.misbehave("POST", "/api/webhooks/", status(code), skip=skip)
    assert str(code) in refused(lambda: connect(studio, other.url))
    assert connected(studio) == once(backend.url)
    assert project(studio)["model_version"] == TITLE


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    "fault", [cut(), done_then_cut(), status(401), status(500)], ids=["cut", "done", "401", "500"]
)
def test_connect__breaks_off_then_again(
    studio: Studio, backend: MLBackend, other: MLBackend, step: str, fault: Fault
) -> None:
    method, path, skip = STEPS[step]
    connect(studio, backend.url)
    studio.server.misbehave(method, path, fault, skip=skip)
    refused(lambda: connect(studio, other.url))
    assert connected(studio)[0], "there is no backend at all"
    connect(studio, other.url)
    assert connected(studio) == once(other.url)
    assert project(studio)["model_version"] == TITLE
    assert project(studio)["evaluate_predictions_automatically"] is True


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False], ids=["the first", "in place of one"])
def test_connect__killed_anywhere_then_again(
    studio: Studio,
    backend: MLBackend,
    other: MLBackend,
    monkeypatch: pytest.MonkeyPatch,
    first: bool,
) -> None:
    """A kill, unlike an error, puts nothing back."""
    if not first:
        connect(studio, backend.url)
    kills = 0
    while _killed(monkeypatch, kills, lambda: connect(studio, other.url)):
        backends, hooks = connected(studio)
        assert first or backends, "there is no backend at all"
        assert first or {p for p, url in hooks if SECRET in url} == {1, 2}
        kills += 1
    assert kills >= (4 if first else 8)
    assert connected(studio) == once(other.url)
    assert project(studio)["model_version"] == TITLE


@pytest.mark.slow
def test_disconnect__killed_anywhere_then_again(
    studio: Studio, backend: MLBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.predict(studio.add_images())
    studio.push()
    connect(studio, backend.url)
    kills = 0
    while _killed(monkeypatch, kills, lambda: disconnect(studio)):
        kills += 1
    assert kills >= 4
    assert connected(studio) == ([], [])
    assert project(studio)["model_version"] == TITLE


def _killed(monkeypatch: pytest.MonkeyPatch, after: int, attempt: Callable[[], object]) -> bool:
    """Whether an attempt wanted more than `after` changes of the server, and was killed there."""
    left = after

    class Killed(BaseException):
        """Not an error: nobody catches it."""

    def or_die(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*args: Any, **settings: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return change(*args, **settings)

        return changed

    with monkeypatch.context() as patch:
        for name in ("backend", "webhook"):
            for change in (f"add_{name}", f"delete_{name}"):
                patch.setattr(ml_backend.Client, change, or_die(getattr(Client, change)))
        patch.setattr(ml_backend.Client, "update_project", or_die(Client.update_project))
        try:
            attempt()
        except Killed:
            return True
    return False


@pytest.mark.slow
def test_connect__leaves_others_alone(studio: Studio, backend: MLBackend, other: MLBackend) -> None:
    ensure_projects(studio.workspace, studio.connection)
    number = add_foreign_backend(studio, other.url)
    theirs = [
        add_webhook(studio, 1, "https://hooks.example.org/webhook/0123456789"),
        add_webhook(studio, 2, "https://hooks.example.org/webhook"),
        *(w for w in studio.server.webhooks.values() if w.settings["url"].startswith(other.url)),
    ]
    for _ in range(2):
        connect(studio, backend.url)
        assert len(studio.server.backends) == 2
        assert len(studio.server.webhooks) == 2 + len(theirs)
    assert disconnect(studio) is True
    assert list(studio.server.backends) == [number]
    assert list(studio.server.webhooks.values()) == sorted(theirs, key=lambda w: w.id)


def test_disconnect__takes_ours_away(studio: Studio, backend: MLBackend) -> None:
    connect(studio, backend.url, clicks=True)
    backend.stop()
    assert disconnect(studio) is True
    assert connected(studio) == ([], [])
    assert project(studio)["evaluate_predictions_automatically"] is False
    assert not clicks_shown(studio)


@pytest.mark.slow
@pytest.mark.parametrize("shown", [TITLE, "somebody's model"])
def test_disconnect__predictions_stay_shown(studio: Studio, backend: MLBackend, shown: str) -> None:
    """Label Studio forgets ours with the backend of their name; others are a person's choice."""
    studio.predict(studio.add_images())
    studio.push()
    connect(studio, backend.url)
    project(studio)["model_version"] = shown
    disconnect(studio)
    assert project(studio)["model_version"] == shown


@pytest.mark.slow
def test_disconnect__nothing_is_predicted_yet(studio: Studio, backend: MLBackend) -> None:
    """The server takes no name that nothing has; the first push with a prediction brings it."""
    connect(studio, backend.url)
    assert disconnect(studio) is True
    assert project(studio)["model_version"] == ""
    studio.predict(studio.add_images())
    studio.push()
    assert project(studio)["model_version"] == TITLE


@pytest.mark.slow
def test_disconnect__none_is_connected(studio: Studio, backend: MLBackend) -> None:
    ensure_projects(studio.workspace, studio.connection)
    assert disconnect(studio) is False
    connect(studio, backend.url)
    assert [disconnect(studio) for _ in range(2)] == [True, False]


def test_disconnect__only_webhooks_are_left(studio: Studio, backend: MLBackend) -> None:
    connect(studio, backend.url)
    studio.server.backends.clear()
    assert disconnect(studio) is True
    assert connected(studio) == ([], [])


@pytest.mark.slow
@pytest.mark.parametrize("code", [401, 500])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/ml/"), ("GET", "/api/webhooks/"), ("DELETE", "/api/ml/*")],
)
def test_disconnect__the_server_refuses(
    studio: Studio, backend: MLBackend, code: int, method: str, path: str
) -> None:
    connect(studio, backend.url)
    studio.server.misbehave(method, path, status(code), times=None)
    assert f"{code}" in refused(lambda: disconnect(studio))
    studio.server.behave()
    assert disconnect(studio) is True
    assert connected(studio) == ([], [])


@pytest.mark.slow
def test_secrets__are_nowhere_but_on_the_server(
    studio: Studio, backend: MLBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    connect(studio, backend.url)
    with Client(studio.connection) as client:
        seen = repr([client.backends(1), client.webhooks(1), address(backend.url)])
    disconnect(studio)
    events = repr(studio.rows("events"))
    for text in (caplog.text, seen, events):
        assert MLBackend.PASSWORD not in text
        assert SECRET not in text


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost:9090", "ftp://here.example.org", "http://", "http://[::1"),
        *("http://127.0.0.1:0", "http://127.0.0.1:99999"),
        *("http://127.0.0.1:9090?a=b", "http://127.0.0.1:9090#part"),
        "http://somebody:hidden@127.0.0.1:9090",
        "http://serve:9090",  # Label Studio takes it for a backend, and not for a webhook
    ],
)
def test_address__refused(url: str, refusal: Refusal) -> None:
    with refusal(InputError) as raised:
        address(url)
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "serve.example.org"])
def test_address__that_webhooks_reach(host: str) -> None:
    assert address(f"http://{host}:9090").url == f"http://{host}:9090"
