"""Stands in for Label Studio's program, and without arguments for the script that makes accounts.

It does what ddiseg relies on, in a tenth of a second, and misbehaves as the file `behaviour` beside
it says. It runs by itself, with no package installed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

DATA = Path(os.environ["LABEL_STUDIO_BASE_DATA_DIR"])
ACCOUNTS = DATA / "accounts.json"
BEHAVIOUR = Path(__file__).with_name("behaviour")


class Server(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Token ")
        known = json.loads(ACCOUNTS.read_text()) if ACCOUNTS.exists() else []
        if self.path == "/health":
            self.answer(200, {"status": "UP"})
        elif behaviour == "takes anyone":
            self.answer(200, {"email": "someone@example.org"})
        elif who := [a["email"] for a in known if a["token"] == token]:
            self.answer(200, {"email": who[0]})
        else:
            self.answer(401, {"detail": "Invalid token."})

    def answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def start(host: str, port: int, behaviour: str) -> None:
    (DATA / "environment.json").write_text(json.dumps(dict(os.environ)))
    if behaviour == "dies":
        sys.exit("starting\nTraceback:\n\n  in migrate\nOperationalError: disk I/O error\n")
    if behaviour == "deaf":
        time.sleep(60)
    server = Server((host, 0 if behaviour == "moves" else port), Handler)
    sys.stdout.write(f"Starting development server at http://{host}:{server.server_port}/\n")
    server.serve_forever()


def make_accounts(behaviour: str) -> None:
    if behaviour == "no accounts":
        sys.exit("OperationalError: database is locked")
    if behaviour != "forgets":
        ACCOUNTS.write_text(sys.stdin.read())


behaviour = BEHAVIOUR.read_text() if BEHAVIOUR.exists() else ""
if sys.argv[1:2] == ["start"]:
    start(sys.argv[-3], int(sys.argv[-1]), behaviour)
else:
    make_accounts(behaviour)
