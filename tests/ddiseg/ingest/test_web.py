"""Files of a web server: a real one on the loopback, which misbehaves as it is told."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from syrupy.assertion import SnapshotAssertion

from ddiseg.errors import InputError
from ddiseg.ingest import web
from ddiseg.ingest.photographs import PhotographImport, import_photographs
from ddiseg.ingest.source import open_list, open_source, photograph_facts
from ddiseg.outcomes import Outcome
from ddiseg.workspace.workspace import Workspace
from tests.wording import Refusal


@dataclass
class Site:
    """A web server: what it answers by path, and what it was asked."""

    url: str = ""
    files: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.site.asked.append(f"{self.command} {self.path}")
        found = self.site.files.get(path, 404)
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        if isinstance(found, int):
            self.send_response(found)
            self.end_headers()
            return
        if isinstance(found, str):
            self.send_response(302)
            self.send_header("Location", found)
            self.end_headers()
            return
        data, length = found if isinstance(found, tuple) else (found, len(found))
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.send_header("Last-Modified", "Sat, 28 Nov 2026 20:00:00 GMT")
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    served = Site()
    handler = type("Handler", (_Handler,), {"site": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr("ddiseg.ingest.web.time.sleep", lambda _seconds: None)
    web.forget_hosts()
    yield served
    server.shutdown()
    server.server_close()


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def imported(workspace: Workspace, place: Path | str) -> PhotographImport:
    with open_source(workspace, place, photograph_facts) as source:
        return import_photographs(workspace, open_list(source, place))


def test_fetch(site: Site) -> None:
    site.files = {"/a.png": b"data", "/moved": "/a.png"}
    found = web.fetch(f"{site.url}/moved?sig=1")
    assert found.data == b"data"
    assert found.modified_ns == 1795896000 * 10**9


@pytest.mark.parametrize("first", [503, 429, (b"half", 99)], ids=["busy", "too often", "half body"])
def test_fetch__passing_fault(site: Site, first: Any) -> None:
    site.files = {"/a.png": [first, b"data"]}
    assert web.fetch(f"{site.url}/a.png").data == b"data"


@pytest.mark.parametrize(
    "answer",
    [404, 403, 500, 418, (b"half", 99), b"<!DOCTYPE html><p>Log in</p>", "/a.png", "http://example.org/a.png"],
    ids=["missing", "denied", "fails", "odd", "half body", "web page", "circle", "to plain http"],
)  # fmt: skip
def test_fetch__refused(site: Site, answer: Any, refusal: Refusal) -> None:
    site.files = {"/a.png": answer}
    with refusal(InputError):
        web.fetch(f"{site.url}/a.png")


def test_fetch__too_large(site: Site, refusal: Refusal) -> None:
    site.files = {"/a.png": b"12345678"}
    with refusal(InputError):
        web.fetch(f"{site.url}/a.png", max_bytes=4)


def test_fetch__host_that_is_down(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    once = web._fetch_once
    monkeypatch.setattr(web, "_fetch_once", lambda *a: (tried.append(a), once(*a))[1])
    for number in range(6):
        with pytest.raises(InputError, match="could not be reached"):
            web.fetch(f"http://127.0.0.1:1/{number}.png")
    assert len(tried) == web.DOWN_AFTER * web.TRIES
    site.files = {"/a.png": b"data"}
    assert web.fetch(f"{site.url}/a.png").data == b"data"


@pytest.mark.parametrize("url", ["http://example.org/a.png", "http://10.0.0.1/a.png"])
def test_fetch__not_encrypted(url: str) -> None:
    with pytest.raises(InputError, match="is not encrypted"):
        web.fetch(url)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://h/a.png\n# note\n\nb/c.png?sig=1\n", [("h/a.png", "https://h/a.png"), ("b/c.png", "https://base/x/b/c.png?sig=1")]),
        ("url\nhttps://h/a?id=1\n", [("h/a", "https://h/a?id=1")]),
        ("name,url\none.png,https://h/get?id=1\ntwo.png,s3://b/2.png\n", [("one.png", "https://h/get?id=1"), ("two.png", "s3://b/2.png")]),
    ],
)  # fmt: skip
def test_read_list(tmp_path: Path, text: str, expected: list[tuple[str, str]]) -> None:
    (tmp_path / "list.csv").write_text(text)
    found = web.read_list(tmp_path / "list.csv", "https://base/x/list.csv")
    assert [(each.path, each.url) for each in found] == expected
    assert [each.fault for each in found] == [None] * len(found)


@pytest.mark.parametrize("text", ["", "file,tone\na.png,1\n", "url,name\n,a.png\n"])
def test_read_list__none(tmp_path: Path, text: str, refusal: Refusal) -> None:
    (tmp_path / "list.csv").write_text(text)
    with refusal(InputError):
        web.read_list(tmp_path / "list.csv", None)


def test_import__list(
    workspace: Workspace, site: Site, pixels: Any, wording: SnapshotAssertion
) -> None:
    lines = ["a.png?X-Amz-Signature=SECRET", "b", "gone.png", "page", "x.png?id=1", "x.png?id=2"]
    site.files = {
        "/list.txt": "\n".join(lines).encode(),
        "/a.png": png(pixels(1)),
        "/b": png(pixels(2)),
        "/page": b"<html>Log in</html>",
    }
    done = imported(workspace, f"{site.url}/list.txt?token=SECRET")
    assert [(o.name, o.outcome, o.note) for o in done.outcomes] == wording
    assert done.dataset == "list"
    [dataset] = workspace.catalogue.images.datasets()
    assert dataset.source == f"{site.url}/list.txt"
    files = [path for path in workspace.root.rglob("*") if path.is_file()]
    assert not any(b"SECRET" in path.read_bytes() for path in files)
    assert not list((workspace.root / "cache" / "sources").iterdir())
    site.asked.clear()
    again = imported(workspace, f"{site.url}/list.txt?token=SECRET")
    assert [o.outcome for o in again.outcomes][:2] == [Outcome.UNCHANGED] * 2
    assert "GET /b" not in site.asked  # known by its size and time


def test_import__list_of_this_machine(
    workspace: Workspace, site: Site, pixels: Any, tmp_path: Path
) -> None:
    site.files = {"/a.png": png(pixels(1))}
    (tmp_path / "urls.csv").write_text(f"url,name\n{site.url}/a.png?sig=1,one.png\n")
    done = imported(workspace, tmp_path / "urls.csv")
    assert [(o.name, o.outcome) for o in done.outcomes] == [("one.png", Outcome.ADDED)]


def test_import__one_photograph(workspace: Workspace, site: Site, pixels: Any) -> None:
    site.files = {"/set/get": png(pixels(1))}
    done = imported(workspace, f"{site.url}/set/get?id=1")
    assert [(o.name, o.outcome) for o in done.outcomes] == [("get", Outcome.ADDED)]
    assert done.dataset == "set"


def test_import__web_page(workspace: Workspace, site: Site, refusal: Refusal) -> None:
    site.files = {"/": b"<html><a href=a.png>"}
    with refusal(InputError):
        imported(workspace, f"{site.url}/")
