"""Benches: killed, interrupted, side by side, and with workers that die; nothing finished is lost or done twice."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import active_children
from pathlib import Path

import performance
import pytest
from performance import spec
from rich.console import Console
from suites import SUITE, execute_and_write

from mer_bench.records import RunSpec, load_records, read_record, write_record
from mer_bench.training import bench as benches
from mer_bench.training.bench import run_missing
from mer_bench.training.execute import missing
from mer_bench.training.options import BenchOptions, RunSettings
from mer_bench.training.suite import generate_simulated, suite_specs

if not Path("/proc/self/stat").is_file():
    pytest.skip("processes are watched through /proc", allow_module_level=True)


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain: {what}"
        time.sleep(0.01)


# With training: the command itself in a process group of its own


@dataclass(frozen=True)
class Ground:
    """A suite and where it runs."""

    suite: Path
    root: Path
    results: Path

    def arguments(self, *more: str) -> list[str]:
        settings = ["--data", str(self.root), "--results", str(self.results), "--logger", "none"]
        return ["bench", str(self.suite), *settings, *more]

    def records(self) -> dict[str, Path]:
        return {path.name: path for path in self.results.glob("*/*/*.json")}

    def predictions(self) -> dict[str, tuple[list[int], list[int], list[dict[str, float]]]]:
        return {
            name: (record.test_index, record.test_predictions, record.curve)
            for name, record in ((name, read_record(path)) for name, path in self.records().items())
        }


def bench_here(ground: Ground, monkeypatch: pytest.MonkeyPatch, *more: str) -> int:
    """The command line in this process (its workers are others); returns the exit code."""
    from mer_bench.cli import main

    monkeypatch.setattr(sys, "argv", ["mer-bench", *ground.arguments(*more)])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """The runs of the suite one after the other in this process, as a bench with one job that ran through."""
    from mer_bench.training.suite import read_suite

    folder = tmp_path_factory.mktemp("bench")
    ground = Ground(folder / "suite.toml", folder / "data", folder / "results")
    ground.suite.write_text(SUITE, encoding="utf-8")
    suite = read_suite(ground.suite)
    generate_simulated(suite, ground.root)
    for each in suite_specs(suite, ground.root):
        assert execute_and_write(each, RunSettings(ground.root, ground.results, "none"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert bench_here(ground, monkeypatch) == 0  # finds all done, writes the leaderboard
    assert len(ground.records()) == 12
    return ground


def start(ground: Ground, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "mer_bench", *ground.arguments()],
            stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True,
            # a test run that a shell put in the background has SIGINT ignored, and children inherit that
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip


def descendants(pid: int) -> set[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended meanwhile
            continue
    found, ahead = set(), {pid}
    while ahead:
        ahead = {child for child, parent in parents.items() if parent in ahead}
        found |= ahead
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def run_until_the_first_record(ground: Ground, log: Path) -> tuple[subprocess.Popen[bytes], set[int]]:
    process = start(ground, log)
    try:
        wait_until(lambda: bool(ground.records()) or process.poll() is not None, 120, "a first record")
        assert process.poll() is None, log.read_text()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process, descendants(process.pid)


def test_a_killed_bench_leaves_no_worker_and_no_half_record_and_the_next_runs_exactly_what_is_missing(
    uninterrupted: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = Ground(uninterrupted.suite, uninterrupted.root, tmp_path / "results")
    process, workers = run_until_the_first_record(ground, tmp_path / "log")
    process.kill()
    process.wait()
    assert workers
    wait_until(lambda: not any(map(alive, workers)), 20, "the workers of a killed bench end")
    records, problems = load_records(ground.results)
    assert not problems
    assert 1 <= len(records) < 12
    before = {name: (path.stat().st_mtime_ns, path.stat().st_ino) for name, path in ground.records().items()}

    assert bench_here(ground, monkeypatch, "--jobs", "2") == 0
    after = ground.records()
    assert {name: (after[name].stat().st_mtime_ns, after[name].stat().st_ino) for name in before} == before
    # one job, then killed, then two jobs: the same runs and the same numbers as one after the other
    assert ground.predictions() == uninterrupted.predictions()
    left = [p.name for p in ground.results.rglob("*") if p.is_file() and p.name not in after]
    assert [name for name in left if not name.endswith(".tmp")] == ["leaderboard.md"]


def test_ctrl_c_is_one_sentence_and_exit_code_130_and_keeps_what_is_finished(
    uninterrupted: Ground, tmp_path: Path
) -> None:
    ground = Ground(uninterrupted.suite, uninterrupted.root, tmp_path / "results")
    process, workers = run_until_the_first_record(ground, tmp_path / "log")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the bench and to its workers
    assert process.wait(60) == 130
    wait_until(lambda: not any(map(alive, workers)), 20, "the workers of an interrupted bench end")
    said = (tmp_path / "log").read_text()
    assert said.rstrip().endswith(
        "error: interrupted; every finished run is recorded, the same command goes on from there"
    )
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said
    finished = ground.predictions()
    assert 1 <= len(finished) < 12
    assert finished.items() <= uninterrupted.predictions().items()


def test_a_bench_that_is_done_starts_no_worker_and_changes_no_byte(
    uninterrupted: Ground, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setattr(ProcessPoolExecutor, "submit", refuse)
    before = {path: path.read_bytes() for path in uninterrupted.results.rglob("*") if path.is_file()}
    assert bench_here(uninterrupted, monkeypatch) == 0
    assert {path: path.read_bytes() for path in uninterrupted.results.rglob("*") if path.is_file()} == before
    assert "12 runs: 12 recorded, 0 to do" in capsys.readouterr().err


def test_python_calls_what_the_command_calls(uninterrupted: Ground) -> None:
    said = io.StringIO()
    options = BenchOptions(uninterrupted.root, uninterrupted.results, "none", methods=("majority",), shard="1/2")
    result = benches.bench(uninterrupted.suite, options, Console(file=said, width=300))
    assert "3 runs: 3 recorded, 0 to do" in said.getvalue()
    assert {(spec.method, spec.fold % 2) for spec in result.specs} == {("majority", 1)}
    assert (result.failed, result.problems) == ([], [])
    assert result.leaderboard == uninterrupted.results / "leaderboard.md"
    assert "unimodal" in result.tables


# Without training: workers whose method's name says what they do


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunSettings:
    monkeypatch.setattr(benches, "execute_job", performance.execute_job)
    monkeypatch.setattr(benches, "begin_worker", performance.begin)
    (tmp_path / "tries").mkdir()
    return RunSettings(tmp_path, tmp_path / "results", log_folder=tmp_path / "tries")


def perform(specs: list[RunSpec], settings: RunSettings, jobs: int = 1) -> tuple[list[RunSpec], str]:
    said = io.StringIO()
    failed = run_missing(specs, settings, jobs=jobs, console=Console(file=said, width=300))
    return failed, said.getvalue()


def tries(settings: RunSettings, spec: RunSpec) -> int:
    return (settings.log_folder / f"{spec.method}-{spec.seed}").stat().st_size


def note(spec: RunSpec, settings: RunSettings) -> Path:
    path = spec.path(settings.results)
    return path.with_name(f"{path.stem}.failed.json")


def test_a_run_whose_worker_dies_is_tried_once_more_then_noted_and_the_others_go_on(stage: RunSettings) -> None:
    bad, first, second = spec("dies"), spec("works", 1), spec("works", 2)
    failed, said = perform([bad, first, second], stage)
    assert failed == [bad]
    assert tries(stage, bad) == 2
    assert missing([bad, first, second], stage.results) == [bad]
    assert tries(stage, first) == tries(stage, second) == 1
    assert "the worker process died twice" in json.loads(note(bad, stage).read_text())["reason"]
    assert "failed dies" in said
    assert load_records(stage.results)[1] == []


def test_a_run_whose_worker_dies_once_is_recorded_and_has_not_failed(stage: RunSettings) -> None:
    unlucky = spec("dies_once")
    failed, _ = perform([unlucky, spec("works")], stage)
    assert failed == []
    assert tries(stage, unlucky) == 2
    assert missing([unlucky, spec("works")], stage.results) == []
    assert not note(unlucky, stage).exists()


def test_runs_beside_one_whose_worker_dies_are_not_blamed_for_it(stage: RunSettings) -> None:
    bad, neighbour = spec("dies_beside"), spec("sleeps")
    failed, _ = perform([bad, neighbour], stage, jobs=2)
    assert failed == [bad]
    assert missing([bad, neighbour], stage.results) == [bad]
    assert not note(neighbour, stage).exists()


def test_a_worker_that_is_killed_from_outside_is_replaced(stage: RunSettings) -> None:
    waiting = stage.log_folder / "waits-0"
    killed: list[int | None] = []

    def kill_twice() -> None:
        for attempt in (1, 2):
            wait_until(lambda n=attempt: waiting.is_file() and waiting.stat().st_size == n, 60, "the run is at work")
            for worker in active_children():
                killed.append(worker.pid)
                worker.kill()

    killer = threading.Thread(target=kill_twice)
    killer.start()
    failed, _ = perform([spec("waits"), spec("works")], stage)
    killer.join()
    assert failed == [spec("waits")]
    assert len(set(killed)) == 2
    assert spec("works").path(stage.results).is_file()


def test_a_run_that_raises_is_noted_with_its_traceback_and_tried_again_by_the_next_bench(
    stage: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = spec("raises"), spec("works")
    failed, said = perform([bad, good], stage)
    assert failed == [bad]
    assert tries(stage, bad) == 1
    assert good.path(stage.results).is_file()
    assert "ValueError: no [bold]luck[/bold]" in said  # the reason as it is, no markup
    assert "Traceback" not in said
    content = json.loads(note(bad, stage).read_text())
    assert content["reason"].startswith("Traceback")
    assert content["spec"]["method"] == "raises"
    assert load_records(stage.results) == ([read_record(good.path(stage.results))], [])

    failed, said = perform([bad, good], stage)
    assert failed == [bad]
    assert tries(stage, bad) == 2
    assert tries(stage, good) == 1
    assert "2 runs: 1 recorded, 1 to do" in said


def test_a_record_replaces_the_note_of_an_earlier_failure(stage: RunSettings) -> None:
    unlucky = spec("works")
    from mer_bench.records import write_failure

    write_failure(unlucky, stage.results, "out of luck")
    assert note(unlucky, stage).is_file()
    assert perform([unlucky], stage)[0] == []
    assert not note(unlucky, stage).exists()


def test_a_record_that_lacks_a_measure_is_replaced_only_by_one_that_has_it(stage: RunSettings) -> None:
    asking = replace(stage, measures=("robustness",))
    whole, lacking, bad = spec("works", 1), spec("works", 2), spec("raises")
    assert perform([whole, lacking], stage)[0] == []
    record = read_record(whole.path(stage.results))
    write_record(replace(record, robustness={}), stage.results)
    before = write_record(replace(record, spec=bad), stage.results).read_bytes()
    failed, said = perform([whole, lacking, bad], asking)
    assert "3 runs: 1 recorded, 2 to do, 2 of them to measure robustness" in said
    assert failed == [bad]
    assert bad.path(stage.results).read_bytes() == before
    assert tries(stage, whole) == 1
    assert tries(stage, lacking) == 2
    assert "predictions differ" not in said


def test_a_warning_says_when_a_record_is_replaced_by_one_with_other_predictions(stage: RunSettings) -> None:
    one = spec("works")
    assert perform([one], stage)[0] == []
    record = read_record(one.path(stage.results))
    write_record(replace(record, test_predictions=[1]), stage.results)
    failed, said = perform([one], replace(stage, measures=("literature",)))
    assert failed == []
    assert said.count(f"warning works {one.name}: 1 predictions differ from the record that this one replaces") == 1
    assert read_record(one.path(stage.results)) == record


def test_what_a_strategy_cannot_measure_is_said_once_and_not_waited_for(stage: RunSettings) -> None:
    sharded = [replace(spec("works", seed), strategy="fsdp", devices=2) for seed in range(2)]
    asking = replace(stage, measures=("literature", "robustness"))
    _, said = perform(sharded, asking)
    for name in asking.measures:
        assert said.count(f"{name} is not measured under strategy 'fsdp', which shards the weights\n") == 1
    assert missing(sharded, stage.results, asking.measures) == []


def test_the_command_measures_what_the_suite_and_the_option_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ground = Ground(tmp_path / "suite.toml", tmp_path / "data", tmp_path / "results")
    ground.suite.write_text('measure = ["literature"]\n' + SUITE, encoding="utf-8")
    asked: list[tuple[str, ...]] = []
    valid = "valid are literature, robustness, efficiency"

    def note_down(specs: object, settings: RunSettings, **_: object) -> list[RunSpec]:
        asked.append(settings.measures)
        return []

    monkeypatch.setattr(benches, "run_missing", note_down)
    assert bench_here(ground, monkeypatch, "--measure", "efficiency, literature", "--measure", "robustness") == 0
    assert bench_here(ground, monkeypatch, "--measure", "") == 0  # as make says it when MEASURE is not set
    assert asked == [("literature", "efficiency", "robustness"), ("literature",)]
    capsys.readouterr()
    assert bench_here(ground, monkeypatch, "--measure", "robustnes") == 2
    assert capsys.readouterr().err == f"error: unknown measure 'robustnes': did you mean 'robustness'? {valid}\n"
    ground.suite.write_text('measure = ["literatur"]\n' + SUITE, encoding="utf-8")
    assert bench_here(ground, monkeypatch) == 2
    expected = f"error: unknown measure in suite {ground.suite} 'literatur': did you mean 'literature'? {valid}\n"
    assert capsys.readouterr().err == expected


def test_jobs_run_side_by_side(stage: RunSettings) -> None:
    specs = [spec("sleeps", seed) for seed in range(2)]
    seen = 0

    def watch() -> None:
        nonlocal seen
        both = [stage.log_folder / f"sleeps-{seed}" for seed in range(2)]
        wait_until(lambda: all(path.is_file() for path in both), 60, "both runs have started")
        seen = sum(s.path(stage.results).is_file() for s in specs)

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert perform(specs, stage, jobs=2)[0] == []
    watcher.join()
    assert seen == 0, "the second started only after the first was done"


def test_results_that_cannot_be_written_fail_each_run_with_a_sentence(stage: RunSettings) -> None:
    (stage.results.parent / "results").write_text("a file where the folder should be")
    specs = [spec("works", seed) for seed in range(2)]
    failed, said = perform(specs, stage)
    assert failed == specs
    assert said.count("cannot write") >= 2
    assert "Traceback" not in said
    assert stage.results.read_text() == "a file where the folder should be"


def test_a_bench_leaves_no_worker_behind(stage: RunSettings) -> None:
    perform([spec("works", seed) for seed in range(3)], stage, jobs=2)
    wait_until(lambda: not active_children(), 10, "the workers end")
