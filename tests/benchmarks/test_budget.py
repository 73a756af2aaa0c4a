"""A table within a number of seconds."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.budget import Table

ROOT = Path(__file__).parents[2]


def test_stage__without_time_for_it() -> None:
    lines: list[str] = []
    table = Table(10, lines.append)
    table.stage("long", 1000, lambda: lines.append("was run"))
    table.stage("short", 1, lambda: table.row("short", "3 s", "5 s", 3 < 5))
    assert lines[0].startswith("| long | not measured: it takes about 1000 s, and ")
    assert lines[1:] == ["| short | 3 s | 5 s: met |"]
    assert not table.failed


@pytest.mark.filterwarnings("ignore")
def test_stage__memory_runs_out(capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    lines: list[str] = []
    table = Table(10, lines.append)
    table.stage("training", 0, full)
    assert lines == ["| training | not measured: the GPU's memory ran out |  |"]
    assert table.failed
    assert "CUDA out of memory" in capsys.readouterr().err


def test_folder__is_removed_and_the_run_goes_on(tmp_path: Path) -> None:
    with Table(10, print).folder() as folder:
        (folder / "photographs").mkdir()
    assert not folder.exists()


@pytest.mark.process
def test_stage__that_hangs_is_given_up() -> None:
    code = (
        "import time\n"
        "from benchmarks import budget\n"
        "budget.GRACE = 0.2\n"
        "table = budget.Table(0.1, print)\n"
        "with table.folder() as folder:\n"
        "    print(folder)\n"
        "    table.stage('compiling', 0, lambda: time.sleep(120))\n"
    )
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=100,
        check=False,
    )
    folder, row = done.stdout.splitlines()
    assert done.returncode == 1
    assert row == "| compiling | given up: the budget of time ended, with all that follows |  |"
    assert not Path(folder).exists()
    assert time.monotonic() - start < 100
