"""Runs in Weights & Biases: offline, so that no training waits, unless the user is logged in and the server answers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import numpy as np

from mer_bench.errors import Misuse
from mer_bench.metrics import SCORES, f1, precision, recall
from mer_bench.records import RunRecord, RunSpec

if TYPE_CHECKING:
    from lightning.pytorch.loggers import WandbLogger

GROUP = "WANDB_RUN_GROUP"  #: wandb's own variable; a bench sets it to the suite's name for all its workers


def wandb_logger(spec: RunSpec, folder: Path) -> WandbLogger:
    """One wandb run for one training, in the group of its suite, or of its table where there is no suite.

    Raises:
        Misuse: wandb is not installed.
    """
    from lightning.pytorch.loggers import WandbLogger

    wandb = _wandb()
    folder.mkdir(parents=True, exist_ok=True)
    mode = os.environ.get("WANDB_MODE")
    if mode is None and not (wandb.login(prompt=False, verify=False) and _reachable(wandb.setup().settings.base_url)):
        mode = "offline"  # Lightning's own `offline` sets a variable too late for wandb to read it
    return WandbLogger(
        project="mer-bench",
        group=os.environ.get(GROUP) or f"{spec.dataset}-{spec.label_set}-{spec.protocol}",
        name=f"{spec.method}-{spec.name}",
        save_dir=folder,
        mode=mode,
        config=asdict(spec),
        reinit="finish_previous",
    )


def finish(record: RunRecord) -> None:
    """Log the test scores of a record to the run that this process has open, and close it.

    Scores go to the run's summary; the confusion matrix and the scores of every class are a chart and a table. Under
    strategies that train in other processes (ddp_spawn, ddp_fork) no run is open in this one, and nothing is logged.
    """
    wandb = _wandb()
    if wandb.run is None:
        return
    matrix = np.array(record.test_confusion)
    true, predicted = (np.repeat(each, matrix.ravel()).tolist() for each in np.indices(matrix.shape).reshape(2, -1))
    by_class = zip(record.classes, *(of(matrix).tolist() for of in (precision, recall, f1)), matrix.sum(1).tolist(),
                   strict=True)  # fmt: skip
    wandb.run.summary.update({f"test/{name}": float(score(matrix)) for name, score in SCORES.items()})
    wandb.run.log({
        "test/confusion": wandb.plot.confusion_matrix(
            y_true=true, preds=predicted, class_names=list(record.classes), title="Confusion on the test set"
        ),
        "test/classes": wandb.Table(
            columns=["emotion", "precision", "recall", "F1", "utterances"], data=[list(row) for row in by_class]
        ),
    })  # fmt: skip
    wandb.finish()


def sync(folder: Path) -> int:
    """Upload the offline runs below ``folder`` that were not uploaded yet; returns how many there were.

    Raises:
        Misuse: wandb is not installed or not logged in, its server does not answer, or it refuses the runs.
    """
    wandb = _wandb()
    marked = {path.parent for path in folder.glob("wandb/offline-run-*/*.synced")}
    runs = sorted(set(folder.glob("wandb/offline-run-*")) - marked)
    if not runs:
        return 0
    if not wandb.login(prompt=False, verify=False):
        raise Misuse(f"{len(runs)} runs in {folder / 'wandb'} wait for an account: log in first (wandb login)")
    url = wandb.setup().settings.base_url
    if not _reachable(url):
        raise Misuse(f"{url} does not answer: the {len(runs)} runs stay in {folder / 'wandb'}, try again later")
    if subprocess.run([sys.executable, "-m", "wandb", "sync", *map(str, runs)], check=False).returncode:
        raise Misuse(f"wandb sync failed, see above; what is not uploaded stays in {folder / 'wandb'}")
    return len(runs)


def _wandb() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise Misuse("LOGGER=wandb and sync need the package wandb: pip install 'mer-bench[wandb]'") from error
    return wandb


def _reachable(url: str, seconds: float = 3) -> bool:
    """Whether the server accepts a connection; wandb itself would wait two minutes before giving up."""
    address = urlparse(url)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        with socket.create_connection((address.hostname or "", port), timeout=seconds):
            return True
    except OSError:
        return False
