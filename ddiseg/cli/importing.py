"""`ddiseg import` and `ddiseg masks import`: everything that brings data in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddiseg.cli.base import (
    LISTED,
    Command,
    Group,
    Settings,
    pass_settings,
    progress_bar,
    report_outcomes,
)

if TYPE_CHECKING:
    from ddiseg.ingest.photographs import NearDuplicate, PhotographImport


@click.command(name="import", cls=Command)
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--metadata",
    type=click.Path(path_type=Path),
    help="CSV file that describes the photographs, one a row.",
)
@click.option(
    "--columns",
    metavar="KEY=COLUMN,...",
    help="What the columns of --metadata mean; the keys are image, tone, diagnosis, patient, "
    "lesion and malignant, and image is needed.",
)
@click.option(
    "--dataset",
    metavar="NAME",
    help="Dataset that the photographs belong to.  [default: DDI, or the folder's name]",
)
@click.option("--licence", metavar="TEXT", help="Licence of the dataset; exports carry it.")
@click.option("--source", metavar="TEXT", help="URL or citation of the dataset.")
@click.option(
    "--in-place",
    is_flag=True,
    help="Reference the files where they lie instead of copying them; they must stay there.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 if any file or row was refused.")
@pass_settings
def import_(
    settings: Settings,
    path: Path,
    metadata: Path | None,
    columns: str | None,
    dataset: str | None,
    licence: str | None,
    source: str | None,
    in_place: bool,
    strict: bool,
) -> None:
    """Import a folder of photographs.

    The folder PATH decides what is imported, subfolders included. DDI's own layout is recognised
    by its ddi_metadata.csv. For any other folder, describe the photographs with a CSV file:

    \b
      ddiseg import photos --metadata photos.csv \\
        --columns image=file,tone=fitzpatrick,diagnosis=dx,patient=patient_id

    Tones may be 12, 34, 56, 1 to 6, roman numerals or blank; a row with anything else is refused.
    Photographs are turned upright and every bit of metadata in them is dropped from the stored
    copy. The same photograph twice is one image; photographs that only look alike are listed.
    Run the same command again at any time: what is there is unchanged, corrected rows are taken.
    """
    from ddiseg.ingest.metadata import parse_columns
    from ddiseg.ingest.photographs import import_photographs

    chosen = parse_columns(columns) if columns is not None else None
    workspace = settings.open()
    with progress_bar("Importing") as progress:
        done = import_photographs(
            workspace,
            path,
            metadata=metadata,
            columns=chosen,
            dataset=dataset,
            licence=licence,
            source=source,
            in_place=in_place,
            progress=progress,
        )
    report_outcomes(
        settings,
        done.outcomes,
        "files",
        strict=strict,
        extra={
            "dataset": done.dataset,
            "rows_without_file": done.rows_without_file,
            "files_without_row": done.files_without_row,
            "near_duplicates": [
                {"images": list(p.names), "ids": list(p.ids), "bits": p.bits, "new": p.new}
                for p in done.near_duplicates
            ],
            "notes": done.notes,
        },
        lines=_summary(done),
    )


@click.group(name="masks", cls=Group)
def masks() -> None:
    """Bring in masks that were drawn elsewhere."""


@masks.command(name="import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--as",
    "format_name",
    required=True,
    metavar="FORMAT",
    shell_complete=lambda _context, _parameter, given: _format_names(given),
    help="Format of the files: png (class ids, or other values with --classes), sddi (the "
    "published FEDD masks in their own layout), or one that an installed package adds.",
)
@click.option(
    "--annotator",
    required=True,
    metavar="NAME",
    help="Who drew the masks, for example 'FEDD authors' for sDDI.",
)
@click.option(
    "--reviewer",
    metavar="NAME",
    help="Who reviewed them, a second person; the masks then arrive accepted.",
)
@click.option(
    "--classes",
    metavar="VALUE=CLASS,...",
    help="What values that are not class ids mean, for example 0=skin,255=lesion.",
)
@click.option(
    "--stretched",
    is_flag=True,
    help="Masks of another size than their image were drawn on the photograph stretched to it.",
)
@click.option("--dataset", metavar="NAME", help="Match names with the images of one dataset only.")
@click.option("--subset", metavar="NAME", help="Take the masks of this subset's images only.")
@click.option("--strict", is_flag=True, help="Exit with 1 if any file was refused.")
@pass_settings
def masks_import(
    settings: Settings,
    path: Path,
    format_name: str,
    annotator: str,
    reviewer: str | None,
    classes: str | None,
    stretched: bool,
    dataset: str | None,
    subset: str | None,
    strict: bool,
) -> None:
    """Import a folder of masks, or one.

    A mask belongs to the image that has its name, endings aside; import the photographs first.
    Nothing is overwritten: another mask for an accepted image is refused until it is reopened.

    \b
      ddiseg masks import masks --as png --classes 0=skin,255=lesion --annotator reader-1 --reviewer reader-2
      ddiseg masks import ddi_labels --as sddi --annotator 'FEDD authors'
    """
    from annotation_protocol import load_protocol
    from ddiseg.ingest.mask_files import import_masks
    from ddiseg.masks import parse_class_mapping

    names = load_protocol().class_names
    mapping = parse_class_mapping(classes, names) if classes is not None else None
    workspace = settings.open()
    with progress_bar("Importing masks") as progress:
        outcomes = import_masks(
            workspace,
            path,
            format_name=format_name,
            annotator=annotator,
            reviewer=reviewer,
            mapping=mapping,
            stretched=stretched,
            dataset=dataset,
            subset=subset,
            progress=progress,
        )
    report_outcomes(
        settings,
        outcomes,
        "mask files",
        strict=strict,
        extra={"annotator": annotator, "reviewer": reviewer},
    )


COMMANDS: tuple[click.Command, ...] = (import_, masks)


def _format_names(given: str) -> list[str]:
    from ddiseg.formats import MASKS, format_names

    return [name for name in format_names(MASKS) if name.startswith(given)]


def _summary(done: PhotographImport) -> list[str]:
    lines = [f"dataset: {done.dataset}", *done.notes]
    if done.rows_without_file:
        lines.append(f"{done.rows_without_file} rows of the metadata have no file in the folder")
    if done.files_without_row:
        lines.append(
            f"{len(done.files_without_row)} files have no row in the metadata, their tone is unknown: "
            + _some(done.files_without_row)
        )
    return lines + _alike(done.near_duplicates)


def _alike(pairs: Sequence[NearDuplicate]) -> list[str]:
    if not pairs:
        return []
    new = sum(pair.new for pair in pairs)
    lines = [
        f"pairs of photographs that look alike: {len(pairs)}, of them new: {new}; nothing was merged",
        *(
            f"  {pair.names[0]} (#{pair.ids[0]}) and {pair.names[1]} (#{pair.ids[1]}), "
            f"{pair.bits} of 64 bits apart"
            for pair in pairs[:LISTED]
        ),
    ]
    if len(pairs) > LISTED:
        lines.append(f"  ... and {len(pairs) - LISTED} more; --output json lists all")
    return lines


def _some(names: Sequence[str]) -> str:
    rest = len(names) - LISTED
    more = f" and {rest} more; --output json lists all" if rest > 0 else ""
    return ", ".join(names[:LISTED]) + more
