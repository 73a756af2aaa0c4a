"""Everything behind the HTTP interface, put together for one workspace."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ddiseg.catalogue import JobKind
from ddiseg.server.clock import Clock
from ddiseg.server.credentials import Credentials
from ddiseg.server.interactive import Clicks
from ddiseg.server.jobs import Do, JobsWanted, Worker
from ddiseg.server.metrics import Metrics
from ddiseg.server.model_cache import ModelCache
from ddiseg.server.painting import predict_open_work
from ddiseg.server.predictions import Predictions
from ddiseg.workspace.workspace import Workspace

#: What the server calls a line that the person who started it should read.
Say = Callable[[str], None]


class Backend:
    """The parts of a server; `start` and `stop` what runs beside the requests."""

    def __init__(
        self,
        workspace: Workspace,
        owner: str,
        credentials: Credentials,
        rounds: Mapping[JobKind, Do],
        *,
        device: str = "cpu",
        every: float = 0.0,
        grace: float = 30.0,
        say: Say,
    ) -> None:
        """Nothing runs yet.

        Args:
            owner: of the lease of the server, in whose name jobs are done.
            rounds: does the jobs other than PAINT.
            every: seconds from one PULL that nobody asked for to the next, the first at the start;
                0: there are none.
            grace: seconds that a job at hand has to end once the server stops.
        """
        self.workspace, self.credentials, self._grace, self._say = (
            workspace,
            credentials,
            grace,
            say,
        )
        self.metrics = Metrics()
        self.model = ModelCache(workspace, device)
        self.predictions = Predictions(workspace, self.model, self.metrics)
        self.clicks = Clicks(workspace, self.model, self.metrics)
        jobs: dict[JobKind, Do] = {
            **rounds,
            JobKind.PREDICT: lambda stopping: predict_open_work(workspace, self.model, stopping),
        }
        self.worker = Worker(workspace.catalogue.jobs, owner, jobs, self.metrics, say)
        self.jobs_wanted = JobsWanted(workspace, self.worker.wake, say)
        self._clock = Clock(every, lambda: self.jobs_wanted.want(JobKind.PULL))

    def start(self) -> None:
        """Take up the jobs that wait."""
        self.jobs_wanted.start()
        self.worker.start()
        self._clock.start()

    def stop(self) -> None:
        """Finish the job at hand, or let it wait for the next server."""
        self._clock.stop()
        self.jobs_wanted.stop()
        if not self.worker.stop(self._grace):
            self._say(
                f"a job did not end within {self._grace:g} s: the next server does it again, "
                "nothing that it finished is lost"
            )
