"""External records: predictions that another toolkit made for the test utterances of a fold, one JSON file each.

They stand below ``<results>/<dataset>/external/<name>``, where no record of a run stands. The labels in them are those
of the prepared corpus and never those of the file with predictions. What their authors say of features, parameters and
selection is shown as stated: nothing can check it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from mer_bench.errors import Misuse
from mer_bench.methods import method_facts
from mer_bench.records import (
    SIMULATED,
    Counts,
    Matrix,
    Protocol,
    hash_tested,
    read_checked,
    record_files,
    stack,
    whole,
    write_checked,
)
from mer_bench.schema import Count, Label, Name, NotNegative, Positive, Seed, Text, Url, decode

FOLDER = "external"  #: below the folder of a corpus


@dataclass(frozen=True)
class Statement:
    """What the author of predictions says of them; the same for all records of a name on the same splits."""

    features: Text = ""  #: what the predictions were made from
    parameters: Count | None = None  #: trainable ones; None = not stated
    url: Url | None = None  #: of paper or code
    selected_on: Literal["validation"] | None = None  #: what every choice was made on; None = not stated


@dataclass(frozen=True)
class ExternalSpec:
    """Which predictions these are; equal specs have equal paths."""

    name: Name
    dataset: Name
    label_set: Name
    protocol: Name
    fold: Positive
    seed: Seed

    def path(self, results: Path) -> Path:
        """Where the record stands."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        folder = self.name.replace(":", ".")  # Windows has no colon in names; the hash keeps a:b and a.b apart
        file = f"{self.label_set}-{self.protocol}-fold{self.fold}-seed{self.seed}-{digest[:12]}.json"
        return results / self.dataset / FOLDER / folder / file


@dataclass(frozen=True)
class ExternalRecord:
    """Predictions for the test utterances of one fold. Integers are stored and every score is derived."""

    spec: ExternalSpec
    statement: Statement
    classes: tuple[Label, ...]
    protocol: Protocol
    test_index: list[Count]  #: table rows of the test utterances, ascending
    test_predictions: list[Count]  #: class of each, same order
    test_by_cluster: list[Matrix]  #: confusion matrix of each cluster of the protocol, in table order
    #: "negative log-likelihood", "Brier score" ... -> mean over the test utterances; None without probabilities
    probability_scores: Mapping[Text, NotNegative] | None
    version: Text  #: of mer_bench

    @property
    def test_confusion(self) -> Matrix:
        """The confusion matrix of all test utterances."""
        return self.clusters.sum(0).tolist()

    @cached_property
    def index(self) -> Counts:
        """``test_index`` as an array."""
        return whole(self.test_index)

    @cached_property
    def tested(self) -> bytes:
        """As that of :class:`mer_bench.records.RunRecord`."""
        return hash_tested(self.index, self.clusters)

    @cached_property
    def clusters(self) -> Counts:
        """``test_by_cluster`` as an array [cluster, class, class]."""
        return stack(self.test_by_cluster, len(self.classes))

    @property
    def simulated(self) -> bool:
        """Whether the corpus is simulated."""
        return self.spec.dataset.startswith(SIMULATED)


@dataclass(frozen=True)
class ContributedExternal(ExternalRecord):
    """An external record of an accepted submission; see :class:`mer_bench.records.ContributedRecord`."""

    submission: str = ""


def stated(
    *,
    features: str | None = None,
    parameters: int | None = None,
    url: str | None = None,
    selected_on: str | None = None,
) -> Statement:
    """The statement that options of the command line make; raises Misuse for what cannot be stated."""
    if selected_on not in (None, "validation"):
        raise Misuse(
            f"--selected-on takes validation alone, not {selected_on!r}: a score whose settings were chosen by test "
            "scores has no place; without the option it is shown without one"
        )
    given = {"parameters": parameters, "url": url, "selected_on": selected_on, "features": features or ""}
    return decode(given, Statement, "what --add states")


def check_title(name: str) -> None:
    """Raise Misuse if a name is that of a built-in method, or of its paper, in whatever case."""
    for method, facts in method_facts().items():
        if name.casefold() in (method.casefold(), facts.title.casefold()):
            raise Misuse(f"{name!r} is the built-in method {method}; give predictions made elsewhere another name")


def write_external(records: Sequence[ExternalRecord], results: Path) -> list[Path]:
    """Write external records, and return their paths; what is there with the same predictions is written again.

    Raises:
        Misuse: the name is that of a built-in method, or has other predictions or another statement there already.
            Nothing is written then.
    """
    paths = [record.spec.path(results) for record in records]
    for record, path in zip(records, paths, strict=True):
        there = [*path.parent.glob(f"{record.spec.label_set}-{record.spec.protocol}-fold*.json")]
        for other, file in ((read_external(file), file) for file in sorted(there)):
            what = ""
            if other.spec.name != record.spec.name:
                continue
            if file == path and _tested(other) != _tested(record):
                what = f"other predictions for fold {record.spec.fold} and seed {record.spec.seed}"
            elif other.statement != record.statement:
                what = "another statement of features, parameters, address or selection"
            if what:
                raise Misuse(f"{record.spec.name!r} has {what} in {file}: take another name, or delete that file")
    for record, path in zip(records, paths, strict=True):
        write_checked(path, record, check_external)
    return paths


def read_external(path: Path) -> ExternalRecord:
    """Read one external record, and check it.

    Raises:
        Misuse: the file is no whole record, its content was changed, its parts contradict each other, or it is not the
            one that its path names.
    """
    return read_checked(path, ExternalRecord, check_external)


def load_external(*folders: Path) -> tuple[list[ExternalRecord], list[str]]:
    """All external records below the folders, and of submissions as :func:`mer_bench.records.load_records` has them.

    Of a record that several folders have the first counts. The second result is one sentence for each file that is
    not a readable record.
    """
    found: dict[Path, ExternalRecord] = {}
    problems = []
    for folder, submission, path in record_files(folders, f"*/{FOLDER}/*/*.json"):
        name = path.relative_to(folder)
        if name in found:
            continue
        try:
            record = read_external(path)
        except Misuse as error:
            problems.append(f"{error}; delete the file and score the predictions again")
            continue
        found[name] = _contributed(record, submission)
    return list(found.values()), problems


def _contributed(record: ExternalRecord, submission: str) -> ExternalRecord:
    if not submission:
        return record
    known = {item.name: getattr(record, item.name) for item in fields(record)}
    return ContributedExternal(**known, submission=submission)


def check_external(record: ExternalRecord, path: Path) -> None:
    """Raise Misuse unless the parts of an external record agree with each other and with its path."""
    expected = record.spec.path(Path())
    if path.parts[-4:] != expected.parts:
        raise Misuse(f"{path} holds other predictions than its path says ({expected.as_posix()})")
    check_title(record.spec.name)
    wrong = next((sentence for holds, sentence in _statements(record) if not holds), None)
    if wrong:
        raise Misuse(f"{path} contradicts itself: {wrong}")


def _statements(record: ExternalRecord) -> Iterator[tuple[bool, str]]:
    """What must hold, each with the sentence that says that it does not; later ones rely on earlier."""
    classes = len(record.classes)
    yield len(set(record.classes)) == classes > 0, "a class occurs twice, or there is none"
    yield record.spec.fold <= record.protocol.folds, "its fold is none of the protocol"
    clusters = record.clusters
    square = len(clusters) == len(record.test_by_cluster) > 0
    yield square, f"test_by_cluster does not have {classes} rows and columns"
    yield bool((clusters.sum((1, 2)) > 0).all()), "a cluster of test_by_cluster has no utterance"
    index, predictions = record.index, np.array(record.test_predictions, np.int64)
    sizes = {len(index), len(predictions), int(clusters.sum())}
    yield len(sizes) == 1, "test_index, test_predictions and test_by_cluster count different numbers of utterances"
    yield bool((np.diff(index) > 0).all()), "test_index does not ascend"
    yield bool((predictions < classes).all()), "test_predictions names a class that does not exist"
    counted = np.bincount(predictions, minlength=classes)
    yield bool((counted == clusters.sum((0, 1))).all()), "test_by_cluster does not count test_predictions"


def _tested(record: ExternalRecord) -> tuple[list[int], list[int]]:
    return record.test_index, record.test_predictions
