"""Shared by the tests of runs and benches: a suite of twelve short runs, single runs, and the command line."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from rich.console import Console

from mer_bench.cli import main
from mer_bench.datasets import DATASETS
from mer_bench.records import RunRecord, RunSpec, write_record
from mer_bench.training.bench import run_missing
from mer_bench.training.execute import earlier_record, execute
from mer_bench.training.options import Hardware, RunSettings
from mer_bench.training.run import run
from mer_bench.training.suite import one_run, read_suite, suite_specs
from mer_bench.training.validate import validate
from mer_bench.training.workers import Workers

RAVDESS = "simulated-ravdess"
AUDIO = {"audio": "simulated-audio"}


def write_suite(
    path: Path,
    dataset: str = RAVDESS,
    *,
    seeds: Sequence[int] = (0,),
    training: str = "epochs = 2\nlearning_rate = 2e-3",
    features: str = 'audio = "simulated-audio"',
    methods: str = '{ name = "unimodal", options = { hidden = 8 } }, "majority"',
) -> Path:
    """Write a suite on the six folds of RAVDESS."""
    head = f'dataset = "{dataset}"\nlabel_set = "eight"\nprotocol = "folds6"\nseeds = {list(seeds)}\n'
    table = f"[training]\n{training}\n[[table]]\nfeatures = {{ {features} }}\nmethods = [{methods}]\n"
    path.write_text(head + table, encoding="utf-8")
    return path


@dataclass(frozen=True)
class Workspace:
    """The file of a suite, the folder of its corpora and the folder of its records."""

    suite: Path
    root: Path
    results: Path

    @property
    def options(self) -> list[str]:
        return ["--data", str(self.root), "--results", str(self.results), "--logger", "none"]

    def bench(self, *more: str) -> list[str]:
        """Return the arguments of the command that executes the suite."""
        return ["bench", str(self.suite), *self.options, *more]

    def specs(self, hardware: Hardware = Hardware()) -> list[RunSpec]:
        return suite_specs(read_suite(self.suite), self.root, hardware)


# Single runs in this process


def spec_of(root: Path, method: str = "unimodal", dataset: str = RAVDESS, **changes: Any) -> RunSpec:
    """Return the spec of a run of two epochs, with the options of ``one_run`` that ``changes`` replaces."""
    usual = {
        "features": AUDIO if method == "unimodal" else {},
        "options": {} if method == "majority" else {"hidden": 16},
        "training": {"epochs": 2, "learning_rate": 2e-3},
    }
    spec = one_run(root, dataset, method, **{**usual, **changes})
    validate([spec], root, elsewhere=True)
    return spec


def train(spec: RunSpec, root: Path, **settings: Any) -> RunRecord:
    record = run(spec, root, **{"logger": "none", **settings})
    assert record is not None
    return record


def execute_and_write(spec: RunSpec, settings: RunSettings) -> Path:
    """Execute one run in this process, as ``mer-bench run`` does, and write its record."""
    record = execute(spec, settings, earlier_record(spec, settings.results))
    assert record is not None
    return write_record(record, settings.results)


def perform(specs: list[RunSpec], settings: RunSettings, jobs: int = 1) -> tuple[list[RunSpec], str]:
    """Return the runs that failed and what the bench wrote."""
    output = io.StringIO()
    failed = run_missing(specs, settings, jobs=jobs, console=Console(file=output, width=300))
    return failed, output.getvalue()


def work_here(patch: pytest.MonkeyPatch) -> None:
    """Let workers be this process."""

    def run_here(
        self: Workers, function: Callable[[Any], Any], items: Iterable[Any], *, started: Callable[[Any], None], **_: Any
    ) -> Iterator[tuple[Any, Any]]:
        for item in items:
            started(item)
            yield item, function(item)

    patch.setattr(Workers, "run", run_here)
    patch.setattr(Workers, "ask", lambda self, function, *given: function(*given))


def attempts(settings: RunSettings, *specs: RunSpec) -> list[int]:
    """Return how often each run was begun with the fixture ``settings``."""
    paths = [settings.log_folder / f"{spec.method}-{spec.seed}" for spec in specs]
    return [path.stat().st_size if path.exists() else 0 for path in paths]


def permute_labels(monkeypatch: pytest.MonkeyPatch, *splits: str, seed: int = 0) -> None:
    """Let every datamodule that is built from now on permute the labels of these splits."""
    module = DATASETS[RAVDESS]
    original: Callable[..., Any] = module._rows

    def permuted(self: Any, protocol: str, fold: int) -> Any:
        rows = original(self, protocol, fold)
        for split in splits:
            self.labels[rows[split]] = np.random.default_rng(seed).permutation(self.labels[rows[split]])
        return rows

    monkeypatch.setattr(module, "_rows", permuted)


# The command line


class Answer(NamedTuple):
    """The exit code of a command and what it wrote."""

    code: int
    out: str
    err: str


INTERRUPTED = "interrupted; every finished run is recorded, the same command goes on from there"  #: after Ctrl-C
Call = Callable[..., Answer]  #: type of the fixture ``call``


def exit_code(*arguments: str | Path) -> int:
    """Execute the command line in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mer-bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
    return int(left.value.code or 0)


@contextmanager
def started(log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Execute the command line in a process group of its own, which is killed at the end if it is still there."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "mer_bench", *arguments],
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            # If a shell runs the tests in the background, they ignore SIGINT, and child processes inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    try:
        yield process
    finally:
        print(log.read_text())  # Shown by pytest if the test fails.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def wait_until(
    condition: Callable[[], object], seconds: float, what: str, process: subprocess.Popen[bytes] | None = None
) -> None:
    """Wait until the condition holds; fail after ``seconds``, or when the process ends before."""
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, f"the process ended before this held: {what}"
        assert time.monotonic() < end, f"this did not hold within {seconds} s: {what}"
        time.sleep(0.01)
