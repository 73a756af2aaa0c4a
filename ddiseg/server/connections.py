"""Limits of connections: how many there are, and how long a client may take to send a request.

A client without credentials can open connections and send half a request. Each costs a file descriptor,
of which a process has few (often 1,024). So a request's head has to arrive within seconds, and where
there are too many connections the oldest one without a running request is closed for the newest.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

#: Seconds for the head of a request, from its first byte or the connection; and without a byte of a body.
HEAD_SECONDS, BODY_SECONDS = 10.0, 30.0

#: Connections accepted in one turn of the event loop. Python 3.11's loop goes on accepting, and logs each
#: failure, where descriptors ran out: with uvicorn's 2,048 that is 58 MB of log in 80 s.
ACCEPTED_AT_ONCE = 8

#: Descriptors left for the catalogue, stored files and models, and for connections being closed.
_RESERVED = 24 + 4 * ACCEPTED_AT_ONCE

#: Connections at most, however many descriptors there are, and at least.
_MOST, _LEAST = 512, 8


def most_connections() -> int:
    """Return how many connections this process has descriptors for."""
    if sys.platform == "win32":
        return _MOST
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return _MOST
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    return max(_LEAST, min(_MOST, limit - len(os.listdir(folder)) - _RESERVED))


class LimitedProtocol(H11Protocol):
    """HTTP/1.1 of uvicorn with these limits; a subclass sets `most`."""

    most = _MOST

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait(HEAD_SECONDS)
        if len(self.connections) <= self.most:
            return
        others = [c for c in self.connections if isinstance(c, LimitedProtocol) and c is not self]
        idle = [each for each in others if _is_idle(each)]
        if idle:
            min(idle, key=_age).abort()
        else:
            self._refuse(b"503 Service Unavailable")

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing():
            self._stop_waiting()
        elif _is_idle(self):
            if self._timer is None:  # the first bytes of another request on this connection
                self._wait(HEAD_SECONDS)
        elif self.cycle.more_body:
            self._stop_waiting()
            self._wait(BODY_SECONDS)
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def abort(self) -> None:
        """Close the connection at once, so that its descriptor is free."""
        self._stop_waiting()
        self.connections.discard(self)
        self.transport.abort()

    def _wait(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._too_late)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if _is_idle(self):
            self._refuse(b"408 Request Timeout")
        else:  # in the middle of a body: the request ends as if its client had left
            self.transport.abort()

    def _refuse(self, status: bytes) -> None:
        self._stop_waiting()
        self.transport.write(
            b"HTTP/1.1 %s\r\nconnection: close\r\ncontent-length: 0\r\n\r\n" % status
        )
        self.transport.close()


def limited_protocol(most: int) -> type[LimitedProtocol]:
    """Return the protocol of a server with at most so many connections."""
    return type("LimitedProtocol", (LimitedProtocol,), {"most": most})


def _is_idle(connection: LimitedProtocol) -> bool:
    """Return whether a connection has no request whose head is complete and that is not answered."""
    return connection.cycle is None or connection.cycle.response_complete


def _age(connection: LimitedProtocol) -> float:
    """Return when a connection has to have sent a request; the smallest is the oldest."""
    return connection._timer.when() if connection._timer is not None else 0.0
