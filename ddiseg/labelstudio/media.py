"""Copies of photographs for people to look at: upright, without metadata, of bounded size."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from ddiseg import images
from ddiseg.catalogue.tables import Image
from ddiseg.errors import WorkspaceError
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace

#: Longest side of a copy by default, pixels. Twelve megapixels freeze a browser for seconds.
LONGEST = 1600

#: Where the copies lie below the embedded server's document root.
FOLDER = "images"


def copy_size(image: Image, longest: int) -> tuple[int, int]:
    """Width and height of the copy of an image: its own, or shrunk to `longest` pixels."""
    share = min(1.0, longest / max(image.width, image.height))
    return max(1, round(image.width * share)), max(1, round(image.height * share))


def copy_png(workspace: Workspace, image: Image, width: int, height: int) -> bytes:
    """The copy as a PNG. Raises WorkspaceError or InputError where the photograph is not as it was."""
    whole = (image.width, image.height) == (width, height)
    if whole and image.in_place is None:  # the store has that very file
        data = workspace.store.get(Kind.IMAGE, image.content_hash)
        images.check_png(data)
        return data
    pixels = workspace.photograph(image)
    if not whole:
        small = Pillow.fromarray(pixels).resize((width, height), Pillow.Resampling.LANCZOS)
        pixels = np.asarray(small)
    return images.encode_png(pixels)


def copy_name(image: Image, width: int, height: int) -> str:
    """The file name of a copy: it tells nothing of the person that the photograph shows."""
    return f"{image.content_hash[:32]}-{width}x{height}.png"


def place_copy(root: Path, name: str, data: bytes) -> None:
    """Write a copy below the document root `root`, whole or not at all."""
    path = root / FOLDER / name
    temporary = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise WorkspaceError(
            f"{path}: {error.strerror}; free some space or make the folder writable, then run the "
            "same command again"
        ) from error
