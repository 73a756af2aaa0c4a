"""The report of a reproduction: what a reader must know, the figures, the tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fedd.backbone import IMAGENET_256
from fedd.baselines import Start
from fedd.files import write_text
from fedd.malignancy.classifier import DISCLAIMER
from fedd.paper import results as paper_results
from fedd.reproduce.cells import Workbench
from fedd.reproduce.drawing import draw_all
from fedd.reproduce.page import html_page
from fedd.reproduce.parts import Parts
from fedd.reproduce.plan import Cell
from fedd.reproduce.run import Outcome
from fedd.reproduce.scores import scores
from fedd.reproduce.table import markdown, results_csv, tables

TITLE = "FEDD, reproduced"

_SMALL = (
    "**A trial run on drawings. Nothing here can be compared with the paper:** phantoms stand in for "
    "photographs, labels of malignancy are given by turns, and the networks are shrunk and hardly "
    "trained. It shows that every step runs."
)
_DRAWN = (
    "The paper does not name the photographs of its test of classification: they are drawn out of those "
    "of segmentation by a fixed seed, as many of each tone as the paper has, half of them malignant where "
    "there are so many. So its figures and ours come of different photographs."
)
_INTERVALS = (
    f"Probabilities of malignancy are {DISCLAIMER}. Every figure has its n and a 95 % interval of a "
    "bootstrap over patients; where the table names no patients, as DDI's, each photograph counts as "
    "one's own. With several seeds, a figure and the ends of its interval are the means of the seeds'."
)

#: Photographs that are named in a sentence.
_NAMED = 10


def write_report(workbench: Workbench, outcome: Outcome, folder: Path) -> Path:
    """Write `results.csv`, `table.md`, the figures and `index.html`, which is returned."""
    found = scores(outcome.done, workbench.parts, workbench.plan)
    made = tables(found, outcome.done, workbench.plan)
    introduction = _introduction(workbench, outcome.missing)
    figures = [
        (path.relative_to(folder).as_posix(), caption)
        for path, caption in draw_all(found, outcome.done, workbench, folder)
    ]
    write_text(folder / "results.csv", results_csv(found))
    write_text(folder / "table.md", markdown(TITLE, introduction, made))
    page = folder / "index.html"
    write_text(page, html_page(TITLE, introduction, figures, made))
    return page


def _introduction(workbench: Workbench, missing: Mapping[Cell, str]) -> list[str]:
    """What a reader must know before the figures, a paragraph each."""
    plan, parts, backbone = workbench.plan, workbench.parts, workbench.backbone
    paragraphs = [_SMALL] if plan.small else []
    if not plan.small and backbone.config != IMAGENET_256:
        paragraphs.append(
            f"**The backbone is {backbone.name}, not OpenAI's ImageNet network, which the paper used.** "
            "Settings are those that go with it."
        )
    malignant = sum(bool(item.malignant) for item in parts.classified)
    paragraphs.append(
        f"Segmentation is tested on {len(parts.segmented)} photographs, classification on "
        f"{len(parts.classified)} of them, {malignant} malignant."
    )
    if not plan.small:
        paper = paper_results()
        paragraphs += [_DRAWN, f"The paper's values: {paper['source']}. {paper['reading']}"]
    start = "random" if plan.starts.otherwise is Start.SCRATCH else "ImageNet"
    paragraphs += [
        _INTERVALS,
        f"Backbone {backbone.name} ({backbone.hash[:12]}), {backbone.precision}; seeds "
        f"{', '.join(map(str, plan.seeds))}; baselines start from {start} weights.",
        *plan.notes,
        *_gaps(parts, missing),
    ]
    return paragraphs


def _gaps(parts: Parts, missing: Mapping[Cell, str]) -> list[str]:
    """Photographs and cells that are not there, with the reason."""
    paragraphs = []
    if parts.missing:
        named = ", ".join(parts.missing[:_NAMED]) + (" ..." if len(parts.missing) > _NAMED else "")
        paragraphs.append(
            f"**{len(parts.missing)} photographs of the paper's split are left out**, for they or what "
            f"is known of them are missing: {named}."
        )
    by_reason: dict[str, list[Cell]] = {}
    for cell, reason in missing.items():
        by_reason.setdefault(reason, []).append(cell)
    for reason, cells in by_reason.items():
        names = ", ".join(dict.fromkeys(f"{cell.model} ({cell.task})" for cell in cells))
        sentence = f"{reason[:1].upper()}{reason[1:]}"
        paragraphs.append(f"**{len(cells)} cells are missing:** {names}. {sentence}.")
    return paragraphs
