"""Jobs of the server: requested by webhooks and the clock, and done one after the other.

A request is a row of the catalogue, so none is lost where the server stops.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future

from annotation_protocol import UserError
from ddiseg.catalogue import JobKind
from ddiseg.catalogue.leases import LeaseHeldError
from ddiseg.catalogue.runs import Jobs
from ddiseg.catalogue.tables import Job
from ddiseg.errors import DdisegError, WorkspaceError, defect
from ddiseg.labelstudio.projects import known_projects
from ddiseg.outcomes import counted
from ddiseg.server.metrics import Metrics
from ddiseg.workspace.workspace import Workspace

logger = logging.getLogger(__name__)

#: Seconds between two reads of the queue: another process may have requested a job.
POLL = 5.0

#: Seconds before a job is tried again that found a round of another process at work.
RETRY = 5.0

#: Seconds that a stopping server waits for the last requests to be stored.
STORE_GRACE = 2.0

#: Does a job; asks the function that it is given, now and then, whether to stop early.
Do = Callable[[Callable[[], bool]], None]


class JobsWanted:
    """One thread that stores requests for jobs of a workspace, several in one write.

    While one request is stored, all that come meanwhile wait for the next write together: a flood
    costs a few transactions, and a catalogue that another process has locked blocks nobody for
    longer than they want to wait. `then` is called after each request that was stored.
    """

    def __init__(self, workspace: Workspace, then: Callable[[], None]) -> None:
        self._workspace, self._then = workspace, then
        self._changed = threading.Condition()
        self._wanted: dict[tuple[JobKind, int | None], Future[bool]] = {}
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="jobs-wanted", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Store what was requested already, then end, without waiting for a locked catalogue."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._changed.notify()
        if thread is not None:
            thread.join(timeout=STORE_GRACE)

    def want(self, kind: JobKind, project: int | None = None) -> Future[bool]:
        """Request a job, on behalf of a project of the labelling server where one is given.

        The result comes once the request is stored: False where the project is none of this
        workspace's; a UserError where it can't be stored.
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
        logger.info(f"{kind} can't be queued: {error}")
        future.set_exception(error)

    def _write(self, kind: JobKind, project: int | None) -> bool:
        if project is not None and project not in known_projects(self._workspace):
            return False
        self._workspace.catalogue.jobs.request(kind)
        self._then()
        return True


class StoppedError(DdisegError):
    """A job left off because the server stops: the next server does it."""


class Worker:
    """One thread that does jobs until it is stopped; an unfinished one waits for the next server.

    `owner` holds the lease of the server: jobs are begun only as long as it does.
    """

    def __init__(self, jobs: Jobs, owner: str, do: Mapping[JobKind, Do], metrics: Metrics) -> None:
        self._jobs, self._owner, self._do, self._metrics = jobs, owner, do, metrics
        self._wake, self._stop = threading.Event(), threading.Event()
        self._current: Job | None = None
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        """Begin with the jobs that an earlier server did not finish, and go on with new ones."""
        if left := self._jobs.take_over():
            logger.info(f"an earlier server did not finish {counted(left, 'job')}: requested again")
        self._thread.start()

    def wake(self) -> None:
        """Read the queue at once: there is a new job."""
        self._wake.set()

    def stop(self, grace: float) -> bool:
        """Take no more jobs; returns whether the current one ended within `grace` seconds.

        If not, it is requested again, and the process may end at any moment.
        """
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=grace)
        if not self._thread.is_alive():
            return True
        if (job := self._current) is not None:
            self._put_back(job)
        return False

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self._did_one():
                self._wake.wait(POLL)
                self._wake.clear()

    def _did_one(self) -> bool:
        """Do the job that waits longest; returns whether one was done."""
        try:
            self._current = job = self._jobs.take(self._owner)
            if job is not None:
                self._work(job)
        except WorkspaceError as error:  # locked for a minute: the queue is kept
            logger.info(f"no job can be taken: {error}")
        except Exception as error:  # noqa: BLE001 - nobody would see that the thread died
            logger.info(str(defect(error)))
        else:
            return job is not None
        return False

    def _work(self, job: Job) -> None:
        started = time.monotonic()
        try:
            problem = self._attempt(JobKind(job.kind))
        except StoppedError:
            self._put_back(job)
            return
        seconds = time.monotonic() - started
        try:
            self._jobs.end(job.id, problem)
        except WorkspaceError as error:  # begun and not ended: the next server does it again
            logger.info(f"the end of job {job.id} can't be stored: {error}")
        outcome = "done" if problem is None else "failed"
        self._metrics.jobs.labels(job.kind, outcome).inc()
        logger.info(
            f"{job.kind}: {outcome} in {seconds:.1f} s" + (f": {problem}" if problem else "")
        )

    def _put_back(self, job: Job) -> None:
        try:
            self._jobs.put_back(job.id)
        except WorkspaceError as error:  # the next server does it when it starts
            logger.info(f"job {job.id} can't be requested again now: {error}")

    def _attempt(self, kind: JobKind) -> str | None:
        """Do a job, after a round of another process; returns its problem, None if it is done."""
        while True:
            try:
                self._do[kind](self._stop.is_set)
            except LeaseHeldError:
                if self._stop.wait(RETRY):
                    raise StoppedError("the server stops") from None
            except StoppedError:
                raise
            except UserError as error:
                return str(error)
            except Exception as error:  # noqa: BLE001 - one job's defect must not end all others
                return str(defect(error))
            else:
                return None
