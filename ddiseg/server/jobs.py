"""The one thread that does the jobs which wait in the catalogue, one after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from annotation_protocol import UserError
from ddiseg.catalogue import JobKind
from ddiseg.catalogue.runs import Jobs
from ddiseg.catalogue.tables import Job
from ddiseg.errors import DdisegError, WorkspaceError, defect
from ddiseg.loop.lock import BusyError
from ddiseg.server.metrics import Metrics

#: Seconds between looks at the queue: another process may have asked for a job.
LOOK = 5.0

#: Seconds before a job is tried again that found a round of another process at work.
AGAIN = 5.0

#: Does a job; asks the function that it is given, now and then, whether to stop early.
Do = Callable[[Callable[[], bool]], None]


class StoppedError(DdisegError):
    """A job left off because the server stops: it is to be done by the next one."""


class Worker:
    """Does jobs until it is stopped; what it was at then waits for the next server."""

    def __init__(
        self, jobs: Jobs, do: Mapping[JobKind, Do], metrics: Metrics, say: Callable[[str], None]
    ) -> None:
        self._jobs, self._do, self._metrics, self._say = jobs, do, metrics, say
        self._wake, self._stop = threading.Event(), threading.Event()
        self._ending = threading.Lock()
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        """Begin with the jobs that an earlier server left off, and go on with those that come."""
        left = self._jobs.requeue()
        if left:
            self._say(f"{left} jobs of an earlier server were broken off: they wait again")
        self._thread.start()

    def wake(self) -> None:
        """There is a new job."""
        self._wake.set()

    def stop(self, grace: float) -> bool:
        """Take no more jobs; True where the one at hand ended within `grace` seconds.

        Where it did not, it waits again, and the process may end at any moment.
        """
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=grace)
        if not self._thread.is_alive():
            return True
        with self._ending:
            self._abandoned = True
            self._put_back()
        return False

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self._did_one():
                self._wake.wait(LOOK)
                self._wake.clear()

    def _did_one(self) -> bool:
        """Do the job that waits longest; False where none waits or something went wrong."""
        try:
            job = self._jobs.take()
            if job is not None:
                self._work(job)
        except WorkspaceError as error:  # locked for a minute: the queue is kept
            self._say(f"no job can be taken: {error}")
        except Exception as error:  # noqa: BLE001 - nobody would see that the thread died
            self._say(str(defect(error)))
        else:
            return job is not None
        return False

    def _work(self, job: Job) -> None:
        started = time.monotonic()
        try:
            problem = self._attempt(JobKind(job.kind))
        except StoppedError:
            self._put_back()
            return
        seconds = time.monotonic() - started
        with self._ending:
            if self._abandoned:
                return
            try:
                self._jobs.end(job.id, problem)
            except WorkspaceError as error:  # begun and not ended: the next server does it again
                self._say(f"the end of job {job.id} can't be written down: {error}")
        outcome = "done" if problem is None else "failed"
        self._metrics.jobs.labels(job.kind, outcome).inc()
        self._say(f"{job.kind}: {outcome} in {seconds:.1f} s" + (f": {problem}" if problem else ""))

    def _put_back(self) -> None:
        try:
            self._jobs.requeue()
        except WorkspaceError as error:  # the next server does it when it starts
            self._say(f"the job at hand can't be put back now: {error}")

    def _attempt(self, kind: JobKind) -> str | None:
        """Do a job, waiting for others who are at it; returns its problem, None where it is done."""
        while True:
            try:
                self._do[kind](self._stop.is_set)
            except BusyError:
                if self._stop.wait(AGAIN):
                    raise StoppedError("the server stops") from None
            except StoppedError:
                raise
            except UserError as error:
                return str(error)
            except Exception as error:  # noqa: BLE001 - one job's defect must not end all others
                return str(defect(error))
            else:
                return None
