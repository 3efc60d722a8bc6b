"""Live display of a bench: runs done, time left, and the epoch and validation score of each run in progress."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mer_bench.records import RunRecord, RunSpec
from mer_bench.trials import TrialRecord


class Display:
    """Shows what happens to the runs of a bench, and nothing else."""

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
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

    def started(self, spec: RunSpec) -> None:
        """Show a run that begins, for the first or the second time."""
        self._remove(spec)
        label = f"{spec.method} {'+'.join(spec.features)} fold {spec.fold} seed {spec.seed}{_trial(spec)}"
        self.tasks[spec.sha256] = self.progress.add_task(label, total=spec.training.epochs, score="")

    def update(self, messages: Any) -> None:
        """Show what workers have put into their queue: the run's sha256, epochs done, the latest scores."""
        while not messages.empty():
            key, epoch, scores = messages.get()
            if key in self.tasks:
                score = scores.get("val/weighted_f1")
                text = "" if score is None else f"validation weighted F1 {100 * score:.1f}"
                self.progress.update(self.tasks[key], completed=epoch, score=text)

    def finished(self, spec: RunSpec, record: RunRecord | TrialRecord | None, earlier: RunRecord | None) -> None:
        """Show that a run is done; ``record`` is None where the first machine has it.

        A record that replaces an ``earlier`` one of the same spec should have the same predictions; warn if it has not.
        """
        self._end(spec)
        label = f"{spec.method} {spec.name}{_trial(spec)}"
        if record is None:
            self._print(f"done   {escape(label)}, recorded by the first machine")
            return
        score = f", validation weighted F1 {100 * record.score:.1f}" if isinstance(record, TrialRecord) else ""
        self._print(f"done   {escape(label)}: {record.seconds:.0f} s, epoch {record.best_epoch + 1}{score}")
        if earlier and isinstance(record, RunRecord) and earlier.test_predictions != record.test_predictions:
            pairs = zip(earlier.test_predictions, record.test_predictions, strict=False)
            changed = sum(old != new for old, new in pairs)
            text = f"{label}: {changed} predictions differ from the record that this one replaces (other versions?)"
            self._print(f"[yellow]warning[/yellow] {escape(text)}")

    def failed(self, spec: RunSpec, reason: str) -> None:
        """Show that a run failed, and why."""
        self._end(spec)
        self._print(f"[red]failed[/red] {escape(f'{spec.method} {spec.name}{_trial(spec)}')}: {escape(reason)}")

    def _end(self, spec: RunSpec) -> None:
        self._remove(spec)
        self.progress.advance(self.suite)

    def _remove(self, spec: RunSpec) -> None:
        if spec.sha256 in self.tasks:
            self.progress.remove_task(self.tasks.pop(spec.sha256))

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


def _trial(spec: RunSpec) -> str:
    return f" trial {spec.tuned.trial}" if spec.tuned and spec.is_trial else ""
