"""The report of a reproduction: introduction, figures and tables, as Markdown and as one HTML page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from annotation_protocol.intervals import MIN_GROUPS
from fedd.backbone import IMAGENET_256
from fedd.baselines import Start
from fedd.errors import FigureError
from fedd.figures import ACCENT, INK, LINE, MUTED, PAPER
from fedd.files import write_file
from fedd.malignancy.classifier import DISCLAIMER
from fedd.paper import results as paper_results
from fedd.reproduce.cells import PlanOutcome, Workbench
from fedd.reproduce.drawing import draw_all
from fedd.reproduce.figure6 import best_block_table, stored_ablation
from fedd.reproduce.improvement import improvements
from fedd.reproduce.plan import CLASSIFICATION, Cell
from fedd.reproduce.scores import scores
from fedd.reproduce.split import ImageSet, PaperSplit
from fedd.reproduce.table import (
    ReproductionTable,
    called,
    improvements_csv,
    markdown,
    results_csv,
    tables,
)
from fedd.segment import Ensemble
from fedd.weights.names import NOT_OPENAI, described_weights, weights_origin

TITLE = "FEDD, reproduced"

_SMALL = (
    "**A trial run on phantoms. Nothing here can be compared with the paper:** phantoms replace "
    "photographs, labels of malignancy alternate, and the networks are small and hardly trained. It shows "
    "that every step runs."
)
_SAMPLED = (
    "The paper does not name the 30 photographs of its balanced test and the 30 of its validation: here "
    "they are sampled with a fixed seed, as many of each tone as in the paper, half of them malignant. So "
    "the paper's results and ours are on different photographs, of the remaining ones on nearly the same."
)
_INTERVALS = (
    f"Probabilities of malignancy are {DISCLAIMER}. Every value has its n and a 95 % interval "
    f"over patients, where there are {MIN_GROUPS} (for classification: of each class); if the table names no patients, as DDI's, each photograph counts as a patient. With "
    "several seeds, a value and the ends of its interval are means over the seeds."
)

_DECIDE = {
    Ensemble.VOTE: "majority, as in ddpm-segmentation",
    Ensemble.MEAN: "the mean of their probabilities",
}

#: Photographs named in a sentence.
_NAMED = 10


def write_report(workbench: Workbench, outcome: PlanOutcome, folder: Path) -> Path:
    """Write `results.csv`, `table.md`, the figures and `index.html`, which is returned.

    The tables are written first. Raises FigureError at the end, when all else is written, if figures can't be.
    """
    found = scores(outcome.done, workbench.split, workbench.plan)
    gained = improvements(outcome.done, found, workbench.split, workbench.plan)
    made = tables(found, gained, outcome.done, workbench.plan)
    introduction = _introduction(workbench, outcome.missing)
    ablation, left_out = stored_ablation(workbench, folder)
    if ablation is not None and (best := best_block_table(ablation, workbench.plan)) is not None:
        made.append(best)
    if left_out:
        introduction.append(left_out)
    write_file(folder / "results.csv", results_csv(found))
    write_file(folder / "improvements.csv", improvements_csv(gained))
    write_file(folder / "table.md", markdown(TITLE, introduction, made))
    drawn, problems = draw_all(found, outcome.done, workbench, folder, ablation)
    figures = [(path.relative_to(folder).as_posix(), caption) for path, caption in drawn]
    page = folder / "index.html"
    write_file(page, html_page(TITLE, introduction, figures, made))
    if problems:
        more = f" ({len(problems) - 1} more figures too)" if len(problems) > 1 else ""
        raise FigureError(f"{problems[0]}{more}")
    return page


def _introduction(workbench: Workbench, missing: Mapping[Cell, str]) -> list[str]:
    """Return the introduction's paragraphs."""
    plan, split, backbone = workbench.plan, workbench.split, workbench.backbone
    paragraphs = [_SMALL] if plan.small else []
    if not plan.small and backbone.config != IMAGENET_256:
        paragraphs.append(
            f"**The backbone is {backbone.name}, not OpenAI's ImageNet network, which the paper used.** "
            "The settings are those for this backbone."
        )
    elif not plan.small and weights_origin(backbone.hash) == NOT_OPENAI:
        paragraphs.append(
            f"**The weights {backbone.name} are not OpenAI's checkpoint, which the paper used,** though the "
            f"network is the same: their SHA-256 is {backbone.hash}."
        )
    paragraphs += [_of_segmentation(split)] if plan.segmenters else []
    paragraphs += [_of_classification(split)] if plan.classified else []
    if not plan.small:
        paper = paper_results()
        paragraphs += [_SAMPLED, f"The paper's values: {paper['source']}. {paper['reading']}"]
    start = "random" if plan.starts.otherwise is Start.SCRATCH else "ImageNet"
    paragraphs += [
        _INTERVALS,
        f"Backbone {described_weights(backbone.name, backbone.hash, backbone.verified)}, "
        f"{backbone.precision}; FEDD's members decide by {_DECIDE[plan.probes.ensemble]}; seeds {', '.join(map(str, plan.seeds))}; baselines start from "
        f"{start} weights.",
        *plan.notes,
        *_gaps(split, missing),
    ]
    return paragraphs


def _of_segmentation(split: PaperSplit) -> str:
    tested, validated = (
        len(split.sets[name])
        for name in (ImageSet.SEGMENTATION_TEST, ImageSet.SEGMENTATION_VALIDATION)
    )
    return f"Segmentation is tested on {tested} masks and validated on {validated}."


def _of_classification(split: PaperSplit) -> str:
    tests = ", ".join(
        f"{called(name, len(items))} ({sum(bool(i.malignant) for i in items)} malignant)"
        for name, items in split.sets.items()
        if name.is_test and name.task == CLASSIFICATION
    )
    validated = split.sets[ImageSet.CLASSIFICATION_VALIDATION]
    with_mask = sum(item.mask is not None for item in validated)
    expected = split.expected.get(ImageSet.CLASSIFICATION_VALIDATION, len(validated))
    fewer = f" of the {expected} of a complete folder" if len(validated) < expected else ""
    return (
        f"Classification is tested on {tests}; it is validated on {len(validated)} photographs{fewer}, "
        f"{with_mask} of which have a mask."
    )


def _gaps(split: PaperSplit, missing: Mapping[Cell, str]) -> list[str]:
    """Return paragraphs about missing photographs and cells, with the reason."""
    paragraphs = []
    if split.missing:
        named = ", ".join(split.missing[:_NAMED]) + (" ..." if len(split.missing) > _NAMED else "")
        paragraphs.append(
            f"**{len(split.missing)} photographs of the paper's split are left out**, because they or "
            f"their masks or labels are missing: {named}."
        )
    if split.unlabelled:
        named = ", ".join(split.unlabelled[:_NAMED])
        more = " ..." if len(split.unlabelled) > _NAMED else ""
        paragraphs.append(
            f"**{len(split.unlabelled)} photographs of unknown malignancy are not tested on:** {named}{more}."
        )
    by_reason: dict[str, list[Cell]] = {}
    for cell, reason in missing.items():
        by_reason.setdefault(reason, []).append(cell)
    for reason, cells in by_reason.items():
        names = ", ".join(dict.fromkeys(f"{cell.model} ({cell.task})" for cell in cells))
        sentence = f"{reason[:1].upper()}{reason[1:]}"
        paragraphs.append(f"**{len(cells)} cells are missing:** {names}. {sentence}.")
    return paragraphs


#: Figures have 160 dots per inch (`fedd.figures.save`), a page 96: letters keep their size.
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
    tables: Sequence[ReproductionTable],
) -> str:
    """Return the page; `figures` are relative paths with captions."""
    paragraphs = "\n".join(f"<p>{_bold(escape(text))}</p>" for text in introduction)
    images = "\n".join(
        f'<figure><img src="{escape(path)}" srcset="{escape(path)} {_SCALE}x" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for path, caption in figures
    )
    body = "\n".join(table.html() for table in tables)
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n<style>{_STYLE}</style>\n'
        f'<h1>{escape(title)}</h1>\n{paragraphs}\n<p>All values as tables: <a href="results.csv">'
        f'results.csv</a>, <a href="improvements.csv">improvements.csv</a>.</p>\n{images}\n{body}</html>\n'
    )


def _bold(text: str) -> str:
    """Return Markdown's bold as HTML, the only markup of the introduction."""
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)
