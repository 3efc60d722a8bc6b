"""Suites: a TOML file -> the list of its runs, all validated before anything trains; runs what is missing.

A suite names a dataset (or several that share all else), a label set, a protocol, seeds, training options, what to
measure, and one or more tables, each with its feature sets and methods. Its runs are the product of datasets, methods,
folds and seeds.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from lightning.fabric.connector import _PRECISION_INPUT  # type: ignore[attr-defined]
from lightning.pytorch.strategies import StrategyRegistry

from mer_bench.datasets import DATASETS
from mer_bench.errors import Misuse, unknown
from mer_bench.features import MODALITIES, read_spec
from mer_bench.fusion import METHODS
from mer_bench.records import RunSpec, Training, check_measures, training_fields
from mer_bench.training.build import TF32, build_datamodule, build_method, check_pixels, options_of
from mer_bench.utterances import FILE

STAND_IN = "simulated-"


@dataclass(frozen=True)
class Row:
    """One method of one table."""

    method: str
    features: Mapping[str, str]  #: modality -> feature set
    options: Mapping[str, Any]
    training: Training


@dataclass(frozen=True)
class Suite:
    """What a suite file says."""

    datasets: tuple[str, ...]
    label_set: str
    protocol: str
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    measures: tuple[str, ...] = ()  #: on demand, see ``records.MEASURES``

    def specs(
        self, root: Path, *, devices: int = 1, strategy: str = "auto", num_nodes: int = 1, compile: bool = False
    ) -> list[RunSpec]:
        """The product of rows, seeds and folds; seeds go outside, so that every row is there early.

        Raises:
            Misuse: a feature set is absent.
        """
        names = sorted({name for row in self.rows for name in row.features.values()})
        hashes = {
            (dataset, name): read_spec(root / dataset / name).sha256 for dataset in self.datasets for name in names
        }
        return [
            RunSpec(
                dataset=dataset,
                label_set=self.label_set,
                protocol=self.protocol,
                fold=fold,
                features=row.features,
                features_sha256={modality: hashes[dataset, name] for modality, name in row.features.items()},
                method=row.method,
                version=METHODS[row.method].version,
                options=row.options,
                training=row.training,
                seed=seed,
                devices=devices,
                strategy=strategy,
                num_nodes=num_nodes,
                compile=compile,
            )
            for seed in self.seeds
            for dataset in self.datasets
            for row in self.rows
            for fold in range(1, DATASETS[dataset].protocols[self.protocol] + 1)
        ]


def read_suite(
    path: Path,
    *,
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (),
    epochs: int | None = None,
    precision: str | None = None,
) -> Suite:
    """Read and check a suite file; ``methods``, ``seeds``, ``epochs`` and ``precision`` override it where given.

    Raises:
        Misuse: the file is absent or no TOML, a key is unknown or of the wrong type, or a name does not exist.
    """
    if not path.is_file():
        raise unknown(f"suite in {path.parent}", path.stem, sorted(other.stem for other in path.parent.glob("*.toml")))
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misuse(f"cannot read suite {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misuse(f"suite {path} is not TOML: {error}") from error
    where = f"suite {path}"
    _check(
        content,
        {
            "dataset": type(content.get("dataset")),
            "label_set": str,
            "protocol": str,
            "seeds": list,
            "training": dict,
            "measure": list,
            "table": list,
        },
        where,
    )
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
        if dataset not in DATASETS:
            raise unknown(f"dataset in {where}", dataset, DATASETS)
        DATASETS[dataset].check_names(content["label_set"], content["protocol"], 1)
    chosen = tuple(seeds or content["seeds"])
    if not chosen or any(type(seed) is not int or seed < 0 for seed in chosen) or len(set(chosen)) < len(chosen):
        raise Misuse(f"{where}: seeds are different whole numbers from 0 on, not {list(chosen)}")
    measures = check_measures(content.get("measure", []), f" in {where}")
    shared = _training(Training(), content.get("training", {}), f"{where}, [training]")
    rows = [
        row
        for number, table in enumerate(content["table"], 1)
        for dataset in datasets
        for row in _rows(table, shared, dataset, f"{where}, table {number}")
    ]
    listed = {row.method for row in rows}
    for method in methods:
        if method not in METHODS:
            raise unknown("method", method, METHODS)
        if method not in listed:
            raise Misuse(f"{where} does not list the method {method!r}; it lists {', '.join(sorted(listed))}")
    rows = [row for row in rows if not methods or row.method in methods]
    if epochs is not None:
        rows = [replace(row, training=replace(row.training, epochs=epochs)) for row in rows]
        for row in rows:
            _check_training(row.training, "EPOCHS")
    if precision is not None:
        rows = [replace(row, training=replace(row.training, precision=precision)) for row in rows]
    unique = list({_key(row): row for row in rows}.values())  # a reference row listed in two tables is one row
    return Suite(tuple(datasets), content["label_set"], content["protocol"], chosen, tuple(unique), measures)


def stand_in(suite: Suite) -> Suite:
    """The same suite on the simulated corpora of the same shape: one seed, the simulated feature sets.

    They are no pixels: a method that trains encoders on those reads features there, with the shared encoder.
    """
    datasets = tuple(STAND_IN + dataset for dataset in suite.datasets)
    simulated = DATASETS[datasets[0]].default_features
    rows = {}
    for row in suite.rows:
        options = {name: value for name, value in row.options.items() if name not in ("encoders", "weights")}
        features = {modality: simulated[modality] for modality in row.features}
        swapped = replace(row, features=features, options=options)
        rows[_key(swapped)] = swapped  # rows that differed by feature set alone become one
    return replace(suite, datasets=datasets, seeds=suite.seeds[:1], rows=tuple(rows.values()))


def is_prepared(dataset: str, root: Path) -> bool:
    """Whether the corpus is on this machine; a simulated one always is."""
    return DATASETS[dataset].simulated or (root / dataset / FILE).is_file()


def how_to_get(dataset: str) -> str:
    """How a user obtains and prepares the corpus."""
    return DATASETS[dataset].how_to_get


def prepare(suite: Suite, root: Path) -> None:
    """Generate the simulated corpora that are not there yet."""
    for dataset in suite.datasets:
        if DATASETS[dataset].simulated:
            DATASETS[dataset](root, label_set=suite.label_set, protocol=suite.protocol)


def check_machine(strategy: str, precision: str) -> None:
    """Raise Misuse for a strategy or a precision that there is not."""
    strategies = ["auto", *StrategyRegistry.available_strategies()]
    if strategy not in strategies:
        raise unknown("strategy", strategy, strategies)
    precisions = [TF32, *(str(name) for part in get_args(_PRECISION_INPUT) for name in get_args(part))]
    if precision not in precisions:
        raise unknown("precision", precision, precisions)


def validate(specs: Sequence[RunSpec], root: Path) -> None:
    """Build the datamodule of every fold and the method of every row once, so that mistakes show before training.

    Raises:
        Misuse: the first mistake found.
    """
    seen: dict[str, Any] = {}
    for spec in specs:
        check_machine(spec.strategy, spec.training.precision)
        data = f"{spec.dataset} {spec.features} {spec.fold} {METHODS[spec.method].context}"
        if data not in seen:
            seen[data] = build_datamodule(spec, root)
        row = f"{spec.method} {spec.features} {spec.options}"
        if row not in seen:
            seen[row] = build_method(spec, seen[data].dims, seen[data].num_classes)
            check_pixels(seen[row], seen[data])


def one_run(
    root: Path,
    dataset: str,
    method: str,
    *,
    features: Mapping[str, str],
    label_set: str | None,
    protocol: str | None,
    options: Mapping[str, Any],
    training: Mapping[str, Any],
    **rest: Any,
) -> RunSpec:
    """The spec of a single run, with the corpus's first label set, first protocol and usual features as defaults."""
    if dataset not in DATASETS:
        raise unknown("dataset", dataset, DATASETS)
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    module = DATASETS[dataset]
    label_set, protocol = label_set or next(iter(module.label_sets)), protocol or next(iter(module.protocols))
    module.check_names(label_set, protocol, rest["fold"])
    chosen = _features(features or module.default_features, dataset, "--feature")
    if module.simulated:
        module(root, label_set=label_set, protocol=protocol)
    spec = RunSpec(
        dataset=dataset,
        label_set=label_set,
        protocol=protocol,
        features=chosen,
        features_sha256={m: read_spec(root / dataset / name).sha256 for m, name in chosen.items()},
        method=method,
        version=METHODS[method].version,
        options=options,
        training=_training(Training(), training, "--train"),
        **rest,
    )
    validate([spec], root)
    return spec


def _rows(table: Any, shared: Training, dataset: str, where: str) -> Iterator[Row]:
    if not isinstance(table, dict):
        raise Misuse(f"{where} is not a [[table]]")
    _check(table, {"features": dict, "methods": list, "training": dict, "options": dict}, where)
    for key in ("features", "methods"):
        if not table.get(key):
            raise Misuse(f"{where} lacks {key!r}")
    features = _features(table["features"], dataset, where)
    common = table.get("options", {})  # each method takes those that it has
    training = _training(shared, table.get("training", {}), where)
    for entry in table["methods"]:
        entry = {"name": entry} if isinstance(entry, str) else entry
        if not isinstance(entry, dict) or "name" not in entry:
            raise Misuse(f"{where}: a method is a name or {{name = ...}}, not {entry!r}")
        _check(entry, {"name": str, "options": dict, "training": dict, "modalities": list}, where)
        name = entry["name"]
        if name not in METHODS:
            raise unknown(f"method in {where}", name, METHODS)
        for modality in entry.get("modalities", []):
            if modality not in features:
                raise unknown(f"modality of {name} in {where}", str(modality), features)
        chosen = {m: f for m, f in features.items() if m in entry.get("modalities", features)}
        recipe = _training(training, entry.get("training", {}), f"{where}, method {name}")
        valid = options_of(METHODS[name])
        options = {k: v for k, v in common.items() if k in valid} | entry.get("options", {})
        # a method for one modality stands for one row each
        parts = [{m: f} for m, f in chosen.items()] if METHODS[name].most == 1 else [chosen]
        for part in parts:
            METHODS[name].check_modalities(tuple(part))
            yield Row(name, part, options, recipe)


def _features(features: Mapping[str, Any], dataset: str, where: str) -> dict[str, str]:
    valid = DATASETS[dataset].modalities
    for modality, name in features.items():
        if modality not in valid:
            raise unknown(f"modality in {where}", modality, valid)
        if not isinstance(name, str):
            raise Misuse(f"{where}: the feature set of {modality} is a name, not {name!r}")
    return {modality: features[modality] for modality in MODALITIES if modality in features}


def _training(base: Training, changes: Mapping[str, Any], where: str) -> Training:
    kinds = training_fields()
    _check(changes, kinds, where)
    training = replace(base, **{name: kinds[name](value) for name, value in changes.items()})
    _check_training(training, where)
    return training


def _check_training(training: Training, where: str) -> None:
    if training.epochs < 1 or training.batch_size < 1 or training.learning_rate <= 0:
        raise Misuse(f"{where}: epochs and batch_size start at 1 and learning_rate is positive")
    for name in ("weight_decay", "warmup", "gradient_clip", "label_smoothing", "patience"):
        if getattr(training, name) < 0:
            raise Misuse(f"{where}: {name} cannot be negative")


def _check(content: Mapping[str, Any], kinds: Mapping[str, type], where: str) -> None:
    """Every key is known and every value of its type (a whole number may stand for a float)."""
    for key, value in content.items():
        if key not in kinds:
            raise unknown(f"key in {where}", key, kinds)
        kind = kinds[key]
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise Misuse(f"{where}: {key} must be of type {kind.__name__}, not {value!r}")


def _key(row: Row) -> str:
    return repr((row.method, sorted(row.features.items()), sorted(row.options.items()), row.training))
