"""One run: RunSpec -> RunRecord. Seed, build, fit, take the epoch that validation chose, read the test set once."""

from __future__ import annotations

import ctypes
import inspect
import json
import logging
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger
from torch.utils.flop_counter import FlopCounterMode

from mer_bench import measure
from mer_bench.batch import Batch
from mer_bench.datasets import DATASETS
from mer_bench.datasets.base import EmotionDataModule
from mer_bench.encoders import ResNeXt3D
from mer_bench.errors import Misuse, unknown
from mer_bench.fusion import METHODS
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.layers import every_column
from mer_bench.metrics import confusion_matrix
from mer_bench.records import RunRecord, RunSpec

MONITOR = "val/weighted_f1"
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  #: parameters of glibc's mallopt
TF32 = "tf32"  #: a precision that Lightning has no name for

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


def _trainer_precision(spec: RunSpec) -> Any:
    """What Lightning calls a precision; TF32 is how a GPU multiplies 32-bit numbers, see :func:`prepare_process`."""
    return "32-true" if spec.training.precision == TF32 else spec.training.precision


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


def build_datamodule(spec: RunSpec, root: Path) -> EmotionDataModule:
    """Open the corpus of a spec and check that its features are the ones that the spec names."""
    if spec.dataset not in DATASETS:
        raise unknown("dataset", spec.dataset, DATASETS)
    if spec.method not in METHODS:
        raise unknown("method", spec.method, METHODS)
    datamodule = DATASETS[spec.dataset](
        root,
        spec.features,
        label_set=spec.label_set,
        protocol=spec.protocol,
        fold=spec.fold,
        context=METHODS[spec.method].context,
        batch_size=spec.training.batch_size,
        seed=spec.seed,
    )
    for modality, opened in datamodule.features.items():
        if opened.spec.sha256 != spec.features_sha256.get(modality):
            raise Misuse(f"feature set {opened.spec.name!r} of {spec.dataset} is not the one that the run names")
    return datamodule


def by_cluster(
    datamodule: EmotionDataModule, index: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Confusion matrices [cluster, class, class] of what is predicted for the table rows ``index``, in table order."""
    classes = datamodule.num_classes
    cluster, names = pd.factorize(datamodule.table[datamodule.cluster].to_numpy()[index])
    pairs = cluster * classes**2 + datamodule.labels[index] * classes + predicted
    return np.bincount(pairs, minlength=len(names) * classes**2).reshape(-1, classes, classes)


def build_method(spec: RunSpec, dims: Mapping[str, int], num_classes: int) -> FusionModule:
    """Construct the method of a spec.

    Raises:
        Misuse: an unknown option, a value that the method refuses, or modalities that it cannot work on.
    """
    method = METHODS[spec.method]
    method.check_modalities(tuple(dims))
    for option in spec.options:
        if option not in options_of(method):
            raise unknown(f"option of {spec.method}", option, options_of(method))
    try:
        module = method(dims, num_classes, **spec.options)
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise Misuse(f"method {spec.method!r} refuses its options {dict(spec.options)}: {error}") from error
    module.training_options = spec.training
    if spec.compile:
        module.compile(dynamic=True)  # when it is first called; lengths change from batch to batch
    return module


def check_pixels(method: FusionModule, datamodule: EmotionDataModule) -> None:
    """Raise Misuse for a method that takes pixels for features: the shared encoders would drown in their width."""
    if method.num_parameters and not any(isinstance(module, ResNeXt3D) for module in method.modules()):
        for opened in datamodule.features.values():
            if opened.spec.integer:
                name = type(method).__module__.rpartition(".")[2]
                raise Misuse(
                    f"feature set {opened.spec.name!r} holds pixels, which {name!r} with these options does not read: "
                    'give it features, or take cfn_sr with encoders = "paper"'
                )


def options_of(method: type[FusionModule]) -> dict[str, Any]:
    """Option -> default of a method's constructor."""
    parameters = inspect.signature(method).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def build_trainer(
    spec: RunSpec, datamodule: EmotionDataModule, folder: Path, watchers: Sequence[Callback], logger: Logger | None
) -> L.Trainer:
    """The Trainer of a run; checkpoints live in a temporary folder."""
    training = spec.training
    monitor = MONITOR if datamodule.has_validation else None
    callbacks: list[Callback] = [
        *watchers,
        ModelCheckpoint(folder, "best", monitor=monitor, mode="max" if monitor else "min", save_weights_only=True),
    ]
    if monitor and training.patience:
        callbacks.append(EarlyStopping(monitor, patience=training.patience, mode="max"))
    return L.Trainer(
        accelerator="auto",
        devices=spec.devices,
        num_nodes=spec.num_nodes,
        strategy=spec.strategy,
        precision=_trainer_precision(spec),
        max_epochs=training.epochs,
        gradient_clip_val=training.gradient_clip or None,
        deterministic=True,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if monitor else 0,
        logger=logger or False,
        callbacks=callbacks,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def flops_per_utterance(method: FusionModule, datamodule: EmotionDataModule) -> int:
    """Floating-point operations of a forward pass on the first test batch, per utterance, as torch counts them."""
    datamodule.setup("test")  # after ddp_spawn and ddp_fork only the children have done so
    return count_flops(method, next(iter(datamodule.test_dataloader())).to(method.device))


def count_flops(method: FusionModule, batch: Batch) -> int:
    """Floating-point operations of a forward pass per utterance of ``batch``, the same on every device."""
    method.eval()
    # with gradients: without, torch's counter stumbles over a view of a parameter that enters a module; nothing is kept
    # for them, since none is taken; and the counter does not see into compiled code
    forget = torch.autograd.graph.saved_tensors_hooks(lambda tensor: None, lambda nothing: nothing)
    eager = torch.compiler.set_stance("force_eager")
    with eager, torch.enable_grad(), forget, every_column(method), FlopCounterMode(display=False) as counter:
        method(batch)
    return int(counter.get_total_flops() // len(batch))


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
        from mer_bench.tracking import wandb_logger

        return wandb_logger(spec, folder)
    raise unknown("logger", name, ("csv", "wandb", "none"))


def _forget_peak_memory() -> bool:
    """Start :func:`_peak_memory_mib` anew: a worker has trained others before. Returns whether that was possible."""
    if torch.cuda.is_available():
        # where it is not, there is no peak to forget; and processes that are forked later could not use it
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.reset_peak_memory_stats()
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM; Linux alone has them
        _peak_memory_mib()
    except (OSError, ValueError):
        return False
    return True


def _peak_memory_mib() -> float:
    """Of the device's memory on a GPU, else the most that this process has had resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (kilobytes,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(kilobytes) / 2**10
