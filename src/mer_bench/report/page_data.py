"""What the HTML page shows of one table, as JSON-able data: its rows, and the details that a row opens.

``page.js`` makes text of all of it, never markup. Texts of notes and panels are Markdown as
:func:`mer_bench.report.formatting.escape` writes it, which the script shows with code and emphasis alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from mer_bench.methods import MethodFacts
from mer_bench.metrics import f1, precision, recall
from mer_bench.modalities import modality_order
from mer_bench.records import RunRecord
from mer_bench.report import elsewhere
from mer_bench.report.balance import balance_lines, balance_notes
from mer_bench.report.columns import (
    CALIBRATION,
    COST,
    GROUPS,
    PAGE,
    RATERS,
    RETENTION,
    SCORE,
    TEMPERATURE,
    TEST_SELECTION,
    UNKNOWN,
    Cell,
    Column,
    columns,
    disturbances,
    trained_on,
    value_of,
)
from mer_bench.report.data_size import data_size_lines, data_size_notes
from mer_bench.report.formatting import effect, spread, unescape
from mer_bench.report.names import TRACKS, corpus_title, in_words, short_names
from mer_bench.report.reproduce import Recipe, commands
from mer_bench.report.rows import ResultRow, few_seeds, training_text
from mer_bench.report.table_page import Own, ablation_lines, facts, own_mark
from mer_bench.report.tables import Table, best_single, gain
from mer_bench.report.transfer import transfer_lines, transfer_notes
from mer_bench.report.tuning import tuning_lines, tuning_notes

#: preset of columns -> the groups that it shows; columns without a group are in each of them
PRESETS: Mapping[str, tuple[str, ...]] = {
    "scores": (SCORE, CALIBRATION),
    "robustness": (RETENTION, GROUPS, RATERS, TEST_SELECTION, TEMPERATURE),
    "cost": (COST,),
    "all": (SCORE, CALIBRATION, RETENTION, GROUPS, RATERS, TEST_SELECTION, TEMPERATURE, COST),
}
#: in every preset, in this order, before the others
ALWAYS = ("Rank", "Method", "Modalities", "Weighted F1", "Seeds")
#: kind of a row -> its name in the filter
PROVENANCE = {
    "reimplemented": "reimplemented from the paper",
    "reconstruction": "reconstruction: the paper does not determine it",
    "baseline": "baseline",
    "own": "not built in",
}

Json = dict[str, Any]


def safe(text: str, longest: int = 120) -> str:
    """A name as it may stand in addresses and file names: letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:longest] or "unnamed"


def unique(names: Sequence[str]) -> list[str]:
    """:func:`safe` names, no two alike: a later one that is alike has a number."""
    found: list[str] = []
    for name in map(safe, names):
        same = (name, *(f"{name}-{number}" for number in range(2, len(names) + 2)))
        found.append(next(each for each in same if each not in found))
    return found


def row_keys(table: Table) -> dict[ResultRow, str]:
    """The name of each row in addresses, which is made of its short name."""
    names = short_names(table)
    return dict(zip(names, unique(list(names.values())), strict=True))


def table_data(table: Table, own: Own) -> Json:
    """Heading, columns, rows, panels and notes of a table."""
    shown, names, keys = page_columns(table), short_names(table), row_keys(table)
    return {
        "heading": in_words(table),
        "track": TRACKS[table.track],
        "sets": [[modality, name] for modality, name, _ in table.sets],
        "classes": [table.first.classes[index] for index in table.support],
        "columns": [
            {
                "name": column.name,
                "group": column.group,
                "about": column.explanation,
                "number": column.align == ">",
                "falling": column.falling,
                "presets": [
                    name for name, held in PRESETS.items() if column.group in ("", *held) or column.name in ALWAYS
                ],
                "more": list(dict.fromkeys(key for row in table.rows for key in value_of(table, column, row).more)),
            }
            for column in shown
        ],
        "rows": [
            {
                "key": keys[row],
                "name": names[row],
                "mark": (row.mark + own_mark(row, own)).strip(),
                "method": row.method,
                "reads": row.reads,
                "kind": "ranked" if row.ranked else "reference" if row.complete else "incomplete",
                "tied": row.ranked and bool(table.tied(row)),
                "provenance": PROVENANCE.get(row.provenance, row.provenance),
                "current": row.current,
                "few": few_seeds(row),
                "search": f"{names[row]} {row.title} {row.label}".lower(),
                "score": round(100 * row.weighted_f1, 6),
                "interval": [round(100 * each, 6) for each in table.evidence[row].interval]
                if row in table.evidence
                else None,
                "cells": [
                    {"m": {"code name": row.method}} if column.name == "Method" else _cell(value_of(table, column, row))
                    for column in shown
                ],
            }
            for row in table.rows
        ],
        "panels": [panel for panel in _panels(table) if panel["lines"]],
        "facts": list(facts(table)),
        "headline": headline(table),
    }


def page_columns(table: Table) -> list[Column]:
    """The columns of the page: those of every preset first, the number of seeds beside the score."""
    every = [replace(each, group=SCORE) if each.name == "Seeds" else each for each in columns(table, PAGE)]
    first = sorted((each for each in every if each.name in ALWAYS), key=lambda each: ALWAYS.index(each.name))
    return first + [column for column in every if column not in first]


def _cell(cell: Cell) -> Json:
    """A cell without what it does not have: text as shown and in full, value, small type, hint, bar, values for CSV."""
    full = unescape(cell.text)
    shown = cell.brief or full
    bar = cell.bar and [cell.bar.low, cell.bar.high, cell.bar.score, cell.bar.best, cell.bar.filled]
    value = round(cell.value, 4) if isinstance(cell.value, float) else cell.value
    more = {key: round(each, 4) if isinstance(each, float) else each for key, each in cell.more.items()}
    every = {"x": shown, "t": full if full != shown else None, "v": value, "s": cell.small, "h": cell.tip, "b": bar}
    found = {key: each for key, each in (every | {"m": more}).items() if each not in (None, "", {})}
    return {} if cell == UNKNOWN else found


def headline(table: Table) -> dict[str, str]:
    """The best method, how many are tied with it, the best single modality, and the gain of fusion over it."""
    best, single, found, names = table.best, best_single(table), gain(table), short_names(table)
    tied = sum(bool(table.tied(row)) for row in table.behind)
    return {
        "best": f"{names[best]}, {100 * best.weighted_f1:.2f}" if best else "–",
        "tied": f"{tied} of {len(table.behind)}" if table.behind else "–",
        "single": f"{names[single]}, {100 * single.weighted_f1:.2f}" if single else "–",
        "gain": effect(found[2], "+").replace("-", "−") if found else "–",
    }


def _panels(table: Table) -> Iterator[Json]:
    """What stands below the rows. The first ``names`` columns are the name of a row, of which one is filled."""

    def panel(title: str, about: str, lines: Sequence[Sequence[str]], notes: Sequence[str], names: int = 1) -> Json:
        return {"title": title, "about": about, "lines": lines, "notes": notes, "names": names}

    lines = [list(line[1:2] + line[:1] + line[2:]) for line in elsewhere.lines(table)]  # the name first
    notes = [elsewhere.PREFACE, *(elsewhere.notes(table) if lines else ())]
    yield panel(elsewhere.HEADING, "not ranked in this table", lines, notes)
    about = "what a method loses without a part of it"
    yield panel("Ablations", about, ablation_lines(table), [], 2)
    about = "whether a strategy helps that keeps one modality from dominating"
    yield panel("Balance", about, balance_lines(table), list(balance_notes(table)), 2)
    about = "what a method scores when it learns from less"
    yield panel("Training data", about, data_size_lines(table), list(data_size_notes(table)))
    about = "what the same number of trials is worth to each method"
    yield panel("Tuning", about, tuning_lines(table), list(tuning_notes(table)))
    about = "the trained models on the test utterances of another corpus"
    yield panel("Across corpora", about, transfer_lines(table), list(transfer_notes(table)))


def details_data(
    table: Table, recipes: Sequence[Recipe], folder: Callable[[RunRecord], Path], pairs: Sequence[list[float] | None]
) -> Json:
    """What rows show when they are opened, by their keys, and the paired differences of each two of them."""
    keys = row_keys(table)
    return {
        "support": list(table.support.values()),
        "rows": {keys[row]: _details(table, row, recipes, folder) for row in table.rows},
        "pairs": pairs,
    }


def _details(
    table: Table, row: ResultRow, recipes: Sequence[Recipe], folder: Callable[[RunRecord], Path]
) -> dict[str, Any]:
    present = list(table.support)
    scores = [100 * score(row.pooled).mean(0) for score in (precision, recall, f1)]
    runs = sorted(row.records, key=lambda record: (record.spec.seed, record.spec.fold))
    return {
        "title": row.name,
        "made": list(provenance(row)),
        "beside": list(measured(row)),
        "commands": list(commands(row, recipes, folder)),
        "classes": [[round(float(score[index]), 1) for score in scores] for index in present],
        "confusion": row.pooled.sum(0)[np.ix_(present, present)].tolist(),
        "seeds": by_seed(row),
        "curve": curve(row),
        "runs": [
            [r.spec.seed, r.spec.fold, r.best_epoch + 1, round(r.seconds, 1), r.spec.sha256,
             r.path(folder(r)).as_posix()] for r in runs
        ],
    }  # fmt: skip


def by_seed(row: ResultRow) -> list[tuple[str, ...]]:
    """Every score of every complete seed; one line, over all runs, for a row without a complete seed."""
    seeds = map(str, row.complete_seeds or ["incomplete"])
    values = np.stack([100 * scores for scores in row.scores.values()], axis=1)
    return [(seed, *(f"{score:.2f}" for score in scores)) for seed, scores in zip(seeds, values, strict=True)]


def curve(row: ResultRow) -> list[float]:
    """Validation weighted F1 by epoch, mean over runs, as far as all have trained; empty where one has none."""
    found = [[entry.get("val/weighted_f1") for entry in record.curve] for record in row.records]
    known = [[100 * each for each in scores if each is not None] for scores in found]
    if not all(known) or [*map(len, known)] != [*map(len, found)]:
        return []
    length = min(map(len, known))
    return [round(float(each), 2) for each in np.mean([scores[:length] for scores in known], 0)]


def provenance(row: ResultRow) -> Iterator[tuple[str, str]]:
    """How the records of a row were made."""
    first, spec = row.records[0], row.spec
    yield "Method", f"{spec.method}, version {spec.version}, {first.provenance}, {first.context} context"
    yield "Options", ", ".join(f"{name} = {value}" for name, value in sorted(spec.options.items())) or "the defaults"
    yield "Training", training_text(spec.training)
    if spec.tuned:
        names = ", ".join(sorted(spec.tuned.default)).replace("_", " ")
        yield "Tuned", f"each fold has chosen its {names} from {spec.tuned.trials} trials on its validation rows"
    for modality in sorted(spec.features, key=modality_order):
        digest = spec.features_sha256.get(modality, "unknown")
        yield f"Features, {modality}", f"{spec.features[modality]}, sha256 {digest}"
    software = {", ".join(f"{name} {version}" for name, version in sorted(r.versions.items())) for r in row.records}
    if row.contributed:
        yield "Run by", "contributed: the records of an accepted submission, see benchmarks/contributed"
    yield "Software", "; ".join(sorted(software - {""})) or "not recorded"
    yield "Device", trained_on(row)
    memory = "" if row.memory is None else f", peak {row.memory:,.0f} MiB"
    yield "Cost", f"{sum(r.seconds for r in row.records):,.0f} s for {len(row.records)} trainings{memory}"


def measured(row: ResultRow) -> Iterator[tuple[str, str]]:
    """What was measured of a row beside its score."""
    if found := row.test_selection:
        inflation = f"{found.inflation:+.2f}".replace("-", "−")
        yield "Best test epoch", f"{spread(found.best)} instead of {spread(found.honest)}, inflated by {inflation}"
    for _, term, text in disturbances(row):
        yield f"Retained {term}", text
    if cost := row.cost:
        one = "dialogue" if row.records[0].context == "dialogue" else "utterance"
        yield (
            "Forward pass",
            f"{cost.latency:,.2f} ms for one {one}, {cost.throughput:,.0f} utterances per second in batches of 32, "
            f"without the {cost.extractors:,} parameters of the extractors; on {' and '.join(sorted(cost.devices))}",
        )


def method_data(name: str, facts: MethodFacts) -> Json:
    """What the page tells of a built-in method: idea, paper, code, and an entry for a bibliography."""
    return {"title": facts.title, "idea": facts.idea, "paper": facts.paper, "code": f"src/mer_bench/fusion/{name}.py",
            "bibtex": bibtex(name, facts)}  # fmt: skip


def bibtex(name: str, facts: MethodFacts) -> str:
    """An entry with what is known of a method's paper, for its reader to complete; empty for one without a paper.

    The authors and the year are as the method's idea cites them, in parentheses at its end.
    """
    if not facts.paper:
        return ""
    cited = re.search(r"\(([^()]*?)\s+((?:19|20)\d\d)\)$", facts.idea)
    fields = {"title": f"{{{facts.title}}}", "year": cited[2] if cited else "", "url": facts.paper}
    fields["note"] = f"{cited[1]} {cited[2]}; complete this entry from the paper" if cited else ""
    lines = "".join(f"  {key} = {{{value}}},\n" for key, value in fields.items() if value)
    return f"@misc{{{name},\n{lines}}}\n"


def published_data(found: Mapping[str, Sequence[Any]]) -> list[Json]:
    """Published numbers by corpus."""
    names = ("method", "metric", "value", "params", "protocol", "source", "trust", "note")
    return [
        {"corpus": corpus_title(corpus), "rows": [[str(asdict(item)[name]) for name in names] for item in items]}
        for corpus, items in found.items()
    ]
