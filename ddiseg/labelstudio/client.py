"""Client of Label Studio: label-studio-sdk, and `plain` for what the SDK can't do.

The SDK retries every request on errors and broken connections; this client retries only reads.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ddiseg.errors import ServerError
from ddiseg.labelstudio.connection import Connection
from ddiseg.labelstudio.errors import connection_error, response_error
from ddiseg.labelstudio.http import TIMEOUT, HttpClient

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True)
class RemoteProject:
    """A project on the server."""

    id: int
    title: str
    description: str
    config: str  #: the labelling configuration, XML


@dataclass(frozen=True)
class RemoteBackend:
    """An ML backend on the server."""

    id: int
    title: str
    url: str


@dataclass(frozen=True)
class RemoteWebhook:
    """A webhook on the server; its address may hold a secret."""

    id: int
    url: str = field(repr=False)
    headers: dict[str, str]  #: sent with each request


class Client:
    """Client of one server. Every method raises a one-line ServerError if a request fails."""

    def __init__(self, connection: Connection) -> None:
        import httpx
        from label_studio_sdk import LabelStudio

        self.url = connection.url
        self.plain = HttpClient(connection.url, connection.token, direct=connection.embedded)
        # The SDK would tell the age of an access token by this machine's clock.
        self._httpx = httpx.Client(auth=_signature(self.plain), trust_env=not connection.embedded)
        self._sdk = LabelStudio(
            base_url=connection.url,
            api_key="replaced",
            timeout=float(TIMEOUT[1]),
            httpx_client=self._httpx,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_error: object) -> None:
        self._httpx.close()
        self.plain.close()

    def check_version(self) -> str:
        """Return the server's version; raises ServerError if it is another major one."""
        return self.plain.version()

    def users(self) -> dict[int, str]:
        """Return the e-mail addresses of all users, by id."""
        with self._translated_errors("its users"):
            return {int(user.id): str(user.email) for user in self._sdk.users.list()}

    def project(self, number: int) -> RemoteProject:
        with self._translated_errors(f"project {number}"):
            return _project(self._sdk.projects.get(number))

    def find_projects(self, mark: str) -> list[RemoteProject]:
        """Return projects with `mark` in the configuration, or (of older versions) the description."""
        with self._translated_errors("its projects"):
            found = [_project(project) for project in self._sdk.projects.list()]
            return [p for p in found if mark in p.config or mark in p.description]

    def create_project(self, **settings: Any) -> RemoteProject:
        with self._translated_errors("a new project"):
            made = self._sdk.projects.create(**settings, request_options=_ONCE)
            return self.project(int(made.id))

    def update_project(self, number: int, **settings: Any) -> None:
        with self._translated_errors(f"project {number}"):
            self._sdk.projects.update(number, **settings, request_options=_ONCE)

    def storage_paths(self, project: int) -> set[str]:
        """Return the folders from which a project may show pictures."""
        with self._translated_errors(f"storages of project {project}"):
            return {str(s.path) for s in self._sdk.import_storage.local.list(project=project)}

    def add_storage(self, project: int, path: str, title: str) -> None:
        """Let a project show pictures of a folder, without importing them as tasks."""
        with self._translated_errors(f"storages of project {project}"):
            self._sdk.import_storage.local.create(
                project=project,
                path=path,
                title=title,
                use_blob_urls=True,
                regex_filter="(?!)",  # matches nothing, so that "Sync" adds no tasks
                request_options=_ONCE,
            )

    def set_data(self, number: int, **values: str) -> bool:
        """Change keys of the task data; returns False if the task was deleted on the server."""
        try:
            with self._translated_errors(f"task {number}"):
                before = self._sdk.tasks.get(str(number)).data
                data = {**before, **values}
                if data != before:
                    self._sdk.tasks.update(str(number), data=data, request_options=_ONCE)
        except ServerError as error:
            if error.status != 404:
                raise
            return False
        return True

    def has_work(self, number: int) -> bool:
        """Whether a person has submitted, skipped or begun a task."""
        with self._translated_errors(f"task {number}"):
            task = self._sdk.tasks.get(str(number))
            # `drafts` lists only those of the token's owner.
            return bool(task.annotations or task.draft_exists)

    def set_readers(self, number: int, readers: int) -> bool:
        """Raise the number of annotators of a task, even a completed one; returns whether it changed."""
        with self._translated_errors(f"task {number}"):
            task = self._sdk.tasks.get(str(number))
            if (task.overlap or 1) >= readers:
                return False
            # The server does not update by itself whether a task is completed.
            done = (task.total_annotations or 0) >= readers
            self._sdk.tasks.update(
                str(number), overlap=readers, is_labeled=done, request_options=_ONCE
            )
            return True

    def delete_task(self, number: int) -> None:
        with self._translated_errors(f"task {number}"):
            self._sdk.tasks.delete(str(number))

    def predictions(self, task: int) -> dict[int, list[str]]:
        """Return the region ids of each prediction of a task, by the prediction's id."""
        with self._translated_errors(f"predictions of task {task}"):
            return {
                int(p.id): [str(r.get("id")) for r in p.result or []]
                for p in self._sdk.predictions.list(task=task)
            }

    def add_prediction(self, task: int, prediction: dict[str, Any]) -> None:
        with self._translated_errors(f"predictions of task {task}"):
            self._sdk.predictions.create(task=task, **prediction, request_options=_ONCE)

    def delete_prediction(self, number: int) -> None:
        with self._translated_errors(f"prediction {number}"):
            self._sdk.predictions.delete(number)

    def backends(self, project: int) -> list[RemoteBackend]:
        """Return a project's ML backends, oldest first; the server checks the health of each."""
        with self._translated_errors(f"ML backends of project {project}"):
            found = self._sdk.ml.list(project=project)
            return [RemoteBackend(int(b.id), str(b.title), str(b.url)) for b in found]

    def add_backend(
        self, project: int, title: str, url: str, user: str, password: str, *, timeout: float
    ) -> int:
        """Connect a project with an ML backend; returns the backend's id.

        The server checks its health at once, and creates a webhook `url`/webhook for all actions of
        the project, which sends no credentials. `timeout` is in seconds, for predictions.
        """
        with self._translated_errors(f"the ML backend at {url}"):
            made = self._sdk.ml.create(
                project=project,
                title=title,
                url=url,
                is_interactive=True,
                auth_method="BASIC_AUTH",
                basic_auth_user=user,
                basic_auth_pass=password,
                timeout=timeout,
                request_options=_ONCE,
            )
            return int(made.id)

    def delete_backend(self, number: int) -> None:
        """Delete an ML backend.

        Its webhook stays; `shown_predictions` becomes "" if it was the backend's title.
        """
        with self._translated_errors(f"ML backend {number}"):
            self._sdk.ml.delete(number, request_options=_ONCE)

    def shown_predictions(self, project: int) -> str:
        """Return the version of predictions (or backend title) that a project shows; "" for none."""
        with self._translated_errors(f"project {project}"):
            return self._sdk.projects.get(project).model_version or ""

    def webhooks(self, project: int) -> list[RemoteWebhook]:
        """Return a project's webhooks, oldest first."""
        with self._translated_errors(f"webhooks of project {project}"):
            found = self._sdk.webhooks.list(project=str(project))
            return [RemoteWebhook(int(w.id), str(w.url), dict(w.headers or {})) for w in found]

    def add_webhook(
        self, project: int, url: str, actions: Sequence[str], headers: Mapping[str, str]
    ) -> int:
        """Create a webhook of a project for these actions; returns its id."""
        with self._translated_errors(f"webhooks of project {project}"):
            made = self._sdk.webhooks.create(
                project=project,
                url=url,
                actions=list(actions),
                headers=dict(headers),
                send_for_all_actions=False,
                send_payload=True,
                request_options=_ONCE,
            )
            return int(made.id)

    def delete_webhook(self, number: int) -> None:
        with self._translated_errors(f"webhook {number}"):
            self._sdk.webhooks.delete(number, request_options=_ONCE)

    @contextmanager
    def _translated_errors(self, what: str) -> Iterator[None]:
        """Translate the SDK's exceptions to one-line ServerErrors."""
        import httpx
        from label_studio_sdk.core.api_error import ApiError
        from pydantic import ValidationError

        try:
            yield
        except ApiError as error:
            body = (
                error.body if isinstance(error.body, str) else json.dumps(error.body, default=str)
            )
            raise response_error(self.url, what, error.status_code or 0, body) from error
        except httpx.HTTPError as error:
            sent = error.request.method != "GET"
            raise connection_error(self.url, what, error, sent=sent) from error
        except (ValidationError, ValueError, AttributeError, TypeError) as error:
            raise response_error(self.url, what, 200, "") from error


def _signature(plain: HttpClient) -> httpx.Auth:
    """Return an httpx auth that signs like the plain requests, and renews an expired token once."""
    import httpx

    class Signature(httpx.Auth):
        def auth_flow(
            self, request: httpx.Request
        ) -> Generator[httpx.Request, httpx.Response, None]:
            request.headers["Authorization"] = plain.authorization()
            response = yield request
            if response.status_code == 401 and plain.renews():
                request.headers["Authorization"] = plain.authorization()
                yield request

    return Signature()


#: A POST that may have happened is never sent again.
_ONCE: Any = {"max_retries": 0}


def _project(found: Any) -> RemoteProject:
    return RemoteProject(
        int(found.id), found.title or "", found.description or "", found.label_config or ""
    )
