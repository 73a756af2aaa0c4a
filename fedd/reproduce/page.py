"""The page that shows a reproduction: figures and tables, without a network or a script."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from fedd.figures import ACCENT, INK, LINE, MUTED, PAPER
from fedd.reproduce.table import Table

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
    tables: Sequence[Table],
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
