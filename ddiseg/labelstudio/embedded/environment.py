"""The Python environment of the embedded Label Studio: 160 pinned packages, installed once a user.

It is separate from ddiseg's own, as Label Studio pins versions that conflict with others, and in the
user's cache, not the workspace, as it takes 1 GB.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from annotation_protocol.files import locked
from ddiseg.errors import WorkspaceError
from ddiseg.labelstudio.embedded.process import attended
from ddiseg.outcomes import Stages, silent_stages

logger = logging.getLogger(__name__)

VERSION = "1.23.2"
PINS = Path(__file__).with_name("label-studio.txt")

#: Seconds between two checks of pip's progress.
POLL = 0.5

#: What pip prints when it begins with a package of the list, downloaded or cached.
_BEGUN = re.compile(r"^(?:Collecting|Processing|Requirement already).*\(line \d+\)\)", re.MULTILINE)


def environment_folder() -> Path:
    """Return the path of the environment: in $DDISEG_CACHE, or `ddiseg` in the user's cache."""
    cache = os.environ.get("DDISEG_CACHE")
    if not cache:
        user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        cache = str(Path(user_cache) / "ddiseg")
    version = f"py{sys.version_info.major}{sys.version_info.minor}"
    return Path(cache).absolute() / f"label-studio-{VERSION}-{version}"


def ensure_environment(stages: Stages = silent_stages) -> Path:
    """Return the environment, installed if it is missing; the network is used only then.

    A failed or interrupted installation leaves nothing running; the next call starts it again, from
    pip's cache.

    Raises:
        WorkspaceError: the installation failed.
    """
    folder = environment_folder()
    if _is_installed(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    busy = "another ddiseg command installs Label Studio: waiting for it"
    with locked(folder.with_name(f"{folder.name}.lock"), busy, wait=logger.info) as lock:
        if not _is_installed(folder):
            log = folder.with_name(f"{folder.name}.log")
            logger.info(
                f"installing Label Studio {VERSION} into {folder} (1 GB; a few minutes, up to half an "
                f"hour on a slow machine)\n  log: {log}"
            )
            _install(folder, log, lock, stages)
    return folder


def _is_installed(folder: Path) -> bool:
    try:
        finished = _marker(folder).read_text(encoding="utf-8") == _pins_hash()
    except (FileNotFoundError, NotADirectoryError):
        return False
    # The interpreter is a link, which breaks once its Python is removed.
    return finished and (folder / "bin" / "python").exists()


def _install(folder: Path, log: Path, lock: int, stages: Stages) -> None:
    python = str(folder / "bin" / "python")
    steps = [
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [python, "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--requirement", str(PINS)],
    ]  # fmt: skip
    with open(log, "w", encoding="utf-8") as output:
        for step in steps:
            # pip inherits the lock: if ddiseg is killed, others must wait until pip has ended.
            with attended(step, output, pass_fds=(lock,)) as child:
                _show_progress(child, folder, log, stages)
            if child.returncode:
                raise WorkspaceError(
                    f"Label Studio {VERSION} can't be installed: {_pip_error(log)} (all of it: {log}); "
                    "check the network and the space on the disk, then run the same command again"
                )
    _marker(folder).write_text(_pins_hash(), encoding="utf-8")


def _show_progress(child: subprocess.Popen[bytes], folder: Path, log: Path, stages: Stages) -> None:
    """Show pip's progress, until it ends."""
    total = sum("==" in pin for pin in PINS.read_text(encoding="utf-8").splitlines())
    shown: tuple[str, int] | None = None
    while child.poll() is None:
        stage, done = _packages_done(folder, log.read_text(encoding="utf-8", errors="replace"))
        now = stage, min(done, total)  # pip itself is installed before
        if now[1] and shown != (stage, total):  # a finished stage is shown once
            stages(stage)(now[1], total)
            shown = now
        with suppress(subprocess.TimeoutExpired):
            child.wait(POLL)
    if shown is not None and shown[1] < total and child.returncode == 0:
        stages(shown[0])(total, total)


def _packages_done(folder: Path, log: str) -> tuple[str, int]:
    """Return pip's stage, by its log, and the number of packages done."""
    if "\nInstalling collected packages:" in log:  # its last line until the end
        installed = folder.glob("lib/python*/site-packages/*.dist-info")
        return "Installing Label Studio, packages", len(list(installed))
    return "Downloading Label Studio, packages", len(_BEGUN.findall(log))


def _marker(folder: Path) -> Path:
    """Return the path of a file written last, without which the environment is incomplete."""
    return folder / "ddiseg-installed"


def _pins_hash() -> str:
    return hashlib.sha256(PINS.read_bytes()).hexdigest()


def _pip_error(log: Path) -> str:
    """Return pip's last error, or else its last line."""
    lines = [x.strip() for x in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return next(iter([*errors[-1:], *[line for line in lines if line][-1:]]), "it said nothing")
