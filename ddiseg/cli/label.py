"""`ddiseg label`: the Label Studio that people work in."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ddiseg.cli.common import (
    Command,
    Group,
    Settings,
    ask_token,
    common_options,
    connection_of,
    pass_settings,
    progress_stages,
    stopped_like_ctrl_c,
)
from ddiseg.cli.label_pull import pull
from ddiseg.cli.label_push import push
from ddiseg.errors import ServerError

if TYPE_CHECKING:
    from ddiseg.labelstudio.connection import Connection
    from ddiseg.labelstudio.embedded.server import Running
    from ddiseg.workspace.workspace import Workspace


@click.group("label", cls=Group, params=common_options())
def label() -> None:
    """Annotate in Label Studio: start one here, or use a team's."""


label.add_command(push)
label.add_command(pull)


@label.command("up", cls=Command)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Port on this machine.  [default: 8080, or the next free one above]",
)
@pass_settings
def up(settings: Settings, port: int | None) -> None:
    """Start a Label Studio of this workspace's own, and make its projects.

    The first time, Label Studio is installed into the user's cache (1 GB; DDISEG_CACHE names
    another folder); after that no network is needed. It listens on this machine only, and has one
    account for an administrator, an annotator and a reviewer. It runs on until 'ddiseg label down';
    started again, it is found running.
    """
    from ddiseg.labelstudio import connection
    from ddiseg.labelstudio.embedded import server
    from ddiseg.labelstudio.embedded.accounts import read_accounts
    from ddiseg.labelstudio.folder import Folder

    workspace = settings.open()
    with stopped_like_ctrl_c():
        with progress_stages() as stages:
            running = server.up(workspace.root, port, stages)
        try:
            projects = _prepare(workspace, connection.find(workspace.root))
        except KeyboardInterrupt:
            if running.new:  # nobody has been told of it
                _say("stopping the Label Studio that was started")
                server.down(workspace.root)
            raise
    folder = Folder(workspace.root)
    accounts = {role: account.email for role, account in read_accounts(workspace.root).items()}
    data = {
        **_as_data(running),
        "new": running.new,
        "accounts": accounts,
        "secrets": str(folder.secrets),
        "log": str(folder.log),
        "projects": projects,
    }
    lines = [
        f"Label Studio {running.version} "
        + ("started: " if running.new else f"runs since {running.since}: ")
        + running.url,
        *(f"  project {purpose}: {url}" for purpose, url in projects.items()),
        *(f"  {role}: {email}" for role, email in accounts.items()),
        f"  passwords: {folder.secrets}",
        "  'ddiseg label down' stops it and keeps everything",
    ]
    settings.emit(data, "\n".join(lines))


@label.command("down", cls=Command)
@pass_settings
def down(settings: Settings) -> None:
    """Stop this workspace's own Label Studio; all that was done in it is kept."""
    from ddiseg.labelstudio.embedded import server

    stopped = server.down(settings.open().root)
    settings.emit({"stopped": stopped}, "stopped" if stopped else "not running")


@label.command("status", cls=Command)
@pass_settings
def show_status(settings: Settings) -> None:
    """Show which Label Studio this workspace works with, and whether it runs."""
    from ddiseg.labelstudio import connection
    from ddiseg.labelstudio.embedded import server
    from ddiseg.labelstudio.folder import Folder

    workspace = settings.open()
    root = workspace.root
    folder = Folder(root)
    team = connection.team_url(root)
    running = server.find_running(root)
    url = team or (running.url if running else None)
    projects = workspace.catalogue.tasks.projects(team or connection.EMBEDDED)
    answers = running is not None and server.answers(running)
    team_version, team_fault = _ask_team(team) if team else (None, None)
    data: dict[str, Any] = {
        "team": team,
        "team_version": team_version,
        "team_fault": team_fault,
        "projects": {p.purpose: f"{url}/projects/{p.remote_id}/data" for p in projects if url},
        "running": running is not None,
        **(_as_data(running) if running else {}),
        "answers": answers,
        "secrets": str(folder.secrets),
        "log": str(folder.log),
    }
    lines = []
    if team:
        answers_well = f"connected to {team}: Label Studio {team_version} answers"
        lines.append(
            answers_well if team_version else f"connected to a team's server: {team_fault}"
        )
    if running:
        state = "answers" if answers else "does not answer" if running.ready else "is starting"
        lines += [
            f"Label Studio {running.version} runs since {running.since} and {state}: {running.url}",
            f"  process: {running.process.pid}",
            f"  passwords: {folder.secrets}",
            f"  log: {folder.log}",
        ]
    elif not team:
        lines.append(
            "not running: 'ddiseg label up' starts it, 'ddiseg label connect URL' uses a team's"
        )
    lines += [f"  project {purpose}: {page}" for purpose, page in data["projects"].items()]
    settings.emit(data, "\n".join(lines))


@label.command("logs", cls=Command)
@click.option(
    "--lines", type=click.IntRange(min=1), default=50, show_default=True, help="How many."
)
@pass_settings
def logs(settings: Settings, lines: int) -> None:
    """Show the last lines that this workspace's own Label Studio wrote."""
    from ddiseg.labelstudio.embedded import server

    last = server.logs(settings.open().root, lines)
    settings.emit({"lines": last}, "\n".join(last))


@label.command("connect", cls=Command)
@click.argument("url", required=False)
@click.option("--forget", is_flag=True, help="Use the team's server no longer.")
@pass_settings
def connect(settings: Settings, url: str | None, forget: bool) -> None:
    """Use a team's Label Studio at URL instead of one of this workspace's own, and make its projects.

    The token is taken from the environment variable LABEL_STUDIO_API_KEY, from the file that
    LABEL_STUDIO_API_KEY_FILE names, from the keyring, or asked for; it is a personal access token or a legacy token of your account there. It is never
    written into the workspace.
    """
    from ddiseg.labelstudio import connection

    if forget == bool(url):
        raise click.UsageError("give the URL of a server, or --forget alone")
    workspace = settings.open()
    if url is None:
        forgotten = connection.forget_team(workspace.root)
        settings.emit(
            {"forgotten": forgotten},
            f"no longer connected to {forgotten}" if forgotten else "was not connected",
        )
        return
    url = connection.checked_url(url)
    if connection.travels_openly(url):
        _say(
            f"Warning: to {url} the token and the images travel unencrypted; use https:// if you can"
        )
    stored = connection.stored_token(url)
    token = stored or connection.team_token(url, ask_token if sys.stdin.isatty() else None)
    team = connection.connect_team(workspace.root, url, token)
    if stored is None:
        _offer_keyring(url, token)
    projects = _prepare(workspace, team.connection)
    data = {"url": url, "version": team.version, "user": team.user, "projects": projects}
    lines = [
        f"connected to {url}: Label Studio {team.version}, as {team.user}",
        *(f"  project {purpose}: {page}" for purpose, page in projects.items()),
    ]
    settings.emit(data, "\n".join(lines))


@label.command("backend", cls=Command)
@click.argument("url", required=False)
@click.option(
    "--clicks",
    is_flag=True,
    help="Show annotators the labels to click with: each click asks for a region of that class.",
)
@click.option("--forget", is_flag=True, help="Connect 'ddiseg serve' no longer.")
@pass_settings
def backend(settings: Settings, url: str | None, clicks: bool, forget: bool) -> None:
    """Connect 'ddiseg serve' at URL with Label Studio, as its ML backend and by webhooks.

    URL is where Label Studio reaches it, such as http://127.0.0.1:9090; it must be running. From
    then on a task without a prediction is predicted when somebody opens it, and what is submitted is
    pulled at once. Again with another URL, or without --clicks, replaces the connection.
    """
    from ddiseg.labelstudio.ml_backend import BackendAddress, connect_backend, disconnect_backend

    if forget == bool(url):
        raise click.UsageError("give the URL of 'ddiseg serve', or --forget alone")
    workspace = settings.open()
    connection = connection_of(workspace)
    if url is None:
        forgotten = disconnect_backend(workspace, connection)
        settings.emit(
            {"forgotten": forgotten}, "no longer connected" if forgotten else "was not connected"
        )
        return
    from ddiseg.server.auth import ensure_credentials

    known = ensure_credentials(workspace.root)
    address = BackendAddress(url, known.user, known.password, known.webhook_secret)
    project = connect_backend(workspace, connection, address, clicks=clicks)
    settings.emit(
        {"url": url, "project": project.url, "clicks": clicks},
        f"connected {url} with {project.url}"
        + (": switch on Auto-Annotation at a task, then click" if clicks else ""),
    )


def _ask_team(url: str) -> tuple[str | None, str | None]:
    """The version of a team's server, or what is wrong with it."""
    from ddiseg.labelstudio.connection import server_version

    try:
        return server_version(url), None
    except ServerError as error:
        return None, str(error)


def _prepare(workspace: Workspace, connection: Connection) -> dict[str, str]:
    """Make the projects that are missing; their URLs by purpose."""
    from ddiseg.labelstudio.projects import ensure_projects

    projects = ensure_projects(workspace, connection)
    return {purpose.value: project.url for purpose, project in projects.items()}


def _as_data(running: Running) -> dict[str, Any]:
    return {
        "url": running.url,
        "port": running.port,
        "pid": running.process.pid,
        "since": running.since,
        "version": running.version,
    }


def _offer_keyring(url: str, token: str) -> None:
    from ddiseg.labelstudio import connection

    if not connection.has_keyring():
        _say(
            f"to be asked no more, put the token into {connection.TOKEN_VARIABLE} or install ddiseg[keyring]"
        )
    elif click.confirm("Keep the token in your keyring?", default=True, err=True):
        connection.keep_in_keyring(url, token)


def _say(line: str) -> None:
    click.echo(line, err=True)
