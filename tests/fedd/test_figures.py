from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fedd.errors import FigureError
from fedd.figures import new_figure, save


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EROFS, "name a file in a folder that you may write to"),
        (errno.ENOENT, "name a file in a folder that exists"),
    ],
)
def test_save__advice_fits_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fedd.figures.atomic_write", fails)
    with pytest.raises(FigureError, match=advice):
        save(new_figure(1, 1)[0], tmp_path / "a.png")
