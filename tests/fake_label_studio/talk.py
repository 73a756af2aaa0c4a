"""Talking to a server over plain HTTP, and keeping what can be compared between two servers."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

#: What each server has of its own under these keys is not looked at.
_OWN = ("data", "data_columns", "found_formats", "label-studio-os-backend", "lsf", "dm2")


@dataclass
class Talk:
    """A server, and what it has answered so far, in a form that two servers can share."""

    url: str
    token: str
    heard: list[list[Any]] = field(default_factory=list)
    status: int = 0  #: of the last answer

    def ask(
        self,
        method: str,
        path: str,
        json_body: Any = None,
        *,
        files: dict[str, bytes] | None = None,
        authorization: str | None = None,
        **params: Any,
    ) -> Any:
        """Send a request; keep its status and the keys of its answer; return the answer."""
        headers = {"Authorization": authorization or f"Token {self.token}"}
        body = None
        if json_body is not None:
            body, headers["Content-Type"] = json.dumps(json_body).encode(), "application/json"
        elif files is not None:
            body, headers["Content-Type"] = _multipart(files)
        query = f"?{urlencode(params)}" if params else ""
        request = Request(self.url + path + query, body, headers, method=method)
        try:
            with urlopen(request, timeout=60) as response:
                self.status, text = response.status, response.read()
        except HTTPError as error:
            with error:
                self.status, text = error.code, error.read()
        answer = _read(text)
        place = re.sub(r"\d+(/[0-9a-f]{8}-)?", "#", path)
        self.heard.append([f"{method} {place}", self.status, keys(answer)])
        return answer

    def hear(self, label: str, value: Any) -> None:
        """Keep something that was worked out from the answers."""
        self.heard.append([label, value])


def filters(*conditions: tuple[str, str, str, Any], together: str = "and") -> dict[str, Any]:
    """The filters of a query or tab, each as (column, operator, type, value)."""
    items = [
        {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}
        for column, operator, kind, value in conditions
    ]
    return {"conjunction": together, "items": items}


def keys(value: Any) -> str:
    """The keys of an answer, all the way down, of a list those of its first entry; ? is null.

    >>> keys({"id": 1, "score": None, "tasks": [{"id": 2}, {"id": 3}]})
    '{id score? tasks[{id}]}'
    """
    if isinstance(value, dict):
        shown = (key + ("" if key in _OWN else keys(value[key])) for key in sorted(value))
        return f"{{{' '.join(shown)}}}"
    if isinstance(value, list):
        return f"[{keys(value[0]) if value else ''}]"
    return "?" if value is None else ""


def _multipart(files: dict[str, bytes]) -> tuple[bytes, str]:
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + content
        + b"\r\n"
        for name, content in files.items()
    ]
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"


def _read(text: bytes) -> Any:
    """JSON; "page" for a web page; else the bytes."""
    try:
        return json.loads(text)
    except ValueError:
        return "page" if b"<!doctype html>" in text[:200].lower() else text
