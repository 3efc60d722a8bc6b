"""The table "Balance": does slowing the modality that dominates help, and in whom? Needs numpy, but not torch.

Its rows were trained with a strategy (``balance`` of the training options); they are compared with the same method
trained without one, and never ranked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from mer_bench.report.columns import seeds
from mer_bench.report.formatting import between, percent, points, probability
from mer_bench.report.names import marked_names
from mer_bench.report.rows import ResultRow, few_seeds
from mer_bench.report.statistics import LEAST_SEEDS, significant
from mer_bench.report.tables import Table


def balance_lines(table: Table) -> list[tuple[str, ...]]:
    """Cells of the table: the headings, then each method trained without a strategy, best first, and with each.

    Empty where no row was trained with a strategy and without one.
    """
    if not table.strategies:
        return []
    names = [name for name, _, _ in table.sets]
    heads = [f"{what} {name}" for what in ("F1 with", "Shapley", "Gradient") for name in names]
    found: list[tuple[str, ...]] = [
        ("Balance", "Strategy", "Weighted F1", "Against none", "95 % interval", "p", *heads, "Seeds")
    ]
    wholes = set(table.strategies.values())
    short = marked_names(table)
    for whole in (row for row in (*table.rows, *table.ablations) if row in wholes):
        parts = sorted((row for row, of in table.strategies.items() if of is whole), key=strategy)
        for row in (whole, *parts):
            method = (short[row] if row is whole else "", strategy(row), row.score("weighted_f1"))
            found.append((*method, *_against(table, row), *_inside(row, names), seeds(table, row)))
    return found


def strategy(row: ResultRow) -> str:
    """The strategy of a row."""
    return row.spec.training.balance


def balance_notes(table: Table) -> Iterator[str]:
    """What the columns mean, and one sentence for each strategy: whom it helps."""
    if not table.strategies:
        return
    yield (
        "Balance: strategies that keep one modality from dominating, each against the same method without one (paired, "
        "Holm-corrected over all rows of that table); never ranked. Inside the trained model, on the test set: "
        "weighted F1 *with* one modality alone; *Shapley* share of each modality in what all add to the score of the "
        "most frequent class. In training: mean norm of the *gradient* of each modality's encoder, the largest of "
        "which is 1, before clipping and before the strategy changes it."
    )
    by_strategy: dict[str, list[ResultRow]] = {}
    for row, without in table.strategies.items():
        if row.complete and without.complete:
            by_strategy.setdefault(strategy(row), []).append(row)
    short = marked_names(table)
    for name, rows in sorted(by_strategy.items()):
        gains = [row.weighted_f1 - table.strategies[row].weighted_f1 for row in rows]
        effects = {row: table.strategy_effects[row] for row in rows if row in table.strategy_effects}
        shown = {row: found.effect for row, (found, p) in effects.items() if significant(p)}
        better = [short[table.strategies[row]] for row, gain in shown.items() if gain > 0]
        worse = [short[table.strategies[row]] for row, gain in shown.items() if gain < 0]
        changes = (
            f"`{name}` changes weighted F1 by {between(min(gains), max(gains), '+')} points, on average "
            f"{points(float(np.mean(gains)), '+')}"
        )
        if effects:
            several = f"{len(effects)} method{'s' * (len(effects) > 1)}"
            yield f"{changes}; of {several} it is shown to help {_named(better)} and to harm {_named(worse)}."
        else:
            yield f"{changes}; whether it helps or harms needs {LEAST_SEEDS} seeds."


def _named(methods: list[str]) -> str:
    return f"{len(methods)} ({', '.join(sorted(methods))})" if methods else "none"


def _against(table: Table, row: ResultRow) -> tuple[str, str, str]:
    if row not in table.strategies:
        return "", "", ""
    if row not in table.strategy_effects:
        return few_seeds(row, table.strategies[row]) or "–", "–", "–"
    found, p = table.strategy_effects[row]
    return points(found.effect, "+") + " ≈" * (not significant(p)), between(found.low, found.high, "+"), probability(p)


def _inside(row: ResultRow, names: list[str]) -> Iterator[str]:
    """Scores, shares and gradients of each modality; a dash where they were not measured."""
    scores, shares, ratios = row.subset_scores or {}, row.shapley or {}, row.gradient_ratios or {}
    yield from (points(scores[name,]) if (name,) in scores else "–" for name in names)
    yield from (percent(shares.get(name)) for name in names)
    yield from (_ratio(ratios, name) for name in names)


def _ratio(ratios: Mapping[str, float], name: str) -> str:
    return f"{ratios[name]:.2f}" if name in ratios else "–"
