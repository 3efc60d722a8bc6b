"""A tuning: makes the trials that a suite lacks, and writes what each fold has chosen by them.

A trial is a run that trains on the training rows and scores validation alone. All runs of a suite get the same number
of trials; see :mod:`mer_bench.training.draws` for what they try and :mod:`mer_bench.training.tuned` for the choice.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from mer_bench.errors import FailedRun, Misuse
from mer_bench.files import write_atomic
from mer_bench.records import RunSpec
from mer_bench.training.bench import available, begin_workers, check_specs, run_missing
from mer_bench.training.checks import before_training
from mer_bench.training.draws import space_of, trial
from mer_bench.training.execute import missing
from mer_bench.training.facts import asking
from mer_bench.training.options import Folders, RunSettings, TuneOptions
from mer_bench.training.suite import generate_simulated, read_suite, suite_specs
from mer_bench.training.tracking import GROUP
from mer_bench.training.tuned import choose, tuned_path, write_text
from mer_bench.trials import trials_folder
from mer_bench.utterances import DESCRIPTION


@dataclass(frozen=True)
class TuneResult:
    """What came of a tuning."""

    trials: list[RunSpec]  #: those that it was asked for
    failed: list[RunSpec]  #: the trials of the suite that failed, and left the choice to others; tried again next time
    kept: list[RunSpec]  #: runs all of whose trials failed: they keep the settings of the suite
    open: int  #: runs of the suite that lack trials, so that they are not in the file yet
    file: Path  #: of the settings that were chosen


def tune(suite_file: Path, options: TuneOptions = TuneOptions(), console: Console | None = None) -> TuneResult:
    """Make the trials that a suite lacks, then write what was chosen: all that ``mer-bench tune`` does.

    A tuning that is killed loses the trials in progress and nothing else; the same call goes on from there.

    Args:
        suite_file: The suite, a TOML file with a table ``[tune]``.
        options: Everything else that can be chosen.
        console: Console that shows progress; None = stderr.

    Raises:
        Misuse: something is wrong with the suite, the options, the corpora or the folders; nothing has been trained
            then.
        FailedRun: the folder of the trials has disappeared.
    """
    console = console or Console(stderr=True)
    if (suite_file.parent / DESCRIPTION).is_file():  # a corpus with its suite beside it
        options = replace(options, root=suite_file.resolve().parent.parent)
    if options.logger == "wandb":
        os.environ.setdefault(GROUP, f"{suite_file.stem}-tune")  # workers inherit it
    folders = {item.name: getattr(options, item.name) for item in fields(Folders)}
    settings = RunSettings(**{**folders, "results": trials_folder(options.results)})
    with begin_workers(options.jobs) as workers, asking(workers.ask):
        read = partial(read_suite, suite_file, epochs=options.epochs, precision=options.precision, root=options.root)
        methods = {row.method for row in read(methods=options.methods).rows}
        suite = read()
        if suite.tune is None:
            raise Misuse(f"{suite.where} has no table [tune] that says what is drawn (docs/protocol.md has an example)")
        budget = options.budget or suite.tune.trials
        suite = available(replace(suite, seeds=suite.seeds[:1]), options, console)
        generate_simulated(suite, options.root)
        specs = suite_specs(suite, options.root)
        chosen = [spec for spec in specs if spec.method in methods and spec.fold in (options.folds or (spec.fold,))]
        trials = [trial(suite, spec, number) for number in range(budget) for spec in chosen if space_of(suite, spec)]
        if not trials:
            what = "of these methods and folds " * bool(options.methods or options.folds)
            raise Misuse(f"{suite.where} has nothing {what}to tune")
        before_training(trials, settings, elsewhere=bool(options.cluster))

        def check(queue: Sequence[RunSpec]) -> list[str]:
            lacking = {spec.sha256: spec for spec in (*missing(trials, settings.results), *queue)}
            return workers.ask(check_specs, list(lacking.values()), options.root, bool(options.cluster))

        run_missing(
            trials, settings, jobs=options.jobs, cluster=options.cluster, console=console, workers=workers, check=check
        )
        if not settings.results.is_dir():
            raise FailedRun(f"{settings.results} has disappeared during the tuning")
        found = choose(suite, specs, budget, options.results)
    path = tuned_path(suite, options.results)
    write_atomic(path, write_text(suite, found.file))
    return TuneResult(trials, found.failed, found.kept, found.open, path)
