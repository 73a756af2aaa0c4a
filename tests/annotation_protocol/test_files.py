"""Whole-or-nothing writes, and locks between processes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from annotation_protocol.errors import BusyError
from annotation_protocol.files import PRIVATE, atomic_write, locked


def _write_by_path(path: Path) -> None:
    path.write_bytes(b"x\r\n\xc3\xa9")


@pytest.mark.parametrize("content", [b"x\r\n\xc3\xa9", "x\r\né", _write_by_path])
def test_atomic_write__kinds_of_content(tmp_path: Path, content: bytes) -> None:
    target = tmp_path / ("n" * 255)
    target.write_bytes(b"old")
    atomic_write(target, content)
    assert target.read_bytes() == b"x\r\n\xc3\xa9"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_atomic_write__private_from_the_first_byte(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        modes.append(stat.S_IMODE(path.stat().st_mode))
        path.write_bytes(b"secret")

    modes: list[int] = []
    atomic_write(tmp_path / "x", write, mode=PRIVATE)
    assert [*modes, stat.S_IMODE((tmp_path / "x").stat().st_mode)] == [PRIVATE, PRIVATE]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("at", ["write", "fsync", "replace"])
def test_atomic_write__failure_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    (tmp_path / "x").write_bytes(b"old")
    if at != "write":
        monkeypatch.setattr(os, at, fail)
    with pytest.raises(type(error)):
        atomic_write(tmp_path / "x", fail if at == "write" else b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("x", b"old")]


def test_atomic_write__link_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "x").symlink_to("target")
    atomic_write(tmp_path / "x", b"new")
    assert not (tmp_path / "x").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"old"


@pytest.mark.skipif(os.name != "posix", reason="folders are flushed on POSIX")
def test_atomic_write__folder_is_flushed_after_the_file_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[bool, bool]] = []

    def watch(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        flushed.append((is_folder, (tmp_path / "x").exists()))

    monkeypatch.setattr(os, "fsync", watch)
    atomic_write(tmp_path / "x", b"new")
    assert flushed == [(False, False), (True, True)]


HOLD = """
import sys
from pathlib import Path
from annotation_protocol.files import locked
with locked(Path(sys.argv[1]), ""):
    print("held", flush=True)
    sys.stdin.read()
"""


def _hold(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.process
def test_locked__busy_names_the_holder_and_the_lock_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with _hold(path) as other:
        for _ in range(2):  # the first refusal must not hide the holder from the second
            with pytest.raises(BusyError, match=f"^process {other.pid} has it$"):  # noqa: SIM117
                with locked(path, "process {holder} has it"):
                    pass
        other.kill()
        other.wait()
        with locked(path, ""):
            assert (tmp_path / "lock.holder").read_text() == str(os.getpid())
    assert not (tmp_path / "lock.holder").exists()


@pytest.mark.process
def test_locked__waits_and_says_so_once(tmp_path: Path) -> None:
    path, messages = tmp_path / "lock", []
    with _hold(path) as other:
        assert other.stdin is not None
        timer = threading.Timer(0.3, other.stdin.close)

        def hear(message: str) -> None:
            messages.append(message)
            timer.start()

        with locked(path, "waiting for process {holder}", wait=hear):
            assert other.wait() == 0
        timer.join()
    assert messages == [f"waiting for process {other.pid}"]


def test_locked__free_lock_says_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path / "lock", "busy", wait=lambda _: pytest.fail("waited")):
            pass


@pytest.mark.process
@pytest.mark.skipif(os.name != "posix", reason="descriptors are inherited on POSIX")
def test_locked__inherited_by_a_child(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import subprocess, sys, os\n"
        "from pathlib import Path\n"
        "from annotation_protocol.files import locked\n"
        "with locked(Path(sys.argv[1]), '') as lock:\n"
        "    subprocess.Popen(['sleep', '0.5'], pass_fds=(lock,), stdout=subprocess.DEVNULL)\n"
        "    os._exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    waited: list[str] = []
    with locked(path, "busy", wait=waited.append):
        assert waited == ["busy"]
