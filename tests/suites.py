"""A suite whose twelve runs take seconds: six folds, two methods, one modality."""

from __future__ import annotations

from pathlib import Path

from mer_bench.records import RunSpec, write_record
from mer_bench.training.execute import earlier_record, execute
from mer_bench.training.options import RunSettings

SUITE = """
dataset = "simulated-ravdess"
label_set = "eight"
protocol = "folds6"
seeds = [0]

[training]
epochs = 2
learning_rate = 2e-3

[[table]]
features = { audio = "simulated-audio" }
methods = [{ name = "unimodal", options = { hidden = 8 } }, "majority"]
"""


def execute_and_write(spec: RunSpec, settings: RunSettings) -> Path:
    """Run one spec in this process, as ``mer-bench run`` does, and write its record."""
    record = execute(spec, settings, earlier_record(spec, settings.results))
    assert record is not None
    return write_record(record, settings.results)
