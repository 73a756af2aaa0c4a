"""The HTTP interface: what Label Studio 1.23 expects of an ML backend, webhooks, and metrics.

Handlers parse and answer; whatever may take a moment runs in a thread, never on the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from annotation_protocol import UserError
from ddiseg.catalogue import JobKind, ModelKind
from ddiseg.labelstudio.task_payload import PAINTED
from ddiseg.server.backend import Backend
from ddiseg.server.guard import HEALTH, WEBHOOK, RequestGuard
from ddiseg.server.known_tasks import AskedTask
from ddiseg.server.metrics import Measured
from ddiseg.server.predictions import BUDGET
from ddiseg.server.webhooks import Webhook

#: Tasks that one request may hold: Label Studio sends some hundreds.
MOST_TASKS = 20_000

#: Seconds that a webhook waits for a locked catalogue, and after which it may be sent again.
PATIENCE, RETRY_AFTER = 1.5, 5

_PATHS = (HEALTH, "/setup", "/predict", "/versions", WEBHOOK, "/metrics")

_Body = TypeVar("_Body", bound=BaseModel)


class _Params(BaseModel):
    context: dict[str, Any] | None = None


class Predict(BaseModel):
    """What /predict is asked."""

    tasks: list[AskedTask] = Field(max_length=MOST_TASKS)
    project: str | None = None
    params: _Params | None = None


class Setup(BaseModel):
    """What /setup is told; the token in it is neither kept nor used."""

    project: str | None = None


class _Refused(Exception):  # noqa: N818 - an answer, not a fault
    """The request can't be served as it is."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def create_app(backend: Backend, max_body: int) -> FastAPI:
    """The application of a workspace's server; bodies may have `max_body` bytes."""

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
    _add_refusals(app)
    app.add_middleware(RequestGuard, credentials=backend.credentials, max_body=max_body)
    app.add_middleware(Measured, metrics=backend.metrics, paths=_PATHS)
    return app


def _add_predictions(app: FastAPI, backend: Backend) -> None:
    @app.post("/setup", **_takes(Setup))
    async def setup(request: Request) -> dict[str, str]:
        """Label Studio shows the predictions of this one version, whichever model painted them."""
        await _body(request, Setup)
        return {"model_version": PAINTED}

    @app.post("/predict", **_takes(Predict))
    async def predict(request: Request) -> Response:
        """One result a task; `unanswered` says why a task has none."""
        deadline = time.monotonic() + BUDGET
        asked = await _body(request, Predict)
        context = asked.params.context if asked.params else None
        if context:
            click = await run_in_threadpool(
                backend.clicks.answer, asked.project, asked.tasks, context, deadline
            )
            return JSONResponse(click)
        findings, left = await run_in_threadpool(
            backend.predictions.find, asked.project, asked.tasks, deadline
        )
        if left:
            backend.jobs_wanted.want(JobKind.PREDICT)
        pieces = backend.predictions.answer(asked.tasks, findings)
        return StreamingResponse(_in_threads(pieces), media_type="application/json")


def _add_webhooks(app: FastAPI, backend: Backend) -> None:
    async def receive(request: Request) -> Response:
        webhook = await _body(request, Webhook)
        if webhook.kind is None or webhook.number is None:
            return _noted(backend, "ignored")
        wanted = asyncio.wrap_future(backend.jobs_wanted.want(webhook.kind, webhook.number))
        try:
            ours = await asyncio.wait_for(wanted, PATIENCE)
        except (TimeoutError, UserError):
            backend.metrics.webhooks.labels("busy").inc()
            detail = "the catalogue is busy: nothing is lost, the next pull sees it anyway"
            return JSONResponse({"detail": detail}, 503, {"Retry-After": str(RETRY_AFTER)})
        return _noted(backend, "queued" if ours else "unknown project")

    @app.post(WEBHOOK, **_takes(Webhook))
    async def webhook(request: Request) -> Response:
        """A hint that there is something to bring back, or to learn."""
        return await receive(request)

    @app.post(WEBHOOK + "/{secret}", **_takes(Webhook))
    async def webhook_with_secret(request: Request, secret: str) -> Response:
        """The same, for a sender that can't set a header; the secret was looked at before."""
        return await receive(request)


def _add_state(app: FastAPI, backend: Backend) -> None:
    @app.get(HEALTH)
    async def health() -> dict[str, str]:
        """Whether the server runs; open to anyone."""
        return {"status": "UP", "model_class": "ddiseg"}

    @app.get("/versions")
    def versions() -> dict[str, Any]:
        """`versions` is what Label Studio lets a person choose from; `models` is what painted."""
        models = backend.workspace.catalogue.models
        in_use = _in_use(backend)
        return {
            "versions": [PAINTED],
            "models": [
                {"name": m.name, "created_at": m.created_at, "in_use": m.name == in_use}
                for m in models.all(ModelKind.SEGMENTATION)
            ],
        }

    @app.get("/metrics")
    def metrics() -> Response:
        """Counters for Prometheus."""
        text = backend.metrics.text(backend.workspace.catalogue.jobs.waiting(), _in_use(backend))
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(_Refused)
    async def refused(_request: Request, error: _Refused) -> Response:
        return JSONResponse({"detail": str(error)}, error.status)

    @app.exception_handler(UserError)
    async def troubled(_request: Request, error: UserError) -> Response:
        return JSONResponse({"detail": str(error)}, 503, {"Retry-After": str(RETRY_AFTER)})


def _takes(body: type[BaseModel]) -> dict[str, Any]:
    """How a route that reads its own body says what it takes.

    Reading is done in a thread: parsing megabytes on the event loop would hold up everyone.
    """
    schema = {"application/json": {"schema": _schema(body)}}
    refusals = {400: "no such JSON", 401: "wrong credentials", 413: "too large", 503: "busy"}
    return {
        "openapi_extra": {"requestBody": {"required": True, "content": schema}},
        "responses": {status: {"description": why} for status, why in refusals.items()},
    }


def _schema(body: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a body, with what it refers to in its place."""
    schema = body.model_json_schema()
    parts = schema.pop("$defs", {})

    def inlined(node: Any) -> Any:
        if isinstance(node, list):
            return [inlined(each) for each in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return inlined(parts[node["$ref"].rpartition("/")[2]])
        return {key: inlined(value) for key, value in node.items()}

    whole: dict[str, Any] = inlined(schema)
    return whole


async def _body(request: Request, model: type[_Body]) -> _Body:
    """The body as `model`; what it does not name is not even kept."""
    data = await request.body()
    try:
        return await run_in_threadpool(model.model_validate_json, data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _Refused(400, f"the body is not as expected: {where} {first['msg']}") from None


async def _in_threads(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    done: bytes = b""
    while (piece := await run_in_threadpool(next, pieces, done)) != done:
        yield piece


def _noted(backend: Backend, outcome: str) -> Response:
    backend.metrics.webhooks.labels(outcome).inc()
    return JSONResponse({"status": outcome})


def _in_use(backend: Backend) -> str | None:
    """The name of the model version in use."""
    version = backend.workspace.catalogue.models.current_or_none()
    return version.name if version else None
