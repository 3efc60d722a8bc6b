"""Runs what a suite lacks: one record a run, written as soon as it is there; failures are noted, others go on."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mer_bench.errors import Misuse
from mer_bench.records import (
    RunRecord,
    RunSpec,
    measurable,
    measured,
    read_record,
    skipped,
    write_failure,
    write_record,
)


@dataclass(frozen=True)
class Places:
    """Where a bench reads and writes, how it logs, and what its records hold beside their scores."""

    root: Path
    results: Path
    logger: str = "csv"
    log_folder: Path = Path("runs")
    measures: tuple[str, ...] = ()


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

    With ``cluster`` the workers are those of Ray, see :mod:`mer_bench.cluster`.

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
            from mer_bench.cluster import run_all

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
    from mer_bench.run import run, time_again

    known = measured(earlier) if earlier else set()
    wanted = measurable(spec, places.measures)
    if earlier and wanted - known == {"efficiency"}:
        return time_again(earlier, places.root)
    record = run(
        spec,
        places.root,
        logger=places.logger,
        log_folder=places.log_folder,
        notify=notify,
        measures=wanted | known,
    )
    if record is not None and places.logger == "wandb":
        from mer_bench import tracking

        tracking.finish(record)
    return record


def earlier_record(spec: RunSpec, results: Path) -> RunRecord | None:
    """The record that a run will replace, if there is a readable one."""
    try:
        return read_record(spec.path(results))
    except Misuse:
        return None


class Display:
    """Live progress: runs done, time left, and the epoch and validation score of each current run."""

    def __init__(self, console: Console, total: int, jobs: int, results: Path) -> None:
        self.console, self.jobs, self.results = console, jobs, results
        self.replaced: dict[str, RunRecord | None] = {}
        self.messages: Any = multiprocessing.get_context("spawn").Queue()
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[score]}"),
            console=console,
        )
        self.suite = self.progress.add_task("suite", total=total, score="")
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def pool(self) -> ProcessPoolExecutor:
        """Fresh workers that report here."""
        return ProcessPoolExecutor(
            self.jobs, multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(self.messages,)
        )

    def started(self, spec: RunSpec) -> None:
        """Show a run that begins."""
        label = f"{spec.method} {'+'.join(spec.features)} fold {spec.fold} seed {spec.seed}"
        if spec.sha256 in self.tasks:  # a second try
            self.progress.remove_task(self.tasks[spec.sha256])
        self.tasks[spec.sha256] = self.progress.add_task(label, total=spec.training.epochs, score="")
        self.replaced[spec.sha256] = earlier_record(spec, self.results)

    def update(self) -> None:
        """Show what the workers have told."""
        while not self.messages.empty():
            key, epoch, scores = self.messages.get()
            if key in self.tasks:
                score = scores.get("val/weighted_f1")
                text = "" if score is None else f"validation weighted F1 {100 * score:.1f}"
                self.progress.update(self.tasks[key], completed=epoch, score=text)

    def finished(self, spec: RunSpec, reason: str | None) -> None:
        """Show, and note beside the records, that a run is done or why it failed."""
        if spec.sha256 in self.tasks:
            self.progress.remove_task(self.tasks.pop(spec.sha256))
        earlier = self.replaced.pop(spec.sha256, None)
        self.progress.advance(self.suite)
        label = f"{spec.method} {spec.name}"
        if reason is None and not spec.path(self.results).is_file():
            self.console.print(f"done   {label}, recorded by the first machine", highlight=False, soft_wrap=True)
            return
        if reason is None:
            record = read_record(spec.path(self.results))
            text = f"done   {label}: {record.seconds:.0f} s, epoch {record.best_epoch + 1}"
            self.console.print(text, highlight=False, soft_wrap=True)
            if earlier and earlier.test_predictions != record.test_predictions:
                pairs = zip(earlier.test_predictions, record.test_predictions, strict=False)
                changed = sum(old != new for old, new in pairs)
                text = f"{label}: {changed} predictions differ from the record that this one replaces (other versions?)"
                self.console.print(f"[yellow]warning[/yellow] {escape(text)}", highlight=False, soft_wrap=True)
            return
        try:
            where = f" ({write_failure(spec, self.results, reason)})"
        except Misuse as error:  # a full disk must not stop the runs that may still fit
            where = f" ({error})"
        last = reason.strip().splitlines()[-1]
        self.console.print(
            f"[red]failed[/red] {escape(label)}: {escape(last + where)}", highlight=False, soft_wrap=True
        )


_messages: Any = None
_distributed: subprocess.Popen[str] | None = None  #: the run with several devices that this worker waits for


def _start_worker(messages: Any) -> None:
    """Remember the display's queue, and die with the parent whatever killed it."""
    global _messages
    _messages = messages
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        _end()

    threading.Thread(target=follow, daemon=True).start()


def _end(*_: object) -> None:
    """End this worker at once, and all ranks of the run that it waits for."""
    if _distributed is not None:
        with suppress(ProcessLookupError):
            os.killpg(_distributed.pid, signal.SIGKILL)
    os._exit(1)


def _work(spec: RunSpec, places: Places) -> str | None:
    """Run one spec in a worker; returns why it failed, if it did."""
    try:
        if spec.devices * spec.num_nodes > 1:
            return _work_distributed(spec, places)
        run_and_record(spec, places, lambda epoch, scores: _messages.put((spec.sha256, epoch, scores)))
    except Misuse as error:
        return str(error)
    except Exception:
        return traceback.format_exc()
    finally:
        gc.collect()  # Trainer, module and corpus refer to each other: free their mapped features before the next run
    return None


def _work_distributed(spec: RunSpec, places: Places) -> str | None:
    """Give a run with several devices a process of its own: Lightning starts the other ranks from its command line."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(asdict(spec), file)
        file.flush()
        command = [sys.executable, "-m", "mer_bench", "run", "--spec", file.name]
        command += ["--data", str(places.root), "--results", str(places.results)]
        command += ["--logger", places.logger, "--logs", str(places.log_folder)]
        command += ["--measure", " ".join(places.measures)]
        global _distributed
        signal.signal(signal.SIGTERM, _end)
        _distributed = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        _, said = _distributed.communicate()
        code, _distributed = _distributed.returncode, None
    return None if code == 0 else said or f"exit code {code}"
