"""One picture of an image: the photograph, its accepted mask and its newest prediction."""

from __future__ import annotations

import contextlib
import io
import os
import uuid
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from annotation_protocol import load_protocol
from ddiseg import masks
from ddiseg.catalogue.models import Image, Mask
from ddiseg.errors import InputError
from ddiseg.workspace import Workspace

#: Longer side of a panel at most, in pixels: enough for a screen.
LARGEST = 1024

_CAPTION = 28  #: height of the line above a panel, in pixels
_GAP = 8


def write_picture(workspace: Workspace, image: Image, path: Path) -> None:
    """Write `side_by_side` to a new file; raises InputError where there is one already."""
    if path.exists():
        raise InputError(f"{path} exists and is not overwritten: name another file")
    data = side_by_side(workspace, image)
    temporary = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"{path} can't be written ({error.strerror}): name a file in a folder that exists"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def side_by_side(workspace: Workspace, image: Image) -> bytes:
    """A PNG of the photograph and, where they exist, accepted mask and prediction painted over it.

    Raises WorkspaceError or InputError where a file is missing or damaged.
    """
    photograph = Pillow.fromarray(workspace.photograph(image))
    photograph.thumbnail((LARGEST, LARGEST))
    pixels = np.asarray(photograph)
    panels = [(f"{image.name}, tone {image.tone}", photograph)]
    accepted = workspace.catalogue.masks.accepted().get(image.id)
    predicted = workspace.catalogue.masks.newest_predictions().get(image.id)
    for caption, mask in (("accepted", accepted), ("prediction", predicted)):
        if mask is not None:
            panels.append((caption, _painted(workspace, pixels, mask)))
    width = len(panels) * (photograph.width + _GAP) - _GAP
    sheet = Pillow.new("RGB", (width, photograph.height + _CAPTION), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(16)
    for index, (caption, panel) in enumerate(panels):
        left = index * (photograph.width + _GAP)
        draw.text((left + 4, 4), caption, fill="black", font=font)
        sheet.paste(panel, (left, _CAPTION))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _painted(workspace: Workspace, pixels: masks.Mask, mask: Mask) -> Pillow.Image:
    over = masks.stretch(workspace.mask(mask), (pixels.shape[0], pixels.shape[1]))
    return Pillow.fromarray(masks.paint(pixels, over, load_protocol()))
