"""Suites: a suite file -> the specs of its runs, without torch; validate.py constructs them before anything trains.

The runs of a suite are the product of its datasets, rows, folds, seeds and shares of the training utterances.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from mer_bench.corpora import CorpusFacts, corpus_facts
from mer_bench.errors import Misuse
from mer_bench.features import read_spec as read_feature_spec
from mer_bench.modalities import modality_order
from mer_bench.records import SIMULATED, RunSpec, Training, read_spec, transfers
from mer_bench.schema import check_name
from mer_bench.suites import Suite, SuiteRow, change_training, check_seeds, read_suite_file
from mer_bench.training.draws import check_space
from mer_bench.training.facts import find_corpus, find_facts, generate
from mer_bench.training.options import Hardware
from mer_bench.utterances import FILE


def read_suite(
    path: Path,
    *,
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (),
    epochs: int | None = None,
    precision: str | None = None,
    root: Path = Path("data"),
) -> Suite:
    """Read a suite file and check its names; ``methods``, ``seeds``, ``epochs`` and ``precision`` override it if given.

    Every row of the result has the options that its method takes, and a method for single modalities has one row per
    modality.

    Raises:
        Misuse: the file is absent or no TOML, a key is unknown or of the wrong type, or a name does not exist.
    """
    suite = read_suite_file(path)
    corpora = [find_corpus(dataset, root, f" in {suite.where}") for dataset in suite.datasets]
    for corpus in corpora:
        corpus.check_names(suite.label_set, suite.protocol_of(corpus.name), 1)
    changes = {"epochs": epochs, "precision": precision}
    changes = {name: value for name, value in changes.items() if value is not None}
    check_space(suite)
    rows = [row for given in suite.rows for corpus in corpora for row in _resolve(given, corpus)]
    listed = {row.method for row in rows}
    for method in methods:
        if method not in listed:
            find_facts(method)
            raise Misuse(f"{suite.where} does not list the method {method!r}; it lists {', '.join(sorted(listed))}")
    rows = [
        replace(row, training=change_training(row.training, changes, "EPOCHS"))
        for row in rows
        if not methods or row.method in methods
    ]
    return replace(suite, seeds=check_seeds(seeds, suite.where) if seeds else suite.seeds, rows=_distinct(rows))


def _resolve(row: SuiteRow, corpus: CorpusFacts) -> Iterator[SuiteRow]:
    """The rows that a row of a file stands for on a corpus."""
    method, features = find_facts(row.method, f"method in {row.where}"), _in_order(row.features, corpus, row.where)
    options = {name: value for name, value in row.common.items() if name in method.options} | dict(row.options)
    for part in [{name: each} for name, each in features.items()] if method.most == 1 else [features]:
        method.check_modalities(row.method, part)
        yield replace(row, features=part, options=options, common={})


def _in_order(features: Mapping[str, str], corpus: CorpusFacts, where: str) -> dict[str, str]:
    """The feature sets in the usual order of modalities."""
    for modality in features:
        corpus.check_modality(modality, where)
        check_name(features[modality], "feature set")
    return {modality: features[modality] for modality in sorted(features, key=modality_order)}


def _distinct(rows: Sequence[SuiteRow]) -> tuple[SuiteRow, ...]:
    """Each row once: a reference row that two tables list is one row."""
    keys = (repr((r.method, sorted(r.features.items()), sorted(r.options.items()), r.training)) for r in rows)
    return tuple(dict(zip(keys, rows, strict=True)).values())


def suite_specs(suite: Suite, root: Path, hardware: Hardware = Hardware()) -> list[RunSpec]:
    """The product of rows, seeds, shares and folds; seeds are the outermost, so that every row has a run early.

    Raises:
        Misuse: a feature set is absent.
    """
    names = dict.fromkeys(name for row in suite.rows for name in row.features.values())
    sets = [(dataset, name) for dataset in suite.datasets for name in names]
    hashes = {(dataset, name): read_feature_spec(root / dataset / name).sha256 for dataset, name in sets}
    folds = {dataset: find_corpus(dataset, root).protocols[suite.protocol_of(dataset)] for dataset in suite.datasets}
    return [
        RunSpec(
            dataset=dataset,
            label_set=suite.label_set,
            protocol=suite.protocol_of(dataset),
            fold=fold,
            features=row.features,
            features_sha256={modality: hashes[dataset, name] for modality, name in row.features.items()},
            method=row.method,
            version=find_facts(row.method).version,
            options=row.options,
            training=row.training,
            seed=seed,
            share=share,
            **{option.name: getattr(hardware, option.name) for option in fields(Hardware)},
        )
        for seed in suite.seeds
        for share in suite.shares
        for dataset in suite.datasets
        for row in suite.rows
        for fold in range(1, folds[dataset] + 1)
    ]


def stand_in(suite: Suite) -> Suite:
    """The same suite on the simulated corpora of the same shape: one seed, the simulated feature sets.

    Those hold no pixels: a method that trains encoders on pixels reads features there, with the shared encoder. Their
    features have nothing in common, so that no model is tested on another of them.
    """
    datasets = tuple(SIMULATED + dataset for dataset in suite.datasets)
    simulated = corpus_facts()[datasets[0]].default_features
    rows = []
    for row in suite.rows:
        options = {name: value for name, value in row.options.items() if name not in ("encoders", "weights")}
        features = {modality: simulated[modality] for modality in row.features}
        rows.append(replace(row, features=features, options=options))
    measures = tuple(name for name in suite.measures if not transfers([name]))
    return replace(
        suite, datasets=datasets, seeds=suite.seeds[:1], measures=measures, rows=_distinct(rows), is_stand_in=True
    )


def is_prepared(dataset: str, root: Path) -> bool:
    """Whether the corpus is on this machine; a simulated one always is."""
    return find_corpus(dataset, root).simulated or (root / dataset / FILE).is_file()


def generate_simulated(suite: Suite, root: Path) -> None:
    """Generate the simulated corpora of a suite that are not there yet."""
    for dataset in suite.datasets:
        if find_corpus(dataset, root).simulated:
            generate(dataset, root, suite.label_set, suite.protocol_of(dataset))


def run_from_file(path: Path, root: Path) -> RunSpec:
    """The run that a file describes, which may be a record; :func:`mer_bench.training.validate.validate` checks it.

    Raises:
        Misuse: the file holds no spec, a name does not exist, or the method's code has another version.
    """
    spec = read_spec(path)
    if spec.is_trial:
        raise Misuse(f"{path} describes a trial of a tuning, which is never tested; mer-bench tune runs it")
    find_corpus(spec.dataset, root, f" in {path}")
    version = find_facts(spec.method, f"method in {path}").version
    if spec.version != version:
        raise Misuse(
            f"{path} names version {spec.version} of {spec.method}, and the code has version {version}, whose numbers "
            "may differ; train it by its suite, or by the options of mer-bench run"
        )
    return spec


def one_run(
    root: Path,
    dataset: str,
    method: str,
    *,
    features: Mapping[str, str] | None = None,
    label_set: str | None = None,
    protocol: str | None = None,
    fold: int = 1,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    hardware: Hardware = Hardware(),
) -> RunSpec:
    """The spec of a single run; defaults are the corpus's first label set, first protocol and usual features.

    :func:`mer_bench.training.validate.validate` checks it.

    Raises:
        Misuse: a name that does not exist, or options that the training does not take.
    """
    corpus = find_corpus(dataset, root)
    find_facts(method)
    label_set, protocol = label_set or next(iter(corpus.label_sets)), protocol or next(iter(corpus.protocols))
    corpus.check_names(label_set, protocol, fold)
    chosen = _in_order(features or corpus.default_features, corpus, "--feature")
    row = SuiteRow(method, chosen, options or {}, change_training(Training(), training or {}, "--train"), {}, "")
    suite = Suite(Path(), (dataset,), label_set, protocol, (seed,), (), (), (row,))
    generate_simulated(suite, root)
    return suite_specs(suite, root, hardware)[fold - 1]
