"""Jobs that webhooks and the clock ask for, written down by one thread, in groups.

While one request is being written, all that come meanwhile wait for the next write together: a flood
costs a few transactions, and a catalogue that another process has locked holds up no one for longer
than they want to wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from annotation_protocol import UserError
from ddiseg.catalogue import JobKind
from ddiseg.errors import defect
from ddiseg.server.known_tasks import projects_here
from ddiseg.workspace.workspace import Workspace


class JobsWanted:
    """Takes down jobs for a workspace; `then` is called after each that was written.

    `say` is told of those that can't be.
    """

    def __init__(
        self, workspace: Workspace, then: Callable[[], None], say: Callable[[str], None]
    ) -> None:
        self._workspace, self._then, self._say = workspace, then, say
        self._changed = threading.Condition()
        self._wanted: dict[tuple[JobKind, int | None], Future[bool]] = {}
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="jobs-wanted", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write down what is asked for already, then end; a locked catalogue is not waited for."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._changed.notify()
        if thread is not None:
            thread.join(timeout=_LAST_WORDS)

    def want(self, kind: JobKind, project: int | None = None) -> Future[bool]:
        """Ask for a job, on behalf of a project of the labelling server where one is given.

        The result, False where the project is none of this workspace's, comes once the job is kept;
        a UserError where it can't be.
        """
        with self._changed:
            future = self._wanted.get((kind, project))
            if future is None:
                future = self._wanted[kind, project] = Future()
                future.set_running_or_notify_cancel()  # who gives up waiting does not cancel it
                self._changed.notify()
            return future

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted or self._thread is None)
                wanted, self._wanted = self._wanted, {}
            if not wanted:
                return
            for (kind, project), future in wanted.items():
                try:
                    future.set_result(self._write(kind, project))
                except UserError as error:
                    self._fail(kind, future, error)
                except Exception as error:  # noqa: BLE001 - nobody would see that the thread died
                    self._fail(kind, future, defect(error))

    def _fail(self, kind: JobKind, future: Future[bool], error: UserError) -> None:
        self._say(f"{kind} can't be queued: {error}")
        future.set_exception(error)

    def _write(self, kind: JobKind, project: int | None) -> bool:
        if project is not None and project not in projects_here(self._workspace):
            return False
        self._workspace.catalogue.jobs.request(kind)
        self._then()
        return True


#: Seconds that a stopping server waits for the last jobs to be written down.
_LAST_WORDS = 2.0
