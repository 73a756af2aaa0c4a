"""Figures of fedd: one style for all, contact sheets, and heat maps.

`new_figure` makes a figure in the colours below, `save` writes it in the format of the file's ending
(.png, .svg or .pdf). Matplotlib's global state is not touched.
"""

from __future__ import annotations

import errno
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation_protocol.files import atomic_write
from fedd.errors import FigureError

INK, MUTED, LINE, PAPER, ACCENT = "#1d2226", "#5a646b", "#dfe2e3", "#ffffff", "#0b6aa2"

#: Eight colours that colour-blind readers can distinguish: Okabe and Ito (2008), a grey for black.
SERIES = (
    "#0072b2", "#d55e00", "#f0e442", "#56b4e9", "#009e73", "#cc79a7", "#999999", "#e69f00",
)  # fmt: skip

#: Endings that `save` can write.
FORMATS = (".png", ".svg", ".pdf")

#: Characters of a label before it is cut.
_LABEL = 22


@dataclass(frozen=True)
class ContactSheet:
    """A contact sheet: a row for each photograph, a column for each view of it.

    `pictures[row][column]` is (h, w, 3) uint8, of one size within a row; `groups` are captions above
    neighbouring columns, with the number of columns; `key` is the legend.
    """

    pictures: Sequence[Sequence[NDArray[np.uint8]]]
    rows: Sequence[str]
    columns: Sequence[str]
    groups: Sequence[tuple[str, int]]
    title: str
    note: str
    key: Sequence[tuple[str, str]] = ()  #: colour and label


@dataclass(frozen=True)
class HeatMap:
    """A panel of values by row and column, (R, C) float; NaN where there is none."""

    values: NDArray[np.float64]
    title: str
    note: str  #: n and interval of the values
    framed: tuple[int, int] | None = None  #: position of a cell to frame; None: the highest
    marked: Mapping[int, str] = field(default_factory=dict)  #: label of a row, by its name


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **spacing: Any
) -> tuple[Any, NDArray[Any]]:
    """Return a figure of `width` x `height` inches and its axes, (rows, columns), in the common style.

    `spacing` goes to matplotlib's `subplots`, such as `gridspec_kw` or `sharex`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor=PAPER)
    axes = figure.subplots(rows, columns, squeeze=False, **spacing)
    for each in axes.flat:
        each.set_facecolor("none")
        each.set_axisbelow(True)
        each.spines[:].set_visible(False)
        each.tick_params(length=0, colors=MUTED, labelsize=9)
    return figure, axes


def save(figure: Any, path: Path) -> None:
    """Write a figure atomically; the same figure gives the same bytes.

    Raises FigureError if the ending is no format or the file can't be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise FigureError(f"{path} is no figure's name: end it in {', '.join(FORMATS)}")
    import matplotlib as mpl

    # The entry that stamps a figure with its time, by format.
    stamp = {".png": "Software", ".svg": "Date", ".pdf": "CreationDate"}[path.suffix.lower()]
    options = {"dpi": 160, "bbox_inches": "tight", "metadata": {stamp: None}}
    try:
        with mpl.rc_context({"svg.hashsalt": path.stem}), warnings.catch_warnings():
            # A photograph's name may hold letters that the font lacks; the figure is still good.
            warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
            atomic_write(path, lambda file: figure.savefig(file, format=path.suffix[1:], **options))
    except OSError as error:
        raise FigureError(
            f"{path} can't be written ({error.strerror}): {_advice(error.errno)}"
        ) from error


def _advice(number: int | None) -> str:
    """Return what to do about the `errno` of a figure that can't be written."""
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "make room, then run the same command again"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "name a file in a folder that you may write to"
    return "name a file in a folder that exists"


def short(text: str, most: int = _LABEL) -> str:
    """Return a label on one line without control characters; a long one is cut in the middle."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(text) <= most:
        return text
    half = (most - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def draw_contact_sheet(sheet: ContactSheet) -> Any:
    """Draw a contact sheet: pictures in their proportions, captions above, names at the left."""
    side, gap, margin = 1.15, 0.05, 1.75
    heights = [side * row[0].shape[0] / row[0].shape[1] for row in sheet.pictures]
    body_width = (side + gap) * len(sheet.columns)
    body = sum(heights) + gap * len(heights)
    head, foot = 0.85, 0.13 + 0.16 * len(sheet.note.splitlines())
    width, height = margin + body_width, head + body + foot
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor=PAPER)
    bottom = height - head
    for row, name, tall in zip(sheet.pictures, sheet.rows, heights, strict=True):
        bottom -= tall + gap
        for column, picture in enumerate(row):
            left = margin + column * (side + gap)
            axes = figure.add_axes((left / width, bottom / height, side / width, tall / height))
            axes.imshow(picture, interpolation="nearest", aspect="auto")
            axes.set_axis_off()
        figure.text(
            (margin - 0.1) / width, (bottom + tall / 2) / height, short(name),
            ha="right", va="center", fontsize=8, color=INK, parse_math=False,
        )  # fmt: skip
    _captions(figure, sheet, margin, side + gap, width, height, height - head)
    figure.text(0, 1 - 0.02 / height, sheet.title, va="top", fontsize=11, color=INK)
    figure.text(0, 0.05 / height, sheet.note, va="bottom", fontsize=8, color=MUTED)
    if sheet.key:
        _draw_key(figure, sheet.key)
    return figure


def _captions(
    figure: Any,
    sheet: ContactSheet,
    left: float,
    step: float,
    width: float,
    height: float,
    top: float,
) -> None:
    """Draw column captions, and above them the groups, each with a line over its columns."""
    for column, caption in enumerate(sheet.columns):
        x = (left + (column + 0.5) * step) / width
        figure.text(x, (top + 0.04) / height, caption, ha="center", fontsize=8, color=MUTED)
    from matplotlib.lines import Line2D

    start = 0
    for caption, span in sheet.groups:
        first, last = left + start * step, left + (start + span) * step - 0.05
        start += span
        if not caption:
            continue
        y = (top + 0.22) / height
        figure.text(
            (first + last) / 2 / width, (top + 0.27) / height, caption,
            ha="center", fontsize=9, color=INK,
        )  # fmt: skip
        figure.add_artist(Line2D((first / width, last / width), (y, y), color=LINE, linewidth=1.2))


def _draw_key(figure: Any, key: Sequence[tuple[str, str]]) -> None:
    """Draw the legend at the top right."""
    from matplotlib.patches import Patch

    patches = [Patch(facecolor=colour, label=label) for colour, label in key]
    figure.legend(
        handles=patches, ncols=len(key), loc="upper right", bbox_to_anchor=(1, 1), frameon=False,
        fontsize=8, labelcolor=MUTED, handlelength=1, handleheight=1, borderaxespad=0,
    )  # fmt: skip


def draw_heat_maps(
    panels: Sequence[HeatMap],
    rows: Sequence[int],
    columns: Sequence[int],
    row_label: str,
    column_label: str,
    where: str = "",
) -> Any:
    """Draw heat maps in a column on one colour scale, values in the cells, one of them framed.

    `where` says above all panels what they were measured on.
    """
    width = 1.6 + max(4.5, 0.47 * len(columns))
    each = 1.15 + 0.34 * len(rows)
    figure, grid = new_figure(
        width, each * len(panels), len(panels), gridspec_kw={"hspace": 0.95 / (0.34 * len(rows))}
    )
    known = np.concatenate([p.values[np.isfinite(p.values)] for p in panels])
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    # A uniform grid still has a scale, and differences of a hundredth do not look large.
    spread = max(high - low, 0.1)
    low = max(0.0, (low + high - spread) / 2)
    for axes, panel in zip(grid[:, 0], panels, strict=True):
        _draw_heat_map(axes, panel, (low, low + spread))
        labels = [f"{panel.marked[r]}  {r}" if r in panel.marked else str(r) for r in rows]
        axes.set_yticks(range(len(rows)), labels)
        axes.set_xticks(range(len(columns)), columns, rotation=90 if len(columns) > 12 else 0)
        axes.set_ylabel(row_label, color=MUTED, fontsize=9)
        axes.tick_params(labelcolor=INK)
        for row, label in zip(rows, axes.get_yticklabels(), strict=True):
            label.set_fontweight("bold" if row in panel.marked else "normal")
    grid[-1, 0].set_xlabel(column_label, color=MUTED, fontsize=9)
    figure.align_ylabels()
    if where:
        grid[0, 0].annotate(
            where, (0, 1), (0, 38), xycoords="axes fraction", textcoords="offset points",
            fontsize=11, fontweight="bold", color=INK, parse_math=False,
        )  # fmt: skip
    return figure


def _draw_heat_map(axes: Any, panel: HeatMap, scale: tuple[float, float]) -> None:
    from matplotlib.patches import Rectangle

    axes.imshow(panel.values, cmap="viridis", vmin=scale[0], vmax=scale[1], aspect="auto")
    axes.set_title(panel.title, loc="left", fontsize=10, color=INK, pad=20, parse_math=False)
    axes.annotate(
        panel.note, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points",
        fontsize=8, color=MUTED, parse_math=False,
    )  # fmt: skip
    middle = (scale[0] + scale[1]) / 2
    for (row, column), value in np.ndenumerate(panel.values):
        if np.isnan(value):
            axes.text(column, row, "—", ha="center", va="center", color=MUTED, fontsize=8)
            continue
        colour = PAPER if value < middle else INK
        text = f"{value:.2f}".removeprefix("0")
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7.5)
    if np.isfinite(panel.values).any():
        highest = divmod(int(np.nanargmax(panel.values)), panel.values.shape[1])
        row, column = panel.framed or highest
        frame = Rectangle(
            (column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="#d55e00", linewidth=2
        )
        frame.set_clip_on(False)
        axes.add_patch(frame)
