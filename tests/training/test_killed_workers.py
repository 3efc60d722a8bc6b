"""Workers that are killed while they wait for a command, such as a run on two devices, leave no process and no file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import pytest
from suites import spec_of, wait_until

from mer_bench.training.checks import before_training
from mer_bench.training.options import Hardware, RunSettings
from mer_bench.training.workers import run_command

if not Path("/proc/self/stat").is_file():
    pytest.skip("processes are watched through /proc", allow_module_level=True)

#: A command of two processes: each writes its number to a file, and the second is started by the same command.
COMMAND = """
import os, pathlib, subprocess, sys, time
from mer_bench.training.workers import follow_parent
follow_parent()
folder = pathlib.Path(sys.argv[1])
(folder / str(os.getpid())).touch()
if "RANK" not in os.environ:
    subprocess.Popen([sys.executable, *sys.orig_argv[1:]], env=os.environ | {"RANK": "1"})
time.sleep(600)
"""
WORKER = """
import sys
from mer_bench.training.workers import run_command
run_command([sys.executable, "-c", *sys.argv[1:]])
"""


def parent_and_state(pid: int | str) -> tuple[int, str]:
    state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(parent), state


def alive(pid: int) -> bool:
    try:
        return parent_and_state(pid)[1] not in "ZX"
    except OSError:
        return False


def processes() -> list[int]:
    return [pid for pid in map(int, (folder.name for folder in Path("/proc").glob("[0-9]*"))) if alive(pid)]


@pytest.mark.parametrize("killed", ["worker", "first process"])
def test_processes_of_a_command_end_when_the_worker_or_the_first_of_them_is_killed(tmp_path: Path, killed: str) -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER, COMMAND, str(tmp_path)])
    try:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2, 60, "both processes run")
        pids = [int(path.name) for path in tmp_path.iterdir()]
        (first,) = (pid for pid in pids if parent_and_state(pid)[0] == worker.pid)
        os.kill(worker.pid if killed == "worker" else first, signal.SIGKILL)
        wait_until(lambda: not any(map(alive, pids)), 5, "both processes have ended")
        worker.wait(5)
    finally:
        worker.kill()
        worker.wait()


def test_a_command_that_succeeds_returns_at_once_and_one_that_fails_with_what_it_wrote() -> None:
    handler = signal.getsignal(signal.SIGTERM)
    try:
        code = "import subprocess, sys; subprocess.Popen(['sleep', '5']); print('why', file=sys.stderr); sys.exit({})"
        assert run_command([sys.executable, "-c", code.format(0)]) == (0, "why\n")
        assert run_command([sys.executable, "-c", code.format(3)]) == (3, "why\n")
    finally:
        signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("ddp_spawn", marks=pytest.mark.slow)])
def test_a_killed_worker_of_a_run_on_two_devices_leaves_no_rank_and_its_files_are_swept(
    root: Path, tmp_path: Path, strategy: str
) -> None:
    spec = spec_of(root, training={"epochs": 100_000}, hardware=Hardware(devices=2, strategy=strategy))
    (tmp_path / "spec.json").write_text(json.dumps(asdict(spec)), encoding="utf-8")
    folders = ["--data", str(root), "--results", str(tmp_path / "results"), "--logger", "none"]
    code = WORKER.replace('"-c"', '"-m", "mer_bench", "run"')
    command = [sys.executable, "-c", code, "--spec", str(tmp_path / "spec.json"), *folders]
    worker = subprocess.Popen(command, env=os.environ | {"TMPDIR": str(tmp_path)})
    try:
        wait_until(lambda: list(tmp_path.glob("mer-bench-*/best*.ckpt")), 120, "an epoch is done", worker)
        assert list((tmp_path / "results").glob("*/*/.*.lock"))
        (first,) = (pid for pid in processes() if parent_and_state(pid)[0] == worker.pid)
        ranks = [pid for pid in processes() if os.getpgid(pid) == first]
        assert len(ranks) >= 2
        worker.kill()
        wait_until(lambda: not any(map(alive, ranks)), 15, "no rank is left")
    finally:
        worker.kill()
        worker.wait()
    assert list(tmp_path.glob("mer-bench-*"))
    settings = RunSettings(root, tmp_path / "results", "none")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path))
        before_training([spec], settings)
    assert not list(tmp_path.glob("mer-bench-*"))
    assert not list((tmp_path / "results").glob("*/*/.*"))
