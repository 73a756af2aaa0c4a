"""Ten writers at once on one catalogue, on SQLite and on PostgreSQL: who stores how much, who waits.

Each writer is a process with a hundred images of its own. It submits a mask of one, and a second person
sends it back: two transactions of the catalogue, as the commands make them. Both databases are durable:
SQLite with `synchronous = FULL`, PostgreSQL with its defaults (`fsync`, `synchronous_commit`). Goals: the
fastest SQLite writer stores at most 3 times as much as the slowest, nobody waits for more than 5 s, and
PostgreSQL stores 5 times as much as SQLite.

    python -m benchmarks.writers [--seconds 60] [--writers 10] [--package FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).parents[1]

IMAGES = 100  #: of each writer


@dataclass(frozen=True)
class Measured:
    """What the writers of one run stored, and the longest that each waited for one transaction."""

    stored: list[int]
    longest: list[float]
    cpu: float  #: seconds of all writers

    @property
    def total(self) -> int:
        return sum(self.stored)


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.writers")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--writers", type=int, default=10)
    parser.add_argument("--package", type=Path, help="folder of another ddiseg, to compare with")
    parser.add_argument("--worker", nargs=3, metavar=("URL", "NUMBER", "SECONDS"))
    given = parser.parse_args([] if sys.argv[0].endswith("benchmarks/__main__.py") else None)
    if given.worker:
        url, number, seconds = given.worker
        _work(url, int(number), float(seconds))
        return
    packages = {"ddiseg": HERE} | ({"the other": given.package} if given.package else {})
    print(f"{given.writers} writers for {given.seconds:.0f} s")
    for name, package in packages.items():
        found = {kind: _measure(kind, package, given) for kind in ("SQLite", "PostgreSQL")}
        for kind, measured in found.items():
            fastest, slowest = max(measured.stored), max(1, min(measured.stored))
            print(
                f"{name}, {kind}: {measured.total} transactions "
                f"({measured.total / given.seconds:.0f}/s), fastest/slowest writer {fastest}/{slowest} = "
                f"{fastest / slowest:.1f}, longest wait {max(measured.longest):.2f} s, "
                f"{1000 * measured.cpu / max(1, measured.total):.1f} ms CPU of the writers each"
            )
        ratio = found["PostgreSQL"].total / max(1, found["SQLite"].total)
        print(f"{name}: PostgreSQL / SQLite = {ratio:.1f}")


def _measure(kind: str, package: Path, given: argparse.Namespace) -> Measured:
    with _database(kind) as url:
        environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(Path(__file__).resolve()), "--worker", url]
        make = [*command, "-1", str(given.writers)]
        subprocess.run(make, check=True, env=environment, cwd=package)
        writers = [
            subprocess.Popen(
                [*command, str(number), str(given.seconds)],
                **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True},
                env=environment,
                cwd=package,
            )
            for number in range(given.writers)
        ]
        for each in writers:
            assert each.stdout is not None
            each.stdout.readline()  # it is connected
        for each in writers:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        rows = [json.loads(each.communicate()[0]) for each in writers]
    return Measured(
        [row["stored"] for row in rows],
        [row["longest"] for row in rows],
        sum(row["cpu"] for row in rows),
    )


@contextmanager
def _database(kind: str) -> Iterator[str]:
    """Yield the URL of a new database."""
    if kind == "SQLite":
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/catalogue.sqlite"
        return
    from tests.postgres import Server

    server = Server()
    try:
        yield server.new_database()
    finally:
        server.remove()


def _work(url: str, number: int, seconds: float) -> None:
    """Write for some seconds from a line on stdin on; writer -1 makes the catalogue for `seconds` writers."""
    from ddiseg.catalogue import Catalogue, NewMask

    if number < 0:
        _make(url, int(seconds))
        return
    catalogue = Catalogue.open(url)
    ours = range(number * IMAGES + 1, (number + 1) * IMAGES + 1)
    print("ready", flush=True)
    sys.stdin.readline()
    stored, longest, cpu, end = 0, 0.0, time.process_time(), time.monotonic() + seconds

    def timed(began: float) -> None:
        nonlocal stored, longest
        stored, longest = stored + 1, max(longest, time.monotonic() - began)

    while (began := time.monotonic()) < end:
        image = ours[stored // 2 % IMAGES]
        digest = sha256(f"{number} {stored}".encode()).hexdigest()
        new = NewMask(image, digest, 8, 6, "same", [1], "1.0", annotator=f"annotator {number}")
        catalogue.masks.submit([new])
        timed(began)
        [mask] = catalogue.masks.newest_by_people([image]).values()
        if (began := time.monotonic()) < end:
            catalogue.masks.review(mask.id, f"reviewer {number}", "reject", "the rim is cut off")
            timed(began)
    print(json.dumps({"stored": stored, "longest": longest, "cpu": time.process_time() - cpu}))
    catalogue.close()


def _make(url: str, writers: int) -> None:
    from ddiseg.catalogue import Catalogue, NewImage

    catalogue = Catalogue.create(url)
    dataset = catalogue.images.dataset("clinic")
    digests = [sha256(str(n).encode()).hexdigest() for n in range(writers * IMAGES)]
    images = [
        NewImage(f"{n}.png", digest, 1, n, digest, digest[:16], 8, 6)
        for n, digest in enumerate(digests)
    ]
    catalogue.images.add(dataset.id, images, "manager")
    catalogue.close()


if __name__ == "__main__":
    main()
