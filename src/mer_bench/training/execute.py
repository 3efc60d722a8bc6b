"""One spec in, one record out; and which specs still lack theirs, which needs no torch."""

from __future__ import annotations

import gc
import json
import logging
import sys
import tempfile
import traceback
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer_bench.errors import FailedRun, Misuse
from mer_bench.probabilities import are_kept
from mer_bench.records import RunRecord, RunSpec, bundle_path, measurable, measured, read_record
from mer_bench.training import tracking
from mer_bench.training.code import is_changed
from mer_bench.training.options import RunSettings
from mer_bench.training.temporary import temporary_prefix
from mer_bench.training.workers import run_command
from mer_bench.trials import TrialRecord

if TYPE_CHECKING:
    from mer_bench.training.callbacks import Notify

#: One thread per run: the tensors are small, several runs share a machine, and a sum over threads is not reproducible
#: when their number changes.
THREADS = 1

Job = tuple[RunSpec, RunRecord | None]  #: a run, and the record that it replaces
#: what comes of a job: its record, the reason why there is none, or None where another process has written it
Result = RunRecord | TrialRecord | str | None


def missing(
    specs: Sequence[RunSpec],
    results: Path,
    measures: Collection[str] = (),
    rerun_changed: bool = False,
    keep: Collection[str] = (),
    save_model: bool = False,
) -> list[RunSpec]:
    """The specs without a record, or whose record lacks one of the ``measures`` that the run can take, or what to keep.

    With ``rerun_changed`` also those whose record was made by other code of the method than today's, with
    ``save_model`` those whose trained model is not there.

    Raises:
        Misuse: a record that has to be looked into is not readable.
    """

    def complete(spec: RunSpec) -> bool:
        path, wanted = spec.path(results), measurable(spec, measures)
        if save_model and not bundle_path(path).is_dir():
            return False
        if not path.is_file() or not (wanted or rerun_changed or keep):
            return path.is_file()
        record = read_record(path)
        whole = wanted <= measured(record) and (not keep or are_kept(record, results))
        return whole and not (rerun_changed and is_changed(record))

    return [spec for spec in specs if not complete(spec)]


def earlier_record(spec: RunSpec, results: Path) -> RunRecord | None:
    """The record that a run will replace, if there is a readable one.

    With several machines there is none: all must agree on what to measure, and one of them alone has the record.
    """
    try:
        return read_record(spec.path(results)) if spec.num_nodes == 1 else None
    except Misuse:
        return None


def execute(
    spec: RunSpec, settings: RunSettings, earlier: RunRecord | None = None, notify: Notify | None = None
) -> RunRecord | None:
    """Train and score one spec; None on every process but the first of a distributed run.

    What the ``earlier`` record of the run has measured or kept is measured or kept again. A run that lacks nothing but
    its speed is not trained again. A trained model that is to be kept is written before the record.

    Raises:
        Misuse: the spec does not fit the data or the method.
    """
    from mer_bench.training.run import measure_speed, run

    known = measured(earlier) if earlier else set()
    wanted = measurable(spec, settings.measures)
    bundle = bundle_path(spec.path(settings.results)) if settings.save_model else None
    kept = not settings.keep or (earlier is not None and are_kept(earlier, settings.results))
    kept = kept and (bundle is None or bundle.is_dir())
    if earlier and kept and wanted - known == {"efficiency"} and not is_changed(earlier):
        return measure_speed(earlier, settings.root)
    record = run(
        spec,
        settings.root,
        logger=settings.logger,
        log_folder=settings.log_folder,
        notify=notify,
        measures=wanted | known,
        keep=settings.results if settings.keep or (earlier and earlier.probabilities) else None,
        bundle=bundle,
    )
    if record is not None and settings.logger == "wandb":
        tracking.finish(record)
    return record


def execute_trial(spec: RunSpec, settings: RunSettings, notify: Notify | None = None) -> TrialRecord:
    """Train a trial of a tuning and score it on validation.

    Raises:
        Misuse: the spec does not fit the data or the method.
    """
    from mer_bench.training.run import run_trial

    return run_trial(spec, settings.root, logger=settings.logger, log_folder=settings.log_folder, notify=notify)


def prepare_process() -> None:
    """Set what torch does in this whole process: at the start of a worker or of a command."""
    import torch

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.set_num_threads(THREADS)
    # deterministic algorithms would also fill all memory that torch takes, a tenth of an epoch
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


_messages: Any = None  #: where this worker reports epochs; None in a worker of Ray


def begin_worker(messages: Any = None) -> None:
    """Prepare a worker process, which then reports the epochs of its runs to the queue ``messages``."""
    global _messages
    _messages = messages
    prepare_process()


def execute_job(job: Job, settings: RunSettings) -> Result:
    """In a worker: the record of a run or of a trial, or the reason why there is none.

    None means that the processes of a distributed run have written the record, where this machine has it.
    """
    spec, earlier = job
    notify = _messages and partial(_report, spec.sha256)
    try:
        if spec.is_trial:
            return execute_trial(spec, settings, notify)
        if spec.devices * spec.num_nodes > 1:
            return _execute_distributed(spec, settings)
        return execute(spec, settings, earlier, notify)
    except (Misuse, FailedRun) as error:
        return str(error)
    except Exception:
        return traceback.format_exc()
    finally:
        gc.collect()  # Trainer, module and corpus refer to each other: free their features before the next run


def _report(key: str, epoch: int, scores: Mapping[str, float]) -> None:
    _messages.put((key, epoch, scores))


def _execute_distributed(spec: RunSpec, settings: RunSettings) -> str | None:
    """Give a run with several devices a process of its own: Lightning starts the other ranks from its command line."""
    with tempfile.NamedTemporaryFile("w", prefix=temporary_prefix(), suffix=".json") as file:
        json.dump(asdict(spec), file)
        file.flush()
        command = [sys.executable, "-m", "mer_bench", "run", "--spec", file.name]
        command += ["--data", str(settings.root), "--results", str(settings.results)]
        command += ["--logger", settings.logger, "--logs", str(settings.log_folder)]
        command += ["--measure", " ".join(settings.measures), "--keep", " ".join(settings.keep)]
        command += ["--save-model"] * settings.save_model
        code, written = run_command(command)
    return None if code == 0 else written or f"exit code {code}"
