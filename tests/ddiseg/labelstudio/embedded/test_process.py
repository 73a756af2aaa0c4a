"""Background processes: found again, never mixed up, and ended."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ddiseg.labelstudio.embedded import process
from ddiseg.labelstudio.embedded.process import Process, attended
from ddiseg.processes import _started_by_proc, _started_by_ps, started

pytestmark = pytest.mark.process

SLEEP = [sys.executable, "-c", "print('here', flush=True); import time; time.sleep(60)"]


def spawn(folder: Path, command: list[str] = SLEEP) -> Process:
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        return Process.spawn(command, {"NAME": "value"}, folder, log)
    finally:
        os.close(log)


def test_spawn__alive_until_it_is_stopped(tmp_path: Path) -> None:
    made = spawn(tmp_path)
    assert made.alive
    assert os.getsid(made.pid) == made.pid != os.getsid(0)
    made.stop()
    assert not made.alive
    made.stop()


def test_spawn__what_it_makes_is_its_owners_alone(tmp_path: Path) -> None:
    code = "import os; open('made', 'w').write(os.environ['NAME'])"
    made = spawn(tmp_path, [sys.executable, "-c", code])
    made._wait(10)
    assert (tmp_path / "made").read_text() == "value"
    assert (tmp_path / "made").stat().st_mode & 0o077 == 0


def test_stop__deaf_to_the_first_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE", 0.5)
    code = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); open('deaf', 'w'); time.sleep(60)"
    )
    made = spawn(tmp_path, [sys.executable, "-c", code])
    while not (tmp_path / "deaf").exists():
        assert made.alive
    made.stop()
    assert not made.alive


def test_stop__what_it_started_ends_too(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "open('part', 'w').write(str(p.pid)); import os; os.rename('part', 'child'); time.sleep(60)"
    )
    made = spawn(tmp_path, [sys.executable, "-c", code])
    while not (tmp_path / "child").exists():
        assert made.alive
    child = int((tmp_path / "child").read_text())
    known = Process(child, str(started(child)))
    assert known.alive
    made.stop()
    known._wait(10)
    assert not known.alive


def test_stop__another_process_with_the_same_number_is_left_alone(tmp_path: Path) -> None:
    stranger = spawn(tmp_path)
    earlier = replace(stranger, started="before the machine was started again")
    assert not earlier.alive
    earlier.stop()
    assert stranger.alive
    stranger.stop()


@pytest.mark.parametrize("start_of", [_started_by_proc, _started_by_ps])
def test_started__either_way_the_same_while_it_lives_and_none_after(
    tmp_path: Path, start_of: object
) -> None:
    assert callable(start_of)
    if start_of is _started_by_proc and not Path("/proc/self/stat").exists():
        pytest.skip("no /proc here")
    made = spawn(tmp_path)
    first = start_of(made.pid)
    assert first
    assert start_of(made.pid) == first
    os.kill(made.pid, 9)
    os.waitpid(made.pid, 0)
    assert start_of(made.pid) is None


def test_started__an_ended_child_that_nobody_took_note_of(tmp_path: Path) -> None:
    made = spawn(tmp_path, [sys.executable, "-c", ""])
    os.waitid(os.P_PID, made.pid, os.WEXITED | os.WNOWAIT)
    assert _started_by_ps(made.pid) is None
    if Path("/proc/self/stat").exists():
        assert _started_by_proc(made.pid) is None
    assert not made.alive


def test_attended__waits_for_the_end(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('here'); exit(3)"]
    with open(tmp_path / "log", "w") as log, attended(command, log) as child:
        pass
    assert child.returncode == 3
    assert (tmp_path / "log").read_text() == "here\n"


@pytest.mark.parametrize("deaf", [False, True])
def test_attended__ends_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaf: bool
) -> None:
    """Also where what it started does not listen to the first signal, and outlives it."""
    monkeypatch.setattr(process, "GRACE", 0.5)
    listen = "signal.signal(15, signal.SIG_IGN)" if deaf else ""
    grandchild = f"import signal, time; {listen}; print('here', flush=True); time.sleep(60)"
    code = (
        f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {grandchild!r}]); "
        "open('child', 'w').write(str(p.pid)); p.wait()"
    )
    monkeypatch.chdir(tmp_path)

    def stopped() -> None:
        with open("log", "w") as log, attended([sys.executable, "-c", code], log):
            while not Path("log").read_text():
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    deadline = time.monotonic() + 10
    while started(int(Path("child").read_text())) is not None:
        assert time.monotonic() < deadline
