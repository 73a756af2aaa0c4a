"""`ddiseg masks import`: masks that were drawn with other tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ddiseg.cli.common import (
    Group,
    Settings,
    listed_in,
    pass_settings,
    progress_bar,
    report_outcomes,
    taken_as,
)
from ddiseg.cli.params import Place, geometry_options, read_geometry, suffix_option


@click.group(name="masks", cls=Group)
def masks() -> None:
    """Import masks that were drawn with other tools."""


@masks.command(name="import")
@click.argument("path", type=Place())
@click.option(
    "--as",
    "format_name",
    metavar="FORMAT",
    shell_complete=lambda _context, _parameter, given: _format_names(given),
    help="Format of the files: png (pictures of class ids, or other values and colours with "
    "--classes), voc (with a labelmap.txt), sddi (the published FEDD masks in their own layout), coco, "
    "labelstudio (a JSON export), or one that an installed package adds.  [default: the only one that "
    "fits]",
)
@click.option(
    "--annotator",
    metavar="NAME",
    help="Who drew the masks, for example 'FEDD authors' for sDDI. A file that names them, as that "
    "of Label Studio, needs none.",
)
@click.option(
    "--reviewer",
    metavar="NAME",
    help="Who reviewed them, a second person; the masks then arrive accepted.",
)
@click.option(
    "--classes",
    metavar="VALUE=CLASS,...",
    help="What values or colours mean that are not class ids: 0=skin,255=ignore or "
    "'#800000=lesion'; in files with labels, what those mean that are not called like a class, and "
    "the rest, which no region covers: nevus=lesion,pen=marker,rest=skin.",
)
@click.option("--rest", metavar="CLASS", help="The same as --classes rest=CLASS.", hidden=True)
@suffix_option
@geometry_options()
@click.option("--dataset", metavar="NAME", help="Match names with the images of one dataset only.")
@click.option("--subset", metavar="NAME", help="Take the masks of this subset's images only.")
@click.option("--strict", is_flag=True, help="Exit with 1 if any file was refused.")
@pass_settings
def masks_import(
    settings: Settings,
    /,
    path: Path | str,
    format_name: str | None,
    annotator: str | None,
    reviewer: str | None,
    classes: str | None,
    rest: str | None,
    dataset: str | None,
    subset: str | None,
    suffixes: Sequence[str],
    strict: bool,
    **geometry: Any,
) -> None:
    """Import a folder of masks, or one; or one file with the masks of many images.

    A mask belongs to the image that has its path or name, endings aside; import the photographs first.
    Nothing is overwritten: another mask for an accepted image is refused until it is reopened.

    \b
      ddiseg masks import masks --as png --classes 0=skin,255=lesion --annotator reader-1 --reviewer reader-2
      ddiseg masks import ddi_labels --as sddi --annotator 'FEDD authors'
      ddiseg masks import isic --classes 0=skin,255=lesion --suffix _segmentation --annotator reader-1
      ddiseg masks import export.json --as labelstudio --classes nevus=lesion,rest=skin
      ddiseg masks import labels.json --as coco --annotator reader-1
      ddiseg masks import s3://bucket/masks --annotator reader-1
    """
    from annotation_protocol import load_protocol
    from ddiseg.formats import LABELLED_MASKS, MASKS, group_of, guess_format
    from ddiseg.ingest.class_values import ClassMapping
    from ddiseg.ingest.labelled_masks import Labels, import_labelled_masks
    from ddiseg.ingest.mask_files import import_masks
    from ddiseg.ingest.mask_targets import parse_suffixes
    from ddiseg.ingest.source import open_masks

    guessed = format_name is None
    workspace = settings.open()
    with open_masks(workspace, path) as file:
        format_name = format_name or guess_format(file, MASKS, LABELLED_MASKS)
        labelled = group_of(format_name, MASKS, LABELLED_MASKS) == LABELLED_MASKS
        if not labelled and annotator is None:
            raise click.UsageError("Missing option '--annotator'.")
        if not labelled and rest is not None:
            raise click.UsageError(f"--rest is about files with labels: {format_name} has values")
        protocol = load_protocol()
        chosen: dict[str, Any] = {
            "format_name": format_name,
            "annotator": annotator,
            "reviewer": reviewer,
            "geometry": read_geometry(geometry),
            "dataset": dataset,
            "subset": subset,
            "suffixes": parse_suffixes(suffixes),
        }
        if labelled:
            chosen["labels"] = Labels.parse(classes, rest, protocol)
        elif classes is not None:
            chosen["mapping"] = ClassMapping.parse(classes, protocol)
        with progress_bar("Importing masks") as progress:
            if labelled:
                done = import_labelled_masks(workspace, file, **chosen, progress=progress)
            else:
                done = import_masks(workspace, file, **chosen, progress=progress)
    report_outcomes(
        settings,
        done.outcomes,
        "masks" if labelled else "mask files",
        strict=strict,
        extra={
            "format": format_name,
            "annotator": annotator,
            "reviewer": reviewer,
            "notes": done.notes,
        },
        lines=[
            *listed_in(workspace.root, done.outcomes, "masks"),
            *taken_as(format_name, guessed),
            *done.notes,
        ],
    )


def _format_names(given: str) -> list[str]:
    from ddiseg.formats import LABELLED_MASKS, MASKS, format_names

    return [name for name in format_names(MASKS, LABELLED_MASKS) if name.startswith(given)]
