"""What all commands share: options anywhere on the line, JSON alone on stdout, exit statuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.cli import common
from ddiseg.cli.common import (
    Group,
    Settings,
    common_options,
    pass_settings,
    progress_bar,
    progress_stages,
    report_outcomes,
    run,
)
from ddiseg.cli.main import cli
from ddiseg.errors import DdisegError, InputError
from ddiseg.outcomes import FileOutcome, Outcome
from ddiseg.workspace.workspace import Workspace
from tests.wording import Refusal

Run = Callable[..., Any]


@pytest.fixture
def try_it(capsys: pytest.CaptureFixture[str]) -> Run:
    """try_it(error, *args): run a command that does its work and raises `error` if there is one."""

    def call(error: BaseException | None, *args: str) -> tuple[int, str, str]:
        @click.group("try", cls=Group, params=common_options())
        def group() -> None:
            """Try."""

        @group.command("work")
        @pass_settings
        def work(settings: Settings) -> None:
            """Work."""
            with progress_bar("work") as progress:
                progress(1, 2)
                if error is not None:
                    raise error
            settings.emit({"where": str(settings.workspace)}, f"at {settings.workspace}")

        status = run(group, args)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


def test_run__result_on_stdout_and_the_rest_on_stderr(try_it: Run) -> None:
    status, out, err = try_it(None, "work")
    assert (status, out) == (0, "at None\n")
    assert err.startswith("work: 2 in ")


def test_progress_bar__off_a_terminal_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wording: SnapshotAssertion
) -> None:
    clock = iter([0.0, 5.0, 15.0, 15.0, 16.0, 31.0, 31.0, 32.0])
    monkeypatch.setattr(common.time, "monotonic", lambda: next(clock))
    with progress_bar("Work") as progress:
        for done in range(1, 5):
            progress(done, 4)
    lines = capsys.readouterr().err.splitlines()
    assert lines == wording


def test_progress_stages__a_bar_each(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_stages() as stages:
        first, second, third = stages("First"), stages("Second"), stages("Third")
        first(0, 0)  # nothing to be done: nothing to be shown
        assert capsys.readouterr().err == ""
        first(1, 2)
        first(2, 2)
        assert capsys.readouterr().err.startswith("First: 2 in ")
        second(1, 9)
        third(1, 3)
        assert capsys.readouterr().err.startswith("Second: 9 in ")
    assert capsys.readouterr().err.startswith("Third: 3 in ")


@pytest.mark.parametrize(
    "args",
    [
        ("--output", "json", "--workspace", "x", "work"),
        ("work", "--output", "json", "--workspace", "x"),
        ("--workspace", "x", "work", "--output", "json"),
        ("--workspace", "y", "--output", "text", "work", "--workspace", "x", "--output", "json"),
    ],
)
def test_options__before_and_after_the_command(try_it: Run, args: tuple[str, ...]) -> None:
    status, out, _ = try_it(None, *args)
    assert status == 0
    assert json.loads(out) == {"where": "x"}


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("work",), "env"),
        (("work", "--workspace", "x"), "x"),
        (("--workspace", "x", "work"), "x"),
    ],
)
def test_workspace__environment_gives_way_to_the_line(
    try_it: Run, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], expected: str
) -> None:
    monkeypatch.setenv("DDISEG_WORKSPACE", "env")
    assert try_it(None, *args)[1] == f"at {expected}\n"


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (
            InputError("row 3: no such file; correct it"),
            1,
            "Error: row 3: no such file; correct it\n",
        ),
        (click.UsageError("no such thing"), 2, "Error: no such thing\n"),
        (click.ClickException("went wrong"), 1, "Error: went wrong\n"),
        (
            FileNotFoundError(2, "No such file or directory", "x.csv"),
            1,
            "Error: x.csv: No such file or directory; correct that and run the same command again\n",
        ),
        (
            ZeroDivisionError("division by zero\nand more"),
            1,
            "Error: unexpected ZeroDivisionError: division by zero "
            "(a defect: run again with --debug and report it)\n",
        ),
        (KeyboardInterrupt(), 130, "Stopped. What was finished is kept"),
        (click.Abort(), 130, "Stopped. What was finished is kept"),
    ],
)
def test_run__errors(try_it: Run, error: BaseException, status: int, said: str) -> None:
    found, out, err = try_it(error, "work")
    assert (found, out) == (status, "")
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize("args", [("--debug", "work"), ("work", "--debug")])
@pytest.mark.parametrize("error", [DdisegError("correct it"), ZeroDivisionError("0")])
def test_debug__shows_the_traceback(try_it: Run, error: Exception, args: tuple[str, ...]) -> None:
    status, _, err = try_it(error, *args)
    assert status == 1
    assert "Traceback (most recent call last)" in err
    assert "raise error" in err


@pytest.mark.parametrize(
    "args", [(), ("nonsense",), ("work", "--nonsense"), ("work", "--output", "xml"), ("work", "x")]
)
def test_run__wrong_usage(try_it: Run, args: tuple[str, ...]) -> None:
    status, out, _ = try_it(None, *args)
    assert (status, out) == (2, "")


@pytest.mark.parametrize("args", [("--help",), ("work", "--help")])
def test_help__is_a_result(try_it: Run, args: tuple[str, ...]) -> None:
    status, out, err = try_it(None, *args)
    assert status == 0
    assert out.startswith("Usage: try")
    assert err == ""


OUTCOMES = [
    FileOutcome("a.png", Outcome.ADDED),
    FileOutcome("b.png", Outcome.ADDED, "turned upright"),
    FileOutcome("c.png", Outcome.REFUSED, "holds 3 frames"),
]


def test_report_outcomes__text(
    capsys: pytest.CaptureFixture[str], wording: SnapshotAssertion
) -> None:
    report_outcomes(Settings(), OUTCOMES, "files", strict=False, extra={}, lines=["so far"])
    assert capsys.readouterr().out.splitlines() == wording


def test_report_outcomes__long_lists_are_cut_in_text_only(
    capsys: pytest.CaptureFixture[str],
) -> None:
    many = [FileOutcome(f"{n}.png", Outcome.ADDED, f"note {n}") for n in range(50)]
    report_outcomes(Settings(), many, "files", strict=False, extra={})
    assert capsys.readouterr().out.endswith("and 30 more with a note; --output json lists all\n")
    report_outcomes(Settings(output="json"), many, "files", strict=False, extra={"more": 1})
    data = json.loads(capsys.readouterr().out)
    assert len(data["files"]) == 50
    assert data["counts"] == {"added": 50, "unchanged": 0, "repaired": 0, "refused": 0}
    assert data["more"] == 1


def test_report_outcomes__equal_reasons_share_a_line_in_text_only(
    capsys: pytest.CaptureFixture[str], wording: SnapshotAssertion
) -> None:
    outcomes = [FileOutcome(f"{n}.png", Outcome.REFUSED, "is no mask") for n in range(40)]
    outcomes.append(FileOutcome("x.png", Outcome.ADDED))
    report_outcomes(Settings(), outcomes, "masks", strict=False, extra={})
    assert capsys.readouterr().out.splitlines() == wording
    report_outcomes(Settings(output="json"), outcomes, "masks", strict=False, extra={})
    assert len(json.loads(capsys.readouterr().out)["files"]) == 41


def test_report_outcomes__many_reasons_of_refusal_are_cut(
    capsys: pytest.CaptureFixture[str], wording: SnapshotAssertion
) -> None:
    many = [FileOutcome(f"{n}.png", Outcome.REFUSED, f"reason {n}") for n in range(50)]
    report_outcomes(Settings(), [*many, OUTCOMES[0]], "files", strict=False, extra={})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 22
    assert lines[-1] == wording


@pytest.mark.parametrize("output", ["text", "json"])
def test_report_outcomes__everything_refused_fails(
    capsys: pytest.CaptureFixture[str], output: str, refusal: Refusal
) -> None:
    settings = Settings(output=output)
    with refusal(DdisegError):
        report_outcomes(settings, [OUTCOMES[2]] * 2, "files", strict=False, extra={})
    assert "holds 3 frames" in capsys.readouterr().out, "what was refused is printed all the same"
    report_outcomes(settings, [], "files", strict=False, extra={})
    unchanged = FileOutcome("d.png", Outcome.UNCHANGED)
    report_outcomes(settings, [OUTCOMES[2], unchanged], "files", strict=False, extra={})


def test_report_outcomes__strict(capsys: pytest.CaptureFixture[str], refusal: Refusal) -> None:
    with refusal(DdisegError):
        report_outcomes(Settings(), OUTCOMES, "files", strict=True, extra={})
    assert "2 added" in capsys.readouterr().out
    report_outcomes(Settings(), OUTCOMES[:2], "files", strict=True, extra={})


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += _commands(command, (*path, name))
        else:
            found.append((*path, name))
    return found


@pytest.mark.parametrize("command", _commands(cli), ids=" ".join)
def test_every_command__has_help_and_the_common_options(
    ddiseg: Run, command: tuple[str, ...]
) -> None:
    result = ddiseg(*command, "--help")
    assert (result.status, result.err) == (0, "")
    for option in ("--workspace", "--output", "--debug", "DDISEG_WORKSPACE"):
        assert option in result.out


NEEDS_WORKSPACE = [c for c in _commands(cli) if c in {("status",), ("verify",), ("subset", "list")}]


@pytest.mark.process
@pytest.mark.parametrize("command", NEEDS_WORKSPACE, ids=" ".join)
def test_json__alone_on_stdout(ddiseg: Run, filled: Workspace, command: tuple[str, ...]) -> None:
    result = ddiseg("--workspace", filled.root, "--output", "json", *command)
    assert result.status == 0
    assert isinstance(result.json, dict)


@pytest.mark.parametrize("command", NEEDS_WORKSPACE, ids=" ".join)
def test_no_workspace__one_line(ddiseg: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    result = ddiseg(*command, "--workspace", tmp_path)
    assert (result.status, result.out) == (1, "")
    assert result.err == (
        f"Error: --workspace is '{tmp_path}', which is no workspace: give another --workspace, "
        f"or make one there with 'ddiseg init {tmp_path}'\n"
    )


@pytest.mark.process
def test_console_script__ends_with_the_status(tmp_path: Path) -> None:
    code = "from ddiseg.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "status", "--workspace", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")


@pytest.mark.parametrize(
    ("args", "name"),
    [
        (("evaluate", "--accepted", "--classes", ""), "--classes"),
        (("evaluate", "--accepted", "--subset="), "--subset"),
        (("prelabel", "--batch", ""), "--batch"),
        (("label", "push", "--subset", ""), "--subset"),
        (("batch", "draw", "a", "--tone", "V-VI", "--tone", ""), "--tone"),
        (("subset", "draw", ""), "NAME"),
        (("import", ""), "PATH"),
        (("export", "--to", ""), "--to"),
    ],
)
def test_empty_values__are_refused_rather_than_taken_for_none(
    ddiseg: Run, filled: Workspace, args: tuple[str, ...], name: str
) -> None:
    result = ddiseg("--workspace", filled.root, *args)
    assert (result.status, result.out) == (2, "")
    said = " ".join(result.err.split())
    assert f"{name}" in said
    assert "is empty: is a shell variable unset? Give a value" in said


@pytest.mark.process
def test_json__is_utf_8_whatever_the_names_of_files(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path) + b"/s4\xff"
    for output, expected in (("json", rb'"workspace": ".*/s4\\udcff"'), ("text", rb"s4\\udcff: ")):
        code = "from ddiseg.cli.main import main; main()"
        command = [sys.executable, "-c", code, "--output", output, "init", root]
        printed = subprocess.run(command, capture_output=True, check=True).stdout
        assert re.search(expected, printed)
        printed.decode("utf-8")
        if output == "json":
            assert os.fsencode(json.loads(printed)["workspace"]) == root
