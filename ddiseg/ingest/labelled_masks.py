"""Masks made of regions that carry labels, from one file of another tool, into the catalogue.

A format is a function like `ddiseg.ingest.coco_masks.read_masks`, found by its name through the
entry points `ddiseg.labelled_mask_formats`: (Path, Labels) -> LabelledMasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ddiseg import formats
from ddiseg.errors import InputError
from ddiseg.ingest.labels import Labels
from ddiseg.ingest.mask_files import (
    MaskFile,
    MaskImport,
    MaskTargets,
    check_people,
    refuse_too_large,
    submit_files,
)
from ddiseg.masks import Composition, Layer, Mask, Origin, compose
from ddiseg.outcomes import FileOutcome, Progress, silent
from ddiseg.workspace.workspace import Workspace


@dataclass(frozen=True)
class LabelledMasks:
    """What a file holds."""

    files: Sequence[MaskFile]  #: their values are class ids
    refused: Sequence[FileOutcome] = ()  #: entries that no mask can be made of
    notes: Sequence[str] = ()  #: what was left, and why


def import_labelled_masks(
    workspace: Workspace,
    path: Path,
    *,
    format_name: str,
    labels: Labels,
    annotator: str | None = None,
    reviewer: str | None = None,
    stretched: bool = False,
    dataset: str | None = None,
    subset: str | None = None,
    progress: Progress = silent,
) -> MaskImport:
    """Import the masks of a file, matched to catalogued images by file name without ending.

    Args:
        labels: the classes of the labels in it.
        annotator: who drew all of it; None: whom the file names, mask by mask.
        reviewer: a second person; the masks then arrive accepted.
        stretched, dataset, subset: as in `ddiseg.ingest.mask_files.import_masks`.

    Raises:
        InputError: a file that can't be read or has no masks, labels whose class is unknown, no one
            who drew, or no mask of the subset.
        NotFoundError: no such dataset or subset.
        WorkspaceError: the store or catalogue can't be written; what was finished is kept.
    """
    annotator, reviewer = check_people(annotator, reviewer)
    read = formats.load_format(formats.LABELLED_MASKS, format_name)
    targets = MaskTargets.read(workspace, dataset)
    found: LabelledMasks = read(path, labels)
    files = list(found.files)
    if not files and not found.refused:
        raise InputError("; ".join([f"{path} has no masks", *found.notes]))
    if subset is not None:
        files = targets.inside(workspace, subset, files)
    if files and annotator is None and not any(file.annotator for file in files):
        raise InputError(f"{path} does not say who drew its masks: give --annotator NAME")
    outcomes = submit_files(
        workspace,
        files,
        targets.of,
        annotator=annotator,
        reviewer=reviewer,
        stretched=stretched,
        progress=progress,
    )
    return MaskImport([*found.refused, *outcomes], list(found.notes))


def compose_labelled(
    layers: Iterable[Layer], size: tuple[int, int], base: Mask | None, labels: Labels
) -> tuple[Mask, list[str]]:
    """The mask that layers stand for, (height, width), and what had to be decided for it.

    Layers of one class that people drew are united on the way, so that a picture with hundreds of
    them needs no more memory than one with a few.

    Args:
        base: the prediction that the layers came with, see `ddiseg.masks.compose`.
        labels: says what the pixels are that no layer covers.

    Raises:
        InputError: more pixels than any mask has, or a layer of another size.
    """
    refuse_too_large(size)
    painted: list[Layer] = []
    drawn: dict[int, Layer] = {}
    for layer in layers:
        if layer.origin is not Origin.MANUAL:
            painted.append(layer)
        elif layer.class_id in drawn:
            np.logical_or(
                drawn[layer.class_id].region, layer.region, out=drawn[layer.class_id].region
            )
        else:
            drawn[layer.class_id] = layer
    rest = Layer(labels.rest_id, np.ones(size, dtype=np.bool_), Origin.PREDICTION)
    found: Composition = compose([rest, *painted, *drawn.values()], size, base, labels.protocol)
    notes = []
    if found.conflicts:
        notes.append(
            f"{found.conflicts:,} pixels were drawn as two classes: the protocol's precedence decided"
        )
    return found.mask, notes
