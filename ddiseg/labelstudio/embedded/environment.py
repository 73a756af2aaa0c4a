"""The Python environment of the embedded Label Studio: 160 pinned packages, installed once a user.

It is apart from ddiseg's own, for Label Studio pins versions that others can't live with, and in
the user's cache rather than in the workspace, for it takes 1 GB.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from ddiseg.errors import WorkspaceError
from ddiseg.labelstudio.embedded.process import attended
from ddiseg.labelstudio.folder import Say, exclusive
from ddiseg.outcomes import Stages, silent_stages

VERSION = "1.23.2"
PINS = Path(__file__).with_name("label-studio.txt")

#: Seconds between two looks at what pip has done.
POLL = 0.5

#: What pip writes as it takes up a package of the list: it downloads it, or has it on this machine.
_TAKEN_UP = re.compile(
    r"^(?:Collecting|Processing|Requirement already).*\(line \d+\)\)", re.MULTILINE
)


def environment_folder() -> Path:
    """Where the environment lies, or will: $DDISEG_CACHE, or `ddiseg` in the user's cache."""
    cache = os.environ.get("DDISEG_CACHE")
    if not cache:
        user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        cache = str(Path(user_cache) / "ddiseg")
    version = f"py{sys.version_info.major}{sys.version_info.minor}"
    return Path(cache).absolute() / f"label-studio-{VERSION}-{version}"


def ensure_environment(say: Say, stages: Stages = silent_stages) -> Path:
    """The environment, installed first where it is not there yet; the network is used only then.

    Raises WorkspaceError where the installation fails. That, and stopping it, leave nothing running;
    the next call does it anew, from what pip has kept of its downloads.
    """
    folder = environment_folder()
    if _is_installed(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    busy = "another ddiseg command installs Label Studio: waiting for it"
    with exclusive(folder.with_name(f"{folder.name}.lock"), busy, say) as lock:
        if not _is_installed(folder):
            log = folder.with_name(f"{folder.name}.log")
            say(
                f"installing Label Studio {VERSION} into {folder} (1 GB; a few minutes, up to half an "
                f"hour on a slow machine)\n  log: {log}"
            )
            _install(folder, log, lock.fileno(), stages)
    return folder


def _is_installed(folder: Path) -> bool:
    try:
        finished = _marker(folder).read_text(encoding="utf-8") == _pins_hash()
    except (FileNotFoundError, NotADirectoryError):
        return False
    # The interpreter is a link: it leads nowhere once the Python it was made with is gone.
    return finished and (folder / "bin" / "python").exists()


def _install(folder: Path, log: Path, lock: int, stages: Stages) -> None:
    python = str(folder / "bin" / "python")
    steps = [
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [python, "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--requirement", str(PINS)],
    ]  # fmt: skip
    with open(log, "w", encoding="utf-8") as output:
        for step in steps:
            # The lock goes along: where ddiseg is killed, pip must end before others start anew.
            with attended(step, output, pass_fds=(lock,)) as child:
                _show_progress(child, folder, log, stages)
            if child.returncode:
                raise WorkspaceError(
                    f"Label Studio {VERSION} can't be installed: {_last_words(log)} (all of it: {log}); "
                    "check the network and the space on the disk, then run the same command again"
                )
    _marker(folder).write_text(_pins_hash(), encoding="utf-8")


def _show_progress(child: subprocess.Popen[bytes], folder: Path, log: Path, stages: Stages) -> None:
    """Show how far pip is, until it ends."""
    total = sum("==" in pin for pin in PINS.read_text(encoding="utf-8").splitlines())
    shown: tuple[str, int] | None = None
    while child.poll() is None:
        stage, done = _packages_done(folder, log.read_text(encoding="utf-8", errors="replace"))
        now = stage, min(done, total)  # pip itself is there before
        if now[1] and shown != (stage, total):  # what is through is shown so once
            stages(stage)(now[1], total)
            shown = now
        with suppress(subprocess.TimeoutExpired):
            child.wait(POLL)
    if shown is not None and shown[1] < total and child.returncode == 0:
        stages(shown[0])(total, total)


def _packages_done(folder: Path, log: str) -> tuple[str, int]:
    """What pip is at, by its log, and with how many packages it is done."""
    if "\nInstalling collected packages:" in log:  # it says no more until all of them are there
        written = folder.glob("lib/python*/site-packages/*.dist-info")
        return "Installing Label Studio, packages", len(list(written))
    return "Downloading Label Studio, packages", len(_TAKEN_UP.findall(log))


def _marker(folder: Path) -> Path:
    """Written last: without it, the environment is not whole."""
    return folder / "ddiseg-installed"


def _pins_hash() -> str:
    return hashlib.sha256(PINS.read_bytes()).hexdigest()


def _last_words(log: Path) -> str:
    """pip's last error, or else its last line."""
    lines = [x.strip() for x in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return next(iter([*errors[-1:], *[line for line in lines if line][-1:]]), "it said nothing")
