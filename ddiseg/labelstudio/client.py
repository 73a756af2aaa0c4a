"""Label Studio through label-studio-sdk; what that can't do is in `plain`.

The SDK tries every request again on errors and broken connections; here only reads are.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ddiseg.errors import ServerError
from ddiseg.labelstudio.connection import Connection
from ddiseg.labelstudio.errors import connection_error, response_error
from ddiseg.labelstudio.first_contact import MAJOR
from ddiseg.labelstudio.http import TIMEOUT, HttpClient

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True)
class RemoteProject:
    """A project as the server has it."""

    id: int
    title: str
    description: str
    config: str  #: the labelling configuration, XML


@dataclass(frozen=True)
class RemoteBackend:
    """An ML backend as the server has it."""

    id: int
    title: str
    url: str


@dataclass(frozen=True)
class RemoteWebhook:
    """A webhook as the server has it; its address may hold a secret."""

    id: int
    url: str = field(repr=False)
    headers: dict[str, str]  #: what it sends along


class Client:
    """One server. Every method raises ServerError, one line, where it does not do as asked."""

    def __init__(self, connection: Connection) -> None:
        import httpx
        from label_studio_sdk import LabelStudio

        self.url = connection.url
        self.plain = HttpClient(connection.url, connection.token, direct=connection.embedded)
        # The SDK would judge by this machine's clock how long an access token lives.
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
        """The server's version; raises ServerError where it is another major one."""
        with self._told("its version"):
            release = str(self._sdk.versions.get().release)
        if release.split(".")[0] != MAJOR:
            raise ServerError(
                f"{self.url} is Label Studio {release}; this ddiseg speaks to {MAJOR}.x: "
                "upgrade ddiseg or connect another server"
            )
        return release

    def users(self) -> dict[int, str]:
        """E-mail address by number of everyone on the server."""
        with self._told("its users"):
            return {int(user.id): str(user.email) for user in self._sdk.users.list()}

    def project(self, number: int) -> RemoteProject:
        with self._told(f"project {number}"):
            return _project(self._sdk.projects.get(number))

    def find_projects(self, mark: str) -> list[RemoteProject]:
        """The projects whose configuration holds `mark`, or (made by older versions) the description."""
        with self._told("its projects"):
            found = [_project(project) for project in self._sdk.projects.list()]
            return [p for p in found if mark in p.config or mark in p.description]

    def create_project(self, **settings: Any) -> RemoteProject:
        with self._told("a new project"):
            made = self._sdk.projects.create(**settings, request_options=_ONCE)
            return self.project(int(made.id))

    def update_project(self, number: int, **settings: Any) -> None:
        with self._told(f"project {number}"):
            self._sdk.projects.update(number, **settings, request_options=_ONCE)

    def storage_paths(self, project: int) -> set[str]:
        """The folders that a project may show pictures from."""
        with self._told(f"storages of project {project}"):
            return {str(s.path) for s in self._sdk.import_storage.local.list(project=project)}

    def add_storage(self, project: int, path: str, title: str) -> None:
        """Let a project show pictures of a folder, without ever making tasks of them."""
        with self._told(f"storages of project {project}"):
            self._sdk.import_storage.local.create(
                project=project,
                path=path,
                title=title,
                use_blob_urls=True,
                regex_filter="(?!)",  # matches nothing: "Sync" adds no tasks
                request_options=_ONCE,
            )

    def set_data(self, number: int, **values: str) -> bool:
        """Change keys of a task's data, where they differ; False where the task was deleted there."""
        try:
            with self._told(f"task {number}"):
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
        """Whether people have submitted, skipped or begun a task."""
        with self._told(f"task {number}"):
            task = self._sdk.tasks.get(str(number))
            # `drafts` holds only those of the token's owner.
            return bool(task.annotations or task.draft_exists)

    def set_readers(self, number: int, readers: int) -> bool:
        """Let that many people annotate a task, a done one too; False where that many may already."""
        with self._told(f"task {number}"):
            task = self._sdk.tasks.get(str(number))
            if (task.overlap or 1) >= readers:
                return False
            # The server does not count anew by itself whether a task is done.
            done = (task.total_annotations or 0) >= readers
            self._sdk.tasks.update(
                str(number), overlap=readers, is_labeled=done, request_options=_ONCE
            )
            return True

    def delete_task(self, number: int) -> None:
        with self._told(f"task {number}"):
            self._sdk.tasks.delete(str(number))

    def predictions(self, task: int) -> dict[int, list[str]]:
        """The region ids of each prediction of a task, by the prediction's number."""
        with self._told(f"predictions of task {task}"):
            return {
                int(p.id): [str(r.get("id")) for r in p.result or []]
                for p in self._sdk.predictions.list(task=task)
            }

    def add_prediction(self, task: int, prediction: dict[str, Any]) -> None:
        with self._told(f"predictions of task {task}"):
            self._sdk.predictions.create(task=task, **prediction, request_options=_ONCE)

    def delete_prediction(self, number: int) -> None:
        with self._told(f"prediction {number}"):
            self._sdk.predictions.delete(number)

    def backends(self, project: int) -> list[RemoteBackend]:
        """A project's ML backends, oldest first; the server asks each of them how it is."""
        with self._told(f"ML backends of project {project}"):
            found = self._sdk.ml.list(project=project)
            return [RemoteBackend(int(b.id), str(b.title), str(b.url)) for b in found]

    def add_backend(
        self, project: int, title: str, url: str, user: str, password: str, *, timeout: float
    ) -> int:
        """Let a project ask an ML backend; returns its number there.

        The server tries at once whether it answers, and makes a webhook for everything that
        happens in the project, `url`/webhook, which brings no credentials. `timeout` is how many
        seconds it waits for predictions.
        """
        with self._told(f"the ML backend at {url}"):
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
        """Let nobody ask an ML backend any more.

        The webhook that came with it stays; `shown_predictions` becomes "" where that was its title.
        """
        with self._told(f"ML backend {number}"):
            self._sdk.ml.delete(number, request_options=_ONCE)

    def shown_predictions(self, project: int) -> str:
        """The version of predictions that a project shows, or its ML backend's title; "" for none."""
        with self._told(f"project {project}"):
            return self._sdk.projects.get(project).model_version or ""

    def webhooks(self, project: int) -> list[RemoteWebhook]:
        """A project's webhooks, oldest first."""
        with self._told(f"webhooks of project {project}"):
            found = self._sdk.webhooks.list(project=str(project))
            return [RemoteWebhook(int(w.id), str(w.url), dict(w.headers or {})) for w in found]

    def add_webhook(
        self, project: int, url: str, actions: Sequence[str], headers: Mapping[str, str]
    ) -> int:
        """Have a project tell `url` of these actions; returns the webhook's number there."""
        with self._told(f"webhooks of project {project}"):
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
        with self._told(f"webhook {number}"):
            self._sdk.webhooks.delete(number, request_options=_ONCE)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """What the SDK raises, as one line of ours."""
        import httpx
        from label_studio_sdk.core.api_error import ApiError
        from pydantic import ValidationError

        try:
            yield
        except ApiError as error:
            body = error.body if isinstance(error.body, str) else _json(error.body)
            raise response_error(self.url, what, error.status_code or 0, body) from error
        except httpx.HTTPError as error:
            raise connection_error(
                self.url, what, error, sent=error.request.method != "GET"
            ) from error
        except (ValidationError, ValueError, AttributeError, TypeError) as error:
            raise response_error(self.url, what, 200, "") from error


def _signature(plain: HttpClient) -> httpx.Auth:
    """Signs the SDK's requests as the plain ones are; a token that has run out is renewed once."""
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


def _json(body: Any) -> str:
    import json

    return json.dumps(body, default=str)
