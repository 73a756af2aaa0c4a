"""One picture of an image: the photograph, its accepted mask or the one in review, its prediction."""

from __future__ import annotations

from pathlib import Path

from annotation_protocol import load_protocol
from ddiseg import masks
from ddiseg.catalogue.tables import Image
from ddiseg.masks import panels
from ddiseg.workspace.workspace import Workspace


def write_picture(workspace: Workspace, image: Image, path: Path) -> None:
    """Write `side_by_side` to a new file; raises InputError where there is one already."""
    panels.write_new(path, side_by_side(workspace, image))


def side_by_side(workspace: Workspace, image: Image) -> bytes:
    """A PNG of the photograph and the masks painted over it: accepted, in review, predicted.

    Raises WorkspaceError or InputError where a file is missing or damaged.
    """
    photograph = panels.fitted(workspace.photograph(image))
    shown = [(f"{image.name}, tone {image.tone}", photograph)]
    rows = workspace.catalogue.masks
    drawn = {
        "accepted": rows.accepted(),
        "in review": rows.in_review(),
        "prediction": rows.newest_predictions(),
    }
    for caption, of_images in drawn.items():
        mask = of_images.get(image.id)
        if mask is not None:
            painted = masks.draw_overlay(photograph, workspace.mask(mask), load_protocol())
            shown.append((caption, painted))
    return panels.join_panels(shown)
