"""Runs as data: what a run is (RunSpec), what came of it (RunRecord), one JSON file each.

The path of a record is derived from its spec, so "has this run been done?" is "does the file exist?". A record that is
read is a record that was checked: its types and ranges by :mod:`mer_bench.schema`, what its parts say of each other by
:mod:`mer_bench.consistency`, and its text by a checksum.
"""

from __future__ import annotations

import gc
import hashlib
import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
import numpy.typing as npt

from mer_bench.calibration import Calibration, Scaled, statements
from mer_bench.compact import compact, expand
from mer_bench.errors import Misuse, unknown
from mer_bench.exposure import Exposure
from mer_bench.files import write_atomic
from mer_bench.groups import Groups
from mer_bench.groups import statements as group_statements
from mer_bench.methods import method_facts
from mer_bench.metrics import weighted_f1
from mer_bench.raters import RaterScores
from mer_bench.raters import statements as rater_statements
from mer_bench.schema import (
    AboveZero,
    Balance,
    ClassWeights,
    Count,
    Hash,
    Label,
    Machines,
    Name,
    NotNegative,
    Option,
    Positive,
    Real,
    Seed,
    Share,
    ShareAboveZero,
    ShareBelowOne,
    Text,
    canonical_json,
    check_name,
    decode,
    parse_canonical,
    parse_json,
    read_json,
    read_regular,
)

T = TypeVar("T")
Counts = npt.NDArray[np.int64]
Matrix = list[list[Count]]  #: confusion matrix: rows true, columns predicted


@dataclass(frozen=True)
class Training:
    """How a method is trained; equal for all methods of a table unless the suite file says otherwise."""

    epochs: Positive = 30  #: passes over the training utterances
    batch_size: Positive = 32  #: utterances, or dialogues for methods with dialogue context
    learning_rate: AboveZero = 1e-3  #: peak of AdamW's rate: linear warm-up, then a cosine to zero
    weight_decay: NotNegative = 1e-2  #: weight decay of AdamW
    warmup: Share = 0.1  #: share of the steps in which the rate rises
    gradient_clip: NotNegative = 1.0  #: largest gradient norm; 0 = no clipping
    label_smoothing: ShareBelowOne = 0.0  #: label smoothing of the cross-entropy
    patience: Count = 0  #: epochs without a better validation score before stopping; 0 = train to the end
    precision: Name = "32-true"  #: as Lightning names it, or "tf32"
    #: weights of the training loss: "none", or "balanced" or "sqrt" (:meth:`FusionModule.class_weights`)
    class_weights: ClassWeights = "none"
    balance: Balance = "none"  #: what keeps one modality from dominating, see :mod:`mer_bench.training.balance`


@dataclass(frozen=True)
class Tuned:
    """Which trial of a tuning has the settings of a run: trials are drawn from the space that a suite declares."""

    trial: Count  #: its number; trial 0 has the suite's own settings
    space: Name  #: identity of what is drawn from, and of the settings that a trial changes
    default: Mapping[Name, Option]  #: the suite's value of each setting that is drawn; None = that of the method
    trials: Positive | None = None  #: how many the fold chose from; None = the run is a trial, which has no test


@dataclass(frozen=True)
class RunSpec:
    """Everything that a run's numbers depend on; equal specs have equal paths."""

    dataset: Name
    label_set: Name
    protocol: Name
    fold: Positive
    features: Mapping[Name, Name]  #: modality -> feature set
    features_sha256: Mapping[Name, Hash]  #: modality -> identity of that set
    method: Name
    version: Count  #: of the method's code
    options: Mapping[Name, Option]  #: constructor options that differ from the defaults
    training: Training
    seed: Seed
    devices: Machines = 1
    strategy: Name = "auto"
    num_nodes: Machines = 1
    compile: bool = False  #: by torch.compile
    share: ShareAboveZero = 1.0  #: of the clusters of training utterances, see :mod:`mer_bench.datasets.shares`
    tuned: Tuned | None = None  #: None = the settings are those of a suite or of a command

    @cached_property
    def sha256(self) -> str:
        """Identity of the run."""
        facts, training = (
            {item.name: getattr(one, item.name) for item in fields(one)} for one in (self, self.training)
        )
        facts["training"] = training
        # runs were named before there was a choice
        if self.compile is False:
            del facts["compile"]
        if self.share == 1:
            del facts["share"]
        if self.tuned is None:
            del facts["tuned"]
        else:
            facts["tuned"] = asdict(self.tuned)
        for option in ("class_weights", "balance"):
            if training[option] == "none":
                del training[option]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @property
    def is_trial(self) -> bool:
        """Whether the run is a trial of a tuning, which never opens the test set."""
        return self.tuned is not None and self.tuned.trials is None

    @cached_property
    def untuned(self) -> RunSpec:
        """The same run with the settings of the suite.

        Raises:
            Misuse: :attr:`tuned` states a setting that no training has.
        """
        return self if self.tuned is None else change_settings(self, self.tuned.default, None)

    @property
    def name(self) -> str:
        """Readable and unique within its folder."""
        modalities = "+".join(sorted(self.features))
        return f"{self.label_set}-{self.protocol}-{modalities}-fold{self.fold}-seed{self.seed}-{self.sha256[:12]}"

    @cached_property
    def place(self) -> tuple[str, str, str]:
        """The two folders and the file of the record of this run below those of all."""
        folder = self.method.replace(":", ".")  # of module:Class, as Windows has no colon in names
        return self.dataset, folder, f"{self.name}.json"

    def path(self, results: Path) -> Path:
        """Where the record of this run stands."""
        return results.joinpath(*self.place)


TRAINING = frozenset(item.name for item in fields(Training))  #: names of the training options


def change_settings(spec: RunSpec, settings: Mapping[str, Any], tuned: Tuned | None) -> RunSpec:
    """The run with other settings: training options by their names, else options of the method, of which None = unset.

    Raises:
        Misuse: a training option is out of its range.
    """
    training = {name: value for name, value in settings.items() if name in TRAINING}
    options = {**spec.options, **{name: value for name, value in settings.items() if name not in TRAINING}}
    return replace(
        spec,
        training=decode({**asdict(spec.training), **training}, Training, f"settings of {spec.method}"),
        options={name: value for name, value in options.items() if value is not None or name not in settings},
        tuned=tuned,
    )


@dataclass(frozen=True)
class Protocol:
    """The utterances on which a protocol trains, selects and tests: facts of a corpus, which its records repeat."""

    folds: Positive  #: number of test folds
    text: Text  #: what is trained, validated and tested on, in one sentence
    clusters: Name = "dialogues"  #: clusters of test utterances that the bootstrap resamples
    #: so many successive folds test other utterances of the same clusters, such as the actors of RAVDESS
    folds_per_cluster: Positive = 1


@dataclass(frozen=True)
class FeatureFacts:
    """Where the features of one modality came from; see :class:`mer_bench.features.FeatureSpec`."""

    name: Name
    extractor: Text
    revision: Text
    layer: Text
    dim: Positive
    parameters: Count  #: frozen parameters of the extractor
    exposure: Exposure | None = (
        None  #: as the set states it, see :func:`mer_bench.exposure.exposure`; None = not stated
    )


@dataclass(frozen=True)
class Efficiency:
    """Median duration of a forward pass without the feature extractors."""

    device: Text
    threads: Positive
    latency_seconds: AboveZero  #: for one utterance or dialogue
    latency_utterances: Positive  #: utterances of that dialogue
    throughput_seconds: AboveZero  #: for a batch
    throughput_utterances: Positive  #: utterances of that batch


@dataclass(frozen=True)
class Code:
    """The code of a method when it ran; tells whether it was edited since without a new version."""

    source: Hash  #: of the file that defines the method
    options: Mapping[Name, Option]  #: all constructor options, defaults included
    commit: Text | None  #: of the repository; None = not in one
    dirty: bool  #: whether the package had changes that were not committed


@dataclass(frozen=True)
class Transfer:
    """The trained model on another corpus, on all utterances that a protocol of it tests, whatever their fold.

    They are standardised with the statistics of the corpus that the model was trained on.
    """

    protocol: Name
    facts: Protocol
    features_sha256: Mapping[Name, Hash]  #: modality -> identity of that corpus's set
    by_cluster: list[Matrix]  #: confusion matrix of each cluster of its utterances, in the order of its table


@dataclass(frozen=True)
class RunRecord:
    """What came of a run. Integers are stored and every score is derived, so a new metric needs no re-training."""

    spec: RunSpec
    classes: tuple[Label, ...]
    context: Literal["utterance", "dialogue"]
    #: "own": the method is not built in
    provenance: Literal["baseline", "reimplemented", "reconstruction", "own"]
    simulated: bool
    features: Mapping[Name, FeatureFacts]  #: by modality
    rows: Mapping[Literal["train", "validation", "test"], Count]  #: number of utterances
    validation_confusion: Matrix | None  #: at the selected epoch; None where the protocol has no validation
    test_confusion: Matrix
    test_index: list[Count]  #: table rows of the test utterances, ascending
    test_predictions: list[Count]  #: class of each, same order
    curve: list[dict[Text, Real]]  #: one entry per epoch: training loss, validation loss and weighted F1
    best_epoch: Count  #: the epoch that was scored, from 0
    parameters: Count  #: trainable parameters
    flops_per_utterance: Count  #: floating-point operations of the forward pass, as torch counts them
    seconds: NotNegative
    peak_memory_mib: NotNegative | None  #: peak in this run, see training/cost.py; None = not known
    device: Text
    #: ``test_confusion`` of each cluster of utterances that are not independent (a dialogue; an actor of RAVDESS), in
    #: table order; None = not counted
    test_by_cluster: list[Matrix] | None = None
    encoder_parameters: Count | None = None  #: those of ``parameters`` in unimodal encoders; None = not counted
    #: track -> modalities, "audio+text" -> Bayes-optimal accuracy and weighted F1; simulated corpora only
    attainable: Mapping[Text, Mapping[Text, Mapping[Text, Share]]] | None = None
    #: utterances of each cluster that an ideal observer of the same modalities and context is expected to have
    #: right, who guesses between equally likely classes; needs ``test_by_cluster``; simulated corpora only
    ideal_by_cluster: list[NotNegative] | None = None
    versions: Mapping[Text, Text] = field(default_factory=dict)
    protocol: Protocol | None = None  #: None = not recorded
    code: Code | None = None  #: None = not recorded
    calibration: Calibration | None = None  #: needs ``test_by_cluster``; None = not counted
    groups: Mapping[Name, Groups] | None = None  #: of test utterances, by kind ("speaker"); None = not kept
    probabilities: Hash | None = None  #: sha256 of the file of :mod:`mer_bench.probabilities`; None = not kept
    # Measured on demand, see mer_bench.training.measures; None = not measured. Rows are never ranked by these.
    #: ``test_confusion`` after each epoch: what choosing the epoch on the test set would have given
    literature: list[Matrix] | None = None
    #: kind of disturbance -> its level -> ``test_confusion`` of the same weights under it
    robustness: Mapping[Text, Mapping[Text, Matrix]] | None = None
    efficiency: Efficiency | None = None
    #: modality -> mean norm of its encoders' gradient in each epoch; empty where the method has no such encoders
    gradients: Mapping[Name, list[NotNegative]] | None = None
    temperature: Scaled | None = None
    raters: RaterScores | None = None
    transfer: Mapping[Name, Transfer] | None = None  #: by the name of the other corpus

    @cached_property
    def digest(self) -> bytes:
        """Hash of its file, or of its content where it was read from none."""
        return hashlib.sha256(canonical_json(asdict(self)).encode()).digest()

    @cached_property
    def clusters(self) -> Counts | None:
        """``test_by_cluster`` as an array [cluster, class, class]."""
        return None if self.test_by_cluster is None else stack(self.test_by_cluster, len(self.classes))

    @cached_property
    def index(self) -> Counts:
        """``test_index`` as an array."""
        return whole(self.test_index)

    @cached_property
    def tested(self) -> bytes:
        """Hash of what was tested: table rows of the test utterances, and utterances of each class in each cluster."""
        clusters = stack([self.test_confusion], len(self.classes)) if self.clusters is None else self.clusters
        return hash_tested(self.index, clusters)

    def path(self, results: Path) -> Path:
        """Where the record stands if the published ones stand below ``results``."""
        return self.spec.path(results)


@dataclass(frozen=True)
class ContributedRecord(RunRecord):
    """A record of an accepted submission. The place of its file makes it one; nothing in the file says so."""

    submission: str = ""  #: folder in ``benchmarks/contributed``

    def path(self, results: Path) -> Path:
        """Where the record stands if the published ones stand below ``results``."""
        return self.spec.path(results.parent / CONTRIBUTED / self.submission)


def contributed(record: RunRecord, submission: str) -> RunRecord:
    """The record as one of the accepted ``submission``; as it is if that is empty."""
    if not submission:
        return record
    known = {item.name: getattr(record, item.name) for item in fields(record)}
    return ContributedRecord(**known, submission=submission)


def hash_tested(index: Counts, clusters: Counts) -> bytes:
    """Hash of the table rows of test utterances, and of the number of each class in each cluster."""
    labels = clusters.sum(-1)
    parts = index.tobytes(), repr(labels.shape).encode(), labels.tobytes()
    return hashlib.sha256(b"".join(parts)).digest()


#: fields of a record that are measured on demand
MEASURES = ("literature", "robustness", "efficiency", "gradients", "temperature", "raters")
TRANSFER = "transfer:"  #: before the name of a corpus: the measure of the trained model on its test utterances
KEPT = ("probabilities",)  #: what is kept on demand in a file beside a record


def check_measures(names: Iterable[str], where: str = "") -> tuple[str, ...]:
    """The names without repetition; raises Misuse for one that is not a measure."""
    found = tuple(dict.fromkeys(names))
    _among((*MEASURES, f"{TRANSFER}CORPUS"), (name for name in found if not transfers([name])), f"measure{where}")
    return found


def transfers(measures: Iterable[str]) -> list[str]:
    """The other corpora that measures name, in their order."""
    found = (name.partition(TRANSFER) for name in measures if name.startswith(TRANSFER))
    return [check_name(corpus, "corpus of the measure transfer") for _, _, corpus in found]


def check_kept(names: Iterable[str], where: str = "") -> tuple[str, ...]:
    """The names without repetition; raises Misuse for what cannot be kept."""
    return _among(KEPT, names, f"file to keep{where}")


def _among(valid: Collection[str], names: Iterable[str], what: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(names))
    for name in found:
        if name not in valid:
            raise unknown(what, str(name), valid)
    return found


def measurable(spec: RunSpec, measures: Iterable[str]) -> set[str]:
    """Those of ``measures`` that a run can take: where a strategy shards the weights, no process has all of them.

    Its own corpus is no other corpus.
    """
    able = {name for name in measures if has_whole_weights(spec) or name in ("efficiency", "raters")}
    return able - {TRANSFER + spec.dataset}


def has_whole_weights(spec: RunSpec) -> bool:
    """Whether each process of a run has all weights: some strategies shard them."""
    return spec.strategy == "auto" or spec.strategy.startswith("ddp")


def skipped(specs: Iterable[RunSpec], measures: Iterable[str]) -> list[str]:
    """One sentence for each of ``measures`` that some of the runs cannot take."""
    sharded = [spec for spec in specs if not has_whole_weights(spec)]
    found = {(spec.strategy, name) for spec in sharded for name in {*measures} - measurable(spec, measures)}
    return [f"{name} is not measured under strategy {s!r}, which shards the weights" for s, name in sorted(found)]


def measured(record: RunRecord) -> set[str]:
    """The measures that a record has."""
    found = {name for name in MEASURES if getattr(record, name) is not None}
    return found | {TRANSFER + corpus for corpus in record.transfer or ()}


def write_record(record: RunRecord, results: Path) -> Path:
    """Write a record atomically to its path, which it returns; removes the note of an earlier failure.

    Raises:
        Misuse: it could not be read again: a value is out of its range, or its parts contradict each other.
    """
    path = record.spec.path(results)
    write_checked(path, record, check_record)
    failure_path(path).unlink(missing_ok=True)
    return path


def write_checked(
    path: Path,
    record: T,
    check: Callable[[T, Path], None],
    shorten: Callable[[dict[str, Any]], dict[str, Any]] = compact,
) -> None:
    """Write a dataclass as JSON with its checksum, after ``check`` had it as :func:`read_checked` will read it."""
    content = shorten(asdict(cast(Any, record)))
    where = f"the record {path.name}"
    check(_decode(json.loads(canonical_json(content)), type(record), where), path)
    write_atomic(path, canonical_json({**content, CHECKSUM: _checksum(content)}) + "\n")


def rewrite(results: Path) -> None:
    """Write the records below a folder again in the forms of today, which changes no score and no prediction."""
    for path in sorted(results.glob("*/*/*.json")):
        if not path.name.endswith(FAILED):
            write_record(read_record(path), results)


def write_failure(spec: RunSpec, results: Path, reason: str) -> Path:
    """Write that a run failed, and why, beside the path of its record; the next bench tries the run again."""
    path = failure_path(spec.path(results))
    write_atomic(path, json.dumps({"spec": asdict(spec), "reason": reason}, sort_keys=True, indent=1) + "\n")
    return path


def read_spec(path: Path) -> RunSpec:
    """Read a spec, or that of a whole record.

    Raises:
        Misuse: the file holds neither.
    """
    content = read_json(path, "the description of a run")
    return decode(content["spec"] if isinstance(content, dict) and "spec" in content else content, RunSpec, str(path))


def read_record(path: Path, text: bytes | None = None) -> RunRecord:
    """Read one record, or the ``text`` of its file, and check it.

    Raises:
        Misuse: the file is not a whole record, its content was changed, its parts contradict each other, or it is not
            the run that its path names.
    """
    try:
        text = read_regular(path, READABLE) if text is None else text
        record = check_bytes(text, path, RunRecord, check_record, needs_checksum=False)  # records had none once
    except Misuse as error:
        raise Misuse(f"{error}; delete the record and run the bench again") from error
    vars(record).update(digest=hashlib.sha256(text).digest())
    return record


def read_checked(path: Path, kind: type[T], check: Callable[[T, Path], None]) -> T:
    """Read what :func:`write_checked` wrote.

    Raises:
        Misuse: the file is no whole record of this kind, it was changed after it was written, or ``check`` raises.
    """
    return check_bytes(read_regular(path, READABLE), path, kind, check)


def check_bytes(
    text: bytes, path: Path, kind: type[T], check: Callable[[T, Path], None], *, needs_checksum: bool = True
) -> T:
    """What :func:`read_checked` returns and raises, of bytes that were read already."""
    text = text.removesuffix(b"\n")
    content = parse_canonical(text)
    canonical = content is not None
    if not canonical:
        content = parse_json(text, path, READABLE)
    stated = content.pop(CHECKSUM, None) if isinstance(content, dict) else None
    record = _decode(content, kind, str(path))
    check(record, path)
    if stated is None and not needs_checksum:
        return record
    member = f',"{CHECKSUM}":"{stated}"'.encode()
    if canonical and text.count(member) == 1:  # the rest of the file is the canonical text of its content
        found = hashlib.sha256(text.replace(member, b"")).hexdigest()
    else:
        found = _checksum(content)
    if stated != found:
        raise Misuse(f"{path} was changed after it was written: its sha256 is not that of its content")
    return record


def _decode(content: Any, kind: type[T], where: str) -> T:
    """The record that a file's content is; raises Misuse as :func:`expand` and :func:`decode` do."""
    rest, expanded = expand(content, where)
    record = decode(rest, kind, where)
    vars(record).update(expanded)
    return record


def _checksum(content: Any) -> str:
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def check_record(record: RunRecord, path: Path) -> None:
    """Raise Misuse unless the parts of a record agree with each other and with its path."""
    spec = record.spec
    if path.parts[-3:] != spec.place:
        raise Misuse(f"{path} holds another run than its path says ({'/'.join(spec.place)})")
    wrong = next((sentence for holds, sentence in _statements(record) if not holds), None)
    if wrong:
        raise Misuse(f"{path} contradicts itself: {wrong}")


def _statements(record: RunRecord) -> Iterator[tuple[bool, str]]:
    """What must hold within a record, each with the sentence that says that it does not; later ones rely on earlier."""
    spec, classes, rows = record.spec, len(record.classes), record.rows
    facts = method_facts().get(spec.method)
    yield len(set(record.classes)) == classes, "a class occurs twice"
    yield set(rows) == {"train", "validation", "test"}, "rows does not count train, validation and test"
    yield record.simulated == spec.dataset.startswith(SIMULATED), f"simulated does not fit the corpus {spec.dataset!r}"
    yield set(spec.features) == set(spec.features_sha256), "features and features_sha256 name different modalities"
    yield not spec.is_trial, "it is a trial of a tuning, which is never tested"
    yield from tuned_statements(spec)
    stated = {modality: facts_of.name for modality, facts_of in record.features.items()}
    yield stated == spec.features, "features are not those of its spec"
    if facts and facts.version == spec.version:
        same = (record.context, record.provenance) == (facts.track, facts.kind)
        yield same, f"context and provenance are not those of {spec.method}"
    own = record.provenance == "own"
    yield not (own and facts), f"provenance says that the built-in method {spec.method} is not"
    yield own or ":" not in spec.method, f"provenance says that {spec.method} is built in"
    matrices = {
        "test_confusion": [record.test_confusion],
        "validation_confusion": [record.validation_confusion or []],
        "test_by_cluster": record.test_by_cluster or [],
        "literature": record.literature or [],
        "robustness": [one for levels in (record.robustness or {}).values() for one in levels.values()],
    }
    if record.validation_confusion is None:
        del matrices["validation_confusion"]
    counts = {}
    for name, found in matrices.items():
        cached = record.clusters if name == "test_by_cluster" else None
        counts[name] = stack(found, classes) if cached is None else cached
        yield len(counts[name]) == len(found), f"{name} does not have {classes} rows and columns"
    test, predictions = counts["test_confusion"][0], whole(record.test_predictions)
    support = test.sum(1)
    sizes = {int(support.sum()), len(predictions), len(record.index), rows["test"]}
    yield len(sizes) == 1, "test_confusion, test_predictions, test_index and rows count different numbers of utterances"
    yield bool((record.index[1:] > record.index[:-1]).all()), "test_index does not ascend"
    yield bool((predictions < classes).all()), "test_predictions names a class that does not exist"
    predicted = np.bincount(predictions, minlength=classes)
    yield bool((predicted == test.sum(0)).all()), "test_confusion does not count test_predictions"
    if record.test_by_cluster is not None:
        clusters = counts["test_by_cluster"]
        yield bool((clusters.sum(0) == test).all()), "test_by_cluster does not sum to test_confusion"
        yield bool((clusters.sum((1, 2)) > 0).all()), "a cluster of test_by_cluster has no utterance"
    if record.calibration is not None:
        yield record.test_by_cluster is not None, "calibration has clusters, but there is no test_by_cluster"
        yield from statements(record.calibration, counts["test_by_cluster"])
    for name, kept in (("temperature", record.temperature), ("raters", record.raters)):
        yield (
            kept is None or record.test_by_cluster is not None,
            f"{name} has clusters, but there is no test_by_cluster",
        )
    if record.temperature is not None:
        fitted = record.temperature.calibration
        same = (fitted is None) == (record.temperature.temperature is None) == (rows["validation"] == 0)
        yield same, "temperature does not fit rows: it is fitted on validation"
        yield from statements(fitted, counts["test_by_cluster"]) if fitted else ()
    if record.raters is not None:
        yield from rater_statements(record.raters, counts["test_by_cluster"])
    if record.groups is not None:
        yield record.test_by_cluster is not None, "groups are parts of clusters, but there is no test_by_cluster"
        yield from group_statements(record.groups, counts["test_by_cluster"])
    for name in ("literature", "robustness"):
        yield bool((counts[name].sum(2) == support).all()), f"{name} counts other test utterances than test_confusion"
    if record.literature is not None:
        yield len(record.literature) == max(len(record.curve), 1), "literature does not have one matrix per epoch"
    if record.gradients:
        yield set(record.gradients) == set(spec.features), "gradients are of other modalities than its spec names"
        lengths = {len(norms) for norms in record.gradients.values()}
        yield lengths == {len(record.curve)}, "gradients do not have one norm per epoch"
    for corpus, other in (record.transfer or {}).items():
        there = stack(other.by_cluster, classes)
        square = 0 < len(there) == len(other.by_cluster)
        yield square and bool((there.sum((1, 2)) > 0).all()), f"transfer to {corpus} has a cluster without an utterance"
        alike = corpus.startswith(SIMULATED) == record.simulated and corpus != spec.dataset
        yield alike, f"transfer is from {spec.dataset} to {corpus}"
        yield set(other.features_sha256) == set(spec.features), f"transfer to {corpus} is of other modalities"
    yield (record.validation_confusion is None) == (rows["validation"] == 0), "validation_confusion does not fit rows"
    if record.validation_confusion is not None:
        validation = counts["validation_confusion"][0]
        yield int(validation.sum()) == rows["validation"], "validation_confusion does not count the validation rows"
    yield record.best_epoch < max(len(record.curve), 1), "best_epoch is not an epoch of curve"
    with np.errstate(over="ignore"):
        scores = np.array([epoch[MONITOR] for epoch in record.curve if MONITOR in epoch]).astype(np.float32)
    if len(scores):
        yield len(scores) == len(record.curve), "an epoch of curve lacks its validation score"
        yield int(scores.argmax()) == record.best_epoch, "best_epoch is not the best validation score of curve"
        if record.validation_confusion is not None:
            right = abs(float(weighted_f1(validation)) - float(scores[record.best_epoch])) < 1e-4
            yield right, "validation_confusion does not have the score that curve states for its epoch"
    yield (record.encoder_parameters or 0) <= record.parameters, "encoder_parameters exceed parameters"
    known = [best for parts in (record.attainable or {}).values() for best in parts.values()]
    yield all({"accuracy", "weighted_f1"} <= set(best) for best in known), "attainable lacks a score"
    if record.ideal_by_cluster is not None:
        sizes, ideal = counts.get("test_by_cluster", np.empty((0, 1, 1))).sum((1, 2)), record.ideal_by_cluster
        yield len(ideal) == len(sizes), "ideal_by_cluster does not have one number per cluster of test_by_cluster"
        yield bool((ideal <= sizes + 1e-3).all()), "ideal_by_cluster exceeds the utterances of a cluster"


def tuned_statements(spec: RunSpec) -> Iterator[tuple[bool, str]]:
    """What must hold of a spec whose settings were tuned."""
    tuned = spec.tuned
    if tuned is None:
        return
    yield tuned.trials is None or tuned.trial < tuned.trials, "tuned names a trial beyond its number of trials"
    try:
        own = spec.untuned
    except Misuse as error:
        yield False, str(error)
    else:
        same = (own.options, own.training) == (spec.options, spec.training)
        yield tuned.trial > 0 or same, "trial 0 does not have the settings of the suite"


def whole(numbers: Sequence[int]) -> Counts:
    """Whole numbers as an array; by way of one of Python's, which is faster."""
    return np.frombuffer(array("q", numbers), np.int64)


def stack(matrices: Sequence[Matrix], classes: int) -> Counts:
    """The matrices [matrix, class, class]; none of them where one of them is not square."""
    try:
        found = np.array(matrices, np.int64)
    except ValueError:  # rows of different lengths
        found = np.empty(0, np.int64)
    return found if found.shape[1:] == (classes, classes) else np.empty((0, classes, classes), np.int64)


def pool_clusters(folds: Mapping[int, Counts], protocol: Protocol | None) -> Counts | None:
    """Confusion matrices [cluster, class, class] of several folds as one array, in which each cluster occurs once.

    None where folds that should test the same clusters do not have equally many.
    """
    alike: dict[int, list[Counts]] = defaultdict(list)
    for fold, counts in sorted(folds.items()):
        alike[(fold - 1) // (protocol.folds_per_cluster if protocol else 1)].append(counts)
    if any(each.shape != group[0].shape for group in alike.values() for each in group):
        return None
    return np.concatenate([np.sum(group, 0, dtype=np.int64) for group in alike.values()])


def load_records(*folders: Path) -> tuple[list[RunRecord], list[str]]:
    """All records below the folders in path order, and one sentence for each file that is not a readable record.

    A run that several folders have is read from the first of them. With the published records come those of accepted
    submissions, see :func:`submissions`.

    Records of the same features and fold that test other utterances, or know other labels of them, than most are left
    out as well.
    """
    found, problems = gather(folders, lambda _, submission, path: contributed(read_record(path), submission), _tests)
    return list(found.values()), problems


@dataclass(frozen=True)
class Tests:
    """What a record tests, and the fold and the feature sets whose records should all test the same."""

    fold: tuple[object, ...]
    features: tuple[str, ...]  #: sha256 of each
    tested: bytes


def _tests(record: RunRecord) -> Tests:
    spec = record.spec
    fold = (spec.dataset, spec.label_set, spec.protocol, spec.fold, record.classes)
    return Tests(fold, tuple(spec.features_sha256.values()), record.tested)


def gather(
    folders: Iterable[Path], read: Callable[[Path, str, Path], T], tests: Callable[[T], Tests]
) -> tuple[dict[Path, T], list[str]]:
    """What :func:`load_records` does, for whatever ``read`` makes of what :func:`record_files` yields."""
    found: dict[Path, T] = {}
    problems: list[str] = []
    names: set[tuple[str, ...]] = set()
    with without_garbage_collection():
        for folder, submission, path in record_files(folders, "*/*/*.json"):
            run = path.parts[-3:]
            if run in names or path.name.endswith(FAILED):
                continue
            names.add(run)
            try:
                found[path] = read(folder, submission, path)
            except Misuse as error:
                problems.append(str(error))
    for path in _odd({path: tests(each) for path, each in found.items()}):
        del found[path]
        problems.append(
            f"{path} tests other utterances, or knows other labels of them, than most records of its features and "
            "fold; delete the record and run the bench again"
        )
    return found, problems


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Keep Python from looking for cycles in a block that makes many objects and no cycle: it takes as long again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def submissions(results: Path) -> list[Path]:
    """Folders of accepted submissions, in ``contributed`` beside the published records in ``benchmarks/results``."""
    if results.absolute().parts[-2:] != ("benchmarks", "results"):
        return []
    return sorted(path for path in results.parent.glob(f"{CONTRIBUTED}/*") if path.is_dir())


def record_files(folders: Iterable[Path], pattern: str) -> Iterator[tuple[Path, str, Path]]:
    """The files of each folder and of the submissions beside it: folder, name of the submission, file."""
    for given in folders:
        for folder in (given, *submissions(given)):
            for path in sorted(folder.glob(pattern)):
                yield folder, "" if folder is given else folder.name, path


def _odd(found: Mapping[Path, Tests]) -> list[Path]:
    """The records that do not test what most records of one of their feature sets and of their fold test."""
    seen: dict[tuple[object, ...], Counter[bytes]] = defaultdict(Counter)
    for each in found.values():
        for digest in each.features:
            seen[each.fold, digest][each.tested] += 1
    most = {key: max(counts.values()) for key, counts in seen.items()}
    return [
        path
        for path, each in found.items()
        if any(seen[each.fold, digest][each.tested] < most[each.fold, digest] for digest in each.features)
    ]


CONTRIBUTED = "contributed"  #: folder of accepted submissions, beside that of the published records
FAILED = ".failed.json"
READABLE = "a readable record"  #: what a file is not that cannot be read
CHECKSUM = "sha256"  #: key of a record's file: hash of all else in it
SIMULATED = "simulated-"  #: how the names of simulated corpora begin
MONITOR = "val/weighted_f1"  #: the score that selects the epoch


def bundle_path(record: Path) -> Path:
    """Where the trained model stands whose record is ``record``."""
    return record.with_suffix(".bundle")


def failure_path(path: Path) -> Path:
    """Where a failure of the run is noted whose record would be ``path``."""
    return path.with_name(path.stem + FAILED)
