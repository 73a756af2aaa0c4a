"""Kills at random moments of import and prelabel on Ray, PostgreSQL and S3: nothing is lost or doubled.

What is killed: the driver, a worker of the cluster, the connections to the database, or requests to the
object store. `python -m tests.kills --kills 40` runs as many as before a release.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ddiseg.model.predict import prelabel
from ddiseg.model.train import Refreshed
from ddiseg.workspace.verify import verify
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.compute.drive import PATIENCE, Stored, said, start, workspace
from tests.fedd.conftest import spot
from tests.object_store import Fault, ObjectStore

KILLS = int(os.environ.get("DDISEG_KILLS", "4"))
SEED = int(os.environ.get("DDISEG_KILLS_SEED", "0"))

#: Photographs that are added before each import.
MORE = 8

KINDS = ("driver", "worker", "database", "store")
FAULTS = (Fault.RESET, Fault.RESET_AFTER, Fault.SLOW_DOWN, Fault.INTERNAL, Fault.HALF_BODY)

__all__ = ["workspace"]

pytestmark = [pytest.mark.ray, pytest.mark.process, pytest.mark.filterwarnings("ignore")]


def test_import_and_prelabel__killed_at_random_moments(
    spots: Workspace,
    learn: Callable[..., Refreshed],
    object_store: ObjectStore,
    postgres_url: str,
    ray_address: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    learn(spots)
    killer = _Killer(spots.root, object_store, postgres_url, ray_address, tmp_path / "more")
    with capsys.disabled():
        for number in range(KILLS):
            killer.kill(number)
        killer.finish()
    assert killer.lost == killer.doubled == 0
    assert killer.hits > KILLS / 2, "most kills come while something is done"


@dataclass
class _Killer:
    root: Path
    objects: ObjectStore
    database: str
    address: str
    folder: Path
    lost: int = 0
    doubled: int = 0
    hits: int = 0  #: kills that came before the run had ended
    photographs: int = 0
    random: random.Random = field(default_factory=lambda: random.Random(SEED))

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.before = Stored.read(self.root)

    def kill(self, number: int) -> None:
        """Run import or prelabel, kill something at a random moment, and compare what is stored."""
        job = ("import", "prelabel")[number // len(KINDS) % 2 if KILLS > 4 else number % 2]
        kind = KINDS[number % len(KINDS)]
        if job == "import" or number == 1:
            self.add_photographs()
        if job == "prelabel":
            self.run("import")  # so that there is something to predict
        self.objects.faults.clear()
        process = self.start(job)
        wanted = self.random.randint(0, MORE)
        deadline = time.monotonic() + PATIENCE
        while self.objects.faults.count("PUT") < wanted and process.is_alive():
            assert time.monotonic() < deadline, "nothing is done"
            time.sleep(0.005)
        time.sleep(self.random.uniform(0, 0.05))
        hit = process.is_alive() and self.strike(kind, process)
        self.hits += hit
        process.join(PATIENCE)
        assert process.exitcode is not None, f"the run hangs after a kill of the {kind}"
        self.objects.faults.clear()
        assert process.exitcode in (0, 1, -signal.SIGKILL), said(self.folder)
        how = {0: "ended well", 1: "ended: "}.get(process.exitcode, "was killed")
        how += said(self.folder) if process.exitcode == 1 else ""
        self.compare(f"kill {number + 1}: {kind} in {job}, after {wanted} objects; the run {how}")

    def strike(self, kind: str, process: Any) -> bool:
        """Kill something; returns whether it was there."""
        if kind == "driver":
            process.kill()
            return True
        if kind == "worker":
            return self.kill_worker()
        if kind == "database":
            return self.end_connections() > 0
        fault = self.random.choice(FAULTS)
        self.objects.faults.add(fault, share=0.4, seed=self.random.randrange(1000))
        time.sleep(self.random.uniform(0.2, 2))
        met = self.objects.faults.met
        self.objects.faults.clear()
        return met > 0

    def kill_worker(self) -> bool:
        import psutil
        import ray  # noqa: F401 - it brings psutil

        def name(process: psutil.Process) -> str:
            try:
                return str((process.cmdline() or [""])[0])
            except psutil.Error:
                return ""

        ours = psutil.Process().children(recursive=True)
        workers = [p for p in ours if name(p).startswith("ray::") and "IDLE" not in name(p)]
        if not workers:
            return False
        self.random.choice(workers).kill()
        return True

    def end_connections(self) -> int:
        import psycopg

        with closing(psycopg.connect(self.database.replace("+psycopg", ""))) as connection:
            ended = connection.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchone()
        return int(ended[0]) if ended else 0

    def add_photographs(self) -> None:
        for seed in range(100 + self.photographs, 100 + self.photographs + MORE):
            Image.fromarray(spot(seed)[0]).save(self.folder / f"{seed}.png")
        self.photographs += MORE

    def start(self, job: str) -> Any:
        return start(self.root, job, self.address, self.folder)

    def run(self, job: str) -> None:
        process = self.start(job)
        process.join(PATIENCE)
        assert process.exitcode == 0, said(self.folder)

    def compare(self, line: str) -> None:
        now = Stored.read(self.root)
        lost = (self.before.photographs - now.photographs).total()
        lost += (self.before.predictions - now.predictions).total()
        keys = {key.rpartition("/")[2].partition(".")[0] for key in self.objects.keys()}  # noqa: SIM118
        named = {*now.photographs, *(mask for *_, mask in now.predictions)}
        lost += len(named - keys)  # rows without their file
        self.lost, self.doubled, self.before = self.lost + lost, self.doubled + now.doubled, now
        _say(
            f"{line}; {now.photographs.total()} photographs, {now.predictions.total()} predictions, "
            f"{lost} lost, {now.doubled} doubled"
        )

    def finish(self) -> None:
        """Run both jobs to their end: all is there, once, and as it should be."""
        self.run("import")
        self.run("prelabel")
        now = Stored.read(self.root)
        images = now.photographs.total()
        workspace = Workspace.open(self.root)
        problems = verify(workspace).problems
        _, again = prelabel(workspace, workspace.catalogue.images.select())
        workspace.catalogue.close()
        unchanged = sum(o.outcome.value == "unchanged" for o in again)
        self.compare("in the end")
        _say(
            f"{KILLS} kills, {self.hits} of them while something was done: {self.lost} lost, {self.doubled} doubled, "
            f"{len(problems)} problems found by verify; {unchanged} of {images} images predicted"
        )
        assert problems == []
        assert now.predictions.total() == images == unchanged


def _say(line: str) -> None:
    if "DDISEG_KILLS" in os.environ:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
