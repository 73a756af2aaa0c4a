"""Rounds of two workspace folders that share a catalogue, on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from sqlalchemy import text

from ddiseg.catalogue.leases import ROUND, LeaseHeldError, LeaseLostError
from ddiseg.errors import WorkspaceError
from ddiseg.labelstudio.connection import Connection
from ddiseg.loop.options import RoundOptions
from ddiseg.loop.round import run_round
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.cli.conftest import ddiseg
from tests.forks import FORKS

__all__ = ["ddiseg"]  # a fixture

OPTIONS = RoundOptions(device="cpu")


@pytest.fixture
def folders(tmp_path: Path, shared_url: str) -> Iterator[tuple[Workspace, Workspace]]:
    """Two workspace folders on one catalogue and one store."""
    made = [Workspace.create(tmp_path / name, shared_url, str(tmp_path / "store")) for name in "ab"]
    yield made[0], made[1]
    for workspace in made:
        workspace.catalogue.close()


def no_server() -> NoReturn:
    raise WorkspaceError("no labelling server")


def _round(root: Path, begun: Any, go: Any) -> None:
    def wait() -> Connection:
        begun.set()
        go.wait(30)
        no_server()

    run_round(Workspace.open(root), wait, OPTIONS, "manager")
    os._exit(0)


@pytest.mark.process
@pytest.mark.parametrize("killed", [True, False])
def test_round__one_at_a_time_whichever_folder_it_runs_in(
    folders: tuple[Workspace, Workspace], ddiseg: Any, killed: bool
) -> None:
    here, there = folders
    begun, go = FORKS.Event(), FORKS.Event()
    other = FORKS.Process(target=_round, args=(there.root, begun, go))
    other.start()
    assert begun.wait(30)
    with pytest.raises(LeaseHeldError, match=f"process {other.pid} on "):
        run_round(here, no_server, OPTIONS, "manager")
    for command in (["status"], ["loop", "status"]):
        shown = ddiseg("--workspace", here.root, *command)
        assert f"running a round: process {other.pid} on " in shown.out
        data = ddiseg("--workspace", here.root, "--output", "json", *command).json
        assert data["round_holder"].startswith(f"process {other.pid} on ")
    assert len(here.catalogue.rounds.last(5)) == 1
    other.kill() if killed else go.set()
    other.join()
    assert "running a round" not in ddiseg("--workspace", here.root, "status").out
    run_round(here, no_server, OPTIONS, "manager")
    after, before = here.catalogue.rounds.last(5)
    assert after.outcome is not None
    assert (before.outcome is None) == killed


@pytest.mark.process
def test_round__stops_before_the_next_step_when_its_lease_is_lost(
    folders: tuple[Workspace, Workspace],
) -> None:
    workspace, _ = folders

    def overtaken() -> Connection:
        with workspace.catalogue._database.write() as session:
            session.execute(
                text("UPDATE leases SET owner = 'x', holder = 'process 7 on elsewhere'")
            )
        no_server()

    with pytest.raises(LeaseLostError, match="process 7 on elsewhere"):
        run_round(workspace, overtaken, OPTIONS, "manager")
    (row,) = workspace.catalogue.rounds.last(5)
    assert [step["step"] for step in row.steps] == ["pull"], "no step follows, none is half stored"
    assert row.outcome is None
    with pytest.raises(LeaseHeldError, match="process 7"), workspace.catalogue.leases.hold(ROUND):
        pytest.fail("the round that lost the lease gave back the other one's")
