"""What can be known before anything trains and without torch: that what the runs give can be written."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from mer_bench.errors import Misuse
from mer_bench.files import check_folder, remove_leftovers
from mer_bench.records import RunSpec, has_whole_weights
from mer_bench.training.claims import remove_stale
from mer_bench.training.options import RunSettings
from mer_bench.training.temporary import FREE, TEMPORARY, temporary_folder
from mer_bench.workspace import default_tables


def before_training(
    specs: Sequence[RunSpec], settings: RunSettings, *, leaderboard: Path | None = None, elsewhere: bool = False
) -> None:
    """Check what the runs need beside data and torch, and delete what killed processes have left in their folders.

    Args:
        specs: The runs.
        settings: Their folders and their logger.
        leaderboard: The page that will be written after them, and those of its tables.
        elsewhere: Whether other machines train.

    Raises:
        Misuse: a logger that is not installed, or a folder that nothing can be written to.
    """
    if settings.save_model:
        check_savable(specs, elsewhere)
    if settings.logger == "wandb" and importlib.util.find_spec("wandb") is None:
        raise Misuse("LOGGER=wandb needs the package wandb: pip install 'mer-bench[wandb]'")
    temporary = temporary_folder()
    check_folder(temporary, "TMPDIR", FREE)
    if all(map(is_first_process, specs)):
        check_folder(settings.results, "--results", FREE)
        remove_stale(settings.results)
        remove_leftovers(settings.results, "*/*/.*.tmp")
        remove_leftovers(settings.results, "*/*/.*.bundle.*")
    if settings.logger != "none":
        check_folder(settings.log_folder, "--logs", FREE)
    if leaderboard is not None:
        if leaderboard.is_dir():
            raise Misuse(f"{leaderboard} (--leaderboard) is a folder; name a file")
        for folder in (leaderboard.parent, default_tables(leaderboard)):
            check_folder(folder, "--leaderboard", FREE)
            remove_leftovers(folder, ".*.tmp")
    remove_leftovers(temporary, f"{TEMPORARY}*")


def check_savable(specs: Sequence[RunSpec], elsewhere: bool = False) -> None:
    """Raise Misuse if a trained model could not be kept beside its record."""
    if elsewhere:
        raise Misuse(
            "--save-model keeps models where they are trained, which with --cluster is on other machines: leave it "
            "out, and get the models that you want by mer-bench export RECORD --to FOLDER"
        )
    for spec in specs:
        if not has_whole_weights(spec):
            raise Misuse(
                f"--save-model needs all weights in one process, and strategy {spec.strategy!r} shards them: train "
                "without it, or with strategy ddp"
            )


def is_first_process(spec: RunSpec) -> bool:
    """Whether this process is the one that writes the record of a run."""
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
    return spec.devices * spec.num_nodes == 1 or all(os.environ.get(name) in (None, "", "0") for name in ranks)


def is_first_machine(spec: RunSpec) -> bool:
    """Whether this machine is the one that has the record of a run."""
    ranks = ("NODE_RANK", "GROUP_RANK", "SLURM_NODEID")
    return spec.num_nodes == 1 or all(os.environ.get(name) in (None, "", "0") for name in ranks)
