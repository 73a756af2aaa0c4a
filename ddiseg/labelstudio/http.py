"""Plain requests to Label Studio, for what label-studio-sdk 2.1.2 cannot do or does wrongly.

Each method says what that is. Reads are tried again where the server is busy or the line breaks;
a POST never is, as it may have happened (only 429 says that it has not).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ddiseg.errors import ServerError
from ddiseg.labelstudio.errors import connection_error, response_error

if TYPE_CHECKING:
    import requests

#: Seconds to wait for a connection, and for each part of an answer.
TIMEOUT = (10, 120)

#: A personal access token buys a token that lives 300 s; it is renewed a little earlier.
BEARER_SECONDS = 240

#: What a page of tasks carries: the lightest form that shows what changed, and the annotations whole.
#: The names of nested fields share one list with those of the task.
_LIGHT = "id,updated_at,annotations"
_WHOLE = f"{_LIGHT},result,completed_by,updated_by,was_cancelled,lead_time,parent_prediction"

#: Keys in one lookup: the query travels in the URL, which proxies cut at about 8 kB.
_KEYS_IN_A_QUERY = 100


class HttpClient:
    """One server, one token."""

    def __init__(self, url: str, token: str, *, direct: bool = False) -> None:
        """With `direct`, no proxy that the environment names stands in between."""
        self.url = url
        self._token = token
        self._is_personal = token.count(".") == 2  # a JWT; a legacy token is plain hexadecimal
        self._bearer: tuple[str, float] | None = None
        self._session = _session(direct)

    def close(self) -> None:
        self._session.close()

    def tasks(
        self, project: int, query: Sequence[dict[str, Any]], *, page: int, size: int, whole: bool
    ) -> list[dict[str, Any]]:
        """A page of tasks, by the time of their last change; [] past the last.

        `TasksClient.list` drops tasks that were only skipped, cannot choose fields (so each task
        brings all its predictions) and takes the 404 past the last page for an error.
        """
        answer = self._send(
            "GET",
            "/api/tasks",
            f"tasks of project {project}",
            pages=True,
            params={
                "project": project,
                "page": page,
                "page_size": size,
                "fields": "all",
                "include": _WHOLE if whole else _LIGHT,
                "query": json.dumps(
                    {
                        "filters": {"conjunction": "and", "items": list(query)},
                        "ordering": ["tasks:updated_at"],
                    }
                ),
            },
        )
        return _list_in(answer, "tasks", self.url)

    def find_tasks(self, project: int, field: str, keys: Sequence[str]) -> dict[str, list[int]]:
        """The numbers of the tasks whose data has one of `keys` in `field`; several where doubled.

        Label Studio dedupes nothing, and the SDK has no such filter: its `tasks.list` takes a
        query only as an undocumented string and then returns whole tasks.
        """
        found: dict[str, list[int]] = {}
        for start in range(0, len(keys), _KEYS_IN_A_QUERY):
            part = keys[start : start + _KEYS_IN_A_QUERY]
            condition = {
                "filter": f"filter:tasks:data.{field}",
                "operator": "in_list",
                "type": "List",
                "value": list(part),
            }
            answer = self._send(
                "GET",
                "/api/tasks",
                f"tasks of project {project}",
                pages=True,
                params={
                    "project": project,
                    "page": 1,
                    "page_size": 10 * len(part),
                    "include": "id,data",
                    "query": json.dumps({"filters": {"conjunction": "and", "items": [condition]}}),
                },
            )
            for task in _list_in(answer, "tasks", self.url):
                found.setdefault(str(task["data"].get(field)), []).append(int(task["id"]))
        return {key: sorted(ids) for key, ids in found.items()}

    def import_tasks(self, project: int, tasks: Sequence[bytes]) -> tuple[list[int], int]:
        """Create tasks with their predictions, each as JSON.

        Returns their numbers in the order given, and how many were painted.

        The SDK sends an import again after a broken connection, though it may have happened, and
        walks over every number of every RLE in Python before it sends it.
        """
        answer = self._send(
            "POST",
            f"/api/projects/{project}/import",
            f"project {project}",
            params={"return_task_ids": "true"},
            data=b"[" + b",".join(tasks) + b"]",
            headers={"Content-Type": "application/json"},
        )
        numbers = [int(number) for number in _list_in(answer, "task_ids", self.url)]
        return numbers, int(answer.get("prediction_count") or 0)

    def upload(self, project: int, name: str, data: bytes) -> str:
        """Put a picture on the server without making a task; returns where tasks find it.

        The SDK's import takes JSON only.
        """
        answer = self._send(
            "POST",
            f"/api/projects/{project}/import",
            f"project {project}",
            params={"commit_to_project": "false"},
            files={"file": (name, data, "image/png")},
        )
        number = _list_in(answer, "file_upload_ids", self.url)[0]
        upload = self._send("GET", f"/api/import/file-upload/{number}", f"file {number}")
        return f"/data/{_value(upload, 'file', str, self.url)}"

    def views(self, project: int) -> list[dict[str, Any]]:
        """The tabs of a project's data manager. The SDK's model of a tab drops what it doesn't know."""
        answer = self._send(
            "GET", "/api/dm/views/", f"tabs of project {project}", params={"project": project}
        )
        return _list(answer, self.url)

    def add_view(self, project: int, data: dict[str, Any]) -> int:
        """Make a tab; returns its number. The SDK's model of a tab knows neither title nor columns."""
        answer = self._send(
            "POST",
            "/api/dm/views/",
            f"tabs of project {project}",
            json={"project": project, "data": data},
        )
        return int(_value(answer, "id", int, self.url))

    def change_view(self, number: int, data: dict[str, Any]) -> None:
        """Replace a tab's title, columns and filters. The SDK's model of a tab knows none of them."""
        self._send("PATCH", f"/api/dm/views/{number}/", f"tab {number}", json={"data": data})

    def server_time(self) -> str | None:
        """The server's clock, ISO in UTC to the second; None where it does not say."""
        from email.utils import parsedate_to_datetime

        response = self._request("GET", "/health", "health")
        date = response.headers.get("Date")
        return parsedate_to_datetime(date).strftime("%Y-%m-%dT%H:%M:%S") if date else None

    def authorization(self) -> str:
        """The header that signs a request; a personal access token is exchanged for one that does."""
        if not self._is_personal:
            return f"Token {self._token}"
        bearer = self._bearer
        if bearer is None or bearer[1] < time.monotonic():
            what = "the access token"
            response = self._request(
                "POST", "/api/token/refresh/", what, json={"refresh": self._token}
            )
            try:
                access = response.json()["access"]
            except (ValueError, LookupError, TypeError) as error:
                raise response_error(self.url, what, response.status_code, response.text) from error
            bearer = self._bearer = (access, time.monotonic() + BEARER_SECONDS)
        return f"Bearer {bearer[0]}"

    def renews(self) -> bool:
        """After 401, which says that nothing was done: whether another access token can be had."""
        self._bearer = None
        return self._is_personal

    def _send(
        self, method: str, path: str, what: str, *, pages: bool = False, **kwargs: Any
    ) -> Any:
        """The JSON of an answer; with `pages`, 404 past the last is one without tasks."""
        response = self._request(method, path, what, auth=self._sign, **kwargs)
        if response.status_code == 401 and self.renews():
            response = self._request(method, path, what, auth=self._sign, **kwargs)
        if pages and response.status_code == 404 and "Invalid page" in response.text:
            return {"tasks": []}
        if response.status_code >= 300:
            raise response_error(self.url, what, response.status_code, response.text)
        try:
            return response.json()
        except ValueError as error:
            raise response_error(self.url, what, response.status_code, response.text) from error

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # As `auth`, not as a header: that one gives way to what ~/.netrc says of the host.
        request.headers["Authorization"] = self.authorization()
        return request

    def _request(self, method: str, path: str, what: str, **kwargs: Any) -> requests.Response:
        import requests

        try:
            return self._session.request(
                method, self.url + path, timeout=TIMEOUT, allow_redirects=False, **kwargs
            )
        except requests.RequestException as error:
            raise connection_error(self.url, what, error, sent=method != "GET") from error


def as_json(content: Any) -> bytes:
    """JSON without blanks, of which an RLE would have thousands."""
    return json.dumps(content, separators=(",", ":")).encode()


def changed_since(since: str | None) -> Iterator[dict[str, Any]]:
    """The condition that a task changed after `since`, the server's time; none for all tasks."""
    if since is not None:
        yield {
            "filter": "filter:tasks:updated_at",
            "operator": "greater",
            "type": "Datetime",
            "value": since,
        }


def numbered(numbers: Sequence[int]) -> dict[str, Any]:
    """The condition that a task is one of these."""
    return {
        "filter": "filter:tasks:id",
        "operator": "in_list",
        "type": "List",
        "value": list(numbers),
    }


def _session(direct: bool) -> requests.Session:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    class Again(Retry):
        def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
            # 429 alone says of a POST, too, that it has not happened.
            return status_code == 429 or super().is_retry(method, status_code, has_retry_after)

    session = requests.Session()
    session.trust_env = not direct
    again = Again(
        total=3,
        backoff_factor=0.3,
        status_forcelist=(500, 502, 503, 504),
        allowed_methods=("GET",),
        respect_retry_after_header=True,
        retry_after_max=60,
        raise_on_status=False,
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=again))
    return session


def _list(answer: Any, url: str) -> list[Any]:
    if not isinstance(answer, list):
        raise ServerError(f"{url} answered something else than a list: is this Label Studio 1.x?")
    return answer


def _list_in(answer: Any, key: str, url: str) -> list[Any]:
    return list(_value(answer, key, list, url))


def _value(answer: Any, key: str, kind: type, url: str) -> Any:
    if not isinstance(answer, dict) or not isinstance(answer.get(key), kind):
        raise ServerError(f"{url} answered without '{key}': is this Label Studio 1.x?")
    return answer[key]
