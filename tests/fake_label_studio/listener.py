"""The open port: connections, requests off the wire and answers onto it."""

from __future__ import annotations

import socket
import sys
import threading
from dataclasses import dataclass
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from tests.fake_label_studio.database import Database
from tests.fake_label_studio.faults import Fault
from tests.fake_label_studio.routing import Answer, Call

#: Seconds within which a server that is told to stop has hung up.
_STOP_SECONDS = 0.01


@dataclass
class Request:
    """One request, as the log keeps it."""

    method: str
    path: str
    params: dict[str, str]
    size: int  #: bytes of the body
    status: int | None = None  #: None while it is not answered, and for ever where it never was


class Responder(Protocol):
    """What stands behind the port."""

    def note(self, request: Request) -> Fault | None:
        """Log a request; returns the fault that it meets."""

    def answer(self, call: Call) -> Answer:
        """Do what a request asks."""

    def broke(self, error: BaseException) -> None:
        """Keep an error that is nobody's but the fake's."""


class Listener(ThreadingHTTPServer):
    """The open port, and the connections on it."""

    daemon_threads = False  # closing waits for them: no thread outlives a test
    request_queue_size = 128

    def __init__(self, responder: Responder, db: Database, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.responder = responder
        self.db = db
        self.stopping = threading.Event()
        self.connections: set[socket.socket] = set()
        self._thread = threading.Thread(
            target=self.serve_forever, args=(_STOP_SECONDS,), name="fake Label Studio"
        )
        self._thread.start()

    def close(self) -> None:
        self.stopping.set()
        self.shutdown()
        self._thread.join()
        for connection in list(self.connections):
            _hang_up(connection)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):  # a client's hanging up
            self.responder.broke(error)


class _Handler(BaseHTTPRequestHandler):
    """One connection. It is an Exchange: what a fault plays on."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave in one packet
    disable_nagle_algorithm = True
    server: Listener

    def do_GET(self) -> None:
        self._exchange()

    def do_POST(self) -> None:
        self._exchange()

    def do_PUT(self) -> None:
        self._exchange()

    def do_PATCH(self) -> None:
        self._exchange()

    def do_DELETE(self) -> None:
        self._exchange()

    @property
    def release(self) -> str:
        return self.server.db.release

    def answer(self) -> Answer:
        return self.server.responder.answer(self._call)

    def send(self, answer: Answer) -> None:
        self._head(answer)
        self.wfile.write(answer.body)

    def send_part(self, answer: Answer) -> None:
        self._head(answer)
        self.wfile.write(answer.body[: len(answer.body) // 2])
        self.wfile.flush()
        self.hang_up()

    def hang_up(self) -> None:
        self.close_connection = True
        _hang_up(self.connection)

    def wait(self, seconds: float) -> None:
        self.server.stopping.wait(seconds)

    def log_message(self, format: str, *args: Any) -> None:
        """Tests read `requests`, not a log."""

    def version_string(self) -> str:
        return "WSGIServer/0.2 CPython/3.11"

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The Date header tells the server's clock."""
        return format_datetime(self.server.db.clock.read(), usegmt=True)

    def _exchange(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._call = Call(
            db=self.server.db,
            method=self.command,
            path=parts.path,
            params=dict(parse_qsl(parts.query, keep_blank_values=True)),
            body=body,
            content_type=self.headers.get("Content-Type", ""),
            authorization=self.headers.get("Authorization", ""),
            base=f"http://{self.headers.get('Host')}",
        )
        self._request = Request(self.command, parts.path, self._call.params, len(body))
        fault = self.server.responder.note(self._request)
        if fault is None:
            self.send(self.answer())
        else:
            fault(self)

    def _head(self, answer: Answer) -> None:
        self._request.status = answer.status
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # the other side was first
        return
