"""The layout of a VOC data set: the folder SegmentationClass, and `labelmap.txt` next to or above it.

A line of that is a label and its colour,

    # label:color_rgb:parts:actions
    lesion:128,0,0::

as CVAT and datumaro write it (https://docs.cvat.ai/docs/manual/advanced/formats/format-smask/).
"""

from __future__ import annotations

from pathlib import Path

from ddiseg.errors import InputError
from ddiseg.masks.colours import colour_value

LABEL_MAP = "labelmap.txt"

CLASSES = "SegmentationClass"


def is_voc(path: Path) -> bool:
    """Return whether a path is the folder of VOC's masks, the one above it, or has a labelmap."""
    return path.is_dir() and (
        path.name == CLASSES or (path / CLASSES).is_dir() or (path / LABEL_MAP).is_file()
    )


def class_folder(path: Path) -> Path:
    """Return the folder of the masks: SegmentationClass in a VOC data set, else `path`."""
    return path / CLASSES if (path / CLASSES).is_dir() else path


def find_label_map(folder: Path, top: Path) -> Path | None:
    """Return the labelmap nearest above a folder's files, up to the folder above `top`; None for none."""
    for place in (folder, *folder.parents):
        if (place / LABEL_MAP).is_file():
            return place / LABEL_MAP
        if place == top.parent:
            break
    return None


def read_label_map(path: Path) -> dict[int, str]:
    """Return labels by the values of their colours, see `ddiseg.masks.colours`.

    Raises:
        InputError: a line that is no label with a colour, or one colour of two labels.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read ({error}): export it again") from error
    found: dict[int, str] = {}
    number = 0  # of the label
    for place, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        label, _, rest = line.partition(":")
        value = _colour(rest.partition(":")[0], number)
        number += 1
        if value is None or not label.strip():
            raise InputError(
                f"{path}, line {place}: '{line.strip()}' is not LABEL:RED,GREEN,BLUE:: with 0 to 255"
            )
        if value in found:
            raise InputError(
                f"{path}, line {place}: {label.strip()} has the colour of {found[value]}: give each "
                "label a colour of its own and export the masks again"
            )
        found[value] = label.strip()
    if not found:
        raise InputError(f"{path} names no label: export it again")
    return found


def _colour(text: str, number: int) -> int | None:
    """Return the value of "128,0,0"; without a colour that of VOC's own colour number `number`."""
    if not text.strip():
        return colour_value(*_voc_colour(number))
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3 or not all(p.isascii() and p.isdigit() and int(p) < 256 for p in parts):
        return None
    red, green, blue = map(int, parts)
    return colour_value(red, green, blue)


def _voc_colour(number: int) -> tuple[int, int, int]:
    """Return the colour of a VOC class: its bits spread over the channels (VOC devkit, VOClabelcolormap)."""
    channels = [0, 0, 0]
    for bit in range(7, -1, -1):
        for channel in range(3):
            channels[channel] |= (number >> channel & 1) << bit
        number >>= 3
    return channels[0], channels[1], channels[2]
