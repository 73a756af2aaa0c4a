"""`ddiseg import`: photographs, and what is known about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddiseg.cli.common import (
    LISTED,
    Command,
    Settings,
    outcome_lines,
    outcomes_dict,
    pass_settings,
    progress_bar,
    raise_refused,
    report_outcomes,
    taken_as,
)

if TYPE_CHECKING:
    from ddiseg.ingest.coco_import import CocoImport
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
    "--malignant",
    metavar="DIAGNOSIS,...",
    help="Diagnoses that are malignant, for example BCC,MEL,SCC, where no column says it.  "
    "[default: the codes of PAD-UFES-20, HAM10000 and ISIC 2019 are known]",
)
@click.option(
    "--benign",
    metavar="DIAGNOSIS,...",
    help="Diagnoses that are benign; 'rest' is every one that --malignant does not name.",
)
@click.option(
    "--dataset",
    metavar="NAME",
    help="Dataset that the photographs belong to.  [default: DDI, or the folder's name]",
)
@click.option("--licence", metavar="TEXT", help="Licence of the dataset; exports carry it.")
@click.option("--source", metavar="TEXT", help="URL or citation of the dataset.")
@click.option(
    "--synthetic",
    is_flag=True,
    help="The images were made by code and show no person; the report says so of the dataset.",
)
@click.option(
    "--in-place",
    is_flag=True,
    help="Reference the files where they lie instead of copying them; they must stay there.",
)
@click.option(
    "--as",
    "format_name",
    type=click.Choice(["coco"]),
    help="PATH is a COCO file that lists photographs and masks, or a folder that has one.  "
    "[default: coco for a .json file]",
)
@click.option(
    "--images",
    "photographs",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="With --as: folder of the photographs.  [default: PATH, or the folder that it lies in]",
)
@click.option(
    "--annotator",
    metavar="NAME",
    help="With --as: who drew the masks in the file; without a name they are left.",
)
@click.option(
    "--reviewer",
    metavar="NAME",
    help="With --as: who reviewed the masks, a second person; they then arrive accepted.",
)
@click.option(
    "--classes",
    metavar="LABEL=CLASS,...",
    help="With --as: what categories mean that are not called like a class, for example "
    "nevus=lesion,pen=marker.",
)
@click.option(
    "--rest",
    metavar="CLASS",
    help="With --as: class of the pixels that no region covers.  [default: background]",
)
@click.option(
    "--stretched",
    is_flag=True,
    help="With --as: masks of another size than their image were drawn on it stretched to that.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 if any file, row or mask was refused.")
@pass_settings
def import_(
    settings: Settings,
    path: Path,
    format_name: str | None,
    photographs: Path | None,
    annotator: str | None,
    reviewer: str | None,
    classes: str | None,
    rest: str | None,
    stretched: bool,
    metadata: Path | None,
    columns: str | None,
    malignant: str | None,
    benign: str | None,
    dataset: str | None,
    licence: str | None,
    source: str | None,
    synthetic: bool,
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
    Whether an image is malignant is taken from the column named malignant=COLUMN, else from its
    diagnosis: by --malignant and --benign, and by the codes of a public dataset where every other
    diagnosis is one of them (HAM10000's akiec stays unknown: it may be either). The import prints
    what it decided. Import again with these options, or with corrected diagnoses, to change it; a
    value from a column is changed only by a column.

    Photographs are turned upright and every bit of metadata in them is dropped from the stored
    copy. The same photograph twice is one image; photographs that only look alike are listed.
    Run the same command again at any time: what is there is unchanged, corrected rows are taken.

    With --as, a file of another tool, or a release of ddiseg, brings photographs and masks at once:

    \b
      ddiseg import release --as coco --annotator reader-1 --reviewer reader-2
      ddiseg import labels.json --as coco --images photos --annotator reader-1 \\
        --classes nevus=lesion,pen=marker --rest skin
    """
    from annotation_protocol import load_protocol
    from ddiseg.errors import InputError
    from ddiseg.ingest.coco_import import import_coco
    from ddiseg.ingest.diagnoses import MalignantDiagnoses
    from ddiseg.ingest.labels import Labels
    from ddiseg.ingest.metadata import parse_columns
    from ddiseg.ingest.photographs import import_photographs

    guessed = format_name is None and path.is_file() and path.suffix.lower() == ".json"
    format_name = "coco" if guessed else format_name
    of_masks = (photographs, annotator, reviewer, classes, rest, stretched or None)
    if format_name is None and any(option is not None for option in of_masks):
        raise click.UsageError(
            "--images, --annotator, --reviewer, --classes, --rest and --stretched are about a file "
            "with masks: give --as too, or bring masks with 'ddiseg masks import'"
        )
    try:
        diagnoses = MalignantDiagnoses.parse(malignant, benign)
    except InputError as error:
        raise click.UsageError(str(error)) from error
    labels = Labels.parse(classes, rest, load_protocol())
    described: dict[str, Any] = {
        "metadata": metadata,
        "columns": parse_columns(columns) if columns is not None else None,
        "dataset": dataset,
        "licence": licence,
        "source": source,
        "diagnoses": diagnoses,
        "synthetic": synthetic,
        "in_place": in_place,
    }
    workspace = settings.open()
    with progress_bar("Importing") as progress:
        if format_name is None:
            folder = import_photographs(workspace, path, **described, progress=progress)
        else:
            coco = import_coco(
                workspace,
                path,
                labels=labels,
                photographs=photographs,
                annotator=annotator,
                reviewer=reviewer,
                stretched=stretched,
                **described,
                progress=progress,
            )
    if format_name is None:
        extra, lines = _as_dict(folder), _summary(folder)
        report_outcomes(settings, folder.outcomes, "files", strict=strict, extra=extra, lines=lines)
    else:
        _report_coco(settings, coco, guessed, strict)


def _report_coco(settings: Settings, done: CocoImport, guessed: bool, strict: bool) -> None:
    photographs = done.photographs
    lines = [*outcome_lines(photographs.outcomes, "images"), *taken_as("coco", guessed)]
    lines += _summary(photographs)
    if done.masks_left:
        lines.append(
            f"masks left in the file: {done.masks_left}; say who drew them with --annotator NAME to "
            "bring them too"
        )
    elif done.masks:
        lines += outcome_lines(done.masks, "masks")
    else:
        lines.append("the file has no masks")
    data = {
        **outcomes_dict(photographs.outcomes),
        **_as_dict(photographs),
        "masks": {**outcomes_dict(done.masks), "left": done.masks_left},
    }
    settings.emit(data, "\n".join(lines))
    raise_refused([*photographs.outcomes, *done.masks], "images and masks", strict=strict)


def _as_dict(done: PhotographImport) -> dict[str, Any]:
    return {
        "dataset": done.dataset,
        "rows_without_file": done.rows_without_file,
        "files_without_row": done.files_without_row,
        "near_duplicates": [
            {"images": list(p.names), "ids": list(p.ids), "bits": p.bits, "new": p.new}
            for p in done.near_duplicates
        ],
        "notes": done.notes,
    }


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
