"""Benches that share a results folder: each run is made by one of them, and nobody waits for another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fake_runs
import pytest
from fake_runs import spec
from suites import RAVDESS, Call, Workspace, attempts, perform, spec_of, wait_until

from mer_bench.processes import Process, find_process
from mer_bench.records import RunSpec, load_records, read_record, write_failure, write_record
from mer_bench.training import bench as benches
from mer_bench.training import claims as claiming
from mer_bench.training.claims import Claims, announced, lock_path, remove_stale
from mer_bench.training.execute import missing
from mer_bench.training.options import RunSettings


def locks(results: Path) -> list[str]:
    return [path.name for path in results.rglob("*.lock")]


ONE = spec("works")
CODE = """
import sys, time
sys.path[:0] = [{tests!r}]
from pathlib import Path
from fake_runs import spec
from mer_bench.training.claims import Claims
with Claims(Path({results!r})) as claims:
    print(claims.take(spec("works")), flush=True)
    sys.stdin.read()
"""


def other_process(results: Path) -> subprocess.Popen[str]:
    """A process that tries to claim a run, prints whether it could, and holds it until its input is closed."""
    code = CODE.format(tests=str(Path(fake_runs.__file__).parent), results=str(results))
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_claimed_run_is_refused_to_others_until_it_is_given_back(tmp_path: Path) -> None:
    with Claims(tmp_path) as mine, Claims(tmp_path) as others:
        assert mine.take(ONE)
        assert not others.take(ONE)
        content = json.loads(lock_path(ONE, tmp_path).read_text())
        assert content["pid"] == os.getpid()
        assert {"host", "started"} <= set(content)
        mine.give_back(ONE)
        assert others.take(ONE)
    assert locks(tmp_path) == []


def test_the_lock_of_a_living_process_holds_and_that_of_a_killed_one_is_taken_over(tmp_path: Path) -> None:
    with other_process(tmp_path) as process, Claims(tmp_path) as claims:
        try:
            assert answer(process) == "True"
            remove_stale(tmp_path)
            assert not claims.take(ONE)
        finally:
            process.kill()
            process.wait()
        assert claims.take(ONE)
    assert locks(tmp_path) == []


def test_of_several_benches_one_takes_a_stale_lock_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(text: str) -> Process | None:  # all have read the lock before the first one writes it
        time.sleep(0.1)
        return find_process(text)

    monkeypatch.setattr(claiming, "find_process", slowly)
    leave_lock(tmp_path, started=1)
    barrier, taken = threading.Barrier(8, timeout=20), []

    def take() -> None:
        with Claims(tmp_path) as claims:
            barrier.wait()
            taken.append(claims.take(ONE))
            barrier.wait()

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 1


def leave_lock(results: Path, *, system: str | None = None, started: int = 0, age: float = 0) -> Path:
    """A lock of another process: of another machine, or of an earlier process with the number of this one."""
    me = claiming.this_process()
    owner = Process(system or me.system, me.pid, started)
    path = lock_path(ONE, results)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"host": "there", "pid": owner.pid, "started": started, "process": str(owner)}))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


@pytest.mark.parametrize(
    ("lock", "taken"),
    [
        ({"started": 1}, True),  # a recycled number
        ({"system": "0" * 12, "age": 60}, False),  # another machine, which gave a sign of life
        ({"system": "0" * 12, "age": 1000}, True),
    ],
)
def test_which_locks_are_stale(tmp_path: Path, lock: dict[str, int], taken: bool) -> None:
    path = leave_lock(tmp_path, **lock)  # type: ignore[arg-type]
    remove_stale(tmp_path)
    assert path.exists() is not taken
    leave_lock(tmp_path, **lock)  # type: ignore[arg-type]
    with Claims(tmp_path) as claims:
        assert claims.take(ONE) is taken
        assert ("there" in path.read_text()) is not taken
    assert path.exists() is not taken


def test_a_lock_without_content_is_held_by_the_process_that_has_just_made_it(tmp_path: Path) -> None:
    path = leave_lock(tmp_path)
    path.write_text("")
    with Claims(tmp_path) as claims:
        assert not claims.take(ONE)
        os.utime(path, (0, 0))
        assert claims.take(ONE)


def test_a_claim_gives_signs_of_life_and_a_lost_one_is_left_to_its_new_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claiming, "TOUCH", 0.05)
    with Claims(tmp_path) as claims:
        assert claims.take(ONE)
        path = lock_path(ONE, tmp_path)
        os.utime(path, (0, 0))
        wait_until(lambda: path.stat().st_mtime > 0, 10, "the lock is touched")
        leave_lock(tmp_path, system="0" * 12)
    assert locks(tmp_path) != []


def test_a_lock_is_no_record(tmp_path: Path) -> None:
    leave_lock(tmp_path)
    assert load_records(tmp_path) == ([], [])


# Benches


def test_a_bench_leaves_a_claimed_run_to_its_owner_does_the_others_and_says_so(settings: RunSettings) -> None:
    specs = [ONE, spec("works", 1), spec("raises")]
    with other_process(settings.results) as process:
        assert answer(process) == "True"
        failed, output = perform(specs, settings)
        assert failed == [spec("raises")]
        assert attempts(settings, *specs) == [0, 1, 1]
        assert f"1 runs still being made by another bench (process {process.pid} on " in output
        assert locks(settings.results) == [lock_path(ONE, settings.results).name]
        process.communicate("")
    assert locks(settings.results) == []
    assert missing(specs, settings.results) == [ONE, spec("raises")]


def act_at_first_claim(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let another bench do something between the look at the records and the first claim."""
    take, acts = Claims.take, [act]

    def later(claims: Claims, spec: RunSpec) -> bool:
        while acts:
            acts.pop()()
        return take(claims, spec)

    monkeypatch.setattr(Claims, "take", later)


def test_a_run_that_another_bench_recorded_before_the_claim_is_not_made_twice(
    settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    act_at_first_claim(monkeypatch, lambda: write_record(fake_runs.record(ONE), settings.results))
    failed, output = perform([ONE, spec("works", 1)], settings)
    assert failed == []
    assert attempts(settings, ONE, spec("works", 1)) == [0, 1]
    assert "1 runs recorded by another bench meanwhile" in output
    assert locks(settings.results) == []


def test_a_run_that_failed_in_another_bench_meanwhile_has_failed_and_is_not_tried_again(
    settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_failure(spec("works", 1), settings.results, "an earlier failure does not count")
    act_at_first_claim(monkeypatch, lambda: write_failure(ONE, settings.results, "out of memory"))
    failed, output = perform([ONE, spec("works", 1)], settings)
    assert failed == [ONE]
    assert attempts(settings, ONE, spec("works", 1)) == [0, 1]
    assert "failed works" in output


def test_a_run_that_another_bench_gives_up_is_made_at_the_end(settings: RunSettings) -> None:
    with other_process(settings.results) as process:
        assert answer(process) == "True"
        threading.Timer(0.5, process.kill).start()  # while the second run sleeps
        assert perform([ONE, spec("sleeps"), spec("sleeps", 1)], settings)[0] == []
    assert attempts(settings, ONE) == [1]


def test_two_benches_side_by_side_make_every_run_once(settings: RunSettings) -> None:
    specs = [spec("works", seed) for seed in range(8)] + [spec("sleeps", seed) for seed in range(2)]
    results: list[tuple[list[RunSpec], str]] = []
    threads = [threading.Thread(target=lambda: results.append(perform(specs, settings, 2))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [failed for failed, _ in results] == [[], []]
    assert attempts(settings, *specs) == [1] * 10
    assert missing(specs, settings.results) == []
    assert locks(settings.results) == []


def test_runs_of_several_machines_are_claimed_by_none_since_all_must_agree(settings: RunSettings) -> None:
    wide = replace(ONE, num_nodes=2)
    lock_path(wide, settings.results).parent.mkdir(parents=True)
    lock_path(wide, settings.results).write_text("")
    assert perform([wide], settings)[0] == []
    assert attempts(settings, wide) == [1]


def test_a_single_run_is_announced_while_it_is_made_and_made_even_if_another_makes_it(tmp_path: Path) -> None:
    with announced(ONE, tmp_path):
        with announced(ONE, tmp_path):
            pass
        assert locks(tmp_path) == [lock_path(ONE, tmp_path).name]
    assert locks(tmp_path) == []


def test_the_command_run_announces_its_run(
    root: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def execute(spec: RunSpec, *_: object) -> None:
        found.extend(locks(tmp_path / "results"))

    monkeypatch.setattr("mer_bench.training.execute.execute", execute)
    line = ["--dataset", "simulated-ravdess", "--method", "majority", "--data", root, "--logger", "none"]
    assert call("run", *line, "--results", tmp_path / "results").code == 0
    assert len(found) == 1
    assert locks(tmp_path / "results") == []


def test_a_dataset_that_a_suite_lists_twice_is_one(workspace: Workspace) -> None:
    before, text = workspace.specs(), workspace.suite.read_text()
    twice = text.replace(f'"{RAVDESS}"', f'["{RAVDESS}", "{RAVDESS}"]')
    assert twice != text
    workspace.suite.write_text(twice)
    assert workspace.specs() == before


# A results folder that disappears


def test_records_that_disappear_during_a_bench_are_failed_runs(
    settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [ONE, spec("works", 1)]

    def vanish(spec: RunSpec, *_: object) -> None:
        if spec.seed == 1:
            (settings.results / "simulated-ravdess").rename(settings.root / "elsewhere")

    monkeypatch.setattr(benches.Display, "finished", lambda self, spec, *_: vanish(spec))
    failed, output = perform(specs, settings)
    assert failed == specs
    assert output.count("its record has disappeared: ") == 2


def test_a_run_of_several_processes_without_a_record_has_failed_unless_another_machine_has_it(
    settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_runs, "record", lambda spec: None)
    monkeypatch.setattr(benches.Workers, "run", lambda self, _, todo, **__: ((job, None) for job in todo))
    one, wide = replace(ONE, devices=2), replace(ONE, num_nodes=2)
    failed, output = perform([one, wide], settings)
    assert failed == [one, wide]
    assert output.count("the run has ended, but its record is not there") == 2
    assert "recorded by the first machine" not in output
    monkeypatch.setenv("NODE_RANK", "1")
    failed, output = perform([one, wide], settings)
    assert failed == [one]
    assert output.count("recorded by the first machine") == 1


def test_a_bench_whose_results_disappear_exits_with_1_and_leaves_the_leaderboard(
    workspace: Workspace, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vanish(*_: object, **__: object) -> list[RunSpec]:
        workspace.results.rmdir()
        return []

    monkeypatch.setattr(benches, "run_missing", vanish)
    board = workspace.suite.with_name("board.md")
    board.write_text("as it was")
    answer = call(*workspace.bench("--leaderboard", str(board)))
    assert answer.code == 1
    assert answer.err.endswith(
        f"error: {workspace.results} has disappeared during the bench; {board} is left as it is\n"
    )
    assert board.read_text() == "as it was"


def test_a_real_run_of_a_bench_is_not_made_while_it_is_claimed(root: Path, workspace: Workspace, call: Call) -> None:
    spec_ = next(each for each in workspace.specs() if each.method == "majority" and each.fold == 1)
    assert spec_.sha256 != spec_of(root, "majority").sha256
    with Claims(workspace.results) as claims:
        assert claims.take(spec_)
        answer = call(*workspace.bench("--methods", "majority", "--shard", "1/6"))
    assert answer.code == 0
    assert "1 runs still being made by another bench" in answer.err
    with pytest.raises(Exception, match="not a readable record"):
        read_record(spec_.path(workspace.results))
