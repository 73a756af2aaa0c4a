"""The whole job on real photographs, through the command line: the contract script, as it is.

It gets the ten training photographs and every fifth of the others: 112 of 517. All 517 are imported in
tests/ddiseg/ingest/test_real_data.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
SCRIPT = SHARED / "checks" / "pad300.sh"


@pytest.mark.training
@pytest.mark.skipif(not SCRIPT.is_file(), reason="no pad300 beside this clone")
def test_main_job_on_real_photographs(tmp_path: Path) -> None:
    binaries = Path(sys.executable).parent
    photographs, test_images = _lay_out(tmp_path / "shared")
    done = subprocess.run(
        ["bash", str(tmp_path / "shared" / "checks" / SCRIPT.name), "10"],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"{photographs} files: {photographs} added, 0 unchanged" in done.stdout
    assert f"{photographs} files: 0 added, {photographs} unchanged" in done.stdout
    start = done.stdout.index('{\n "lesion"')
    scores, end = json.JSONDecoder().raw_decode(done.stdout[start:])
    assert scores["lesion"]["n"] == test_images
    assert scores["lesion"]["iou_mean"] > 0.5
    assert sum(s["n"] for s in scores["by_tone"].values()) == test_images
    assert "10 images 20 non-empty masks" in done.stdout[start + end :]


def _lay_out(folder: Path) -> tuple[int, int]:
    """Copy a part of the shared folder; return the number of photographs and of test images.

    split.csv is written again: its lines end in CRLF, which awk does not take.
    """
    pad300 = folder / "data" / "pad300"
    for name in ("images", "masks"):
        (pad300 / name).mkdir(parents=True)
    for path in ("checks", "data/csv"):
        (folder / path).symlink_to(SHARED / path)
    head, *rows = (SHARED / "data" / "pad300" / "split.csv").read_text().splitlines()
    part = head.split(",").index("part")
    train = [row for row in rows if row.split(",")[part] == "train10"]
    kept = train + [row for row in rows if row not in train][::5]
    for row in kept:
        name = row.split(",")[0]
        for kind in ("images", "masks"):
            shutil.copy(SHARED / "data" / "pad300" / kind / name, pad300 / kind / name)
    (pad300 / "split.csv").write_text("\n".join([head, *kept]) + "\n", newline="\n")
    return len(kept), sum(row.split(",")[part] == "test" for row in kept)
