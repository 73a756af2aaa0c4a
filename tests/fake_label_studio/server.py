"""The server as tests hold it: its rows, the people on it, its faults."""

from __future__ import annotations

import fnmatch
import re
import secrets
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.fake_label_studio import (
    backends,
    data_manager,
    imports,
    people,
    projects,
    shapes,
    tasks,
    webhooks,
)
from tests.fake_label_studio.database import Database
from tests.fake_label_studio.faults import Fault
from tests.fake_label_studio.listener import Listener, Request
from tests.fake_label_studio.routing import (
    NOT_FOUND_PAGE,
    Answer,
    Call,
    NoPageError,
    RefusedError,
    Route,
    Routes,
    error_answer,
    html_answer,
)
from tests.fake_label_studio.rows import Prediction

_ROUTES: tuple[Routes, ...] = (
    people.routes,
    projects.routes,
    imports.routes,
    tasks.routes,
    data_manager.routes,
    backends.routes,
    webhooks.routes,
)


@dataclass
class _Trap:
    method: str
    path: re.Pattern[str]
    fault: Fault
    times: int | None
    skip: int

    def springs(self, request: Request) -> bool:
        """Whether the fault is for this request; counts it."""
        if self.times == 0 or self.method not in ("*", request.method):
            return False
        if not self.path.fullmatch(request.path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class FakeLabelStudio:
    """Label Studio 1.23.2 Community in this process, on 127.0.0.1, and the people who use it.

    A context manager. `users`, `projects`, `tasks`, `annotations`, `predictions`, `tabs`,
    `storages`, `uploads`, `backends`, `webhooks` are its rows by number. `token` is the
    administrator's legacy token, `pat` a personal access token. `version` is what it says it is.

    `document_root` is LOCAL_FILES_DOCUMENT_ROOT, in which storages must lie; None takes any.
    """

    def __init__(self, document_root: Path | None = None) -> None:
        self._db = Database(document_root)
        self._traps: list[_Trap] = []
        self._listener: Listener | None = None
        self._port = 0
        self._broken: list[BaseException] = []
        self.requests: list[Request] = []
        self.users = self._db.users
        self.projects = self._db.projects
        self.tasks = self._db.tasks
        self.annotations = self._db.annotations
        self.predictions = self._db.predictions
        self.tabs = self._db.tabs
        self.storages = self._db.storages
        self.uploads = self._db.uploads
        self.backends = self._db.backends
        self.webhooks = self._db.webhooks
        self.admin = self.add_user("admin@example.org")
        self.token = self.token_of(self.admin)
        self.pat = self._db.tokens.personal(self.users[self.admin], self._db.clock.read())

    def __enter__(self) -> FakeLabelStudio:
        self.start()
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self.stop()
        if self._broken and error is None:
            raise self._broken[0]

    @property
    def version(self) -> str:
        """The release that the server says it is; can be set."""
        return self._db.release

    @version.setter
    def version(self, release: str) -> None:
        self._db.release = release

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen; after `stop`, on the same port and with all rows."""
        if self._listener is None:
            self._listener = Listener(self, self._db, self._port)
            self._port = self._listener.server_port

    def stop(self) -> None:
        """Be down: hang up on everybody and refuse connections."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def misbehave(
        self, method: str, path: str, fault: Fault, *, times: int | None = 1, skip: int = 0
    ) -> None:
        """Play `fault` on requests of `method` ("*": any) to `path`, as "/api/projects/*/import".

        The first `skip` of them pass, then `times` are met (None: all). Faults that were set
        first go first.
        """
        pattern = re.compile(fnmatch.translate(path))
        self._traps.append(_Trap(method, pattern, fault, times, skip))

    def behave(self) -> None:
        """Forget all faults that are still to come."""
        self._traps.clear()

    def count(self, method: str, path: str) -> int:
        """How many such requests came, answered or not; `path` as for `misbehave`."""
        pattern = re.compile(fnmatch.translate(path))
        return sum(1 for r in self.requests if r.method == method and pattern.fullmatch(r.path))

    def now(self) -> str:
        """The server's time, as it writes times; later than every time so far."""
        return str(shapes.time(self._db.clock.tick()))

    def set_clock(self, when: datetime) -> None:
        """Set the clock, forward or back; it runs on from there. `when` has a time zone."""
        self._db.clock.set(when)

    def add_user(self, email: str) -> int:
        with self._db.lock:
            return self._db.add_user(email, secrets.token_hex(20)).id

    def token_of(self, user: int) -> str:
        """A person's legacy token: with it, requests are that person's."""
        return self.users[user].token

    def disable_legacy_tokens(self) -> None:
        self._db.tokens.legacy_enabled = False

    def revoke_pat(self) -> None:
        """Revoke personal access tokens, and end what was bought with them."""
        self._db.tokens.revoke()
        self._db.tokens.expire()

    def expire_access_tokens(self) -> None:
        """Let the 300 s of every access token be over."""
        self._db.tokens.expire()

    def annotate(
        self,
        task: int,
        user: int,
        result: list[dict[str, Any]],
        *,
        lead_time: float | None = 10.0,
        was_cancelled: bool = False,
        parent_prediction: int | None = None,
    ) -> int:
        """A person submits a task, or skips it (`was_cancelled`); returns the annotation."""
        with self._db.lock:
            row = self._db.add_annotation(
                self.tasks[task],
                by=user,
                result=result,
                completed_by=user,
                lead_time=lead_time,
                was_cancelled=was_cancelled,
                parent_prediction=parent_prediction,
            )
        return row.id

    def draft(self, task: int, user: int, result: list[dict[str, Any]]) -> int:
        """A person begins a task and has not submitted it; no time moves."""
        with self._db.lock:
            return self._db.add_draft(self.tasks[task], self.users[user], result).id

    def edit(
        self,
        annotation: int,
        *,
        user: int | None = None,
        result: list[dict[str, Any]] | None = None,
        was_cancelled: bool | None = None,
    ) -> None:
        """Somebody (who made it, unless told) changes an annotation; completed_by stays."""
        row = self.annotations[annotation]
        changes = {"result": result, "was_cancelled": was_cancelled}
        with self._db.lock:
            self._db.change_annotation(
                row,
                by=user or row.completed_by,
                **{key: value for key, value in changes.items() if value is not None},
            )

    def delete_annotation(self, annotation: int) -> None:
        with self._db.lock:
            self._db.delete_annotation(self.annotations[annotation], by=self.admin)

    def delete_task(self, task: int) -> None:
        with self._db.lock:
            self._db.delete_task(self.tasks[task])

    def prediction_of(self, task: int) -> Prediction | None:
        """The newest prediction of a task; None where it has none."""
        predictions = self.tasks[task].predictions
        return predictions[-1] if predictions else None

    def note(self, request: Request) -> Fault | None:
        """Log a request; returns the fault that it meets. Each trap on its way counts it."""
        with self._db.lock:
            self.requests.append(request)
            return next((t.fault for t in self._traps if t.springs(request)), None)

    def answer(self, call: Call) -> Answer:
        """Do what a request asks."""
        with self._db.lock:
            try:
                return self._answer(call)
            except NoPageError:
                return html_answer(NOT_FOUND_PAGE, 404)
            except RefusedError as refusal:
                return refusal.answer(self.version)
            except Exception as error:  # noqa: BLE001 - kept, and raised at the end of the test
                self.broke(error)
                return error_answer(500, f"the fake itself is broken: {error!r}", self.version)

    def broke(self, error: BaseException) -> None:
        """Keep an error of the fake's own, to be raised when the test leaves it."""
        self._broken.append(error)

    def _answer(self, call: Call) -> Answer:
        route, numbers = _find(call.path)
        if not route.open:
            now = self._db.clock.read()
            user = self._db.tokens.owner(call.authorization, self.users, now)
            call = replace(call, user=user)
        return route.answer(call, numbers)


def _find(path: str) -> tuple[Route, list[int]]:
    for routes in _ROUTES:
        if found := routes.find(path):
            return found
    raise NoPageError
