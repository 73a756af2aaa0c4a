"""The house's own rules that no linter knows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_migrations__are_installed_as_ddiseg_db_and_nothing_is_called_db() -> None:
    code = (
        "import importlib.util, ddiseg.db\n"
        "print(importlib.util.find_spec('db'), (list(ddiseg.db.__path__)[0]).endswith('db'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    assert done.stdout.strip() == "None True"


def test_constraints__pin_everything_that_is_installed() -> None:
    from importlib.metadata import distributions

    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    found = {d.metadata["Name"].lower().replace("_", "-") for d in distributions()}
    assert found - pinned <= {"ddiseg", "pip", "setuptools", "wheel"}
