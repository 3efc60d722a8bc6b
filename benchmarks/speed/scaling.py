"""Times a suite of forty runs with one worker, with two, and on Ray, also if a worker is killed in between."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from mer_bench.training.suite import generate_simulated, read_suite

SUITE = """
dataset = "simulated-mixed"
label_set = "plain"
protocol = "independent"
seeds = [0, 1, 2, 3, 4, 5, 6, 7]

[training]
epochs = 3

[[table]]
features = { text = "simulated-text", audio = "simulated-audio", vision = "simulated-vision" }
methods = ["early_concat", "gated", "low_rank", "tensor_fusion", "misa"]
"""
RUNS = 40


def workers(pid: int) -> list[int]:
    """Return the descendants of ``pid`` that execute a run; Ray names a worker's process after its task."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().startswith(b"ray::_execute") and pid in ancestors(folder.name):
                found.append(int(folder.name))
        except OSError:  # the process has ended
            continue
    return found


def ancestors(pid: str) -> list[int]:
    """Return the parent of ``pid``, its parent and so on."""
    found = []
    while pid != "0":
        pid = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        found.append(int(pid))
    return found


def bench(root: Path, results: Path, *more: str, kill: bool = False) -> float:
    """Return the seconds of the whole command; ``kill`` ends one worker when half of the runs are recorded."""
    line = [sys.executable, "-m", "mer_bench", "bench", str(root / "suite.toml"), "--data", str(root)]
    line += ["--results", str(results), "--logger", "none", *more]
    start = time.monotonic()
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while kill and process.poll() is None:
        if len(list(results.glob("*/*/*.json"))) >= RUNS // 2 and (found := workers(process.pid)):
            os.kill(found[0], signal.SIGKILL)
            break
        time.sleep(0.05)
    _, errors = process.communicate()
    taken = time.monotonic() - start
    recorded = len(list(results.glob("*/*/*.json")))
    if process.returncode or recorded != RUNS:
        raise RuntimeError(f"{recorded} of {RUNS} runs are recorded:\n{errors.decode()}")
    return taken


def measure() -> Iterator[tuple[str, float]]:
    """Yield the name and the seconds of each way to execute the suite."""
    with tempfile.TemporaryDirectory(prefix="mer-bench-scaling-") as folder:
        root = Path(folder)
        (root / "suite.toml").write_text(SUITE, encoding="utf-8")
        generate_simulated(read_suite(root / "suite.toml"), root)
        for jobs in (1, 2):
            yield f"JOBS={jobs}", bench(root, root / f"jobs{jobs}", "--jobs", str(jobs))
        if importlib.util.find_spec("ray"):
            ray = ("--cluster", "local", "--jobs", "2")
            yield "Ray, two workers", bench(root, root / "ray", *ray)
            yield "the same, one killed at half", bench(root, root / "killed", *ray, kill=True)
