"""Records of trials: what the settings that a tuning tries score on validation. A trial has no test set.

They stand in a folder of their own below that of the records, one JSON file each, whose path is the identity of its
spec. Trials are told from other runs by ``spec.tuned``, see :class:`mer_bench.records.Tuned`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mer_bench.errors import Misuse
from mer_bench.metrics import weighted_f1
from mer_bench.records import (
    FAILED,
    SIMULATED,
    Matrix,
    RunSpec,
    Training,
    failure_path,
    read_checked,
    stack,
    tuned_statements,
    without_garbage_collection,
    write_checked,
)
from mer_bench.schema import Count, Label, NotNegative, Positive, Text

FOLDER = "trials"  #: below the folder of the records


@dataclass(frozen=True)
class TrialRecord:
    """What came of a trial. There is no test: its datamodule had no test rows."""

    spec: RunSpec
    classes: tuple[Label, ...]
    context: Literal["utterance", "dialogue"]
    rows: Mapping[Literal["train", "validation"], Positive]  #: number of utterances
    validation_confusion: Matrix  #: at the best epoch
    best_epoch: Count  #: from 0
    epochs: Positive  #: that were trained
    parameters: Count  #: trainable parameters
    seconds: NotNegative
    device: Text

    @cached_property
    def score(self) -> float:
        """Weighted F1 on validation, a share: what chooses."""
        return float(weighted_f1(np.array(self.validation_confusion, np.int64)))

    @property
    def simulated(self) -> bool:
        """Whether the corpus is simulated."""
        return self.spec.dataset.startswith(SIMULATED)


def trials_folder(results: Path) -> Path:
    """Where the records of trials stand beside those below ``results``."""
    return results / FOLDER


def write_trial(record: TrialRecord, folder: Path) -> Path:
    """Write a record atomically to its path, which it returns; removes the note of an earlier failure.

    Raises:
        Misuse: it could not be read again.
    """
    path = record.spec.path(folder)
    write_checked(path, record, check_trial, _shorten)
    failure_path(path).unlink(missing_ok=True)
    return path


def read_trial(path: Path) -> TrialRecord:
    """Read one record and check it.

    Raises:
        Misuse: the file is not a whole record of a trial, was changed, contradicts itself, or is another trial than its
            path says.
    """
    try:
        return read_checked(path, TrialRecord, check_trial)
    except Misuse as error:
        raise Misuse(f"{error}; delete the record and tune again") from error


def load_trials(folders: Iterable[Path]) -> tuple[list[TrialRecord], list[str]]:
    """The trials of each of the folders of records in path order, and one sentence for each file that is none.

    A trial that several folders have is read from the first of them.
    """
    found: dict[Path, TrialRecord] = {}
    problems = []
    with without_garbage_collection():
        for folder in map(trials_folder, folders):
            for path in sorted(folder.glob("*/*/*.json")):
                run = path.relative_to(folder)
                if run not in found and not path.name.endswith(FAILED):
                    try:
                        found[run] = read_trial(path)
                    except Misuse as error:
                        problems.append(str(error))
    return list(found.values()), problems


def check_trial(record: TrialRecord, path: Path) -> None:
    """Raise Misuse unless the parts of a record agree with each other and with its path."""
    stated = record.spec.path(Path())
    if path.parts[-3:] != stated.parts:
        raise Misuse(f"{path} holds another trial than its path says ({stated.as_posix()})")
    wrong = next((sentence for holds, sentence in _statements(record) if not holds), None)
    if wrong:
        raise Misuse(f"{path} contradicts itself: {wrong}")


def _statements(record: TrialRecord) -> Iterator[tuple[bool, str]]:
    spec, classes = record.spec, len(record.classes)
    yield spec.is_trial, "its spec is not that of a trial"
    yield from tuned_statements(spec)
    yield len(set(record.classes)) == classes, "a class occurs twice"
    yield set(record.rows) == {"train", "validation"}, "rows does not count train and validation"
    yield set(spec.features) == set(spec.features_sha256), "features and features_sha256 name different modalities"
    counted = stack([record.validation_confusion], classes)
    yield len(counted) == 1, f"validation_confusion does not have {classes} rows and columns"
    yield int(counted.sum()) == record.rows["validation"], "validation_confusion does not count the validation rows"
    yield record.best_epoch < record.epochs <= spec.training.epochs, "best_epoch and epochs are not those of a training"


def _shorten(content: dict[str, Any]) -> dict[str, Any]:
    """Content without what is as usual, which reading fills in; the sha256 in the path says that it is the same."""
    spec = _unusual(content["spec"], RunSpec)
    return {**content, "spec": {**spec, "training": _unusual(content["spec"]["training"], Training)}}


def _unusual(content: Mapping[str, Any], kind: type[Any]) -> dict[str, Any]:
    usual = {item.name: item.default for item in fields(kind)}
    return {name: value for name, value in content.items() if usual[name] != value}
