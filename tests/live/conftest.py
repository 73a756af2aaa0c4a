"""A real Label Studio, started by the program itself, for a workspace of phantoms."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddiseg import masks
from ddiseg.catalogue import Purpose
from ddiseg.catalogue.tables import Image, Task
from ddiseg.ingest.rendered import render_ddi
from ddiseg.labelstudio.connection import EMBEDDED, team_url
from ddiseg.labelstudio.embedded.accounts import Account, read_accounts
from ddiseg.labelstudio.folder import Folder
from ddiseg.workspace.workspace import Workspace
from tests.live.blobs import add_predictions
from tests.live.browser import chromium

#: Where screenshots are kept after the tests; not under version control.
ARTEFACTS = Path(__file__).parents[2] / "test-artefacts"

DDISEG = Path(sys.executable).with_name("ddiseg")


@dataclass(frozen=True)
class Studio:
    """A workspace and the Label Studio that runs for it."""

    root: Path
    url: str
    accounts: dict[str, Account]

    @property
    def workspace(self) -> Workspace:
        return Workspace.open(self.root)

    def ddiseg(self, *words: object) -> dict[str, Any]:
        """What a command answers, as JSON."""
        return call(self.root, *words)


def annotation_tasks(workspace: Workspace) -> Sequence[Task]:
    """The tasks that were given to annotators, in the order in which they were sent."""
    labelling = workspace.catalogue.tasks
    server = team_url(workspace.root) or EMBEDDED
    return labelling.tasks(labelling.project(server, Purpose.ANNOTATION).id)


def call(root: Path, *words: object) -> dict[str, Any]:
    """Run the program as a user does; its JSON answer. A failure fails the test."""
    command = [*map(str, (DDISEG, *words)), "--workspace", str(root), "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture(scope="session")
def live() -> None:
    """Skips where this machine has no browser; CI has one."""
    if chromium() is None:
        pytest.skip("no Chromium on this machine: apt install chromium, or set CHROMIUM")


@pytest.fixture(scope="session")
def make_workspace(live: None) -> Callable[[Path, int], Path]:
    """make_workspace(folder, n): a workspace of n phantoms, each with a prediction that is off by a little."""

    def make(folder: Path, n: int) -> Path:
        render_ddi(folder / "ddi", folder / "masks", n, seed=3)
        root = folder / "work"
        call(root, "init")
        call(root, "import", folder / "ddi")

        def shifted(image: Image) -> NDArray[np.uint8]:
            truth = masks.decode_png((folder / "masks" / image.name).read_bytes())
            return np.ascontiguousarray(np.roll(truth, 4, axis=1))

        add_predictions(Workspace.open(root), shifted)
        return root

    return make


@pytest.fixture(scope="session")
def studio(
    tmp_path_factory: pytest.TempPathFactory, make_workspace: Callable[[Path, int], Path]
) -> Iterator[Studio]:
    """One Label Studio for all tests of the session, beside a workspace of six phantoms."""
    root = make_workspace(tmp_path_factory.mktemp("studio"), 6)
    up = call(root, "label", "up", "--port", free_port())
    try:
        yield Studio(root, up["url"], read_accounts(root))
    finally:
        call(root, "label", "down")


@pytest.fixture(scope="session")
def started_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `labelstudio` of a workspace whose server ran once: with a copy, a start is quick."""
    root = tmp_path_factory.mktemp("started-once") / "work"
    call(root, "init")
    call(root, "label", "up", "--port", free_port())
    call(root, "label", "down")
    return Folder(root).path


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """tell(line): a figure for whoever runs the tests; no test depends on it."""

    def line(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{text}\n")

    return line


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
