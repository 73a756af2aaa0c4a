"""What the audit of a release finds: encodings, numbers, spellings, folders, and what it can't search."""

from __future__ import annotations

import gzip
import json
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddiseg.cli.audit import audit as audit_command
from ddiseg.release.audit import Audit, audit_privacy
from ddiseg.release.folder import write_release
from ddiseg.release.identifiers import Identifiers
from ddiseg.release.release import Release
from ddiseg.workspace.pseudonym_key import KEY_FILE, TABLE_FILE
from tests.ddiseg.release.conftest import Builder, Cli

pytestmark = pytest.mark.slow


@pytest.fixture
def release(builder: Builder, tmp_path: Path) -> Path:
    """A release with pseudonyms of photographs with the patients Müller, Kowalski and 48213777."""
    mask = np.full((12, 10), 4, np.uint8)
    for name, patient in (
        ("1.png", "Hans Müller"),
        ("2.png", "Kowalski, Jan 0"),
        ("3.png", "48213777"),
    ):
        builder.mask(builder.image(name, patient=patient, diagnosis="NEV"), mask)
    return write_release(Release.gather(builder.workspace), "png", tmp_path / "r").folder


def _audit(builder: Builder, release: Path) -> Audit:
    return audit_privacy(Identifiers.of(builder.workspace), release)


def test_audit__fresh_release(builder: Builder, release: Path) -> None:
    found = _audit(builder, release)
    assert (found.hits, found.unread, found.public) == ([], [], [])


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", json.dumps({"subject_number": 48213777}).encode()),
        ("a.json", json.dumps({"id": 48213777}).encode()),
        ("a.json", json.dumps([48213777.0]).encode()),
        ("a.json", json.dumps({"parent": "Hans Müller"}).encode()),
        ("a.json", json.dumps({"with": {"Hans Müller": 1}}).encode()),
        ("a.txt", "seen: Hans Müller".encode("cp1252")),
        ("a.txt", "seen: Hans Müller".encode("utf-16")),
        ("a.txt", "seen: Hans Müller".encode("utf-16-le")),
        ("a.csv", "x;y\r\nHans;Müller, Hans\r\n".encode("utf-16")),
        ("a.csv", "x\tMüller\r\n".encode("cp1252")),
        ("a.html", b"<b>Hans M&uuml;ller</b>"),
        ("a.html", b"<a href='x?name=Hans%20M%C3%BCller'>"),
        ("a.html", b"<a href='x?name=Hans+M%FCller'>"),
        ("a.svg", b"<svg><text>Kowalski</text></svg>"),
        ("a.log", b"Mueller, Hans"),
        ("a", b"HANS MULLER"),
        ("a.txt", b"Hans Mueller"),
        ("a.txt", "Hans Mu\u0308ller".encode()),
        ("a.txt", b"Mr Kowalski's arm"),
        ("a.js", rb'x = "M\u00fcller, Hans"'),
    ],
)
def test_audit__planted(builder: Builder, release: Path, name: str, data: bytes) -> None:
    (release / name).write_bytes(data)
    found = _audit(builder, release)
    assert {(hit.file, hit.kind) for hit in found.hits} == {(name, "patient")}


def test_audit__empty_folder(builder: Builder, release: Path) -> None:
    (release / "x" / "Kowalski").mkdir(parents=True)
    assert [hit.file for hit in _audit(builder, release).hits] == ["x/Kowalski"]


@pytest.mark.parametrize("name", [KEY_FILE, TABLE_FILE])
def test_audit__secret_of_the_workspace(builder: Builder, release: Path, name: str) -> None:
    data = (builder.workspace.root / name).read_bytes()
    (release / "renamed.txt").write_bytes(data.upper() if name == KEY_FILE else data)
    assert "renamed.txt" in {hit.file for hit in _audit(builder, release).hits}
    (release / "renamed.txt").unlink()
    (release / name).write_bytes(data)
    assert (name, "secret") in {(hit.file, hit.kind) for hit in _audit(builder, release).hits}


@pytest.mark.parametrize(
    "array",
    [
        np.array(["Hans Müller", "x"]),
        np.array([b"Hans Mueller"]),
        np.array([[3, 48213777]]),
        np.array([(1, "Kowalski")], dtype=[("n", "i4"), ("who", "U9")]),
        np.array([(1,)], dtype=[("Kowalski", "i4")]),
    ],
)
def test_audit__array(builder: Builder, release: Path, array: np.ndarray) -> None:
    np.save(release / "a.npy", array)
    assert {(hit.file, hit.kind) for hit in _audit(builder, release).hits} == {("a.npy", "patient")}


def _sqlite(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    connection.close()


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a", "b")


def _gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(b"Kowalski"))


def _pdf(path: Path) -> None:
    path.write_bytes(b"%PDF-1.4 plain text")


def _noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)))


def _link(path: Path) -> None:
    path.symlink_to("/")


def _objects(path: Path) -> None:
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.sqlite", _sqlite),
        ("a.dat", _sqlite),
        ("a.xlsx", _zip),
        ("a.txt", _zip),
        ("a.gz", _gzip),
        ("a.csv", _gzip),
        ("a.pdf", _pdf),
        ("a.txt", _pdf),
        ("a.bin", _noise),
        ("a.npy", _objects),
        ("a", _link),
    ],
)
def test_audit__not_searched(
    builder: Builder, release: Path, cli: Cli, name: str, write: Callable[[Path], None]
) -> None:
    write(release / name)
    status, out, err = cli(
        [audit_command], "--workspace", builder.workspace.root, "audit", "privacy", release
    )
    assert status == 1
    assert f"not searched: 1 file; look yourself, or remove it: {name}" in out
    assert "1 file not searched" in err
