"""From a request to the function that answers it, and how a refusal looks."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fake_label_studio.database import Database
    from tests.fake_label_studio.rows import User

JSON = "application/json"
HTML = "text/html; charset=utf-8"

#: What Django answers where no route is: a page of 170 kB in the real one.
NOT_FOUND_PAGE = (
    "<!doctype html>\n<html lang='en'>\n<head><title>404 | Label Studio</title></head>\n"
    "<body>Page not found</body>\n</html>\n"
)


@dataclass(frozen=True)
class Answer:
    """What goes back: status, body, type and further headers."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One request, read, on its way to the function that answers it."""

    db: Database
    method: str
    path: str
    params: dict[str, str]  #: the query; the last value where one is given twice
    body: bytes
    content_type: str
    authorization: str
    base: str  #: http://host:port
    user: User | None = None

    @property
    def by(self) -> User:
        """Who asks. Routes are closed to strangers unless they say otherwise."""
        assert self.user is not None
        return self.user

    @property
    def json(self) -> Any:
        """The body, read; raises RefusedError 400 where it is no JSON."""
        try:
            return json.loads(self.body) if self.body else {}
        except ValueError as error:
            raise RefusedError(400, f"JSON parse error - {error}") from error

    @property
    def fields(self) -> dict[str, Any]:
        """The body of a request that writes one row; raises RefusedError 400 where it is a list."""
        body = self.json
        if not isinstance(body, dict):
            text = f"Invalid data. Expected a dictionary, but got {type(body).__name__}."
            raise RefusedError.invalid("non_field_errors", text)
        return body

    def names(self, param: str) -> list[str]:
        """A parameter that lists names, with commas between."""
        return [name for name in self.params.get(param, "").split(",") if name]

    def flag(self, param: str, *, default: bool) -> bool:
        return self.params.get(param, str(default)).lower() in ("true", "1", "yes", "t")


class RefusedError(Exception):
    """The server answers with an error of its own, in JSON."""

    def __init__(
        self, status: int, detail: str, errors: Any = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors
        self.headers = headers or {}

    @classmethod
    def invalid(cls, key: str, text: Any) -> RefusedError:
        """400 for one field; "non_field_errors" for the whole."""
        return cls(400, "Validation error", {key: text if isinstance(text, list) else [text]})

    def answer(self, version: str) -> Answer:
        return error_answer(self.status, self.detail, version, self.errors, self.headers)


class CrashedError(RefusedError):
    """An exception that the real server does not catch: 500, with its text in the body."""

    def __init__(self, text: str) -> None:
        super().__init__(500, text)


class NoPageError(Exception):
    """404 as a page, not as JSON: no such route, or a view that asks Django and not the API."""


def error_answer(
    status: int,
    detail: str,
    version: str,
    errors: Any = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """An error in the real server's form."""
    body = {
        "id": str(uuid.uuid4()),
        "status_code": status,
        "version": version,
        "detail": detail,
        "exc_info": None,
    }
    if errors is not None:
        body["validation_errors"] = errors
    return json_answer(body, status, headers)


def json_answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return Answer(status, text.encode(), headers=headers or {})


def html_answer(body: str, status: int = 200) -> Answer:
    return Answer(status, body.encode(), HTML)


#: What the server calls a row of each table; None where an unknown number gets a page.
_MODELS = {
    "users": "User",
    "projects": "Project",
    "tasks": "Task",
    "annotations": "Annotation",
    "predictions": "Prediction",
    "tabs": "View",
    "webhooks": "Webhook",
    "backends": None,
    "uploads": None,
}


def find_row(db: Database, table: str, number: int) -> Any:
    """The row of a number; raises RefusedError 404 or NoPageError where there is none."""
    rows: dict[int, Any] = getattr(db, table)
    if number in rows:
        return rows[number]
    if (model := _MODELS[table]) is None:
        raise NoPageError
    raise RefusedError(404, f"No {model} matches the given query.")


@dataclass(frozen=True)
class Route:
    """A path, who may ask, and the function for each method, with the table of its row."""

    path: re.Pattern[str]
    methods: dict[str, tuple[Callable[..., Any], str]]
    open: bool

    def answer(self, call: Call, numbers: list[int]) -> Answer:
        """What a function returns is sent as JSON, None as 204."""
        if call.method not in self.methods:
            raise RefusedError(405, f'Method "{call.method}" not allowed.')
        function, table = self.methods[call.method]
        answer = function(
            call, *([find_row(call.db, table, n) for n in numbers] if table else numbers)
        )
        if isinstance(answer, Answer):
            return answer
        return Answer(204) if answer is None else json_answer(answer)


class Routes:
    """The routes of one part of the API, filled by the decorator `on`."""

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}

    def on(
        self,
        method: str,
        path: str,
        *,
        slash: str = "/?",
        open_to_all: bool = False,
        row: str = "",
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Let a function answer `method` on `path`, where `#` stands for a number it is given.

        With `row`, the name of a table, it is given the row of that number. `slash` is how the path ends: most routes of the real server take it with a slash and
        without, a few only one way.
        """

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            pattern = re.compile(path.replace("#", r"(\d+)") + slash)
            route = self._routes.setdefault(path, Route(pattern, {}, open_to_all))
            route.methods[method] = function, row
            return function

        return register

    def find(self, path: str) -> tuple[Route, list[int]] | None:
        """The route of a path, and the numbers in it."""
        for route in self._routes.values():
            if match := route.path.fullmatch(path):
                return route, [int(number) for number in match.groups()]
        return None
