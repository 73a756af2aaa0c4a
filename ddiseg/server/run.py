"""Run the server of a workspace until it is told to stop."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import uvicorn

from ddiseg.catalogue import JobKind
from ddiseg.catalogue.leases import SERVE, HeldLease
from ddiseg.errors import DdisegError, InputError
from ddiseg.labelstudio.connection import find
from ddiseg.loop.options import RoundOptions
from ddiseg.loop.round import run_round
from ddiseg.loop.steps import shown_name
from ddiseg.model.backbones import Backbones
from ddiseg.server.app import Backend, create_app
from ddiseg.server.auth import ensure_credentials
from ddiseg.server.connections import ACCEPTED_AT_ONCE, limited_protocol, most_connections
from ddiseg.server.jobs import Do
from ddiseg.server.repeated import repeated_messages_once
from ddiseg.workspace.workspace import Workspace

#: Connections that may wait to be accepted.
_WAITING = 2048


def serve(
    workspace: Workspace,
    host: str,
    port: int,
    options: RoundOptions,
    actor: str,
    *,
    every: float,
    max_body: int,
    grace: float,
    ready: Callable[[str], None],
) -> None:
    """Serve a workspace until SIGTERM or SIGINT.

    Args:
        options: options of the rounds.
        every: seconds between two rounds by time; 0 for none.
        max_body: maximum size of a request's body in bytes.
        grace: seconds that requests and a running job have to end once the server stops.
        ready: called with the address once the server listens.

    Raises:
        LeaseHeldError: another server runs on this catalogue.
        LeaseLostError: another one took over, since this one was not heard of for too long.
        InputError: the address can't be listened on.
    """
    with workspace.catalogue.leases.hold(SERVE) as lease, _listening(host, port) as listener:
        backbones = Backbones(workspace)  # one copy of the network for requests and rounds
        backend = Backend(
            workspace,
            lease.owner,
            ensure_credentials(workspace.root),
            rounds(workspace, options, actor, backbones),
            device=options.device,
            precision=options.precision,
            backbones=backbones,
            every=every,
            grace=grace,
        )
        config = uvicorn.Config(
            create_app(backend, max_body),
            log_level="warning",
            access_log=False,  # a path may hold the webhook's secret
            timeout_graceful_shutdown=max(1, round(grace)),
            server_header=False,
            http=limited_protocol(most_connections()),
            backlog=ACCEPTED_AT_ONCE,
        )
        server = _Server(config, listener)
        lease.on_lost = partial(setattr, server, "should_exit", True)
        before = signal.signal(signal.SIGTERM, partial(_let_go, lease))
        try:
            ready(_address(host, listener.getsockname()[1]))
            with repeated_messages_once():
                server.run(sockets=[listener])
        finally:
            signal.signal(signal.SIGTERM, before)
        lease.check()


class _Server(uvicorn.Server):
    """uvicorn, where more connections may wait than are accepted at once."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket) -> None:
        super().__init__(config)
        self._listener = listener

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            self._listener.listen(_WAITING)


def rounds(
    workspace: Workspace, options: RoundOptions, actor: str, backbones: Backbones
) -> Mapping[JobKind, Do]:
    """Return the jobs that are rounds of the loop; each fails if a step of its round fails."""

    def job(*, must_refresh: bool) -> Do:
        def do(_stopping: Callable[[], bool]) -> None:
            connect = partial(find, workspace.root)
            steps = run_round(
                *(workspace, connect, options, actor),
                must_refresh=must_refresh,
                backbones=backbones,
            )
            failed = [f"{shown_name(step.name)}: {step.said}" for step in steps if step.failed]
            if failed:
                raise DdisegError("; ".join(failed))

        return do

    return {JobKind.PULL: job(must_refresh=False), JobKind.REFRESH: job(must_refresh=True)}


def _let_go(lease: HeldLease, sign: int, _frame: object) -> None:
    """Release the lease, then end: uvicorn raises the signal again once it has stopped."""
    with contextlib.suppress(DdisegError):  # it ends with the process, or by itself
        lease.release()
    signal.signal(sign, signal.SIG_DFL)
    signal.raise_signal(sign)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a listening socket; raises InputError if the address can't be used."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family, backlog=_WAITING)
    except OSError as error:
        raise InputError(
            f"{_address(host, port)} can't be listened on ({error.strerror}): give another --port, "
            "or an address of this machine as --host"
        ) from error
    with listener:
        yield listener


def _address(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
