"""Live display of a bench."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mer_bench.errors import Misuse
from mer_bench.records import RunRecord, RunSpec, read_record, write_failure
from mer_bench.training.execute import earlier_record
from mer_bench.training.workers import _start_worker


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
