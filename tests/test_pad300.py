"""The whole job on real photographs, through the command line: the contract script, as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
SCRIPT = SHARED / "checks" / "pad300.sh"


@pytest.mark.skipif(not SCRIPT.is_file(), reason="no pad300 beside this clone")
def test_main_job_on_real_photographs(tmp_path: Path) -> None:
    binaries = Path(sys.executable).parent
    _lay_out(tmp_path / "shared")
    done = subprocess.run(
        ["bash", str(tmp_path / "shared" / "checks" / SCRIPT.name), "10"],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "517 files: 517 added, 0 unchanged, 0 repaired, 0 refused" in done.stdout
    assert "517 files: 0 added, 517 unchanged, 0 repaired, 0 refused" in done.stdout
    start = done.stdout.index('{\n "lesion"')
    scores, end = json.JSONDecoder().raw_decode(done.stdout[start:])
    assert scores["lesion"]["n"] == 200
    assert scores["lesion"]["iou_mean"] > 0.5
    assert sum(s["n"] for s in scores["by_tone"].values()) == 200
    assert "10 images 20 non-empty masks" in done.stdout[start + end :]


def _lay_out(folder: Path) -> None:
    """The shared folder by links, but for split.csv: its lines end in CRLF, which awk does not take."""
    for path in ("checks", "data/csv", "data/pad300/images", "data/pad300/masks"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).symlink_to(SHARED / path)
    split = (SHARED / "data" / "pad300" / "split.csv").read_text()
    (folder / "data" / "pad300" / "split.csv").write_text(split, newline="\n")
