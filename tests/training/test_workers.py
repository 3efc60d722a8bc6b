"""Worker processes: forked from a process that has imported what they share, or spawned; both behave alike."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mer_bench.errors import FailedRun, Misuse
from mer_bench.training.workers import THREADS, Workers


@pytest.fixture(params=["forked", "spawned"])
def workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    if request.param == "spawned":
        monkeypatch.setattr(sys, "platform", "darwin")  # where forks are not safe
    elif not sys.platform.startswith("linux"):
        pytest.skip("workers are forked on Linux alone")
    with Workers(2, preload="fake_runs") as found:
        yield found


def refuse(sentence: str) -> None:
    raise Misuse(sentence)


def identify(seconds: float) -> tuple[int, int]:
    time.sleep(seconds)
    return os.getpid(), os.getppid()


def environment(*names: str) -> list[str | None]:
    return [os.environ.get(name) for name in names]


def is_blocked() -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []) or (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    )


def interrupt() -> None:
    raise KeyboardInterrupt


def double(number: int) -> int:
    if number == 2:
        os._exit(1)
    return 2 * number


def test_what_a_worker_raises_is_raised_here_with_its_sentence(workers: Workers) -> None:
    with pytest.raises(Misuse, match=r"^an option is wrong$"):
        workers.ask(refuse, "an option is wrong")


def test_a_worker_that_dies_before_anything_trains_is_one_sentence_and_another_takes_its_place(
    workers: Workers,
) -> None:
    with pytest.raises(FailedRun, match=r"^a worker process died before anything was trained \(out of memory\?\)$"):
        workers.ask(os._exit, 1)
    assert workers.ask(double, 4) == 8


def test_an_item_whose_worker_dies_twice_costs_no_other(workers: Workers) -> None:
    found = dict(workers.run(double, range(5), crashed=lambda item: -1))
    assert found == {0: 0, 1: 2, 2: -1, 3: 6, 4: 8}


def test_workers_have_the_environment_of_today_and_leave_ctrl_c_to_their_parent(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MER_BENCH_TESTED", "today")
    monkeypatch.setenv(THREADS[0], "3")
    assert workers.ask(environment, "MER_BENCH_TESTED", THREADS[0]) == ["today", "3"]
    assert workers.ask(is_blocked)


def test_forked_workers_come_from_one_process_and_spawned_ones_from_this_one(
    workers: Workers, request: pytest.FixtureRequest
) -> None:
    found = [result for _, result in workers.run(identify, [0.5, 0.5], crashed=lambda item: (0, 0))]
    assert len({pid for pid, _ in found}) == 2
    (parent,) = {parent for _, parent in found}
    assert (parent == os.getpid()) == ("spawned" in request.node.callspec.id)


def test_work_that_is_no_longer_wanted_is_ended_at_once(workers: Workers) -> None:
    started = time.monotonic()
    workers.ask(double, 1)  # a worker is there
    results = workers.run(identify, [600], crashed=lambda item: (0, 0), waiting=interrupt)
    with pytest.raises(KeyboardInterrupt), workers:
        next(results)
    assert time.monotonic() - started < 60


def test_the_module_that_is_preloaded_is_imported_once_and_before_any_worker() -> None:
    code = """
import sys
from mer_bench.training.workers import Workers
if __name__ == "__main__":
    with Workers(1, preload="smtplib") as workers:
        print(workers.ask(eval, "'smtplib' in __import__('sys').modules"), "smtplib" in sys.modules)
"""
    answer: Any = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert answer.stdout.split() == [str(sys.platform.startswith("linux")), "False"]


@pytest.mark.parametrize("preload", ["", "json"])
def test_a_script_that_uses_workers_is_not_run_again_in_them(tmp_path: Path, preload: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from mer_bench.training.workers import Workers\n"
        "print('begins', flush=True)\n"
        f"with Workers(1, preload={preload!r}) as workers:\n"
        "    print(workers.ask(abs, -3))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("begins\n3\n", 0), done.stderr
