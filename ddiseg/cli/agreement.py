"""`ddiseg agreement`: how far people who read the same images agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from annotation_protocol import load_protocol
from ddiseg.cli.common import Command, Settings, pass_settings, progress_bar
from ddiseg.outcomes import counted, images_in_groups

if TYPE_CHECKING:
    from annotation_protocol.estimates import Estimate
    from ddiseg.evaluation.interrater import Agreement, ReaderPair


@click.command("agreement", cls=Command)
@click.option(
    "--pictures",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write a picture of each of the worst pairs into this new or empty folder.",
)
@click.option(
    "--worst",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="How many of the pairs that agree least are listed.",
)
@pass_settings
def agreement(settings: Settings, pictures: Path | None, worst: int) -> None:
    """Compare masks that two or more people drew of the same image.

    Dice and IoU by class, the distance of the lesion's boundaries and Cohen's kappa over pixels: of
    all, by tone and by pair of people. Each is a mean over images with its 95% interval over
    patients; fewer than 10 patients get none. The pairs that agree least about the lesion are listed one by one; those that
    agree wholly are not.
    """
    from ddiseg.evaluation.interrater import agreement as compare_readings
    from ddiseg.evaluation.interrater import write_pictures

    workspace = settings.open()
    readings = workspace.catalogue.tasks.readings()
    with progress_bar("Comparing images") as progress:
        found = compare_readings(workspace, readings, progress)
    listed = found.worst(worst)
    paths = [] if pictures is None else write_pictures(workspace, found, pictures, worst)
    data = {
        **found.as_dict(),
        "worst": [comparison.as_dict() for comparison in listed],
        "pictures": [str(path) for path in paths],
    }
    settings.emit(data, "\n".join([*_tables(found), *_worst(listed, paths)]))


#: Figures of the lesion's boundaries, and what to call them.
_BOUNDARY = {
    "lesion_boundary_px": "mean, px",
    "lesion_boundary_percent": "mean, % of diagonal",
    "lesion_hd95_px": "95% Hausdorff, px",
    "lesion_hd95_percent": "95% Hausdorff, % of diag.",
}

_COLUMN = 28  #: characters


def _tables(found: Agreement) -> list[str]:
    from annotation_protocol.intervals import MIN_GROUPS

    groups = {"all": found.overall}
    groups |= {f"tone {tone}": group for tone, group in found.by_tone.items()}
    groups |= {" and ".join(readers): group for readers, group in found.by_readers.items()}
    overlaps = {
        f"{label}, {name}": [group.means[f"{name}_dice"], group.means[f"{name}_iou"]]
        for label, group in groups.items()
        for name in load_protocol().class_names
        if group.means[f"{name}_iou"].n
    }
    boundaries = {
        label: [group.means[name] for name in _BOUNDARY] for label, group in groups.items()
    }
    kappas = {label: [group.means["kappa"]] for label, group in groups.items()}
    return [
        f"{counted(found.overall.pairs, 'pair')} of masks, of "
        f"{images_in_groups(found.overall.images, found.overall.patients)}",
        f"Means over images; [ ] is the 95% interval over groups, from {MIN_GROUPS} on.",
        *(f"note: {note}" for note in found.notes),
        *_table("Overlap by class", ["Dice", "IoU"], overlaps, 3),
        *_table(
            "Distance of the lesion's boundaries, where both drew one",
            _BOUNDARY.values(),
            boundaries,
            1,
        ),
        *_table("Cohen's kappa over pixels and all classes", ["kappa"], kappas, 3),
    ]


def _table(
    title: str, headings: Iterable[str], rows: Mapping[str, Sequence[Estimate]], decimals: int
) -> list[str]:
    """A table whose rows each hold estimates of the same images."""
    width = max(map(len, rows), default=0)
    lines = ["", title]
    lines.append(_line("", headings, "n images", "groups", width))
    for label, estimates in rows.items():
        cells = [each.text(f".{decimals}f") for each in estimates]
        lines.append(_line(label, cells, str(estimates[0].n), str(estimates[0].groups), width))
    return lines


def _line(label: str, cells: Iterable[str], n: str, patients: str, width: int) -> str:
    columns = "".join(f"{cell:<{_COLUMN}}" for cell in cells)
    return f"{label:<{width}}  {columns}{n:>8}{patients:>10}"


def _worst(listed: Sequence[ReaderPair], paths: Sequence[Path]) -> list[str]:
    if not listed:
        return []
    lines = ["", "The pairs that agree least about the lesion"]
    for number, comparison in enumerate(listed):
        one, other = comparison.readers
        image = comparison.image
        lines.append(
            f"{image.name} (#{image.id}), tone {image.tone}, {one} and {other}: {comparison.in_words()}"
        )
        if paths:
            lines.append(f"  picture: {paths[number]}")
    return lines
