"""The runs of a bench as Ray tasks; their records come back to this process as each is done."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Generator, Iterable
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from mer_bench.errors import Misuse
from mer_bench.files import write_atomic
from mer_bench.probabilities import probabilities_path
from mer_bench.training.execute import Job, Result, begin_worker, execute_job
from mer_bench.training.options import RunSettings
from mer_bench.training.temporary import temporary_prefix
from mer_bench.training.tracking import GROUP

#: How often Ray starts a run again whose worker or machine was lost.
RETRIES = 3

#: Runs per CPU that a cluster is given at a time: none of its CPUs waits, and one that can grow sees that it should.
AHEAD = 2


def run_on_cluster(
    jobs: Iterable[Job], settings: RunSettings, address: str, *, workers: int
) -> Generator[tuple[Job, Result], None, None]:
    """Execute jobs on a Ray cluster; yields each with its record, or with the reason why there is none.

    The caller alone writes records, and what is kept beside them, so whatever ends it or a machine of the cluster loses
    the runs in progress and nothing else. Ray gives a run whose worker is lost to another one. A run takes one CPU and,
    where the cluster has GPUs, an equal share of them. The machines need mer-bench and the prepared corpora at the same
    path, on a shared file system or as copies: features are known by their hash. So do they need the working folder, if
    a method is found there (``module:Class``).

    Args:
        jobs: What to run, one device each; read as the cluster has room, so that other benches can have the rest.
        settings: Folder of the corpora on every machine, logging and measures.
        address: "local" for a cluster on this machine, or what ``ray.init`` takes, such as ``ray://host:10001``.
        workers: Runs side by side of a local cluster.

    Raises:
        Misuse: Ray is not installed, the cluster cannot be reached, or a run wants several devices.
    """
    rest = map(_of_one_device, jobs)
    first = list(islice(rest, 1))
    if not first:
        return
    ray = _connect(address, workers)
    try:
        resources = ray.cluster_resources()
        share = min(1.0, resources.get("GPU", 0) / max(resources.get("CPU", 1), 1))
        task = ray.remote(num_cpus=1, num_gpus=int(share * 1000) / 1000, max_retries=RETRIES)(_execute)
        settings = replace(settings, root=settings.root.resolve(), log_folder=settings.log_folder.resolve())
        running: dict[Any, Job] = {}
        todo = chain(first, rest)
        while True:
            room = AHEAD * max(int(ray.cluster_resources().get("CPU", 1)), 1) - len(running)  # clusters grow and shrink
            running |= {task.remote(job, settings, Path.cwd()): job for job in islice(todo, max(room, 0))}
            if not running:
                return
            done, _ = ray.wait(list(running), timeout=1)
            for reference in done:
                job = running.pop(reference)
                kept = None
                try:
                    result, kept = ray.get(reference)
                except ray.exceptions.RayError as error:
                    result = f"the worker was lost {RETRIES + 1} times: {str(error).splitlines()[0]}"
                if kept is not None:
                    write_atomic(probabilities_path(job[0], settings.results), kept)
                yield job, result
    finally:
        ray.shutdown()


def _of_one_device(job: Job) -> Job:
    if job[0].devices * job[0].num_nodes > 1:
        raise Misuse("--cluster spreads runs of one device each; run those of several without it (see --num-nodes)")
    return job


def _execute(job: Job, settings: RunSettings, folder: Path) -> tuple[Result, bytes | None]:
    """What comes of a job, and the content of the file that is kept beside its record."""
    from mer_bench.fusion.find import search_in

    search_in(folder)  # for methods that are named module:Class; Ray's workers may have another working folder
    begin_worker()
    with tempfile.TemporaryDirectory(prefix=temporary_prefix()) as results:
        found = execute_job(job, replace(settings, results=Path(results)))
        kept = probabilities_path(job[0], Path(results))
        return found, kept.read_bytes() if kept.is_file() else None


def _connect(address: str, workers: int) -> Any:
    """The module ray, connected."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise Misuse("--cluster needs Ray: pip install 'mer-bench[cluster]'") from error
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if GROUP in os.environ:  # workers on other machines do not inherit it
        options["runtime_env"] = {"env_vars": {GROUP: os.environ[GROUP]}}
    try:
        if address == "local":
            ray.init("local", num_cpus=workers, include_dashboard=False, **options)
        else:
            ray.init(address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise Misuse(f"no Ray cluster answers at {address!r}: {str(error).splitlines()[0]}") from error
    return ray
