"""`ddiseg loop`: pull, train, predict and push by itself."""

from __future__ import annotations

import signal
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from annotation_protocol import UserError
from ddiseg.cli.common import (
    Command,
    Group,
    Settings,
    common_options,
    connection_of,
    pass_settings,
    progress_stages,
)
from ddiseg.cli.params import (
    WEEK,
    Number,
    read_round_options,
    round_options,
    setting_options,
    settings_text,
)
from ddiseg.errors import DdisegError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ddiseg.loop.options import RoundOptions
    from ddiseg.loop.steps import StepResult
    from ddiseg.workspace.workspace import Workspace


#: The outcome of a round that has no end.
_BROKEN_OFF = "at work, or broken off"


@click.group("loop", cls=Group, params=common_options())
def loop() -> None:
    """Pull, train when due, predict and push, once or for ever."""


@loop.command("run", cls=Command)
@click.option("--once", is_flag=True, help="One round, for cron or a systemd timer.")
@click.option("--dry-run", is_flag=True, help="Say what a round would do, and do nothing.")
@click.option(
    "--interval",
    type=Number(min=0.01, max=WEEK),
    default=5.0,
    show_default=True,
    metavar="MINUTES",
    help="Time from one round to the next.",
)
@round_options
@pass_settings
def run(
    settings: Settings, /, once: bool, dry_run: bool, interval: float, draw: int, **given: Any
) -> None:
    """Run rounds of the loop until stopped, or one with --once.

    A round pulls annotations and verdicts, gives submitted masks to reviewers, refreshes the model
    when that is due, chooses a batch if asked to, predicts the images that people have or are to have,
    and brings their tasks up to date. It gives people the batches that it drew itself; one that a
    person drew is given out by that person, with 'ddiseg label push'. About every fifth patient's
    accepted masks are a hold-out set, never learned from: on it the gate compares a new version with
    the one in use, which stays where the new one is worse overall or for any tone. Only one round
    runs at a time, and each can be stopped at any moment: the next one goes on from there.
    """
    workspace = settings.open()
    options = read_round_options(workspace, draw, given)
    if changed := workspace.study().changed():
        click.echo(f"study: {settings_text(changed)}", err=True)
    if dry_run:
        _plan(settings, workspace, options)
        return
    if once:
        _once(settings, workspace, options)
        return
    _until_stopped(workspace, options, interval * 60)


@loop.command("status", cls=Command)
@click.option(
    "--last",
    "count",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="How many rounds.",
)
@setting_options("training.every", "training.max-age")
@pass_settings
def show_status(settings: Settings, count: int, every: int | None, max_age: float | None) -> None:
    """Show the last rounds, the version in use, and when the next refresh is due.

    Whether a refresh is due is decided by [training] of the workspace's settings (ddiseg config show)
    or, where they do not say, by the settings of the last round.
    """
    from ddiseg.catalogue.leases import ROUND
    from ddiseg.loop.schedule import RefreshSettings, refresh_due

    workspace = settings.open()
    catalogue = workspace.catalogue
    rounds = catalogue.rounds.last(count)
    used = RefreshSettings.read(workspace, every, max_age)
    study = workspace.study().changed()
    due = refresh_due(catalogue, used.every, timedelta(days=used.max_age))
    current = catalogue.models.current_or_none()
    in_use = current.name if current else None
    lines = [
        f"in use: {in_use or 'no model yet'}",
        f"refresh: {'due' if due.is_due else 'not due'}, {due.why}",
        f"settings: {used.as_text}",
        *([f"study: {settings_text(study)}"] if study else []),
    ]
    if round_holder := catalogue.leases.holder(ROUND):
        lines.append(f"running a round: {round_holder}")
    for row in rounds:
        lines.append(f"round {row.id}, {row.started_at[:16]} UTC: {row.outcome or _BROKEN_OFF}")
        lines += [_line(s["step"], s["said"], s["failed"]) for s in row.steps]
    if not rounds:
        lines.append("no round yet: 'ddiseg loop run --once'")
    data = {
        "in_use": in_use,
        "study": study,
        "refresh": {
            "due": due.is_due,
            "why": due.why,
            "every": used.every,
            "max_age": used.max_age,
            "sources": used.sources,
        },
        "round_holder": round_holder,
        "jobs_waiting": catalogue.jobs.waiting(),
        "rounds": [
            {
                "round": row.id,
                "started_at": row.started_at,
                "ended_at": row.ended_at,
                "outcome": row.outcome or _BROKEN_OFF,
                "settings": row.settings,
                "steps": row.steps,
            }
            for row in rounds
        ],
    }
    settings.emit(data, "\n".join(lines))


def _plan(settings: Settings, workspace: Workspace, options: RoundOptions) -> None:
    from ddiseg.loop.plan import plan_round
    from ddiseg.loop.steps import shown_name

    steps = plan_round(workspace, lambda: connection_of(workspace), options)
    _emit(settings, steps)
    if failed := [shown_name(step.name) for step in steps if step.failed]:
        raise DdisegError(f"{', '.join(failed)} would fail; correct that first")


def _once(settings: Settings, workspace: Workspace, options: RoundOptions) -> None:
    from ddiseg.loop.round import run_round
    from ddiseg.loop.steps import shown_name
    from ddiseg.workspace.workspace import default_actor

    with progress_stages() as stages:
        steps = run_round(
            workspace, lambda: connection_of(workspace), options, default_actor(), stages=stages
        )
    _emit(settings, steps)
    if failed := [shown_name(step.name) for step in steps if step.failed]:
        raise DdisegError(f"{', '.join(failed)} failed; what was done is kept, run it again")


def _until_stopped(workspace: Workspace, options: RoundOptions, seconds: float) -> None:
    """Rounds until SIGINT or SIGTERM, which ends between two steps or within one; either is safe.

    Where a round can't run, since another process is at one or has the catalogue locked, that is
    told, and the next one comes after the interval.
    """
    from ddiseg.loop.round import run_round
    from ddiseg.loop.steps import shown_name
    from ddiseg.workspace.workspace import default_actor

    def stop(*_signal: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    while True:
        click.echo(f"round at {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", err=True)
        try:
            run_round(
                workspace,
                lambda: connection_of(workspace),
                options,
                default_actor(),
                on_step=lambda step: click.echo(
                    f"  {shown_name(step.name)}: {step.said}", err=True
                ),
            )
        except (UserError, OSError) as error:
            click.echo(f"  no round, or no end of it: {error}", err=True)
        time.sleep(seconds)


def _emit(settings: Settings, steps: Sequence[StepResult]) -> None:
    lines = [_line(step.name, step.said, step.failed) for step in steps]
    settings.emit({"steps": [step.as_dict() for step in steps]}, "\n".join(lines))


def _line(name: str, said: str, failed: bool) -> str:
    from ddiseg.loop.steps import shown_name

    return f"  {shown_name(name):<8} {'FAILED: ' if failed else ''}{said}"
