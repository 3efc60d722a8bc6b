"""Records as a pandas DataFrame: one row per run, one typed column per fact."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from functools import partial
from operator import attrgetter
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mer_bench.calibration import probability_scores
from mer_bench.errors import Misuse, printable
from mer_bench.external import ExternalRecord, load_external
from mer_bench.methods import is_current, title
from mer_bench.metrics import SCORES
from mer_bench.records import ContributedRecord, RunRecord, Training, load_records

FOLDERS = (Path("benchmarks/results"), Path("results"))  #: where records stand, in a clone and outside one
TEXT, WHOLE, REAL, FLAG = "string", "Int64", "float64", "boolean"  #: types of columns; each has a missing value

Values = Mapping[str, tuple[str, Callable[[Any], Any]]]  #: column -> its type, and its value for a row


def load_results(path: str | PathLike[str] | None = None) -> pd.DataFrame:
    """Read records as a table with one row per run, in the order of their files.

    Scores are shares between 0 and 1, of the test utterances of the run's fold. Text columns have the type ``string``,
    whole numbers ``Int64``, others ``float64``, flags ``boolean``; what a record does not know is missing.

    ======================================= ==========================================================================
    Columns                                 Content
    ======================================= ==========================================================================
    dataset, label_set, protocol            what was classified, and on which splits
    fold, folds, seed                       test fold from 1, number of folds of the protocol, seed
    method, title                           code name, and the name in the paper or of the class of an own method
    track                                   ``utterance``, or ``dialogue`` for a method that reads whole dialogues
    provenance                              ``baseline``, ``reimplemented``, ``reconstruction`` or ``own``
    contributed                             whether the record is of an accepted submission; all others were run by the
                                            maintainers, or by you
    modalities, features                    ``audio+text``, ``audio=gemaps text=minilm``
    features_sha256                         identities of these feature sets, in the same form
    options                                 options that differ from the method's defaults, as JSON
    tuned                                   number of trials by which the fold has chosen the settings of a tuned run
    version, current                        version of the method's code, and whether it is today's
    simulated                               whether the corpus is simulated
    classes                                 number of classes
    train, validation, test                 number of utterances
    weighted_f1, accuracy, macro_f1, uar    scores on the test utterances at the selected epoch
    nll, brier, ece                         negative log-likelihood in nats, Brier score summed over classes and
                                            expected calibration error of the probabilities on the test utterances
    validation_weighted_f1                  the score that selected the epoch
    best_epoch, epochs_trained              the epoch that was scored, from 0, and how many there were
    parameters, fusion_parameters           trainable parameters, and those outside the unimodal encoders
    flops_per_utterance                     floating-point operations of a forward pass
    seconds, peak_memory_mib, device        cost of the training
    epochs, batch_size, learning_rate,      training options, see :class:`mer_bench.records.Training`
    weight_decay, warmup, gradient_clip,
    label_smoothing, patience, precision,
    class_weights, balance
    devices, strategy, num_nodes, compile   what the run was trained on
    share                                   share of the training utterances that it used; ``train`` counts them
    probabilities                           sha256 of the file of probabilities that was kept beside the record
    run, file                               sha256 of the run's description, and its record below ``path``
    ======================================= ==========================================================================

    Args:
        path: Folder of the records; None = ``benchmarks/results`` of the working folder, or ``results`` if it
            has none.

    Raises:
        Misuse: there is no such folder.

    Warns:
        UserWarning: for each record that is left out, because it cannot be read or contradicts others.
    """
    return frame(COLUMNS, read_all(path)[0])


def read_all(path: str | PathLike[str] | None = None) -> tuple[list[RunRecord], list[ExternalRecord]]:
    """The records and external records below ``path``; the caller's caller is warned of each that is left out."""
    folder = next(filter(Path.is_dir, FOLDERS), FOLDERS[0]) if path is None else Path(path)
    if not folder.is_dir():
        usual = f"; without a path, {' or '.join(map(str, FOLDERS))} is read" if path is None else ""
        raise Misuse(f"there is no folder of records at {folder}{usual}")
    records, problems = load_records(folder)
    external, more = load_external(folder)
    for problem in (*problems, *more):
        warnings.warn(printable(problem), stacklevel=3)
    return records, external


def frame(columns: Values, rows: Iterable[Any]) -> pd.DataFrame:
    """A table with these columns in their types, also if there are no rows."""
    found = list(rows)
    made = {name: pd.Series([value(row) for row in found], dtype=object) for name, (_, value) in columns.items()}
    return pd.DataFrame(made).astype({name: kind for name, (kind, _) in columns.items()})


def _score(name: str, record: RunRecord) -> float:
    return float(SCORES[name](np.array(record.test_confusion, np.int64)))


def _probability_score(position: int, record: RunRecord) -> float | None:
    return probability_scores([record.calibration])[position] if record.calibration else None


def _validation(record: RunRecord) -> float | None:
    found = record.validation_confusion
    return None if found is None else float(SCORES["weighted_f1"](np.array(found, np.int64)))


def _fusion_parameters(record: RunRecord) -> int | None:
    return None if record.encoder_parameters is None else record.parameters - record.encoder_parameters


def _file(record: RunRecord) -> str:
    path = record.path(Path("results"))  # beside which the accepted submissions are
    return (Path("..", path) if isinstance(record, ContributedRecord) else path.relative_to("results")).as_posix()


def _pairs(named: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(named.items()))


#: annotation of a training option -> type
TYPES = {"Name": TEXT, "ClassWeights": TEXT, "Balance": TEXT, "Positive": WHOLE, "Count": WHOLE}
COLUMNS: Values = {
    "dataset": (TEXT, lambda r: r.spec.dataset),
    "label_set": (TEXT, lambda r: r.spec.label_set),
    "protocol": (TEXT, lambda r: r.spec.protocol),
    "fold": (WHOLE, lambda r: r.spec.fold),
    "folds": (WHOLE, lambda r: r.protocol.folds if r.protocol else None),
    "seed": (WHOLE, lambda r: r.spec.seed),
    "method": (TEXT, lambda r: r.spec.method),
    "title": (TEXT, lambda r: title(r.spec.method)),
    "track": (TEXT, lambda r: r.context),
    "provenance": (TEXT, lambda r: r.provenance),
    "contributed": (FLAG, lambda r: isinstance(r, ContributedRecord)),
    "modalities": (TEXT, lambda r: "+".join(sorted(r.spec.features))),
    "features": (TEXT, lambda r: _pairs(r.spec.features)),
    "features_sha256": (TEXT, lambda r: _pairs(r.spec.features_sha256)),
    "options": (TEXT, lambda r: json.dumps(dict(r.spec.options), sort_keys=True)),
    "tuned": (WHOLE, lambda r: r.spec.tuned and r.spec.tuned.trials),
    "version": (WHOLE, lambda r: r.spec.version),
    "current": (FLAG, lambda r: is_current(r.spec.method, r.spec.version)),
    "simulated": (FLAG, lambda r: r.simulated),
    "classes": (WHOLE, lambda r: len(r.classes)),
    "train": (WHOLE, lambda r: r.rows["train"]),
    "validation": (WHOLE, lambda r: r.rows["validation"]),
    "test": (WHOLE, lambda r: r.rows["test"]),
    **{name: (REAL, partial(_score, name)) for name in SCORES},
    **{name: (REAL, partial(_probability_score, at)) for at, name in enumerate(("nll", "brier", "ece"))},
    "validation_weighted_f1": (REAL, _validation),
    "best_epoch": (WHOLE, lambda r: r.best_epoch),
    "epochs_trained": (WHOLE, lambda r: len(r.curve)),
    "parameters": (WHOLE, lambda r: r.parameters),
    "fusion_parameters": (WHOLE, _fusion_parameters),
    "flops_per_utterance": (WHOLE, lambda r: r.flops_per_utterance),
    "seconds": (REAL, lambda r: r.seconds),
    "peak_memory_mib": (REAL, lambda r: r.peak_memory_mib),
    "device": (TEXT, lambda r: r.device),
    **{
        item.name: (TYPES.get(str(item.type), REAL), attrgetter(f"spec.training.{item.name}"))
        for item in fields(Training)
    },
    "devices": (WHOLE, lambda r: r.spec.devices),
    "strategy": (TEXT, lambda r: r.spec.strategy),
    "num_nodes": (WHOLE, lambda r: r.spec.num_nodes),
    "compile": (FLAG, lambda r: r.spec.compile),
    "share": (REAL, lambda r: r.spec.share),
    "probabilities": (TEXT, lambda r: r.probabilities),
    "run": (TEXT, lambda r: r.spec.sha256),
    "file": (TEXT, _file),
}
