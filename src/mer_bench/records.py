"""Runs as data: what a run is (RunSpec), what came of it (RunRecord), one JSON file each. Standard library only.

The path of a record is derived from its spec, so "has this run been done?" is "does the file exist?".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mer_bench.errors import Misuse, unknown
from mer_bench.files import write_atomic


@dataclass(frozen=True)
class Training:
    """How a method is trained; equal for all methods of a table unless the suite file says otherwise."""

    epochs: int = 30
    batch_size: int = 32  #: utterances, or dialogues for methods with dialogue context
    learning_rate: float = 1e-3  #: peak of AdamW's rate: linear warm-up, then a cosine to zero
    weight_decay: float = 1e-2
    warmup: float = 0.1  #: share of the steps
    gradient_clip: float = 1.0  #: largest gradient norm; 0 = no clipping
    label_smoothing: float = 0.0
    patience: int = 0  #: epochs without a better validation score before stopping; 0 = train to the end
    precision: str = "32-true"  #: as Lightning names it, or "tf32"


@dataclass(frozen=True)
class RunSpec:
    """Everything that a run's numbers depend on; equal specs have equal paths."""

    dataset: str
    label_set: str
    protocol: str
    fold: int
    features: Mapping[str, str]  #: modality -> feature set
    features_sha256: Mapping[str, str]  #: modality -> identity of that set
    method: str
    version: int  #: of the method's code
    options: Mapping[str, Any]  #: constructor options that differ from the defaults
    training: Training
    seed: int
    devices: int = 1
    strategy: str = "auto"
    num_nodes: int = 1
    compile: bool = False  #: by torch.compile

    @property
    def sha256(self) -> str:
        """Identity of the run."""
        facts = {**vars(self), "training": vars(self.training)}
        if self.compile is False:
            del facts["compile"]  # runs were named before there was a choice
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @property
    def name(self) -> str:
        """Readable and unique within its folder."""
        modalities = "+".join(sorted(self.features))
        return f"{self.label_set}-{self.protocol}-{modalities}-fold{self.fold}-seed{self.seed}-{self.sha256[:12]}"

    def path(self, results: Path) -> Path:
        """Where the record of this run stands."""
        return results / self.dataset / self.method / f"{self.name}.json"


@dataclass(frozen=True)
class RunRecord:
    """What came of a run. Integers are stored and every score is derived, so a new metric needs no re-training."""

    spec: RunSpec
    classes: tuple[str, ...]
    context: str  #: "utterance" or "dialogue"
    provenance: str  #: "baseline", "reimplemented" or "reconstruction"
    simulated: bool
    features: Mapping[str, Mapping[str, Any]]  #: modality -> extractor, revision, layer, dim, frozen parameters
    rows: Mapping[str, int]  #: utterances in train, validation, test
    validation_confusion: list[list[int]] | None  #: at the selected epoch; None where the protocol has no validation
    test_confusion: list[list[int]]  #: rows true, columns predicted
    test_index: list[int]  #: table rows of the test utterances, ascending
    test_predictions: list[int]  #: class of each, same order
    curve: list[dict[str, float]]  #: one entry per epoch: training loss, validation loss and weighted F1
    best_epoch: int  #: the epoch that was scored, from 0
    parameters: int  #: trainable parameters
    flops_per_utterance: int  #: floating-point operations of the forward pass, as torch counts them
    seconds: float
    peak_memory_mib: float | None  #: peak memory of the process, or of the GPU, during this run; None = not known
    device: str
    #: ``test_confusion`` of each cluster of utterances that are not independent (a dialogue; an actor of RAVDESS), in
    #: table order; None = not counted
    test_by_cluster: list[list[list[int]]] | None = None
    encoder_parameters: int | None = None  #: those of ``parameters`` in unimodal encoders; None = not counted
    #: track -> modalities, "audio+text" -> Bayes-optimal accuracy and weighted F1; simulated corpora only
    attainable: Mapping[str, Any] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    # Measured on demand, see mer_bench.training.measures; None = not measured. Rows are never ranked by these.
    #: ``test_confusion`` after each epoch: what choosing the epoch on the test set would have given
    literature: list[list[list[int]]] | None = None
    #: kind of disturbance -> its level -> ``test_confusion`` of the same weights under it
    robustness: Mapping[str, Mapping[str, list[list[int]]]] | None = None
    #: median seconds and utterances of a forward pass (latency_*, throughput_*), with device and threads
    efficiency: Mapping[str, Any] | None = None


MEASURES = ("literature", "robustness", "efficiency")  #: fields of a record that are measured on demand


def check_measures(names: Iterable[str], where: str = "") -> tuple[str, ...]:
    """The names without repetition; raises Misuse for one that is not a measure."""
    found = tuple(dict.fromkeys(names))
    for name in found:
        if name not in MEASURES:
            raise unknown(f"measure{where}", str(name), MEASURES)
    return found


def measurable(spec: RunSpec, measures: Iterable[str]) -> set[str]:
    """Those of ``measures`` that a run can take: where a strategy shards the weights, no process has all of them."""
    whole = spec.strategy == "auto" or spec.strategy.startswith("ddp")
    return {name for name in measures if whole or name == "efficiency"}


def skipped(specs: Iterable[RunSpec], measures: Iterable[str]) -> list[str]:
    """One sentence for each of ``measures`` that some of the runs cannot take."""
    wanted = set(measures)
    found = {(spec.strategy, name) for spec in specs for name in wanted - measurable(spec, wanted)}
    return [f"{name} is not measured under strategy {s!r}, which shards the weights" for s, name in sorted(found)]


def measured(record: RunRecord) -> set[str]:
    """The measures that a record has."""
    return {name for name in MEASURES if getattr(record, name) is not None}


def write_record(record: RunRecord, results: Path) -> Path:
    """Write a record atomically to its path, which it returns; removes the note of an earlier failure."""
    path = record.spec.path(results)
    text = json.dumps(asdict(record), sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    write_atomic(path, text + "\n")
    _failure_path(path).unlink(missing_ok=True)
    return path


def write_failure(spec: RunSpec, results: Path, reason: str) -> Path:
    """Write that a run failed, and why, beside the path of its record; the next bench tries the run again."""
    path = _failure_path(spec.path(results))
    write_atomic(path, json.dumps({"spec": asdict(spec), "reason": reason}, sort_keys=True, indent=1) + "\n")
    return path


def decode_spec(content: Any) -> RunSpec:
    """The spec that JSON holds; TypeError or KeyError if it does not hold one."""
    return RunSpec(**{**content, "training": Training(**content["training"])})


def read_spec(path: Path) -> RunSpec:
    """Read a spec, or that of a whole record.

    Raises:
        Misuse: the file holds neither.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return decode_spec(content.get("spec", content))
    except OSError as error:
        raise Misuse(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Misuse(f"{path} does not describe a run: {error}") from error


def read_record(path: Path) -> RunRecord:
    """Read one record.

    Raises:
        Misuse: the file is not a whole record, or its content is not the run that its path names.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        facts = {**content, "spec": decode_spec(content["spec"]), "classes": tuple(content["classes"])}
        record = RunRecord(**facts)
        name = record.spec.name
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Misuse(f"{path} is not a readable record ({error}); delete it and run the bench again") from error
    if path.stem != name:
        raise Misuse(f"{path} holds another run than its name says ({name}); delete it and run again")
    return record


def load_records(results: Path) -> tuple[list[RunRecord], list[str]]:
    """All records below ``results`` in path order, and one sentence for each file that is not a readable record."""
    records, problems = [], []
    for path in sorted(results.glob("*/*/*.json")):
        if path.name.endswith(FAILED):
            continue
        try:
            records.append(read_record(path))
        except Misuse as error:
            problems.append(str(error))
    return records, problems


FAILED = ".failed.json"


def _failure_path(path: Path) -> Path:
    return path.with_name(path.stem + FAILED)


def training_fields() -> dict[str, type]:
    """Name -> type of each training option (all are plain int, float or str)."""
    types = {"int": int, "float": float, "str": str}
    return {item.name: types[str(item.type)] for item in fields(Training)}
