"""One spec in, one record out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mer_bench.errors import Misuse
from mer_bench.records import RunRecord, RunSpec, measurable, measured, read_record, write_record


@dataclass(frozen=True)
class Places:
    """Where a bench reads and writes, how it logs, and what its records hold beside their scores."""

    root: Path
    results: Path
    logger: str = "csv"
    log_folder: Path = Path("runs")
    measures: tuple[str, ...] = ()


def run_and_record(spec: RunSpec, places: Places, notify: Any = None) -> Path | None:
    """Run one spec and write its record; None on every process but the first of a distributed run.

    With several machines only the measures that are asked for count: all must agree, and one alone has the earlier
    record.
    """
    earlier = earlier_record(spec, places.results) if spec.num_nodes == 1 else None
    record = run_anew(spec, places, earlier, notify)
    return None if record is None else write_record(record, places.results)


def run_anew(spec: RunSpec, places: Places, earlier: RunRecord | None = None, notify: Any = None) -> RunRecord | None:
    """Run one spec; None on every process but the first of a distributed run.

    What the ``earlier`` record of the run has measured is measured again. One that lacks its speed alone is not trained
    again.
    """
    # torch is imported by the processes that train, not by the one that shows progress
    from mer_bench.training.run import run, time_again

    known = measured(earlier) if earlier else set()
    wanted = measurable(spec, places.measures)
    if earlier and wanted - known == {"efficiency"}:
        return time_again(earlier, places.root)
    record = run(
        spec, places.root, logger=places.logger, log_folder=places.log_folder, notify=notify, measures=wanted | known
    )
    if record is not None and places.logger == "wandb":
        from mer_bench.training import tracking

        tracking.finish(record)
    return record


def earlier_record(spec: RunSpec, results: Path) -> RunRecord | None:
    """The record that a run will replace, if there is a readable one."""
    try:
        return read_record(spec.path(results))
    except Misuse:
        return None
