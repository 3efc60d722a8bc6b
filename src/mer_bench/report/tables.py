"""Records -> tables of comparable rows, and what is known of each row. Needs numpy, never torch.

Records fall into tables (:func:`tables`), a table's records into rows, a row's records into one confusion matrix a
seed; scores are derived from those. What the statistics and the measures beside the score say of a row, a table knows:
each number is computed once, whoever writes it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mer_bench.metrics import SCORES
from mer_bench.records import RunRecord, RunSpec
from mer_bench.report import ablation
from mer_bench.report.protocols import PROTOCOLS, Protocol
from mer_bench.report.rows import MARKS, REFERENCES, Cost, Habit, Kept, Row, _cost, _habit, _kept, _place, in_order
from mer_bench.report.statistics import Difference, Evidence, difference, holm, resample, significant

FeatureMap = frozenset[tuple[str, str, str]]  #: (modality, feature set, sha256)


@dataclass(frozen=True)
class Table:
    """Rows that may be compared: same corpus, labels, protocol and feature sets, and one track."""

    features: FeatureMap
    track: str
    folds: int
    rows: Sequence[Row]
    records: Sequence[RunRecord]
    ablations: Mapping[Row, Row] = field(default_factory=dict)  #: method without a part -> the whole, among ``rows``

    @property
    def first(self) -> RunRecord:
        """Any record: corpus, labels, protocol and classes are the same for all."""
        return self.records[0]

    @property
    def sets(self) -> list[tuple[str, str, str]]:
        """Modality, name and hash of each feature set, in the usual order of modalities."""
        return sorted(self.features, key=lambda item: _place(item[0]))

    @property
    def counts_encoders(self) -> bool:
        """Whether any row knows how many of its parameters are its encoders'."""
        return any(row.encoder_parameters is not None for row in self.rows)

    @cached_property
    def evidence(self) -> dict[Row, Evidence]:
        """What is known of each row's weighted F1, best first."""
        known = [row for row in self.rows if row.counts is not None]
        return {row: resample(row.counts, stream=stream) for stream, row in enumerate(known) if row.counts is not None}

    @cached_property
    def ablated(self) -> dict[Row, Evidence]:
        """What is known of each ablation's weighted F1."""
        streams = enumerate(self.ablations, len(self.rows))
        return {row: resample(row.counts, stream=stream) for stream, row in streams if row.counts is not None}

    @cached_property
    def change(self) -> dict[Row, tuple[Difference, float]]:
        """What each ablation gains on the whole method, with the p-value corrected for the method's ablations."""
        changes: dict[Row, dict[Row, Difference]] = defaultdict(dict)
        for row, whole in self.ablations.items():
            if whole in self.evidence and row in self.ablated:
                changes[whole][row] = difference(self.ablated[row], self.evidence[whole])
        corrected = {}
        for found in changes.values():
            p_values = holm([one.p for one in found.values()])
            corrected.update({row: (one, p) for (row, one), p in zip(found.items(), p_values, strict=True)})
        return corrected

    @cached_property
    def behind(self) -> dict[Row, tuple[Difference, float]]:
        """How far each competing row is behind the best one, with the p-value corrected for the number of rows."""
        ranked = [row for row in self.evidence if row.ranked]
        others = ranked[1:]
        found = [difference(self.evidence[ranked[0]], self.evidence[row]) for row in others]
        return dict(zip(others, zip(found, holm([one.p for one in found]), strict=True), strict=True))

    def tied(self, row: Row) -> bool:
        """Whether a competing row is not shown to be behind the best one; the best one is not behind itself."""
        return row not in self.behind or not significant(self.behind[row][1])

    @property
    def best(self) -> Row | None:
        """The row of rank 1."""
        return next((row for row in self.rows if row.ranked), None)

    @property
    def single(self) -> Row | None:
        """The best single modality that has a complete seed."""
        return next((row for row in self.rows if row.complete and len(row.modalities) == 1), None)

    @property
    def gain(self) -> tuple[Row, Row, Difference] | None:
        """The best fusion, the best single modality, and what the one gains over the other."""
        fused = next((row for row in self.evidence if row.ranked and len(row.modalities) > 1), None)
        single = next((row for row in self.evidence if len(row.modalities) == 1), None)
        return (fused, single, difference(self.evidence[fused], self.evidence[single])) if fused and single else None

    @property
    def clusters(self) -> str:
        """What its test utterances are resampled by."""
        protocol = PROTOCOLS.get(self.first.spec.protocol)
        return protocol.clusters if protocol else Protocol.clusters

    @cached_property
    def support(self) -> npt.NDArray[np.int64]:
        """Test utterances of each class, over all folds."""
        folds = {record.spec.fold: np.array(record.test_confusion, np.int64).sum(1) for record in self.records}
        return np.sum(list(folds.values()), 0)

    @property
    def present(self) -> list[int]:
        """The classes that any test utterance has."""
        return [index for index, count in enumerate(self.support) if count]

    @cached_property
    def ranks(self) -> dict[Row, int]:
        """Of the rows that compete, 1 = best."""
        return {row: rank for rank, row in enumerate((row for row in self.rows if row.ranked), 1)}

    @property
    def title(self) -> str:
        """Heading of the table."""
        spec = self.first.spec
        return f"{spec.dataset}: {spec.label_set}, {spec.protocol}, {self.track} track"

    @property
    def attainable(self) -> Mapping[str, Mapping[str, float]]:
        """Modalities, joined by ``+`` -> Bayes rates of a simulated corpus in this track; empty for real corpora."""
        known = (record.attainable for record in self.records if record.attainable)
        return next(known, {}).get(self.track, {})

    def share(self, row: Row) -> float | None:
        """Share of what all the table's modalities allow that a row gains over always saying the largest class.

        Of the accuracy: without information none exceeds the largest class's, while guessing gains weighted F1. None
        where what is attainable, or what the largest class gives, is not known.
        """
        best = self.attainable.get("+".join(name for name, _, _ in self.sets))
        chance = next((other for other in self.rows if other.method == "majority" and other.complete), None)
        if best is None or chance is None or not row.complete:
            return None
        floor, score = (float(SCORES["accuracy"](each.pooled).mean()) for each in (chance, row))
        return (score - floor) / (best["accuracy"] - floor)

    def seeds(self, row: Row) -> str:
        """How many seeds stand behind a row, and what is missing."""
        wanted = max(other.complete + len(other.partial) for other in (*self.rows, *self.ablations))
        text = f"{row.complete}" if row.complete == wanted else f"{row.complete}/{wanted} seeds"
        if not row.partial:
            return text
        folds = ", ".join(f"{count}/{self.folds}" for count in row.partial)
        return f"{text} ({folds} folds of {'another' if len(row.partial) == 1 else 'others'})"

    def complete_seeds(self, row: Row) -> dict[int, list[RunRecord]]:
        """Seed -> its records, one a fold, of the seeds that have all folds; in the order of ``row.pooled``."""
        return {seed: list(found.values()) for seed, found in _by_seed(row.records).items() if len(found) == self.folds}

    @cached_property
    def literature(self) -> dict[Row, Habit]:
        """What the habit of the best test epoch is worth to each row for which it was measured; it never ranks."""
        return {row: _habit(seeds) for row in self.rows if (seeds := self._measured(row, "literature"))}

    @cached_property
    def robustness(self) -> dict[Row, Kept]:
        """What each row keeps under disturbances, where it was measured; the majority class has nothing to lose."""
        return {
            row: _kept(seeds) for row in self.rows if row.modalities and (seeds := self._measured(row, "robustness"))
        }

    @cached_property
    def efficiency(self) -> dict[Row, Cost]:
        """What each row costs, where it was timed."""
        return {row: cost for row in self.rows if (cost := _cost(row))}

    def _measured(self, row: Row, measure: str) -> list[list[RunRecord]]:
        """The records, one a fold, of each complete seed of a row that has the measure in every fold."""
        return [
            folds
            for folds in self.complete_seeds(row).values()
            if all(getattr(record, measure) is not None for record in folds)
        ]


def tables(records: Sequence[RunRecord]) -> list[Table]:
    """The tables that the records make, in a fixed order; superseded versions of a method are left out.

    Every feature map that is no part of a larger one of its track makes a table. A run on fewer modalities stands in
    the tables whose features hold its own, reference rows in those of both tracks; they make a table where none does.
    """
    groups: dict[tuple[bool, str, str, str, tuple[str, ...]], list[RunRecord]] = defaultdict(list)
    replaced = {id(record) for record in superseded(records)}
    # of runs that differ in devices or compilation only, the last counts: the one with the fewest, uncompiled
    for record in sorted(records, key=lambda r: (-r.spec.num_nodes, -r.spec.devices, -r.spec.compile, r.spec.sha256)):
        spec = record.spec
        if id(record) not in replaced:
            groups[record.simulated, spec.dataset, spec.label_set, spec.protocol, record.classes].append(record)
    return [table for _, group in sorted(groups.items()) for table in _tables_of(group)]


def superseded(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Records of a method that a record of a newer version of that method replaces."""
    newest = {spec.method: spec.version for spec in sorted((r.spec for r in records), key=lambda spec: spec.version)}
    return [record for record in records if record.spec.version < newest[record.spec.method]]


def _feature_map(spec: RunSpec) -> FeatureMap:
    return frozenset(
        (modality, name, spec.features_sha256.get(modality, "")) for modality, name in spec.features.items()
    )


def _tables_of(group: Sequence[RunRecord]) -> Iterator[Table]:
    """Tables of records that share corpus, labels and protocol."""
    maps: dict[str, set[FeatureMap]] = defaultdict(set)  # of each track
    reference: set[FeatureMap] = set()
    for record in group:
        known = reference if record.spec.method in REFERENCES else maps[record.context]
        known.add(_feature_map(record.spec))
    held = set().union(*maps.values())
    maps["utterance"] |= {part for part in reference if not any(part <= whole for whole in held)}
    chosen = [(whole, track) for track, found in maps.items() for whole in found if not any(whole < o for o in found)]
    for whole, track in sorted(chosen, key=lambda item: (sorted(item[0]), item[1] == "dialogue")):
        inside = [record for record in group if _feature_map(record.spec) <= whole]
        yield _table(whole, track, [r for r in inside if r.context == track or r.spec.method in REFERENCES])


def _table(features: FeatureMap, track: str, records: Sequence[RunRecord]) -> Table:
    first = records[0]
    protocol = None if first.simulated else PROTOCOLS.get(first.spec.protocol)
    folds = max(protocol.folds if protocol else 0, len({record.spec.fold for record in records}))
    runs: dict[tuple[object, ...], list[RunRecord]] = defaultdict(list)
    for record in records:
        spec = record.spec
        runs[spec.method, _modalities(spec), _options(spec), astuple(spec.training)].append(record)
    rows = sorted((_row(group, folds, len(features)) for group in runs.values()), key=lambda row: row.order)
    whole = {row: _whole(row, rows) for row in rows}
    ablations = {row: of for row, of in whole.items() if of}
    return Table(features, track, folds, [row for row in rows if row not in ablations], records, ablations)


def _whole(row: Row, rows: Sequence[Row]) -> Row | None:
    """The row of the whole method, all else equal, if ``row`` is an ablation of it."""
    part, options = ablation.split(row.method, row.options)
    key = (row.method, options, row.modalities, row.training)
    found = (r for r in rows if part and (r.method, r.options, r.modalities, r.training) == key)
    return next(found, None)


def _by_seed(records: Iterable[RunRecord]) -> dict[int, dict[int, RunRecord]]:
    """Seed -> fold -> its record, both ascending; of several the last counts."""
    seeds: dict[int, dict[int, RunRecord]] = defaultdict(dict)
    for record in records:
        seeds[record.spec.seed][record.spec.fold] = record
    return {seed: dict(sorted(folds.items())) for seed, folds in sorted(seeds.items())}


def _row(records: Sequence[RunRecord], folds: int, modalities: int) -> Row:
    seeds = [list(found.values()) for found in _by_seed(records).values()]
    matrices = [np.array([record.test_confusion for record in found], np.int64) for found in seeds]
    counted = [record for found in seeds if len(found) == folds for record in found]
    known = bool(counted) and all(record.test_by_cluster is not None for record in counted)
    clusters = np.concatenate([np.array(record.test_by_cluster, np.int64) for record in counted]) if known else None
    complete = [matrix.sum(0) for matrix in matrices if len(matrix) == folds]
    spec, provenance = records[-1].spec, records[-1].provenance
    return Row(
        method=spec.method,
        label=spec.method + _options(spec) + MARKS.get(provenance, ""),
        modalities=_modalities(spec),
        alone=len(spec.features) == 1 < modalities,
        training=spec.training,
        parameters=records[-1].parameters,
        encoder_parameters=records[-1].encoder_parameters,
        pooled=np.stack(complete or [np.concatenate(matrices).sum(0)]),
        complete=len(complete),
        partial=tuple(sorted((len(matrix) for matrix in matrices if len(matrix) < folds), reverse=True)),
        counts=None if clusters is None else clusters.reshape(len(complete), -1, *clusters.shape[1:]),
        records=tuple(records),
    )


def _modalities(spec: RunSpec) -> tuple[str, ...]:
    """What a run reads, in the usual order; the majority class reads nothing."""
    return () if spec.method == "majority" else tuple(in_order(spec.features))


def _options(spec: RunSpec) -> str:
    pairs = ", ".join(f"{name}={json.dumps(value)}" for name, value in sorted(spec.options.items()))
    return f" ({pairs})" if pairs else ""


# Methods over several tables
