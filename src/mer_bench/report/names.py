"""What readers see instead of code names: tables in words, and the rows of a table by short names.

"IEMOCAP, six emotions, leave one session out" and "CFN-SR, scaled". Suites, records and the command line keep the code
names, which pages show beside these where one needs them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mer_bench.corpora import corpus_facts
from mer_bench.report import ablation
from mer_bench.report.formatting import escape
from mer_bench.report.rows import ResultRow, balanced
from mer_bench.report.tables import Table

#: method -> an option and its value as JSON -> what the row is called for it
VARIANTS: Mapping[str, Mapping[str, str]] = {
    "cfn_sr": {"scale=true": "scaled"},
    "tacfn": {"scale=true": "scaled", 'encoder="convolution"': "convolution"},
    "tmc": {"pseudo_view=true": "with a view of all modalities"},
}
BALANCE = {"ogm_ge": "OGM-GE", "agm": "AGM", "modality_dropout": "modality dropout", "mmpareto": "MMPareto"}
TRACKS = {"utterance": "single utterances", "dialogue": "dialogues"}
#: kind of a picture -> what it shows
PICTURES: Mapping[str, str] = {
    "ranking": "Weighted F1 of every row with its 95 % interval, and the 95 % interval of its rank",
    "classes": "F1 of every class",
    "confusion": "Predictions of the best row for the utterances of each class",
    "frontier": "Weighted F1 against the number of trainable parameters",
    "operations": "Weighted F1 against operations per utterance",
    "learning": "Validation weighted F1 of the best rows by epoch",
    "literature": "What choosing the epoch on the test set would add",
    "robustness": "What remains with missing modalities or added noise",
    "data-size": "Weighted F1 with less training data",
}


def corpus_title(corpus: str) -> str:
    """A corpus as its authors call it; of one that is not built in its name."""
    facts = corpus_facts().get(corpus)
    return facts.title if facts and facts.title else corpus


def splits_in_words(corpus: str, label_set: str, protocol: str) -> str:
    """Corpus, label set and protocol in words: ``IEMOCAP, six emotions, leave one session out``.

    Names without words stay as they are.
    """
    facts = corpus_facts().get(corpus)
    words = facts.words if facts else {}
    parts = (corpus_title(corpus), words.get(label_set, label_set), words.get(protocol, protocol))
    return ", ".join(part for part in parts if part)


def in_words(table: Table) -> str:
    """Heading of a table in words, with its track."""
    exposed = ", features that saw its labels" * table.saw_labels
    return f"{splits_in_words(*table.splits)}, {TRACKS[table.track]}{exposed}"


def feature_names(table: Table) -> str:
    """The feature sets of a table, in the usual order of modalities: ``minilm-tokens and gemaps``."""
    *others, last = (name for _, name, _ in table.sets)
    return f"{', '.join(others)} and {last}" if others else last


def slug(table: Table) -> str:
    """Name of a table in file names."""
    sets = sorted(name for _, name, _ in table.features)
    return "-".join([*table.splits, table.track, *sets])


def short_names(table: Table, rows: Sequence[ResultRow] | None = None) -> dict[ResultRow, str]:
    """A short name for each of ``rows``, by default those of the ranking, unique among them.

    It is the method's title. A row on part of the table's modalities says which it reads. Where several rows would have
    the same name, each adds the options that not all of them share, then the training options, then a number.
    """
    chosen = list(table.rows if rows is None else rows)
    names = {row: row.title + _part(table, row) for row in chosen}
    for told in (_variant, _training):
        count = Counter(names.values())
        same = {name: [row for row in chosen if names[row] == name] for name, number in count.items() if number > 1}
        names |= {row: name + told(row, rows_of) for name, rows_of in same.items() for row in rows_of}
    seen: Counter[str] = Counter()
    for row, name in names.items():
        seen[name] += 1
        if seen[name] > 1:
            names[row] = f"{name} ({seen[name]})"
    return names


def marked_names(table: Table) -> dict[ResultRow, str]:
    """What Markdown pages call the rows of a table, those beside its ranking included: short names with marks."""
    every = [*table.rows, *table.ablations, *table.strategies, *table.reduced]
    return {row: escape(name) + row.mark for row, name in short_names(table, every).items()}


def _part(table: Table, row: ResultRow) -> str:
    """Which modalities a row reads, if not all of the table."""
    if not row.modalities or len(row.modalities) == len(table.sets):
        return ""
    reads = " and ".join(row.modalities)
    return f", {reads}" if row.method == "unimodal" else f", {reads} only"


def _variant(row: ResultRow, rows: Sequence[ResultRow]) -> str:
    """The options of a row that not all of ``rows`` share, its strategy, its share of the data and its tuning."""
    shared = set.intersection(*(_options(other) for other in rows))
    told = VARIANTS.get(row.method, {})
    changed, whole = ablation.split(row.method, row.spec.options)
    parts = [changed] if changed else []
    parts += [told.get(each, each.replace("=", " = ")) for each in sorted(_texts(whole) - shared)]
    if balanced(row.spec):
        parts.append(BALANCE.get(row.spec.training.balance, row.spec.training.balance))
    if row.spec.share < 1:
        parts.append(f"{100 * row.spec.share:g} % of the data")
    if row.spec.tuned:
        parts.append("tuned")
    return "".join(f", {part}" for part in parts)


def _options(row: ResultRow) -> set[str]:
    return _texts(row.spec.options)


def _texts(options: Mapping[str, Any]) -> set[str]:
    return {f"{name}={json.dumps(value)}" for name, value in options.items()}


def _training(row: ResultRow, rows: Sequence[ResultRow]) -> str:
    """The training options of a row that not all of ``rows`` share."""
    every: list[dict[str, Any]] = [asdict(other.spec.training) for other in rows]
    mine = asdict(row.spec.training)
    differ = [name for name in mine if any(other[name] != mine[name] for other in every)]
    return "".join(f", {name.replace('_', ' ')} {mine[name]}" for name in differ)
