"""Plain requests to Label Studio, for what label-studio-sdk 2.1.2 can't do or does wrongly.

Each method says what that is. Reads are retried if the server is busy or the connection breaks; a
POST is not, as it may have been carried out (only 429 says that it was not).
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ddiseg.errors import ServerError
from ddiseg.labelstudio.errors import connection_error, response_error

if TYPE_CHECKING:
    import requests

#: Major version of Label Studio that this client works with.
MAJOR = "1"

#: Seconds to wait for a connection, and for each part of a response.
TIMEOUT = (10.0, 120.0)

#: Retries of a read.
RETRIES = 3

#: A personal access token is exchanged for one that lives 300 s, renewed a little earlier.
BEARER_SECONDS = 240

#: Fields of a page of tasks: enough to see what changed, or with annotation results. The names of
#: nested fields share one list with those of the task.
_LIGHT = "id,updated_at,annotations"
_WHOLE = f"{_LIGHT},result,completed_by,updated_by,was_cancelled,lead_time,parent_prediction"

#: Keys per lookup: the query is part of the URL, which proxies limit to about 8 kB.
_KEYS_IN_A_QUERY = 100


class HttpClient:
    """Requests to one server with one token."""

    def __init__(
        self,
        url: str,
        token: str = "",
        *,
        direct: bool = False,
        timeout: float | None = None,
        retries: int = RETRIES,
    ) -> None:
        """Open a session.

        Args:
            direct: ignore proxies of the environment.
            timeout: seconds to wait for a connection and each part of a response, if not TIMEOUT.
        """
        self.url, self._timeout, self._token = url, timeout or TIMEOUT, token
        self._is_personal = token.count(".") == 2  # a JWT; a legacy token is plain hexadecimal
        self._bearer: tuple[str, float] | None = None
        self._session = _session(direct, retries)

    def __enter__(self) -> HttpClient:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self._session.close()

    def tasks(
        self,
        project: int,
        conditions: Sequence[dict[str, Any]],
        *,
        page: int,
        size: int,
        whole: bool,
    ) -> list[dict[str, Any]]:
        """Return a page of tasks, by the time of their last change; [] past the last page.

        `TasksClient.list` drops tasks that were only skipped, can't select fields (each task brings
        all its predictions) and treats the 404 past the last page as an error.
        """
        query = {**_all_of(conditions), "ordering": ["tasks:updated_at"]}
        include = _WHOLE if whole else _LIGHT
        return self._list(project, query, page=page, page_size=size, fields="all", include=include)

    def find_tasks(self, project: int, field: str, keys: Sequence[str]) -> dict[str, list[int]]:
        """Return the ids of tasks whose data has one of `keys` in `field`; several for duplicates.

        Label Studio removes no duplicates, and the SDK has no such filter: its `tasks.list` takes a
        query only as an undocumented string, and returns whole tasks.
        """
        found: dict[str, list[int]] = {}
        for start in range(0, len(keys), _KEYS_IN_A_QUERY):
            part = keys[start : start + _KEYS_IN_A_QUERY]
            query = _all_of([condition(f"data.{field}", "in_list", "List", list(part))])
            size = 10 * len(part)
            for task in self._list(project, query, page=1, page_size=size, include="id,data"):
                found.setdefault(str(task["data"].get(field)), []).append(int(task["id"]))
        return {key: sorted(ids) for key, ids in found.items()}

    def import_tasks(self, project: int, tasks: Sequence[bytes]) -> tuple[list[int], int]:
        """Create tasks with their predictions, each as JSON.

        The SDK repeats an import after a broken connection, though it may have been carried out,
        and walks over every number of every RLE in Python.

        Returns:
            The ids in the order given, and the number of predictions created.
        """
        answer = self._send(
            "POST",
            f"/api/projects/{project}/import",
            f"project {project}",
            params={"return_task_ids": "true"},
            data=b"[" + b",".join(tasks) + b"]",
            headers={"Content-Type": "application/json"},
        )
        numbers = [int(number) for number in _value(answer, "task_ids", list, self.url)]
        return numbers, int(answer.get("prediction_count") or 0)

    def upload(self, project: int, name: str, data: bytes) -> str:
        """Upload a picture without creating a task; returns its address for task data.

        The SDK's import takes JSON only.
        """
        answer = self._send(
            "POST",
            f"/api/projects/{project}/import",
            f"project {project}",
            params={"commit_to_project": "false"},
            files={"file": (name, data, "image/png")},
        )
        number = _value(answer, "file_upload_ids", list, self.url)[0]
        upload = self._send("GET", f"/api/import/file-upload/{number}", f"file {number}")
        return f"/data/{_value(upload, 'file', str, self.url)}"

    def views(self, project: int) -> list[dict[str, Any]]:
        """Return the tabs of a project. The SDK's model of a tab drops unknown keys."""
        answer = self._send(
            "GET", "/api/dm/views/", f"tabs of project {project}", params={"project": project}
        )
        return list(_checked(answer, list, self.url))

    def add_view(self, project: int, data: dict[str, Any]) -> int:
        """Create a tab; returns its id. The SDK's model of a tab has neither title nor columns."""
        answer = self._send(
            "POST",
            "/api/dm/views/",
            f"tabs of project {project}",
            json={"project": project, "data": data},
        )
        return int(_value(answer, "id", int, self.url))

    def change_view(self, number: int, data: dict[str, Any]) -> None:
        """Replace a tab's title, columns and filters. The SDK's model has none of them."""
        self._send("PATCH", f"/api/dm/views/{number}/", f"tab {number}", json={"data": data})

    def server_time(self) -> str | None:
        """Return the server's time, ISO 8601 in UTC to the second; None if it does not send it."""
        from email.utils import parsedate_to_datetime

        response = self._request("GET", "/health", "health", auth=_unsigned)
        date = response.headers.get("Date")
        return parsedate_to_datetime(date).strftime("%Y-%m-%dT%H:%M:%S") if date else None

    def version(self) -> str:
        """Return the server's version; the request carries no token.

        Raises:
            ServerError: it is no Label Studio, or one of another major version.
        """
        try:
            release = self.get("/api/version", "its version", signed=False).get("release")
        except ServerError as error:
            if error.status != 404:
                raise
            release = None
        if not isinstance(release, str):
            raise ServerError(
                f"{self.url} is no Label Studio, as it tells no version: give the address as in the "
                "browser, up to /projects"
            )
        if release.split(".")[0] != MAJOR:
            raise ServerError(
                f"{self.url} is Label Studio {release}, and this ddiseg works with {MAJOR}.x: "
                "connect another server, or upgrade ddiseg"
            )
        return release

    def user(self) -> str:
        """Return the e-mail address of the token's owner."""
        what = "the token's owner"
        return str(_value(self.get("/api/current-user/whoami", what), "email", str, self.url))

    def get(self, path: str, what: str, *, signed: bool = True) -> dict[str, Any]:
        """Return a JSON object."""
        return dict(_checked(self._send("GET", path, what, signed=signed), dict, self.url))

    def authorization(self) -> str:
        """Return the header that signs a request; a personal access token is exchanged first."""
        if not self._is_personal:
            return f"Token {self._token}"
        bearer = self._bearer
        if bearer is None or bearer[1] < time.monotonic():
            answer = self._send(
                "POST",
                "/api/token/refresh/",
                "the access token",
                signed=False,
                json={"refresh": self._token},
            )
            access = _value(answer, "access", str, self.url)
            bearer = self._bearer = (access, time.monotonic() + BEARER_SECONDS)
        return f"Bearer {bearer[0]}"

    def renews(self) -> bool:
        """Whether a request can be repeated with a new access token after a 401."""
        self._bearer = None
        return self._is_personal

    def _list(self, project: int, query: dict[str, Any], **params: Any) -> list[dict[str, Any]]:
        """Return a page of the task list; [] past the last page."""
        params |= {"project": project, "query": json.dumps(query)}
        what = f"tasks of project {project}"
        answer = self._send("GET", "/api/tasks", what, pages=True, params=params)
        return list(_value(answer, "tasks", list, self.url))

    def _send(
        self,
        method: str,
        path: str,
        what: str,
        *,
        signed: bool = True,
        pages: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Return the JSON of a response; with `pages`, 404 past the last page is an empty page."""
        kwargs["auth"] = self._sign if signed else _unsigned
        response = self._request(method, path, what, **kwargs)
        if signed and response.status_code == 401 and self.renews():
            response = self._request(method, path, what, **kwargs)
        if pages and response.status_code == 404 and "Invalid page" in response.text:
            return {"tasks": []}
        try:
            if response.status_code < 300:
                return response.json()
        except ValueError:
            pass
        raise response_error(
            self.url,
            what,
            response.status_code,
            response.text,
            signed=signed or path.startswith("/api/token"),
            location=response.headers.get("Location", ""),
        )

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # As `auth`, not as a header: requests replaces headers by what ~/.netrc has for the host.
        request.headers["Authorization"] = self.authorization()
        return request

    def _request(self, method: str, path: str, what: str, **kwargs: Any) -> requests.Response:
        import requests

        try:
            # Follow no redirect: the token is meant for this server only.
            return self._session.request(
                method, self.url + path, timeout=self._timeout, allow_redirects=False, **kwargs
            )
        except requests.RequestException as error:
            raise connection_error(self.url, what, error, sent=method != "GET") from error


def as_json(content: Any) -> bytes:
    """Encode JSON without blanks, of which an RLE would have thousands."""
    return json.dumps(content, separators=(",", ":")).encode()


def condition(column: str, operator: str, kind: str, value: Any) -> dict[str, Any]:
    """Return a filter of the task list; a task without a value in `column` never passes."""
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


def _all_of(conditions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"filters": {"conjunction": "and", "items": list(conditions)}}


def _session(direct: bool, retries: int) -> requests.Session:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    class RetryReads(Retry):
        def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
            # Only 429 says that a POST, too, was not carried out.
            return status_code == 429 or super().is_retry(method, status_code, has_retry_after)

    session = requests.Session()
    session.trust_env = not direct
    policy = RetryReads(
        total=retries,
        backoff_factor=0.3,
        status_forcelist=(500, 502, 503, 504),
        allowed_methods=("GET",),
        respect_retry_after_header=True,
        retry_after_max=60,
        raise_on_status=False,
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=policy))
    return session


def _unsigned(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Send no credentials, not even those of ~/.netrc."""
    return request


def _checked(answer: Any, kind: type, url: str) -> Any:
    if not isinstance(answer, kind):
        name = "list" if kind is list else "object"
        raise ServerError(
            f"{url} answered with something else than a JSON {name}: is it Label Studio?"
        )
    return answer


def _value(answer: Any, key: str, kind: type, url: str) -> Any:
    if not isinstance(answer, dict) or not isinstance(answer.get(key), kind):
        raise ServerError(f"{url} answered without '{key}': is this Label Studio 1.x?")
    return answer[key]
