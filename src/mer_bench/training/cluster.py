"""The runs of a bench as Ray tasks: records come back to this process, which writes each as it arrives."""

from __future__ import annotations

import importlib
import os
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mer_bench.errors import Misuse
from mer_bench.records import RunRecord, RunSpec, write_record
from mer_bench.training.execute import Places, earlier_record, run_anew
from mer_bench.training.progress import Display
from mer_bench.training.tracking import GROUP

#: How often Ray starts a run again whose worker or machine was lost.
RETRIES = 3


def run_all(queue: Sequence[RunSpec], places: Places, address: str, *, jobs: int, display: Display) -> list[RunSpec]:
    """Run ``queue`` on a Ray cluster; returns the specs that failed.

    Only this process writes records, as each run comes back, so whatever ends it or a machine of the cluster loses the
    runs in flight and nothing else. Ray gives a run whose worker is lost to another one. A run takes one CPU and, where
    the cluster has GPUs, an equal share of them. The machines need mer-bench and the prepared corpora at the same
    path, on a shared file system or as copies: features are known by their hash.

    Args:
        queue: What to run; one device each.
        places: Where the corpora are on every machine, and where this process writes.
        address: "local" for a cluster on this machine, or what ``ray.init`` takes, such as ``ray://host:10001``.
        jobs: Runs side by side of a local cluster.
        display: Shows what is done.

    Raises:
        Misuse: Ray is not installed, the cluster cannot be reached, or a run wants several devices.
    """
    if any(spec.devices * spec.num_nodes > 1 for spec in queue):
        raise Misuse("--cluster spreads runs of one device each; run those of several without it (see --num-nodes)")
    ray = _connect(address, jobs)
    failed = []
    try:
        has = ray.cluster_resources()
        share = min(1.0, has.get("GPU", 0) / max(has.get("CPU", 1), 1))
        attempt = ray.remote(num_cpus=1, num_gpus=int(share * 1000) / 1000, max_retries=RETRIES)(_attempt)
        there = replace(places, root=places.root.resolve(), log_folder=places.log_folder.resolve())
        running = {}
        for spec in queue:
            earlier = display.replaced[spec.sha256] = earlier_record(spec, places.results)
            running[attempt.remote(spec, there, earlier)] = spec
        while running:
            done, _ = ray.wait(list(running), timeout=1)
            for reference in done:
                spec = running.pop(reference)
                try:
                    result = ray.get(reference)
                except ray.exceptions.RayError as error:
                    result = f"the worker was lost {RETRIES + 1} times: {str(error).splitlines()[0]}"
                reason = _write(result, places)
                display.finished(spec, reason)
                if reason is not None:
                    failed.append(spec)
    finally:
        ray.shutdown()
    return failed


def _connect(address: str, jobs: int) -> Any:
    """The module ray, connected."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise Misuse("--cluster needs Ray: pip install 'mer-bench[cluster]'") from error
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if GROUP in os.environ:  # workers elsewhere do not inherit it
        options["runtime_env"] = {"env_vars": {GROUP: os.environ[GROUP]}}
    try:
        if address == "local":
            ray.init("local", num_cpus=jobs, include_dashboard=False, **options)
        else:
            ray.init(address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise Misuse(f"no Ray cluster answers at {address!r}: {str(error).splitlines()[0]}") from error
    return ray


def _attempt(spec: RunSpec, places: Places, earlier: RunRecord | None) -> RunRecord | str:
    """In a worker: the record, or why there is none."""
    try:
        record = run_anew(spec, places, earlier)
        assert record is not None  # one device: this is the first process
        return record
    except Misuse as error:
        return str(error)
    except Exception:
        return traceback.format_exc()


def _write(result: RunRecord | str, places: Places) -> str | None:
    """Write a record; returns why there is none."""
    if isinstance(result, str):
        return result
    try:
        write_record(result, places.results)
    except Misuse as error:
        return str(error)
    return None
