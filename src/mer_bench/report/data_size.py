"""The table "Training data": what a method scores when it learns from less. Needs numpy, but not torch.

Its rows were trained on shares of the training utterances (:mod:`mer_bench.datasets.shares`); they are never ranked.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mer_bench.report.formatting import between, in_percent, points
from mer_bench.report.names import marked_names
from mer_bench.report.rows import ResultRow
from mer_bench.report.statistics import Evidence, difference
from mer_bench.report.tables import Table


def learning_curves(table: Table) -> list[list[ResultRow]]:
    """For each method that was trained on shares its rows, the smallest share first and all data last, if it has it.

    The best method with the largest share that it has comes first.
    """
    found: dict[object, list[ResultRow]] = {}
    for row, whole in table.reduced.items():
        spec = row.spec
        key = spec.method, spec.version, repr(sorted(spec.options.items())), row.modalities, spec.training
        found.setdefault(key, [whole] if whole else []).append(row)
    made = [sorted(rows, key=lambda row: row.spec.share) for rows in found.values()]
    return sorted(made, key=lambda rows: (-rows[-1].spec.share, -rows[-1].weighted_f1, rows[-1].label))


def evidence_of(table: Table, row: ResultRow) -> Evidence | None:
    """Bootstrap of a row's weighted F1, whether it was trained on all data or on a share."""
    known = (table.evidence, table.ablation_evidence, table.strategy_evidence, table.reduced_evidence)
    return next((found[row] for found in known if row in found), None)


def utterances(row: ResultRow) -> float:
    """Training utterances of a run, mean over its folds."""
    return float(np.mean([record.rows["train"] for record in row.records]))


def data_size_lines(table: Table) -> list[tuple[str, ...]]:
    """Cells of the table: the headings, then each method with each share; empty where no row has a share."""
    if not table.reduced:
        return []
    heads = ("Training data", "Modalities", "Share", "Utterances", "Weighted F1", "95 % interval", "Against all")
    found: list[tuple[str, ...]] = [(*heads, "95 % interval", "Seeds")]
    short = marked_names(table)
    for rows in learning_curves(table):
        for row in rows:
            full = rows[-1] if rows[-1].spec.share == 1 else None
            names = (short[full or row], row.reads) if row is rows[0] else ("", "")
            mine, all_data = evidence_of(table, row), evidence_of(table, full) if full else None
            interval, against = "–", ("–", "–")
            if mine:
                interval = between(*mine.interval)
            if row is full:
                against = ("", "")
            elif mine and all_data:
                lost = difference(mine, all_data)
                against = (points(lost.effect, "+"), between(lost.low, lost.high, "+"))
            size = (f"{in_percent(row.spec.share)} %", f"{utterances(row):,.0f}")
            found.append((*names, *size, row.score("weighted_f1"), interval, *against, str(row.complete)))
    return found


def data_size_notes(table: Table) -> Iterator[str]:
    """What the columns mean."""
    if table.reduced:
        clusters = table.protocol.clusters if table.protocol else "clusters"
        yield (
            f"Training data: the same methods trained on a *share* of the training {clusters} (*utterances*: "
            "mean over folds), each share contained in the next. Validation and test are those of the table; what "
            "is learnt from data, standardisation included, is learnt from the share. Never ranked. The draw is the "
            "same for all methods and seeds, so that intervals do not contain its luck."
        )
