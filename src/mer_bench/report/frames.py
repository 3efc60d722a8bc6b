"""The tables as pandas DataFrames: one row per row of a table, or per group of test utterances of such a row."""

from __future__ import annotations

import json
from functools import partial
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd

from mer_bench.metrics import SCORES
from mer_bench.report.rows import ExternalRow, ResultRow
from mer_bench.report.tables import Table, tables
from mer_bench.results import FLAG, REAL, TEXT, WHOLE, Values, frame, read_all

Entry = tuple[int, Table, ResultRow | ExternalRow]  #: number of the table, the table, a row of it or beside it


def load_tables(path: str | PathLike[str] | None = None) -> pd.DataFrame:
    """Read records as the tables of the leaderboard: one row per method, options and modalities of a table, as ranked.

    It is a plain table and no method of what :func:`mer_bench.load_results` returns, because ranks, intervals and ties
    need whole records, whereas a DataFrame may have been filtered or merged. Ablations, which are never ranked, are not
    in it. Scores and differences are shares between 0 and 1; what is not known is missing.

    ======================================= ==========================================================================
    Columns                                 Content
    ======================================= ==========================================================================
    table, heading                          number and heading of the table in the leaderboard
    dataset, label_set, protocol, track     what makes the table, together with its
    table_features                          feature sets; see :func:`mer_bench.load_results` for these and the next
    saw_labels                              whether an extractor of its features saw labels of the corpus
    simulated                               whether the corpus is simulated
    rank                                    1 = best; missing for rows that fusion has to beat, and incomplete ones
    method, title, provenance, contributed, the row; it has the features of the table that ``modalities`` names;
    options, tuned, version, current,       ``contributed`` says that its records come from an accepted submission;
    modalities                              ``options`` of a tuned row are those of its suite
    stated_features                         for predictions made elsewhere, provenance ``external``, which are beside
                                            the table and have no rank: their features as their author states them
    seeds, incomplete_seeds, folds          complete seeds, others, and how many folds make a seed complete
    weighted_f1, accuracy, macro_f1, uar    mean over the complete seeds, each pooled over its folds; over all runs
                                            where no seed is complete
    weighted_f1_sd, accuracy_sd, ...        standard deviation (n - 1) over the seeds
    nll, brier, ece                         scores of the probabilities, as for a run, each seed pooled over its folds
    rater_cross_entropy, rater_divergence   against the distributions of raters: cross-entropy and Jensen-Shannon
                                            divergence in nats, where that was measured
    attained                                share of what a simulated corpus allows
    low, high                               95 % interval of weighted F1
    behind, behind_low, behind_high         how far weighted F1 is behind the best ranked row, with its 95 % interval
    behind_p, tied                          Holm-corrected p-value, and whether the row is the best or not shown to be
                                            behind it; missing where it, or the best row, has fewer than three seeds
    rank_low, rank_high                     95 % interval of the rank, likewise for rows with three seeds
    parameters, fusion_parameters, flops    as in the table
    seconds                                 of one training, median
    ======================================= ==========================================================================

    Args:
        path: As for :func:`mer_bench.load_results`.

    Raises:
        Misuse: there is no such folder.

    Warns:
        UserWarning: for each record that is left out.
    """
    entries = [
        (number, table, row)
        for number, table in enumerate(tables(*read_all(path)), 1)
        for row in (*table.rows, *table.external)
    ]
    return frame(COLUMNS, entries)


def load_groups(path: str | PathLike[str] | None = None) -> pd.DataFrame:
    """Read scores of groups of test utterances, such as speakers: one row per group of each row of a table.

    ======================================= ==========================================================================
    Columns                                 Content
    ======================================= ==========================================================================
    table, heading, dataset, label_set,     as in :func:`load_tables`
    protocol, track, table_features, rank,
    method, title, options, tuned,
    modalities
    kind, group                             what the utterances are grouped by, such as ``gender``, and the group;
                                            ``agreement`` is how far the raters of an utterance agree
    utterances                              of the group in the test set
    group_weighted_f1                       of these utterances, mean over seeds
    worst                                   whether it is the group of its kind with the lowest score
    gap, gap_low, gap_high                  for that group: weighted F1 of all other utterances less its own, with the
                                            95 % interval where the group and the others are in enough clusters
    ======================================= ==========================================================================

    Args:
        path: As for :func:`mer_bench.load_results`.

    Raises:
        Misuse: there is no such folder.

    Warns:
        UserWarning: for each record that is left out.
    """
    groups = [
        (number, table, row, kind, at)
        for number, table in enumerate(tables(*read_all(path)), 1)
        for row in table.rows
        for kind, found in row.groups.items()
        for at in range(len(found.names))
    ]
    return frame(GROUP_COLUMNS, groups)


def _score(name: str, entry: Entry) -> float:
    return float(entry[2].scores[name].mean())


def _deviation(name: str, entry: Entry) -> float | None:
    found = entry[2].scores[name]
    return float(found.std(ddof=1)) if len(found) > 1 else None


def _probability_score(name: str, row: ResultRow) -> float | None:
    return float(getattr(row.probability_scores, name).mean()) if row.probability_scores else None


def _rater_score(name: str, row: ResultRow) -> float | None:
    return float(getattr(row.soft_scores, name).mean()) if row.soft_scores else None


def _group(value: Any) -> Any:
    """The value of the scores of a kind of groups, and the number of the group."""
    return lambda e: value(e[2].groups[e[3]], e[4])


def _gap(value: Any) -> Any:
    """The value for the worst group of its kind; missing for others."""
    return _group(lambda found, at: value(found) if at == found.worst else None)


def _interval(end: int) -> Any:
    def bound(entry: Entry) -> float | None:
        _, table, row = entry
        found = table.external_evidence.get(row) if isinstance(row, ExternalRow) else table.evidence.get(row)
        return found.interval[end] if found else None

    return bound


def _run(value: Any) -> Any:
    """The value for a row of runs; missing for predictions made elsewhere."""
    return lambda e: value(e[2]) if isinstance(e[2], ResultRow) else None


def _behind(part: str) -> Any:
    return lambda e: getattr(e[1].behind[e[2]][0], part) if e[2] in e[1].behind else None


def _tied(entry: Entry) -> bool | None:
    _, table, row = entry
    return table.tied(row) if isinstance(row, ResultRow) else None


def _ranks(end: int) -> Any:
    return lambda e: e[1].rank_intervals[e[2]][end] if e[2] in e[1].rank_intervals else None


def _seconds(row: ResultRow) -> float:
    return float(np.median([record.seconds for record in row.records]))


COLUMNS: Values = {
    "table": (WHOLE, lambda e: e[0]),
    "heading": (TEXT, lambda e: e[1].title),
    "dataset": (TEXT, lambda e: e[2].spec.dataset),
    "label_set": (TEXT, lambda e: e[2].spec.label_set),
    "protocol": (TEXT, lambda e: e[2].spec.protocol),
    "track": (TEXT, lambda e: e[1].track),
    "table_features": (TEXT, lambda e: " ".join(f"{modality}={name}" for modality, name, _ in sorted(e[1].features))),
    "saw_labels": (FLAG, lambda e: e[1].saw_labels),
    "simulated": (FLAG, lambda e: e[1].first.simulated),
    "rank": (WHOLE, lambda e: e[1].ranks.get(e[2])),
    "method": (TEXT, lambda e: e[2].method),
    "title": (TEXT, lambda e: e[2].title),
    "provenance": (TEXT, lambda e: e[2].provenance),
    "contributed": (FLAG, lambda e: e[2].contributed),
    "options": (TEXT, _run(lambda row: json.dumps(dict(row.spec.options), sort_keys=True))),
    "tuned": (WHOLE, _run(lambda row: row.spec.tuned and row.spec.tuned.trials)),
    "version": (WHOLE, _run(lambda row: row.spec.version)),
    "current": (FLAG, _run(lambda row: row.current)),
    "modalities": (TEXT, _run(lambda row: "+".join(sorted(row.modalities)))),
    "stated_features": (TEXT, lambda e: e[2].reads if isinstance(e[2], ExternalRow) else None),
    "seeds": (WHOLE, lambda e: e[2].complete),
    "incomplete_seeds": (WHOLE, lambda e: len(e[2].seeds) - e[2].complete),
    "folds": (WHOLE, lambda e: e[2].folds),
    **{name: (REAL, partial(_score, name)) for name in SCORES},
    **{f"{name}_sd": (REAL, partial(_deviation, name)) for name in SCORES},
    "nll": (REAL, _run(partial(_probability_score, "log_loss"))),
    "brier": (REAL, _run(partial(_probability_score, "brier"))),
    "ece": (REAL, _run(partial(_probability_score, "calibration_error"))),
    "rater_cross_entropy": (REAL, _run(partial(_rater_score, "cross_entropy"))),
    "rater_divergence": (REAL, _run(partial(_rater_score, "divergence"))),
    "attained": (REAL, lambda e: e[1].attained[e[2]].share if e[2] in e[1].attained else None),
    "low": (REAL, _interval(0)),
    "high": (REAL, _interval(1)),
    "behind": (REAL, _behind("effect")),
    "behind_low": (REAL, _behind("low")),
    "behind_high": (REAL, _behind("high")),
    "behind_p": (REAL, lambda e: e[1].behind[e[2]][1] if e[2] in e[1].behind else None),
    "tied": (FLAG, _tied),
    "rank_low": (WHOLE, _ranks(0)),
    "rank_high": (WHOLE, _ranks(1)),
    "parameters": (WHOLE, lambda e: e[2].parameters),
    "fusion_parameters": (WHOLE, _run(lambda row: row.fusion_parameters)),
    "flops": (REAL, _run(lambda row: row.flops)),
    "seconds": (REAL, _run(_seconds)),
}
KEYS = ("table", "heading", "dataset", "label_set", "protocol", "track", "table_features", "rank", "method", "title",
        "options", "tuned", "modalities")  # fmt: skip
GROUP_COLUMNS: Values = {
    **{name: COLUMNS[name] for name in KEYS},
    "kind": (TEXT, lambda e: e[3]),
    "group": (TEXT, _group(lambda found, at: found.names[at])),
    "utterances": (WHOLE, _group(lambda found, at: found.sizes[at])),
    "group_weighted_f1": (REAL, _group(lambda found, at: float(found.scores[at]))),
    "worst": (FLAG, _group(lambda found, at: at == found.worst)),
    "gap": (REAL, _gap(lambda found: found.gap)),
    "gap_low": (REAL, _gap(lambda found: found.interval[0] if found.interval else None)),
    "gap_high": (REAL, _gap(lambda found: found.interval[1] if found.interval else None)),
}
