"""What can be known before anything trains: that the machine has what the runs need, and that they can be written."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from mer_bench.errors import Misuse
from mer_bench.files import check_folder, remove_leftovers
from mer_bench.records import RunSpec, has_whole_weights
from mer_bench.training.build import build_datamodule, check_trainer
from mer_bench.training.claims import remove_stale
from mer_bench.training.options import RunSettings
from mer_bench.training.run import FREE, TEMPORARY, temporary_folder
from mer_bench.training.suite import check_hardware


def before_training(
    specs: Sequence[RunSpec], settings: RunSettings, *, leaderboard: Path | None = None, elsewhere: bool = False
) -> list[str]:
    """Check what the runs need beside their data, and delete what killed processes have left in their folders.

    Args:
        specs: The runs.
        settings: Their folders and their logger.
        leaderboard: The page that will be written after them.
        elsewhere: Whether other machines train, whose hardware is not known here.

    Returns:
        One sentence for each fold without validation rows.

    Raises:
        Misuse: a strategy or precision that this machine does not have, a logger that is not installed, or a folder
            that nothing can be written to.
    """
    if settings.save_model:
        check_savable(specs, elsewhere)
    for spec in {(s.devices, s.num_nodes, s.strategy, s.training.precision): s for s in specs}.values():
        check_hardware(spec)
        if not elsewhere:
            _quiet_check_trainer(spec)
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
        check_folder(leaderboard.parent, "--leaderboard", FREE)
        remove_leftovers(leaderboard.parent, ".*.tmp")
    remove_leftovers(temporary, f"{TEMPORARY}*")
    return without_validation(specs, settings.root)


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


def without_validation(specs: Sequence[RunSpec], root: Path) -> list[str]:
    """One sentence for each fold that has no validation rows to choose the epoch by."""
    folds = {(spec.dataset, spec.label_set, spec.protocol, spec.fold): spec for spec in specs}
    return [
        f"{spec.dataset} {spec.protocol} fold {spec.fold} has no validation rows: the last epoch is scored"
        for spec in folds.values()
        if not build_datamodule(spec, root).has_validation
    ]


def is_first_process(spec: RunSpec) -> bool:
    """Whether this process is the one that writes the record of a run."""
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
    return spec.devices * spec.num_nodes == 1 or all(os.environ.get(name) in (None, "", "0") for name in ranks)


def is_first_machine(spec: RunSpec) -> bool:
    """Whether this machine is the one that has the record of a run."""
    ranks = ("NODE_RANK", "GROUP_RANK", "SLURM_NODEID")
    return spec.num_nodes == 1 or all(os.environ.get(name) in (None, "", "0") for name in ranks)


def _quiet_check_trainer(spec: RunSpec) -> None:
    """Without what a Trainer says of the devices that it finds: that comes with the runs."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        check_trainer(spec)
    finally:
        log.setLevel(level)
