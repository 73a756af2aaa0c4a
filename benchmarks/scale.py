"""Commands on catalogues of 10,000, 100,000 and 1,000,000 images: time, memory and how both grow.

Each command is measured as a whole process: wall time, CPU time of all its threads, peak memory. With
`--before CHECKOUT` the same commands of another checkout of this program are measured in turn with
them, on workspaces of their own, which that program made from the same rows. An exponent is that of the CPU
time between two sizes: 1 is linear, 0 flat. The workspaces are described in `scale_rows.py`.

    python -m benchmarks.scale --folder FOLDER --sizes 10k 100k 1m --before ../before
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from sqlalchemy import create_engine, text

from ddiseg.workspace.workspace import catalogue_location

HERE = Path(__file__).parents[1]

SIZES = {"1k": 1_000, "10k": 10_000, "100k": 100_000, "1m": 1_000_000}

#: Runs of a command that takes less than SHORT seconds; the fastest counts.
ROUNDS, SHORT = 3, 10.0

#: How the names of subsets and batches begin that are drawn here.
DRAWN = "measured-"

#: Seconds after which a command is killed.
LIMIT = 300.0


@dataclass(frozen=True)
class Target:
    """A program and the workspace that its commands are run on."""

    checkout: Path
    workspace: Path
    scratch: Path
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def number(self) -> int:
        """Return a number that no command had before in this scratch folder."""
        found = next(self.numbers)
        while (self.scratch / str(found)).exists():
            found = next(self.numbers)
        (self.scratch / str(found)).mkdir()
        return found


#: Commands by their title: what is typed after `ddiseg`, anew for each run.
COMMANDS: dict[str, Callable[[Target], Sequence[str]]] = {
    "status": lambda t: ["status"],
    "status --work": lambda t: ["status", "--work"],
    "show": lambda t: ["show", "clinic-a_0000123.png"],
    "import of one more image": lambda t: ["import", str(_photograph(t)), "--dataset", "phones"],
    "batch draw --size 100": lambda t: ["batch", "draw", _name(t), "--size", "100"],
    "subset draw --per-tone 100": lambda t: ["subset", "draw", _name(t), "--per-tone", "100"],
    "loop run --once --dry-run": lambda t: ["loop", "run", "--once", "--dry-run"],
    "report": lambda t: ["report", "--to", str(t.scratch / str(t.number()) / "report.html")],
    "export --format coco": lambda t: ["export", "--format", "coco", "--to", _release(t)],
    "verify": lambda t: ["verify"],
}

#: Commands that end with an error after their work: no labelling server runs here.
_MAY_FAIL = ("loop run --once --dry-run", "verify")


@dataclass(frozen=True)
class Measured:
    """What a command took; the fastest of some runs."""

    wall: float  #: seconds
    cpu: float
    mb: float  #: peak memory
    status: int | None  #: None: killed at the limit

    @property
    def cells(self) -> tuple[str, str, str]:
        """Return wall and CPU seconds and peak memory as the table shows them."""
        if self.status is None:
            return f"> {self.wall:.0f}", f"> {self.cpu:.0f}", f"> {self.mb:,.0f}"
        return _seconds(self.wall), _seconds(self.cpu), f"{self.mb:,.0f}"


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["10k", "100k"])
    parser.add_argument("--folder", type=Path, help="of workspaces, made where missing")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="of another program")
    parser.add_argument("--before-sizes", nargs="+", choices=SIZES, help="[default: all sizes]")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of a command")
    parser.add_argument(
        "--catalogue", help="URL of an empty database, with {size} in its name for several sizes"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of a short command")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).absolute()
        now = {size: _target(HERE, folder, size, given.catalogue) for size in given.sizes}
        before = {}
        if given.before is not None:
            sizes = given.before_sizes or given.sizes
            checkout = given.before.absolute()
            before = {size: _target(checkout, folder / "before", size, None) for size in sizes}
        _compare(given.commands, now, before, (given.limit, given.rounds), sys.stdout)


def _compare(
    commands: Sequence[str],
    now: dict[str, Target],
    before: dict[str, Target],
    limits: tuple[float, int],
    out: TextIO,
) -> None:
    """Print a row for each command and size, as soon as it is measured."""
    header = ["Command", "Images", "Wall, s", "CPU, s", "Peak, MB", "Exponent"]
    header += ["Before: wall, s", "CPU, s", "Peak, MB", "Exponent"] if before else []
    for cells in (header, ["---"] * len(header)):
        print(f"| {' | '.join(cells)} |", file=out, flush=True)
    for command in commands:
        last: dict[str, tuple[int, Measured]] = {}
        for size, target in now.items():
            cells = [command, f"{SIZES[size]:,}"]
            for side, of in (("now", target), ("before", before.get(size))):
                if of is None:
                    cells += ["", "", "", ""] if before else []
                    continue
                measured = _measure(command, of, *limits)
                cells += [*measured.cells, _exponent(last.get(side), (SIZES[size], measured))]
                last[side] = SIZES[size], measured
            print(f"| {' | '.join(cells)} |", file=out, flush=True)


def _measure(command: str, target: Target, limit: float, rounds: int) -> Measured:
    """Return the fastest of some runs of a command; one run of a long one."""
    found: list[Measured] = []
    for _ in range(rounds):
        found.append(_run(command, target, limit))
        if found[-1].wall > SHORT:
            break
    return min(found, key=lambda each: each.wall)


def _run(command: str, target: Target, limit: float) -> Measured:
    start = f"{_use(target.checkout)}; sys.argv[0] = 'ddiseg'; "
    program = [sys.executable, "-c", start + "from ddiseg.cli.main import main; main()"]
    typed = [*program, *COMMANDS[command](target), "--workspace", str(target.workspace)]
    launch = [sys.executable, "-IS", str(Path(__file__).with_name("launch.py")), str(limit)]
    done = subprocess.run(
        [*launch, *typed], cwd=target.scratch, capture_output=True, text=True, check=True
    )
    _forget_draws(target.workspace)
    measured = Measured(**json.loads(done.stderr.splitlines()[-1]))
    if measured.status not in (0, None) and command not in _MAY_FAIL:
        raise SystemExit(f"{command} ended with {measured.status}:\n{done.stdout}{done.stderr}")
    return measured


def _use(checkout: Path) -> str:
    """Return the statements that import a checkout's packages, whatever is installed."""
    migrations = checkout / "db"  # the package ddiseg.db
    return (
        f"import sys, importlib.util as u; sys.path[:0] = [{str(checkout)!r}]; "
        f"s = u.spec_from_file_location('ddiseg.db', {str(migrations / '__init__.py')!r}, "
        f"submodule_search_locations=[{str(migrations)!r}]); sys.modules['ddiseg.db'] = u.module_from_spec(s)"
    )


def _forget_draws(workspace: Path) -> None:
    """Delete the subsets and batches that a command drew: the next draw starts from the same pool."""
    engine = create_engine(catalogue_location(workspace).url)
    with engine.begin() as connection:
        for sets, members, key in (
            ("subsets", "subset_members", "subset_id"),
            ("batches", "batch_members", "batch_id"),
        ):
            drawn = f"SELECT id FROM {sets} WHERE name LIKE '{DRAWN}%'"
            connection.execute(text(f"DELETE FROM {members} WHERE {key} IN ({drawn})"))
            connection.execute(text(f"DELETE FROM {sets} WHERE name LIKE '{DRAWN}%'"))
    engine.dispose()


def _target(checkout: Path, folder: Path, size: str, catalogue: str | None) -> Target:
    """Return the workspace of a size, made by the program of `checkout` where there is none yet."""
    workspace, scratch = folder / size, folder / f"{size} scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    if not workspace.exists():
        url = catalogue and catalogue.format(size=size)
        script = (
            f"{_use(checkout)}; import ddiseg, annotation_protocol, fedd; "
            f"sys.path[:0] = [{str(HERE)!r}]; from pathlib import Path; "
            "from benchmarks.scale_rows import make_workspace; "
            f"make_workspace(Path({str(workspace)!r}), {SIZES[size]}, {url!r})"
        )
        subprocess.run([sys.executable, "-c", script], cwd=scratch, check=True)
    return Target(checkout, workspace, scratch)


def _exponent(smaller: tuple[int, Measured] | None, larger: tuple[int, Measured]) -> str:
    """Return the exponent with which the CPU time grows; nothing where a command was killed."""
    if smaller is None or None in (smaller[1].status, larger[1].status):
        return ""
    return f"{math.log(larger[1].cpu / smaller[1].cpu) / math.log(larger[0] / smaller[0]):.2f}"


def _seconds(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:,.1f}"


def _name(target: Target) -> str:
    return f"{DRAWN}{target.number()}"


def _release(target: Target) -> str:
    return str(target.scratch / str(target.number()) / "release")


def _photograph(target: Target) -> Path:
    """Write a photograph that no other resembles; returns its folder."""
    import numpy as np
    from PIL import Image

    number = target.number()
    rng = np.random.default_rng((1, number))
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    folder = target.scratch / str(number)
    coarse.resize((640, 480), Image.Resampling.BICUBIC).save(folder / f"another-{number}.png")
    return folder


if __name__ == "__main__":
    main(sys.argv[1:])
