"""Suite files: TOML that says which methods are trained on which features, how, and with which seeds.

Only the form of a file is checked here. Whether its methods, corpora and options exist is checked where they are known,
in :mod:`mer_bench.training.suite`; the report reads suites to name the command that trains a row again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from mer_bench.errors import Misuse, unknown
from mer_bench.files import read_toml
from mer_bench.records import SIMULATED, Training, check_kept, check_measures
from mer_bench.schema import TEXT, Name, Option, Positive, Real, Seed, ShareAboveZero, Text, Whole, decode
from mer_bench.workspace import find_suite

Names = Annotated[list[Name], Meta(min_length=1)]
Changes = Mapping[str, Any]  #: training options that differ, see :func:`change_training`


@dataclass(frozen=True)
class Range:
    """What a number is drawn from: whole numbers where the setting is one, and both ends."""

    low: Whole | Real  #: the least value
    high: Whole | Real  #: the largest value
    log: bool = False  #: whether its logarithm is uniform


#: What a setting is drawn from: a range or a list. Names of training options, else options of methods.
Space = Mapping[Name, Range | list[bool | Whole | Real | Text]]


@dataclass(frozen=True)
class Tune:
    """``[tune]`` of a suite file: what ``mer-bench tune`` tries, the same number of trials for every row."""

    space: Space  #: what is drawn; each method takes the settings that it has
    trials: Positive = 8  #: trials of each row and fold; trial 0 is the row as it is
    methods: Mapping[Name, Space] = field(default_factory=dict)  #: method -> what is drawn for it instead


@dataclass(frozen=True)
class _Method:
    """A method in a suite file, where it is more than a name."""

    name: Name  #: name of a built-in method, of one that a package registers, or ``module:Class``
    options: Mapping[Name, Option] = field(default_factory=dict)  #: constructor options; others keep their defaults
    training: Changes = field(default_factory=dict)  #: keys of ``[training]`` that differ for this method
    modalities: Names | None = None  #: modalities of the table that it reads; all of them by default


@dataclass(frozen=True)
class _Table:
    """``[[table]]`` of a suite file."""

    #: modality -> feature set; a number after the modality tells several sets of it apart (``audio2``)
    features: Annotated[Mapping[Name, Name], Meta(min_length=1)]
    methods: Annotated[list[Name | _Method], Meta(min_length=1)]  #: names, or tables with the keys below
    #: constructor options, of each method of the table that has them
    options: Mapping[Name, Option] = field(default_factory=dict)
    training: Changes = field(default_factory=dict)  #: keys of ``[training]`` that differ in this table


@dataclass(frozen=True)
class _File:
    """A suite file, with the keys that it takes from the suite beside it whose name its key ``extends`` is."""

    dataset: Name | Names  #: the corpus, or several
    label_set: Name  #: which emotions are the classes
    protocol: Name | Mapping[Name, Name]  #: how the corpus is split; for several corpora also corpus -> protocol
    seeds: Annotated[list[Seed], Meta(min_length=1)]  #: each row is trained once with each of them, on each fold
    table: Annotated[list[_Table], Meta(min_length=1)]  #: ``[[table]]``: feature sets, and the methods compared on them
    training: Changes = field(default_factory=dict)  #: ``[training]``: how every method is trained
    measure: list[Name] = field(default_factory=list)  #: what is measured beside the score
    keep: list[Name] = field(default_factory=list)  #: what is kept in a file beside each record
    save_models: bool = False  #: whether the trained model of each run is kept beside its record
    #: shares of the training utterances, such as 0.1 for a tenth; every row is trained on each of them
    shares: Annotated[list[ShareAboveZero], Meta(min_length=1)] = field(default_factory=lambda: [1.0])
    tune: Tune | None = None  #: ``[tune]``: what ``mer-bench tune`` tries; without it the suite cannot be tuned
    #: text under its tables: which settings were chosen, with which methods, on what
    chosen: Annotated[str, Meta(max_length=2000)] = ""
    #: feature set that tables name -> the one that is read instead
    instead: Mapping[Name, Name] = field(default_factory=dict)


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
    protocol: str | Mapping[str, str]  #: of all corpora, or of each
    seeds: tuple[int, ...]
    measures: tuple[str, ...]  #: on demand, see ``records.MEASURES``
    keep: tuple[str, ...]  #: on demand, see ``records.KEPT``
    rows: tuple[SuiteRow, ...]
    save_models: bool = False  #: whether the trained models are kept, see ``--save-model``
    shares: tuple[float, ...] = (1.0,)  #: of the training utterances, see ``RunSpec.share``; the largest first
    is_stand_in: bool = False  #: whether its corpora are the simulated ones in the place of others
    tune: Tune | None = None
    chosen: str = ""  #: which settings were chosen, with which methods, on what; stands under the tables

    @property
    def where(self) -> str:
        """The file, as messages name it."""
        return f"suite {self.file}"

    def protocol_of(self, dataset: str) -> str:
        """The protocol of one of the corpora, or of the simulated corpus that stands in for it.

        Raises:
            Misuse: the suite names protocols by corpus, and none for this one.
        """
        if isinstance(self.protocol, str):
            return self.protocol
        name = dataset if dataset in self.protocol else dataset.removeprefix(SIMULATED)
        if name not in self.protocol:
            raise Misuse(f"{self.where}: protocol names none for the dataset {name!r}")
        return self.protocol[name]


def read_suite_file(path: Path) -> Suite:
    """Read a suite file and check its form.

    Args:
        path: The file, or the name of a suite that comes with the package.

    Raises:
        Misuse: the file is absent or not TOML, a key is missing, unknown or of the wrong type.
    """
    path = find_suite(path)
    where = f"suite {path}"
    content = decode(_with_base(read_toml(path, "suite"), path), _File, where)
    training = change_training(Training(), content.training, f"{where}, [training]")
    datasets = [content.dataset] if isinstance(content.dataset, str) else content.dataset
    tables = _read_instead(content, where)
    rows = (row for number, table in enumerate(tables, 1) for row in _rows(table, training, f"{where}, table {number}"))
    return Suite(
        path,
        tuple(dict.fromkeys(datasets)),
        content.label_set,
        content.protocol,
        check_seeds(content.seeds, where),
        check_measures(content.measure, f" in {where}"),
        check_kept(content.keep, f" in {where}"),
        tuple(rows),
        content.save_models,
        _check_shares(content.shares, where),
        tune=content.tune and _check_ranges(content.tune, where),
        chosen=_one_line(content.chosen, where),
    )


def _with_base(said: dict[str, Any], path: Path) -> dict[str, Any]:
    """What a suite says, and of the keys that it does not have what the one says that it extends."""
    if "extends" not in said:
        return said
    name = decode(said.pop("extends"), Name, f"suite {path}, extends")
    base = read_toml(find_suite(path.with_name(f"{name}.toml")), "suite")
    if "extends" in base:
        raise Misuse(f"suite {path} extends {name}, which extends another suite: name that one")
    return {**base, **said}


def _read_instead(content: _File, where: str) -> list[_Table]:
    """The tables with the feature sets that are read instead of those that they name."""
    named = {name for table in content.table for name in table.features.values()}
    for name in content.instead:
        if name not in named:
            raise unknown(f"feature set in {where}, instead", name, named)
    return [
        replace(
            table, features={modality: content.instead.get(name, name) for modality, name in table.features.items()}
        )
        for table in content.table
    ]


def _rows(table: _Table, shared: Training, where: str) -> Iterator[SuiteRow]:
    training = change_training(shared, table.training, where)
    for entry in table.methods:
        method = _Method(entry) if isinstance(entry, str) else entry
        chosen = table.features if method.modalities is None else method.modalities
        for modality in chosen:
            if modality not in table.features:
                raise unknown(f"modality of {method.name} in {where}", modality, table.features)
        yield SuiteRow(
            method.name,
            {modality: each for modality, each in table.features.items() if modality in chosen},
            method.options,
            change_training(training, method.training, f"{where}, method {method.name}"),
            table.options,
            where,
        )


def _check_ranges(tune: Tune, where: str) -> Tune:
    for space in (tune.space, *tune.methods.values()):
        for name, values in space.items():
            if not isinstance(values, Range):
                if not values or len(set(map(repr, values))) < len(values):
                    raise Misuse(f"{where}, [tune]: {name} needs a list of different values, not {values}")
            elif not values.low < values.high or (values.log and values.low <= 0):
                needed = "0 < low < high with log" if values.log else "low < high"
                raise Misuse(f"{where}, [tune]: {name} needs {needed}, not low {values.low} and high {values.high}")
    return tune


def _one_line(text: str, where: str) -> str:
    """Text without line breaks, which has to be a ``Text`` then."""
    return decode({"text": " ".join(text.split())}, _Said, f"{where}, chosen").text


@dataclass(frozen=True)
class _Said:
    text: Annotated[str, Meta(pattern=TEXT, max_length=2000)]


def check_seeds(seeds: Sequence[int], where: str) -> tuple[int, ...]:
    """The seeds of a suite; raises Misuse unless they are different whole numbers from 0 on, below 2^32."""
    if not all(0 <= seed < 2**32 for seed in seeds) or len(set(seeds)) < len(seeds):
        raise Misuse(f"{where}: seeds are different whole numbers from 0 on, below 2^32, not {list(seeds)}")
    return tuple(seeds)


def _check_shares(shares: Sequence[float], where: str) -> tuple[float, ...]:
    if len(set(shares)) < len(shares):
        raise Misuse(f"{where}: shares names a share twice: {', '.join(f'{share:g}' for share in shares)}")
    return tuple(sorted(shares, reverse=True))


def change_training(base: Training, changes: Changes, where: str) -> Training:
    """``base`` with the options ``changes``; raises Misuse for an unknown one or a value that is out of range."""
    return decode({**asdict(base), **changes}, Training, where)
