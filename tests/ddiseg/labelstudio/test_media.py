"""Copies of photographs: their size, what is in them and what is not, how they are written."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from ddiseg.catalogue.tables import Image
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.ingest.photographs import import_photographs
from ddiseg.labelstudio.media import copy_name, copy_png, copy_size, place_copy
from ddiseg.workspace.workspace import Workspace
from tests.wording import Refusal


def sized(width: int, height: int) -> Image:
    return Image(content_hash="a" * 64, width=width, height=height)


@pytest.mark.parametrize(
    ("size", "copied"),
    [
        ((3000, 2000), (1600, 1067)),
        ((2000, 3000), (1067, 1600)),
        ((1600, 1600), (1600, 1600)),
        ((1601, 4), (1600, 4)),
        ((512, 256), (512, 256)),
        ((10_000, 1), (1600, 1)),
    ],
)
def test_copy_size__longest_side_is_bounded(size: tuple[int, int], copied: tuple[int, int]) -> None:
    assert copy_size(sized(*size), 1600) == copied


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(64, 8192))
def test_copy_size__never_larger_and_of_the_same_shape(
    width: int, height: int, longest: int
) -> None:
    copied = copy_size(sized(width, height), longest)
    assert 1 <= copied[0] <= width
    assert 1 <= copied[1] <= height
    assert max(copied) == min(longest, max(width, height))
    share = max(copied) / max(width, height)
    assert copied[0] == pytest.approx(width * share, abs=1)
    assert copied[1] == pytest.approx(height * share, abs=1)


@pytest.mark.parametrize("in_place", [True, False])
def test_copy_png__upright_and_without_metadata(
    workspace: Workspace, tmp_path: Path, in_place: bool
) -> None:
    secret = "51.5007 N, Jane Doe"
    exif = Pillow.Exif()
    exif[0x0112] = 6  # its top is on the right
    exif[0x010F] = secret
    halves = np.zeros((16, 32, 3), np.uint8)
    halves[:, 16:] = 255
    (tmp_path / "photos").mkdir()
    Pillow.fromarray(halves).save(tmp_path / "photos/a.jpg", exif=exif, quality=100)
    import_photographs(workspace, tmp_path / "photos", in_place=in_place)
    image = workspace.catalogue.images.find("a.jpg")
    assert (image.width, image.height) == (16, 32)
    for width, height in ((16, 32), (8, 16)):
        data = copy_png(workspace, image, width, height)
        with Pillow.open(io.BytesIO(data)) as picture:
            assert (picture.format, picture.size, picture.info) == ("PNG", (width, height), {})
            pixels = np.asarray(picture)
        assert pixels[: height // 2 - 2].max() < 60
        assert pixels[height // 2 + 2 :].min() > 195
        assert secret.encode() not in data


def test_copy_png__photograph_that_was_changed_or_is_missing(
    workspace: Workspace, tmp_path: Path, refusal: Refusal
) -> None:
    file = tmp_path / "photos/a.png"
    file.parent.mkdir()
    Pillow.new("RGB", (8, 6), "red").save(file)
    import_photographs(workspace, file.parent, in_place=True)
    image = workspace.catalogue.images.find("a.png")
    Pillow.new("RGB", (8, 6), "blue").save(file)
    with refusal(InputError):
        copy_png(workspace, image, 8, 6)
    file.unlink()
    with pytest.raises(WorkspaceError, match="No such file"):
        copy_png(workspace, image, 8, 6)


def test_copy_name__tells_nothing_but_pixels_and_size() -> None:
    assert copy_name(sized(8, 6), 4, 3) == f"{'a' * 32}-4x3.png"


def test_place_copy__whole_and_alone(tmp_path: Path) -> None:
    for data in (b"one", b"another"):
        place_copy(tmp_path, "x.png", data)
        assert (tmp_path / "images/x.png").read_bytes() == data
    assert os.listdir(tmp_path / "images") == ["x.png"]


def test_place_copy__disk_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with refusal(WorkspaceError):
        place_copy(tmp_path, "x.png", b"data")
    assert os.listdir(tmp_path / "images") == []


def test_place_copy__folder_is_none(tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "images").write_text("a file")
    with refusal(WorkspaceError):
        place_copy(tmp_path, "x.png", b"data")
