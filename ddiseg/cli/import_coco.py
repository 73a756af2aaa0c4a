"""`ddiseg import-coco`: photographs and masks of a COCO file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddiseg.cli.common import (
    LISTED,
    Command,
    Settings,
    listed_in,
    outcome_lines,
    outcomes_dict,
    pass_settings,
    progress_bar,
    raise_refused,
    taken_as,
)
from ddiseg.cli.params import Place, add_options, geometry_options, read_geometry
from ddiseg.outcomes import counted

if TYPE_CHECKING:
    from ddiseg.ingest.coco_import import CocoImport
    from ddiseg.ingest.photographs import PhotographImport, SimilarPair
    from ddiseg.ingest.source import Source
    from ddiseg.workspace.workspace import Workspace


def photograph_options(*, hidden: bool) -> Callable[[Any], Any]:
    """Options that describe photographs; `hidden` leaves only --dataset and --licence in the help."""
    return add_options(
        click.option(
            "--metadata",
            type=Place(),
            help="CSV file that describes the photographs, one a row.",
            hidden=hidden,
        ),
        click.option(
            "--columns",
            metavar="KEY=COLUMN,...",
            help="What the columns of --metadata mean; the keys are image, tone, diagnosis, patient, "
            "lesion and malignant, and image is needed.",
            hidden=hidden,
        ),
        click.option(
            "--malignant",
            metavar="DIAGNOSIS,...",
            help="Diagnoses that are malignant, for example BCC,MEL,SCC, where no column says it.  "
            "[default: the codes of PAD-UFES-20, HAM10000 and ISIC 2019 are known]",
            hidden=hidden,
        ),
        click.option(
            "--benign",
            metavar="DIAGNOSIS,...",
            help="Diagnoses that are benign; 'rest' is every one that --malignant does not name.",
            hidden=hidden,
        ),
        click.option(
            "--dataset",
            metavar="NAME",
            help="Dataset that the photographs belong to.  [default: DDI, or the folder's name]",
        ),
        click.option("--licence", metavar="TEXT", help="Licence of the dataset; exports carry it."),
        click.option(
            "--source", metavar="TEXT", help="URL or citation of the dataset.", hidden=hidden
        ),
        click.option(
            "--synthetic",
            is_flag=True,
            help="The images were made by code and show no person; the report says so of the dataset.",
            hidden=True,
        ),
        click.option(
            "--in-place",
            is_flag=True,
            help="Reference the files where they lie instead of copying them; they must stay there.",
            hidden=hidden,
        ),
    )


def mask_options(*, hidden: bool) -> Callable[[Any], Any]:
    """Options of a file with masks."""
    return add_options(
        click.option(
            "--images",
            "photographs",
            type=Place(),
            metavar="DIR",
            help="Folder of the photographs, or their URL.  [default: PATH, or the folder that it lies in]",
            hidden=hidden,
        ),
        click.option(
            "--annotator",
            metavar="NAME",
            help="Who drew the masks in the file; without a name they are not imported.",
            hidden=hidden,
        ),
        click.option(
            "--reviewer",
            metavar="NAME",
            help="Who reviewed the masks, a second person; they then arrive accepted.",
            hidden=hidden,
        ),
        click.option(
            "--classes",
            metavar="LABEL=CLASS,...",
            help="Classes of the categories that are not called like a class, for example "
            "nevus=lesion,pen=marker.",
            hidden=hidden,
        ),
        click.option(
            "--rest",
            metavar="CLASS",
            help="Class of the pixels that no region covers.  [default: background]",
            hidden=hidden,
        ),
        geometry_options(hidden=hidden),
    )


@click.command("import-coco", cls=Command)
@click.argument("path", type=Place())
@mask_options(hidden=False)
@photograph_options(hidden=True)
@click.option("--strict", is_flag=True, help="Exit with 1 if any file, row or mask was refused.")
@pass_settings
def import_coco(settings: Settings, /, path: Path | str, strict: bool, **given: Any) -> None:
    """Import photographs and masks of a COCO file.

    PATH is the file, or a folder that has one, such as a release of ddiseg; or the URL of either:

    \b
      ddiseg import-coco release --annotator reader-1 --reviewer reader-2
      ddiseg import-coco labels.json --images photos --annotator reader-1 \\
        --classes nevus=lesion,pen=marker --rest skin

    --metadata, --columns, --malignant, --benign, --source and --in-place are understood too, as by
    'ddiseg import'.
    """
    import_coco_file(settings, path, given, guessed=False, strict=strict)


def import_coco_file(
    settings: Settings, path: Path | str, given: dict[str, Any], *, guessed: bool, strict: bool
) -> None:
    """Import a COCO file by the options that were `given`, and print what became of it."""
    from annotation_protocol import load_protocol
    from ddiseg.ingest.coco_import import import_coco as import_file
    from ddiseg.ingest.labelled_masks import Labels

    described = describe(given)
    labels = Labels.parse(described.pop("classes"), described.pop("rest"), load_protocol())
    described["geometry"] = read_geometry(described)
    workspace = settings.open()
    with (
        _open_coco(workspace, path, described) as file,
        open_table(workspace, described),
        progress_bar("Importing") as progress,
    ):
        done = import_file(workspace, file, labels=labels, **described, progress=progress)
    _report(settings, workspace, done, guessed, strict)


def is_json(place: Path | str) -> bool:
    """Return whether a path or URL is a JSON file, by its ending."""
    from ddiseg.object_stores import last_part

    if isinstance(place, str):
        return last_part(place).lower().endswith(".json")
    return place.is_file() and place.suffix.lower() == ".json"


@contextmanager
def open_photographs(workspace: Workspace, place: Path | str) -> Iterator[Source]:
    """Provide the photographs of a folder, a prefix or a list; raises as `open_source` does."""
    from ddiseg.ingest.source import is_list, open_list, open_source, photograph_facts

    with open_source(workspace, place, photograph_facts, "photographs") as source:
        yield open_list(source, place) if is_list(source) else source


@contextmanager
def open_table(workspace: Workspace, described: dict[str, Any]) -> Iterator[None]:
    """Put a copy in the place of a table's URL; raises as `open_source` does."""
    from ddiseg.ingest.source import open_source

    if described["metadata"] is None:
        yield
        return
    with open_source(workspace, described["metadata"], use="metadata") as table:
        described["metadata"] = table.path
        yield


@contextmanager
def _open_coco(
    workspace: Workspace, place: Path | str, described: dict[str, Any]
) -> Iterator[Path]:
    """Provide a COCO file, or a folder with one, and put its photographs into `described`."""
    from ddiseg.errors import InputError
    from ddiseg.ingest.source import coco_facts, open_source, photographs_beside

    with ExitStack() as stack:
        file = stack.enter_context(open_source(workspace, place, coco_facts, "coco"))
        photographs = described["photographs"]
        if photographs is None and file.url is not None and file.path.is_dir():
            described["photographs"] = file
        elif photographs is not None or file.url is not None:
            where = photographs or photographs_beside(str(place))
            if where is None:
                raise InputError(
                    f"{file}: the web has no folders: give the photographs' folder, bucket or list of URLs with "
                    "--images"
                )
            described["photographs"] = stack.enter_context(open_photographs(workspace, where))
        yield file.path


def describe(given: dict[str, Any]) -> dict[str, Any]:
    """Return the options of an import with columns and diagnoses parsed."""
    from ddiseg.errors import InputError
    from ddiseg.ingest.diagnoses import MalignantDiagnoses
    from ddiseg.ingest.metadata import parse_columns

    others = dict(given)
    columns, malignant, benign = (others.pop(k) for k in ("columns", "malignant", "benign"))
    try:
        diagnoses = MalignantDiagnoses.parse(malignant, benign)
    except InputError as error:
        raise click.UsageError(str(error)) from error
    parsed = parse_columns(columns) if columns is not None else None
    return {**others, "columns": parsed, "diagnoses": diagnoses}


def _report(
    settings: Settings, workspace: Workspace, done: CocoImport, guessed: bool, strict: bool
) -> None:
    photographs = done.photographs
    lines = [*outcome_lines(photographs.outcomes, "images"), *taken_as("coco", guessed)]
    lines += summary(photographs)
    if done.masks_left:
        lines.append(
            f"masks left in the file: {done.masks_left}; say who drew them with --annotator NAME to "
            "bring them too"
        )
    elif done.masks:
        lines += outcome_lines(done.masks, "masks")
    else:
        lines.append("the file has no masks")
    lines += listed_in(workspace.root, [*photographs.outcomes, *done.masks], "images and masks")
    lines += leak_lines(photographs)
    data = {
        **outcomes_dict(photographs.outcomes),
        **as_dict(photographs),
        "masks": {**outcomes_dict(done.masks), "left": done.masks_left},
    }
    settings.emit(data, "\n".join(lines))
    raise_refused([*photographs.outcomes, *done.masks], "images and masks", strict=strict)


def as_dict(done: PhotographImport) -> dict[str, Any]:
    return {
        "dataset": done.dataset,
        "rows_without_file": done.rows_without_file,
        "files_without_row": done.files_without_row,
        "near_duplicates": [
            {
                "images": list(p.names),
                "ids": list(p.ids),
                "correlation": p.correlation,
                "change": p.change,
                "patients": list(p.patients),
                "new": p.new,
            }
            for p in done.near_duplicates
        ],
        "notes": done.notes,
        "leaks": done.leaks,
    }


def summary(done: PhotographImport) -> list[str]:
    lines = [f"dataset: {done.dataset}", *done.notes]
    if done.rows_without_file:
        lines.append(f"rows of the metadata without a file in the folder: {done.rows_without_file}")
    if done.files_without_row:
        lines.append(_without_row(done) + _some(done.files_without_row))
    return lines + _alike(done.near_duplicates)


def _without_row(done: PhotographImport) -> str:
    files = counted(len(done.files_without_row), "file")
    if done.tones_unknown == len(done.files_without_row):
        return f"{files} of unknown tone, without a row in the metadata: "
    unknown = f", {done.tones_unknown} of them of unknown tone" if done.tones_unknown else ""
    return f"{files} without a row in the metadata{unknown}; what is known of them stays: "


def leak_lines(done: PhotographImport) -> list[str]:
    """Return the lines on sets of images that the import joined; they come last, where they are seen."""
    return [f"LEAK: {line}" for line in done.leaks]


def _alike(pairs: Sequence[SimilarPair]) -> list[str]:
    if not pairs:
        return []
    new = sum(pair.new for pair in pairs)
    lines = [
        f"pairs of photographs of one picture: {len(pairs)}, of them new: {new}; all are kept, and stay "
        "together in splits and subsets",
        *(
            f"  {pair.names[0]} (#{pair.ids[0]}) and {pair.names[1]} (#{pair.ids[1]}): {pair.change}"
            f"{_two_patients(pair)}"
            for pair in pairs[:LISTED]
        ),
    ]
    if len(pairs) > LISTED:
        lines.append(f"  ... and {len(pairs) - LISTED} more; --output json lists all")
    return lines


def _two_patients(pair: SimilarPair) -> str:
    first, second = pair.patients
    if first is None or second is None or first == second:
        return ""
    return f"; by the metadata of two patients, '{first}' and '{second}': one of them is wrong"


def _some(names: Sequence[str]) -> str:
    rest = len(names) - LISTED
    more = f" and {rest} more; --output json lists all" if rest > 0 else ""
    return ", ".join(names[:LISTED]) + more
