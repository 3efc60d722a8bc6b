"""Which records make which table, and what the statistics say about its rows.

:func:`tables` groups records that may be compared into tables and, within a table, into rows
(:class:`mer_bench.report.rows.ResultRow`). A table computes each statistic once, for all pages that print it. Needs
numpy, but not torch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from mer_bench.corpora import corpus_facts
from mer_bench.exposure import UNSTATED, Exposure, exposure
from mer_bench.external import ExternalRecord, ExternalSpec, Statement
from mer_bench.methods import is_current, titles
from mer_bench.modalities import modality_order
from mer_bench.records import Protocol, RunRecord, RunSpec, Training
from mer_bench.report import ablation, statistics
from mer_bench.report.cache import hash_of
from mer_bench.report.rows import (
    REFERENCES,
    ExternalRow,
    ResultRow,
    balanced,
    few_seeds,
    modalities,
    options_text,
    with_settings_of_suite,
)
from mer_bench.report.statistics import (
    Attained,
    Difference,
    Evidence,
    Floats,
    difference,
    holm,
    rank_intervals,
    resample,
    significant,
)
from mer_bench.trials import TrialRecord

Splits = tuple[bool, str, str, str, tuple[str, ...]]  #: simulated, corpus, label set, protocol, classes
AnyRecord = TypeVar("AnyRecord", RunRecord, ExternalRecord, TrialRecord)
FeatureMap = frozenset[tuple[str, str, str]]  #: (modality, feature set, sha256)
FAR = 0.10  #: validation this much above test, in weighted F1, asks for an explanation


@dataclass(frozen=True)
class Table:
    """Rows that may be compared: same corpus, labels, protocol and feature sets, and one track."""

    features: FeatureMap
    track: str  #: "utterance", or "dialogue" for methods that read whole dialogues
    rows: Sequence[ResultRow]  #: complete ones first, best score first
    records: Sequence[RunRecord]
    ablations: Mapping[ResultRow, ResultRow] = field(default_factory=dict)  #: method without a part -> whole method
    strategies: Mapping[ResultRow, ResultRow] = field(default_factory=dict)  #: row with a ``balance`` -> without one
    waiting: int = 0  #: runs of other versions of a method than today's that today's has not made
    #: predictions that other toolkits made for the same test utterances, those with a place first, best first
    external: Sequence[ExternalRow] = ()
    #: row trained on a share of the training utterances -> the same trained on all, where there is one
    reduced: Mapping[ResultRow, ResultRow | None] = field(default_factory=dict)
    trials: Sequence[TrialRecord] = ()  #: those of tunings of its rows, which never count as runs
    settings: Sequence[str] = ()  #: sentences about how the settings of its rows were chosen

    @cached_property
    def cells(self) -> dict[object, Any]:
        """What :func:`mer_bench.report.columns.value_of` has computed."""
        return {}

    @cached_property
    def content(self) -> bytes:
        """Hash of all that the table shows."""
        rows = (*self.rows, *self.ablations, *self.strategies, *self.reduced)
        return hash_of(
            repr((self.track, self.sets, [(row.name, row.ranked) for row in rows])),
            *sorted(record.digest for record in self.records),
            *sorted(record.digest for row in self.reduced for record in row.records),
            *(repr(record) for row in self.external for record in row.records),
        )

    @property
    def first(self) -> RunRecord:
        """Any record: corpus, labels, protocol and classes are the same for all."""
        return self.records[0]

    @property
    def splits(self) -> tuple[str, str, str]:
        """Corpus, label set and protocol."""
        spec = self.first.spec
        return spec.dataset, spec.label_set, spec.protocol

    @property
    def title(self) -> str:
        """Heading of the table."""
        dataset, label_set, protocol = self.splits
        exposed = ", features that saw its labels" * self.saw_labels
        return f"{dataset}: {label_set}, {protocol}, {self.track} track{exposed}"

    @property
    def sets(self) -> list[tuple[str, str, str]]:
        """Modality, name and hash of each feature set, in the usual order of modalities."""
        return sorted(self.features, key=lambda item: modality_order(item[0]))

    @cached_property
    def exposures(self) -> dict[str, Exposure]:
        """What the extractor of each modality's features saw of the corpus."""
        found = _exposures(self.records)
        return {each[0]: found.get(each, UNSTATED) for each in self.sets}

    @property
    def saw_labels(self) -> bool:
        """Whether an extractor saw labels of the corpus. Such tables are compared with no others."""
        return any(each.kind == "labels" for each in self.exposures.values())

    @cached_property
    def far_above(self) -> dict[ResultRow, float]:
        """Rows whose validation is suspiciously far above test: how much, in weighted F1, the largest first.

        More than :data:`FAR`, and above the interval of the score on test.
        """
        known = {row: row.validation_f1 for row in self.evidence}
        gaps = {
            row: found - row.weighted_f1
            for row, found in known.items()
            if found is not None and found > max(row.weighted_f1 + FAR, self.evidence[row].interval[1])
        }
        return dict(sorted(gaps.items(), key=lambda item: (-item[1], item[0].label)))

    @cached_property
    def support(self) -> dict[int, int]:
        """Class -> its test utterances over all folds, for the classes that have any."""
        folds = {record.spec.fold: np.array(record.test_confusion, np.int64).sum(1) for record in self.records}
        return {index: int(count) for index, count in enumerate(np.sum(list(folds.values()), 0)) if count}

    @cached_property
    def ranks(self) -> dict[ResultRow, int]:
        """Ranks of the rows that have one, 1 = best, in their order."""
        return {row: rank for rank, row in enumerate((row for row in self.rows if row.ranked), 1)}

    @property
    def best(self) -> ResultRow | None:
        """The row of rank 1."""
        return next(iter(self.ranks), None)

    @cached_property
    def evidence(self) -> dict[ResultRow, Evidence]:
        """Bootstrap of each row's weighted F1, where the counts by cluster are known, best first."""
        known = [(row, row.counts) for row in self.rows if row.counts is not None]
        return {row: resample(counts, stream=stream) for stream, (row, counts) in enumerate(known)}

    @cached_property
    def tested(self) -> dict[ResultRow, Evidence]:
        """:attr:`evidence` of the ranked rows that have enough seeds for a test, best first."""
        return {row: each for row, each in self.evidence.items() if row.ranked and not few_seeds(row)}

    @cached_property
    def ablation_evidence(self) -> dict[ResultRow, Evidence]:
        """Bootstrap of each ablation's weighted F1, where the counts by cluster are known."""
        streams = enumerate(self.ablations, len(self.rows))
        return {row: resample(row.counts, stream=stream) for stream, row in streams if row.counts is not None}

    @cached_property
    def ablation_effects(self) -> dict[ResultRow, tuple[Difference, float]]:
        """Gain of each ablation over the whole method, with its p-value corrected for the method's ablations.

        Only where both have enough seeds, as for :attr:`behind`.
        """
        differences: dict[ResultRow, dict[ResultRow, Difference]] = defaultdict(dict)
        for row, whole in self.ablations.items():
            if whole in self.evidence and row in self.ablation_evidence and not few_seeds(row, whole):
                differences[whole][row] = difference(self.ablation_evidence[row], self.evidence[whole])
        corrected = {}
        for found in differences.values():
            p_values = holm([one.p for one in found.values()])
            corrected.update({row: (one, p) for (row, one), p in zip(found.items(), p_values, strict=True)})
        return corrected

    @cached_property
    def strategy_evidence(self) -> dict[ResultRow, Evidence]:
        """Bootstrap of the weighted F1 of each row with a strategy, where the counts by cluster are known."""
        streams = enumerate(self.strategies, len(self.rows) + len(self.ablations) + len(self.external))
        return {row: resample(row.counts, stream=stream) for stream, row in streams if row.counts is not None}

    @cached_property
    def strategy_effects(self) -> dict[ResultRow, tuple[Difference, float]]:
        """Gain of each row with a strategy over the same without, with its p-value corrected for all such rows.

        Only where both have enough seeds, as for :attr:`behind`.
        """
        known = {**self.evidence, **self.ablation_evidence}
        strategies = self.strategies.items()
        pairs = {row: without for row, without in strategies if without in known and not few_seeds(row, without)}
        found = {
            row: difference(each, known[pairs[row]]) for row, each in self.strategy_evidence.items() if row in pairs
        }
        return dict(zip(found, zip(found.values(), holm([one.p for one in found.values()]), strict=True), strict=True))

    @cached_property
    def reduced_evidence(self) -> dict[ResultRow, Evidence]:
        """Bootstrap of the weighted F1 of each row on a share of the data, where the counts by cluster are known."""
        streams = enumerate(
            self.reduced, len(self.rows) + len(self.ablations) + len(self.external) + len(self.strategies)
        )
        return {row: resample(row.counts, stream=stream) for stream, row in streams if row.counts is not None}

    @cached_property
    def tuned(self) -> dict[ResultRow, ResultRow | None]:
        """Each tuned row, and the row of the same suite with its own settings; None where there is none."""
        tuned = [row for row in self.rows if row.spec.tuned]
        return {row: find_like(row.spec.untuned, self.rows) for row in tuned}

    @cached_property
    def tuned_effects(self) -> dict[ResultRow, tuple[Difference, float]]:
        """Gain of each tuned row over the suite's own settings, with its p-value corrected for all such rows."""
        pairs = {row: default for row, default in self.tuned.items() if default}
        known = {row: default for row, default in pairs.items() if {row, default} <= self.evidence.keys()}
        found = {row: difference(self.evidence[row], self.evidence[default]) for row, default in known.items()}
        return dict(zip(found, zip(found.values(), holm([one.p for one in found.values()]), strict=True), strict=True))

    @cached_property
    def external_evidence(self) -> dict[ExternalRow, Evidence]:
        """Bootstrap of the weighted F1 of predictions made elsewhere."""
        streams = enumerate(self.external, len(self.rows) + len(self.ablations))
        return {row: resample(row.counts, stream=stream) for stream, row in streams if row.counts is not None}

    @cached_property
    def against_best(self) -> dict[ExternalRow, tuple[Difference, float]]:
        """Predictions made elsewhere minus the best ranked row, with the p-value corrected for their number.

        Only where both have enough seeds, as for :attr:`behind`.
        """
        best = None if self.best is None else self.tested.get(self.best)
        if best is None:
            return {}
        every = self.external_evidence.items()
        found = {row: difference(each, best) for row, each in every if not few_seeds(row)}
        return dict(zip(found, zip(found.values(), holm([one.p for one in found.values()]), strict=True), strict=True))

    @cached_property
    def behind(self) -> dict[ResultRow, tuple[Difference, float]]:
        """How far each tested row is behind the best one, with its p-value corrected for the number of rows.

        Empty where the best row itself is not :attr:`tested`.
        """
        if self.best is None or self.best not in self.tested:
            return {}
        others = [row for row in self.tested if row is not self.best]
        found = [difference(self.tested[self.best], self.tested[row]) for row in others]
        return dict(zip(others, zip(found, holm([one.p for one in found]), strict=True), strict=True))

    def tied(self, row: ResultRow) -> bool | None:
        """Whether a row is the best one or not shown to be behind it; None where neither is said.

        Nothing is said of a row that is not :attr:`tested`, nor of any if the best one is not.
        """
        if row is self.best:
            return True if row in self.tested else None
        return not significant(self.behind[row][1]) if row in self.behind else None

    @cached_property
    def rank_intervals(self) -> dict[ResultRow, tuple[int, int]]:
        """Lowest and highest rank of each tested row, where there are two; see :func:`rank_intervals`."""
        found = rank_intervals(list(self.tested.values()), len(self.ranks)) if len(self.tested) > 1 else []
        return dict(zip(self.tested, found, strict=False))

    @property
    def protocol(self) -> Protocol | None:
        """Facts about the protocol; None where no record has them."""
        return next((record.protocol for record in self.records if record.protocol), None)

    @property
    def attainable(self) -> Mapping[str, Mapping[str, float]]:
        """Modalities joined by ``+`` -> best possible scores of a simulated corpus; empty for real corpora."""
        known = (record.attainable for record in self.records if record.attainable)
        return next(known, {}).get(self.track, {})

    @cached_property
    def ideal(self) -> Floats | None:
        """Hits [cluster] of an ideal observer of all modalities in the track; None where a fold lacks them."""
        wanted = [name for name, _, _ in self.sets]
        folds = {
            record.spec.fold: record.ideal_by_cluster
            for record in self.records
            if record.context == self.track and sorted(record.spec.features) == sorted(wanted)
        }
        found = [folds[fold] for fold in sorted(folds)]
        known = [hits for hits in found if hits is not None]
        return np.concatenate(known) if known and len(known) == len(found) == self.rows[0].folds else None

    @cached_property
    def attained(self) -> dict[ResultRow, Attained]:
        """Share of what all modalities of a simulated corpus allow on these test utterances that each row gains.

        It is computed from accuracies: without information none exceeds that of the majority class, whereas guessing
        raises weighted F1. Empty where the hits of an ideal observer or of the majority class are not known.
        """
        counts = {row: row.counts for row in self.rows if row.counts is not None}
        floor = next((row for row in counts if row.method == "majority" and row.complete), None)
        if self.ideal is None or floor is None:
            return {}
        return dict(zip(counts, statistics.attained([*counts.values()], counts[floor], self.ideal), strict=False))


def best_single(table: Table) -> ResultRow | None:
    """The best row of today's code on a single modality that has a complete seed."""
    return next((row for row in table.rows if row.complete and row.current and len(row.modalities) == 1), None)


def gain(table: Table) -> tuple[ResultRow, ResultRow, Difference] | None:
    """The best fusion, the best single modality, and their difference; None where either has no bootstrap."""
    fused = next((row for row in table.evidence if row.ranked and len(row.modalities) > 1), None)
    single = next((row for row in table.evidence if row.current and len(row.modalities) == 1), None)
    return (fused, single, difference(table.evidence[fused], table.evidence[single])) if fused and single else None


def tables(records: Sequence[RunRecord], external: Sequence[ExternalRecord] = ()) -> list[Table]:
    """The tables that the records make, in a fixed order.

    A feature map makes a table unless a larger one of its track contains it. A run on fewer modalities is in every
    table whose features contain its own, unless one of them alone has features that saw labels of the corpus. Reference
    rows are in the tables of both tracks, and make one where no other table contains them. Predictions that other
    toolkits made are beside every table of their test utterances.
    """
    groups, elsewhere = by_splits(records), by_splits(external)
    names = titles(record.spec.method for record in records)
    found = ((group, elsewhere.get(splits, [])) for splits, group in sorted(groups.items(), key=lambda item: item[0]))
    return [table for group, beside in found for table in tables_of(group, names, beside)]


def by_splits(records: Iterable[AnyRecord]) -> dict[Splits, list[AnyRecord]]:
    """The records of each corpus, label set and protocol, which share their tables."""
    found: dict[Splits, list[AnyRecord]] = defaultdict(list)
    for each in records:
        found[splits_of(each)].append(each)
    return found


def splits_of(record: RunRecord | ExternalRecord | TrialRecord) -> Splits:
    """What the records of a table have in common."""
    spec = record.spec
    return record.simulated, spec.dataset, spec.label_set, spec.protocol, record.classes


def headlines(found: Iterable[tuple[str, str, str]]) -> set[tuple[str, str, str]]:
    """Of each corpus, label set and protocol those that comparisons over several tables read.

    Tables of one corpus test the same utterances, so that of a built-in corpus only the first count: the label set,
    then the protocol that comes first in its facts. Of other corpora all count.
    """
    chosen: dict[str, set[tuple[str, str, str]]] = defaultdict(set)
    for each in found:
        chosen[each[0]].add(each)
    return {
        each
        for dataset, all_of_it in chosen.items()
        for each in ({min(all_of_it, key=_order)} if dataset in corpus_facts() else all_of_it)
    }


def _order(splits: tuple[str, str, str]) -> tuple[int, int]:
    dataset, *names = splits
    known = corpus_facts()[dataset].label_sets, list(corpus_facts()[dataset].protocols)
    label_set, protocol = (
        there.index(name) if name in there else len(there) for there, name in zip(known, names, strict=True)
    )
    return label_set, protocol


def real_tables(found: Iterable[Table]) -> list[Table]:
    """The tables of real corpora whose features saw no labels of their corpus: claims and findings are about these."""
    return [table for table in found if not (table.first.simulated or table.saw_labels)]


def shown_beside(found: Iterable[Table]) -> Iterator[ExternalRecord]:
    """The external records that stand beside tables."""
    return (record for table in found for row in table.external for record in row.records)


def without_table(lost: Iterable[ExternalSpec]) -> list[str]:
    """One sentence for each name whose predictions are beside no table."""
    return [
        f"the predictions of {name} are beside no table: there are no records on {dataset} {label_set} {protocol} that "
        "test these utterances (mer-bench leaderboard --with-published has the published ones)"
        for name, dataset, label_set, protocol in dict.fromkeys(
            (spec.name, spec.dataset, spec.label_set, spec.protocol) for spec in lost
        )
    ]


def _external_rows(table: Table, records: Sequence[ExternalRecord]) -> list[ExternalRow]:
    """The rows of the external records that test what the table tests: those with a place first, best first."""
    if not records:
        return []
    tested = {(record.spec.fold, record.tested) for record in table.records}
    rows: dict[tuple[str, Statement], list[ExternalRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda one: (one.spec.fold, one.spec.seed)):
        if (record.spec.fold, record.tested) in tested:
            rows[record.spec.name, record.statement].append(record)
    wanted = max((row.complete for row in table.rows if row.ranked), default=1)
    made = [ExternalRow(tuple(found), table.rows[0].folds, wanted) for found in rows.values()]
    return sorted(made, key=lambda row: (bool(row.lacks), -row.weighted_f1, row.method, repr(row.statement)))


def _feature_map(spec: RunSpec) -> FeatureMap:
    return frozenset(
        (modality, name, spec.features_sha256.get(modality, "")) for modality, name in spec.features.items()
    )


def _exposures(records: Iterable[RunRecord]) -> dict[tuple[str, str, str], Exposure]:
    """What the extractor of each feature set saw of the corpus; of several statements the one that it saw labels."""
    found: dict[tuple[str, str, str], Exposure] = {}
    for record in records:
        for modality, facts in record.features.items():
            key = modality, facts.name, record.spec.features_sha256.get(modality, "")
            if key not in found or (facts.exposure and found[key].kind != "labels"):
                found[key] = exposure(facts.extractor, record.spec.dataset, facts.exposure)
    return found


def tables_of(
    records: Iterable[RunRecord], names: Mapping[str, str], external: Sequence[ExternalRecord] = ()
) -> Iterator[Table]:
    """Tables of records that share corpus, labels and protocol; ``names`` are the titles of their methods."""
    # of runs that differ in devices or compilation alone, the last counts: the one with the fewest devices, uncompiled
    group = sorted(records, key=lambda r: (-r.spec.num_nodes, -r.spec.devices, -r.spec.compile, r.spec.sha256))
    maps: dict[str, set[FeatureMap]] = defaultdict(set)  # track -> the feature maps of its runs
    reference: set[FeatureMap] = set()
    for record in group:
        known = reference if record.spec.method in REFERENCES else maps[record.context]
        known.add(_feature_map(record.spec))
    labelled = {each for each, found in _exposures(group).items() if found.kind == "labels"}

    def within(part: FeatureMap, whole: FeatureMap) -> bool:
        return part <= whole and part.isdisjoint(labelled) == whole.isdisjoint(labelled)

    held = set().union(*maps.values())
    maps["utterance"] |= {part for part in reference if not any(within(part, whole) for whole in held)}
    chosen = [
        (whole, track)
        for track, found in maps.items()
        for whole in found
        if not any(whole != other and within(whole, other) for other in found)
    ]
    for whole, track in sorted(chosen, key=lambda item: (sorted(item[0]), item[1] == "dialogue")):
        inside = [record for record in group if within(_feature_map(record.spec), whole)]
        table = _table(whole, track, [r for r in inside if r.context == track or r.spec.method in REFERENCES], names)
        yield replace(table, external=_external_rows(table, external))


def _table(features: FeatureMap, track: str, records: Sequence[RunRecord], names: Mapping[str, str]) -> Table:
    stated = (record.protocol.folds for record in records if record.protocol)
    folds = max((*stated, len({record.spec.fold for record in records})))
    versions: dict[tuple[object, ...], dict[int, list[RunRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        spec = with_settings_of_suite(record.spec)
        key = spec.method, modalities(spec), options_text(spec), spec.training, _tuning(spec)
        versions[key][spec.version].append(record)
    shown = [_shown(found) for found in versions.values()]
    made = [
        ResultRow(tuple(same), folds, len(same[-1].spec.features) == 1 < len(features), names[same[-1].spec.method])
        for same in shown
    ]
    by_name = sorted(made, key=lambda row: (row.label, row.modalities, repr(row.spec.training)))
    every = sorted(by_name, key=lambda row: (not row.complete, not row.current, -row.weighted_f1))
    rows = [row for row in every if row.spec.share == 1] or every  # where no run had all data, the others stand in
    less = [row for row in every if row not in rows]
    reduced = {row: _like(row, rows, row.spec.options, row.spec.training) for row in less}
    records = [record for record in records if record.spec.share == 1] or records
    plain = {row: _without_strategy(row, rows) for row in rows}
    strategies = {row: of for row, of in plain.items() if of}
    rows = [row for row in rows if row not in strategies]
    whole = {row: _whole(row, rows) for row in rows}
    ablations = {row: of for row, of in whole.items() if of}
    rest = [row for row in rows if row not in ablations]
    waiting = sum(map(_waiting, versions.values()))
    return Table(features, track, rest, records, ablations, strategies, waiting, reduced=reduced)


def _shown(versions: Mapping[int, list[RunRecord]]) -> list[RunRecord]:
    """Of the versions of a method's runs those of today's code, or the newest."""
    return max(versions.items(), key=lambda item: (is_current(item[1][0].spec.method, item[0]), item[0]))[1]


def _waiting(versions: Mapping[int, list[RunRecord]]) -> int:
    """Runs of other versions than today's that today's has not made."""
    runs: dict[bool, set[tuple[int, int]]] = {True: set(), False: set()}
    for version, records in versions.items():
        runs[is_current(records[0].spec.method, version)] |= {(each.spec.seed, each.spec.fold) for each in records}
    return len(runs[False] - runs[True])


def _without_strategy(row: ResultRow, rows: Sequence[ResultRow]) -> ResultRow | None:
    """The row with all else equal that was trained without a strategy, if ``row`` was trained with one."""
    if not balanced(row.spec):
        return None
    return _like(row, rows, row.spec.options, replace(row.spec.training, balance="none"))


def _whole(row: ResultRow, rows: Sequence[ResultRow]) -> ResultRow | None:
    """The row of the whole method, with all else equal, if ``row`` is an ablation of it."""
    part, options = ablation.split(row.method, row.spec.options)
    return _like(row, rows, options, row.spec.training) if part else None


def _like(
    row: ResultRow, rows: Sequence[ResultRow], options: Mapping[str, Any], training: Training
) -> ResultRow | None:
    """The one of ``rows`` with these options and this training, and with all else as in ``row``."""
    return find_like(replace(row.spec, options=options, training=training), rows)


def find_like(spec: RunSpec, rows: Iterable[ResultRow]) -> ResultRow | None:
    """The one of ``rows`` that has the method, version, modalities, options and training of a spec, tuned alike."""
    return next((row for row in rows if _kind(row.spec) == _kind(spec)), None)


def _kind(spec: RunSpec) -> tuple[object, ...]:
    return spec.method, spec.version, modalities(spec), spec.options, spec.training, _tuning(spec)


def _tuning(spec: RunSpec) -> tuple[object, ...]:
    """What tuned rows must have in common; empty for others."""
    return (spec.tuned.space, spec.tuned.trials) if spec.tuned else ()
