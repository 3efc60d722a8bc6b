"""One run: RunSpec -> RunRecord. Seed, build, fit, take the epoch that validation chose, read the test set once."""

from __future__ import annotations

import ctypes
import json
import logging
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger

from mer_bench.datasets.base import EmotionDataModule
from mer_bench.errors import unknown
from mer_bench.fusion.base import FusionModule
from mer_bench.metrics import confusion_matrix
from mer_bench.records import RunRecord, RunSpec
from mer_bench.training import measures as measure
from mer_bench.training.build import (
    MONITOR,
    TF32,
    _trainer_precision,
    build_datamodule,
    build_method,
    build_trainer,
    check_pixels,
)
from mer_bench.training.cost import _forget_peak_memory, _peak_memory_mib, flops_per_utterance

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  #: parameters of glibc's mallopt

#: One thread a run: the tensors are small, several runs share a machine, and a sum over threads is not reproducible
#: when their number changes.
THREADS = 1

T = TypeVar("T")
Notify = Callable[[int, Mapping[str, float]], None]  #: epoch, the latest scores by name


def run(
    spec: RunSpec,
    root: Path,
    *,
    logger: str = "csv",
    log_folder: Path = Path("runs"),
    notify: Notify | None = None,
    measures: Collection[str] = (),
) -> RunRecord | None:
    """Train and score one spec.

    Args:
        spec: What to run.
        root: Folder of the prepared corpora.
        logger: "csv", "wandb" or "none".
        log_folder: Where loggers write.
        notify: Called after every epoch.
        measures: What to measure beside the score, see ``records.MEASURES``; nothing else of the record depends on it.

    Returns:
        The record; None on every process but the first of a distributed run.

    Raises:
        Misuse: the spec does not fit the data or the method.
    """
    prepare_process(spec.training.precision)
    peak_is_known = _forget_peak_memory()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    L.seed_everything(spec.seed, verbose=False)
    datamodule = build_datamodule(spec, root)
    method = build_method(spec, datamodule.dims, datamodule.num_classes)
    check_pixels(method, datamodule)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mer-bench-") as name, warnings.catch_warnings():
        # batches are gathered in the main process on purpose; a distributed sampler is ours, see GroupSampler
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")  # Lightning's own
        warnings.filterwarnings("ignore", message=".*number of training batches.*smaller than the logging interval.*")
        folder = Path(name)
        keeper = _Keeper(folder, notify)
        literature = measure.Literature(folder)
        callbacks = [keeper, literature] if "literature" in measures else [keeper]
        trainer = build_trainer(spec, datamodule, folder, callbacks, _logger(logger, spec, log_folder))
        checkpoint = None
        if method.num_parameters:
            trainer.fit(method, datamodule=datamodule)
            written = _best(trainer)
            checkpoint = folder / written.name if (folder / written.name).exists() else written
        elif datamodule.has_validation:
            trainer.validate(method, datamodule=datamodule, verbose=False)
        trainer.test(method, datamodule=datamodule, ckpt_path=checkpoint, verbose=False, weights_only=True)
        if not trainer.is_global_zero:
            return None
        curve, matrices, index, predicted = keeper.read()
        by_epoch, aside = literature.read()
        flops = flops_per_utterance(method, datamodule)
        seconds = time.perf_counter() - started - aside
        peak = round(_peak_memory_mib(), 1) if peak_is_known else None
        datamodule.trainer = None  # this process alone reads the test set from here on
        robustness = efficiency = None
        if "robustness" in measures:
            _load(method, datamodule, checkpoint)
            robustness = _on_device(measure.robustness, method, datamodule, trainer)
        if "efficiency" in measures:
            efficiency = _on_device(measure.efficiency, method, datamodule, trainer)
    test_confusion = confusion_matrix(datamodule.labels[index], predicted, datamodule.num_classes).tolist()
    scores = [entry[MONITOR] for entry in curve if MONITOR in entry]
    best = int(np.argmax(np.asarray(scores, np.float32))) if scores else max(len(curve) - 1, 0)
    return RunRecord(
        spec=spec,
        classes=datamodule.classes,
        context=method.context,
        provenance=method.provenance,
        simulated=datamodule.simulated,
        attainable=datamodule.attainable,
        features={
            modality: {
                "name": opened.spec.name,
                "extractor": opened.spec.extractor,
                "revision": opened.spec.revision,
                "layer": opened.spec.layer,
                "dim": opened.spec.dim,
                "parameters": opened.spec.extractor_parameters,
            }
            for modality, opened in datamodule.features.items()
        },
        rows={split: len(rows) for split, rows in datamodule.rows.items()},
        validation_confusion=matrices[best] if matrices else None,
        test_confusion=test_confusion,
        test_by_cluster=by_cluster(datamodule, index, predicted).tolist(),
        test_index=index.tolist(),
        test_predictions=predicted.tolist(),
        curve=curve,
        best_epoch=best,
        parameters=method.num_parameters,
        encoder_parameters=method.encoder_parameters,
        flops_per_utterance=flops,
        seconds=round(seconds, 2),
        peak_memory_mib=peak,
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        versions={
            "python": ".".join(map(str, sys.version_info[:3])),
            **{name: version(name) for name in ("mer-bench", "torch", "lightning", "torchmetrics", "numpy")},
        },
        # without training there is no epoch to choose
        literature=(by_epoch or [test_confusion]) if "literature" in measures else None,
        robustness=robustness,
        efficiency=efficiency,
    )


def time_again(record: RunRecord, root: Path) -> RunRecord:
    """The same record with its efficiency measured on this machine: that needs no training."""
    spec = record.spec
    prepare_process(spec.training.precision)
    datamodule = build_datamodule(spec, root)
    datamodule.setup("test")
    method = build_method(spec, datamodule.dims, datamodule.num_classes)
    # a Trainer knows which device and which precision the run would have
    trainer = L.Trainer(
        accelerator="auto", devices=1, deterministic=True, precision=_trainer_precision(spec), logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    return replace(record, efficiency=_on_device(measure.efficiency, method, datamodule, trainer))


def prepare_process(precision: str) -> None:
    """What torch and malloc are told once a process. Only TF32, which a spec asks for, changes numbers."""
    _keep_freed_memory()
    torch.set_num_threads(THREADS)
    # deterministic algorithms would also fill all memory that torch takes, a tenth of an epoch
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision("high" if precision == TF32 else "highest")


def _keep_freed_memory() -> None:
    """Let malloc keep the large blocks that are freed, as it keeps small ones; those of an earlier run are given back.

    glibc returns them to the system, which clears every page anew when the next step asks for the same tensors.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.malloc_trim(0)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def _on_device(
    what: Callable[[FusionModule, EmotionDataModule], T],
    method: FusionModule,
    datamodule: EmotionDataModule,
    trainer: L.Trainer,
) -> T:
    """Measure on the device and in the precision that the trainer uses."""
    with trainer.precision_plugin.forward_context():
        return what(method.to(trainer.strategy.root_device), datamodule)


def _load(method: FusionModule, datamodule: EmotionDataModule, checkpoint: Path | None) -> None:
    """Give the method what the test had: strategies that spawn processes leave the parent's as it was."""
    method.class_counts.copy_(datamodule.class_counts)
    if checkpoint is not None:
        method.load_state_dict(torch.load(checkpoint, map_location=method.device, weights_only=True)["state_dict"])


def by_cluster(
    datamodule: EmotionDataModule, index: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Confusion matrices [cluster, class, class] of what is predicted for the table rows ``index``, in table order."""
    classes = datamodule.num_classes
    cluster, names = pd.factorize(datamodule.table[datamodule.cluster].to_numpy()[index])
    pairs = cluster * classes**2 + datamodule.labels[index] * classes + predicted
    return np.bincount(pairs, minlength=len(names) * classes**2).reshape(-1, classes, classes)


class _Keeper(Callback):
    """Writes curve and predictions to files on the first process: the one way that works under every strategy."""

    def __init__(self, folder: Path, notify: Notify | None) -> None:
        self.folder, self.notify = folder, notify

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._tell(trainer, module)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._tell(trainer, module)

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._write(trainer, module)
        if trainer.world_size > 1:
            self._share(trainer)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._write(trainer, module)

    def on_test_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, FusionModule)
        assert module.test_predictions is not None
        index, predicted = module.test_predictions.compute()
        if trainer.is_global_zero:
            np.save(self.folder / "test.npy", torch.stack([index, predicted]).reshape(2, -1).cpu().numpy())

    def read(self) -> tuple[list[dict[str, float]], list[list[list[int]]], Any, Any]:
        path = self.folder / "curve.json"
        curve, matrices = json.loads(path.read_text()) if path.is_file() else ([], [])
        index, predicted = np.load(self.folder / "test.npy")
        return curve, matrices, index, predicted

    def _tell(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, FusionModule)
        if self.notify and trainer.is_global_zero:
            self.notify(len(module.curve), module.curve[-1] if module.curve else {})

    def _share(self, trainer: L.Trainer) -> None:
        """Put the chosen weights, which the first process has written, into every process's own folder.

        Processes on other machines do not see its folder. A checkpoint that is itself a folder (of shards, as DeepSpeed
        writes) stays where it is: it needs a file system that the machines share.
        """
        best = _best(trainer)
        content = trainer.strategy.broadcast(best.read_bytes() if trainer.is_global_zero and best.is_file() else b"")
        if content and not trainer.is_global_zero:
            (self.folder / best.name).write_bytes(content)

    def _write(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, FusionModule)
        if trainer.is_global_zero:
            (self.folder / "curve.json").write_text(json.dumps([module.curve, module.validation_matrices]))


def _best(trainer: L.Trainer) -> Path:
    """The checkpoint of the chosen epoch, where the first process wrote it."""
    assert isinstance(trainer.checkpoint_callback, ModelCheckpoint)
    return Path(trainer.checkpoint_callback.best_model_path)


def _logger(name: str, spec: RunSpec, folder: Path) -> Logger | None:
    if name == "none":
        return None
    if name == "csv":
        return CSVLogger(folder / "logs", name=f"{spec.dataset}/{spec.method}", version=spec.name)
    if name == "wandb":
        from mer_bench.training.tracking import wandb_logger

        return wandb_logger(spec, folder)
    raise unknown("logger", name, ("csv", "wandb", "none"))
