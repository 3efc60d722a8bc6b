"""Runs that train nothing: the name of the method says what its run does. Workers import this without torch."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

import numpy as np

from mer_bench.external import ExternalRecord, ExternalSpec, Statement
from mer_bench.methods import method_facts
from mer_bench.records import FeatureFacts, Protocol, RunRecord, RunSpec, Training
from mer_bench.training.options import RunSettings


def spec(method: str, seed: int = 0) -> RunSpec:
    features, sha256 = {"audio": "a"}, {"audio": "0" * 64}
    return RunSpec("simulated-ravdess", "eight", "folds6", 1, features, sha256, method, 1, {}, Training(), seed)


def record(spec: RunSpec) -> RunRecord:
    features = {"audio": FeatureFacts("a", "e", "", "", 2, 0)}
    return RunRecord(
        spec, ("happy", "sad"), "utterance", "baseline", True, features, {"train": 9, "validation": 2, "test": 3},
        [[1, 0], [0, 1]], [[1, 1], [0, 1]], [0, 1, 2], [0, 1, 1], [{"train/loss": 1.0, "val/weighted_f1": 1.0}],
        0, 10, 20, 1.0, 100.0, "cpu",
    )  # fmt: skip


def consistent(record: RunRecord) -> RunRecord:
    """The record with whatever its test confusion and its method determine."""
    confusion = np.array(record.test_confusion)
    predictions = np.arange(len(confusion)).repeat(confusion.sum(0)).tolist()
    facts = method_facts().get(record.spec.method)
    return replace(
        record,
        spec=replace(record.spec, fold=max(record.spec.fold, 1)),
        context=facts.track if facts else record.context,
        provenance=facts.kind if facts else record.provenance,
        rows={**record.rows, "validation": 0, "test": len(predictions)},
        validation_confusion=None,
        test_index=list(range(len(predictions))),
        test_predictions=predictions,
    )


def external(name: str, seed: int = 0, fold: int = 1, **statement: Any) -> ExternalRecord:
    """Predictions made elsewhere for the test utterances of :func:`record`."""
    chosen = ExternalSpec(name, "simulated-ravdess", "eight", "folds6", fold, seed)
    return ExternalRecord(
        chosen, Statement(**statement), ("happy", "sad"), Protocol(6, "Six folds.", "actors"), [0, 1, 2], [0, 1, 1],
        [[[1, 1], [0, 1]]], None, "0.1.0",
    )  # fmt: skip


def begin_worker(messages: object) -> None:
    """Replaces the preparation of a worker process."""


def execute_job(job: tuple[RunSpec, RunRecord | None], settings: RunSettings) -> RunRecord | str | None:
    """Replaces the job of a worker process; each attempt appends one byte to a file in the log folder."""
    spec, _ = job
    attempts = settings.log_folder / f"{spec.method}-{spec.seed}"
    with attempts.open("a") as file:
        file.write("x")
    if spec.method == "dies_beside":  # Waits until the run beside it has begun as often as this one.
        end = time.monotonic() + 2
        other = settings.log_folder / "sleeps-0"
        while time.monotonic() < end and not (other.is_file() and other.stat().st_size >= attempts.stat().st_size):
            time.sleep(0.01)
    if spec.method.startswith("dies") and (spec.method != "dies_once" or attempts.stat().st_size == 1):
        os._exit(1)
    if spec.method == "raises":
        return "Traceback (most recent call last):\n  ...\nValueError: no [bold]luck[/bold]\n"
    if spec.method == "sleeps":
        time.sleep(1)
    if spec.method == "waits":
        time.sleep(600)
    return record(spec)
