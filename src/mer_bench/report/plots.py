"""Plots of the tables of the leaderboard, from the records alone. Equal records give equal SVG files.

Each function draws one table, or all tables of one track, into one figure; :func:`write` draws all of them. Plots are
legible without colour: order, position and numbers carry the meaning. Needs matplotlib, but not torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from itertools import pairwise, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mer_bench.errors import Misuse
from mer_bench.files import write_atomic
from mer_bench.metrics import f1
from mer_bench.records import RunRecord
from mer_bench.report.across import Across, across, ranked
from mer_bench.report.cache import NOT_KEPT, Cache, hash_of
from mer_bench.report.data_size import evidence_of, learning_curves, utterances
from mer_bench.report.diagnostic import PREFIX, Line, collect, concerns, corpora_of
from mer_bench.report.formatting import p_value
from mer_bench.report.gallery import check_index, write_index
from mer_bench.report.look import (
    BEHIND,
    BEST,
    DIM,
    FAINT,
    GREY,
    GRID,
    INK,
    MARGIN,
    MARK,
    MARKS,
    PITCH,
    REFERENCE,
    SETTINGS,
    SMALL,
    TEXT,
    TIED,
    UNRANKED,
    WIDTH,
    Mark,
    Sheet,
    columns,
    fitted,
    floor_of,
    heat,
    label_points,
    list_rows,
    mark_of,
    names_width,
    sheet,
)
from mer_bench.report.names import PICTURES, TRACKS, corpus_title, feature_names, short_names, slug, splits_in_words
from mer_bench.report.rows import REFERENCES, ResultRow
from mer_bench.report.tables import Table, tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROWS, METHODS = 40, 30  #: rows of a ranking, and of a heat map, at most
LABELLED = 8  #: number of rows that have a panel in a picture of curves
PANEL = 1.15  #: height of such a panel


def ranking(table: Table) -> Figure | None:
    """Weighted F1 of every row with its 95 % interval, and the 95 % interval of its rank."""
    rows, foot = _chosen(table, list(table.evidence), ROWS)
    if not rows:
        return None
    names, marks = _names(table, rows), [mark_of(table, row) for row in rows]
    left, right = names_width(names), 0.62 + 0.62 * bool(table.rank_intervals)
    width, height = WIDTH - left - right, PITCH * len(rows)
    shows = "Weighted F1 of each row with its 95 % interval"
    if table.rank_intervals:
        shows += f", and the 95 % interval of its rank among {len(table.ranks)}"
    page = sheet(*_heading(table), shows, height + 0.68, _used(marks), foot)
    axes = page.axes(left, 0.2, width, height, grid="x")
    scores = {row: 100 * table.evidence[row].score for row in rows}
    bounds = {row: [100 * bound for bound in table.evidence[row].interval] for row in rows}
    compared = [row for row in rows if row.ranked] or [row for row in rows if row.method != "majority"] or rows
    floor = floor_of([bounds[row][0] for row in compared])
    start = min((bounds[row][0] for row in rows if bounds[row][1] >= floor and row.method != "majority"), default=0)
    lower = [row for row in rows if scores[row] < start]
    for position, (row, mark) in enumerate(zip(rows, marks, strict=True)):
        low, high = bounds[row]
        if row not in lower:
            axes.plot([low, high], [position, position], color=mark.colour, linewidth=1.4, solid_capstyle="butt")
            axes.plot(scores[row], position, **mark.style)
        else:
            axes.plot(start, position, **(mark.style | {"marker": "<", "clip_on": False}))
        cells = {0.5: f"{scores[row]:.1f}"}
        if row in table.rank_intervals:
            cells[1.12] = "–".join(str(rank) for rank in dict.fromkeys(table.rank_intervals[row]))
        for column, text in cells.items():
            axes.text(1 + column / width, position, text, transform=axes.get_yaxis_transform(), ha="right",
                      va="center_baseline", fontsize=TEXT)  # fmt: skip
    heads = {0.5: "score"} | ({1.12: "rank"} if table.rank_intervals else {})
    for column, text in heads.items():
        axes.text(1 + column / width, -0.75, text, transform=axes.get_yaxis_transform(), ha="right", fontsize=SMALL,
                  color=DIM)  # fmt: skip
    list_rows(axes, names, [INK if row.ranked else DIM for row in rows])
    axes.set_xlim(left=start)
    cut = " (a triangle: the score is lower than the axis shows)" * bool(lower)
    axes.set_xlabel(f"weighted F1, %{cut}")
    return page.figure


def per_class(table: Table) -> Figure | None:
    """F1 of every class for every row, as numbers on a heat map."""
    every = [row for row in table.rows if row.complete and row.method != "majority"]
    rows, foot = _chosen(table, every, METHODS)
    if not rows:
        return None
    values = np.array([100 * f1(row.pooled).mean(0)[list(table.support)] for row in rows])
    shows = "F1 of each class in percent; below its name the number of its test utterances"
    names = _names(table, rows)
    left, height = names_width(names), PITCH * len(rows)
    page = sheet(*_heading(table), shows, height + 0.45, foot=foot)
    axes = page.axes(left, 0.36, WIDTH - left - MARGIN, height)
    heat(axes, values, top=max(1.0, float(values.max())))
    _beside(axes, names, [INK if row.ranked else DIM for row in rows])
    size = (WIDTH - left - MARGIN) / len(table.support)
    columns(axes, [table.first.classes[index] for index in table.support], size, 1.0)
    columns(axes, [f"{count:,}" for count in table.support.values()], size, 0.25, DIM)
    return page.figure


def confusion(table: Table) -> Figure | None:
    """Predictions of the best row for the utterances of each class, in percent of the class, summed over seeds."""
    best = table.best
    if best is None:
        return None
    counts = best.pooled.sum(0)[np.ix_(list(table.support), list(table.support))]
    values = 100 * counts / counts.sum(1, keepdims=True)
    names = [table.first.classes[index] for index in table.support]
    shows = f"Predictions of {short_names(table)[best]}, the best row, in percent of the true class"
    left, height = names_width(names) + 0.25, 0.32 * len(names)
    page = sheet(*_heading(table), shows, height + 0.55)
    width = min(WIDTH - left - MARGIN, 0.9 * len(names))
    axes = page.axes(left, 0.45, width, height)
    heat(axes, values, top=100)
    _beside(axes, names)
    columns(axes, names, width / len(names), 0.2)
    axes.set_ylabel("true class", fontsize=TEXT)
    axes.set_title("predicted class", fontsize=TEXT, pad=17)
    return page.figure


def frontier(table: Table) -> Figure | None:
    """Weighted F1 against trainable parameters; the line is the best score with so many or fewer."""
    name = "thousands of trainable parameters, encoders included"
    return _frontier(table, "its number of trainable parameters", name, lambda row: row.parameters / 1e3)


def operations(table: Table) -> Figure | None:
    """Weighted F1 against operations per utterance; the line is the best score with so many or fewer."""
    name = "millions of floating-point operations per utterance, encoders included, extractors not"
    return _frontier(table, "its operations per utterance", name, lambda row: row.flops / 1e6)


def _frontier(table: Table, against: str, name: str, cost: Callable[[ResultRow], float]) -> Figure | None:
    ranked = [row for row in table.ranks if cost(row) > 0]
    if len(ranked) < 3:
        return None
    references = {row.method: row for row in reversed(table.rows) if row.method in REFERENCES and cost(row) > 0}
    rows, foot = _chosen(table, [*ranked, *references.values()], ROWS)
    scores = {row: 100 * row.weighted_f1 for row in rows}
    floor = floor_of([100 * row.weighted_f1 for row in ranked])
    inside = [row for row in rows if scores[row] >= floor]
    top, lowest = max(scores.values()), min(scores[row] for row in inside)
    bottom = lowest - 0.1 * max(top - lowest, 0.1)
    marks = {row: mark_of(table, row) for row in rows}
    shows = f"Weighted F1 of each method against {against}; the line is the best score at that cost or less"
    page = sheet(*_heading(table), shows, 4.9, _used(marks.values()), foot)
    axes = page.axes(0.62, 0.1, WIDTH - 0.62 - MARGIN, 4.25, grid="both")
    costs = [cost(row) for row in rows]
    axes.set_xscale("log")
    axes.set_xlim(min(costs) / 1.3, max(costs) * 1.3)
    axes.set_ylim(bottom, top + 0.06 * (top - bottom))
    _log_ticks(axes)
    points = {row: (cost(row), scores[row] if row in inside else bottom) for row in rows}
    line: list[tuple[float, float]] = []  # from a row to the right until a more expensive one is better
    for row in sorted(inside, key=lambda row: (cost(row), -scores[row])):
        if not line or scores[row] > line[-1][1]:
            line += [(cost(row), height) for _, height in line[-1:]] + [(cost(row), scores[row])]
    line.append((axes.get_xlim()[1], line[-1][1]))
    axes.plot(*zip(*line, strict=True), color=FAINT, linewidth=1, zorder=1)
    for row, point in points.items():
        shape = {} if row in inside else {"marker": "v", "clip_on": False}
        axes.plot(*point, **(marks[row].style | shape))
    below = [row for row in rows if row not in inside]
    axes.set_xlabel(f"{name} (logarithmic axis)")
    axes.set_ylabel("weighted F1, %" + " (axis cut: triangles lie lower, at the given score)" * bool(below))
    if below:  # two strokes across the axis
        stroke: dict[str, Any] = {"marker": [(-1, -0.5), (1, 0.5)], "markersize": 9, "color": FAINT, "linestyle": ""}
        axes.plot([0, 0], [0.025, 0.04], transform=axes.transAxes, clip_on=False, **stroke)
    best_first = sorted(rows, key=lambda row: (row not in below, points[row] not in line, -scores[row]))
    names = dict(zip(rows, _names(table, rows), strict=True))
    named = {names[row] + f" {scores[row]:.1f}" * (row in below): points[row] for row in best_first}
    unnamed = label_points(axes, named, line)
    if unnamed:
        axes.set_xlabel(f"{axes.get_xlabel()}; {len(unnamed)} points have no name for lack of room")
    return page.figure


def learning(table: Table) -> Figure | None:
    """Validation weighted F1 of the best rows by epoch, mean over seeds and folds."""
    curves = {row: [entry for record in row.records for entry in record.curve or [{}]] for row in table.ranks}
    rows = [row for row, found in curves.items() if all("val/weighted_f1" in entry for entry in found)][:LABELLED]
    if not rows:
        return None
    means = []
    for row in rows:
        scores = [[100 * entry["val/weighted_f1"] for entry in record.curve] for record in row.records]
        length = min(map(len, scores))
        means.append(np.mean([score[:length] for score in scores], 0))
    shows = f"Weighted F1 on validation, %, by epoch, mean over seeds and folds; {_of_best(rows)}"
    page, panels = _panels(table, rows, shows, "epoch")
    later = np.concatenate([mean[len(mean) // 3 :] for mean in means])  # the first epochs are below the axes
    low, high = float(later.min()), float(later.max())
    for axes, mean in zip(panels, means, strict=True):
        for other in means:
            axes.plot(range(1, len(other) + 1), other, color=GREY, linewidth=0.8, zorder=1)
        axes.plot(range(1, len(mean) + 1), mean, color=MARK, linewidth=1.6)
        best = int(mean.argmax())
        axes.plot(best + 1, mean[best], **TIED.style)
        axes.text(0.97, 0.06, f"{mean[best]:.1f} at epoch {best + 1}", transform=axes.transAxes, ha="right",
                  fontsize=SMALL)  # fmt: skip
        axes.set_xlim(0.5, max(map(len, means)) + 0.5)
        axes.set_ylim(low - 0.3 * (high - low) - 0.1, high + 0.08 * (high - low) + 0.1)
        axes.locator_params(axis="x", integer=True, nbins=5)
        axes.locator_params(axis="y", nbins=5)
    return page.figure


def literature(table: Table) -> Figure | None:
    """What choosing the epoch on the test set would add to each row: an optimistic score beside the honest one."""
    measured = [row for row in table.rows if row.method != "majority"]
    rows, foot = _chosen(table, [row for row in measured if row.test_selection], ROWS)
    found = [each for row in rows if (each := row.test_selection)]
    if not found:
        return None
    honest = Mark("o", MARK, True, "epoch chosen on validation")
    best = Mark("D", DIM, False, "best epoch on the test set, optimistic")
    names = _names(table, rows)
    left, height = names_width(names), PITCH * len(rows)
    width = WIDTH - left - 0.62
    shows = "Weighted F1 with either choice of the epoch; at the right what the second one adds, in points"
    page = sheet(*_heading(table), shows, height + 0.48, (honest, best), foot)
    axes = page.axes(left, 0, width, height, grid="x")
    for position, each in enumerate(found):
        scores = [100 * float(score.mean()) for score in (each.honest, each.best)]
        axes.plot(scores, [position, position], color=FAINT, linewidth=1.4, zorder=1)
        for mark, score in zip((honest, best), scores, strict=True):
            axes.plot(score, position, **mark.style)
        axes.text(1 + 0.5 / width, position, f"{each.inflation:+.1f}", transform=axes.get_yaxis_transform(),
                  ha="right", va="center_baseline")  # fmt: skip
    list_rows(axes, names)
    axes.set_xlabel("weighted F1, %")
    return page.figure


def robustness(table: Table) -> Figure | None:
    """Weighted F1 with missing modalities or added noise, without retraining: a panel for each disturbance."""
    kinds = {"missing": "Share of the utterances in which each modality is missing",
             "noise": "Noise in all modalities, by the ratio of signal to noise"}  # fmt: skip
    rows, foot = _chosen(table, [row for row in table.ranks if row.retention], ROWS // 2)
    retained = [each for row in rows if (each := row.retention)]
    shown = {kind: sorted({level for each in retained for of, level in each.shares if of == kind}, key=float,
                          reverse=kind == "noise") for kind in kinds}  # fmt: skip
    shown = {kind: levels[:: -(-len(levels) // LABELLED)] for kind, levels in shown.items() if levels}
    if not shown:
        return None
    names, marks = _names(table, rows), [mark_of(table, row) for row in rows]
    left, height = names_width(names), PITCH * len(rows)
    width = (WIDTH - left - MARGIN - 0.36) / (1 + max(map(len, shown.values())))
    most = replace(BEST, words="highest in its panel")
    group = replace(TIED, words="best without disturbance, or tied with it")
    marks = [group if mark in (BEST, TIED) else mark for mark in marks]
    legend = [mark for mark in (most, group, *MARKS) if mark is most or mark in marks]
    shows = "Weighted F1, %, without retraining; each line starts at the score without disturbance"
    band = 0.42 + height + 0.36
    page = sheet(*_heading(table), shows, band * len(shown), legend, foot)
    whole = np.array([100 * each.undisturbed.mean() for each in retained])
    scores = {
        (kind, level): whole * [each.shares.get((kind, level), np.nan) for each in retained]
        for kind, levels in shown.items() for level in levels
    }  # fmt: skip
    every = np.concatenate([whole, *scores.values()])
    low, high = np.nanmin(every), np.nanmax(every)
    spread = max(high - low, 1.0)
    for number, (kind, levels) in enumerate(shown.items()):
        for column, level in enumerate(["", *levels]):
            values = scores[kind, level] if level else whole
            at = left + column * width + 0.36 * (column > 0)
            axes = page.axes(at, band * number + 0.42, width - 0.08, height, grid="both")
            for position, (mark, value) in enumerate(zip(marks, values, strict=True)):
                here = most if value == np.nanmax(values) else mark
                axes.plot([whole[position], value], [position, position], color=FAINT, linewidth=1, zorder=1)
                axes.plot(value, position, **here.style)
            best = int(np.nanargmax(values))
            if level:
                axes.annotate(f"{values[best]:.0f}", (values[best], best), xytext=(-5, 0), ha="right", weight="bold",
                              textcoords="offset points", va="center_baseline", fontsize=SMALL)  # fmt: skip
            for position, value in enumerate([] if level else values):
                axes.text(1 + 0.36 / (width - 0.08), position, f"{value:.1f}", ha="right", va="center_baseline",
                          fontsize=SMALL, transform=axes.get_yaxis_transform())  # fmt: skip
            list_rows(axes, names if not level else [""] * len(rows))
            axes.set_xlim(low - 0.55 * spread, high + 0.15 * spread)
            axes.locator_params(axis="x", nbins=2)
            title = "undisturbed" if not level else f"{100 * float(level):g} %" if kind == "missing" else f"{level} dB"
            axes.set_title(title, fontsize=SMALL, pad=4)
        page.write(MARGIN, band * number + 0.1, kinds[kind], TEXT, weight="bold")
    return page.figure


def data_size(table: Table) -> Figure | None:
    """Weighted F1 of the best methods that were trained on shares of the data, with its 95 % interval."""
    found = [rows for rows in learning_curves(table) if all(evidence_of(table, row) for row in rows)][:LABELLED]
    if not found:
        return None
    wholes = [rows[-1] for rows in found]
    shows = f"Weighted F1, %, with its 95 % interval, by the number of training utterances; {_of_best(wholes)}"
    page, panels = _panels(table, wholes, shows, "training utterances, mean over folds (logarithmic axis)", 2)
    sizes = [[utterances(row) for row in rows] for rows in found]
    evidence = [[each for row in rows if (each := evidence_of(table, row))] for rows in found]
    scores = [[100 * each.score for each in known] for known in evidence]
    bounds = [100 * np.array([each.interval for each in known]).T for known in evidence]
    shown = sorted({round(each) for size in sizes for each in size})
    low, high = min(each.min() for each in bounds), max(each.max() for each in bounds)
    spread = max(high - low, 1.0)
    for axes, size, score, bound in zip(panels, sizes, scores, bounds, strict=True):
        for other, grey in zip(sizes, scores, strict=True):
            axes.plot(other, grey, color=GREY, linewidth=0.8, zorder=1)
        axes.plot(size, score, linewidth=1.6, **TIED.style)
        axes.vlines(size, *bound, color=MARK, linewidth=1)
        axes.set_xscale("log")
        axes.set_xticks(shown, [f"{each:,}" for each in shown], minor=False)
        axes.set_xticks([], minor=True)
        axes.set_xlim(shown[0] / 1.3, shown[-1] * 1.3)
        axes.set_ylim(low - 0.05 * spread, high + 0.05 * spread)
    return page.figure


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
    corpora = f"{'Simulated' if found.simulated else 'Real'} corpora, {TRACKS[found.track]}"
    result = f"Friedman chi² = {test.chi2:.2f}, df = {test.df}, {p_value(test.p)}"
    shows = "Mean rank of each method; a black bar joins methods that are not shown to differ"
    edge = len(found.methods)
    marks = [BEST, *(TIED if rank - test.ranks[0] <= test.critical else BEHIND for rank in test.ranks[1:])]
    names = [fitted(name) for name in found.methods]
    left = names_width([*names, "critical difference"])
    width, height = WIDTH - left - 0.62, PITCH * (edge + 1.2)
    page = sheet(
        f"{corpora}: {test.blocks} tables",
        f"{edge} methods; {result}; critical difference {test.critical:.2f} (Nemenyi, 5 %)",
        shows,
        height + 0.5,
        _used(marks),
    )
    axes = page.axes(left, 0, width, height)
    for position, rank in enumerate(test.ranks):
        axes.plot([1, rank], [position, position], color=GRID, linewidth=0.6, zorder=0)
        axes.plot(rank, position, **marks[position].style)
        axes.text(1 + 0.5 / width, position, f"{rank:.2f}", transform=axes.get_yaxis_transform(), ha="right",
                  va="center_baseline")  # fmt: skip
    for column, (first, last) in enumerate(groups, 1):
        x = edge + 0.25 * column * edge / 10
        axes.plot([x, x], [first - 0.25, last + 0.25], color=INK, linewidth=3, solid_capstyle="butt", clip_on=False)
    axes.plot([1, 1 + test.critical], [-1, -1], "|-", color=INK, clip_on=False)
    list_rows(axes, names)
    axes.annotate("critical difference", (0.9, -1), xytext=(-4, 0), textcoords="offset points", ha="right",
                  va="center_baseline", color=DIM)  # fmt: skip
    axes.set_ylim(edge - 0.4, -1.6)
    axes.set_xlim(0.9, edge + 0.25 * (len(groups) + 1) * edge / 10)
    axes.set_xticks([tick for tick in axes.get_xticks() if 1 <= tick <= edge])
    axes.set_xlabel("mean rank, 1 = best")
    return page.figure


def diagnostic(found: Sequence[Table]) -> Figure | None:
    """Attained share by method and kind of information in percent; None without diagnostic records."""
    every = collect(found)
    if not every:
        return None
    corpora = corpora_of(every)
    lines: list[Line] = []
    for track, most in (("utterance", 24), ("dialogue", 16)):
        here = [line for line in every if line.track == track]
        wanted = sorted(here, key=lambda line: line.row.method not in REFERENCES)[:most]  # the references always
        lines += [line for line in here if line in wanted]
    foot = [f"Not shown: {len(every) - len(lines)} methods with a lower mean in their track."] if every != lines else []
    values = np.array([[100 * line.shares[c].share if c in line.shares else np.nan for c in corpora] for line in lines])
    table = next(filter(concerns, found))
    names: list[str] = []
    for track in TRACKS:
        rows = [line.row for line in lines if line.track == track]
        names += [fitted(name) for name in short_names(table, rows).values()]
    left, height = names_width(names), PITCH * len(lines)
    shows = "Share of what an ideal observer gains over the majority class, %"
    facts = "Each column is a corpus with another kind of information"
    change = [position for position, (one, other) in enumerate(pairwise(lines), 1) if one.track != other.track]
    if change:
        facts += "; below the line: methods that read dialogues, of what dialogues allow"
    page = sheet("Simulated corpora: what each method attains", facts, shows, height + 0.48, foot=foot)
    axes = page.axes(left, 0.36, WIDTH - left - MARGIN, height)
    heat(axes, values, top=100)
    _beside(axes, names, [DIM if line.row.method in REFERENCES else INK for line in lines])
    words = [corpus_title(PREFIX + corpus).removeprefix("Simulated: ") for corpus in corpora]
    size = (WIDTH - left - MARGIN) / len(corpora)
    columns(axes, [word.partition(" ")[0] for word in words], size, 1.0)
    columns(axes, [word.partition(" ")[2] for word in words], size, 0.25)
    for position in change:
        axes.axhline(position, color=INK, linewidth=1.5)
    return page.figure


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

    An index of the pictures with thumbnails stands beside them.

    Returns the pictures.

    Raises:
        Misuse: ``folder`` has an index that this function has not written; or what :func:`draw` raises.
    """
    check_index(folder)
    found = tables(records)
    files = draw(found, formats, cache=cache, jobs=jobs)
    made = [folder / name for name in files]
    for path, content in zip(made, files.values(), strict=True):
        write_atomic(path, content)
    for path in {path for suffix in formats for path in folder.glob(f"*.{suffix}")} - set(made):
        path.unlink()
    titles = {f"{slug(table)}-{kind}": (table, title) for table in found for kind, title in PICTURES.items()}
    write_index(folder, files, titles)
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
    settings: Any = SETTINGS
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
    # the font of the reader's machine, once for all texts, instead of the one with which they were measured
    found = buffer.getvalue().replace(b"; font-family: 'DejaVu Sans', sans-serif", b"")
    return found.replace(b"<svg ", b'<svg font-family="sans-serif" ', 1) if suffix == "svg" else found


def _heading(table: Table) -> tuple[str, str]:
    """Title of a table, and its track, features and seeds."""
    seeds = sorted({row.complete for row in table.ranks or table.rows})
    number = f"{seeds[0]}–{seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"
    exposed = "; the features saw labels of the corpus" * table.saw_labels
    facts = f"Track: {TRACKS[table.track]}; features: {feature_names(table)}; seeds: {number}{exposed}"
    return splits_in_words(*table.splits), facts


def _names(table: Table, rows: Sequence[ResultRow]) -> list[str]:
    """Names of rows as all pictures of the table give them."""
    names = short_names(table, list(dict.fromkeys([*table.rows, *rows])))
    return [fitted(names[row]) for row in rows]


def _used(marks: Iterable[Mark]) -> list[Mark]:
    """The marks that a legend explains."""
    used = set(marks)
    return [mark for mark in MARKS if mark in used]


def _chosen(table: Table, rows: Sequence[ResultRow], most: int) -> tuple[list[ResultRow], list[str]]:
    """At most so many rows, in their order, and a line that says which are left out.

    References come first, then ranked rows, then others.
    """
    ranks = {REFERENCE: 0, UNRANKED: 2}
    wanted = sorted(rows, key=lambda row: ranks.get(mark_of(table, row), 1))
    left_out = wanted[most:]
    ranked = sum(row.ranked for row in left_out)
    parts = [f"{ranked} ranked rows of lower score"] * bool(ranked)
    parts += [f"{len(left_out) - ranked} rows that are not ranked"] * (len(left_out) > ranked)
    return [row for row in rows if row not in left_out], [f"Not shown: {' and '.join(parts)}."] if parts else []


def _of_best(rows: Sequence[ResultRow]) -> str:
    return f"the best {len(rows)} rows, the others grey" if len(rows) > 1 else "one row"


def _panels(
    table: Table, rows: Sequence[ResultRow], shows: str, x_label: str, beside: int = 4
) -> tuple[Sheet, list[Axes]]:
    """Small panels with the names of ``rows``, at most so many beside each other."""
    across_, left = min(len(rows), beside), 0.42
    down = -(-len(rows) // across_)
    width, height = (WIDTH - left - MARGIN) / max(across_, 2), PANEL + 0.25
    page = sheet(*_heading(table), shows, down * height + 0.45)
    panels = []
    for position, name in enumerate(_names(table, rows)):
        row, column = divmod(position, across_)
        axes = page.axes(left + column * width, 0.22 + row * height, width - 0.12, PANEL, grid="both")
        axes.set_title(fitted(name, width - 0.12), loc="left", fontsize=TEXT, pad=4)
        last = position + across_ >= len(rows)
        axes.tick_params(labelleft=column == 0, labelbottom=last)
        if last and not column:
            axes.set_xlabel(x_label, loc="left")
        panels.append(axes)
    return page, panels


def _beside(axes: Axes, names: Sequence[str], colours: Sequence[str] = ()) -> None:
    """Names beside the rows of a heat map."""
    axes.set_xticks([])
    axes.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=TEXT)
    for label, colour in zip(axes.get_yticklabels(), colours, strict=False):
        label.set_color(colour)


def _log_ticks(axes: Axes) -> None:
    """Ticks of a logarithmic axis as plain numbers: 1, 2 and 5 of each power of ten, of many powers only 1."""
    low, high = axes.get_xlim()
    decades = np.log10(high / low)
    steps = (1, 2, 5) if decades < 2.6 else (1, 3) if decades < 4 else (1,)
    ticks = [step * 10.0**power for power in range(-9, 16) for step in steps]
    shown = [tick for tick in ticks if low <= tick <= high]
    axes.set_xticks(shown, [f"{tick:,.9g}" if tick < 1 else f"{tick:,.0f}" for tick in shown])
    axes.set_xticks([], minor=True)
