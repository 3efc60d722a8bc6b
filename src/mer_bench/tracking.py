"""The wandb logger, which never makes a run wait: offline unless the user is logged in and the server answers."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlparse

from lightning.pytorch.loggers import WandbLogger

from mer_bench.errors import Misuse
from mer_bench.records import RunSpec


def wandb_logger(spec: RunSpec, folder: Path) -> WandbLogger:
    """One wandb run for one training, grouped by table.

    Raises:
        Misuse: wandb is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise Misuse("LOGGER=wandb needs the package wandb: pip install 'mer-bench[wandb]'") from error
    folder.mkdir(parents=True, exist_ok=True)
    offline = os.environ.get("WANDB_MODE") in ("offline", "disabled")
    offline = offline or not (wandb.login(prompt=False, verify=False) and _reachable(wandb.setup().settings.base_url))
    return WandbLogger(
        project="mer-bench",
        group=f"{spec.dataset}-{spec.label_set}-{spec.protocol}",
        name=f"{spec.method}-{spec.name}",
        save_dir=folder,
        offline=offline,
        config=asdict(spec),
        reinit="finish_previous",
    )


def _reachable(url: str, seconds: float = 3) -> bool:
    """Whether the server takes a connection; wandb itself waits two minutes before it gives up."""
    address = urlparse(url)
    try:
        with socket.create_connection((address.hostname or "", address.port or 443), timeout=seconds):
            return True
    except OSError:
        return False
