"""Sheets of panels and the files that hold them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow

from ddiseg.errors import InputError
from ddiseg.masks import panels
from tests.wording import Refusal

RED, BLUE = (255, 0, 0), (0, 0, 255)


def plain(colour: tuple[int, int, int], height: int = 30, width: int = 90) -> NDArray[np.uint8]:
    return np.full((height, width, 3), colour, np.uint8)


def opened(data: bytes) -> NDArray[np.uint8]:
    with Pillow.open(io.BytesIO(data)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture)


def test_sheet__panels_from_left_to_right() -> None:
    sheet = opened(panels.join_panels([("one", plain(RED)), ("two", plain(BLUE))]))
    assert sheet.shape[1] == 90 + 8 + 90
    assert (sheet[-30:, :90] == RED).all()
    assert (sheet[-30:, 90:98] == 255).all()
    assert (sheet[-30:, 98:] == BLUE).all()


def test_sheet__captions_and_title_are_written_above_without_touching() -> None:
    captioned = opened(panels.join_panels([("one", plain(RED)), ("two", plain(BLUE))]))
    titled = opened(
        panels.join_panels([("one", plain(RED)), ("two", plain(BLUE))], ["Ågy", "Ågy", "Ågy"])
    )
    above = len(titled) - len(captioned)
    np.testing.assert_array_equal(titled[above:], captioned)
    for written in (captioned[:-30, :90], captioned[:-30, 98:]):
        assert written.min() < 128, "a caption of its own"
    inked = (titled[:above] < 128).any(axis=(1, 2))
    lines = np.flatnonzero(np.diff(inked.astype(int)) == 1)
    assert len(lines) >= 3
    assert not inked[-1]


@pytest.mark.parametrize(
    ("size", "shown"),
    [((40, 50), (40, 50)), ((512, 2048), (256, 1024)), ((2048, 512), (1024, 256))],
)
def test_fitted__only_shrinks(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert panels.fitted(plain(RED, *size)).shape == (*shown, 3)


def test_write_new__whole_and_once(tmp_path: Path, refusal: Refusal) -> None:
    panels.write_new(tmp_path / "x.png", b"first")
    with refusal(InputError):
        panels.write_new(tmp_path / "x.png", b"second")
    with pytest.raises(InputError, match="can't be written"):
        panels.write_new(tmp_path / "none" / "x.png", b"first")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("x.png", b"first")]


def test_write_new__leaves_nothing_where_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with refusal(InputError):
        panels.write_new(tmp_path / "x.png", b"data")
    assert list(tmp_path.iterdir()) == []
