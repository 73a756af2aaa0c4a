"""`ddiseg init --store s3://...`: the store is checked before there is a workspace."""

from __future__ import annotations

from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.cli.common import run
from ddiseg.cli.main import cli
from ddiseg.workspace import remote_files
from ddiseg.workspace.store_check import FOLDER
from tests.object_store import READER, Fault, ObjectStore, set_environment


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_files, "TRIES", 1)


def _init(root: Path, url: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = run(cli, ["init", str(root), "--store", url])
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return status, printed.out + printed.err


def test_init(
    object_store: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    object_store.write("prefix/images/ab/of-another-workspace.png", b"1")
    status, _ = _init(tmp_path / "w", f"{object_store.url}/", capsys)
    assert status == 0
    assert object_store.keys() == ["prefix/images/ab/of-another-workspace.png"]  # no probe is left
    assert f'store = "{object_store.url}"' in (tmp_path / "w" / "ddiseg.toml").read_text()
    assert _init(tmp_path / "w", object_store.url, capsys)[0] == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", FOLDER), ("GET", rf"{FOLDER}/\w+"), ("GET", "list-type"), ("DELETE", "")],
    ids=["write", "read", "list", "delete"],
)
def test_init__permission_that_is_missing(
    object_store: ObjectStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    wording: SnapshotAssertion,
    method: str,
    path: str,
) -> None:
    object_store.faults.add(Fault.DENIED, method=method, path=path)
    status, said = _init(tmp_path / "w", object_store.url, capsys)
    assert (status, said) == (1, wording)
    assert not (tmp_path / "w" / "ddiseg.toml").exists()
    object_store.faults.clear()
    assert _init(tmp_path / "w", object_store.url, capsys)[0] == 0  # safe to run again


def test_init__second_client_sees_something_else(
    object_store: ObjectStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    wording: SnapshotAssertion,
) -> None:
    object_store.faults.add(Fault.WRONG_CONTENT, numbers=[2], method="GET", path=rf"{FOLDER}/\w+")
    assert _init(tmp_path / "w", object_store.url, capsys) == (1, wording)
    assert object_store.keys() == []


def test_init__read_only_key(
    object_store: ObjectStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_environment(monkeypatch, {**object_store.environment, "AWS_ACCESS_KEY_ID": READER})
    status, said = _init(tmp_path / "w", object_store.url, capsys)
    assert status == 1
    assert "a probe can't be written" in said


def test_init__no_such_bucket(
    object_store: ObjectStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    wording: SnapshotAssertion,
) -> None:
    assert _init(tmp_path / "w", "s3://no-such-bucket/p", capsys) == (1, wording)
