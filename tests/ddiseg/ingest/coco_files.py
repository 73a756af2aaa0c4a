"""COCO files as other tools write them, made by code, and what became of one that was imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import load_protocol
from ddiseg.ingest.coco_import import CocoImport, import_coco
from ddiseg.ingest.labelled_masks import Labels, MaskImport, import_labelled_masks
from ddiseg.outcomes import FileOutcome
from ddiseg.workspace.workspace import Workspace

PROTOCOL = load_protocol()

#: As large as the photographs of the fixtures.
HEIGHT, WIDTH = 16, 24
LESION = np.zeros((HEIGHT, WIDTH), bool)
LESION[4:8, 6:12] = True
#: The same as a polygon.
OUTLINE = [6, 4, 12, 4, 12, 8, 6, 8]
BOX = {"bbox": [6, 4, 6, 4], "area": 24}


def coco_file(names: tuple[str, ...] = ("a.png", "b.png"), first_id: int = 0) -> dict[str, Any]:
    """Each image has one lesion; ids start at `first_id`, those of categories with 0."""
    return {
        "images": [
            {"id": n, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for n, name in enumerate(names, first_id)
        ],
        "categories": [{"id": 0, "name": "Lesion"}, {"id": 1, "name": "skin"}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 0, "segmentation": [OUTLINE], **BOX}
            for n in range(first_id, first_id + len(names))
        ],
    }


def write(folder: Path, document: Any, name: str = "labels.json") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def run(workspace: Workspace, path: Path, **options: Any) -> CocoImport:
    return import_coco(
        workspace, path, **{"labels": Labels(PROTOCOL), "annotator": "reader-1", **options}
    )


def run_masks(workspace: Workspace, path: Path, **options: Any) -> MaskImport:
    options = {"labels": Labels(PROTOCOL), "annotator": "reader-1", **options}
    return import_labelled_masks(workspace, path, format_name="coco", **options)


def told(outcomes: list[FileOutcome]) -> dict[str, str]:
    return {o.name: o.outcome.value for o in outcomes}


def note(outcomes: list[FileOutcome], name: str) -> str:
    (found,) = [str(o.note) for o in outcomes if o.name == name]
    return found


def drawn(workspace: Workspace, name: str) -> NDArray[np.uint8]:
    image = workspace.catalogue.images.find(name)
    return workspace.mask(workspace.catalogue.masks.of_image(image.id)[-1])
