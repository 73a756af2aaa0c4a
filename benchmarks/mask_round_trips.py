"""Masks that other tools wrote, imported: IoU with the masks that they were given, by tool and class.

Four phantoms whose lesion lies in a closed ring of a pen, with a ruler; two lesions have a hole. What the
tools wrote is in `mask_writers/`, with the script that made it. Pixels of the four are counted together.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotation_protocol import load_protocol
from annotation_protocol.metrics import confusion, iou_per_class
from benchmarks import tables
from ddiseg.formats import LABELLED_MASKS, MASKS, group_of
from ddiseg.ingest.labelled_masks import Labels, import_labelled_masks
from ddiseg.ingest.mask_files import import_masks
from ddiseg.ingest.photographs import import_photographs
from ddiseg.outcomes import fold
from ddiseg.workspace.workspace import Workspace

FILES = Path(__file__).with_name("mask_writers")


@dataclass(frozen=True)
class Written:
    """What one tool wrote."""

    tool: str
    what: str
    path: str  #: in FILES
    format_name: str
    keeps_holes: bool


WRITTEN = (
    Written("supervision", "COCO, RLE where there are holes", "supervision.json", "coco", True),
    Written("datumaro", "COCO, RLE", "datumaro_mask.json", "coco", True),
    Written("datumaro", "COCO, polygons", "datumaro_polygons.json", "coco", False),
    Written("datumaro", "VOC, colour PNG", "datumaro_voc", "voc", True),
    Written("ultralytics", "YOLO polygons, scaled into COCO", "ultralytics.json", "coco", False),
    Written("label-studio-sdk", "brush strokes", "label_studio_brush.json", "labelstudio", True),
    Written("label-studio-sdk", "polygons", "label_studio_polygons.json", "labelstudio", False),
    Written(
        "label-studio-sdk",
        "polygons by its COCO converter",
        "label_studio_coco.json",
        "coco",
        False,
    ),
)


@dataclass(frozen=True)
class RoundTrip:
    """The masks of one file after its import."""

    masks: Mapping[str, NDArray[np.uint8]]  #: (H, W) class ids by name of the phantom
    refused: Mapping[str, str]  #: why, by name
    kinds: Sequence[str]  #: kinds of notes


def main() -> None:
    names = load_protocol().class_names
    header = ["tool", "wrote", *names, "refused"]
    rows = []
    for written in WRITTEN:
        done = round_trip(written)
        iou = iou_of(done)
        cells = ["-" if np.isnan(value) else f"{value:.3f}" for value in iou]
        rows.append([written.tool, written.what, *cells, f"{len(done.refused)} of {len(truths())}"])
    widths = [max(len(row[n]) for row in (header, *rows)) for n in range(len(header))]
    for row in (header, *rows):
        print(tables.line(row, widths))


def truths() -> dict[str, NDArray[np.uint8]]:
    """Return the masks that the tools were given, by name."""
    return {path.stem: np.asarray(Image.open(path)) for path in sorted((FILES / "truth").iterdir())}


def round_trip(written: Written) -> RoundTrip:
    """Import what a tool wrote into a new workspace."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.create(Path(folder) / "w")
        photographs = Path(folder) / "photographs"
        photographs.mkdir()
        for seed, (name, mask) in enumerate(truths().items()):
            noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(noise).resize(mask.shape[::-1]).save(photographs / f"{name}.png")
        import_photographs(workspace, photographs)
        protocol = load_protocol()
        options: dict[str, Any] = {"format_name": written.format_name, "annotator": "reader-1"}
        if group_of(written.format_name, MASKS, LABELLED_MASKS) == LABELLED_MASKS:
            options["labels"] = Labels(protocol)
            done = import_labelled_masks(workspace, FILES / written.path, **options)
        else:
            done = import_masks(workspace, FILES / written.path, **options)
        masks = {
            Path(image.name).stem: workspace.mask(row)
            for image in workspace.catalogue.images.select()
            for row in workspace.catalogue.masks.of_image(image.id)
        }
        workspace.catalogue.close()
    refused = {o.name: str(o.note) for o in done.outcomes if o.outcome.value == "refused"}
    return RoundTrip(masks, refused, [str(g.note) for g in fold(done.outcomes) if g.note])


def iou_of(done: RoundTrip) -> NDArray[np.float64]:
    """Return the IoU of each class over the pixels of all masks that were taken."""
    classes = len(load_protocol().classes)
    pairs = [(truths()[name], mask) for name, mask in done.masks.items()]
    return iou_per_class(sum(confusion(truth, mask, classes) for truth, mask in pairs))
