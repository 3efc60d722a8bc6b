"""The diagnostic corpora: what each method attains of each kind of information, and what its parts add.

docs/simulated.md shows both tables; :mod:`mer_bench.report.plots` draws the first. Needs numpy, but not torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mer_bench.report.formatting import between, in_percent, markdown, points, probability, with_interval
from mer_bench.report.rows import REFERENCES, ResultRow, few_seeds, option_texts
from mer_bench.report.statistics import Attained, difference, holm, resample
from mer_bench.report.tables import Table

PROTOCOL = "independent"  #: protocol of the diagnostic corpora and of no other corpus
PREFIX = "simulated-"
#: Order of the corpora; others of the protocol follow by name
CORPORA = (
    "redundant", "unique-text", "unique-audio", "unique-vision", "synergy", "mixed", "unreliable", "context",
    "irrelevant",
)  # fmt: skip
NOTHING = "There are no records yet: `mer-bench bench diagnostic` makes them.\n"


@dataclass(frozen=True)
class Line:
    """A method on the diagnostic corpora."""

    row: ResultRow  #: one of its rows, for its names
    track: str
    only: str  #: its modalities in brackets, if it does not read all of the corpora's
    shares: dict[str, Attained]  #: corpus -> share that it attains; see :func:`mer_bench.report.tables.Table.attained`

    @property
    def mean(self) -> float:
        """Mean share over the corpora on which the method was run, each of the same weight."""
        return float(np.mean([each.share for each in self.shares.values()]))


@dataclass(frozen=True)
class Variant:
    """The row of a method with these options and the fewest others, on ``modalities`` (by default all of the table)."""

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    modalities: tuple[str, ...] = ()

    def find(self, table: Table) -> ResultRow | None:
        """The row in a table; None if it has none with a complete seed and its counts by cluster."""
        wanted = self.modalities or tuple(sorted(name for name, _, _ in table.features))
        rows = [
            row
            for row in (*table.rows, *table.ablations)
            if row.method == self.method
            and row.counts is not None
            and sorted(row.modalities) == sorted(wanted)
            and self.options.items() <= row.spec.options.items()
        ]
        return min(rows, key=lambda row: len(option_texts(row.spec)), default=None)


@dataclass(frozen=True)
class Question:
    """What ``part`` adds: ``whole`` minus ``without``, on every corpus that has both rows."""

    part: str
    whole: Variant
    without: Variant


CFN_SR, TACFN, SYNC_TVA = Variant("cfn_sr"), Variant("tacfn"), Variant("sync_tva")
#: Sync-TVA without any other part that could carry context or join modalities before the classifier
BARE, TWO = {"enhancement": False, "fusion": "concat"}, ("audio", "vision")
ALONE = {"window_past": 0, "window_future": 0}  #: the only edges are self-loops
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
    """The methods on the diagnostic tables by track, best mean first.

    Of several rows of a method, those on most corpora are taken. Methods on one modality read utterances, so they are
    in that track alone.
    """
    lines: dict[tuple[str, str], Line] = {}
    for table in filter(concerns, found):
        for row in table.rows:
            share = table.attained.get(row)
            if share is not None and row.method != "majority":
                only = f" ({' + '.join(row.modalities)})" if len(row.modalities) < len(table.features) else ""
                track = "utterance" if row.method in REFERENCES else table.track
                line = lines.setdefault((track, row.label + only), Line(row, track, only, {}))
                line.shares.setdefault(_corpus(table), share)  # the best of several rows that differ in training alone
    most: dict[str, int] = {}
    for line in lines.values():
        most[line.row.method] = max(most.get(line.row.method, 0), len(line.shares))
    chosen = [line for line in lines.values() if len(line.shares) == most[line.row.method]]
    chosen.sort(key=lambda line: (-len(line.shares), -line.mean, line.row.label + line.only))
    return sorted(chosen, key=lambda line: line.track != "utterance")


def shares(found: Sequence[Table]) -> str:
    """What each method attains on each corpus in percent with its interval, as a Markdown table."""
    lines = collect(found)
    if not lines:
        return NOTHING
    corpora = corpora_of(lines)
    body = []
    for line in lines:
        cells = (with_interval(line.shares[name]) if name in line.shares else "–" for name in corpora)
        mean = in_percent(line.mean) if len(line.shares) == len(corpora) else "–"
        body.append((line.row.name_with_code + line.only, line.track, *cells, mean))
    return markdown([("Method", "Track", *corpora, "mean"), *body], "<<" + ">" * (len(corpora) + 1))


def answers(found: Sequence[Table]) -> str:
    """What each part of :data:`QUESTIONS` adds on each corpus, in points of weighted F1, as a Markdown table.

    Intervals are 95 % bootstrap intervals over dialogues and seeds; p-values are Holm-corrected over the corpora of a
    part on which both rows have enough seeds for a test.
    """
    body: list[tuple[str, ...]] = []
    for question in QUESTIONS:
        tested = []
        for table in sorted(filter(concerns, found), key=lambda table: _rank(_corpus(table))):
            whole, without = question.whole.find(table), question.without.find(table)
            if whole and without and whole.counts is not None and without.counts is not None:
                gain = difference(resample(whole.counts, stream=0), resample(without.counts, stream=1))
                tested.append((table, whole, without, gain))
        corrected = iter(holm([each.p for _, *rows, each in tested if not few_seeds(*rows)]))
        for table, whole, without, each in tested:
            p = few_seeds(whole, without) or probability(next(corrected))
            scores = (whole.score("weighted_f1"), without.score("weighted_f1"))
            numbers = (points(each.effect, "+"), between(each.low, each.high, "+"), p)
            parameters = f"{whole.parameters - without.parameters:+,}"
            body.append((question.part, _corpus(table), *scores, *numbers, parameters))
    head = ("Part", "Corpus", "With", "Without", "Adds", "95 % interval", "p", "Parameters")
    return markdown([head, *body], "<<>>>>>>") if body else NOTHING


def concerns(table: Table) -> bool:
    """Whether a table is of a diagnostic corpus."""
    return table.first.simulated and table.first.spec.protocol == PROTOCOL


def _corpus(table: Table) -> str:
    return table.first.spec.dataset.removeprefix(PREFIX)


def _rank(corpus: str) -> tuple[int, str]:
    return CORPORA.index(corpus) if corpus in CORPORA else len(CORPORA), corpus


def corpora_of(lines: Sequence[Line]) -> list[str]:
    """The corpora of all lines, in their order."""
    return sorted({corpus for line in lines for corpus in line.shares}, key=_rank)
