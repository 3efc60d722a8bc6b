"""Options of the commands that train, each declared once: the command line reads them from here, and so does Python.

A field's type, default and metadata are all that the command line needs. Needs nothing but the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mer_bench.workspace import default_results


def _option(default: Any, help: str, *, flag: str = "", **facts: Any) -> Any:
    """A field that is an option.

    Args:
        default: Its default value, or a function that gives it.
        help: What the command line says of it.
        flag: Its name on the command line, if that is not the name of the field.
        **facts: ``minimum`` of a number, ``choices``, ``metavar``; ``toml`` for NAME=VALUE pairs with TOML values.
    """
    if isinstance(default, Mapping):
        return field(default_factory=lambda: dict(default), metadata={"help": help, "flag": flag, **facts})
    if callable(default):
        return field(default_factory=default, metadata={"help": help, "flag": flag, **facts})
    return field(default=default, metadata={"help": help, "flag": flag, **facts})


@dataclass(frozen=True)
class Folders:
    """Where a run reads and writes, and how it logs."""

    root: Path = _option(Path("data"), "Folder of the prepared corpora.", flag="--data")
    results: Path = _option(
        default_results, "Folder of the records [default: benchmarks/results in a clone, elsewhere results]."
    )
    logger: str = _option("csv", "Where training curves are logged.", choices=("csv", "wandb", "none"))
    log_folder: Path = _option(Path("runs"), "Where loggers write.", flag="--logs")


@dataclass(frozen=True)
class RunSettings(Folders):
    """Where a run reads and writes, how it logs, what it measures beside its scores, and what it keeps."""

    measures: tuple[str, ...] = _option(
        (),
        "Beside the score: literature, robustness, efficiency, gradients, transfer:CORPUS; repeatable.",
        flag="--measure",
        metavar="NAME",
    )
    keep: tuple[str, ...] = _option(
        (),
        "In a file beside the record: probabilities, of the test utterances. Runs whose record or file lacks them are "
        "made again, as for --measure.",
        metavar="NAME",
    )
    save_model: bool = _option(False, "Keep the trained model of each run in a folder beside its record.")


@dataclass(frozen=True)
class Hardware:
    """What each run trains on; part of what a run is."""

    devices: int = _option(1, "Devices of one run.", minimum=1)
    strategy: str = _option("auto", "Strategy as Lightning names it: ddp, fsdp ...")
    num_nodes: int = _option(1, "Machines of one run.", minimum=1)
    compile: bool = _option(False, "Train through torch.compile.")


@dataclass(frozen=True)
class SuiteOptions:
    """Which part of a suite is trained, how, and where."""

    methods: tuple[str, ...] = _option((), "Only these methods of the suite, separated by commas or spaces.")
    epochs: int | None = _option(None, "This many epochs instead of the suite's.", minimum=1)
    precision: str | None = _option(
        None, "Precision as Lightning names it, e.g. bf16-mixed, or tf32, instead of the suite's."
    )
    jobs: int = _option(1, "Runs side by side.", minimum=1)
    cluster: str = _option("", "Run on Ray: local (--jobs side by side) or ray://HOST:PORT.", metavar="ADDRESS")
    corpus: str = _option(
        "auto",
        "real, simulated (a stand-in of the same shape), or auto: the stand-in where the real corpus is absent.",
        choices=("auto", "real", "simulated"),
    )


@dataclass(frozen=True)
class BenchOptions(SuiteOptions, Hardware, RunSettings):
    """Everything that can be chosen for a bench beside its suite."""

    seeds: tuple[int, ...] = _option((), "These seeds instead of the suite's, e.g. '0 1 2'.")
    rows: str = _option(
        "both",
        "default: with the settings of the suite; tuned: with those that mer-bench tune has chosen; or both.",
        choices=("both", "default", "tuned"),
    )
    rerun_changed: bool = _option(False, "Make runs again whose method was edited since, without a new version.")
    shard: str = _option("", "Only the I-th of N shares of the runs, e.g. 3/10.", metavar="I/N")
    leaderboard: Path | None = _option(None, "Leaderboard to rewrite [default: see mer-bench leaderboard].")
    with_published: bool = _option(False, "Show the published rows on that page as well.")


@dataclass(frozen=True)
class TuneOptions(SuiteOptions, Folders):
    """Everything that can be chosen for a tuning beside its suite."""

    budget: int | None = _option(None, "This many trials of each row and fold instead of the suite's.", minimum=1)
    folds: tuple[int, ...] = _option((), "Only these folds, e.g. '1 2'.", flag="--folds")


@dataclass(frozen=True)
class RunOptions(Hardware, RunSettings):
    """Everything that can be chosen for a single run."""

    spec: Path | None = _option(
        None, "A run as JSON, or a record that holds one; replaces all options that describe a run."
    )
    dataset: str | None = _option(None, "See mer-bench list datasets.")
    method: str | None = _option(None, "See mer-bench list methods.")
    features: Mapping[str, str] = _option(
        {}, "Repeatable; default: the corpus's usual sets.", flag="--feature", metavar="MODALITY=SET"
    )
    label_set: str | None = _option(None, "Default: the corpus's first.")
    protocol: str | None = _option(None, "Default: the corpus's first.")
    fold: int = _option(1, "Test fold, from 1.", minimum=1)
    seed: int = _option(0, "Seed of weights, order and dropout.", minimum=0)
    options: Mapping[str, Any] = _option(
        {}, "Option of the method; repeatable, TOML values.", flag="--option", metavar="NAME=VALUE", toml=True
    )
    training: Mapping[str, Any] = _option(
        {}, "Training option, e.g. epochs=5; repeatable.", flag="--train", metavar="NAME=VALUE", toml=True
    )
