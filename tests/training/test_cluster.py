"""Shares of a bench for several machines, and a bench on a Ray cluster whose workers die or that is interrupted."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_runs
import pytest
from suites import INTERRUPTED, Answer, Call, Workspace, execute_and_write, started, wait_until

from benchmarks.speed.scaling import workers
from mer_bench.errors import Misuse
from mer_bench.fusion.find import find_method
from mer_bench.records import RunSpec, load_records, read_record
from mer_bench.training import bench as benches
from mer_bench.training import cluster
from mer_bench.training.options import RunSettings


@pytest.fixture
def bench(call: Call, workspace: Workspace) -> Call:
    """The command that executes the suite, with more options."""

    def called(*more: str) -> Answer:
        return call(*workspace.bench(*more))

    return called


# Shards


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The runs that each bench would execute; nothing is executed."""
    names: list[list[str]] = []

    def run_nothing(specs: list[RunSpec], *_: object, **__: object) -> list[RunSpec]:
        names.append([spec.name + spec.method + spec.training.precision for spec in specs])
        return []

    monkeypatch.setattr(benches, "run_missing", run_nothing)
    return names


@pytest.mark.parametrize("count", [1, 5, 12])
def test_shards_are_disjoint_and_together_all_runs(bench: Call, requested: list[list[str]], count: int) -> None:
    bench()
    for shard in range(1, count + 1):
        assert bench("--shard", f"{shard}/{count}").code == 0
    every, *shards = requested
    assert len(every) == 12
    assert sorted(name for shard in shards for name in shard) == sorted(every)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_what_is_recorded_does_not_move_runs_to_another_shard(
    bench: Call, workspace: Workspace, requested: list[list[str]]
) -> None:
    bench("--shard", "2/3")
    for path in (spec.path(workspace.results) for spec in workspace.specs()):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    bench("--shard", "2/3")
    assert requested[0] == requested[1] != []


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1/0", "-1/3", "1", "1/", "a/b", "1/3/5", "1.5/3"])
def test_a_wrong_shard_is_one_sentence(bench: Call, shard: str) -> None:
    error = f"error: --shard takes I/N with I from 1 to N, such as 3/10, not {shard!r}\n"
    assert bench(f"--shard={shard}") == (2, "", error)


def test_precision_replaces_that_of_the_suite(bench: Call, requested: list[list[str]]) -> None:
    assert bench("--precision", "bf16-mixed").code == 0
    assert all(name.endswith("bf16-mixed") for name in requested[0])


@pytest.mark.usefixtures("_workers_are_this_process")
def test_a_wrong_precision_is_refused(bench: Call) -> None:
    wrong = bench("--precision", "bf16-mixd")
    assert wrong.code == 2
    assert "unknown precision 'bf16-mixd': did you mean 'bf16-mixed'?" in wrong.err


SBATCH = Path(__file__).parents[2] / "benchmarks" / "slurm.sbatch"


def sbatch(folder: Path, task: int, array: list[int]) -> subprocess.CompletedProcess[str]:
    """Execute the script as a task of a job array; mer-bench only prints its arguments and two variables."""
    command = folder / ".venv" / "bin" / "mer-bench"
    command.parent.mkdir(parents=True, exist_ok=True)
    command.write_text('#!/bin/bash\nprintf "%s|" "$@" "$SLURM_JOB_NAME" "$OMP_NUM_THREADS"', encoding="utf-8")
    command.chmod(0o755)
    slurm = {"ID": task, "COUNT": len(array), "MIN": min(array), "MAX": max(array)}
    variables = {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in slurm.items()}
    variables |= {"SLURM_SUBMIT_DIR": str(folder), "SLURM_CPUS_PER_TASK": "4", "SLURM_JOB_NAME": "mer-bench"}
    line = ["bash", str(SBATCH), "iemocap", "--seeds", "0 1"]
    return subprocess.run(line, env=os.environ | variables, capture_output=True, text=True, check=False)


def test_each_task_of_a_job_array_runs_its_own_shard(tmp_path: Path) -> None:
    printed = [sbatch(tmp_path, task, [1, 2, 3]).stdout.split("|") for task in (1, 2, 3)]
    assert [line[line.index("--shard") + 1] for line in printed] == ["1/3", "2/3", "3/3"]
    assert printed[0][:2] == ["bench", "benchmarks/iemocap.toml"]
    assert printed[0][printed[0].index("--jobs") + 1] == "4"
    assert printed[0][-5:] == ["--seeds", "0 1", "bash", "1", ""]
    assert len({line[line.index("--leaderboard") + 1] for line in printed}) == 3


def test_a_part_of_a_job_array_is_refused(tmp_path: Path) -> None:
    for array in ([2, 7], [1, 7]):  # two tasks of ten that were submitted again: for Slurm their number is two
        refused = sbatch(tmp_path, 7, array)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.startswith("error: the array is 1-N")


# Ray


def test_a_run_of_several_devices_is_no_task_for_a_cluster(bench: Call) -> None:
    refused = bench("--cluster", "local", "--devices", "2", "--strategy", "ddp")
    assert refused.code == 2
    assert "--cluster spreads runs of one device each" in refused.err


def test_without_ray_a_cluster_is_one_sentence(bench: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    refused = bench("--cluster", "local")
    assert refused.code == 2
    assert "--cluster needs Ray: pip install 'mer-bench[cluster]'" in refused.err


def test_workers_on_a_cluster_have_the_group_of_the_suite_in_wandb(
    bench: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def init(address: str, **options: Any) -> None:
        given.update(options)
        raise ConnectionError("connection refused")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    refused = bench("--cluster", "ray://nowhere:1")
    assert refused.code == 2
    assert given["runtime_env"] == {"env_vars": {"WANDB_RUN_GROUP": "mine"}}
    assert "no Ray cluster answers at 'ray://nowhere:1': connection refused" in refused.err


def test_a_task_on_a_cluster_finds_methods_in_the_working_folder_of_the_bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "from mer_bench.fusion import FusionModule\nclass Mine(FusionModule):\n    forward = len"
    (tmp_path / "found_by_tasks.py").write_text(module, encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(cluster, "begin_worker", lambda: None)
    monkeypatch.setattr(cluster, "execute_job", lambda job, settings: find_method(job[0].method).__name__)
    with pytest.raises(Misuse, match="unknown module"):
        find_method("found_by_tasks:Mine")
    job = fake_runs.spec("found_by_tasks:Mine"), None
    assert cluster._execute(job, RunSettings(), tmp_path) == ("Mine", None)


needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None or not Path("/proc/self/stat").is_file(),
    reason="ray is not installed, or processes cannot be watched through /proc",
)
ON_RAY = ("--cluster", "local", "--jobs", "2")


def workers_at_the_first_record(process: subprocess.Popen[bytes], results: Path) -> list[int]:
    found: list[int] = []

    def there_are_some() -> bool:
        found[:] = workers(process.pid) if load_records(results)[0] else []
        return bool(found)

    wait_until(there_are_some, 500, "there are a record and a worker", process)  # a busy machine starts Ray in minutes
    return found


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cluster_loses_no_run_when_a_worker_is_killed_and_gives_the_records_of_one_process(
    workspace: Workspace, tmp_path: Path
) -> None:
    results, specs = workspace.results, workspace.specs()
    with started(tmp_path / "log", *workspace.bench(*ON_RAY)) as process:
        os.kill(workers_at_the_first_record(process, results)[0], signal.SIGKILL)
        assert process.wait(500) == 0
    assert load_records(results)[1] == []
    assert all(spec.path(results).is_file() for spec in specs)
    assert not list(results.rglob("*.failed.json"))
    alone = read_record(execute_and_write(specs[0], RunSettings(workspace.root, tmp_path / "here", "none")))
    on_ray = read_record(specs[0].path(results))
    assert (alone.test_predictions, alone.curve) == (on_ray.test_predictions, on_ray.curve)


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ctrl_c_on_a_cluster_keeps_what_is_finished_and_leaves_no_worker(workspace: Workspace, tmp_path: Path) -> None:
    with started(tmp_path / "log", *workspace.bench(*ON_RAY)) as process:
        found = workers_at_the_first_record(process, workspace.results)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
        text = (tmp_path / "log").read_text()
        assert text.rstrip().endswith(f"error: {INTERRUPTED}")
        assert "Traceback" not in text
        records, problems = load_records(workspace.results)
        assert problems == []
        assert 1 <= len(records) < 12
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in found), 20, "the workers have ended")
