"""`ddiseg status`: the state of a workspace, and what each person can do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from annotation_protocol import load_protocol
from ddiseg.cli.common import Command, Settings, pass_settings, progress_bar
from ddiseg.cli.params import settings_text
from ddiseg.outcomes import counted

if TYPE_CHECKING:
    from ddiseg.evaluation.annotator_study import WorkReport
    from ddiseg.report.tables import ReportTable
    from ddiseg.workspace.status import Status


@click.command("status", cls=Command)
@click.option(
    "--work",
    is_flag=True,
    help="Show instead what the model's predictions were worth to the people who corrected them: how much "
    "of them was kept and the seconds it took, by tone, model and control arm, with n and interval.",
)
@pass_settings
def status(settings: Settings, work: bool) -> None:
    """Show the state of the workspace, and what to do next.

    Images by tone and state, masks, model and subsets; the commands that would move something now,
    the images that annotators have to look at, and the masks that wait for reviewers.
    """
    from ddiseg.labelstudio.connection import EMBEDDED, server_of
    from ddiseg.labelstudio.embedded.server import find_running
    from ddiseg.workspace.status import lacks_photographs
    from ddiseg.workspace.status import status as read_status

    workspace = settings.open()
    if work:
        from ddiseg.evaluation.annotator_study import work_report  # slow to import

        with progress_bar("Comparing masks") as progress:
            report = work_report(workspace, progress)
        given = workspace.catalogue.open_work.given(server_of(workspace.root))
        settings.emit(report.as_dict(), "\n".join(_work_as_text(report, given=given)))
        return
    server = server_of(workspace.root)
    runs = server != EMBEDDED or find_running(workspace.root) is not None
    found = read_status(workspace.catalogue, server, runs=runs)
    study = workspace.study().changed()
    location = workspace.location
    lines = [f"catalogue: {location}"] if location.setting else []
    lines += [*([f"study: {settings_text(study)}"] if study else []), *_as_text(found)]
    missing = lacks_photographs(workspace)
    if missing:
        lines.append("photographs are missing from the store: run 'ddiseg verify'")
    data = {
        **_as_data(found),
        "catalogue": str(location),
        "study": study,
        "photographs_missing": missing,
    }
    settings.emit(data, "\n".join(lines))


def _as_data(status: Status) -> dict[str, Any]:
    model = status.model
    return {
        "images": status.total,
        "counts": _table(status),
        "datasets": [
            {
                "name": d.name,
                "images": n,
                "licence": d.licence,
                "source": d.source,
                "synthetic": d.synthetic,
            }
            for d, n in status.datasets
        ],
        "model": model
        and {
            "name": model.name,
            "backbone": model.backbone,
            "masks": model.masks,
            "created_at": model.created_at,
        },
        "accepted": status.accepted,
        "skips": status.skips,
        "subsets": status.subsets,
        "round_holder": status.round_holder,
        "leaks": status.leaks,
        "next": status.next_step,
        "to_do": {
            "data_manager": [{"command": s.command, "why": s.why} for s in status.steps],
            "annotators": {"images": status.with_annotators},
            "reviewers": {"masks": status.with_reviewers},
        },
    }


def _table(status: Status) -> dict[str, dict[str, int]]:
    tones: dict[str, dict[str, int]] = {}
    for (tone, state), n in status.counts.items():
        tones.setdefault(tone, {})[state] = n
    return tones


def _as_text(status: Status) -> list[str]:
    from ddiseg.catalogue import State

    tones = [t.name for t in load_protocol().tones if t.name in _table(status)]
    states = [s.value for s in State if any(state == s for _, state in status.counts)]
    rows = [["tone", *states, "all"]]
    for tone in [*tones, "all"]:
        numbers = [
            sum(n for (t, s), n in status.counts.items() if tone in (t, "all") and s == state)
            for state in states
        ]
        rows.append([tone, *map(str, numbers), str(sum(numbers))])
    lines = [counted(status.total, "image")]
    if status.total:
        lines += _aligned(rows)
    for dataset, n in status.datasets:
        licence = dataset.licence or "licence not recorded"
        n_images = counted(n, "synthetic image" if dataset.synthetic else "image")
        lines.append(f"dataset {dataset.name}: {n_images}, {licence}")
    lines.append(f"accepted masks: {status.accepted}")
    if status.model:
        masks = counted(status.model.masks, "mask")
        lines.append(f"model: {status.model.name}, from {masks}")
    else:
        lines.append("model: none yet")
    if status.round_holder:
        lines.append(f"running a round: {status.round_holder}")
    lines += [f"skipped, {reason}: {n}" for reason, n in sorted(status.skips.items())]
    for name, by_tone in status.subsets.items():
        sizes = ", ".join(f"{tone} {n}" for tone, n in by_tone.items())
        lines.append(f"subset {name}: {sum(by_tone.values())} ({sizes})")
    if status.leaks:
        lines.append(
            f"leaks by patient, lesion or near-duplicates: {', '.join(status.leaks)}; 'ddiseg verify' says more"
        )
    return [*lines, *_to_do(status), f"next: {status.next_step}"]


def _to_do(status: Status) -> list[str]:
    """What each person can do now."""
    widest = max((len(step.command) for step in status.steps), default=0)
    lines = ["data manager:"] if status.steps else []
    lines += [f"  {step.command.ljust(widest)}  {step.why}" for step in status.steps]
    if status.with_annotators:
        lines.append(f"annotators: {counted(status.with_annotators, 'image')} open in Label Studio")
    if status.with_reviewers:
        lines.append(
            f"reviewers: {counted(status.with_reviewers, 'mask')} to review in Label Studio"
        )
    return lines


def _work_as_text(report: WorkReport, *, given: bool) -> list[str]:
    from ddiseg.report.findings import LEGEND, sentences
    from ddiseg.report.tables import study_tables

    if report.empty:
        how = (
            "'ddiseg status' says what is next with the images that people have"
            if given
            else "'ddiseg label push' sends images there"
        )
        return [f"no accepted mask was drawn on a labelling server yet: {how}"]
    lines = sentences(report)
    for table in study_tables(report):
        lines += ["", *_titled(table)]
    return [*lines, "", LEGEND]


def _titled(table: ReportTable) -> list[str]:
    rows = [["", *table.columns]]
    for name, of_group in table.groups:
        if name:
            rows.append([name, *[""] * len(table.columns)])
        rows += [[f"  {row.label}", *row.cells] for row in of_group]
    return [table.title, *(line.rstrip() for line in _aligned(rows)), *table.notes]


def _aligned(rows: list[list[str]]) -> list[str]:
    """Rows with the first column to the left and the numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
