"""Suite files: TOML that says which methods are trained on which features, how, and with which seeds.

Only the form of a file is checked here. Whether its methods, corpora and options exist is checked where they are known,
in :mod:`mer_bench.training.suite`; the report reads suites to name the command that trains a row again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mer_bench.errors import Misuse, unknown
from mer_bench.files import read_toml
from mer_bench.records import Training, check_measures, training_fields

KEYS = {"label_set": str, "protocol": str, "seeds": list, "training": dict, "measure": list, "table": list}
TABLE_KEYS = {"features": dict, "methods": list, "training": dict, "options": dict}
METHOD_KEYS = {"name": str, "options": dict, "training": dict, "modalities": list}


@dataclass(frozen=True)
class SuiteRow:
    """One method of one table."""

    method: str
    features: Mapping[str, str]  #: modality -> feature set
    options: Mapping[str, Any]
    training: Training
    common: Mapping[str, Any]  #: options of the whole table, of which a method takes those that it has
    where: str  #: the file and the table, for messages


@dataclass(frozen=True)
class Suite:
    """What a suite file says."""

    file: Path
    datasets: tuple[str, ...]
    label_set: str
    protocol: str
    seeds: tuple[int, ...]
    measures: tuple[str, ...]  #: on demand, see ``records.MEASURES``
    rows: tuple[SuiteRow, ...]

    @property
    def where(self) -> str:
        """The file, as messages name it."""
        return f"suite {self.file}"


def read_suite_file(path: Path) -> Suite:
    """Read a suite file and check its form.

    Raises:
        Misuse: the file is absent or not TOML, a key is missing, unknown or of the wrong type.
    """
    if not path.is_file():
        raise unknown(f"suite in {path.parent}", path.stem, sorted(other.stem for other in path.parent.glob("*.toml")))
    content, where = read_toml(path, "suite"), f"suite {path}"
    check_types(content, {"dataset": type(content.get("dataset")), **KEYS}, where)
    for key in ("dataset", "label_set", "protocol", "seeds", "table"):
        if key not in content:
            raise Misuse(f"{where} lacks the key {key!r}")
    if not content["table"]:
        raise Misuse(f"{where} has no [[table]]")
    datasets = content["dataset"] if isinstance(content["dataset"], list) else [content["dataset"]]
    if not datasets:
        raise Misuse(f"{where} names no dataset")
    for dataset in datasets:
        if not isinstance(dataset, str):
            raise Misuse(f"{where}: dataset must be of type str, or a list of them, not {dataset!r}")
    training = change_training(Training(), content.get("training", {}), f"{where}, [training]")
    rows = (
        row
        for number, table in enumerate(content["table"], 1)
        for row in _rows(table, training, f"{where}, table {number}")
    )
    return Suite(
        path,
        tuple(datasets),
        content["label_set"],
        content["protocol"],
        check_seeds(content["seeds"], where),
        check_measures(content.get("measure", []), f" in {where}"),
        tuple(rows),
    )


def _rows(table: Any, shared: Training, where: str) -> Iterator[SuiteRow]:
    if not isinstance(table, dict):
        raise Misuse(f"{where} is not a [[table]]")
    check_types(table, TABLE_KEYS, where)
    for key in ("features", "methods"):
        if not table.get(key):
            raise Misuse(f"{where} lacks {key!r}")
    features = table["features"]
    for modality, name in features.items():
        if not isinstance(name, str):
            raise Misuse(f"{where}: the feature set of {modality} is a name, not {name!r}")
    training = change_training(shared, table.get("training", {}), where)
    for entry in table["methods"]:
        entry = {"name": entry} if isinstance(entry, str) else entry
        if not isinstance(entry, dict) or "name" not in entry:
            raise Misuse(f"{where}: a method is a name or {{name = ...}}, not {entry!r}")
        check_types(entry, METHOD_KEYS, where)
        name = entry["name"]
        modalities = entry.get("modalities", list(features))
        for modality in modalities:
            if modality not in features:
                raise unknown(f"modality of {name} in {where}", str(modality), features)
        yield SuiteRow(
            name,
            {modality: each for modality, each in features.items() if modality in modalities},
            entry.get("options", {}),
            change_training(training, entry.get("training", {}), f"{where}, method {name}"),
            table.get("options", {}),
            where,
        )


def check_seeds(seeds: Any, where: str) -> tuple[int, ...]:
    """The seeds of a suite; raises Misuse unless they are different whole numbers from 0 on."""
    if not seeds or any(type(seed) is not int or seed < 0 for seed in seeds) or len(set(seeds)) < len(seeds):
        raise Misuse(f"{where}: seeds are different whole numbers from 0 on, not {list(seeds)}")
    return tuple(seeds)


def change_training(base: Training, changes: Mapping[str, Any], where: str) -> Training:
    """``base`` with the options ``changes``; raises Misuse for an unknown one or a value that is out of range."""
    kinds = training_fields()
    check_types(changes, kinds, where)
    training = replace(base, **{name: kinds[name](value) for name, value in changes.items()})
    if training.epochs < 1 or training.batch_size < 1 or training.learning_rate <= 0:
        raise Misuse(f"{where}: epochs and batch_size start at 1 and learning_rate is positive")
    for name in ("weight_decay", "warmup", "gradient_clip", "label_smoothing", "patience"):
        if getattr(training, name) < 0:
            raise Misuse(f"{where}: {name} cannot be negative")
    return training


def check_types(content: Mapping[str, Any], kinds: Mapping[str, type], where: str) -> None:
    """Raise Misuse unless every key is known and every value of its type (a whole number may stand for a float)."""
    for key, value in content.items():
        if key not in kinds:
            raise unknown(f"key in {where}", key, kinds)
        kind = kinds[key]
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise Misuse(f"{where}: {key} must be of type {kind.__name__}, not {value!r}")
