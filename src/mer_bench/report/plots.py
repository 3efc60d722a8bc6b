"""Plots of the tables of the leaderboard, from the records alone. Equal records give equal SVG files.

Each function draws one table, or all tables of one track, into one figure; :func:`write` draws all of them. Plots are
legible without colour: order, position and numbers carry the meaning. Needs matplotlib, but not torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from itertools import pairwise, product, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mer_bench.errors import Misuse
from mer_bench.files import write_atomic
from mer_bench.metrics import f1
from mer_bench.records import RunRecord
from mer_bench.report.across import Across, across, ranked
from mer_bench.report.cache import NOT_KEPT, Cache, hash_of
from mer_bench.report.data_size import evidence_of, learning_curves, utterances
from mer_bench.report.diagnostic import collect, concerns, corpora_of
from mer_bench.report.formatting import p_value
from mer_bench.report.names import slug as slug
from mer_bench.report.rows import ResultRow
from mer_bench.report.statistics import LEAST_SEEDS
from mer_bench.report.tables import Table, tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, MARK = "#1b1b1b", "#8a8a8a", "#1f5a8c"


def ranking(table: Table) -> Figure | None:
    """Weighted F1 of every row with its 95 % interval; a filled dot is the best row, or one tied with it.

    A tick instead of a dot has too few seeds to be said to be behind or tied.
    """
    rows = list(table.evidence)
    if not rows:
        return None
    figure, axes = _figure(8, 1.1 + 0.2 * len(rows), _title(table), grid="x")
    bounds = {row: [100 * bound for bound in table.evidence[row].interval] for row in rows}
    left = min((low for row, (low, _) in bounds.items() if row.method != "majority"), default=0)
    for position, (row, (low, high)) in enumerate(bounds.items()):
        tied = table.tied(row) if row.ranked else False
        dot = "|" if tied is None else "o"
        colour = MARK if row.ranked else FAINT
        axes.plot([low, high], [position, position], color=colour, linewidth=1.6, solid_capstyle="butt")
        score = 100 * table.evidence[row].score
        inside = score >= left  # the majority class is far below all others
        axes.plot(score if inside else left, position, dot if inside else "<", markersize=6 if inside else 5,
                  color=colour, markerfacecolor=colour if tied else "white", clip_on=False)  # fmt: skip
        axes.text(1.01, position, f"{score:.1f}", transform=axes.get_yaxis_transform(), va="center", color=INK)
    _list(axes, _names(rows))
    axes.set_xlim(left=left)
    said = ["filled: the best, or tied with it", "hollow: behind"] if table.behind else []
    if any(row.ranked and table.tied(row) is None for row in rows):
        said.append(f"tick: fewer than {LEAST_SEEDS} seeds")
    axes.set_xlabel("; ".join(["weighted F1 with 95 % interval", *said, "grey: not ranked"]))
    return figure


def per_class(table: Table) -> Figure | None:
    """F1 of every class for every row, as numbers on a heat map."""
    rows = [row for row in table.rows if row.complete and row.method != "majority"]
    if not rows:
        return None
    values = np.array([100 * f1(row.pooled).mean(0)[list(table.support)] for row in rows])
    columns = [f"{table.first.classes[index]}\n{count:,}" for index, count in table.support.items()]
    figure, axes = _figure(3.2 + 0.72 * len(columns), 1.2 + 0.24 * len(rows), f"F1 by class, {_title(table)}")
    _heat(axes, values, columns, _names(rows), top=max(1.0, float(values.max())))
    return figure


def confusion(table: Table) -> Figure | None:
    """Predictions of the best row for the utterances of each class, in percent of the class, summed over seeds."""
    best = table.best
    if best is None:
        return None
    counts = best.pooled.sum(0)[np.ix_(list(table.support), list(table.support))]
    values = 100 * counts / counts.sum(1, keepdims=True)
    names = [table.first.classes[index] for index in table.support]
    figure, axes = _figure(2.6 + 0.66 * len(names), 1.8 + 0.42 * len(names), f"{best.title}, {_title(table)}")
    _heat(axes, values, names, names, top=100)
    axes.set_ylabel("true")
    axes.set_xlabel("predicted, % of the true class")
    return figure


def frontier(table: Table) -> Figure | None:
    """Weighted F1 against trainable parameters; the line joins the rows that are better than all smaller ones."""
    return _frontier(table, "trainable parameters, encoders included", lambda row: row.parameters)


def operations(table: Table) -> Figure | None:
    """Weighted F1 against operations per utterance; the line joins the rows that are better than all cheaper ones."""
    name = "floating-point operations per utterance, encoders included, extractors not"
    return _frontier(table, name, lambda row: row.flops)


def _frontier(table: Table, name: str, cost: Callable[[ResultRow], float]) -> Figure | None:
    rows = [row for row in table.rows if row.ranked and cost(row) > 0]
    if len(rows) < 3:
        return None
    points = {row: (cost(row), 100 * row.weighted_f1) for row in rows}
    best, edge = -1.0, {}
    for row, (price, score) in sorted(points.items(), key=lambda item: (item[1][0], -item[1][1])):
        if score > best:
            best, edge[row] = score, (price, score)
    figure, axes = _figure(8, 5, _title(table), grid="both")
    axes.set_xscale("log")
    for row, point in points.items():
        axes.plot(*point, "o", markersize=5, color=MARK, markerfacecolor=MARK if row in edge else "white")
    axes.plot(*zip(*edge.values(), strict=True), color=MARK, linewidth=1, zorder=1)
    axes.set_xlabel(f"{name}; filled: no cheaper one is better")
    axes.set_ylabel("weighted F1")
    labelled = edge | points
    names = _names(list(labelled), reads=False)
    _label(figure, axes, dict(zip(names, labelled.values(), strict=True)), list(edge.values()))
    return figure


def learning(table: Table) -> Figure | None:
    """Validation weighted F1 of the best rows by epoch, mean over seeds and folds."""
    curves = {row: [entry for record in row.records for entry in record.curve or [{}]] for row in table.ranks}
    rows = [row for row, found in curves.items() if all("val/weighted_f1" in entry for entry in found)][:LABELLED]
    if not rows:
        return None
    figure, axes = _figure(8, 4.5, f"The best rows, {_title(table)}", grid="both")
    later = []
    for position, (row, name) in enumerate(zip(rows, _names(rows, reads=False), strict=True)):
        scores = [[100 * entry["val/weighted_f1"] for entry in record.curve] for record in row.records]
        length = min(map(len, scores))
        mean = np.mean([score[:length] for score in scores], 0)
        later += list(mean[length // 8 :])
        axes.plot(range(1, length + 1), mean, label=name, **_style(position))
    spread = max(later) - min(later)  # the first epochs are below the axes
    axes.set_ylim(min(later) - 0.05 * spread - 0.1, max(later) + 0.05 * spread + 0.1)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation weighted F1, mean over seeds and folds")
    _legend(axes, *axes.get_legend_handles_labels())
    return figure


def literature(table: Table) -> Figure | None:
    """What choosing the epoch on the test set would add to each row: an optimistic score beside the honest one."""
    measured = [row for row in table.rows if row.method != "majority"]
    found = {row: row.test_selection for row in measured if row.test_selection}
    if not found:
        return None
    figure, axes = _figure(8, 1.1 + 0.2 * len(found), _title(table), grid="x")
    for position, each in enumerate(found.values()):
        honest, best = (100 * scores.mean() for scores in (each.honest, each.best))
        axes.plot([honest, best], [position, position], color=MARK, linewidth=1.6)
        axes.plot(honest, position, "o", markersize=6, color=MARK)
        axes.plot(best, position, "D", markersize=5, color=MARK, markerfacecolor="white")
        text = f"{each.inflation:+.1f}"
        axes.text(1.01, position, text, transform=axes.get_yaxis_transform(), va="center", color=INK)
    _list(axes, _names(list(found)))
    axes.set_xlabel("weighted F1; dot: epoch chosen on validation; diamond: best test epoch, optimistic; right: points")
    return figure


def robustness(table: Table) -> Figure | None:
    """Share of the weighted F1 that remains with missing modalities or added noise, without retraining."""
    kinds = {"missing": "rate at which each modality is missing", "noise": "signal to noise, dB"}
    retained: dict[str, dict[ResultRow, dict[str, float]]] = {kind: {} for kind in kinds}
    for row in table.ranks:
        for (kind, level), share in row.retention.shares.items() if row.retention else ():
            if kind in retained:
                retained[kind].setdefault(row, {})[level] = 100 * share
    retained = {kind: curves for kind, curves in retained.items() if curves}
    if not retained:
        return None
    title = f"{_title(table)}\nthe best rows by name, the others grey"
    figure, panels = _panels(len(retained), 4.6 * len(retained) + 0.6, 4.5, title, grid="both")
    for axes, (kind, curves) in zip(panels, retained.items(), strict=True):
        levels = sorted({level for curve in curves.values() for level in curve}, key=float, reverse=kind == "noise")
        ticks = ["none", *levels]
        names = _names(list(curves), reads=False)
        for position, (name, curve) in reversed(list(enumerate(zip(names, curves.values(), strict=True)))):
            shown = [level for level in levels if level in curve]
            values = [100, *(curve[level] for level in shown)]
            named = _style(position) | {"label": name}
            style = named if position < LABELLED else {"color": "#cccccc", "linewidth": 0.8}
            axes.plot([0, *(ticks.index(level) for level in shown)], values, zorder=3 - position / 100, **style)
        axes.set_xticks(range(len(ticks)), ticks)
        axes.set_xlabel(kinds[kind])
    _legend(panels[-1], *panels[0].get_legend_handles_labels())
    panels[0].set_ylabel("weighted F1 retained, %")
    return figure


def data_size(table: Table) -> Figure | None:
    """Weighted F1 of the best methods that were trained on shares of the data, with its 95 % interval."""
    found = [rows for rows in learning_curves(table) if all(evidence_of(table, row) for row in rows)][:LABELLED]
    if not found:
        return None
    figure, axes = _figure(8, 4.5, f"Training data, {_title(table)}", grid="both")
    sizes = [[utterances(row) for row in rows] for rows in found]
    names = _names([rows[-1] for rows in found])
    for position, (rows, name, size) in enumerate(zip(found, names, sizes, strict=True)):
        known = [each for row in rows if (each := evidence_of(table, row))]
        at = np.array(size) * 1.012 ** (position - (len(found) - 1) / 2)  # side by side
        axes.plot(at, [100 * each.score for each in known], "o", label=name, markersize=4, **_style(position))
        bounds = np.array([each.interval for each in known]).T
        axes.vlines(at, *(100 * bounds), color=_style(position)["color"], linewidth=1)
    shown = sorted({round(each) for size in sizes for each in size})
    axes.set_xscale("log")
    axes.set_xticks(shown, [f"{each:,}" for each in shown], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("training utterances, mean over folds; bars: 95 % intervals")
    axes.set_ylabel("weighted F1")
    _legend(axes, *axes.get_legend_handles_labels())
    return figure


def critical_difference(found: Across) -> Figure | None:
    """Mean rank of each method over the tables of a track; a bar joins those that are not shown to differ."""
    test = found.test
    if test is None:
        return None
    groups: list[tuple[int, int]] = []
    for first, rank in enumerate(test.ranks):  # each maximal run of methods within the critical difference
        last = max(position for position, other in enumerate(test.ranks) if other - rank <= test.critical)
        if last > first and (not groups or last > groups[-1][1]):
            groups.append((first, last))
    result = f"Friedman chi² = {test.chi2:.2f}, df = {test.df}, {p_value(test.p)}"
    title = f"{'simulated, ' * found.simulated}{found.track} track over {test.blocks} tables: {result}"
    figure, axes = _figure(8, 1.9 + 0.24 * len(found.methods), title)
    axes.plot(test.ranks, range(len(found.methods)), "o", color=MARK, markersize=6, clip_on=False)
    for position, rank in enumerate(test.ranks):
        axes.plot([1, rank], [position, position], color="#dddddd", linewidth=0.6, zorder=0)
    edge = len(found.methods)
    for column, (first, last) in enumerate(groups, 1):
        x = edge + 0.25 * column * edge / 10
        axes.plot([x, x], [first - 0.25, last + 0.25], color=INK, linewidth=3, solid_capstyle="butt", clip_on=False)
    axes.plot([1, 1 + test.critical], [-1.5, -1.5], "|-", color=INK, clip_on=False)
    axes.text(1, -1.3, f"critical difference {test.critical:.2f} (Nemenyi, 5 %)", color=INK, va="top")
    _list(axes, [f"{name}  {rank:.2f}" for name, rank in zip(found.methods, test.ranks, strict=True)])
    axes.set_ylim(edge - 0.4, -1.8)
    axes.set_xlim(0.9, edge + 0.25 * (len(groups) + 1) * edge / 10)
    axes.set_xticks([tick for tick in axes.get_xticks() if 1 <= tick <= edge])
    axes.set_xlabel("mean rank, 1 = best; a black bar joins methods that are not shown to differ")
    return figure


def diagnostic(found: Sequence[Table]) -> Figure | None:
    """Attained share by method and kind of information in percent; None without diagnostic records."""
    lines = collect(found)
    if not lines:
        return None
    corpora = corpora_of(lines)
    values = np.array([[100 * line.shares[c].share if c in line.shares else np.nan for c in corpora] for line in lines])
    names = [line.row.name + line.only for line in lines]
    figure, axes = _figure(3.4 + 0.72 * len(corpora), 1.4 + 0.24 * len(lines), "")
    _heat(axes, values, [corpus.replace("-", "\n") for corpus in corpora], names, top=100)
    axes.tick_params(labeltop=True, labelbottom=False)
    change = [position for position, (one, other) in enumerate(pairwise(lines), 1) if one.track != other.track]
    for position in change:
        axes.axhline(position - 0.5, color=INK, linewidth=1.5)
    below = "\nbelow the line: methods that read dialogues, of what dialogues allow" if change else ""
    axes.set_xlabel(f"% of what an ideal observer gains over the majority class{below}")
    return figure


PLOTS: dict[str, Callable[[Table], Figure | None]] = {
    "ranking": ranking,
    "classes": per_class,
    "confusion": confusion,
    "frontier": frontier,
    "operations": operations,
    "learning": learning,
    "literature": literature,
    "robustness": robustness,
    "data-size": data_size,
}
LABELLED = 8  #: number of rows that have a name in a plot of curves


@dataclass(frozen=True)
class Drawn:
    """Pictures as the cache keeps them."""

    made_from: bytes  #: hash
    files: dict[str, bytes]  #: by name of the file


def write(
    records: Sequence[RunRecord],
    folder: Path,
    formats: Sequence[str] = ("svg",),
    *,
    cache: Cache = NOT_KEPT,
    jobs: int = 1,
) -> list[Path]:
    """Draw every plot of the tables that the records make into ``folder``, and remove those of tables that are gone.

    Returns the files. Raises what :func:`draw` raises.
    """
    files = draw(tables(records), formats, cache=cache, jobs=jobs)
    made = [folder / name for name in files]
    for path, content in zip(made, files.values(), strict=True):
        write_atomic(path, content)
    for path in {path for suffix in formats for path in folder.glob(f"*.{suffix}")} - set(made):
        path.unlink()
    return made


def draw(
    found: Sequence[Table], formats: Sequence[str] = ("svg",), *, cache: Cache = NOT_KEPT, jobs: int = 1
) -> dict[str, bytes]:
    """Every plot of the tables, by the name of its file; what the cache has is not drawn again.

    Every table has its own plots, except that the diagnostic corpora share one.

    Args:
        found: All tables of a page.
        formats: Suffixes of the files.
        cache: Where to keep the pictures.
        jobs: How many processes draw side by side.

    Raises:
        Misuse: matplotlib is not installed.
    """
    try:
        matplotlib = version("matplotlib")
    except PackageNotFoundError as error:
        raise Misuse("plots need matplotlib: pip install 'mer-bench[report]'") from error
    # what each page of the cache shows; "" are the pictures of several tables
    tasks = {slug(table): [table] for table in found if not concerns(table)} | {"": list(found)}
    known: dict[str, dict[str, bytes]] = {}
    lacking: dict[str, bytes] = {}
    for name, shown in tasks.items():
        made_from = hash_of(matplotlib, *formats, *(table.content for table in shown))
        kept = cache.get(f"pictures {name}", Drawn)
        if kept and kept.made_from == made_from:
            known[name] = kept.files
        else:
            lacking[name] = made_from
    with ProcessPoolExecutor(jobs) if min(jobs, len(lacking)) > 1 else nullcontext() as pool:
        run = pool.map if pool else map
        drawn = run(_files, lacking, (tasks[name] for name in lacking), repeat(formats))
        for (name, made_from), files in zip(lacking.items(), drawn, strict=True):
            known[name] = files
            cache.put(f"pictures {name}", Drawn(made_from, files))
    return {file: content for name in tasks for file, content in known[name].items()}


def _files(name: str, shown: Sequence[Table], formats: Sequence[str]) -> dict[str, bytes]:
    """The pictures of the table of that name, or of several, by the names of their files."""
    import matplotlib

    matplotlib.use("agg")
    settings: Any = {"svg.hashsalt": "mer_bench", "svg.fonttype": "none", "font.size": 8, "axes.spines.top": False,
                "axes.spines.right": False, "axes.edgecolor": FAINT}  # fmt: skip
    with matplotlib.rc_context(settings):
        figures = dict(_of_table(*shown) if name else _of_several(shown))
        known = {title: figure for title, figure in figures.items() if figure}
        return {f"{title}.{suffix}": _save(figure, suffix) for title, figure in known.items() for suffix in formats}


def _of_table(table: Table) -> Iterator[tuple[str, Figure | None]]:
    for kind, draw_one in PLOTS.items():
        yield f"{slug(table)}-{kind}", draw_one(table)


def _of_several(found: Sequence[Table]) -> Iterator[tuple[str, Figure | None]]:
    for part in across(map(ranked, found)):
        name = f"{'simulated' if part.simulated else 'real'}-{part.track}-critical"
        yield name, critical_difference(part)
    yield "diagnostic", diagnostic(found)


def _save(figure: Figure, suffix: str) -> bytes:
    buffer = BytesIO()
    metadata = {"Date": None, "Creator": None} if suffix == "svg" else {"Software": None}
    figure.savefig(buffer, format=suffix, dpi=150, metadata=metadata)
    return buffer.getvalue()


def _figure(width: float, height: float, title: str, grid: str = "") -> tuple[Figure, Axes]:
    figure, (axes,) = _panels(1, width, height, title, grid)
    return figure, axes


def _panels(count: int, width: float, height: float, title: str, grid: str = "") -> tuple[Figure, list[Axes]]:
    """A figure with axes side by side, with grid lines across the axis ``grid`` ("x" or "both") if it is given."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    panels = list(figure.subplots(1, count, sharey=True, squeeze=False)[0])
    panels[0].set_title(title, loc="left", fontsize=10)
    for axes in panels if grid else ():
        axes.grid(axis=grid, color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure, panels


def _list(axes: Axes, names: Sequence[str]) -> None:
    """One row per name, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _style(position: int) -> dict[str, Any]:
    """A line style that differs from its neighbours without colour: dashes repeat after four lines."""
    dashes = ("-", "--", "-.", ":")[position % 4]
    return {"linestyle": dashes, "color": MARK if position < 4 else "#777777", "linewidth": 1.5}


def _legend(axes: Axes, lines: Sequence[Any], names: Sequence[str]) -> None:
    """Names of the lines to the right of the axes, the best on top."""
    order = sorted(range(len(lines)), key=lambda index: -lines[index].get_zorder())
    axes.legend([lines[i] for i in order], [names[i] for i in order], frameon=False, loc="center left",
                bbox_to_anchor=(1, 0.5), handlelength=3.2)  # fmt: skip


def _label(
    figure: Figure, axes: Axes, points: Mapping[str, tuple[float, float]], line: Sequence[tuple[float, float]]
) -> None:
    """Names beside their points, clear of points, ``line`` and each other; a distant name is tied to its point."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()  # lays out the axes; names inside them do not change the layout
    scale = figure.dpi / 72  # pixels of a point
    frame = axes.get_window_extent()
    angles = sorted(np.arange(24) * np.pi / 12, key=lambda angle: -np.cos(angle - 0.3))  # preferably to the right
    steps = np.arange(0, 1, 0.02)
    along = [a + (b - a) * step for a, b in pairwise(axes.transData.transform(line)) for step in steps]
    dots = [*axes.transData.transform(list(points.values())), *along]
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in dots]
    for name, point in points.items():
        note = axes.annotate(name, point, xytext=(0, 0), textcoords="offset points", fontsize=7, color=INK,
                             ha="center", va="center")  # fmt: skip
        note.set_in_layout(False)
        here = note.get_window_extent()
        for radius, angle in product((5, 11, 18, 26, 35, 45, 60), angles):
            dx = (radius + here.width / scale / 2) * np.cos(angle)
            dy = (radius + here.height / scale / 2) * np.sin(angle)
            box = here.translated(dx * scale, dy * scale)
            inside = box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y0 >= frame.y0 and box.y1 <= frame.y1
            if inside and not box.count_overlaps(taken):
                break
        note.set_position((dx, dy))
        taken.append(box)
        if radius > 5:
            tie = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.5}
            near = (radius * np.cos(angle), radius * np.sin(angle))
            far = axes.annotate("", point, xytext=near, textcoords="offset points", zorder=0, arrowprops=tie)
            far.set_in_layout(False)


def _heat(
    axes: Axes, values: npt.NDArray[np.float64], columns: Sequence[str], rows: Sequence[str], *, top: float
) -> None:
    """Numbers on shades of blue from 0 to ``top``; a dash where a number is missing."""
    axes.imshow(values, cmap="Blues", vmin=0, vmax=top, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        shade = "white" if value > 0.6 * top else INK
        axes.text(
            j, i, "–" if np.isnan(value) else f"{value:z.0f}", ha="center", va="center", color=shade, in_layout=False
        )
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _names(rows: Sequence[ResultRow], *, reads: bool = True) -> list[str]:
    """Titles, with the modality of rows on one modality, and with options where two would otherwise be equal."""
    alone = [f" ({row.modalities[0]})" if reads and len(row.modalities) == 1 else "" for row in rows]
    short = [row.title + one for row, one in zip(rows, alone, strict=True)]
    return [
        row.name + one if short.count(name) > 1 else name for row, one, name in zip(rows, alone, short, strict=True)
    ]


def _title(table: Table) -> str:
    return f"{table.title} ({', '.join(sorted(name for _, name, _ in table.features))})"
