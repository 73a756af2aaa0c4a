"""The report of a reproduction: what a reader must know, the figures, the tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from fedd.backbone import IMAGENET_256
from fedd.baselines import Start
from fedd.figures import ACCENT, INK, LINE, MUTED, PAPER
from fedd.files import write_text
from fedd.malignancy.classifier import DISCLAIMER
from fedd.paper import results as paper_results
from fedd.reproduce.cells import PlanOutcome, Workbench
from fedd.reproduce.drawing import draw_all
from fedd.reproduce.plan import Cell
from fedd.reproduce.scores import scores
from fedd.reproduce.split import PaperSplit
from fedd.reproduce.table import ReportTable, markdown, results_csv, tables

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


def write_report(workbench: Workbench, outcome: PlanOutcome, folder: Path) -> Path:
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


def _gaps(parts: PaperSplit, missing: Mapping[Cell, str]) -> list[str]:
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


#: Figures have 160 dots an inch (`fedd.figures.save`), a page 96: letters keep their size.
_SCALE = 1.67

_STYLE = f"""
body {{ font: 15px/1.5 system-ui, sans-serif; color: {INK}; background: {PAPER};
  max-width: 1180px; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; }} h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .3rem; }}
p {{ max-width: 75ch; }} p, figcaption {{ color: {MUTED}; }} strong {{ color: {INK}; }}
figure {{ margin: 2rem 0; }} img {{ max-width: 100%; height: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0;
  border-bottom: 1px solid {LINE}; }}
th {{ color: {MUTED}; font-weight: 500; }} small {{ display: block; color: {MUTED}; }}
a {{ color: {ACCENT}; }}
"""


def html_page(
    title: str,
    introduction: Sequence[str],
    figures: Sequence[tuple[str, str]],
    tables: Sequence[ReportTable],
) -> str:
    """The whole page; `figures` are paths from it, with captions."""
    paragraphs = "\n".join(f"<p>{_bold(escape(text))}</p>" for text in introduction)
    drawn = "\n".join(
        f'<figure><img src="{escape(path)}" srcset="{escape(path)} {_SCALE}x" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for path, caption in figures
    )
    body = "\n".join(table.html() for table in tables)
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n<style>{_STYLE}</style>\n'
        f'<h1>{escape(title)}</h1>\n{paragraphs}\n<p>All figures as a table: <a href="results.csv">'
        f"results.csv</a>.</p>\n{drawn}\n{body}</html>\n"
    )


def _bold(text: str) -> str:
    """Markdown's bold, the only mark that the introduction uses."""
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)
