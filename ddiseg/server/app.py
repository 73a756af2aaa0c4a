"""The HTTP interface: what Label Studio 1.23 expects of an ML backend, webhooks, and metrics.

Handlers only parse and answer; anything that may take a moment runs in a thread, not on the event
loop.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from annotation_protocol import UserError
from ddiseg.catalogue import JobKind, ModelKind
from ddiseg.labelstudio.task_payload import MODEL_VERSION
from ddiseg.model.backbones import Backbones
from ddiseg.server.auth import HEALTH, WEBHOOK, Credentials, RequestGuard
from ddiseg.server.interactive import Clicks
from ddiseg.server.jobs import Do, JobsWanted, Worker
from ddiseg.server.metrics import Measured, Metrics
from ddiseg.server.model_cache import ModelCache
from ddiseg.server.predictions import BUDGET, Predictions, predict_open_work
from ddiseg.server.schemas import (
    BadBodyError,
    PredictRequest,
    SetupRequest,
    WebhookRequest,
    read_body,
    route_options,
)
from ddiseg.workspace.workspace import Workspace

logger = logging.getLogger(__name__)

#: Seconds that a webhook waits for a locked catalogue, and after which it may be sent again.
PATIENCE, RETRY_AFTER = 1.5, 5

_PATHS = (HEALTH, "/setup", "/predict", "/versions", WEBHOOK, "/metrics")


class Backend:
    """Everything behind the HTTP interface of one workspace, and its threads."""

    def __init__(
        self,
        workspace: Workspace,
        owner: str,
        credentials: Credentials,
        rounds: Mapping[JobKind, Do],
        *,
        device: str = "cpu",
        precision: str = "float32",
        backbones: Backbones | None = None,
        every: float = 0.0,
        grace: float = 30.0,
    ) -> None:
        """Build the parts; nothing runs yet.

        Args:
            owner: of the server's lease, in whose name jobs are done.
            rounds: functions for the jobs other than `JobKind.PREDICT`.
            backbones: those that the rounds use, too.
            every: seconds between two PULL jobs by time, the first one at the start; 0 for none.
            grace: seconds that a running job has to end once the server stops.
        """
        self.workspace, self.credentials = workspace, credentials
        self._grace = grace
        self.metrics = Metrics()
        self.model = ModelCache(workspace, device, precision, backbones)
        self.predictions = Predictions(workspace, self.model, self.metrics)
        self.clicks = Clicks(workspace, self.model, self.metrics)
        jobs: dict[JobKind, Do] = {
            **rounds,
            JobKind.PREDICT: lambda stopping: predict_open_work(workspace, self.model, stopping),
        }
        self.worker = Worker(workspace.catalogue.jobs, owner, jobs, self.metrics)
        self.jobs_wanted = JobsWanted(workspace, self.worker.wake)
        self._clock = Clock(every, lambda: self.jobs_wanted.want(JobKind.PULL))

    def start(self) -> None:
        """Start working on the queued jobs."""
        self.jobs_wanted.start()
        self.worker.start()
        self._clock.start()

    def stop(self) -> None:
        """Finish the running job, or leave it to the next server."""
        self._clock.stop()
        self.jobs_wanted.stop()
        if not self.worker.stop(self._grace):
            logger.warning(
                f"a job did not end within {self._grace:g} s: the next server does it again, "
                "nothing that it finished is lost"
            )


class Clock:
    """Calls `tick` at the start and every so many seconds, on a thread; never with 0 seconds.

    This is how rounds notice what no webhook reported, and refreshes that are due by age. `tick`
    must return at once and raise nothing, as `JobsWanted.want` does.
    """

    def __init__(self, seconds: float, tick: Callable[[], object]) -> None:
        self._seconds, self._tick = seconds, tick
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clock", daemon=True)

    def start(self) -> None:
        if self._seconds:
            self._thread.start()

    def stop(self) -> None:
        """End the thread; no tick follows."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._tick()
            self._stopped.wait(self._seconds)


def create_app(backend: Backend, max_body: int) -> FastAPI:
    """Return the application of a workspace's server; bodies may have up to `max_body` bytes."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(backend.start)
        yield
        await run_in_threadpool(backend.stop)

    app = FastAPI(
        title="ddiseg", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )
    _add_predictions(app, backend)
    _add_webhooks(app, backend)
    _add_state(app, backend)
    _add_error_handlers(app)
    app.add_middleware(RequestGuard, credentials=backend.credentials, max_body=max_body)
    app.add_middleware(Measured, metrics=backend.metrics, paths=_PATHS)
    return app


def _add_predictions(app: FastAPI, backend: Backend) -> None:
    @app.post("/setup", **route_options(SetupRequest))
    async def setup(request: Request) -> dict[str, str]:
        """Return the one version name that covers the predictions of all models."""
        await read_body(request, SetupRequest)
        return {"model_version": MODEL_VERSION}

    @app.post("/predict", **route_options(PredictRequest))
    async def predict(request: Request) -> Response:
        """Return one result a task; `unanswered` says why a task has none."""
        deadline = time.monotonic() + BUDGET
        body = await read_body(request, PredictRequest)
        if body.context:
            click = await run_in_threadpool(
                backend.clicks.answer, body.project, body.tasks, body.context, deadline
            )
            return JSONResponse(click)
        findings, is_incomplete = await run_in_threadpool(
            backend.predictions.find, body.project, body.tasks, deadline
        )
        if is_incomplete:
            backend.jobs_wanted.want(JobKind.PREDICT)
        pieces = backend.predictions.answer(body.tasks, findings)
        return StreamingResponse(_in_threads(pieces), media_type="application/json")


def _add_webhooks(app: FastAPI, backend: Backend) -> None:
    async def receive(request: Request) -> Response:
        webhook = await read_body(request, WebhookRequest)
        if webhook.kind is None or webhook.number is None:
            return _acknowledge(backend, "ignored")
        request_job = asyncio.wrap_future(backend.jobs_wanted.want(webhook.kind, webhook.number))
        try:
            is_known = await asyncio.wait_for(request_job, PATIENCE)
        except (TimeoutError, UserError):
            backend.metrics.webhooks.labels("busy").inc()
            detail = "the catalogue is busy: nothing is lost, the next pull sees it anyway"
            return JSONResponse({"detail": detail}, 503, {"Retry-After": str(RETRY_AFTER)})
        return _acknowledge(backend, "queued" if is_known else "unknown project")

    @app.post(WEBHOOK, **route_options(WebhookRequest))
    async def webhook(request: Request) -> Response:
        """Take a hint that there is something to pull, or to learn from."""
        return await receive(request)

    @app.post(WEBHOOK + "/{secret}", **route_options(WebhookRequest))
    async def webhook_with_secret(request: Request, secret: str) -> Response:
        """The same for a sender that can't set a header; RequestGuard has checked the secret."""
        return await receive(request)


def _add_state(app: FastAPI, backend: Backend) -> None:
    @app.get(HEALTH)
    async def health() -> dict[str, str]:
        """Whether the server runs; needs no credentials."""
        return {"status": "UP", "model_class": "ddiseg"}

    @app.get("/versions")
    def versions() -> dict[str, Any]:
        """Return the version that Label Studio offers people, and the models behind it."""
        models = backend.workspace.catalogue.models
        current = _current_model(backend)
        return {
            "versions": [MODEL_VERSION],
            "models": [
                {"name": m.name, "created_at": m.created_at, "in_use": m.name == current}
                for m in models.all(ModelKind.SEGMENTATION)
            ],
        }

    @app.get("/metrics")
    def metrics() -> Response:
        """Return the counters for Prometheus."""
        waiting = backend.workspace.catalogue.jobs.waiting()
        text = backend.metrics.text(waiting, _current_model(backend))
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(BadBodyError)
    async def bad_body(_request: Request, error: BadBodyError) -> Response:
        return JSONResponse({"detail": str(error)}, 400)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, _error: ClientDisconnect) -> Response:
        kind = "webhook" if request.url.path.startswith(WEBHOOK) else request.url.path
        logger.warning(f"{kind}: the client left before it had sent all of the body")
        return Response(status_code=400)  # nobody reads it

    @app.exception_handler(UserError)
    async def unavailable(_request: Request, error: UserError) -> Response:
        return JSONResponse({"detail": str(error)}, 503, {"Retry-After": str(RETRY_AFTER)})


async def _in_threads(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    end: bytes = b""
    while (piece := await run_in_threadpool(next, pieces, end)) != end:
        yield piece


def _acknowledge(backend: Backend, outcome: str) -> Response:
    backend.metrics.webhooks.labels(outcome).inc()
    return JSONResponse({"status": outcome})


def _current_model(backend: Backend) -> str | None:
    """Return the name of the model version in use; None if there is none."""
    version = backend.workspace.catalogue.models.current_or_none()
    return version.name if version else None
