"""The report: one self-contained HTML page, without network or scripts."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from annotation_protocol import load_protocol
from annotation_protocol.files import atomic_write
from annotation_protocol.intervals import MIN_GROUPS
from ddiseg.catalogue.tables import now
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.outcomes import Progress, silent
from ddiseg.report import content
from ddiseg.report.contact_sheet import COMPARED, SHOWN, Card, Pairs, choose, draw_card
from ddiseg.report.outlines import OUTLINED
from ddiseg.report.people import people_and_model
from ddiseg.workspace.workspace import Workspace

#: Size above which the page is made anew with coarser pictures.
MOST_BYTES = 5_000_000

#: How coarse the pictures are, tried in this order; see `draw_card`.
COARSENESS = (1, 2, 4, 8)

#: In the head of every report, so that a later one may replace it.
GENERATOR = '<meta name="generator" content="ddiseg'


@dataclass(frozen=True)
class ReportSummary:
    """Path and contents of a written report."""

    path: Path
    images: int
    shown: int  #: images in the contact sheets
    unreadable: tuple[str, ...]  #: of these, the images with unreadable files, with the reason


def write_report(
    workspace: Workspace,
    target: Path | None = None,
    *,
    command: str = "ddiseg report",
    progress: Progress = silent,
) -> ReportSummary:
    """Write the page to `target` (default: report.html in the workspace), whole or not at all.

    An earlier report is replaced; any other file in its place is refused with InputError.
    `command` is named in the page as the command that made it.
    """
    path = (target or workspace.root / "report.html").resolve()
    _refuse_others(path)
    page, cards = _render(workspace, command, progress)
    _write(path, page)
    unreadable = tuple(f"{c.name}: {c.trouble}" for c in cards if c.trouble)
    images = sum(workspace.catalogue.images.counts().values())
    return ReportSummary(path, images, len(cards), unreadable)


def _render(workspace: Workspace, command: str, progress: Progress) -> tuple[str, list[Card]]:
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    from ddiseg import __version__

    catalogue, protocol = workspace.catalogue, load_protocol()
    datasets, counts = catalogue.images.datasets(), catalogue.images.counts_by_dataset()
    used = {dataset_id for dataset_id, _, _ in counts}
    n_images = sum(counts.values())
    model = catalogue.models.current_brief()
    pairs = Pairs(workspace)
    chosen = {
        tone.name: choose(pairs.of_tone(catalogue.images.ids(tone=tone.name), tone.name))
        for tone in protocol.tones
    }
    in_sheet = [pair for of_tone in chosen.values() for pair in of_tone]
    shown = {pair.image.id for pair in in_sheet}
    doubtful = catalogue.masks.most_doubtful(SHOWN)
    others = pairs.of([image_id for image_id in doubtful if image_id not in shown])
    names = catalogue.models.names()
    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["when"] = lambda at: f"{at[:10]} {at[11:16]} UTC"
    environment.filters["share"] = lambda n, of: f"{100 * n / of:.0f} %" if of else "—"
    context: dict[str, Any] = dict(
        workspace=workspace.root.resolve().name,
        datasets=datasets,
        n_images=n_images,
        synthetic=[d.name for d in datasets if d.synthetic and d.id in used],
        all_synthetic=bool(used) and all(d.synthetic for d in datasets if d.id in used),
        n_accepted=catalogue.masks.count_accepted(),
        n_predicted=catalogue.masks.count_predicted(),
        n_skipped=sum(catalogue.images.skip_counts().values()),
        n_tone={
            t.name: sum(n for (_, tone, _), n in counts.items() if tone == t.name)
            for t in protocol.tones
        },
        model=model,
        protocol=protocol,
        states=content.tones_by_state(catalogue, protocol),
        diagnoses=content.diagnoses(catalogue.images.diagnosis_counts(), protocol),
        evaluation=content.last_evaluation(catalogue, protocol),
        sensitivity=content.last_robustness_run(catalogue),
        people=people_and_model(workspace),
        few=MIN_GROUPS,
        n_shown={tone: len(of_tone) for tone, of_tone in chosen.items() if of_tone},
        doubtful=doubtful,
        ranks={image_id: rank for rank, image_id in enumerate(doubtful, 1)},
        compared=COMPARED if pairs.sampled else None,
        outlined=[protocol.class_named(name) for name in OUTLINED],
        skips=content.skips_by_tone(catalogue, protocol),
        subsets=content.subsets_by_tone(catalogue, protocol),
        command=command,
        version=__version__,
        made_at=now(),
        svg=Markup,
    )
    template = environment.get_template("page.html")
    for coarse in COARSENESS:
        cards = {}
        for done, pair in enumerate([*in_sheet, *others], 1):
            cards[pair.image.id] = draw_card(workspace, pair, names.__getitem__, coarse)
            progress(done, len(in_sheet) + len(others))
        page = template.render(
            **context,
            sheet=[cards[pair.image.id] for pair in in_sheet],
            repeated=[(n, cards[i]) for n, i in enumerate(doubtful, 1) if i in shown],
            unseen=[(n, cards[i]) for n, i in enumerate(doubtful, 1) if i not in shown],
        )
        if len(page.encode("utf-8", "replace")) <= MOST_BYTES:
            break
    return page, list(cards.values())


def _template(name: str) -> str:
    return resources.files("ddiseg.report").joinpath(name).read_text("utf-8")


def _refuse_others(path: Path) -> None:
    if not path.exists():
        return
    if path.is_dir():
        raise InputError(f"{path} is a folder: give --to the name of an .html file")
    with open(path, "rb") as file:
        head = file.read(2000)
    if GENERATOR.encode() not in head:
        raise InputError(
            f"{path} is no ddiseg report, so it is not replaced: give --to another name or move it away"
        )


def _write(path: Path, page: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, page.encode("utf-8", "replace"))
    except OSError as error:
        raise WorkspaceError(
            f"{path}: {error.strerror or error}; nothing was written: free some space, make the folder "
            "writable or give --to another place, then run the same command again"
        ) from error


__all__ = ["ReportSummary", "write_report"]
