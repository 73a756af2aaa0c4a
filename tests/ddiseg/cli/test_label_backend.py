"""`ddiseg label backend`: what it prints, and that it prints no secret."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ddiseg.labelstudio.folder import Folder
from ddiseg.server.auth import VARIABLES
from ddiseg.workspace.workspace import Workspace
from tests.fake_label_studio import FakeLabelStudio, label_studio
from tests.fake_label_studio.ml_backend import MLBackend

__all__ = ["label_studio"]

Run = Callable[..., Any]
SECRET = "secret-of-the-webhooks"


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[MLBackend]:
    """What answers as `ddiseg serve` of the workspace does."""
    known = {"user": MLBackend.USER, "password": MLBackend.PASSWORD, "webhook_secret": SECRET}
    for name, variable in VARIABLES.items():
        monkeypatch.setenv(variable, known[name])
    with MLBackend() as running:
        yield running


@pytest.fixture
def run(
    here: Run, workspace: Workspace, label_studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """run("http://..."): `label backend` in a workspace that a team's server is connected with."""
    Folder(workspace.root).make()
    Folder(workspace.root).team.write_text(json.dumps({"url": label_studio.url}))
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", label_studio.token)

    def backend(*words: object) -> Any:
        result = here("label", "backend", *words)
        for text in (MLBackend.PASSWORD, SECRET, label_studio.token):
            assert text not in result.out + result.err
        return result

    return backend


@pytest.mark.slow
def test_backend__connects(run: Run, backend: MLBackend, label_studio: FakeLabelStudio) -> None:
    page = f"{label_studio.url}/projects/1/data"
    assert run(backend.url).out == f"connected {backend.url} with {page}\n"
    [row] = label_studio.backends.values()
    assert row.settings["basic_auth_user"] == MLBackend.USER
    clicks = run(backend.url, "--clicks")
    assert clicks.out.endswith(": switch on Auto-Annotation at a task, then click\n")
    as_json = run(backend.url, "--output", "json")
    assert as_json.json == {"url": backend.url, "project": page, "clicks": False}
    assert len(label_studio.backends) == 1


@pytest.mark.slow
def test_backend__does_not_answer(
    run: Run, backend: MLBackend, label_studio: FakeLabelStudio
) -> None:
    run(backend.url)
    result = run("http://127.0.0.1:1")
    assert (result.status, result.out) == (1, "")
    assert result.err.startswith("Error: http://127.0.0.1:1 is not connected: Label Studio gets no")
    assert result.err.count("\n") == 1
    assert [row.settings["url"] for row in label_studio.backends.values()] == [backend.url]


@pytest.mark.slow
def test_backend__forget(run: Run, backend: MLBackend, label_studio: FakeLabelStudio) -> None:
    assert run("--forget").out == "was not connected\n"
    run(backend.url)
    assert run("--forget").out == "no longer connected\n"
    assert not label_studio.backends
    assert run("--forget", "--output", "json").json == {"forgotten": False}


@pytest.mark.parametrize("words", [(), ("http://127.0.0.1:9090", "--forget")])
def test_backend__url_or_forget(run: Run, words: tuple[str, ...]) -> None:
    result = run(*words)
    assert result.status == 2
    assert "give the URL of 'ddiseg serve', or --forget alone" in result.err


def test_backend__address_that_is_none(run: Run, label_studio: FakeLabelStudio) -> None:
    result = run("localhost:9090")
    assert result.status == 1
    assert "'localhost:9090' is no address of a server" in result.err
    assert label_studio.requests == []


def test_backend__no_server(here: Run) -> None:
    result = here("label", "backend", "http://127.0.0.1:9090")
    assert result.status == 1
    assert "no Label Studio runs for" in result.err
