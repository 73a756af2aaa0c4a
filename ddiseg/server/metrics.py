"""Counters of the server for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Upper bounds of the latency histogram, seconds: a webhook's goal, up to Label Studio's limit.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 100)


class Metrics:
    """The counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        self.requests = counter(
            "ddiseg_requests", "Requests by path and status.", ["path", "status"]
        )
        self.seconds = Histogram(
            "ddiseg_request_seconds",
            "Seconds from a request to the end of its answer.",
            ["path"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.predictions = counter(
            "ddiseg_predictions",
            "Tasks of /predict: stored, computed, clicked, or unanswered.",
            ["how"],
        )
        self.webhooks = counter(
            "ddiseg_webhooks",
            "Webhooks: queued, ignored, of an unknown project, or busy.",
            ["outcome"],
        )
        self.jobs = counter("ddiseg_jobs", "Jobs that ended.", ["kind", "outcome"])
        self._waiting = gauge("ddiseg_jobs_waiting", "Jobs that wait.")
        self._in_use = gauge("ddiseg_model_in_use", "1 for the model version in use.", ["version"])

    def text(self, waiting: int, version: str | None) -> bytes:
        """Return the exposition format, for `waiting` jobs and the name of the version in use.

        https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
        """
        self._waiting.set(waiting)
        self._in_use.clear()
        if version is not None:
            self._in_use.labels(version).set(1)
        return generate_latest(self._registry)


class Measured:
    """Counts and times every request of an ASGI application."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Sequence[str]) -> None:
        self._app, self._metrics, self._paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, started = 500, time.perf_counter()

        async def observe(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observe)
        finally:
            path = self._label(scope["path"])
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - started)

    def _label(self, path: str) -> str:
        """Return one of `paths` or "other": secrets and guesses in a path must not become labels."""
        first = "/" + path.split("/")[1] if path.startswith("/") else path
        return first if first in self._paths else "other"
