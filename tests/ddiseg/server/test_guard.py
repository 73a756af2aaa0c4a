from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from ddiseg.server.auth import RequestGuard
from tests.ddiseg.server.conftest import CREDENTIALS, MAX_BODY, Served
from tests.ddiseg.server.desk import predict_request

WITH_SECRET = {"X-Ddiseg-Secret": "battery staple"}
PULL = {"action": "PROJECT_UPDATED", "project": {"id": 3}}


@pytest.mark.slow
@pytest.mark.parametrize("auth", [None, ("ddiseg", "wrong"), ("other", "correct horse")])
def test_strangers__are_refused_everywhere(served: Served, auth: tuple[str, str] | None) -> None:
    posted = ("/predict", "/setup", "/webhook", "/webhook/", "/webhook/wrong")
    got = ("/versions", "/metrics", "/", "/docs", "/openapi.json")
    for method, paths in (("POST", posted), ("GET", got)):
        for path in paths:
            answer = served.client.request(method, path, auth=auth)
            assert answer.status_code == 401, path
            assert answer.headers["WWW-Authenticate"] == "Basic"


AUTHORIZED = (b"authorization", b"Bearer correct horse")
TOO_LONG = (b"content-length", str(MAX_BODY + 1).encode())


@pytest.mark.parametrize(
    ("headers", "status"),
    [([], 401), ([AUTHORIZED, TOO_LONG], 413)],
    ids=["a stranger's", "too long"],
)
def test_refused__the_body_is_not_read(headers: list[tuple[bytes, bytes]], status: int) -> None:
    async def never(*_args: Any) -> Any:
        raise AssertionError("the body was read")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers}
    asyncio.run(RequestGuard(never, CREDENTIALS, MAX_BODY)(scope, never, send))
    assert sent[0]["status"] == status


@pytest.mark.slow
def test_bearer__is_the_password(served: Served) -> None:
    headers = {"Authorization": "Bearer correct horse"}
    assert served.client.get("/versions", headers=headers).status_code == 200


@pytest.mark.slow
def test_health__is_open_but_says_when_credentials_are_wrong(served: Served) -> None:
    assert served.client.get("/health").json() == {"status": "UP", "model_class": "ddiseg"}
    assert served.client.get("/health", auth=("ddiseg", "wrong")).status_code == 401
    assert served.get("/health").status_code == 200


def test_webhook__takes_a_secret_in_header_or_path_or_the_credentials(served: Served) -> None:
    client = served.client
    assert client.post("/webhook", json=PULL, headers=WITH_SECRET).status_code == 200
    assert client.post("/webhook/battery staple", json=PULL).status_code == 200
    assert served.post("/webhook", PULL).status_code == 200


def test_webhook_s_secret__opens_nothing_else(served: Served) -> None:
    answer = served.client.post("/predict", json=predict_request(), headers=WITH_SECRET)
    assert answer.status_code == 401
    assert served.client.post("/predict/battery staple", json={}).status_code == 401


@pytest.mark.slow
def test_large_body__is_refused_by_its_announced_length(served: Served) -> None:
    answer = served.post("/predict", {"tasks": [], "padding": "x" * MAX_BODY})
    assert answer.status_code == 413
    assert "--max-body-mb" in answer.json()["detail"]


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/predict", "/webhook", "/setup"])
def test_large_body__is_refused_while_it_is_read(served: Served, path: str) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"tasks": [], "action": "x", "padding": "'
        for _ in range(11):
            yield b"x" * (MAX_BODY // 10)
        yield b'"}'

    answer = served.send(path, chunks())
    assert answer.status_code == 413
    assert "--max-body-mb" in answer.json()["detail"]


@pytest.mark.slow
@pytest.mark.parametrize("length", ["-5", "x", "\u0665"])
def test_odd_content_length__is_counted_anyway(served: Served, length: str) -> None:
    headers = {"Content-Length": length.encode()}
    body = b'{"tasks": []}' + b" " * MAX_BODY
    answer = served.send("/predict", body, headers=headers)
    assert answer.status_code == 413


def test_body_at_the_limit__is_taken(served: Served) -> None:
    body = b'{"tasks": []}'
    body += b" " * (MAX_BODY - len(body))
    answer = served.send("/predict", body)
    assert answer.json() == {"results": [], "unanswered": []}
