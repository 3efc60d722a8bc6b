"""Runs what a suite lacks: one record a run, written as soon as it is there; failures are noted, others go on."""

from __future__ import annotations

import multiprocessing
from collections.abc import Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from rich.console import Console

from mer_bench.records import RunSpec, measurable, measured, read_record, skipped
from mer_bench.training.execute import Places
from mer_bench.training.progress import Display
from mer_bench.training.workers import _work


def missing(specs: Sequence[RunSpec], results: Path, measures: Collection[str] = ()) -> list[RunSpec]:
    """The specs without a record, or whose record lacks one of the ``measures`` that the run can take.

    Raises:
        Misuse: a record that has to be looked into is not readable.
    """
    return [spec for spec in specs if not _complete(spec, results, measures)]


def _complete(spec: RunSpec, results: Path, measures: Collection[str]) -> bool:
    path, wanted = spec.path(results), measurable(spec, measures)
    return path.is_file() and (not wanted or wanted <= measured(read_record(path)))


def bench(
    specs: Sequence[RunSpec], places: Places, *, jobs: int = 1, cluster: str = "", console: Console | None = None
) -> list[RunSpec]:
    """Run every spec whose record is missing or lacks a measure, in ``jobs`` workers; returns the specs that failed.

    With ``cluster`` the workers are those of Ray, see :mod:`mer_bench.training.cluster`.

    A worker writes its record itself and outlives neither this process nor Ctrl-C, so that a killed bench loses the
    runs in flight and nothing else. A run whose worker dies (out of memory, say) is tried once more.
    """
    queue = missing(specs, places.results, places.measures)
    console = console or Console(stderr=True)
    lacking = sum(spec.path(places.results).is_file() for spec in queue)
    measuring = f", {lacking} of them to measure {' and '.join(places.measures)}" if lacking else ""
    console.print(f"{len(specs)} runs: {len(specs) - len(queue)} recorded, {len(queue)} to do{measuring}")
    for sentence in skipped(specs, places.measures):
        console.print(sentence)
    if not queue:
        return []
    failed: list[RunSpec] = []
    suspects: list[RunSpec] = []  # in flight when a worker died; each is tried again with no other beside it
    with Display(console, len(queue), jobs, places.results) as display:
        if cluster:
            from mer_bench.training.cluster import run_all

            return run_all(queue, places, cluster, jobs=jobs, display=display)
        while queue or suspects:
            again = not queue
            todo, width = (suspects, 1) if again else (queue, jobs)
            pool = display.pool()
            running: dict[Future[str | None], RunSpec] = {}
            try:
                while todo or running:
                    while todo and len(running) < width:
                        running[pool.submit(_work, todo[0], places)] = todo[0]
                        display.started(todo.pop(0))
                    done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                    display.update()
                    for future in done:
                        reason = future.result()
                        spec = running.pop(future)
                        display.finished(spec, reason)
                        if reason is not None:
                            failed.append(spec)
            except BrokenProcessPool:
                for spec in running.values():
                    if again:
                        failed.append(spec)
                        display.finished(spec, "the worker process died twice (out of memory?)")
                    else:
                        suspects.append(spec)
            finally:
                for process in multiprocessing.active_children():
                    process.terminate()
                pool.shutdown(cancel_futures=True)
    return failed
