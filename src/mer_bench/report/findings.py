"""The generated tables of docs/findings.md: what the tables of the leaderboard say about the questions of the field.

Each function answers one question from all real tables whose features saw no labels of their corpus, as Markdown. A
question that no record answers yet says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median

import numpy as np

from mer_bench.records import RunRecord
from mer_bench.report.formatting import between, effect, escape, markdown, percent, points
from mer_bench.report.measured import all_measured, rater_score
from mer_bench.report.names import feature_names, in_words, short_names, splits_in_words
from mer_bench.report.power import variances_of
from mer_bench.report.rows import ResultRow, few_seeds
from mer_bench.report.statistics import Difference, difference, holm, significant
from mer_bench.report.tables import Table, best_single

NOTHING = "No record answers this yet.\n"
SIMPLE = ("early_concat", "simbamm", "bc_lstm")  #: concatenation, SimBaMM, and concatenation in context


def short(found: Sequence[Table]) -> str:
    """The answers in a sentence each, of tables whose rows have enough seeds."""
    against: dict[str, list[bool]] = defaultdict(list)
    for table in _fusing(found):
        for words, other in (("the best single modality", best_single(table)), ("the linear model", _linear(table))):
            if table.best and other and not few_seeds(table.best, other) and other in table.evidence:
                against[words].append(difference(table.evidence[table.best], table.evidence[other]).low > 0)
    sentences = [
        f"The best fusion is shown to beat {words} in {sum(shown)} of {len(shown)} tables."
        for words, shown in against.items()
    ]
    if counts := [each for _, _, each, _ in _against_simple(found)]:
        ahead, behind, rest = map(sum, zip(*counts, strict=True))
        sentences.append(
            f"Of {ahead + behind + rest} comparisons with a simple method of the same table, {ahead} show a method to "
            f"be better, {behind} to be worse, and {rest} nothing."
        )
    if tied := [(sum(table.tied(row) is True for row in table.ranks), len(table.ranks)) for table in _ordered(found)]:
        rows, every = map(sum, zip(*tied, strict=True))
        sentences.append(f"{rows} of {every} ranked rows are tied with the best one of their table.")
    if effects := [each for table in found for each in table.ablation_effects.values()]:
        worse = sum(significant(p) and one.effect < 0 for one, p in effects)
        sentences.append(
            f"{worse} of {len(effects)} ablations of the three papers' methods are shown to be worse than the whole."
        )
    if added := [row.test_selection.inflation for table in found for row in table.rows if row.test_selection]:
        sentences.append(
            f"Choosing the epoch on the test set adds {np.mean(added):.1f} points on average, {max(added):.1f} at most."
        )
    return "".join(f"- {sentence}\n" for sentence in sentences) or NOTHING


def fusion(found: Sequence[Table]) -> str:
    """Whether fusion beats the best single modality and the linear model of the same features."""
    lines = []
    for table in _fusing(found):
        best, names, linear = table.best, short_names(table), _linear(table)
        single = best_single(table)
        assert best is not None  # of a table that ranks
        above = sum(row.weighted_f1 > linear.weighted_f1 for row in table.ranks) if linear else None
        lines.append(
            (
                *_heading(table),
                f"{escape(names[best])}, {points(best.weighted_f1)}",
                _score(single, names),
                _gain(table, best, single),
                _score(linear, names) if linear else "–",
                _gain(table, best, linear),
                "–" if above is None else f"{above} of {len(table.ranks)}",
            )
        )
    head = ("Table", "Features", "Best fusion", "Best single modality", "Gain over it", "Linear", "Gain over it",
            "Rows above linear")  # fmt: skip
    return _table([head, *lines], "<<<<><>>")


def simple(found: Sequence[Table]) -> str:
    """How many methods are shown to be ahead of, or behind, simple ones."""
    lines = [
        (*_heading(table), f"{escape(short_names(table)[one])}, {points(one.weighted_f1)}", *map(str, counts),
         *_range([each.effect for each in effects]))
        for table, one, counts, effects in _against_simple(found)
    ]  # fmt: skip
    head = ("Table", "Features", "Simple method", "Ahead", "Behind", "Not shown", "Mean difference", "Range")
    return _table([head, *lines], "<<<>>>>>")


def order(found: Sequence[Table]) -> str:
    """Which order of the methods survives: ties, ranks, and the smallest difference that a table could show."""
    lines = []
    for table in _ordered(found):
        widths = [high - low + 1 for low, high in table.rank_intervals.values()]
        alike = sum(table.tied(row) is True for row in table.ranks)
        deviations = [float(row.scores["weighted_f1"].std(ddof=1)) for row in table.tested]
        wide = [each.interval[1] - each.interval[0] for each in table.tested.values()]
        found_variances = variances_of(table)
        smallest = points(found_variances.smallest_difference()) if found_variances else "–"
        lines.append(
            (
                *_heading(table), f"{alike} of {len(table.ranks)}" if table.behind else "–", f"{median(widths):g}",
                f"{points(float(np.mean(deviations)))}", f"{points(float(np.mean(wide)))}", smallest,
            )
        )  # fmt: skip
    head = ("Table", "Features", "Tied with the best", "Ranks in an interval, median", "Deviation between seeds, mean",
            "Width of intervals, mean", "Smallest difference shown")  # fmt: skip
    return _table([head, *lines], "<<>>>>>")


def parts(found: Sequence[Table]) -> str:
    """Whether a method is shown to be worse, or better, without one of its parts."""
    lines = []
    for table in found:
        names = short_names(table)
        for whole in (row for row in table.rows if row in table.ablations.values()):
            without = [row for row, of in table.ablations.items() if of is whole and row.complete]
            changes = [row.weighted_f1 - whole.weighted_f1 for row in without]
            if changes and whole.complete:
                effects = [table.ablation_effects[row] for row in without if row in table.ablation_effects]
                worse = sum(significant(p) and one.effect < 0 for one, p in effects)
                better = sum(significant(p) and one.effect > 0 for one, p in effects)
                few = next((few for row in (whole, *without) if (few := few_seeds(row))), "")
                verdict = f"{worse} worse, {better} better" if effects else few or "–"
                scored = f"{escape(names[whole])}, {points(whole.weighted_f1)}"
                lines.append((*_heading(table), scored, f"{len(changes)}", *_range(changes), verdict))
    head = ("Table", "Features", "Whole method", "Ablations", "Mean change", "Range", "Shown")
    return _table([head, *lines], "<<<>>><")


def tuned(found: Sequence[Table]) -> str:
    """What tuning was worth on the test set, and to whom."""
    lines = []
    for table in found:
        pairs = {row: default for row, default in table.tuned.items() if default and not few_seeds(row, default)}
        effects = {row: each for row, each in table.tuned_effects.items() if row in pairs}
        if effects:
            gains = [each.effect for each, _ in effects.values()]
            names = short_names(table)
            shown = {row: each.effect for row, (each, p) in effects.items() if significant(p)}
            helped = ", ".join(escape(names[row]) for row, gain in shown.items() if gain > 0) or "none"
            harmed = ", ".join(escape(names[row]) for row, gain in shown.items() if gain < 0) or "none"
            lines.append((*_heading(table), f"{len(gains)}", *_range(gains), helped, harmed))
    head = ("Table", "Features", "Rows", "Mean change", "Range", "Shown to help", "Shown to harm")
    return _table([head, *lines], "<<>>><<")


def selection(found: Sequence[Table]) -> str:
    """What choosing the epoch on the test set adds to a score, as many papers do."""
    lines = []
    for table in found:
        rows = {row: row.test_selection for row in (*table.rows, *table.ablations) if row.test_selection}
        if rows:
            added = [each.inflation / 100 for each in rows.values() if each]
            lines.append((*_heading(table), f"{len(added)}", *_range(added)))
    return _table([("Table", "Features", "Rows", "Mean gain", "Range"), *lines], "<<>>>")


def dominance(found: Sequence[Table]) -> str:
    """Which modality the trained methods rely on: Shapley shares, mean over the rows in which they were measured."""
    lines = []
    for table in found:
        rows = [row for row in table.rows if row.ranked and len(row.modalities) == len(table.sets)]
        known = [each for row in rows if (each := row.shapley)]
        if known:
            shares = {name: float(np.mean([each[name] for each in known])) for name in known[0]}
            text = ", ".join(
                f"{name} {percent(share)}" for name, share in sorted(shares.items(), key=lambda item: -item[1])
            )
            first = sum(
                max(each, key=lambda name: each[name]) == max(shares, key=lambda n: shares[n]) for each in known
            )
            lines.append((*_heading(table), text, f"{first} of {len(known)}"))
    return _table([("Table", "Features", "Shapley shares, mean", "Rows led by the first"), *lines], "<<<>")


def balancing(found: Sequence[Table]) -> str:
    """Whether training strategies that slow the dominant modality help."""
    lines = []
    for table in found:
        gains: dict[str, dict[ResultRow, float]] = defaultdict(dict)
        for row, without in table.strategies.items():
            if row.complete and without.complete:
                gains[row.spec.training.balance][row] = row.weighted_f1 - without.weighted_f1
        for name, each in sorted(gains.items()):
            effects = [table.strategy_effects[row] for row in each if row in table.strategy_effects]
            helped = sum(significant(p) and one.effect > 0 for one, p in effects)
            harmed = sum(significant(p) and one.effect < 0 for one, p in effects)
            few = next((few_seeds(row) for row in each if few_seeds(row)), "")
            verdict = f"{helped} helped, {harmed} harmed" if effects else few or "–"
            lines.append((*_heading(table), f"`{name}`", f"{len(each)}", *_range(list(each.values())), verdict))
    head = ("Table", "Features", "Strategy", "Methods", "Mean change", "Range", "Shown")
    return _table([head, *lines], "<<<>>><")


def raters(found: Sequence[Table]) -> str:
    """How far the best method of a table is from one human rater."""
    lines = []
    for table in _ranking(found):
        known = all_measured().get(table.splits)
        if known and known.rater and table.best:
            best = table.best
            agree = best.weighted_f1 - known.rater.weighted_f1
            scored = f"{escape(short_names(table)[best])}, {points(best.weighted_f1)}"
            lines.append((*_heading(table), rater_score(known.rater), scored, points(agree, "+")))
    head = ("Table", "Features", "One rater", "Best method", "Difference")
    return _table([head, *lines], "<<><>")


def effort(records: Sequence[RunRecord]) -> str:
    """How many runs the tables are made of, and how many hours of training on one core or device."""
    groups: dict[tuple[bool, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        spec = record.spec
        words = (
            "Simulated corpora" if record.simulated else splits_in_words(spec.dataset, spec.label_set, spec.protocol)
        )
        groups[record.simulated, words].append(record)
    lines = []
    for (_, words), group in sorted(groups.items()):
        seeds = len({record.spec.seed for record in group})
        hours = sum(record.seconds for record in group) / 3600
        lines.append((words, f"{len({r.spec.method for r in group})}", f"{seeds}", f"{len(group):,}", f"{hours:,.1f}"))
    total = sum(record.seconds for record in records) / 3600
    lines.append(("*all*", "", "", f"{len(records):,}", f"{total:,.1f}"))
    return _table([("Corpus and protocol", "Methods", "Seeds at most", "Runs", "Hours of training"), *lines], "<>>>>")


#: mark in docs/findings.md -> function of the real tables that gives what stands there
QUESTIONS: Mapping[str, Callable[[Sequence[Table]], str]] = {
    each.__name__: each
    for each in (short, fusion, simple, order, parts, tuned, selection, dominance, balancing, raters)
}


def _ranking(found: Sequence[Table]) -> Iterator[Table]:
    """The tables that rank at least two rows."""
    return (table for table in found if len(table.ranks) > 1)


def _fusing(found: Sequence[Table]) -> Iterator[Table]:
    """Those of several feature sets."""
    return (table for table in _ranking(found) if len(table.sets) > 1)


def _ordered(found: Sequence[Table]) -> Iterator[Table]:
    """Those with intervals of ranks."""
    return (table for table in _ranking(found) if table.rank_intervals)


def _linear(table: Table) -> ResultRow | None:
    return next((row for row in table.rows if row.method == "linear" and len(row.modalities) > 1), None)


def _against_simple(
    found: Sequence[Table],
) -> Iterator[tuple[Table, ResultRow, tuple[int, int, int], list[Difference]]]:
    """Each simple method of a table, how many others are ahead, behind and neither, and by how much each is ahead."""
    for table in _ranking(found):
        for one in (row for row in table.tested if row.method in SIMPLE and len(row.modalities) == len(table.sets)):
            others = [row for row in table.tested if row.method not in SIMPLE and row.modalities == one.modalities]
            each = [difference(table.evidence[row], table.evidence[one]) for row in others]
            p_values = holm([found.p for found in each])
            real = [found.effect for found, p in zip(each, p_values, strict=True) if significant(p)]
            ahead, behind = sum(gain > 0 for gain in real), sum(gain < 0 for gain in real)
            if others:
                yield table, one, (ahead, behind, len(others) - ahead - behind), each


def _heading(table: Table) -> tuple[str, str]:
    return escape(in_words(table)), escape(feature_names(table))


def _score(row: ResultRow | None, names: Mapping[ResultRow, str]) -> str:
    return f"{escape(names[row])}, {points(row.weighted_f1)}" if row else "–"


def _gain(table: Table, best: ResultRow, other: ResultRow | None) -> str:
    """The difference of two rows with its interval, and a remark where there are too few seeds."""
    if other is None or best not in table.evidence or other not in table.evidence:
        return "–"
    found: Difference = difference(table.evidence[best], table.evidence[other])
    few = few_seeds(best, other)
    return effect(found, "+") + (f", {few}" if few else "")


def _range(gains: Sequence[float]) -> tuple[str, str]:
    """Mean and range of differences in points."""
    return points(float(np.mean(gains)), "+"), between(min(gains), max(gains), "+")


def _table(lines: Sequence[tuple[str, ...]], align: str) -> str:
    return markdown(lines, align) if len(lines) > 1 else NOTHING
