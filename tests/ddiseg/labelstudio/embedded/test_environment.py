"""The environment of Label Studio: installed once, and again only where it is not whole."""

from __future__ import annotations

import fcntl
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ddiseg.errors import WorkspaceError
from ddiseg.labelstudio.embedded import environment
from ddiseg.labelstudio.embedded.environment import (
    PINS,
    VERSION,
    ensure_environment,
    environment_folder,
)

PYTHON = sys.executable

#: A Python that makes an environment of itself, and is pip there; it notes each call. It waits
#: while there is a file `wait` beside the cache, and fails where there is one called `fail`.
FAKE = """#!{python}
import pathlib, shutil, sys, time
home = pathlib.Path("{home}")
with open(home / "calls", "a") as calls:
    print("venv" if "venv" in sys.argv else "pip", file=calls)
if "venv" in sys.argv:
    folder = pathlib.Path(sys.argv[-1])
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "bin").mkdir(parents=True)
    shutil.copy(__file__, folder / "bin" / "python")
else:
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
    said: list[str] = []
    folder = ensure_environment(said.append)
    assert folder == environment_folder()
    assert calls(home) == ["venv", "pip"]
    assert said == [f"installing Label Studio {VERSION} (1 GB, a few minutes) into {folder}"]
    assert ensure_environment(said.append) == folder
    assert len(calls(home)) == 2
    assert len(said) == 1


def test_ensure_environment__two_at_once_install_once(home: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: ensure_environment(print), range(2)))
    assert both == [environment_folder()] * 2
    assert calls(home) == ["venv", "pip"]


def test_ensure_environment__failed_one_is_told_and_done_anew(home: Path) -> None:
    (home / "fail").touch()
    with pytest.raises(WorkspaceError) as error:
        ensure_environment(print)
    log = environment_folder().with_name(f"{environment_folder().name}.log")
    assert f"ERROR: No matching distribution found for tqdm (all of it: {log})" in str(error.value)
    assert "\n" not in str(error.value)
    (home / "fail").unlink()
    ensure_environment(print)
    assert calls(home) == ["venv", "pip"] * 2


@pytest.mark.parametrize("damage", ["marker missing", "other pins", "interpreter gone"])
def test_ensure_environment__what_is_not_whole_is_made_anew(home: Path, damage: str) -> None:
    folder = ensure_environment(print)
    if damage == "marker missing":
        environment._marker(folder).unlink()
    elif damage == "other pins":
        environment._marker(folder).write_text("of an earlier ddiseg")
    else:
        (folder / "bin" / "python").unlink()
        (folder / "bin" / "python").symlink_to(home / "no python here any more")
    ensure_environment(print)
    assert calls(home) == ["venv", "pip"] * 2


def test_ensure_environment__killed_while_pip_runs(home: Path) -> None:
    """pip goes on without ddiseg; the next one waits for its end, then starts from nothing."""
    (home / "wait").touch()
    code = (
        "import sys; from ddiseg.labelstudio.embedded import environment\n"
        f"environment.sys.executable = {str(home / 'python')!r}\n"
        "environment.ensure_environment(print)"
    )
    with subprocess.Popen([PYTHON, "-c", code], stdout=subprocess.DEVNULL) as first:
        while not (home / "calls").exists() or "pip" not in calls(home):
            time.sleep(0.01)
        first.kill()
    lock = environment_folder().with_name(f"{environment_folder().name}.lock")
    with open(lock, "rb+") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    said: list[str] = []

    def let_pip_end(line: str) -> None:
        said.append(line)
        (home / "wait").unlink(missing_ok=True)

    ensure_environment(let_pip_end)
    assert said[0] == "another ddiseg command installs Label Studio: waiting for it"
    assert calls(home) == ["venv", "pip"] * 2


def test_ensure_environment__with_a_real_python_and_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDISEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(environment, "PINS", tmp_path / "pins.txt")
    (tmp_path / "pins.txt").write_text("# nothing, so that no network is needed\n")
    python = ensure_environment(print) / "bin" / "python"
    where = "import sys; print(sys.prefix != sys.base_prefix)"
    done = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
