"""One row of a table: the runs of one method with the same options and training, and what was measured of them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from mer_bench.calibration import probability_scores
from mer_bench.external import FOLDER, ContributedExternal, ExternalRecord, ExternalSpec, Statement
from mer_bench.methods import is_current
from mer_bench.metrics import SCORES
from mer_bench.modalities import modality_order, shapley_weights
from mer_bench.records import ContributedRecord, Protocol, RunRecord, RunSpec, Training, Transfer, pool_clusters
from mer_bench.report.formatting import escape, settings, spread
from mer_bench.report.groups import GroupScores, group_scores
from mer_bench.report.soft import Interval, SoftScores, probability_intervals, soft_scores
from mer_bench.report.statistics import LEAST_SEEDS, Counts, Floats

REFERENCES = ("majority", "unimodal", "linear")  #: in every table that holds their features, whatever its track
OUTDATED = " ‡"  #: mark of a row that another version of the method made
CONTRIBUTED = " §"  #: mark of a row with records of an accepted submission
EXTERNAL = " ▷"  #: mark of predictions that another toolkit made
MARKS = {"baseline": " °", "reconstruction": " †", "own": " ◇"}  #: provenance -> its mark in labels


Record = TypeVar("Record", RunRecord, ExternalRecord)


@dataclass(frozen=True)
class TestSelection:
    """Weighted F1 [seed] with the epoch chosen on validation, and with the epoch that is best on the test set."""

    honest: Floats
    best: Floats

    @property
    def inflation(self) -> float:
        """What choosing the epoch on the test set adds to the mean, in points."""
        return float(100 * (self.best.mean() - self.honest.mean()))


@dataclass(frozen=True)
class Retention:
    """Weighted F1 under disturbances without retraining; see :mod:`mer_bench.training.measures`."""

    undisturbed: Floats  #: weighted F1 [seed] without a disturbance
    shares: Mapping[tuple[str, str], float]  #: (kind, level) that every run has -> share of weighted F1 that remains


@dataclass(frozen=True)
class Cost:
    """Cost of a forward pass without the feature extractors; medians over the runs that were timed."""

    extractors: int  #: frozen parameters of the feature extractors
    latency: float  #: milliseconds for one utterance or dialogue
    throughput: float  #: utterances per second
    devices: frozenset[str]  #: each with its number of threads


@dataclass(frozen=True)
class ProbabilityScores:
    """Scores of the probabilities [seed], utterances pooled over folds; the smaller the better."""

    log_loss: Floats  #: negative log-likelihood in nats
    brier: Floats  #: summed over classes
    calibration_error: Floats  #: expected calibration error, a share


@dataclass(frozen=True)
class Temperature:
    """Scores of the probabilities after a temperature that was fitted on validation."""

    temperature: float  #: mean over runs
    scores: ProbabilityScores


@dataclass(frozen=True, eq=False)
class OtherCorpus:
    """The same trainings on their own test utterances and on those of another corpus."""

    here: Counts  #: [seed, cluster, class, class]
    there: Counts  #: likewise, summed over the folds of a seed, whose models are tested on the same utterances
    folds: int
    protocol: str  #: of the other corpus, whose test utterances of all folds these are
    facts: Protocol

    def scores(self, name: str, counts: Counts) -> Floats:
        """A score [seed] of :attr:`here` or :attr:`there`."""
        return SCORES[name](counts.sum(1))


@dataclass(frozen=True, eq=False)
class Row(Generic[Record]):
    """Predictions of one system for the same test utterances, by seed and fold, and what they score."""

    records: tuple[Record, ...]
    folds: int  #: how many folds make a seed complete

    @cached_property
    def seeds(self) -> dict[int, list[Record]]:
        """Seed -> its records, one per fold, both ascending; of several records of a fold the last counts."""
        found: dict[int, dict[int, Record]] = defaultdict(dict)
        for record in self.records:
            found[record.spec.seed][record.spec.fold] = record
        return {seed: [folds[fold] for fold in sorted(folds)] for seed, folds in sorted(found.items())}

    @cached_property
    def complete_seeds(self) -> dict[int, list[Record]]:
        """The seeds that have all folds."""
        return {seed: found for seed, found in self.seeds.items() if len(found) == self.folds}

    @cached_property
    def complete(self) -> int:
        """Number of complete seeds."""
        return len(self.complete_seeds)

    @cached_property
    def pooled(self) -> Counts:
        """Confusion matrix of each complete seed [seed, class, class], summed over its folds.

        Where no seed is complete, one matrix [1, class, class], summed over all records.
        """
        groups = list(self.complete_seeds.values()) or [[each for found in self.seeds.values() for each in found]]
        return np.stack([np.sum([np.array(each.test_confusion, np.int64) for each in group], 0) for group in groups])

    @cached_property
    def counts(self) -> Counts | None:
        """Confusion matrices of the complete seeds by cluster of test utterances [seed, cluster, class, class].

        None where no seed is complete, or a record does not have its clusters.
        """
        found = [_pooled(folds) for folds in self.complete_seeds.values()]
        known = [each for each in found if each is not None]
        return np.stack(known) if known and len(known) == len(found) else None

    @cached_property
    def weighted_f1(self) -> float:
        """Weighted F1, mean over seeds."""
        return float(self.scores["weighted_f1"].mean())

    @cached_property
    def scores(self) -> dict[str, Floats]:
        """Every score [seed] of :attr:`pooled`, as a share."""
        return {name: score(self.pooled) for name, score in SCORES.items()}

    def score(self, name: str) -> str:
        """A score as tables print it; in asterisks where no seed is complete."""
        text = spread(self.scores[name])
        return text if self.complete else f"*{text}*"

    @cached_property
    def contributed(self) -> bool:
        """Whether a record of the row stands in an accepted submission; all others are of the maintainers."""
        return any(isinstance(record, ContributedRecord | ContributedExternal) for record in self.records)


@dataclass(frozen=True, eq=False)
class ResultRow(Row[RunRecord]):
    """The runs of one version of a method with the same modalities, options and training."""

    alone: bool  #: whether it reads one modality of a table that has several; fusion has to beat such rows
    title: str  #: the method as its paper calls it; see :func:`mer_bench.methods.titles` for others

    @cached_property
    def spec(self) -> RunSpec:
        """Spec of one of the runs: method, features, options and training are the same for all.

        Of tuned runs, whose settings each fold has chosen, it has the settings of the suite.
        """
        return with_settings_of_suite(self.records[-1].spec)

    @property
    def method(self) -> str:
        """Code name of the method."""
        return self.spec.method

    @property
    def provenance(self) -> str:
        """Where the method comes from, see :class:`mer_bench.records.RunRecord`."""
        return self.records[-1].provenance

    @property
    def current(self) -> bool:
        """Whether the runs were made by the version of the method that the code has today."""
        return is_current(self.method, self.spec.version)

    @property
    def mark(self) -> str:
        """Marks of the method's provenance, of another version than today's, and of contributed records."""
        return MARKS.get(self.provenance, "") + OUTDATED * (not self.current) + CONTRIBUTED * self.contributed

    @property
    def details(self) -> str:
        """Options and :attr:`mark`, as they follow the name in labels."""
        return options_text(self.spec) + self.mark

    @property
    def label(self) -> str:
        """Code name with :attr:`details`: what identifies the row on the command line and sorts equal scores."""
        return self.method + self.details

    @property
    def name(self) -> str:
        """Title with :attr:`details`, for readers."""
        return self.title + self.details

    @property
    def name_with_code(self) -> str:
        """:attr:`name` as Markdown, with the code name in backticks where that differs from the title."""
        code = "" if self.title == self.method else f" `{self.method}`"
        return escape(self.title) + code + escape(self.details)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that the row reads, in the usual order; the majority class reads none."""
        return modalities(self.spec)

    @property
    def reads(self) -> str:
        """Modalities as text."""
        return " + ".join(self.modalities) or "none"

    @property
    def ranked(self) -> bool:
        """Whether the row has a rank.

        It has a complete seed, was made by today's code with all training utterances, and is not one of those that
        fusion has to beat.
        """
        compared = not self.alone and self.method not in REFERENCES and self.spec.share == 1
        return self.complete > 0 and self.current and compared

    @property
    def parameters(self) -> int:
        """Trainable parameters; the most where folds have chosen different widths."""
        return self._largest.parameters

    @property
    def _largest(self) -> RunRecord:
        return max(self.records, key=lambda record: record.parameters)

    @property
    def fusion_parameters(self) -> int | None:
        """Trainable parameters outside the unimodal encoders; None where those were not counted."""
        encoders = self._largest.encoder_parameters
        return None if encoders is None else self.parameters - encoders

    @property
    def flops(self) -> float:
        """Floating-point operations for the forward pass of one utterance, median over the runs."""
        return float(np.median([record.flops_per_utterance for record in self.records]))

    @property
    def memory(self) -> float | None:
        """Peak memory of one training in MiB, median over the runs that measured it; None where none did."""
        known = [record.peak_memory_mib for record in self.records if record.peak_memory_mib is not None]
        return float(np.median(known)) if known else None

    @cached_property
    def validation_f1(self) -> float | None:
        """Weighted F1 on validation at the selected epoch, as :attr:`weighted_f1`; None where it is not known."""
        found = self._measured("validation_confusion")
        return (
            float(_weighted_f1([each.validation_confusion or [] for each in f] for f in found).mean())
            if found
            else None
        )

    @cached_property
    def probability_scores(self) -> ProbabilityScores | None:
        """Scores of the probabilities; None where no complete seed has all that they need. They never rank."""
        seeds = self._measured("calibration")
        found = [probability_scores([r.calibration for r in folds if r.calibration is not None]) for folds in seeds]
        return ProbabilityScores(*np.array(found).T) if found else None

    @cached_property
    def probability_intervals(self) -> Mapping[str, Interval]:
        """Their intervals by name, as far as they are known."""
        seeds = self._measured("calibration")
        known = [[(each, each.calibration) for each in folds if each.calibration is not None] for folds in seeds]
        found = self.probability_scores
        return probability_intervals(known, float(found.calibration_error.mean())) if found else {}

    @cached_property
    def temperature(self) -> Temperature | None:
        """What a temperature changes; None where it was not fitted. It never ranks."""
        kept = [[each.temperature for each in folds if each.temperature] for folds in self._measured("temperature")]
        found = [[each.calibration for each in folds if each.calibration] for folds in kept]
        fitted = [each.temperature for folds in kept for each in folds if each.temperature]
        if not fitted or [*map(len, found)] != [*map(len, kept)]:
            return None
        scores = ProbabilityScores(*np.array([probability_scores(folds) for folds in found]).T)
        return Temperature(float(np.mean(fitted)), scores)

    @cached_property
    def groups(self) -> Mapping[str, GroupScores]:
        """Scores of groups of test utterances by kind. They never rank."""
        return group_scores(list(self.complete_seeds.values()))

    @cached_property
    def soft_scores(self) -> SoftScores | None:
        """Scores against several raters; None where they were not measured. They never rank."""
        return soft_scores(self._measured("raters"))

    @cached_property
    def test_selection(self) -> TestSelection | None:
        """What choosing the epoch on the test set adds; None where it was not measured. It never ranks."""
        seeds = self._measured("literature")
        if not seeds:
            return None
        best = _weighted_f1([_best_test_epoch(record) for record in folds] for folds in seeds)
        return TestSelection(_of_test(seeds), best)

    @cached_property
    def retention(self) -> Retention | None:
        """Scores under disturbances; None where they were not measured, and for the majority class."""
        seeds = self._measured("robustness")
        if not seeds or not self.modalities:
            return None
        undisturbed = _of_test(seeds)
        disturbed = [[record.robustness or {} for record in folds] for folds in seeds]
        shares = {}
        for kind, level in [(kind, level) for kind, levels in disturbed[0][0].items() for level in levels]:
            if undisturbed.mean() and all(level in each.get(kind, {}) for folds in disturbed for each in folds):
                score = _weighted_f1([each[kind][level] for each in folds] for folds in disturbed)
                shares[kind, level] = float(score.mean() / undisturbed.mean())
        return Retention(undisturbed, shares)

    @cached_property
    def others(self) -> dict[str, OtherCorpus]:
        """The row on other corpora, by their names; of the complete seeds that were tested there with every fold.

        Where a corpus has been prepared anew in between, those count that were tested on what the last was tested on.
        """
        found = {}
        for corpus in sorted({corpus for record in self.records for corpus in record.transfer or ()}):
            tests = {id(r): r.transfer[corpus] for r in self.records if r.transfer and corpus in r.transfer}
            last = list(tests.values())[-1]
            alike = {key for key, each in tests.items() if _tested_there(each) == _tested_there(last)}
            seeds = [folds for folds in self.complete_seeds.values() if all(id(record) in alike for record in folds)]
            here = [_pooled(folds) for folds in seeds]
            there = [np.sum([np.array(tests[id(r)].by_cluster, np.int64) for r in folds], 0) for folds in seeds]
            known = [each for each in here if each is not None]
            if known and len(known) == len(here):
                found[corpus] = OtherCorpus(np.stack(known), np.stack(there), self.folds, last.protocol, last.facts)
        return found

    @cached_property
    def cost(self) -> Cost | None:
        """Cost of a forward pass; None where it was not timed."""
        timed = [record.efficiency for record in self.records if record.efficiency is not None]
        if not timed:
            return None
        features = self.records[0].features.values() if self.modalities else ()
        return Cost(
            extractors=sum(facts.parameters for facts in features),
            latency=float(np.median([1000 * each.latency_seconds for each in timed])),
            throughput=float(np.median([each.throughput_utterances / each.throughput_seconds for each in timed])),
            devices=frozenset(f"{each.device} ({each.threads} thread{'s' * (each.threads > 1)})" for each in timed),
        )

    @cached_property
    def subset_scores(self) -> dict[tuple[str, ...], float] | None:
        """Weighted F1 with each subset of the modalities alone, mean over seeds; None where it was not measured.

        Without any modality it is that of the class that is most frequent in the test set.
        """
        seeds, names = self._measured("robustness"), self.modalities
        if not seeds or len(names) < 2:
            return None
        support = self.pooled[0].sum(1)
        most = np.zeros_like(self.pooled[0])
        most[:, support.argmax()] = support
        found = {(): float(SCORES["weighted_f1"](most)), names: float(_of_test(seeds).mean())}
        for chosen in (each for each in shapley_weights(names) if 0 < len(each) < len(names)):
            level = "+".join(sorted(chosen))
            alone = [[(record.robustness or {}).get("only", {}).get(level) for record in folds] for folds in seeds]
            known = [[matrix for matrix in folds if matrix is not None] for folds in alone]
            if known != alone:
                return None
            found[chosen] = float(_weighted_f1(known).mean())
        return found

    @cached_property
    def shapley(self) -> dict[str, float] | None:
        """Share of each modality in what all of them add to the score without any; None where nothing is added."""
        value = self.subset_scores
        if value is None or value[self.modalities] <= value[()]:
            return None
        weights, gained = shapley_weights(self.modalities), value[self.modalities] - value[()]
        parts = np.sum([np.array(weight) * value[chosen] for chosen, weight in weights.items()], 0)
        return dict(zip(self.modalities, (parts / gained).tolist(), strict=True))

    @cached_property
    def gradient_ratios(self) -> dict[str, float] | None:
        """Mean norm of each encoder's gradient over epochs and runs, the largest of which is 1; None = not measured."""
        found = [record.gradients for record in self.records if record.gradients and record.curve]
        if not found:
            return None
        norms = {name: float(np.mean([np.mean(each[name]) for each in found])) for name in self.modalities}
        largest = max(norms.values())
        return {name: norm / largest for name, norm in norms.items()} if largest else None

    def _measured(self, measure: str) -> list[list[RunRecord]]:
        """The records of each complete seed that has the measure in every fold."""
        return [
            folds
            for folds in self.complete_seeds.values()
            if all(getattr(record, measure) is not None for record in folds)
        ]


@dataclass(frozen=True, eq=False)
class ExternalRow(Row[ExternalRecord]):
    """Predictions of one name that another toolkit made. They are never ranked among the rows of a table."""

    wanted: int  #: seeds that a place among predictions made elsewhere asks for: as many as the table's rows have

    @property
    def statement(self) -> Statement:
        """What their author says of them."""
        return self.records[-1].statement

    @property
    def spec(self) -> ExternalSpec:
        """Spec of one of the records: name, corpus, labels and protocol are the same for all."""
        return self.records[-1].spec

    @property
    def method(self) -> str:
        """The name that their author gave them."""
        return self.spec.name

    @property
    def title(self) -> str:
        """Likewise."""
        return self.method

    @property
    def provenance(self) -> str:
        """Where they come from."""
        return FOLDER

    @property
    def parameters(self) -> int | None:
        """Trainable parameters as stated."""
        return self.statement.parameters

    @property
    def name(self) -> str:
        """Name with the marks."""
        return self.method + EXTERNAL + CONTRIBUTED * self.contributed

    @property
    def name_with_code(self) -> str:
        """:attr:`name` as Markdown."""
        return escape(self.name)

    @property
    def modalities(self) -> tuple[str, ...]:
        """None that this project knows of."""
        return ()

    @property
    def reads(self) -> str:
        """Features as their author states them."""
        return self.statement.features or "features not stated"

    @property
    def lacks(self) -> list[str]:
        """What a place among predictions made elsewhere asks for and these do not have; empty = they have a place.

        All folds of the protocol for at least as many seeds as the rows of the table have, and the statement that every
        choice was made on validation.
        """
        found = [f"{self.complete} of {self.wanted} seeds with all folds"] if self.complete < self.wanted else []
        return found + ["no statement of selection on validation"] * (self.statement.selected_on is None)


def few_seeds(*rows: Row[Any]) -> str:
    """The complete seeds of the row with fewest, in words, where they are too few for a test; else empty."""
    return few(min(row.complete for row in rows))


def few(seeds: int) -> str:
    """A number of seeds in words where they are too few for a test; else empty."""
    return "" if seeds >= LEAST_SEEDS else ("no complete seed", "one seed", "two seeds")[seeds]


def options_text(spec: RunSpec) -> str:
    """Options as they follow a method's name: ``" (dropout=0.5, hidden=128)"``."""
    pairs = ", ".join(option_texts(spec))
    return f" ({pairs})" if pairs else ""


def option_texts(spec: RunSpec) -> list[str]:
    """Each option as in :func:`options_text`: ``dropout=0.5``.

    The last ones are a strategy that balances modalities, the share of the training utterances where it is not all, and
    tuning.
    """
    options = [*sorted(spec.options.items()), *({"balance": spec.training.balance}.items() if balanced(spec) else ())]
    options += [("share", spec.share)] * (spec.share < 1)
    tuned = [f"tuned in {spec.tuned.trials} trials"] if spec.tuned else []
    return [f"{name}={json.dumps(value)}" for name, value in options] + tuned


def with_settings_of_suite(spec: RunSpec) -> RunSpec:
    """What all folds of a tuned row have in common; a spec that was not tuned as it is."""
    return spec if spec.tuned is None else replace(spec.untuned, tuned=spec.tuned)


def balanced(spec: RunSpec) -> bool:
    """Whether a strategy of :mod:`mer_bench.training.balance` took part in the training."""
    return spec.training.balance != "none"


def training_text(training: Training) -> str:
    """The training options; without that of strategies, which most tables never had, where there is none."""
    return settings({name: value for name, value in asdict(training).items() if (name, value) != ("balance", "none")})


def modalities(spec: RunSpec) -> tuple[str, ...]:
    """Modalities that a run reads, in the usual order; the majority class reads none."""
    return () if spec.method == "majority" else tuple(sorted(spec.features, key=modality_order))


def _pooled(folds: Sequence[RunRecord] | Sequence[ExternalRecord]) -> Counts | None:
    """Confusion matrices of the folds of a seed by cluster; None where a record does not have its clusters."""
    known = {record.spec.fold: record.clusters for record in folds if record.clusters is not None}
    return pool_clusters(known, folds[-1].protocol) if len(known) == len(folds) else None


def _tested_there(found: Transfer) -> tuple[object, ...]:
    """What a transfer tested: features, and utterances of each class in each cluster."""
    return sorted(found.features_sha256.items()), np.array(found.by_cluster, np.int64).sum(-1).tolist()


def _weighted_f1(seeds: Iterable[Sequence[npt.ArrayLike]]) -> Floats:
    """Weighted F1 [seed] of the confusion matrices of each fold, which are summed first."""
    return SCORES["weighted_f1"](np.stack([np.sum([np.asarray(each) for each in folds], 0) for folds in seeds]))


def _of_test(seeds: Iterable[Sequence[RunRecord]]) -> Floats:
    return _weighted_f1([record.test_confusion for record in folds] for folds in seeds)


def _best_test_epoch(record: RunRecord) -> npt.NDArray[np.int64]:
    epochs = np.array(record.literature, np.int64)
    return epochs[np.argmax(SCORES["weighted_f1"](epochs))]
