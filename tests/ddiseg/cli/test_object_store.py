"""A workspace whose photographs, masks and models are in an object store, by the command line."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddiseg.labelstudio.folder import Folder
from ddiseg.workspace import remote_files
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.labelstudio.studio import Studio, team_server
from tests.fake_label_studio import FakeLabelStudio
from tests.object_store import READER, Fault, ObjectStore, set_environment

Run = Callable[..., Any]

#: Photographs of a workspace.
N = 4

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_files, "TRIES", 2)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of N photographs of noise, and one of masks of the first two."""
    for name in ("photographs", "masks"):
        (tmp_path / name).mkdir()
    for number in range(N):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photographs" / f"{number}.png")
    for number in range(2):
        mask = np.full((24, 32), 4, np.uint8)
        mask[4 : 8 + number, 4:8] = 1
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    return tmp_path / "photographs"


@pytest.fixture
def root(
    object_store: ObjectStore, photographs: Path, tmp_path: Path, empty_catalogue: Path, ddiseg: Run
) -> Path:
    """A workspace with the photographs in an object store."""
    root = tmp_path / "w"
    root.mkdir()
    shutil.copy(empty_catalogue, root / "catalogue.sqlite")
    (root / "ddiseg.toml").write_text(f'catalogue = ""\nstore = "{object_store.url}"\n')
    root.chmod(0o700)
    assert ddiseg("import", photographs, "--workspace", root).status == 0
    object_store.faults.clear()
    return root


@pytest.fixture
def here(ddiseg: Run, root: Path) -> Run:
    return lambda *words: ddiseg("--workspace", root, *words)


def _stored(store: ObjectStore, kind: Kind) -> list[str]:
    return store.keys(f"prefix/{kind}/")


def _error(result: Any) -> str:
    assert result.status == 1
    [line] = [line for line in result.err.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in result.err
    return str(line)


def test_main_job(
    here: Run, root: Path, object_store: ObjectStore, photographs: Path, tmp_path: Path
) -> None:
    assert len(_stored(object_store, Kind.IMAGE)) == N
    again = here("import", photographs, "--output", "json").json
    assert again["counts"]["unchanged"] == N
    people = ("--annotator", "anna", "--reviewer", "ben")
    assert here("masks", "import", tmp_path / "masks", *people).status == 0
    assert len(_stored(object_store, Kind.MASK)) == 2
    assert here("status", "--output", "json").json["accepted"] == 2
    assert here("show", "0.png", "--output", "json").json["masks"][0]["shares"]
    assert here("show", "0.png", "--picture", tmp_path / "0.png").status == 0
    assert here("verify").status == 0
    assert here("report", "--to", tmp_path / "report.html").status == 0
    release = here("export", "--format", "coco", "--to", tmp_path / "release", "--output", "json")
    assert release.json["counts"]["added"] == 2
    assert here("backup", "--to", tmp_path / "b.sqlite").status == 0
    assert here("restore", tmp_path / "b.sqlite").status == 0
    assert not (root / "store").exists()


def test_verify_and_repair__what_the_store_has_counts_not_the_cache(
    here: Run, root: Path, object_store: ObjectStore, photographs: Path, tmp_path: Path
) -> None:
    assert here("show", "0.png", "--picture", tmp_path / "0.png").status == 0  # into the cache
    assert any((root / "cache" / "store").rglob("*.png"))
    first, second, *_ = _stored(object_store, Kind.IMAGE)
    object_store.remove(first)
    object_store.write(second, b"damaged")
    found = here("verify", "--output", "json")
    assert (found.status, len(found.json["problems"])) == (1, 2)
    again = here("import", photographs, "--output", "json").json["counts"]
    assert (again["repaired"], again["unchanged"]) == (2, N - 2)
    object_store.remove(first)
    assert here("verify", "--repair", "--originals", photographs).status == 0
    assert len(_stored(object_store, Kind.IMAGE)) == N


def test_import__credentials_that_expire_in_the_middle(
    here: Run, root: Path, object_store: ObjectStore, photographs: Path
) -> None:
    for number in range(N, 4 * N):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photographs / f"{number}.png")
    object_store.faults.add(Fault.EXPIRED, numbers=range(8, 999), method="PUT")
    assert "the credentials have expired" in _error(here("import", photographs))
    object_store.faults.clear()
    counts = here("import", photographs, "--output", "json").json["counts"]
    assert (counts["added"] + counts["unchanged"], counts["refused"]) == (4 * N, 0)
    assert here("verify").status == 0


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.DENIED])
def test_outage__stops_the_command_and_nothing_is_refused_for_it(
    here: Run,
    root: Path,
    object_store: ObjectStore,
    tmp_path: Path,
    fault: Fault,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote_files, "TRIES", 1)
    people = ("--annotator", "anna", "--reviewer", "ben")
    assert here("masks", "import", tmp_path / "masks", *people).status == 0
    object_store.faults.add(fault)
    commands = (
        ("export", "--format", "coco", "--to", tmp_path / "release"),
        ("masks", "import", tmp_path / "masks", "--annotator", "carl"),
        ("import", tmp_path / "photographs"),
        ("verify",),
        ("show", "0.png", "--picture", tmp_path / "0.png"),
    )
    for command in commands:
        assert f"store {object_store.url} at" in _error(here(*command)), command
    assert not (tmp_path / "release").exists()
    object_store.faults.clear()


def test_store__read_only(
    here: Run, object_store: ObjectStore, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(monkeypatch, {**object_store.environment, "AWS_ACCESS_KEY_ID": READER})
    assert here("verify").status == 0
    assert here("import", photographs).status == 0  # nothing is new
    Image.new("RGB", (24, 24), "red").save(photographs / "new.png")
    assert "access was denied" in _error(here("import", photographs))


def test_store__shared_by_two_workspaces(
    here: Run, ddiseg: Run, object_store: ObjectStore, photographs: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    assert ddiseg("init", other, "--store", object_store.url).status == 0
    object_store.faults.clear()
    assert ddiseg("verify", "--workspace", other).status == 0  # the files of others are no fault
    assert ddiseg("import", photographs, "--workspace", other).status == 0
    assert object_store.faults.count("PUT") == 0
    assert len(_stored(object_store, Kind.IMAGE)) == N
    assert ddiseg("verify", "--workspace", other).status == 0
    assert here("verify").status == 0


@pytest.fixture(params=["embedded", "team"])
def studio(
    request: pytest.FixtureRequest,
    workspace: Workspace,
    object_store: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Studio]:
    """A workspace in an object store beside a Label Studio."""
    settings = workspace.root / "ddiseg.toml"
    lines = settings.read_text().replace('store = ""', f'store = "{object_store.url}"')
    settings.write_text(lines)
    remote = Workspace.open(workspace.root)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    if request.param == "team":
        with team_server(remote, monkeypatch) as studio:
            yield studio
    else:
        with FakeLabelStudio(document_root=Folder(remote.root).media) as server:
            yield Studio(remote, server)
    remote.catalogue.close()


def test_label_push__photographs_come_from_the_store(
    studio: Studio, object_store: ObjectStore
) -> None:
    rows = studio.add_images(3)
    assert [each.outcome.value for each in studio.push(rows).outcomes] == ["added"] * 3
    studio.check()
