"""A row of a table: the runs of one method, and what is measured of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mer_bench.metrics import SCORES
from mer_bench.records import RunRecord, Training
from mer_bench.report.formatting import spread
from mer_bench.report.statistics import Floats

REFERENCES = ("majority", "unimodal", "linear")  #: in every table that their features fit, whatever its track


ORDER = ("text", "audio", "vision")  #: of modalities in a label


MARKS = {"baseline": " °", "reconstruction": " †"}


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
    """What is left of the weighted F1 under disturbances, without retraining; :mod:`mer_bench.training.measures`."""

    whole: Floats  #: of each seed, undisturbed
    shares: Mapping[tuple[str, str], float]  #: (kind, level) -> share that is kept, of what all of its runs have


@dataclass(frozen=True)
class Cost:
    """What a forward pass without extractors takes; medians over the runs that were timed."""

    extractors: int  #: their frozen parameters
    latency: float  #: milliseconds, of one utterance or dialogue
    throughput: float  #: utterances a second
    devices: frozenset[str]  #: with their threads


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


def in_order(modalities: Iterable[str]) -> list[str]:
    """Modalities as labels name them."""
    return sorted(modalities, key=_place)


def _place(modality: str) -> tuple[int, str]:
    return ORDER.index(modality) if modality in ORDER else len(ORDER), modality
