"""`ddiseg --help` answers before one notices: goal under 300 ms."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.timing import paired

ROUNDS = 15


def main() -> None:
    command = Path(sys.executable).parent / "ddiseg"

    def ours() -> None:
        subprocess.run([command, "--help"], check=True, capture_output=True)

    def peer() -> None:
        subprocess.run([sys.executable, "-c", "pass"], check=True, capture_output=True)

    us, bare = paired(ours, peer, ROUNDS)
    print(
        f"ddiseg --help {us * 1000:.0f} ms, python -c pass {bare * 1000:.0f} ms: {us / bare:.1f} x ({ROUNDS} rounds, medians)"
    )
