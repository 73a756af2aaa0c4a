"""`ddiseg loop` and `ddiseg refresh --gate` as they are typed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue.leases import LeaseHeldError
from ddiseg.errors import WorkspaceError
from ddiseg.labelstudio.connection import TOKEN_VARIABLE
from ddiseg.loop import round as rounds
from ddiseg.loop.options import RoundOptions
from ddiseg.model import train as refreshing
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.labelstudio.studio import Studio, team_server
from tests.ddiseg.spots import one_thread, spots, tiny_weights
from tests.fake_label_studio import status
from tests.fedd.conftest import QUICK

__all__ = ["one_thread", "spots", "tiny_weights"]

Run = Callable[..., Any]


@pytest.fixture
def studio(spots: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(refreshing, "default_settings", lambda _config: QUICK)
    with team_server(spots, monkeypatch) as studio:
        yield studio


@pytest.fixture
def loop(ddiseg: Run, spots: Workspace) -> Run:
    """loop("run", ...): the result of that command in the workspace."""
    return lambda *words: ddiseg("loop", *words, "--workspace", spots.root)


@pytest.mark.process
def test_run_once__says_what_each_step_did(
    studio: Studio, loop: Run, tiny_weights: Path, wording: SnapshotAssertion
) -> None:
    result = loop("run", "--once", "--every", 2, "--draw", 3, "--backbone", tiny_weights)
    assert result.status == 0
    lines = [line.split(maxsplit=1) for line in result.out.splitlines()]
    assert [name for name, _ in lines] == ["pull", "review", "refresh", "select", "predict", "push"]
    assert lines[2][1].startswith("fedd-1, from")
    assert lines[3][1].startswith("auto-1: 3 images (")
    assert lines[5][1] == wording


@pytest.mark.process
def test_run_once__what_it_drew_goes_out_with_its_options(
    studio: Studio, loop: Run, tiny_weights: Path
) -> None:
    words = ("--every", 2, "--draw", 3, "--backbone", tiny_weights, "--control", 34)
    assert loop("run", "--once", *words, "--readers", 2, "--sample", 34).status == 0
    tasks = studio.tasks()
    assert Counter(task.arm for task in tasks) == {"control": 1, "painted": 2}
    assert Counter(task.readers for task in tasks) == {2: 1, 1: 2}


@pytest.mark.process
def test_run_once__a_step_that_failed_is_the_exit_status(
    studio: Studio, loop: Run, wording: SnapshotAssertion
) -> None:
    studio.server.misbehave("*", "*", status(500), times=None)
    result = loop("run", "--once", "--every", 100)
    assert result.status == 1
    assert "pull     FAILED: " in result.out
    assert result.err == wording
    studio.server.behave()


@pytest.mark.process
def test_run__dry_run_changes_nothing(studio: Studio, loop: Run) -> None:
    before = studio.catalogue.events.count()
    result = loop("run", "--dry-run", "--output", "json")
    assert result.status == 0
    assert [step["step"] for step in result.json["steps"]][:2] == ["pull", "review"]
    assert result.json["steps"][2]["said"].startswith("not due: 4 accepted masks")
    assert studio.catalogue.events.count() == before


@pytest.mark.process
def test_run__dry_run_says_what_would_fail(
    spots: Workspace, loop: Run, wording: SnapshotAssertion
) -> None:
    result = loop("run", "--dry-run")
    assert result.status == 1
    assert "'ddiseg label up' starts one" in result.out
    assert result.err == wording


@pytest.mark.process
def test_run__until_it_is_told_to_stop(studio: Studio) -> None:
    """SIGTERM, as systemd sends it: one line, and the next round finds everything in order."""
    command = [sys.executable, "-c", "from ddiseg.cli.main import main; main()"]
    command += ["--workspace", str(studio.workspace.root), "loop", "run", "--every", "100"]
    environment = {**os.environ, TOKEN_VARIABLE: studio.server.token, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("  push:"):
                process.send_signal(signal.SIGTERM)
                break
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "Stopped. What was finished is kept" in err
    assert "Traceback" not in err


@pytest.mark.process
def test_run__a_round_that_can_not_run_does_not_end_it(
    studio: Studio, loop: Run, monkeypatch: pytest.MonkeyPatch, wording: SnapshotAssertion
) -> None:
    errors: list[BaseException] = [
        LeaseHeldError("another round runs here"),
        WorkspaceError("the catalogue is locked"),
        KeyboardInterrupt(),
    ]
    naps: list[float] = []

    def no_round(*_args: object, **_options: object) -> None:
        raise errors.pop(0)

    monkeypatch.setattr(rounds, "run_round", no_round)
    monkeypatch.setattr(signal, "signal", lambda *_handler: None)
    monkeypatch.setattr(time, "sleep", naps.append)
    result = loop("run", "--interval", 2)
    assert result.status == 130
    assert naps == [120, 120]
    told = [line for line in result.err.splitlines() if line.startswith("  no round")]
    assert told == wording


@pytest.mark.process
@pytest.mark.parametrize(
    "words",
    [
        ("--every", "0"), ("--max-age", "-1"), ("--max-age", "nan"), ("--max-age", "inf"),
        ("--max-drop", "nan"), ("--tolerance", "5"), ("--interval", "nan"), ("--interval", "0"),
        ("--interval", "inf"), ("--draw", "-2"), ("--control", "120"), ("--control", "nan"),
        ("--readers", "0"), ("--sample", "-1"), ("--review-sample", "120"),
    ],
)  # fmt: skip
def test_run__numbers_that_can_not_be(loop: Run, words: tuple[str, str]) -> None:
    result = loop("run", "--once", *words)
    assert result.status == 2
    assert f"{words[0]}'" in result.err


@pytest.mark.process
def test_status__before_and_after_a_round(
    studio: Studio, loop: Run, tiny_weights: Path, wording: SnapshotAssertion
) -> None:
    assert loop("status").out.splitlines() == wording
    loop("run", "--once", "--every", 2, "--backbone", tiny_weights)
    lines = loop("status").out.splitlines()
    assert lines[0] == "in use: fedd-1"
    assert lines[2] == wording
    assert lines[3].startswith("round 1, ")
    assert lines[3].endswith(" UTC: done")
    assert len(lines) == 4 + 6
    data = loop("status", "--output", "json").json
    assert data["rounds"][0]["outcome"] == "done"
    assert data["refresh"]["due"] is False


@pytest.mark.process
def test_status__a_round_that_was_broken_off(spots: Workspace, loop: Run) -> None:
    spots.catalogue.rounds.begin("manager", {})
    assert loop("status").out.splitlines()[3].endswith("at work, or broken off")


@pytest.mark.process
def test_status__is_due_by_the_settings_of_the_last_round(
    spots: Workspace, loop: Run, wording: SnapshotAssertion
) -> None:
    spots.catalogue.rounds.begin("manager", RoundOptions(every=2, max_age=3).as_dict())
    spots.catalogue.rounds.begin("manager", RoundOptions(every=4, max_age=0.5).as_dict())
    lines = loop("status").out.splitlines()
    assert lines[1] == wording
    assert lines[2] == wording


@pytest.mark.process
def test_status__its_own_options_win(
    spots: Workspace, loop: Run, wording: SnapshotAssertion
) -> None:
    spots.catalogue.rounds.begin("manager", RoundOptions(every=2, max_age=3).as_dict())
    lines = loop("status", "--every", 5).out.splitlines()
    assert lines[1] == wording
    assert lines[2] == wording
    data = loop("status", "--max-age", 2, "--output", "json").json
    assert data["refresh"]["every"] == 2
    assert data["refresh"]["max_age"] == 2
    assert data["refresh"]["sources"] == {"--every": "as in round 1", "--max-age": "given here"}
    assert data["rounds"][0]["settings"]["max_age"] == 3


@pytest.mark.process
@pytest.mark.parametrize(
    "words", [("--every", 0), ("--max-age", "nan"), ("--max-age", 0), ("--max-age", "inf")]
)
def test_status__numbers_that_can_not_be(loop: Run, words: tuple[str, Any]) -> None:
    result = loop("status", *words)
    assert result.status == 2
    assert f"Invalid value for '{words[0]}'" in result.err


@pytest.mark.process
def test_refresh__with_the_gate_says_what_it_said(
    studio: Studio, ddiseg: Run, tiny_weights: Path, wording: SnapshotAssertion
) -> None:
    words = ("refresh", "--backbone", tiny_weights, "--device", "cpu")
    result = ddiseg(*words, "--gate", "--workspace", studio.workspace.root)
    assert result.status == 0
    lines = result.out.splitlines()
    assert lines[1] == wording
    assert lines[2].startswith("  not evaluated: ")
    again = ddiseg(*words, "--output", "json", "--workspace", studio.workspace.root)
    assert again.json["new"] is False
    assert again.json["gate"]["judged"] is False
    assert again.json["in_use"] == "fedd-1"
