"""Pictures of the leaderboard's tables, from the records alone. SVG of equal records has equal bytes.

Each function draws one table into one figure; :func:`write` draws all of them. Everything is legible in grey: order,
position and numbers carry the meaning, colour only repeats it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mer_bench.diagnostic import heat_map
from mer_bench.errors import Misuse
from mer_bench.files import write_atomic
from mer_bench.metrics import f1, weighted_f1
from mer_bench.records import RunRecord
from mer_bench.report import Row, Table, tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, MARK = "#1b1b1b", "#8a8a8a", "#1f5a8c"


def ranking(table: Table) -> Figure | None:
    """Weighted F1 of every row with its 95 % interval; a filled dot is the best row or tied with it."""
    rows = list(table.evidence)
    if not rows:
        return None
    figure, axes = _figure(8, 1.2 + 0.28 * len(rows))
    for place, row in enumerate(rows):
        low, high = (100 * bound for bound in table.evidence[row].interval)
        tied = row.ranked and table.tied(row)
        colour = MARK if row.ranked else FAINT
        axes.plot([low, high], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
        score = 100 * table.evidence[row].score
        axes.plot(score, place, "o", markersize=6, color=colour, markerfacecolor=colour if tied else "white")
    axes.set_yticks(range(len(rows)), [_name(row) for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("weighted F1 with 95 % interval; filled: the best, or tied with it; grey: not ranked")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_title(_title(table), loc="left", fontsize=10)
    return figure


def per_class(table: Table) -> Figure | None:
    """F1 of every class for every row, as numbers on a heat map."""
    rows = [row for row in table.rows if row.complete and row.method != "majority"]
    if not rows:
        return None
    present = [index for index, support in enumerate(table.support) if support]
    values = np.array([100 * f1(row.pooled).mean(0)[present] for row in rows])
    columns = [f"{table.first.classes[index]}\n{table.support[index]:,}" for index in present]
    figure, axes = _figure(3.2 + 0.72 * len(present), 1.4 + 0.28 * len(rows))
    _heat(axes, values, columns, [_name(row) for row in rows], top=max(1.0, float(values.max())))
    axes.set_title(f"F1 by class, {_title(table)}", loc="left", fontsize=10)
    return figure


def confusion(table: Table) -> Figure | None:
    """Where the utterances of each class go under the best row: percentages of the class, summed over seeds."""
    best = next((row for row in table.rows if row.ranked), None)
    if best is None:
        return None
    present = [index for index, support in enumerate(table.support) if support]
    counts = best.pooled.sum(0)[np.ix_(present, present)]
    values = 100 * counts / counts.sum(1, keepdims=True)
    names = [table.first.classes[index] for index in present]
    figure, axes = _figure(2.6 + 0.66 * len(names), 1.8 + 0.42 * len(names))
    _heat(axes, values, names, names, top=100)
    axes.set_ylabel("true")
    axes.set_xlabel("predicted, % of the true class")
    axes.set_title(f"{best.method}, {_title(table)}", loc="left", fontsize=10)
    return figure


def frontier(table: Table) -> Figure | None:
    """Weighted F1 against trainable parameters; the line joins the rows that no smaller one beats."""
    rows = [row for row in table.rows if row.ranked and row.parameters]
    if len(rows) < 3:
        return None
    points = [(row.parameters, 100 * float(weighted_f1(row.pooled).mean()), row) for row in rows]
    figure, axes = _figure(8, 5)
    best, edge = -1.0, []
    for parameters, score, row in sorted(points, key=lambda point: point[:2]):
        on_edge = score > best
        if on_edge:
            best = score
            edge.append((parameters, score))
        axes.plot(parameters, score, "o", markersize=5, color=MARK, markerfacecolor=MARK if on_edge else "white")
        axes.annotate(row.method, (parameters, score), xytext=(4, 3), textcoords="offset points", fontsize=7, color=INK)
    axes.plot(*zip(*edge, strict=True), color=MARK, linewidth=1, zorder=0)
    axes.set_xscale("log")
    axes.set_xlabel("trainable parameters, encoders included")
    axes.set_ylabel("weighted F1")
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_title(_title(table), loc="left", fontsize=10)
    return figure


def learning(table: Table) -> Figure | None:
    """Validation weighted F1 by epoch, mean over seeds and folds, of the eight best rows."""
    rows = [row for row in table.rows if row.ranked and all(_is_validated(record) for record in row.records)]
    if not rows:
        return None
    figure, axes = _figure(8, 4.5)
    styles = ("-", "--", "-.", ":")
    for place, row in enumerate(rows[:8]):
        curves = [[100 * entry["val/weighted_f1"] for entry in record.curve] for record in row.records]
        length = min(map(len, curves))
        mean = np.mean([curve[:length] for curve in curves], 0)
        shade = str(0.0 if place < 4 else 0.55)
        axes.plot(range(1, length + 1), mean, styles[place % 4], color=shade, linewidth=1.3, label=row.method)
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation weighted F1")
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.legend(fontsize=7, frameon=False, loc="lower right", ncols=2)
    axes.set_title(_title(table), loc="left", fontsize=10)
    return figure


PLOTS: dict[str, Callable[[Table], Figure | None]] = {
    "ranking": ranking,
    "classes": per_class,
    "confusion": confusion,
    "frontier": frontier,
    "learning": learning,
}


def write(records: Sequence[RunRecord], folder: Path, formats: Sequence[str] = ("svg",)) -> list[Path]:
    """Draw every picture of every table into ``folder``; returns the files, and removes those of tables that are gone.

    Raises:
        Misuse: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise Misuse("pictures need matplotlib: pip install 'mer-bench[report]'") from error
    matplotlib.use("agg")
    settings: Any = {"svg.hashsalt": "mer_bench", "svg.fonttype": "none", "font.size": 8, "axes.spines.top": False,
                "axes.spines.right": False, "axes.edgecolor": FAINT}  # fmt: skip
    made = []
    with matplotlib.rc_context(settings):
        found = tables(records)
        for table in found:
            for kind, draw in PLOTS.items():
                figure = draw(table)
                for suffix in formats if figure else ():
                    made.append(folder / f"{slug(table)}-{kind}.{suffix}")
                    _save(figure, made[-1])
        picture = heat_map(found)
        for suffix in formats if picture else ():
            made.append(folder / f"diagnostic.{suffix}")
            _save(picture, made[-1])
    for path in {path for suffix in formats for path in folder.glob(f"*.{suffix}")} - set(made):
        path.unlink()
    return made


def slug(table: Table) -> str:
    """A table's name in file names."""
    spec = table.first.spec
    sets = sorted(name for _, name, _ in table.features)
    return "-".join([spec.dataset, spec.label_set, spec.protocol, table.track, *sets])


def _save(figure: Any, path: Path) -> None:
    buffer = BytesIO()
    metadata = {"Date": None, "Creator": None} if path.suffix == ".svg" else {"Software": None}
    figure.savefig(buffer, format=path.suffix[1:], dpi=150, metadata=metadata)
    write_atomic(path, buffer.getvalue())


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _heat(
    axes: Axes, values: npt.NDArray[np.float64], columns: Sequence[str], rows: Sequence[str], *, top: float
) -> None:
    axes.imshow(values, cmap="Blues", vmin=0, vmax=top, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        axes.text(j, i, f"{value:.0f}", ha="center", va="center", color="white" if value > 0.6 * top else INK)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _name(row: Row) -> str:
    """Method, and what it reads if that is not everything."""
    return f"{row.method} ({' + '.join(row.modalities)})" if len(row.modalities) == 1 else row.method


def _is_validated(record: RunRecord) -> bool:
    return bool(record.curve) and all("val/weighted_f1" in entry for entry in record.curve)


def _title(table: Table) -> str:
    return f"{table.title} ({', '.join(sorted(name for _, name, _ in table.features))})"
