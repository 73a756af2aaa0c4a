"""Start time of a process; pid and start time identify it, because pids are reused."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def started(pid: int) -> str | None:
    """Return when a process started, as opaque text.

    None where it has ended, and where the system can't tell: Windows has neither /proc nor ps.
    """
    return _started_by_proc(pid) if Path("/proc/self/stat").exists() else _started_by_ps(pid)


def _started_by_proc(pid: int) -> str | None:
    """Linux: field 22 of /proc/PID/stat, clock ticks since the boot; see proc(5)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = stat.rpartition(")")[2].split()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return None if state in "ZX" else f"{boot} {fields[18]}"


def _started_by_ps(pid: int) -> str | None:
    """macOS and the BSDs: the start that ps prints, in a fixed time zone and language."""
    try:
        shown = subprocess.run(
            ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)],
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    except FileNotFoundError:
        return None
    state, _, started = shown.strip().partition(" ")
    return None if not state or state[0] == "Z" else started.strip()
