from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fedd.errors import OutputError
from fedd.files import check_writable, write_file
from fedd.weights.files import write_safetensors
from tests.wording import Refusal


def tensors(path: Path) -> None:
    write_safetensors(path, {"a": torch.zeros(2)}, {})


@pytest.mark.parametrize(
    "write", [lambda path: write_file(path, "a"), lambda path: write_file(path, b"a"), tensors]
)
def test_write__no_such_folder_is_one_line(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "missing" / "a"
    with pytest.raises(OutputError) as refused:
        write(path)
    assert str(refused.value).startswith(f"{path} can't be written: ")
    assert "No such file or directory" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_write__a_folder_stands_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OutputError, match="Is a directory"):
        write_file(tmp_path / "a", "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_write__what_was_there_stays_until_the_new_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_file(path, "before\r\n")

    def stopped(temporary: Path) -> None:
        temporary.write_text("hal")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_file(path, stopped)
    assert path.read_bytes() == b"before\r\n"
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]


def test_check_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal) -> None:
    check_writable(tmp_path / "a")
    with refusal(OutputError):
        check_writable(tmp_path / "missing" / "a")
    # Not by the folder's mode: root may write anywhere.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with refusal(OutputError):
        check_writable(tmp_path / "a")
