"""Runs without training, for tests of a bench: the method's name says what happens. Nothing here imports torch."""

from __future__ import annotations

import os
import time

from mer_bench.records import RunRecord, RunSpec, Training
from mer_bench.training.options import RunSettings


def spec(method: str, seed: int = 0) -> RunSpec:
    return RunSpec(
        "simulated-ravdess", "eight", "folds6", 1, {"audio": "a"}, {"audio": "0"}, method, 1, {}, Training(), seed
    )


def begin(messages: object) -> None:
    """Stands in for the preparation of a worker."""


def execute_job(job: tuple[RunSpec, RunRecord | None], settings: RunSettings) -> RunRecord | str | None:
    """Stands in for a worker's job."""
    spec, _ = job
    tries = settings.log_folder / f"{spec.method}-{spec.seed}"
    with tries.open("a") as file:
        file.write("x")
    if spec.method == "dies_beside":  # waits for a neighbour that has begun as often as this run
        end = time.monotonic() + 2
        neighbour = settings.log_folder / "sleeps-0"
        while time.monotonic() < end and not (neighbour.is_file() and neighbour.stat().st_size >= tries.stat().st_size):
            time.sleep(0.01)
    if spec.method.startswith("dies") and (spec.method != "dies_once" or tries.stat().st_size == 1):
        os._exit(1)
    if spec.method == "raises":
        return "Traceback (most recent call last):\n  ...\nValueError: no [bold]luck[/bold]\n"
    if spec.method == "sleeps":
        time.sleep(1)
    if spec.method == "waits":
        time.sleep(600)
    return RunRecord(
        spec, ("a", "b"), "utterance", "baseline", True, {}, {"train": 1, "validation": 0, "test": 1}, None,
        [[1, 0], [0, 0]], [0], [0], [{"train/loss": 1.0}], 0, 1, 1, 0.1, 1.0, "cpu",
    )  # fmt: skip
