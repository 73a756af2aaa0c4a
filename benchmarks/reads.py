"""Reads of the test parts: each needs a reason, and leaves a line in the decision record.

A figure that was looked at often enough while settings were chosen is no longer a test.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[1]

#: The log, a Markdown table at the end of the record.
LOG = ROOT / "docs" / "decisions" / "0033-reads-of-the-test-parts.md"


@dataclass(frozen=True)
class TestRead:
    """A reason to open the test parts."""

    why: str
    command: str

    __test__ = False  # its name is no reason for pytest to collect it

    def __post_init__(self) -> None:
        if not self.why.strip():
            raise ValueError("a test part is opened for a decision: say which")

    def of(self, test: list[T]) -> list[T]:
        """Return a test part: what opens one goes through here."""
        return test

    def line(self, result: str, commit: str, day: str) -> str:
        """Return the row of the log; a cell holds no line break and no bar."""
        cells = (day, commit, self.why, f"`{self.command}`", result)
        return f"| {' | '.join(' '.join(c.replace('|', '/').split()) for c in cells)} |"

    def log(self, result: str, path: Path = LOG) -> None:
        """Append what was printed to the log, and print the line."""
        line = self.line(result, _commit(), datetime.now(UTC).date().isoformat())
        if path.is_file():
            with path.open("a") as file:
                file.write(line + "\n")
        print(f"logged in {path.name}, commit it:\n{line}")


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add `--read-test` to a benchmark's options."""
    parser.add_argument(
        "--read-test",
        metavar="WHY",
        help="open the test parts, for this decision, and log it in docs/decisions/0033; "
        "by default the learn parts are cross-validated",
    )


def asked(chosen: argparse.Namespace, benchmark: str) -> TestRead | None:
    """Return the read that `--read-test` asks for; None without it."""
    if chosen.read_test is None:
        return None
    return TestRead(chosen.read_test, f"python -m benchmarks.{benchmark} {_words(sys.argv[1:])}")


def _words(arguments: Sequence[str]) -> str:
    """Return a command line without the reason and without folders of this machine."""
    kept, skip = [], False
    for word in arguments:
        if skip or word == "--read-test":
            skip = not skip
        else:
            kept.append(Path(word).name if "/" in word else word)
    return " ".join(kept).strip()


def _commit() -> str:
    """Return the commit of the program, with "+" where files differ from it."""
    try:
        of = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=7", "--exclude=*"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return of.stdout.strip()
