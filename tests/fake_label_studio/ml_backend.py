"""An ML backend that says that it is well: what a server tries before it connects one."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class MLBackend:
    """A context manager: open on 127.0.0.1 for who brings USER and PASSWORD."""

    USER, PASSWORD = "ddiseg", "pass-of-the-backend"
    VERSION = "ddiseg"  #: what it calls its predictions

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        """Be down; nobody answers at `url` any more."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()


_EXPECTED = "Basic " + base64.b64encode(f"{MLBackend.USER}:{MLBackend.PASSWORD}".encode()).decode()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer({"status": "UP"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer({"model_version": MLBackend.VERSION})

    def log_message(self, format: str, *args: object) -> None:
        """Tests read no log."""

    def _answer(self, content: dict[str, str]) -> None:
        known = self.headers.get("Authorization") == _EXPECTED
        body = json.dumps(content if known else {"detail": "wrong credentials"}).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
