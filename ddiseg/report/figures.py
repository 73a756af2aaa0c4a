"""Figures of the report as inline SVG in the page's colours, light or dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from annotation_protocol.estimates import Estimate

#: Colours that matplotlib writes, and the page's colours that replace them.
_INK, _MUTED, _LINE, _PAPER, _ACCENT = "#010101", "#010102", "#010103", "#010104", "#010105"
_SERIES = ("#010106", "#010107", "#010108", "#010109")
_PLACES = {
    _INK: "currentColor",
    _MUTED: "var(--muted)",
    _LINE: "var(--line)",
    _PAPER: "var(--paper)",
    _ACCENT: "var(--accent)",
}

#: Characters of a label before it is cut.
_LABEL = 38


@dataclass(frozen=True)
class Bar:
    """One row of a bar figure: counts of its parts, in the order of the figure's series."""

    label: str
    counts: tuple[int, ...]

    @property
    def n(self) -> int:
        return sum(self.counts)


def stacked_bars(bars: Sequence[Bar], colours: Sequence[str], key: str, title: str) -> str:
    """Return horizontal bars, the first at the top, each with its n.

    Args:
        bars: the rows; at least one.
        colours: the page's name for the colour of each series, such as "malignant".
        key: prefix of the SVG's ids.
        title: text for readers who can't see the figure.
    """
    figure, [[axes]] = _figure(8.6, 0.6 + 0.27 * len(bars))
    places = range(len(bars))
    start = [0] * len(bars)
    for series, colour in enumerate(_SERIES[: len(colours)]):
        counts = [bar.counts[series] for bar in bars]
        axes.barh(places, counts, left=start, height=0.68, color=colour, linewidth=0)
        start = [a + b for a, b in zip(start, counts, strict=True)]
    widest = max(start)
    for place, n in zip(places, start, strict=True):
        axes.text(n + widest * 0.01, place, str(n), va="center", color=_INK, fontsize=9)
    axes.set_yticks(places, [_label(bar.label) for bar in bars], parse_math=False)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlim(0, widest * 1.06)
    axes.set_xlabel("number of images", color=_MUTED)
    axes.xaxis.get_major_locator().set_params(integer=True)
    places_of_series = {c: f"var(--{name})" for c, name in zip(_SERIES, colours, strict=False)}
    return _svg(figure, key, title, places_of_series)


def dot_panels(panels: dict[str, dict[str, Estimate]], key: str, title: str) -> str:
    """Return panels side by side, one row a group: the value as a dot, its interval as a line.

    The axis goes from 0 to 1. The dot of too few patients is hollow, without a line.
    """
    groups = list(dict.fromkeys(group for dots in panels.values() for group in dots))
    figure, [all_axes] = _figure(
        1.2 + 1.75 * len(panels), 0.85 + 0.3 * len(groups), columns=len(panels)
    )
    for axes, (name, dots) in zip(all_axes, panels.items(), strict=True):
        for place, group in enumerate(groups):
            dot = dots.get(group)
            if dot is None or dot.value is None:
                missing = _missing(0 if dot is None else dot.n)
                axes.text(0.5, place, missing, va="center", ha="center", color=_MUTED, fontsize=8)
                continue
            colour, face = (_ACCENT, _ACCENT) if dot.interval else (_MUTED, _PAPER)
            if dot.interval:
                axes.plot(dot.interval, (place, place), color=colour, linewidth=2)
            dotted = {"markersize": 6, "color": colour, "markerfacecolor": face}
            axes.plot(dot.value, place, "o", clip_on=False, zorder=3, **dotted)
            axes.text(1.04, place, f"n={dot.n}", va="center", color=_MUTED, fontsize=7.5)
        _name(axes, name)
        axes.set_xlim(0, 1)
        axes.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.set_yticks(range(len(groups)), groups, parse_math=False)
    for axes in all_axes[1:]:
        axes.tick_params(labelleft=False)
    return _svg(figure, key, title, {})


@dataclass(frozen=True)
class Panel:
    """One measure of several groups, with one estimate a series."""

    name: str
    ends: tuple[float, float]  #: of its axis
    dots: dict[str, tuple[Estimate, ...]]  #: by group, one a series


def series_panels(panels: Sequence[Panel], key: str, title: str) -> str:
    """Return panels side by side, one row a group, with a filled circle and a hollow square as series.

    The series differ in shape too, for people who do not see the colours.
    """
    groups = list(panels[0].dots)
    count = len(panels[0].dots[groups[0]])
    figure, [all_axes] = _figure(
        1.2 + 1.9 * len(panels), 0.75 + 0.26 * count * len(groups), columns=len(panels)
    )
    for axes, panel in zip(all_axes, panels, strict=True):
        for row, group in enumerate(groups):
            for series, dot in enumerate(panel.dots[group]):
                place = row + 0.36 * (series - (count - 1) / 2)
                _mark(axes, dot, place, panel.ends, series)
        _name(axes, panel.name)
        axes.set_xlim(*panel.ends)
        axes.locator_params(axis="x", nbins=3)
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.set_yticks(range(len(groups)), groups, parse_math=False)
    for axes in all_axes[1:]:
        axes.tick_params(labelleft=False)
    return _svg(figure, key, title, {_SERIES[0]: "var(--control)"})


@dataclass(frozen=True)
class Span:
    """A value with its interval, for the places `first` to `last` on the axis."""

    first: int
    last: int
    dot: Estimate


def span_panels(
    columns: dict[str, tuple[int, dict[str, Sequence[Span]]]],
    tops: dict[str, float],
    axis: str,
    key: str,
    title: str,
) -> str:
    """Return a grid of panels, a column a group and a row a measure, along one shared axis.

    Args:
        columns: by group its n, and its spans by measure; may have none.
        tops: end of the axis by measure; it begins at 0.
        axis: what the places are.
        key: prefix of the SVG's ids.
        title: text for readers who can't see the figure.
    """
    figure, grid = _figure(
        1.2 + 1.75 * len(columns), 0.5 + 1.7 * len(tops), columns=len(columns), rows=len(tops)
    )
    spans = [s for _, of in columns.values() for along in of.values() for s in along]
    end = max(span.last for span in spans)
    for row, (measure, top) in zip(grid, tops.items(), strict=True):
        for axes, (group, (n, of)) in zip(row, columns.items(), strict=True):
            for span in of[measure]:
                _along(axes, span)
            if not of[measure]:
                middle = (end / 2, top / 2)
                axes.text(*middle, _missing(n), ha="center", color=_MUTED, fontsize=8)
            axes.grid(axis="x", visible=False)
            axes.grid(axis="y", color=_LINE, linewidth=0.8)
            axes.set_xlim(0, end * 1.02)
            axes.set_ylim(0, top)
            axes.locator_params(axis="both", nbins=4)
            axes.tick_params(axis="y", labelleft=axes is row[0])
            axes.tick_params(axis="x", labelbottom=row is grid[-1])
            if row is grid[0]:
                _name(axes, f"{group}, n={n}")
        row[0].set_ylabel(measure, color=_INK, fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel(axis, color=_MUTED, fontsize=9)
    return _svg(figure, key, title, {})


def _mark(axes: Any, dot: Estimate, place: float, ends: tuple[float, float], series: int) -> None:
    start, end = ends
    if dot.value is None:
        missing = _missing(dot.n)
        middle = (start + end) / 2
        axes.text(middle, place, missing, va="center", ha="center", color=_MUTED, fontsize=8)
        return
    colour, marker, face = ((_ACCENT, "o", _ACCENT), (_SERIES[0], "s", _PAPER))[series]
    if dot.interval:
        axes.plot(dot.interval, (place, place), color=colour, linewidth=2)
    else:
        colour, face = _MUTED, _PAPER
    dotted = {"markersize": 6, "color": colour, "markerfacecolor": face}
    axes.plot(dot.value, place, marker, clip_on=False, zorder=3, **dotted)
    right = end + 0.04 * (end - start)
    axes.text(right, place, f"n={dot.n}", va="center", color=_MUTED, fontsize=8)


def _along(axes: Any, span: Span) -> None:
    if span.dot.value is None:
        return
    middle = (span.first + span.last) / 2
    axes.plot((span.first, span.last), (span.dot.value,) * 2, color=_LINE, linewidth=3)
    colour, face = (_ACCENT, _ACCENT) if span.dot.interval else (_MUTED, _PAPER)
    if span.dot.interval:
        axes.plot((middle, middle), span.dot.interval, color=colour, linewidth=2)
    axes.plot(
        middle, span.dot.value, "o", markersize=5, color=colour, markerfacecolor=face, zorder=3
    )


def _missing(n: int) -> str:
    return f"too few, n={n}" if n else "no images"


def _name(axes: Any, name: str) -> None:
    axes.set_title(_label(name), color=_INK, fontsize=10, loc="left", parse_math=False)


def _figure(width: float, height: float, columns: int = 1, rows: int = 1) -> tuple[Any, Any]:
    """Return a figure of `width` x `height` inches and its Axes, a list for each row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="none")
    grid = [list(row) for row in figure.subplots(rows, columns, squeeze=False)]
    figure.subplots_adjust(wspace=0.42)
    for axes in (axes for row in grid for axes in row):
        axes.set_facecolor("none")
        axes.grid(axis="x", color=_LINE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, colors=_MUTED, labelsize=9)
        axes.tick_params(axis="y", labelcolor=_INK)
    return figure, grid


def _svg(figure: Any, key: str, title: str, colours: dict[str, str]) -> str:
    import matplotlib as mpl

    buffer = io.StringIO()
    style = {"svg.fonttype": "none", "svg.hashsalt": key}
    with mpl.rc_context(style), warnings.catch_warnings():
        # The browser draws the text: what matplotlib's own font lacks does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(buffer, format="svg", bbox_inches="tight", transparent=True)
    text = buffer.getvalue()
    opening = re.search(r'<svg[^>]*viewBox="(0 0 ([\d.]+) [\d.]+)"[^>]*>', text)
    assert opening is not None
    text = re.sub(r"<metadata>.*?</metadata>", "", text[opening.end() :], flags=re.DOTALL)
    # Several figures share the page, and with it the space of ids.
    text = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{key}-", text)
    for colour, place in {**_PLACES, **colours}.items():
        text = text.replace(colour, place)
    width = float(opening[2]) * 4 / 3  # points to CSS pixels
    return (
        f'<svg role="img" aria-label="{escape(title)}" viewBox="{opening[1]}" '
        f'style="width:100%;min-width:{min(width, 560):.0f}px;max-width:{width:.0f}px;height:auto">'
        + text.replace("xlink:href", "href")
    )


def _label(text: str) -> str:
    """One line without control characters, cut where it is long."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _LABEL else text[: _LABEL - 1] + "…"
