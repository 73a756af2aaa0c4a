"""Copies of photographs for annotation: upright, without metadata, of bounded size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from annotation_protocol.files import atomic_write, how_to_write
from ddiseg import images
from ddiseg.catalogue.tables import Image
from ddiseg.errors import WorkspaceError
from ddiseg.workspace.workspace import Workspace

#: Longest side of a copy by default, pixels. Twelve megapixels freeze a browser for seconds.
LONGEST = 1600

#: Folder of the copies below the embedded server's document root.
FOLDER = "images"


def copy_size(image: Image, longest: int) -> tuple[int, int]:
    """Return width and height of an image's copy, shrunk to `longest` pixels if it is larger."""
    scale = min(1.0, longest / max(image.width, image.height))
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))


def copy_png(workspace: Workspace, image: Image, width: int, height: int) -> bytes:
    """Return the copy as PNG; raises WorkspaceError or InputError if the photograph has changed."""
    if (image.width, image.height) == (width, height):
        return workspace.photograph_png(image)
    photograph = Pillow.fromarray(workspace.photograph(image))
    small = photograph.resize((width, height), Pillow.Resampling.LANCZOS)
    return images.encode_png(np.asarray(small))


def copy_name(image: Image, width: int, height: int) -> str:
    """Return the file name of a copy, which says nothing about the patient."""
    return f"{image.content_hash[:32]}-{width}x{height}.png"


def place_copy(root: Path, name: str, data: bytes) -> None:
    """Write a copy atomically below the document root `root`."""
    path = root / FOLDER / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, data)
    except OSError as error:
        raise WorkspaceError(
            f"{path}: {error.strerror}; {how_to_write(error, path)}, then run the same command again"
        ) from error
