"""Figures of photographs: the paper's figure 5 (masks) and the supplement's figure 1 (activations).

Arrays: photographs (H, W, 3) uint8, masks (H, W) uint8 class ids.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotation_protocol import load_protocol
from fedd.dataset import DatasetImage, resized_mask
from fedd.explore.clusters import supplement_blocks, write_cluster_maps
from fedd.figures import ContactSheet, draw_contact_sheet
from fedd.files import file_hash, write_file
from fedd.reproduce.cells import Workbench
from fedd.reproduce.plan import FEDD, SEGMENTATION, Cell

#: Opacity of a mask over the photograph.
_OPACITY = 0.55

#: Timestep of the supplement's figure 1, and clusters of each map (supplement, section 4).
SUPPLEMENT_TIMESTEP, CLUSTERS = 100, 3


def draw_figure5(workbench: Workbench, next_best: str | None) -> Any:
    """Draw a few photographs of each tone with the masks of each fraction: the next best model's, and FEDD's."""
    plan, protocol = workbench.plan, load_protocol()
    models = [model for model in (next_best, FEDD) if model is not None]
    columns = [(model, fraction) for fraction in plan.fractions for model in models]
    items = workbench.shown()
    pictures, lacking = [], False
    for item in items:
        photograph = item.photograph()
        row = [photograph, _overlaid(photograph, item.class_ids(len(protocol.classes)))]
        for model, fraction in columns:
            path = workbench.mask_path(Cell(SEGMENTATION, model, fraction, plan.seeds[0]), item)
            lacking |= not path.is_file()
            row.append(_predicted(photograph, path))
        pictures.append(row)
    return draw_contact_sheet(
        ContactSheet(
            pictures=pictures,
            rows=_names(items),
            columns=["photograph", "truth", *(model for model, _ in columns)],
            groups=[("", 2), *((f"{f} % of DDI", len(models)) for f in plan.fractions)],
            title="",
            note="White: not run." if lacking else "",
            key=[(c.colour, c.name) for c in protocol.classes],
        )
    )


def write_supplement1(workbench: Workbench, path: Path) -> None:
    """Write the activations and clusters of one photograph of each tone.

    A figure is kept where the file beside it says that it was made with the same. Raises FigureError or
    OutputError if a file can't be written.
    """
    one_of_each = {item.tone: item for item in reversed(workbench.shown())}
    items = sorted(one_of_each.values(), key=lambda item: item.tone)
    backbone, seed = workbench.backbone, workbench.plan.seeds[0]
    blocks = supplement_blocks(backbone.config)
    made_with = json.dumps(
        {
            "backbone": backbone.hash,
            "precision": backbone.precision,
            "photographs": [[i.tone, i.stem, file_hash(i.path)] for i in items],
            "blocks": blocks,
            "timestep": SUPPLEMENT_TIMESTEP,
            "clusters": CLUSTERS,
            "seed": seed,
        }
    )
    note = path.with_suffix(".json")
    if path.is_file() and note.is_file() and note.read_bytes() == made_with.encode():
        return
    with suppress(OSError):  # then the figure can't be written either
        note.unlink(missing_ok=True)  # a run killed between the two files draws again
    write_cluster_maps(
        [(name, item.photograph()) for name, item in zip(_names(items), items, strict=True)],
        backbone,
        blocks,
        (SUPPLEMENT_TIMESTEP,),
        path,
        k=CLUSTERS,
        seed=seed,
    )
    write_file(note, made_with)


def _names(items: Sequence[DatasetImage]) -> list[str]:
    return [f"{item.tone}  {item.stem}" for item in items]


def _predicted(photograph: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    if not path.is_file():
        return np.full_like(photograph, 255)
    return _overlaid(photograph, np.array(Image.open(path)))


def _overlaid(photograph: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    colours = np.full((256, 3), 255)  # a pixel of unknown class is white
    palette = load_protocol().palette()
    colours[: len(palette)] = palette
    full = resized_mask(mask, photograph.shape[:2])
    return np.asarray((1 - _OPACITY) * photograph + _OPACITY * colours[full], np.uint8)
