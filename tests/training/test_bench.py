"""Benches: killed, interrupted, side by side, and with workers that die; no finished run is lost or repeated."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import pytest
from fake_runs import spec
from rich.console import Console
from suites import (
    INTERRUPTED,
    Call,
    Workspace,
    attempts,
    execute_and_write,
    exit_code,
    perform,
    spec_of,
    started,
    wait_until,
    write_suite,
)

from benchmarks.speed.scaling import ancestors
from mer_bench.errors import Misuse
from mer_bench.fusion import METHODS
from mer_bench.records import RunSpec, load_records, read_record, write_failure, write_record
from mer_bench.report.cache import FOLDER
from mer_bench.training import bench as benches
from mer_bench.training.execute import missing
from mer_bench.training.options import BenchOptions, RunSettings
from mer_bench.training.validate import validate

if not Path("/proc/self/stat").is_file():
    pytest.skip("processes are watched through /proc", allow_module_level=True)


# With training: the command itself in a process group of its own


def records(results: Path) -> dict[str, Path]:
    return {path.name: path for path in results.glob("*/*/*.json")}


def predictions(results: Path) -> dict[str, tuple[list[int], list[int], list[dict[str, float]]]]:
    found = {name: read_record(path) for name, path in records(results).items()}
    return {name: (record.test_index, record.test_predictions, record.curve) for name, record in found.items()}


@pytest.fixture(scope="module")
def uninterrupted(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace whose runs were executed one after the other in this process."""
    folder = tmp_path_factory.mktemp("bench")
    workspace = Workspace(write_suite(folder / "suite.toml"), root, folder / "results")
    for each in workspace.specs():
        execute_and_write(each, RunSettings(root, workspace.results, "none"))
    assert exit_code(*workspace.bench()) == 0  # finds all runs recorded and writes the leaderboard
    assert len(records(workspace.results)) == 12
    return workspace


def descendants(pid: int) -> list[int]:
    found = []
    for name in (folder.name for folder in Path("/proc").glob("[0-9]*")):
        with suppress(OSError):  # the process has ended meanwhile
            if pid in ancestors(name):
                found.append(int(name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def end_at_the_first_record(workspace: Workspace, log: Path, sent: signal.Signals) -> int:
    """Send a signal to a bench; returns its exit code when its worker processes have ended too."""
    with started(log, *workspace.bench()) as process:
        wait_until(lambda: records(workspace.results), 120, "there is a first record", process)
        workers = descendants(process.pid)
        if sent == signal.SIGINT:
            os.killpg(process.pid, sent)  # a terminal sends it to the bench and to its workers
        else:
            process.send_signal(sent)
        code = process.wait(60)
        assert workers
        wait_until(lambda: not any(map(alive, workers)), 20, "the workers have ended")
        return code


def test_a_killed_bench_leaves_no_worker_and_no_half_record_and_the_next_runs_exactly_what_is_missing(
    uninterrupted: Workspace, workspace: Workspace, tmp_path: Path
) -> None:
    end_at_the_first_record(workspace, tmp_path / "log", signal.SIGKILL)
    loaded, problems = load_records(workspace.results)
    assert not problems
    assert 1 <= len(loaded) < 12
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in records(workspace.results).values()}

    assert exit_code(*workspace.bench("--jobs", "2")) == 0
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in before} == before
    # one job, then killed, then two jobs: the same runs and the same numbers as one after the other
    assert predictions(workspace.results) == predictions(uninterrupted.results)
    shutil.rmtree(workspace.results / FOLDER)
    others = {path.name for path in workspace.results.rglob("*") if path.is_file()} - set(records(workspace.results))
    pages = {path.name for path in (workspace.results / "tables").iterdir()}
    assert {name for name in others if not name.endswith(".tmp")} == {"leaderboard.md", *pages}


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_bench_says_one_sentence_exits_with_130_and_keeps_what_is_finished(
    uninterrupted: Workspace, workspace: Workspace, tmp_path: Path, sent: signal.Signals
) -> None:
    assert end_at_the_first_record(workspace, tmp_path / "log", sent) == 130
    text = (tmp_path / "log").read_text()
    assert text.rstrip().endswith(f"error: {INTERRUPTED}")
    assert "Traceback" not in text
    assert "KeyboardInterrupt" not in text
    finished = predictions(workspace.results)
    assert 1 <= len(finished) < 12
    assert finished.items() <= predictions(uninterrupted.results).items()


def test_a_bench_that_is_done_starts_no_worker_and_changes_no_byte(
    uninterrupted: Workspace, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in uninterrupted.results.rglob("*") if path.is_file()}

    def refuse(*_: object) -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setattr(ProcessPoolExecutor, "submit", refuse)
    before = contents()
    answer = call(*uninterrupted.bench())
    assert answer.code == 0
    assert contents() == before
    assert "12 runs: 12 recorded, 0 to do" in answer.err


def test_a_bench_that_is_done_has_imported_neither_torch_nor_pandas(uninterrupted: Workspace) -> None:
    code = "import atexit, sys; atexit.register(lambda: print(*sys.modules)); from mer_bench.cli import main; main()"
    command = [sys.executable, "-c", code, *uninterrupted.bench()]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "12 runs: 12 recorded, 0 to do" in found.stderr
    loaded = {name.partition(".")[0] for name in found.stdout.split()}
    assert "mer_bench" in loaded
    assert not loaded & {"torch", "lightning", "pandas", "scipy"}


@pytest.mark.usefixtures("_workers_are_this_process")
@pytest.mark.parametrize(
    ("changes", "more", "sentence"),
    [
        ("hidden = 8", "hidden = -8", "option hidden of unimodal must be a whole number from 1 on, not -8"),
        ('"folds6"', '"folds5"', "unknown protocol of simulated-ravdess 'folds5': did you mean 'folds6'? "),
        ('"simulated-audio"', '"wavlm"', "no feature set 'wavlm' in "),
    ],
)
def test_a_mistake_in_a_suite_is_one_sentence_before_anything_trains(
    workspace: Workspace, call: Call, changes: str, more: str, sentence: str
) -> None:
    text = workspace.suite.read_text(encoding="utf-8")
    assert changes in text
    workspace.suite.write_text(text.replace(changes, more), encoding="utf-8")
    answer = call(*workspace.bench())
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"error: {sentence}")
    assert answer.err.count("\n") == 1
    assert not records(workspace.results)


def test_facts_that_the_code_of_a_method_contradicts_are_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = spec_of(root)
    validate([chosen], root)
    monkeypatch.setattr(METHODS["unimodal"], "version", 99)
    with pytest.raises(Misuse, match=r"^methods\.json does not state what the code of the method 'unimodal' now is"):
        validate([chosen], root)


def test_the_function_bench_does_what_the_command_does(uninterrupted: Workspace) -> None:
    output = io.StringIO()
    options = BenchOptions(uninterrupted.root, uninterrupted.results, "none", methods=("majority",), shard="1/2")
    result = benches.bench(uninterrupted.suite, options, Console(file=output, width=300))
    assert "3 runs: 3 recorded, 0 to do" in output.getvalue()
    assert {(spec.method, spec.fold % 2) for spec in result.specs} == {("majority", 1)}
    assert (result.failed, result.problems) == ([], [])
    assert result.leaderboard == uninterrupted.results / "leaderboard.md"
    assert "unimodal" in result.tables


# Without training: workers for which the name of the method says what its run does


def note(spec: RunSpec, settings: RunSettings) -> Path:
    """Return the path of the note of a failure."""
    path = spec.path(settings.results)
    return path.with_name(f"{path.stem}.failed.json")


def test_a_run_whose_worker_dies_is_tried_once_more_then_noted_and_the_others_are_done(settings: RunSettings) -> None:
    specs = [spec("dies"), spec("works", 1), spec("works", 2)]
    failed, output = perform(specs, settings)
    assert failed == missing(specs, settings.results) == [spec("dies")]
    assert attempts(settings, *specs) == [2, 1, 1]
    assert "the worker process died twice" in json.loads(note(spec("dies"), settings).read_text())["reason"]
    assert "failed dies" in output
    assert load_records(settings.results)[1] == []


def test_a_run_whose_worker_dies_once_is_recorded_and_has_not_failed(settings: RunSettings) -> None:
    specs = [spec("dies_once"), spec("works")]
    assert perform(specs, settings)[0] == missing(specs, settings.results) == []
    assert attempts(settings, spec("dies_once")) == [2]
    assert not note(spec("dies_once"), settings).exists()


def test_runs_beside_one_whose_worker_dies_are_not_blamed_for_it(settings: RunSettings) -> None:
    specs = [spec("dies_beside"), spec("sleeps")]
    assert perform(specs, settings, jobs=2)[0] == missing(specs, settings.results) == [spec("dies_beside")]
    assert not note(spec("sleeps"), settings).exists()


def test_a_worker_that_is_killed_from_outside_is_replaced(settings: RunSettings) -> None:
    waiting = settings.log_folder / "waits-0"
    killed: list[int | None] = []

    def kill_twice() -> None:
        for attempt in (1, 2):
            wait_until(lambda n=attempt: waiting.is_file() and waiting.stat().st_size == n, 60, "the run has started")
            for worker in active_children():
                killed.append(worker.pid)
                worker.kill()

    killer = threading.Thread(target=kill_twice)
    killer.start()
    failed, _ = perform([spec("waits"), spec("works")], settings)
    killer.join()
    assert failed == [spec("waits")]
    assert len(set(killed)) == 2
    assert spec("works").path(settings.results).is_file()


def test_a_run_that_raises_is_noted_with_its_traceback_and_tried_again_by_the_next_bench(settings: RunSettings) -> None:
    bad, good = spec("raises"), spec("works")
    failed, output = perform([bad, good], settings)
    assert failed == [bad]
    assert attempts(settings, bad) == [1]
    assert good.path(settings.results).is_file()
    assert "ValueError: no [bold]luck[/bold]" in output  # square brackets are no markup
    assert "Traceback" not in output
    content = json.loads(note(bad, settings).read_text())
    assert content["reason"].startswith("Traceback")
    assert content["spec"]["method"] == "raises"
    assert load_records(settings.results) == ([read_record(good.path(settings.results))], [])

    failed, output = perform([bad, good], settings)
    assert failed == [bad]
    assert attempts(settings, bad, good) == [2, 1]
    assert "2 runs: 1 recorded, 1 to do" in output


def test_a_record_replaces_the_note_of_an_earlier_failure(settings: RunSettings) -> None:
    assert write_failure(spec("works"), settings.results, "out of memory") == note(spec("works"), settings)
    assert note(spec("works"), settings).is_file()
    assert perform([spec("works")], settings)[0] == []
    assert not note(spec("works"), settings).exists()


def test_a_record_that_lacks_a_measure_is_replaced_only_by_one_that_has_it(settings: RunSettings) -> None:
    whole, lacking, bad = spec("works", 1), spec("works", 2), spec("raises")
    assert perform([whole, lacking], settings)[0] == []
    record = read_record(whole.path(settings.results))
    write_record(replace(record, robustness={}), settings.results)
    before = write_record(replace(record, spec=bad), settings.results).read_bytes()
    failed, output = perform([whole, lacking, bad], replace(settings, measures=("robustness",)))
    assert "3 runs: 1 recorded, 2 to do, 2 of them to measure robustness" in output
    assert failed == [bad]
    assert bad.path(settings.results).read_bytes() == before
    assert attempts(settings, whole, lacking) == [1, 2]
    assert "predictions differ" not in output


def test_a_warning_says_when_a_record_is_replaced_by_one_with_other_predictions(settings: RunSettings) -> None:
    one = spec("works")
    assert perform([one], settings)[0] == []
    record = read_record(one.path(settings.results))
    write_record(replace(record, test_confusion=[[0, 2], [0, 1]], test_predictions=[1, 1, 1]), settings.results)
    failed, output = perform([one], replace(settings, measures=("literature",)))
    assert failed == []
    assert output.count(f"warning works {one.name}: 1 predictions differ from the record that this one replaces") == 1
    assert read_record(one.path(settings.results)) == record


def test_what_a_strategy_cannot_measure_is_reported_once_and_is_not_missing(settings: RunSettings) -> None:
    sharded = [replace(spec("works", seed), strategy="fsdp", devices=2) for seed in range(2)]
    measures = ("literature", "robustness")
    _, output = perform(sharded, replace(settings, measures=measures))
    for name in measures:
        assert output.count(f"{name} is not measured under strategy 'fsdp', which shards the weights\n") == 1
    assert missing(sharded, settings.results, measures) == []


def test_the_command_measures_what_the_suite_and_the_option_name(
    workspace: Workspace, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    measures: list[tuple[str, ...]] = []

    def run_nothing(specs: object, settings: RunSettings, **_: object) -> list[RunSpec]:
        measures.append(settings.measures)
        return []

    monkeypatch.setattr(benches, "run_missing", run_nothing)
    suite = workspace.suite.read_text(encoding="utf-8")
    workspace.suite.write_text('measure = ["literature"]\n' + suite, encoding="utf-8")
    assert call(*workspace.bench("--measure", "efficiency, literature", "--measure", "robustness")).code == 0
    assert call(*workspace.bench("--measure", "")).code == 0  # as make calls it when MEASURE is not set
    assert measures == [("literature", "efficiency", "robustness"), ("literature",)]

    valid = "valid are literature, robustness, efficiency, gradients, temperature, raters, transfer:CORPUS"
    wrong = call(*workspace.bench("--measure", "robustnes"))
    error = f"error: unknown measure 'robustnes': did you mean 'robustness'? {valid}\n"
    assert (wrong.code, wrong.err) == (2, error)
    workspace.suite.write_text('measure = ["literatur"]\n' + suite, encoding="utf-8")
    wrong = call(*workspace.bench())
    error = f"error: unknown measure in suite {workspace.suite} 'literatur': did you mean 'literature'? {valid}\n"
    assert (wrong.code, wrong.err) == (2, error)


def test_jobs_run_side_by_side(settings: RunSettings) -> None:
    specs = [spec("sleeps", seed) for seed in range(2)]
    seen = 0

    def watch() -> None:
        nonlocal seen
        wait_until(lambda: len(list(settings.log_folder.glob("sleeps-*"))) == 2, 60, "both runs have started")
        seen = sum(s.path(settings.results).is_file() for s in specs)

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert perform(specs, settings, jobs=2)[0] == []
    watcher.join()
    assert seen == 0, "the second started only after the first was done"


def test_results_that_cannot_be_written_fail_each_run_with_a_sentence(settings: RunSettings) -> None:
    (settings.results.parent / "results").write_text("a file where the folder should be")
    specs = [spec("works", seed) for seed in range(2)]
    failed, output = perform(specs, settings)
    assert failed == specs
    assert output.count("cannot write") >= 2
    assert "Traceback" not in output
    assert settings.results.read_text() == "a file where the folder should be"


def test_a_bench_leaves_no_worker_behind(settings: RunSettings) -> None:
    perform([spec("works", seed) for seed in range(3)], settings, jobs=2)
    wait_until(lambda: not active_children(), 10, "the workers end")
