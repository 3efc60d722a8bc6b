"""A bench: runs what a suite lacks, one record per run as soon as it is there, and rewrites the leaderboard."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from mer_bench.corpora import corpus_facts
from mer_bench.errors import FailedRun, Misuse, printable
from mer_bench.records import (
    SIMULATED,
    RunRecord,
    RunSpec,
    check_kept,
    check_measures,
    read_record,
    skipped,
    write_failure,
    write_record,
)
from mer_bench.report.board import Layout, read_board, write_board
from mer_bench.suites import Suite
from mer_bench.training.checks import before_training, is_first_machine
from mer_bench.training.claims import Claims
from mer_bench.training.code import is_changed
from mer_bench.training.execute import Job, Result, begin_worker, execute_job, missing
from mer_bench.training.facts import asking
from mer_bench.training.options import BenchOptions, RunSettings, TuneOptions
from mer_bench.training.progress import Display
from mer_bench.training.sharing import SharedQueue
from mer_bench.training.suite import generate_simulated, is_prepared, read_suite, stand_in, suite_specs
from mer_bench.training.tracking import GROUP
from mer_bench.training.tuned import find_tuned, read_tuned, tuned_specs
from mer_bench.training.workers import Workers
from mer_bench.trials import TrialRecord, write_trial
from mer_bench.utterances import DESCRIPTION
from mer_bench.workspace import command_here, default_leaderboard

ABSENT = """\
********************************************************************************
  {dataset} IS NOT PREPARED BELOW {root}.
  To get it: {how}.
  Running the SIMULATED stand-in {stand_in} instead: its scores say nothing
  about the real corpus. {real} makes its absence an error.
********************************************************************************"""


PRELOAD = "mer_bench.training.preload"  #: what is imported once for all workers


@dataclass(frozen=True)
class BenchResult:
    """What came of a bench."""

    specs: list[RunSpec]  #: the runs that it was asked for
    failed: list[RunSpec]  #: those of them that failed; the next bench tries them again
    leaderboard: Path
    tables: str  #: the tables of the suite's corpora as plain text
    problems: list[str]  #: one sentence for each file among the records that is not a readable record


def bench(suite_file: Path, options: BenchOptions = BenchOptions(), console: Console | None = None) -> BenchResult:
    """Run what a suite lacks, then rewrite the leaderboard: all that ``mer-bench bench`` does.

    A bench that is killed loses the runs in progress and nothing else; the same call goes on from there.

    Args:
        suite_file: The suite, a TOML file.
        options: Everything else that can be chosen.
        console: Console that shows progress; None = stderr.

    Raises:
        Misuse: something is wrong with the suite, the options, the corpora or the folders; nothing has been trained
            then.
        FailedRun: the folder of the records has disappeared.
    """
    console = console or Console(stderr=True)
    shard, measures, keep = _shard(options.shard), check_measures(options.measures), check_kept(options.keep)
    if (suite_file.parent / DESCRIPTION).is_file():  # a corpus with its suite beside it
        options = replace(options, root=suite_file.resolve().parent.parent)
    if options.logger == "wandb":
        os.environ.setdefault(GROUP, suite_file.stem)  # workers inherit it
    target = options.leaderboard or default_leaderboard(options.results)
    with begin_workers(options.jobs) as workers, asking(workers.ask):
        suite = read_suite(
            suite_file,
            methods=options.methods,
            seeds=options.seeds,
            epochs=options.epochs,
            precision=options.precision,
            root=options.root,
        )
        suite = available(suite, options, console)
        generate_simulated(suite, options.root)
        every = _chosen_rows(suite, suite_specs(suite, options.root, options), options, console)
        specs = every[shard]
        settings = replace(
            options,
            measures=check_measures((*suite.measures, *measures)),
            keep=check_kept((*suite.keep, *keep)),
            save_model=options.save_model or suite.save_models,
        )
        before_training(specs, settings, leaderboard=target, elsewhere=bool(options.cluster))

        def check(queue: Sequence[RunSpec]) -> list[str]:
            """Those of the other shards as well: a mistake should not show on one machine while others train."""
            chosen = {spec.sha256: spec for spec in (*missing(every, options.results), *queue)}
            return workers.ask(
                check_specs, list(chosen.values()), options.root, bool(options.cluster), settings.measures
            )

        failed = run_missing(
            specs,
            settings,
            jobs=options.jobs,
            cluster=options.cluster,
            rerun_changed=options.rerun_changed,
            console=console,
            workers=workers,
            check=check,
        )
    if not options.results.is_dir():
        raise FailedRun(f"{options.results} has disappeared during the bench; {target} is left as it is")
    board = read_board(options.results, with_published=options.with_published)
    write_board(board, Layout.of(target))
    tables = "\n".join(board.terminal.get(dataset, "") for dataset in suite.datasets)
    return BenchResult(specs, failed, target, tables, board.problems)


def _chosen_rows(suite: Suite, specs: list[RunSpec], options: BenchOptions, console: Console) -> list[RunSpec]:
    """The runs with the settings of the suite, those with tuned settings, or both of each."""
    path = find_tuned(suite, options.results) if suite.tune and options.rows != "default" else None
    if path is None:
        if options.rows == "tuned":
            raise Misuse(
                f"{suite.where} has no tuned rows for {options.results}: mer-bench tune {suite.file} makes the choice"
            )
        return specs
    tuned, sentences = tuned_specs(suite, specs, path, read_tuned(path))
    for sentence in sentences:
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    both = [(spec if options.rows == "both" else None, tuned.get(spec.sha256)) for spec in specs]
    return [each for pair in both for each in pair if each is not None]


def begin_workers(jobs: int) -> Workers:
    """The workers of a bench, which begin when it has something to do: its own process never imports torch."""
    return Workers(jobs, begin_worker, PRELOAD)


def check_specs(specs: Sequence[RunSpec], root: Path, elsewhere: bool, measures: Sequence[str] = ()) -> list[str]:
    """In a worker: construct the runs before anything trains, see :func:`mer_bench.training.validate.validate`."""
    from mer_bench.training.validate import validate

    return validate(specs, root, elsewhere=elsewhere, measures=measures)


def available(suite: Suite, options: BenchOptions | TuneOptions, console: Console) -> Suite:
    """The suite, or that of its simulated stand-ins where a real corpus is absent or not wanted."""
    real = [name for name in suite.datasets if SIMULATED + name in corpus_facts()]
    absent = [name for name in real if options.corpus == "simulated" or not is_prepared(name, options.root)]
    if not absent:
        return suite
    name, how = absent[0], corpus_facts()[absent[0]].how_to_prepare()
    if options.corpus == "real":
        raise Misuse(f"{name} is not prepared below {options.root}: {how}")
    suite = stand_in(suite)
    if options.corpus == "auto":
        notice = ABSENT.format(
            dataset=name.upper(),
            root=options.root,
            how=how,
            stand_in=suite.datasets[0],
            real=command_here("CORPUS=real", "--corpus real"),
        )
        console.print(notice, markup=False, highlight=False, soft_wrap=True)
    return suite


def _shard(text: str) -> slice:
    """Which of the runs: every N-th, from the I-th on, so that each share has its part of every method."""
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text or "1/1")
    if not found or int(found[1]) > int(found[2]):
        raise Misuse(f"--shard takes I/N with I from 1 to N, such as 3/10, not {text!r}")
    return slice(int(found[1]) - 1, None, int(found[2]))


def run_missing(
    specs: Sequence[RunSpec],
    settings: RunSettings,
    *,
    jobs: int = 1,
    cluster: str = "",
    rerun_changed: bool = False,
    console: Console | None = None,
    workers: Workers | None = None,
    check: Callable[[Sequence[RunSpec]], Sequence[str]] = lambda queue: (),
) -> list[RunSpec]:
    """Run every spec whose record is missing or lacks a measure; returns the specs that failed.

    Workers end with this process, whatever kills it. A run whose worker dies (out of memory, say) is tried once more.
    Runs that another bench is making are left to it.

    Args:
        specs: What there should be a record of.
        settings: Folders, logging and measures of the runs.
        jobs: Worker processes, each of which runs one spec at a time.
        cluster: Run on Ray instead, see :mod:`mer_bench.training.cluster`.
        rerun_changed: Make runs again whose method was edited since, without a new version.
        console: Console that shows progress; None = stderr.
        workers: Processes that run them; None = new ones.
        check: Checks what there is to do before anything trains; returns sentences to show.
    """
    console = console or Console(stderr=True)
    still_missing = partial(
        missing,
        results=settings.results,
        measures=settings.measures,
        rerun_changed=rerun_changed,
        keep=settings.keep,
        save_model=settings.save_model,
    )
    queue = still_missing(specs)
    for sentence in check(queue) if queue else ():
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    changed = _changed(specs, settings.results)
    if changed and not rerun_changed:
        names = ", ".join(dict.fromkeys(spec.method for spec in changed))
        console.print(
            f"{len(changed)} records were made by other code, of the same version, of {names}: "
            f"--rerun-changed{command_here(' (RERUN_CHANGED=1)', '')} makes them again",
            soft_wrap=True,
        )
    lacking = sum(spec.path(settings.results).is_file() for spec in queue if not (rerun_changed and spec in changed))
    tasks = [
        f"{verb} {' and '.join(names)}"
        for verb, names in (("measure", settings.measures), ("keep", settings.keep))
        if names
    ]
    tasks += ["save the model"] if settings.save_model else []
    measuring = f", {lacking} of them to {' and to '.join(tasks)}" if lacking else ""
    console.print(f"{len(specs)} runs: {len(specs) - len(queue)} recorded, {len(queue)} to do{measuring}")
    for sentence in skipped(specs, settings.measures):
        console.print(sentence)
    if not queue:
        return []
    failed, finished = [], []
    with (
        nullcontext(workers) if workers else begin_workers(jobs) as processes,
        Display(console, len(queue)) as display,
        Claims(settings.results) as claims,
    ):

        def fail(spec: RunSpec, reason: str) -> None:
            failed.append(spec)
            display.failed(spec, reason)

        def note(spec: RunSpec, reason: str) -> None:
            fail(spec, _note_failure(spec, reason, settings.results))

        shared = SharedQueue(queue, settings.results, still_missing, claims, note)
        with closing(_execute_all(iter(shared), settings, processes, cluster, display)) as results:
            for (spec, earlier), result in results:
                try:
                    record = _recorded(spec, result, settings.results)
                except Misuse as error:
                    note(spec, str(error))
                else:
                    finished.append(spec)
                    display.finished(spec, record, earlier)
                claims.give_back(spec)
        sentences = shared.close()
        for spec in shared.failed:
            fail(spec, "in another bench, see the note beside the records")
        for spec in finished:
            if is_first_machine(spec) and not spec.path(settings.results).is_file():
                fail(spec, f"its record has disappeared: {spec.path(settings.results)}")
    for sentence in sentences:
        console.print(sentence, highlight=False, soft_wrap=True)
    return failed


def _changed(specs: Sequence[RunSpec], results: Path) -> list[RunSpec]:
    """The runs whose records were made by other code than today's, of the same version."""
    found = []
    for spec in specs:
        if spec.is_trial:
            continue
        with suppress(Misuse):  # the leaderboard names records that cannot be read
            if is_changed(read_record(spec.path(results))):
                found.append(spec)
    return found


def _execute_all(
    todo: Iterator[Job], settings: RunSettings, workers: Workers, cluster: str, display: Display
) -> Generator[tuple[Job, Result], None, None]:
    """What comes of each job, see :func:`mer_bench.training.execute.execute_job`."""
    if cluster:
        from mer_bench.training.cluster import run_on_cluster

        return run_on_cluster(todo, settings, cluster, workers=workers.number)
    return workers.run(
        partial(execute_job, settings=settings),
        todo,
        crashed=lambda job: "the worker process died twice (out of memory?)",
        started=lambda job: display.started(job[0]),
        waiting=lambda: display.update(workers.messages),
    )


def _recorded(spec: RunSpec, result: Result, results: Path) -> RunRecord | TrialRecord | None:
    """The record of a run, which stands in its file now; None where the first machine has it.

    Raises:
        Misuse: there is none, for the reason that the message gives.
    """
    if isinstance(result, str):
        raise Misuse(result)
    path = spec.path(results)
    if isinstance(result, TrialRecord):
        write_trial(result, results)
        return result
    if result is not None:
        write_record(result, results)
        return result
    if path.is_file():
        return read_record(path)
    if is_first_machine(spec):
        raise Misuse(f"the run has ended, but its record is not there: {path}")
    return None


def _note_failure(spec: RunSpec, reason: str, results: Path) -> str:
    """Note beside the records why a run failed; returns the last line of the reason, with the path of the note."""
    try:
        note = str(write_failure(spec, results, reason))
    except Misuse as error:  # a full disk must not stop the runs that may still fit
        note = str(error)
    return printable(f"{reason.strip().splitlines()[-1]} ({note})")
