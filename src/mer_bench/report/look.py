"""The look of every picture: sizes, fonts, colours, the heading, the marks of rows and the layout. Needs matplotlib.

All lengths are inches. Layouts are fixed, from the measured widths of the texts, so that a picture is drawn once. The
marks differ in shape and filling, so that they can be told apart without colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from mer_bench.report.rows import REFERENCES, ResultRow
from mer_bench.report.statistics import LEAST_SEEDS
from mer_bench.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, MARGIN = 8.0, 0.12  #: of every picture
PITCH = 0.2  #: height of a row of a list
TITLE, TEXT, SMALL = 12.0, 9.0, 8.0  #: sizes of fonts in points
LINE_HEIGHT = 0.19  #: of a line of the heading
NAMES = 2.9  #: at most this wide are the names of a list
#: colours of text, of text that matters less, of lines and marks that matter less, of other curves, of grids, and of
#: what matters most
INK, DIM, FAINT, GREY, GRID, MARK = "#1b1b1b", "#595959", "#8a8a8a", "#c4c4c4", "#e4e4e4", "#1f5a8c"
SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "mer_bench", "svg.fonttype": "none", "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"], "font.size": TEXT, "text.parse_math": False, "text.color": INK,
    "axes.labelcolor": INK, "axes.labelsize": TEXT, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": FAINT, "axes.axisbelow": True, "grid.color": GRID, "grid.linewidth": 0.6,
    "xtick.labelsize": SMALL, "ytick.labelsize": SMALL, "xtick.color": FAINT, "ytick.color": FAINT,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK,
}  # fmt: skip


DARKEST = 0.58  #: of the blues of matplotlib, from 0 to 1: black text has a contrast of more than 5 on it


@dataclass(frozen=True)
class Mark:
    """How a point is drawn, and what that means."""

    shape: str
    colour: str
    filled: bool
    words: str

    @property
    def style(self) -> dict[str, Any]:
        """The options of a line of matplotlib that draws it."""
        size = {"x": 5.0, "D": 5.5, "s": 5.0}.get(self.shape, 6.0)
        face = self.colour if self.filled else "white"
        return {"marker": self.shape, "color": self.colour, "markerfacecolor": face, "markersize": size}


BEST = Mark("D", MARK, True, "best")
TIED = Mark("o", MARK, True, "tied with the best")
BEHIND = Mark("o", DIM, False, "behind the best")
UNTESTED = Mark("x", MARK, True, f"fewer than {LEAST_SEEDS} seeds, not tested")
REFERENCE = Mark("s", FAINT, True, "reference, not ranked")
UNRANKED = Mark("s", FAINT, False, "not ranked")
MARKS = (BEST, TIED, BEHIND, UNTESTED, REFERENCE, UNRANKED)  #: in the order of legends


def mark_of(table: Table, row: ResultRow) -> Mark:
    """The mark of a row in every picture of its table.

    References are the rows that fusion has to beat: the majority class, the linear model, and one modality alone.
    """
    if row.method in REFERENCES or row.alone:
        return REFERENCE
    if not row.ranked:
        return UNRANKED
    tied = table.tied(row)
    if tied is None:
        return UNTESTED
    if row is table.best:
        return BEST
    return TIED if tied else BEHIND


@dataclass(frozen=True)
class Sheet:
    """A figure with a heading, below which axes are placed."""

    figure: Figure
    top: float  #: height of the heading

    def write(self, left: float, top: float, text: str, size: float, **style: Any) -> None:
        """A text at a distance from the left edge and from the heading, as small as the width of the picture asks."""
        total = self.figure.get_figheight()
        size *= min(1, (WIDTH - left - MARGIN) / text_width(text, size, **style))
        self.figure.text(left / WIDTH, 1 - (self.top + top) / total, text, fontsize=size, **style)

    def axes(
        self, left: float, top: float, width: float, height: float, grid: Literal["", "x", "y", "both"] = ""
    ) -> Axes:
        """Axes at a distance from the left edge and from the heading; ``grid`` has lines across "x", "y" or "both"."""
        total = self.figure.get_figheight()
        box = (left / WIDTH, 1 - (self.top + top + height) / total, width / WIDTH, height / total)
        axes = self.figure.add_axes(box)
        if grid:
            axes.grid(axis=grid)
        return axes


def sheet(
    title: str, facts: str, shows: str, body: float, marks: Sequence[Mark] = (), foot: Sequence[str] = ()
) -> Sheet:
    """A figure whose heading says what was compared, by what, and what the picture shows, with a legend of marks.

    Args:
        title: The corpus, its labels and its protocol in words.
        facts: Track, features, seeds.
        shows: What the picture shows.
        body: Height of all that is neither heading nor foot.
        marks: Those that the legend explains.
        foot: Lines below the picture.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    spots, lines = _legend(marks)
    top = 0.46 + LINE_HEIGHT * (2 + lines)
    total = top + body + LINE_HEIGHT * len(foot) + 0.06 * bool(foot)
    page = Sheet(Figure(figsize=(WIDTH, total)), top)
    page.write(MARGIN, 0.28 - top, title, TITLE, weight="bold")
    page.write(MARGIN, 0.28 + LINE_HEIGHT - top, facts, TEXT, color=DIM)
    page.write(MARGIN, 0.28 + 2 * LINE_HEIGHT - top, shows, TEXT)
    for mark, (x, line) in zip(marks, spots, strict=True):
        y = 0.3 + LINE_HEIGHT * (3 + line)
        at = ([(x + 0.06) / WIDTH], [1 - (y - 0.045) / total])
        page.figure.add_artist(Line2D(*at, linestyle="", transform=page.figure.transFigure, **mark.style))
        page.write(x + 0.2, y - top, mark.words, SMALL)
    for line, text in enumerate(reversed(foot)):
        page.write(MARGIN, total - 0.09 - LINE_HEIGHT * line - top, text, SMALL, color=DIM)
    return page


def _legend(marks: Sequence[Mark]) -> tuple[list[tuple[float, int]], int]:
    """Position and line of each mark, and the number of lines."""
    spots, x, line = [], MARGIN, 0
    for mark in marks:
        width = 0.2 + text_width(mark.words, SMALL)
        if x + width > WIDTH - MARGIN and x > MARGIN:
            x, line = MARGIN, line + 1
        spots.append((x, line))
        x += width + 0.22
    return spots, line + 1 if marks else 0


@cache
def text_width(text: str, size: float = TEXT, weight: str = "normal", **_: Any) -> float:
    """Width of a text in the font that comes with matplotlib, which is wider than most."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
    width, _height, _descent = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return max(float(width) / 72, 1e-6)


def fitted(text: str, width: float = NAMES, size: float = TEXT) -> str:
    """A text with its middle left out where it is wider than ``width``; both ends tell names apart."""
    short, kept = text, len(text)
    while kept > 8 and text_width(short, size) > width:
        kept -= 1
        short = f"{text[: (kept + 1) // 2].rstrip()}…{text[len(text) - kept // 2 :].lstrip()}"
    return short


def names_width(names: Sequence[str], size: float = TEXT) -> float:
    """Room that names beside axes need."""
    return MARGIN + 0.1 + max((text_width(name, size) for name in names), default=0.0)


def list_rows(axes: Axes, names: Sequence[str], colours: Sequence[str] = ()) -> None:
    """One row per name beside the axes, the first on top."""
    axes.set_yticks(range(len(names)), names, fontsize=TEXT)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    for label, colour in zip(axes.get_yticklabels(), colours, strict=False):
        label.set_color(colour)


def heat(axes: Axes, values: npt.NDArray[np.float64], *, top: float) -> None:
    """Numbers on shades of blue from 0 to ``top``, darker for more; a dash where a number is missing."""
    shown = np.clip(np.nan_to_num(values), 0, top)
    axes.pcolormesh(shown, cmap="Blues", vmin=0, vmax=top / DARKEST, edgecolors="white", linewidth=0.5)
    axes.set_xlim(0, values.shape[1])
    axes.set_ylim(values.shape[0], 0)
    for (i, j), value in np.ndenumerate(values):
        axes.text(
            j + 0.5, i + 0.5, "–" if np.isnan(value) else f"{value:z.0f}", ha="center", va="center_baseline",
            fontsize=SMALL,
        )  # fmt: skip
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def columns(axes: Axes, names: Sequence[str], width: float, y: float, colour: str = INK) -> None:
    """Names above the columns of a heat map, ``y`` rows above it, as small as the width of a column asks."""
    longest = max(text_width(name, SMALL) for name in names)
    size = SMALL * min(1, (width - 0.04) / longest)
    for position, name in enumerate(names):
        axes.text(position + 0.5, -y, name, ha="center", fontsize=size, color=colour)


def floor_of(scores: Sequence[float]) -> float:
    """Where an axis of scores may be cut: lower ones are so far below the others that they would squeeze these.

    It is the lower quartile less 1.5 times the distance of the quartiles, at least one point.
    """
    lower, upper = np.quantile(np.array(scores), (0.25, 0.75))
    return float(lower - 1.5 * max(upper - lower, 1.0))


def _boxes(points: npt.NDArray[np.float64], size: float) -> npt.NDArray[np.float64]:
    return np.concatenate([points - size, points + size], axis=1)


def label_points(
    axes: Axes, points: Mapping[str, tuple[float, float]], line: Sequence[tuple[float, float]] = ()
) -> list[str]:
    """Names beside their points, clear of points, ``line`` and each other; a distant name is tied to its point.

    Returns the names for which there was no room.
    """
    from matplotlib.text import Text

    figure = axes.figure
    scale = figure.dpi / 72  # pixels of a point
    frame = axes.get_window_extent()
    rim = frame.x0 + 8 * scale, frame.y0, frame.x1, frame.y1  # the mark of a cut stands on the left edge
    angles = np.array(sorted(np.arange(24) * np.pi / 12, key=lambda angle: -np.cos(angle - 0.3)))  # rather to the right
    radii = np.array((5, 11, 18, 26, 35, 45, 60, 80, 105))
    steps = np.linspace(0, 1, 60)[:, None]
    corners = axes.transData.transform(list(line)) if line else np.empty((0, 2))
    along = [a + (b - a) * steps for a, b in pairwise(corners)]
    taken = _boxes(np.concatenate([axes.transData.transform(list(points.values())), *along]), 4.5 * scale)
    left_out = []
    height = SMALL * 1.05 * scale
    for name, point in points.items():
        width = (72 * text_width(name, SMALL) + 2) * scale
        x, y = axes.transData.transform(point)
        reach_x = (radii[:, None] * scale + width / 2) * np.cos(angles)
        reach_y = (radii[:, None] * scale + height / 2) * np.sin(angles)
        centres = np.stack([x + reach_x.ravel(), y + reach_y.ravel()], 1)
        half = np.array((width / 2, height / 2))
        boxes = np.concatenate([centres - half, centres + half], 1)
        fits = (boxes[:, 0] >= rim[0]) & (boxes[:, 1] >= rim[1]) & (boxes[:, 2] <= rim[2]) & (boxes[:, 3] <= rim[3])
        apart = (
            (boxes[:, None, 0] >= taken[None, :, 2]) | (boxes[:, None, 2] <= taken[None, :, 0])
            | (boxes[:, None, 1] >= taken[None, :, 3]) | (boxes[:, None, 3] <= taken[None, :, 1])
        )  # fmt: skip
        free = np.flatnonzero(fits & apart.all(1))
        if not len(free):
            left_out.append(name)
            continue
        chosen = free[0]
        taken = np.vstack([taken, boxes[chosen]])
        away = (centres[chosen] - (x, y)) / scale
        note: Text = axes.annotate(name, point, xytext=tuple(away), textcoords="offset points", fontsize=SMALL,
                                   ha="center", va="center_baseline")  # fmt: skip
        radius, angle = radii[chosen // len(angles)], angles[chosen % len(angles)]
        if radius > 5:
            tie = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
            near = (radius * np.cos(angle), radius * np.sin(angle))
            axes.annotate("", point, xytext=near, textcoords="offset points", zorder=0, arrowprops=tie)
        note.set_clip_on(False)
    return left_out
