"""What each method attains of each kind of information, and what its parts add, from diagnostic records.

Needs numpy, never torch. docs/simulated.md shows both tables; :mod:`mer_bench.report.plots` draws the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mer_bench.report.formatting import between, markdown, points, probability
from mer_bench.report.rows import REFERENCES, Row
from mer_bench.report.statistics import difference, holm, resample
from mer_bench.report.tables import Table

PROTOCOL = "independent"  #: the diagnostic corpora have it and no other corpus
PREFIX = "simulated-"
#: In this order; other corpora of the protocol follow by name.
CORPORA = (
    "redundant", "unique-text", "unique-audio", "unique-vision", "synergy", "mixed", "unreliable", "context",
    "irrelevant",
)  # fmt: skip
NOTHING = "Nothing is recorded yet: `make bench DATASET=diagnostic`.\n"


@dataclass(frozen=True)
class Line:
    """A method on the diagnostic corpora: corpus -> share of what its track allows there (see ``Table.share``)."""

    label: str
    method: str
    track: str
    shares: Mapping[str, float]

    @property
    def mean(self) -> float:
        """Over the corpora on which it was run."""
        return float(np.mean(list(self.shares.values())))


@dataclass(frozen=True)
class Variant:
    """A method's row with these options and the fewest others, on ``modalities`` (none given: the table's)."""

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    modalities: tuple[str, ...] = ()

    def find(self, table: Table) -> Row | None:
        """The row in a table, if it has one with a complete seed and its clusters."""
        wanted = self.modalities or tuple(sorted(name for name, _, _ in table.features))
        rows = [
            row
            for row in (*table.rows, *table.ablations)
            if row.method == self.method
            and row.counts is not None
            and sorted(row.modalities) == sorted(wanted)
            and self.options.items() <= row.options.items()
        ]
        return min(rows, key=lambda row: len(row.options), default=None)


@dataclass(frozen=True)
class Question:
    """What ``part`` adds: ``whole`` less ``without``, on every corpus that has both rows."""

    part: str
    whole: Variant
    without: Variant


CFN_SR, TACFN, SYNC_TVA = Variant("cfn_sr"), Variant("tacfn"), Variant("sync_tva")
#: Sync-TVA with nothing beside its graph that could carry context or join modalities before the classifier.
BARE, TWO = {"enhancement": False, "fusion": "concat"}, ("audio", "vision")
ALONE = {"window_past": 0, "window_future": 0}  #: self-loops are the only edges
QUESTIONS = (
    Question("CFN-SR, all of it, over concatenation", CFN_SR, Variant("early_concat")),
    Question("CFN-SR's cross-modal blocks", CFN_SR, Variant("cfn_sr", {"cross_modal": False})),
    Question("TACFN, all of it, over concatenation", TACFN, Variant("early_concat")),
    Question("TACFN's cross-modal blocks", TACFN, Variant("tacfn", {"directions": "none"})),
    Question("TACFN's self-attention, which selects", TACFN, Variant("tacfn", {"self_attention": False})),
    Question("TACFN's splice, which guides", TACFN, Variant("tacfn", {"splice": False})),
    Question("Sync-TVA's graphs", SYNC_TVA, Variant("sync_tva", {"graph": "none"})),
    Question("their edges across turns", SYNC_TVA, Variant("sync_tva", {"graph": "same_utterance"})),
    Question("their edges across modalities", SYNC_TVA, Variant("sync_tva", {"graph": "within"})),
    Question("the graph alone", Variant("sync_tva", BARE, TWO), Variant("sync_tva", {**BARE, "graph": "none"}, TWO)),
    Question("its edges across turns", Variant("sync_tva", BARE, TWO),
             Variant("sync_tva", {**BARE, "graph": "same_utterance"}, TWO)),
    Question("its edges across modalities", Variant("sync_tva", BARE, TWO),
             Variant("sync_tva", {**BARE, "graph": "within"}, TWO)),
    Question("its parameters", Variant("sync_tva", {**BARE, "graph": "within", **ALONE}, TWO),
             Variant("sync_tva", {**BARE, "graph": "none"}, TWO)),
)  # fmt: skip


def collect(found: Sequence[Table]) -> list[Line]:
    """The lines of the diagnostic tables: by track, best mean first; of rows of one method, those on most corpora.

    Methods on one modality read utterances, so they stand in that track alone.
    """
    shares: dict[tuple[str, str, str], dict[str, float]] = {}
    for table in _diagnostic(found):
        for row in table.rows:
            share = table.share(row)
            if share is not None and row.method != "majority":
                alone = f" ({' + '.join(row.modalities)})" if len(row.modalities) < len(table.features) else ""
                track = "utterance" if row.method in REFERENCES else table.track
                line = shares.setdefault((track, row.method, row.label + alone), {})
                line.setdefault(_corpus(table), share)  # of rows that differ in training alone, the best
    most: dict[str, int] = {}
    for (_, method, _), line in shares.items():
        most[method] = max(most.get(method, 0), len(line))
    lines = [
        Line(label, method, track, line) for (track, method, label), line in shares.items() if len(line) == most[method]
    ]
    return sorted(lines, key=lambda line: (line.track != "utterance", -len(line.shares), -line.mean, line.label))


def shares(found: Sequence[Table]) -> str:
    """What each method attains of each corpus, as a Markdown table."""
    lines = collect(found)
    if not lines:
        return NOTHING
    corpora = corpora_of(lines)
    body = [
        (line.label, line.track, *(f"{100 * line.shares[c]:z.0f}" if c in line.shares else "–" for c in corpora),
         f"{100 * line.mean:z.0f}" if len(line.shares) == len(corpora) else "–")
        for line in lines
    ]  # fmt: skip
    return markdown([("Method", "Track", *corpora, "mean"), *body], "<<" + ">" * (len(corpora) + 1))


def answers(found: Sequence[Table]) -> str:
    """What each part of :data:`QUESTIONS` adds on each corpus, in points of weighted F1, as a Markdown table.

    Intervals are 95 % bootstrap intervals over dialogues and seeds; p-values are Holm-corrected over the corpora of a
    part.
    """
    body = []
    for question in QUESTIONS:
        tested = []
        for table in sorted(_diagnostic(found), key=lambda table: _rank(_corpus(table))):
            whole, without = question.whole.find(table), question.without.find(table)
            if whole and without and whole.counts is not None and without.counts is not None:
                gain = difference(resample(whole.counts, stream=0), resample(without.counts, stream=1))
                tested.append((table, whole, without, gain))
        corrected = holm([each.p for *_, each in tested])
        body += [
            (question.part, _corpus(table), whole.score("weighted_f1"), without.score("weighted_f1"),
             points(each.effect, "+"), between(each.low, each.high, "+"), probability(p),
             f"{whole.parameters - without.parameters:+,}")
            for (table, whole, without, each), p in zip(tested, corrected, strict=True)
        ]  # fmt: skip
    head = ("Part", "Corpus", "With", "Without", "Adds", "95 % interval", "p", "Parameters")
    return markdown([head, *body], "<<>>>>>>") if body else NOTHING


def concerns(table: Table) -> bool:
    """Whether a table is of a diagnostic corpus."""
    return table.first.simulated and table.first.spec.protocol == PROTOCOL


def _diagnostic(found: Sequence[Table]) -> list[Table]:
    return [table for table in found if concerns(table)]


def _corpus(table: Table) -> str:
    return table.first.spec.dataset.removeprefix(PREFIX)


def _rank(corpus: str) -> tuple[int, str]:
    return CORPORA.index(corpus) if corpus in CORPORA else len(CORPORA), corpus


def corpora_of(lines: Sequence[Line]) -> list[str]:
    """The corpora that any line tells of, in their order."""
    return sorted({corpus for line in lines for corpus in line.shares}, key=_rank)
