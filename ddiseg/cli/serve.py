"""`ddiseg serve`: Label Studio's ML backend and webhook receiver."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import click

from ddiseg.cli.common import Command, Settings, pass_settings
from ddiseg.cli.params import round_options
from ddiseg.errors import InputError

if TYPE_CHECKING:
    from ddiseg.loop.round import RoundOptions

_WEEK = 7 * 24 * 60  #: minutes


class _Range(click.FloatRange):
    """A range in which "nan" is not, as it is in click's own."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


@click.command(cls=Command)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; passwords travel openly, so put another one behind TLS.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=9090,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--interval",
    type=_Range(min=0, max=_WEEK),
    default=5.0,
    show_default=True,
    metavar="MINUTES",
    help="Time from one round to the next, the first at the start, whether or not a webhook came; "
    "0: only when one comes.",
)
@round_options
@click.option(
    "--max-body-mb",
    type=_Range(min=0.001, max=10_000),
    default=64.0,
    show_default=True,
    help="Size limit of a request.",
)
@click.option(
    "--grace",
    type=_Range(min=0, max=3600),
    default=30.0,
    show_default=True,
    help="Seconds that the work at hand has to end when the server stops; what did not waits.",
)
@pass_settings
def serve(
    settings: Settings,
    host: str,
    port: int,
    interval: float,
    max_body_mb: float,
    grace: float,
    options: RoundOptions,
) -> None:
    """Serve predictions to Label Studio, and take its webhooks.

    It needs the extra: pip install 'ddiseg[server]'. Stored predictions are answered at once,
    missing ones are computed. The start, each webhook and each --interval bring about a round as
    'ddiseg loop run' does it, with the options given here: what was handed in is pulled, and the
    model is refreshed when that is due.
    Credentials are made the first time, in a file that only its owner can read;
    DDISEG_SERVER_USER, DDISEG_SERVER_PASSWORD and DDISEG_WEBHOOK_SECRET (of A-Z a-z 0-9 - _ . ~)
    replace them. Stop it with Ctrl+C or SIGTERM.
    """
    try:
        import fastapi  # noqa: F401 - is it there?
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"ddiseg serve needs {error.name}, which is not installed: pip install 'ddiseg[server]'"
        ) from error
    from ddiseg.server import run
    from ddiseg.server.credentials import credentials_file
    from ddiseg.workspace.workspace import default_actor

    workspace = settings.open()
    credentials = credentials_file(workspace.root)

    def ready(url: str) -> None:
        data = {"url": url, "credentials": str(credentials)}
        text = f"listening on {url}\n  user, password and webhook secret: {credentials}"
        settings.emit(data, text)

    def say(line: str) -> None:
        with contextlib.suppress(OSError):  # nobody reads it any more: the server goes on
            click.echo(line, err=True)

    run.serve(
        workspace,
        host,
        port,
        options,
        default_actor(),
        every=interval * 60,
        max_body=round(max_body_mb * 1_000_000),
        grace=grace,
        say=say,
        ready=ready,
    )
