"""Records -> tables of comparable rows, and what is known of each row. Needs numpy, never torch.

Records fall into tables (:func:`tables`), a table's records into rows, a row's records into one confusion matrix a
seed; scores are derived from those. What the statistics and the measures beside the score say of a row, a table knows:
each number is computed once, whoever writes it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mer_bench import ablation
from mer_bench.metrics import SCORES
from mer_bench.records import RunRecord, RunSpec, Training
from mer_bench.statistics import (
    Difference,
    Evidence,
    Floats,
    Friedman,
    difference,
    friedman,
    holm,
    resample,
    significant,
)
from mer_bench.typography import spread

REFERENCES = ("majority", "unimodal", "linear")  #: in every table that their features fit, whatever its track
ORDER = ("text", "audio", "vision")  #: of modalities in a label
MARKS = {"baseline": " °", "reconstruction": " †"}


@dataclass(frozen=True)
class Protocol:
    """Which utterances a protocol trains, selects and tests on."""

    folds: int  #: test folds of the real corpus
    text: str
    clusters: str = "dialogues"  #: what its test utterances are resampled by


PROTOCOLS = {
    "folds6": Protocol(
        6, "six speaker-independent folds of four actors; test on fold k, validation on fold k + 1 (cyclic), "
           "training on the other four.", "actors"),
    "fixed": Protocol(
        6, "six speaker-independent folds of four actors; test on fold k, training on the other five for a budget "
           "declared beforehand; the last epoch is scored, nothing is selected.", "actors"),
    "literature": Protocol(
        5, "five contiguous folds of four actors, as CFN-SR's code has them: actors 21-24 are never tested and there "
           "is no validation. Only to compare with papers; optimistic.", "actors"),
    "session5": Protocol(
        1, "training on sessions 1-4 less a fixed list of dialogues for validation; test on session 5."),
    "loso": Protocol(
        5, "leave one session out: each session is the test set once; validation is a fixed list of the training "
           "sessions' dialogues."),
    "official": Protocol(
        1, "the corpus's own train, validation and test split; speakers occur in several of them."),
    "independent": Protocol(
        1, "training, validation and test dialogues drawn independently from one model; no speaker occurs in two "
           "dialogues."),
}  # fmt: skip

FeatureMap = frozenset[tuple[str, str, str]]  #: (modality, feature set, sha256)


@dataclass(frozen=True, eq=False)
class Row:
    """A method as one table ranks it.

    Attributes:
        label: Method, with the options that are not its defaults and the mark of its provenance.
        modalities: What it reads.
        alone: Whether that is one modality of several that the table has: what fusion must beat.
        pooled: One confusion matrix for each complete seed [seed, class, class], summed over folds; where no seed is
            complete, a single one [1, class, class] of whatever exists.
        complete: Number of complete seeds.
        partial: Folds present of each incomplete seed.
        counts: The complete seeds' matrices by cluster of test utterances [seed, cluster, class, class]; None if a
            record does not have them, or no seed is complete.
        records: The runs behind it.
    """

    method: str
    label: str
    modalities: tuple[str, ...]
    alone: bool
    training: Training
    parameters: int
    encoder_parameters: int | None
    pooled: npt.NDArray[np.int64]
    complete: int
    partial: tuple[int, ...]
    counts: npt.NDArray[np.int64] | None = None
    records: tuple[RunRecord, ...] = ()

    @property
    def reads(self) -> str:
        """Its modalities in words."""
        return " + ".join(self.modalities) or "none"

    @property
    def options(self) -> Mapping[str, object]:
        """Of the method, as far as they differ from its defaults."""
        return self.records[0].spec.options

    @cached_property
    def order(self) -> tuple[bool, float, str, tuple[str, ...], str]:
        """Complete rows first, best first, then by name."""
        primary = float(SCORES["weighted_f1"](self.pooled).mean())
        return not self.complete, -primary, self.label, self.modalities, repr(self.training)

    @property
    def fusion_parameters(self) -> int | None:
        """What is left of the parameters without the unimodal encoders; None where those were not counted apart."""
        return None if self.encoder_parameters is None else self.parameters - self.encoder_parameters

    @property
    def flops(self) -> float:
        """Of an utterance's forward pass, median over its runs."""
        return float(np.median([record.flops_per_utterance for record in self.records]))

    @property
    def seconds(self) -> float:
        """Of a training, median over its runs."""
        return float(np.median([record.seconds for record in self.records]))

    @property
    def memory(self) -> float | None:
        """Peak of a training in MiB, median over its runs that know theirs; None where none does."""
        known = [record.peak_memory_mib for record in self.records if record.peak_memory_mib is not None]
        return float(np.median(known)) if known else None

    @property
    def ranked(self) -> bool:
        """Whether the row competes."""
        return self.complete > 0 and not self.alone and self.method not in REFERENCES

    def score(self, name: str) -> str:
        """A score as the tables print it."""
        text = spread(SCORES[name](self.pooled))
        return text if self.complete else f"*{text}*"


@dataclass(frozen=True, eq=False)
class Habit:
    """What choosing the epoch on the test set would have been worth; weighted F1 of each seed."""

    honest: Floats
    best: Floats  #: at the best test epoch

    @property
    def worth(self) -> float:
        """In points."""
        return float(100 * (self.best.mean() - self.honest.mean()))


@dataclass(frozen=True, eq=False)
class Kept:
    """What is left of the weighted F1 under disturbances, without retraining; see :mod:`mer_bench.measure`."""

    whole: Floats  #: of each seed, undisturbed
    shares: Mapping[tuple[str, str], float]  #: (kind, level) -> share that is kept, of what all of its runs have


@dataclass(frozen=True)
class Cost:
    """What a forward pass without extractors takes; medians over the runs that were timed."""

    extractors: int  #: their frozen parameters
    latency: float  #: milliseconds, of one utterance or dialogue
    throughput: float  #: utterances a second
    devices: frozenset[str]  #: with their threads


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


def _weighted_f1(seeds: Iterable[Sequence[npt.ArrayLike]]) -> Floats:
    """Of each seed, from one confusion matrix a fold; these are summed first."""
    return SCORES["weighted_f1"](np.stack([np.sum([np.asarray(each) for each in folds], 0) for folds in seeds]))


def _habit(seeds: Sequence[Sequence[RunRecord]]) -> Habit:
    return Habit(
        honest=_weighted_f1([record.test_confusion for record in folds] for folds in seeds),
        best=_weighted_f1([_best_test_epoch(record) for record in folds] for folds in seeds),
    )


def _best_test_epoch(record: RunRecord) -> npt.NDArray[np.int64]:
    """Confusion matrix of the epoch that is best on the test set."""
    epochs = np.array(record.literature, np.int64)
    return epochs[np.argmax(SCORES["weighted_f1"](epochs))]


def _kept(seeds: Sequence[Sequence[RunRecord]]) -> Kept:
    whole = _weighted_f1([record.test_confusion for record in folds] for folds in seeds)
    left = [[record.robustness or {} for record in folds] for folds in seeds]
    shares = {}
    for kind, level in [(kind, level) for kind, levels in left[0][0].items() for level in levels]:
        if whole.mean() and all(level in found.get(kind, {}) for folds in left for found in folds):
            score = _weighted_f1([found[kind][level] for found in folds] for folds in left)
            shares[kind, level] = float(score.mean() / whole.mean())
    return Kept(whole, shares)


def _cost(row: Row) -> Cost | None:
    timed = [record.efficiency for record in row.records if record.efficiency is not None]
    if not timed:
        return None
    features = row.records[0].features.values() if row.modalities else ()
    return Cost(
        extractors=sum(facts.get("parameters", 0) for facts in features),
        latency=float(np.median([1000 * each["latency_seconds"] for each in timed])),
        throughput=float(np.median([each["throughput_utterances"] / each["throughput_seconds"] for each in timed])),
        devices=frozenset(
            f"{each['device']} ({each['threads']} thread{'s' * (each['threads'] > 1)})" for each in timed
        ),
    )


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


def in_order(modalities: Iterable[str]) -> list[str]:
    """Modalities as labels name them."""
    return sorted(modalities, key=_place)


def _place(modality: str) -> tuple[int, str]:
    return ORDER.index(modality) if modality in ORDER else len(ORDER), modality


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


@dataclass(frozen=True)
class Across:
    """The methods that all tables of a track rank, over those tables; no ``test`` on fewer than three of either."""

    track: str
    simulated: bool
    tables: tuple[Table, ...]
    methods: tuple[str, ...]  #: best mean rank first where there is a test, else by name
    test: Friedman | None


def across(found: Sequence[Table]) -> list[Across]:
    """Each track over its tables that rank at least three methods; simulated corpora never beside real ones.

    A method is represented by the row that reads all of the table's modalities; of several, never chosen by their
    scores, the one with most seeds, then the first by label.
    """
    groups: dict[tuple[bool, str], list[tuple[Table, dict[str, Row]]]] = defaultdict(list)
    for table in found:
        rows = [row for row in table.rows if row.ranked and len(row.modalities) == len(table.features)]
        rows.sort(key=lambda row: (-row.complete, row.label, repr(row.training)))
        chosen = {row.method: row for row in reversed(rows)}
        if len(chosen) >= 3:
            groups[table.first.simulated, table.track].append((table, chosen))
    return [_across(track, simulated, group) for (simulated, track), group in sorted(groups.items(), reverse=True)]


def _across(track: str, simulated: bool, group: Sequence[tuple[Table, Mapping[str, Row]]]) -> Across:
    methods = sorted(set.intersection(*(set(rows) for _, rows in group)))
    tables = tuple(table for table, _ in group)
    if min(len(methods), len(tables)) < 3:
        return Across(track, simulated, tables, tuple(methods), None)
    scores = np.array([[SCORES["weighted_f1"](rows[name].pooled).mean() for name in methods] for _, rows in group])
    test = friedman(scores)
    ranks, names = zip(*sorted(zip(test.ranks, methods, strict=True)), strict=True)
    return Across(track, simulated, tables, names, replace(test, ranks=ranks))
