"""`ddiseg serve`: Label Studio's ML backend and webhook receiver."""

from __future__ import annotations

from typing import Any

import click

from ddiseg.cli.common import Command, Settings, pass_settings
from ddiseg.cli.params import WEEK, Number, read_round_options, round_options


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
    type=Number(min=0, max=WEEK),
    default=5.0,
    show_default=True,
    metavar="MINUTES",
    help="Time from one round to the next, the first at the start, whether or not a webhook came; "
    "0: only when one comes.",
)
@round_options
@click.option(
    "--max-body-mb",
    type=Number(min=0.001, max=10_000),
    default=64.0,
    show_default=True,
    help="Size limit of a request.",
)
@click.option(
    "--grace",
    type=Number(min=0, max=3600),
    default=30.0,
    show_default=True,
    help="Seconds that the work at hand has to end when the server stops; what did not waits.",
)
@pass_settings
def serve(
    settings: Settings,
    /,
    host: str,
    port: int,
    interval: float,
    max_body_mb: float,
    grace: float,
    draw: int,
    **given: Any,
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
    from ddiseg.server import run
    from ddiseg.server.auth import credentials_file
    from ddiseg.workspace.workspace import default_actor

    workspace = settings.open()
    credentials = credentials_file(workspace.root)

    def ready(url: str) -> None:
        data = {"url": url, "credentials": str(credentials)}
        text = f"listening on {url}\n  user, password and webhook secret: {credentials}"
        settings.emit(data, text)

    run.serve(
        workspace,
        host,
        port,
        read_round_options(workspace, draw, given),
        default_actor(),
        every=interval * 60,
        max_body=round(max_body_mb * 1_000_000),
        grace=grace,
        ready=ready,
    )
