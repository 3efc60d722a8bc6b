"""A suite with a space, its runs, and trials of them that score what a test wants; nothing is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mer_bench.records import RunSpec, Training
from mer_bench.suites import Suite, read_suite_file
from mer_bench.trials import TrialRecord, write_trial

SUITE = """
dataset = "ravdess"
label_set = "eight"
protocol = "folds6"
seeds = [3, 4]

[tune]
trials = 4

[tune.space]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
weight_decay = { low = 0, high = 1 }
dropout = { low = 0, high = 0.5 }
layers = { low = 1, high = 4 }
hidden = [32, 64, 128]

[tune.methods]
bc_lstm = { hidden = [50, 100] }

[[table]]
features = { audio = "mfcc", vision = "landmarks" }
methods = ["majority", "linear", { name = "early_concat", options = { hidden = 48 } }, "bc_lstm", "mult"]
"""
HASHES = {"audio": "a" * 64, "vision": "b" * 64}


def write_suite(folder: Path, text: str = SUITE) -> Suite:
    (folder / "paper.toml").write_text(text, encoding="utf-8")
    return read_suite_file(folder / "paper.toml")


def run_of(method: str = "early_concat", fold: int = 1, seed: int = 3) -> RunSpec:
    """A run with the settings of the suite."""
    options = {"hidden": 48} if method == "early_concat" else {}
    version = {"linear": 3, "majority": 3}.get(method, 4)
    features = {"audio": "mfcc", "vision": "landmarks"}
    return RunSpec("ravdess", "eight", "folds6", fold, features, HASHES, method, version, options, Training(), seed)


def outcome(trial: RunSpec, hits: int) -> TrialRecord:
    """A trial with this many of ten utterances of the first class right; the others are taken for the second."""
    confusion = [[hits, 10 - hits], [0, 10]]
    return TrialRecord(
        trial, ("calm", "happy"), "utterance", {"train": 40, "validation": 20}, confusion, 2, 9, 123, 1.5, "cpu"
    )


def try_all(folder: Path, trials: list[RunSpec], hits: list[int]) -> None:
    for trial, right in zip(trials, hits, strict=True):
        write_trial(outcome(trial, right), folder)


def changed(record: TrialRecord, **facts: object) -> TrialRecord:
    return replace(record, **facts)  # type: ignore[arg-type]
