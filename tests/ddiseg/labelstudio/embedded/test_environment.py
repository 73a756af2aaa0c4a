"""The environment of Label Studio: installed once, and again only where it is not whole."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from annotation_protocol.errors import BusyError
from annotation_protocol.files import locked
from ddiseg.errors import WorkspaceError
from ddiseg.labelstudio.embedded import environment
from ddiseg.labelstudio.embedded.environment import (
    PINS,
    VERSION,
    ensure_environment,
    environment_folder,
)
from ddiseg.outcomes import Progress
from ddiseg.processes import started
from tests.logs import logged

pytestmark = pytest.mark.process

PYTHON = sys.executable
QUIET: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

#: A Python that makes an environment of itself, and is pip there; it notes each call. It waits
#: while there is a file `wait` beside the cache, and fails where there is one called `fail`.
FAKE = """#!{python}
import pathlib, shutil, subprocess, sys, time

home = pathlib.Path("{home}")
with open(home / "calls", "a") as calls:
    print("venv" if "venv" in sys.argv else "pip", file=calls)
if "venv" in sys.argv:
    folder = pathlib.Path(sys.argv[-1])
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "bin").mkdir(parents=True)
    shutil.copy(__file__, folder / "bin" / "python")
else:
    if (home / "log").exists():
        print((home / "log").read_text(), flush=True)
    if (home / "child").exists():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        (home / "child").write_text(str(child.pid))
    while (home / "wait").exists():
        time.sleep(0.01)
    if (home / "fail").exists():
        sys.exit("Collecting label-studio\\nERROR: No matching distribution found for tqdm\\n\\nbye")
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a cache and a fake Python; nothing is really installed."""
    fake = tmp_path / "python"
    fake.write_text(FAKE.format(python=PYTHON, home=tmp_path))
    fake.chmod(0o755)
    monkeypatch.setattr(environment.sys, "executable", str(fake))
    monkeypatch.setenv("DDISEG_CACHE", str(tmp_path / "cache"))
    return tmp_path


def calls(home: Path) -> list[str]:
    return (home / "calls").read_text().split()


def test_environment_folder__by_version_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"label-studio-{VERSION}-py{sys.version_info.major}{sys.version_info.minor}"
    monkeypatch.delenv("DDISEG_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert environment_folder() == tmp_path / ".cache" / "ddiseg" / name
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert environment_folder() == tmp_path / "x" / "ddiseg" / name
    monkeypatch.setenv("DDISEG_CACHE", str(tmp_path / "y"))
    assert environment_folder() == tmp_path / "y" / name


def test_pins__are_exact_and_of_this_version() -> None:
    lines = [line for line in PINS.read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    assert f"label-studio=={VERSION}" in lines
    # pip's own list leaves these two out, though Label Studio wants them.
    assert {"setuptools", "wheel"} <= {line.split("==")[0] for line in lines}


def test_ensure_environment__installs_once(home: Path) -> None:
    with logged() as lines:
        folder = ensure_environment()
    assert folder == environment_folder()
    assert calls(home) == ["venv", "pip"]
    assert lines == [
        f"installing Label Studio {VERSION} into {folder} (1 GB; a few minutes, up to half an hour on "
        f"a slow machine)\n  log: {folder}.log"
    ]
    with logged() as lines:
        assert ensure_environment() == folder
    assert len(calls(home)) == 2
    assert lines == []


def test_ensure_environment__two_at_once_install_once(home: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: ensure_environment(), range(2)))
    assert both == [environment_folder()] * 2
    assert calls(home) == ["venv", "pip"]


def test_ensure_environment__failed_one_is_told_and_done_anew(home: Path) -> None:
    (home / "fail").touch()
    with pytest.raises(WorkspaceError) as error:
        ensure_environment()
    log = environment_folder().with_name(f"{environment_folder().name}.log")
    assert f"ERROR: No matching distribution found for tqdm (all of it: {log})" in str(error.value)
    assert "\n" not in str(error.value)
    (home / "fail").unlink()
    ensure_environment()
    assert calls(home) == ["venv", "pip"] * 2


@pytest.mark.parametrize("damage", ["marker missing", "other pins", "interpreter gone"])
def test_ensure_environment__what_is_not_whole_is_made_anew(home: Path, damage: str) -> None:
    folder = ensure_environment()
    if damage == "marker missing":
        environment._marker(folder).unlink()
    elif damage == "other pins":
        environment._marker(folder).write_text("of an earlier ddiseg")
    else:
        (folder / "bin" / "python").unlink()
        (folder / "bin" / "python").symlink_to(home / "no python here any more")
    ensure_environment()
    assert calls(home) == ["venv", "pip"] * 2


def test_ensure_environment__killed_while_pip_runs(home: Path, wording: SnapshotAssertion) -> None:
    """pip goes on without ddiseg; the next one waits for its end, then starts from nothing."""
    (home / "wait").touch()
    code = (
        "import sys; from ddiseg.labelstudio.embedded import environment\n"
        f"environment.sys.executable = {str(home / 'python')!r}\n"
        "environment.ensure_environment()"
    )
    with subprocess.Popen([PYTHON, "-c", code], stdout=subprocess.DEVNULL) as first:
        while not (home / "calls").exists() or "pip" not in calls(home):
            time.sleep(0.01)
        first.kill()
    lock = environment_folder().with_name(f"{environment_folder().name}.lock")
    with pytest.raises(BusyError), locked(lock, "pip holds it"):
        pass

    def let_pip_end(_line: str) -> None:
        (home / "wait").unlink(missing_ok=True)

    with logged(let_pip_end) as lines:
        ensure_environment()
    assert lines[0] == wording
    assert calls(home) == ["venv", "pip"] * 2


#: What pip 23 writes: of three pinned packages one is downloaded, one built, one on this machine.
PIP = """\
Looking in indexes: https://example.org/simple
Collecting anyio==4.16.0 (from -r {pins} (line 2))
  Downloading anyio-4.16.0-py3-none-any.whl (134 kB)
     ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 134.5/134.5 kB 31.5 MB/s eta 0:00:00
Collecting attr==0.3.1 (from -r {pins} (line 3))
  Downloading attr-0.3.1.tar.gz (1.7 kB)
  Installing build dependencies: started
  Preparing metadata (pyproject.toml): finished with status 'done'
"""
REST = """\
Processing /somewhere/bleach-6.4.0-py3-none-any.whl (from -r {pins} (line 4))
Building wheels for collected packages: attr
Successfully built attr
"""


@pytest.mark.parametrize(
    ("log", "shown"),
    [
        (
            "Looking in indexes: https://example.org/simple\n",
            ("Downloading Label Studio, packages", 0),
        ),
        (PIP, ("Downloading Label Studio, packages", 2)),
        (PIP + REST, ("Downloading Label Studio, packages", 3)),
        (
            f"{PIP}{REST}Installing collected packages: attr, anyio, bleach\n",
            ("Installing Label Studio, packages", 1),
        ),
    ],
)
def test_packages_done__by_what_pip_wrote(tmp_path: Path, log: str, shown: tuple[str, int]) -> None:
    (tmp_path / "lib" / "python3.11" / "site-packages" / "anyio-4.16.0.dist-info").mkdir(
        parents=True
    )
    assert environment._packages_done(tmp_path, log) == shown


def test_ensure_environment__shows_how_far_pip_is(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While pip runs; a stage that is through is told so once."""
    monkeypatch.setattr(environment, "POLL", 0.01)
    monkeypatch.setattr(environment, "PINS", home / "pins.txt")
    (home / "pins.txt").write_text("# three\nanyio==4.16.0\nattr==0.3.1\nbleach==6.4.0\n")
    (home / "log").write_text(PIP + REST)
    (home / "wait").touch()
    told: list[tuple[str, int, int]] = []

    def stages(stage: str) -> Progress:
        def progress(done: int, total: int) -> None:
            told.append((stage, done, total))
            (home / "wait").unlink(missing_ok=True)

        return progress

    ensure_environment(stages)
    assert told == [("Downloading Label Studio, packages", 3, 3)]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ensure_environment__stopped_by_a_person(home: Path, sign: signal.Signals) -> None:
    """pip and what it started end with ddiseg; what it left is no environment, and made anew."""
    (home / "wait").touch()
    (home / "child").touch()
    code = (
        "from ddiseg.cli.common import stopped_like_ctrl_c\n"
        "from ddiseg.labelstudio.embedded import environment\n"
        f"environment.sys.executable = {str(home / 'python')!r}\n"
        "with stopped_like_ctrl_c():\n    environment.ensure_environment()"
    )
    with subprocess.Popen([PYTHON, "-c", code], **QUIET) as first:
        while not (home / "child").read_text():
            time.sleep(0.01)
        first.send_signal(sign)
    assert first.returncode not in (0, None)
    child = int((home / "child").read_text())
    assert started(child) is None
    lock = environment_folder().with_name(f"{environment_folder().name}.lock")
    with locked(lock, "it is held"):
        pass
    for name in ("wait", "child"):
        (home / name).unlink()
    ensure_environment()
    assert calls(home) == ["venv", "pip"] * 2


def test_ensure_environment__with_a_real_python_and_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDISEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(environment, "PINS", tmp_path / "pins.txt")
    (tmp_path / "pins.txt").write_text("# nothing, so that no network is needed\n")
    python = ensure_environment() / "bin" / "python"
    where = "import sys; print(sys.prefix != sys.base_prefix)"
    done = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
