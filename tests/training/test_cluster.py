"""Shares of a bench for several machines, and a bench on a Ray cluster whose workers die or that is interrupted."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from suites import SUITE, execute_and_write

from benchmarks.speed.scaling import workers
from mer_bench.cli import main
from mer_bench.records import RunSpec, load_records, read_record
from mer_bench.training import bench as benches
from mer_bench.training.options import RunSettings
from mer_bench.training.suite import generate_simulated, suite_specs


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the suite and the corpus of all tests."""
    from mer_bench.training.suite import read_suite

    folder = tmp_path_factory.mktemp("cluster")
    (folder / "suite.toml").write_text(SUITE, encoding="utf-8")
    generate_simulated(read_suite(folder / "suite.toml"), folder)
    return folder


def arguments(root: Path, results: Path, *more: str) -> list[str]:
    return [
        "bench",
        str(root / "suite.toml"),
        "--data",
        str(root),
        "--results",
        str(results),
        "--logger",
        "none",
        *more,
    ]


def bench_here(monkeypatch: pytest.MonkeyPatch, *line: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mer-bench", *line])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


# Shards


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The runs that each bench was asked for; none is done."""
    names: list[list[str]] = []

    def note(specs: list[RunSpec], *_: object, **__: object) -> list[RunSpec]:
        names.append([spec.name + spec.method + spec.training.precision for spec in specs])
        return []

    monkeypatch.setattr(benches, "run_missing", note)
    return names


@pytest.mark.parametrize("count", [1, 5, 12])
def test_shards_are_disjoint_and_together_all_runs(
    root: Path, tmp_path: Path, asked: list[list[str]], monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    bench_here(monkeypatch, *arguments(root, tmp_path))
    for shard in range(1, count + 1):
        assert bench_here(monkeypatch, *arguments(root, tmp_path, "--shard", f"{shard}/{count}")) == 0
    every, *shards = asked
    assert len(every) == 12
    assert sorted(name for shard in shards for name in shard) == sorted(every)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_what_is_recorded_does_not_move_runs_to_another_shard(
    root: Path, tmp_path: Path, asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = arguments(root, tmp_path, "--shard", "2/3")
    bench_here(monkeypatch, *line)
    for path in (spec.path(tmp_path) for spec in specs(root)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    bench_here(monkeypatch, *line)
    assert asked[0] == asked[1] != []


def specs(root: Path) -> list[RunSpec]:
    from mer_bench.training.suite import read_suite

    return suite_specs(read_suite(root / "suite.toml"), root)


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1/0", "-1/3", "1", "1/", "a/b", "1/3/5", "1.5/3"])
def test_a_wrong_shard_is_one_sentence(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shard: str
) -> None:
    assert bench_here(monkeypatch, *arguments(root, tmp_path, f"--shard={shard}")) == 2
    said = capsys.readouterr().err
    assert said == f"error: --shard takes I/N with I from 1 to N, such as 3/10, not {shard!r}\n"


def test_precision_replaces_that_of_the_suite_and_a_wrong_one_is_refused(
    root: Path,
    tmp_path: Path,
    asked: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert bench_here(monkeypatch, *arguments(root, tmp_path, "--precision", "bf16-mixed")) == 0
    assert all(name.endswith("bf16-mixed") for name in asked[0])
    assert bench_here(monkeypatch, *arguments(root, tmp_path, "--precision", "bf16-mixd")) == 2
    assert "unknown precision 'bf16-mixd': did you mean 'bf16-mixed'?" in capsys.readouterr().err


SBATCH = Path(__file__).parents[2] / "benchmarks" / "slurm.sbatch"


def sbatch(folder: Path, task: int, array: list[int]) -> subprocess.CompletedProcess[str]:
    """The script as a task of a job array, where mer-bench only says what it was asked."""
    command = folder / ".venv" / "bin" / "mer-bench"
    command.parent.mkdir(parents=True, exist_ok=True)
    command.write_text('#!/bin/bash\nprintf "%s|" "$@" "$SLURM_JOB_NAME" "$OMP_NUM_THREADS"', encoding="utf-8")
    command.chmod(0o755)
    slurm = {
        "ID": task, "COUNT": len(array), "MIN": min(array), "MAX": max(array)
    }  # fmt: skip
    variables = {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in slurm.items()}
    variables |= {"SLURM_SUBMIT_DIR": str(folder), "SLURM_CPUS_PER_TASK": "4", "SLURM_JOB_NAME": "mer-bench"}
    line = ["bash", str(SBATCH), "iemocap", "--seeds", "0 1"]
    return subprocess.run(line, env=os.environ | variables, capture_output=True, text=True, check=False)


def test_each_task_of_a_job_array_runs_its_own_shard(tmp_path: Path) -> None:
    said = [sbatch(tmp_path, task, [1, 2, 3]).stdout.split("|") for task in (1, 2, 3)]
    assert [line[line.index("--shard") + 1] for line in said] == ["1/3", "2/3", "3/3"]
    assert said[0][:2] == ["bench", "benchmarks/iemocap.toml"]
    assert said[0][said[0].index("--jobs") + 1] == "4"
    assert said[0][-5:] == ["--seeds", "0 1", "bash", "1", ""]
    assert len({line[line.index("--leaderboard") + 1] for line in said}) == 3


def test_a_part_of_a_job_array_is_refused(tmp_path: Path) -> None:
    """Of tasks 2 and 7 of an array of ten, Slurm says that there are two."""
    for array in ([2, 7], [1, 7]):
        refused = sbatch(tmp_path, 7, array)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.startswith("error: the array is 1-N")


# Ray


def test_a_run_of_several_devices_is_no_task_for_a_cluster(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = arguments(root, tmp_path, "--cluster", "local", "--devices", "2", "--strategy", "ddp")
    assert bench_here(monkeypatch, *line) == 2
    assert "--cluster spreads runs of one device each" in capsys.readouterr().err


def test_without_ray_a_cluster_is_one_sentence(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert bench_here(monkeypatch, *arguments(root, tmp_path, "--cluster", "local")) == 2
    assert "--cluster needs Ray: pip install 'mer-bench[cluster]'" in capsys.readouterr().err


def test_workers_elsewhere_are_told_the_group_of_the_suite_in_wandb(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {}

    def init(address: str, **options: Any) -> None:
        asked.update(options)
        raise ConnectionError("nobody is there")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    assert bench_here(monkeypatch, *arguments(root, tmp_path, "--cluster", "ray://nowhere:1")) == 2
    assert asked["runtime_env"] == {"env_vars": {"WANDB_RUN_GROUP": "mine"}}
    assert "no Ray cluster answers at 'ray://nowhere:1': nobody is there" in capsys.readouterr().err


needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None or not Path("/proc/self/stat").is_file(),
    reason="ray is not installed, or processes cannot be watched through /proc",
)


def start(root: Path, results: Path, log: Path) -> subprocess.Popen[bytes]:
    line = arguments(root, results, "--cluster", "local", "--jobs", "2")
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "mer_bench", *line],
            stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip


def wait_until(condition: Callable[[], object], process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 500  # a busy machine starts Ray in minutes
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.02)


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cluster_loses_no_run_when_a_worker_is_killed_and_gives_the_records_of_one_process(
    root: Path, tmp_path: Path
) -> None:
    results, log = tmp_path / "results", tmp_path / "log"
    process = start(root, results, log)
    try:
        wait_until(lambda: load_records(results)[0] and workers(process.pid), process, log)
        os.kill(workers(process.pid)[0], signal.SIGKILL)
        assert process.wait(500) == 0, log.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert load_records(results)[1] == []
    assert all(spec.path(results).is_file() for spec in specs(root))
    assert not list(results.rglob("*.failed.json"))
    here = execute_and_write(specs(root)[0], RunSettings(root, tmp_path / "here", "none"))
    assert here is not None
    alone, there = read_record(here), read_record(specs(root)[0].path(results))
    assert (alone.test_predictions, alone.curve) == (there.test_predictions, there.curve)


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ctrl_c_on_a_cluster_keeps_what_is_finished_and_leaves_no_worker(root: Path, tmp_path: Path) -> None:
    results, log = tmp_path / "results", tmp_path / "log"
    process = start(root, results, log)
    try:
        wait_until(lambda: load_records(results)[0] and workers(process.pid), process, log)
        left = workers(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130, log.read_text()
        said = log.read_text()
        assert said.rstrip().endswith("every finished run is recorded, the same command goes on from there")
        assert "Traceback" not in said
        records, problems = load_records(results)
        assert problems == []
        assert 1 <= len(records) < 12
        end = time.monotonic() + 20
        while any(Path(f"/proc/{pid}").exists() for pid in left):
            assert time.monotonic() < end, "workers of an interrupted bench are left"
            time.sleep(0.05)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
