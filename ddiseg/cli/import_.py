"""`ddiseg import`: photographs, and what is known about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ddiseg.cli.common import (
    Command,
    Settings,
    listed_in,
    pass_settings,
    progress_bar,
    report_outcomes,
)
from ddiseg.cli.import_coco import (
    as_dict,
    describe,
    import_coco_file,
    is_json,
    leak_lines,
    mask_options,
    open_photographs,
    open_table,
    photograph_options,
    summary,
)
from ddiseg.cli.params import Place, cluster_of, engine_options


@click.command(name="import", cls=Command)
@click.argument("path", type=Place())
@photograph_options(hidden=False)
@click.option("--as", "format_name", type=click.Choice(["coco"]), hidden=True)
@mask_options(hidden=True)
@click.option("--strict", is_flag=True, help="Exit with 1 if any file, row or mask was refused.")
@engine_options
@pass_settings
def import_(
    settings: Settings, /, path: Path | str, format_name: str | None, strict: bool, **given: Any
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
    copy. The same photograph twice is one image; copies of one picture (recompressed, cropped by up to 5 %, turned) are listed and stay together.
    Run the same command again at any time: what is there is unchanged, corrected rows are taken.

    \b
      ddiseg import s3://bucket/photos --metadata s3://bucket/photos.csv --columns image=file
      ddiseg import https://example.org/list.csv

    A list is text with one URL a line, or a CSV file with a column 'url' (and 'name', if wanted).

    With --engine ray the workers of a Ray cluster read the photographs, which must lie where all nodes
    have them (docs/cluster.md).

    A COCO file with photographs and masks is imported by 'ddiseg import-coco'.
    """
    from ddiseg.ingest.photographs import import_photographs

    engine, ray_address = given.pop("engine"), given.pop("ray_address")
    of_masks = {name: given.pop(name) for name in ("photographs", *_OF_MASKS)}
    guessed = format_name is None and is_json(path)
    if format_name or guessed:
        import_coco_file(settings, path, {**given, **of_masks}, guessed=guessed, strict=strict)
        return
    if any(value for value in of_masks.values()):
        raise click.UsageError(
            "--images, --annotator, --reviewer, --classes, --rest and --geometry are about a file "
            "with masks: use 'ddiseg import-coco', or bring masks with 'ddiseg masks import'"
        )
    described = describe(given)
    workspace = settings.open()
    with (
        open_photographs(workspace, path) as source,
        open_table(workspace, described),
        cluster_of(workspace, engine, ray_address) as cluster,
        progress_bar("Importing") as progress,
    ):
        done = import_photographs(
            workspace, source, **described, progress=progress, cluster=cluster
        )
    listed = listed_in(workspace.root, done.outcomes, "files")
    report_outcomes(
        settings,
        done.outcomes,
        "files",
        strict=strict,
        extra=as_dict(done),
        lines=[*listed, *summary(done), *leak_lines(done)],
    )


#: Options that only a file with masks takes.
_OF_MASKS = (
    *("annotator", "reviewer", "classes", "rest"),
    *("geometry", "stretched", "raw_orientation"),
)
