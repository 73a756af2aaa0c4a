"""A real S3-compatible server (moto) for a test session, and a proxy in front of it that can fail.

The server runs in a process of its own and keeps its objects in memory. The proxy runs on threads of the
test session, so that a test can switch faults on and see each request, also those of a `ddiseg` in
another process. What S3 checks and moto doesn't is checked by the proxy: the access key (`KEY` may do
everything, `READER` may only read), and that the body of a request has its Content-MD5.

    def test_import__store_is_slow(object_store: ObjectStore) -> None:
        object_store.faults.add(Fault.SLOW_DOWN, numbers=[3, 4], method="PUT")
        ...                              # Store(object_store.url), or ddiseg init --store URL

`object_store` sets the variables that a user sets (`ENVIRONMENT` and the endpoint) in this process; give
`object_store.environment` to another one.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import itertools
import os
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

#: Access keys that the proxy knows: one may do everything, the other may only read and list.
KEY, READER, SECRET = "AKIATESTS", "AKIAREADS", "not-a-secret"

#: The region of the server: requests that are signed for another one are refused, as S3 refuses them.
REGION = "us-east-1"

#: What a user sets beside the endpoint, which is AWS_ENDPOINT_URL_S3.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",  # without a key, don't look for a cloud's
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}

_SERVER = """
import logging, sys
logging.disable()
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()  # until the session ends, however it ends
"""


class Fault(StrEnum):
    """What happens to a request."""

    SLOW_DOWN = "SlowDown"  #: 503, as S3 answers when it is asked too often
    INTERNAL = "InternalError"  #: 500
    RESET = "reset"  #: the connection is reset before anything is done
    RESET_AFTER = "reset after"  #: the request is carried out, and its answer lost
    SLOW = "slow"  #: the answer comes after `seconds`
    HALF_BODY = "half body"  #: the connection ends in the middle of the answer
    DENIED = "AccessDenied"
    EXPIRED = "ExpiredToken"
    WRONG_CONTENT = "wrong content"  #: the body has other bytes, on the way there or back
    NO_BUCKET = "NoSuchBucket"


_STATUS = {
    Fault.SLOW_DOWN: (503, "Please reduce your request rate."),
    Fault.INTERNAL: (500, "We encountered an internal error. Please try again."),
    Fault.DENIED: (403, "Access Denied"),
    Fault.EXPIRED: (400, "The provided token has expired."),
    Fault.NO_BUCKET: (404, "The specified bucket does not exist"),
}


@dataclass
class _Rule:
    fault: Fault
    numbers: Collection[int] | None
    share: float
    random: random.Random
    method: str | None
    path: str
    seconds: float
    seen: int = 0

    def hits(self, method: str, path: str) -> bool:
        """Return whether this rule meets a request, which it counts if it is one of its own."""
        if (self.method and method not in self.method.split()) or not re.search(self.path, path):
            return False
        self.seen += 1
        if self.numbers is not None:
            return self.seen in self.numbers
        return self.random.random() < self.share


@dataclass(frozen=True)
class Request:
    """A request that the proxy got."""

    method: str
    path: str  #: with the query, decoded
    fault: Fault | None


@dataclass
class Faults:
    """The faults that are switched on, and the requests since `clear`."""

    requests: list[Request] = field(default_factory=list)
    met: int = 0  #: requests that a fault met
    _rules: list[_Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(
        self,
        fault: Fault,
        *,
        numbers: Collection[int] | None = None,
        share: float = 1.0,
        seed: int = 0,
        method: str | None = None,
        path: str = "",
        seconds: float = 0.0,
    ) -> None:
        """Switch a fault on for requests from now on.

        Args:
            numbers: The requests that it meets, the first one from now on is 1; None: a random `share`.
            share: The probability that it meets a request.
            seed: Of that choice.
            method: Only these methods, as in "GET HEAD".
            path: Only paths (with query) in which this expression is found. Only such requests count.
            seconds: How slow SLOW is.
        """
        rule = _Rule(fault, numbers, share, random.Random(seed), method, path, seconds)
        with self._lock:
            self._rules.append(rule)

    def clear(self) -> None:
        """Switch all faults off, and forget the requests."""
        with self._lock:
            self._rules.clear()
            self.requests.clear()
            self.met = 0

    def count(self, method: str = "", path: str = "") -> int:
        """Return the number of requests with a method and an expression in their path."""
        with self._lock:
            return sum(
                method in ("", each.method) and bool(re.search(path, each.path))
                for each in self.requests
            )

    def choose(self, method: str, path: str) -> _Rule | None:
        """Return the rule that meets a request, which is noted."""
        with self._lock:
            hit = [rule for rule in self._rules if rule.hits(method, path)]
            self.requests.append(Request(method, path, hit[0].fault if hit else None))
            self.met += bool(hit)
            return hit[0] if hit else None


@dataclass
class ObjectStore:
    """An empty bucket, the URL for `ddiseg init --store`, and the faults of the way to it."""

    url: str  #: s3://BUCKET/prefix
    bucket: str
    endpoint: str  #: of the proxy
    direct: str  #: endpoint of the server itself, which never fails
    faults: Faults
    environment: dict[str, str]  #: what another process needs to use it

    def objects(self) -> dict[str, bytes]:
        """Return what is in the bucket, by key, past the proxy."""
        return {key: self._client().cat_file(f"{self.bucket}/{key}") for key in self.keys()}

    def keys(self, start: str = "") -> list[str]:
        """Return the keys in the bucket with that start, sorted, past the proxy."""
        found = self._client().find(self.bucket, refresh=True)
        keys = sorted(str(path).removeprefix(f"{self.bucket}/") for path in found)
        return [key for key in keys if key.startswith(start)]

    def write(self, key: str, data: bytes) -> None:
        """Write an object past the proxy."""
        self._client().pipe_file(f"{self.bucket}/{key}", data)

    def remove(self, key: str) -> None:
        """Delete an object past the proxy."""
        self._client().rm_file(f"{self.bucket}/{key}")

    def _client(self) -> Any:
        return _client(self.direct)


def _client(endpoint: str) -> Any:
    import s3fs

    return s3fs.S3FileSystem(
        key=KEY,
        secret=SECRET,
        endpoint_url=endpoint,
        use_listings_cache=False,
        client_kwargs={"region_name": REGION},
    )


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port, self.faults = port, Faults()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Proxy
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def handle_any(self) -> None:
        path = urllib.parse.unquote(self.path)
        rule = self.server.faults.choose(self.command, path)
        fault = rule.fault if rule else None
        if fault is Fault.RESET:
            return self.reset()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault is Fault.WRONG_CONTENT and body:
            body = _changed(body)
        if rule and fault is Fault.SLOW:
            time.sleep(rule.seconds)
        if fault in _STATUS:
            return self.refuse(*_STATUS[fault], fault.value)
        if problem := self.problem(body):
            return self.refuse(*problem)
        status, headers, content = self.forward(body)
        if fault is Fault.RESET_AFTER:
            return self.reset()
        if fault is Fault.WRONG_CONTENT and self.command == "GET":
            content = _changed(content)
            headers = [h for h in headers if not h[0].lower().startswith("x-amz-checksum")]
        self.answer(status, headers, content, half=fault is Fault.HALF_BODY)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):  # all methods alike
            return self.handle_any
        raise AttributeError(name)

    def problem(self, body: bytes) -> tuple[int, str, str] | None:
        """Return what S3 would refuse and moto does not: status, message, code."""
        signed = self.headers.get("Authorization", "")
        found = re.search(r"Credential=([^/]+)/\d+/([^/]+)/", signed)
        key, region = found.groups() if found else ("", "")
        if not key:
            return 403, "Access Denied", "AccessDenied"
        if key not in (KEY, READER):
            message = "The AWS Access Key Id you provided does not exist in our records."
            return 403, message, "InvalidAccessKeyId"
        if region != REGION:
            message = f"The region '{region}' is wrong; expecting '{REGION}'"
            return 400, message, "AuthorizationHeaderMalformed"
        if key == READER and self.command not in ("GET", "HEAD"):
            return 403, "Access Denied", "AccessDenied"
        expected = self.headers.get("Content-MD5")
        if expected and base64.b64encode(hashlib.md5(body).digest()).decode() != expected:
            message = "The Content-MD5 you specified did not match what we received."
            return 400, message, "BadDigest"
        return None

    def forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        try:
            # What is between two hosts stays there.
            dropped = ("connection", "expect", "transfer-encoding", "content-length")
            headers = {k: v for k, v in self.headers.items() if k.lower() not in dropped}
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            content = answer.read()
            kept = [
                h for h in answer.getheaders() if h[0].lower() not in (*dropped, "server", "date")
            ]
            if self.command == "HEAD":
                kept.append(("Content-Length", answer.getheader("Content-Length") or "0"))
            return answer.status, kept, content
        finally:
            upstream.close()

    def answer(
        self, status: int, headers: list[tuple[str, str]], content: bytes, *, half: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD" and status not in (204, 304):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(content[: len(content) // 2] if half else content)
        if half:
            self.wfile.flush()
            self.close_connection = True

    def refuse(self, status: int, message: str, code: str) -> None:
        """Answer as S3 does: XML with a code; without a body to HEAD."""
        text = (
            f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
        )
        self.answer(status, [("Content-Type", "application/xml")], text.encode())

    def reset(self) -> None:
        linger = struct.pack("ii", 1, 0)  # closing sends a reset in place of an orderly end
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.close()


def _changed(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :] if body else body


@dataclass(frozen=True)
class S3Server:
    """The server of a session, with its proxy."""

    endpoint: str
    direct: str
    faults: Faults

    def environment(self) -> dict[str, str]:
        return {**ENVIRONMENT, "AWS_ENDPOINT_URL_S3": self.endpoint}


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """Start the server and the proxy, once a session."""
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    command = [sys.executable, "-W", "ignore", "-c", _SERVER]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdin
    assert process.stdout
    proxy = None
    try:
        port = int(process.stdout.readline())
        proxy = _Proxy(port)
        threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
        direct = f"http://127.0.0.1:{port}"
        yield S3Server(f"http://127.0.0.1:{proxy.server_port}", direct, proxy.faults)
    finally:
        if proxy is not None:
            proxy.shutdown()
            proxy.server_close()
        process.stdin.close()
        process.stdout.close()
        process.terminate()
        process.wait()


_numbers = itertools.count(1)


@pytest.fixture
def object_store(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """An empty bucket; the endpoint and the credentials are in the environment, as a user gives them."""
    set_environment(monkeypatch, s3_server.environment())
    bucket = f"bucket-{next(_numbers)}"
    s3_server.faults.clear()
    _client(s3_server.direct).call_s3("create_bucket", Bucket=bucket)
    yield ObjectStore(
        url=f"s3://{bucket}/prefix",
        bucket=bucket,
        endpoint=s3_server.endpoint,
        direct=s3_server.direct,
        faults=s3_server.faults,
        environment=s3_server.environment(),
    )
    s3_server.faults.clear()


#: Clients of this process by the variables that they were made with: making one takes a third of a second.
_clients: dict[frozenset[tuple[str, str]], dict[Any, Any]] = {}


def set_environment(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    """Set these variables, and no other of AWS or fsspec; connections are those of these variables."""
    import s3fs

    clients = _clients.setdefault(frozenset(variables.items()), {})
    monkeypatch.setattr(s3fs.S3FileSystem, "_cache", clients)
    for name in os.environ:
        if name.startswith(("AWS_", "FSSPEC_")):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
