from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from ddiseg.images import pixels_in
from ddiseg.pixel_budget import PixelBudget


def test_hold__no_more_than_the_limit() -> None:
    budget, most, lock = PixelBudget(10), [0], threading.Lock()

    def work(pixels: int) -> None:
        with budget.hold(pixels), lock:
            most[0] = max(most[0], budget.held)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [4, 3, 3, 5, 1, 9, 10, 2] * 20))
    assert 0 < most[0] <= 10
    assert budget.held == 0


def test_hold__more_than_the_limit_runs_alone() -> None:
    budget, began, free = PixelBudget(10), threading.Event(), threading.Event()

    def large() -> int:
        with budget.hold(50):
            return budget.held

    def small() -> None:
        with budget.hold(1):
            began.set()
            free.wait(10)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(small)
        began.wait(10)
        second = pool.submit(large)
        assert not second.done()
        free.set()
        first.result(10)
        assert second.result(10) == 50


def test_hold__inside_another_hold() -> None:
    budget = PixelBudget(10)
    with budget.hold(8), budget.hold(8):
        assert budget.held == 8
    assert budget.held == 0


def test_hold__given_back_after_an_error() -> None:
    budget = PixelBudget(10)
    with pytest.raises(KeyError), budget.hold(10):
        raise KeyError
    with budget.hold(10):
        assert budget.held == 10


def test_pixels_in__from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (30, 20)).save(path)
    cut = path.read_bytes()[:60]
    assert (pixels_in(path), pixels_in(path.read_bytes()), pixels_in(cut)) == (600, 600, 600)
    assert pixels_in(b"nothing") == pixels_in(tmp_path / "absent.png") == 0


IMPORT = """
import resource, sys
from pathlib import Path
from ddiseg import pixel_budget
from ddiseg.ingest import photographs
from ddiseg.workspace.workspace import Workspace

root, limit = Path(sys.argv[1]), int(sys.argv[2])
photographs.os.cpu_count = lambda: 5
workspace = Workspace.create(root / "w")
photographs.import_photographs(workspace, root / "small")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pixel_budget.BUDGET.limit = limit
done = photographs.import_photographs(workspace, root / "large")
assert [o.outcome.value for o in done.outcomes] == ["added"] * 6, done.outcomes
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux counts it")
def test_import__memory_of_large_photographs_of_small_files(tmp_path: Path) -> None:
    """Six photographs of 16 megapixels on six threads: the memory of one, not of six."""
    side = 4000
    for name, size in (("small", 8), ("large", side)):
        (tmp_path / name).mkdir()
        for grey in range(6 if name == "large" else 1):
            Image.new("RGB", (size, size), (grey, 90, 120)).save(tmp_path / name / f"{grey}.png")

    command = [sys.executable, "-c", IMPORT, str(tmp_path), str(side * side)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    kilobytes = float(done.stdout)  #: more than before
    assert kilobytes < 10 * side * side / 1024
