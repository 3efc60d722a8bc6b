"""Worker processes of a bench."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from mer_bench.errors import Misuse
from mer_bench.records import RunSpec
from mer_bench.training.execute import Places, run_and_record

_messages: Any = None


_distributed: subprocess.Popen[str] | None = None  #: the run with several devices that this worker waits for


def _start_worker(messages: Any) -> None:
    """Remember the display's queue, and die with the parent whatever killed it."""
    global _messages
    _messages = messages
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        _end()

    threading.Thread(target=follow, daemon=True).start()


def _end(*_: object) -> None:
    """End this worker at once, and all ranks of the run that it waits for."""
    if _distributed is not None:
        with suppress(ProcessLookupError):
            os.killpg(_distributed.pid, signal.SIGKILL)
    os._exit(1)


def _work(spec: RunSpec, places: Places) -> str | None:
    """Run one spec in a worker; returns why it failed, if it did."""
    try:
        if spec.devices * spec.num_nodes > 1:
            return _work_distributed(spec, places)
        run_and_record(spec, places, lambda epoch, scores: _messages.put((spec.sha256, epoch, scores)))
    except Misuse as error:
        return str(error)
    except Exception:
        return traceback.format_exc()
    finally:
        gc.collect()  # Trainer, module and corpus refer to each other: free their mapped features before the next run
    return None


def _work_distributed(spec: RunSpec, places: Places) -> str | None:
    """Give a run with several devices a process of its own: Lightning starts the other ranks from its command line."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(asdict(spec), file)
        file.flush()
        command = [sys.executable, "-m", "mer_bench", "run", "--spec", file.name]
        command += ["--data", str(places.root), "--results", str(places.results)]
        command += ["--logger", places.logger, "--logs", str(places.log_folder)]
        command += ["--measure", " ".join(places.measures)]
        global _distributed
        signal.signal(signal.SIGTERM, _end)
        _distributed = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        _, said = _distributed.communicate()
        code, _distributed = _distributed.returncode, None
    return None if code == 0 else said or f"exit code {code}"
