"""`ddiseg config`, and the commands that follow it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddiseg.loop.options import RoundOptions
from ddiseg.workspace.settings import KEYS, find_setting
from ddiseg.workspace.workspace import Workspace
from tests.forks import FORKS

Run = Callable[..., Any]


def test_set_and_show(here: Run) -> None:
    assert here("config", "set", "study.control", "20").out == "study.control = 20, before 0\n"
    assert here("config", "set", "study.control", "20").out == "study.control = 20 (unchanged)\n"
    assert here("config", "set", "study.hide-tone", "yes").status == 0
    shown = here("config", "show").out.splitlines()
    assert [line for line in shown if line.startswith("*")] == [
        "* study.control = 20",
        "* study.hide-tone = true",
    ]
    data = here("config", "show", "--output", "json").json["settings"]
    assert list(data) == list(KEYS)
    assert data["study.control"] == {"value": 20.0, "default": 0.0}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("study.control", "120"),
        ("study.readers", "two"),
        ("study.hide-tone", "perhaps"),
        ("x", "1"),
    ],
)
def test_set__refused(here: Run, key: str, value: str) -> None:
    result = here("config", "set", key, value)
    assert result.status == 1
    assert result.err.count("\n") == 1
    assert here("config", "show").out.count("*") == 0


@pytest.mark.process
def test_bad_line__stops_the_commands_that_need_it_until_it_is_corrected(
    here: Run, workspace: Workspace
) -> None:
    with (workspace.root / "ddiseg.toml").open("a", encoding="utf-8") as file:
        file.write("[study]\nreaders = 0\n")
    result = here("status")
    assert (result.status, result.err.count("\n")) == (1, 1)
    assert here("config", "set", "study.readers", "2").status == 0
    assert here("status").out.startswith("study: study.readers 2 (ddiseg config show)\n")
    assert here("status", "--output", "json").json["study"] == {"study.readers": 2}
    assert "study: study.readers 2" in here("loop", "status").out


def test_training__decides_when_a_refresh_is_due(here: Run) -> None:
    here("config", "set", "training.every", "5")
    refresh = here("loop", "status", "--output", "json").json["refresh"]
    assert refresh["every"] == 5
    assert refresh["sources"]["--every"] == "as in ddiseg.toml"
    once = here("loop", "status", "--every", 6, "--output", "json").json["refresh"]
    assert (once["every"], once["sources"]["--every"]) == (6, "given here")


@pytest.mark.parametrize("command", [("loop", "run", "--once"), ("serve",)])
def test_seed__of_a_round_is_that_of_the_study_and_of_the_training(
    here: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    used: list[RoundOptions] = []
    monkeypatch.setattr(
        "ddiseg.loop.round.run_round", lambda *args, **_: used.append(args[2]) or []
    )
    monkeypatch.setattr("ddiseg.server.run.serve", lambda *args, **_: used.append(args[3]))
    here("config", "set", "study.seed", "3")
    here("config", "set", "training.seed", "4")
    assert here(*command).status == here(*command, "--seed", 5).status == 0
    assert [(each.push.seed, each.seed) for each in used] == [(3, 4), (5, 5)]


def _change(root: Path, key: str, barrier: Any) -> None:
    workspace = Workspace.open(root)
    for value in range(2, 12):
        barrier.wait(30)
        workspace.set(find_setting(key), find_setting(key).parse(str(value)), "manager")


@pytest.mark.process
def test_set__two_at_the_same_moment_are_both_kept(workspace: Workspace) -> None:
    barrier = FORKS.Barrier(2)
    both = [
        FORKS.Process(target=_change, args=(workspace.root, key, barrier))
        for key in ("study.control", "study.readers")
    ]
    for each in both:
        each.start()
    for each in both:
        each.join(60)
    assert [each.exitcode for each in both] == [0, 0]
    assert workspace.study().changed() == {"study.control": 11.0, "study.readers": 11}
