"""One run: build, fit, take the epoch that validation chose, read the test set once, measure, record."""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, Logger

from mer_bench import __version__
from mer_bench.bundle.store import copied, write_bundle
from mer_bench.calibration import Scaled, calibrate, log_of, scaled
from mer_bench.compact import single
from mer_bench.datasets.base import EmotionDataModule
from mer_bench.errors import Misuse, unknown
from mer_bench.files import check_folder
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.find import provenance
from mer_bench.groups import make_groups
from mer_bench.metrics import confusion_matrix
from mer_bench.probabilities import write_probabilities
from mer_bench.raters import rate
from mer_bench.records import MONITOR, FeatureFacts, RunRecord, RunSpec, Transfer
from mer_bench.training import measures as measuring
from mer_bench.training.build import TF32, build, build_trainer, trainer_precision
from mer_bench.training.callbacks import Notify, Outcome, RunFiles, best_checkpoint
from mer_bench.training.code import code_of
from mer_bench.training.cost import flops_per_utterance, peak_memory_mib, reset_peak_memory
from mer_bench.training.temporary import FREE, temporary_folder, temporary_prefix
from mer_bench.training.tracking import wandb_logger
from mer_bench.training.transfer import open_others, predict_other
from mer_bench.trials import TrialRecord

T = TypeVar("T")


def run(
    spec: RunSpec,
    root: Path,
    *,
    logger: str = "csv",
    log_folder: Path = Path("runs"),
    notify: Notify | None = None,
    measures: Collection[str] = (),
    keep: Path | None = None,
    bundle: Path | None = None,
) -> RunRecord | None:
    """Train and score one spec.

    Settings of the process, such as its number of threads, stay as they are. Benches and commands set them once, by
    :func:`mer_bench.training.execute.prepare_process`; the last digits of a score can depend on them.

    Args:
        spec: What to run.
        root: Folder of the prepared corpora.
        logger: "csv", "wandb" or "none".
        log_folder: Folder of the logs.
        notify: Called after every epoch.
        measures: What to measure beside the score, see ``records.check_measures``; nothing else depends on it.
        keep: Folder of the records, to keep the probabilities beside the record; None = they are not kept.
        bundle: Folder to keep the trained model in, with the weights that were tested; None = it is not kept.

    Returns:
        The record; None on every process but the first of a distributed run.

    Raises:
        Misuse: the spec does not fit the data or the method, or is that of a trial.
    """
    if spec.is_trial:
        raise Misuse("a trial of a tuning is never tested: mer-bench tune runs it")
    peak_is_known = reset_peak_memory()
    datamodule, method = _build_seeded(spec, root)
    ratings = datamodule.ratings if "raters" in measures else None
    others = open_others(spec, datamodule, root, measures)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix=temporary_prefix()) as name, _settings_of(spec):
        folder = Path(name)
        files, literature = RunFiles(folder, notify), measuring.Literature(folder)
        gradients = measuring.Gradients(folder)
        callbacks: list[Callback] = [files]
        callbacks += [literature] * ("literature" in measures) + [gradients] * ("gradients" in measures)
        trainer = build_trainer(spec, datamodule, folder, callbacks, _logger(logger, spec, log_folder))
        checkpoint = _fit(trainer, method, datamodule, folder)
        peak = peak_memory_mib() if peak_is_known else 0.0  # while what is mapped of the features is that of training
        trainer.test(method, datamodule=datamodule, ckpt_path=checkpoint, verbose=False, weights_only=True)
        if not trainer.is_global_zero:
            return None
        outcome = files.read()
        by_epoch, seconds_aside = literature.read()
        measured: dict[str, Any] = {"flops_per_utterance": flops_per_utterance(method, datamodule)}
        measured["seconds"] = round(time.perf_counter() - started - seconds_aside, 2)
        measured["peak_memory_mib"] = round(max(peak, peak_memory_mib()), 1) if peak_is_known else None
        datamodule.trainer = None  # from here on this process alone reads the test set
        tensors = {}
        if bundle is not None:
            _load(method, datamodule, checkpoint)
            tensors = copied(method.state_dict(), datamodule.statistics)
        if "gradients" in measures:
            measured["gradients"] = gradients.read()
        if "robustness" in measures:
            _load(method, datamodule, checkpoint)
            measured["robustness"] = _on_device(measuring.robustness, method, datamodule, trainer)
        if "temperature" in measures:
            _load(method, datamodule, checkpoint)
            measured["temperature"] = _scaled(
                datamodule, outcome, _on_device(measuring.temperature, method, datamodule, trainer)
            )
        if "efficiency" in measures:
            measured["efficiency"] = _on_device(measuring.efficiency, method, datamodule, trainer)
        if others:
            _load(method, datamodule, checkpoint)
            measured["transfer"] = {
                name: _on_device(partial(_transfer, other), method, datamodule, trainer)
                for name, other in others.items()
            }
    if ratings is not None:
        true, cluster = datamodule.labels[outcome.index], _clusters(datamodule, outcome.index)
        ids, predicted = datamodule.table["id"].to_numpy()[outcome.index].tolist(), outcome.predictions
        classes = datamodule.class_of
        measured["raters"] = rate(ratings, ids, classes, outcome.probabilities, true, predicted, cluster)
    record = _record(spec, datamodule, method, outcome, measured)
    if keep is not None:
        record = replace(record, probabilities=write_probabilities(spec, keep, outcome.probabilities))
    if bundle is not None:
        opened = {modality: each.spec for modality, each in datamodule.features.items()}
        write_bundle(bundle, record, opened, datamodule.licence, tensors)
    if "literature" not in measures:
        return record
    return replace(record, literature=by_epoch or [record.test_confusion])  # without training there is no epoch


def run_trial(
    spec: RunSpec, root: Path, *, logger: str = "csv", log_folder: Path = Path("runs"), notify: Notify | None = None
) -> TrialRecord:
    """Train a trial of a tuning as :func:`run` trains, and score validation alone.

    Args:
        spec: The trial, on one device.
        root: Folder of the prepared corpora.
        logger: "csv", "wandb" or "none".
        log_folder: Folder of the logs.
        notify: Called after every epoch.

    Raises:
        Misuse: the spec does not fit the data or the method, or is not that of a trial.
    """
    if not spec.is_trial:
        raise Misuse("this run is not a trial of a tuning")
    datamodule, method = _build_seeded(spec, root)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix=temporary_prefix()) as name, _settings_of(spec):
        folder = Path(name)
        files = RunFiles(folder, notify)
        trainer = build_trainer(spec, datamodule, folder, [files], _logger(logger, spec, log_folder))
        _fit(trainer, method, datamodule, folder)
        curve, confusions = files.read_validation()
    best = _best_epoch(curve)
    return TrialRecord(
        spec=spec,
        classes=datamodule.classes,
        context=method.context,
        rows={"train": len(datamodule.rows["train"]), "validation": len(datamodule.rows["validation"])},
        validation_confusion=confusions[best],
        best_epoch=best,
        epochs=len(curve),
        parameters=method.num_parameters,
        seconds=round(time.perf_counter() - started, 2),
        device=_device(),
    )


def _build_seeded(spec: RunSpec, root: Path) -> tuple[EmotionDataModule, FusionModule]:
    L.seed_everything(spec.seed, verbose=False)
    datamodule, method = build(spec, root)
    weights = sum(tensor.nbytes for tensor in method.state_dict().values())
    check_folder(temporary_folder(), "TMPDIR", FREE + 2 * weights)  # two checkpoints while a new one replaces the old
    return datamodule, method


def _best_epoch(curve: Sequence[Mapping[str, float]]) -> int:
    """The epoch that validation chooses; the last one where there is no validation."""
    scores = [entry[MONITOR] for entry in curve if MONITOR in entry]
    return int(np.argmax(np.asarray(scores, np.float32))) if scores else max(len(curve) - 1, 0)


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def measure_speed(record: RunRecord, root: Path) -> RunRecord:
    """The same record with its efficiency measured on this machine, which needs no training."""
    spec = record.spec
    datamodule, method = build(spec, root)
    datamodule.setup("test")
    # a Trainer knows which device and which precision the run would have
    trainer = L.Trainer(
        accelerator="auto",
        devices=1,
        deterministic=True,
        precision=trainer_precision(spec),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with _settings_of(spec):
        return replace(record, efficiency=_on_device(measuring.efficiency, method, datamodule, trainer))


@contextmanager
def _settings_of(spec: RunSpec) -> Iterator[None]:
    """Within it, 32-bit matrix products have the precision of the spec, and warnings without use are silent."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if spec.training.precision == TF32 else "highest")
    try:
        with warnings.catch_warnings():
            # batches are gathered in the main process on purpose; the distributed sampler is ours, see GroupSampler
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")  # Lightning's own
            warnings.filterwarnings("ignore", message=".*number of training batches.*smaller than the logging.*")
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _fit(trainer: L.Trainer, method: FusionModule, datamodule: EmotionDataModule, folder: Path) -> Path | None:
    """Train a method, or validate one without parameters; returns the checkpoint of the chosen epoch."""
    if method.num_parameters:
        trainer.fit(method, datamodule=datamodule)
        return best_checkpoint(trainer, folder)
    if datamodule.has_validation:
        trainer.validate(method, datamodule=datamodule, verbose=False)
    return None


def _load(method: FusionModule, datamodule: EmotionDataModule, checkpoint: Path | None) -> None:
    """Give the method the weights of the test: strategies that spawn processes leave the parent's as they were."""
    method.class_counts.copy_(datamodule.class_counts)
    if checkpoint is not None:
        method.load_state_dict(torch.load(checkpoint, map_location=method.device, weights_only=True)["state_dict"])


def _on_device(
    measure: Callable[[FusionModule, EmotionDataModule], T],
    method: FusionModule,
    datamodule: EmotionDataModule,
    trainer: L.Trainer,
) -> T:
    """Measure on the device and in the precision that the trainer uses."""
    with trainer.precision_plugin.forward_context():
        return measure(method.to(trainer.strategy.root_device), datamodule)


def _transfer(other: EmotionDataModule, method: FusionModule, datamodule: EmotionDataModule) -> Transfer:
    counts = by_cluster(other, *predict_other(method, datamodule, other)).tolist()
    hashes = {modality: opened.spec.sha256 for modality, opened in other.features.items()}
    return Transfer(other.protocol, other.protocols[other.protocol], hashes, counts)


def _record(
    spec: RunSpec, datamodule: EmotionDataModule, method: FusionModule, outcome: Outcome, measured: Mapping[str, Any]
) -> RunRecord:
    best = _best_epoch(outcome.curve)
    index, predictions = outcome.index, outcome.predictions
    true = datamodule.labels[index]
    confusion = confusion_matrix(true, predictions, datamodule.num_classes)
    cluster = _clusters(datamodule, index)
    kinds = {kind: np.asarray(of_each)[index].tolist() for kind, of_each in datamodule.groups(datamodule.table).items()}
    return RunRecord(
        spec=spec,
        classes=datamodule.classes,
        context=method.context,
        provenance=provenance(spec.method),
        simulated=datamodule.simulated,
        attainable=datamodule.attainable,
        ideal_by_cluster=_ideal_by_cluster(datamodule, index),
        protocol=datamodule.protocols[spec.protocol],
        code=code_of(spec, datamodule.classes),
        features={
            modality: FeatureFacts(
                name=opened.spec.name,
                extractor=opened.spec.extractor,
                revision=opened.spec.revision,
                layer=opened.spec.layer,
                dim=opened.spec.dim,
                parameters=opened.spec.extractor_parameters,
                exposure=opened.spec.exposure,
            )
            for modality, opened in datamodule.features.items()
        },
        rows={split: len(rows) for split, rows in datamodule.rows.items()},
        validation_confusion=outcome.validation_confusions[best] if outcome.validation_confusions else None,
        test_confusion=confusion.tolist(),
        test_by_cluster=by_cluster(datamodule, index, predictions).tolist(),
        calibration=calibrate(outcome.probabilities, true, predictions, cluster),
        groups=make_groups(kinds, cluster, true, predictions, datamodule.num_classes) or None,
        test_index=index.tolist(),
        test_predictions=predictions.tolist(),
        curve=[{name: single(value) for name, value in epoch.items()} for epoch in outcome.curve],
        best_epoch=best,
        parameters=method.num_parameters,
        encoder_parameters=method.encoder_parameters,
        device=_device(),
        versions={
            "python": ".".join(map(str, sys.version_info[:3])),
            "mer-bench": __version__,
            **{name: version(name) for name in ("torch", "lightning", "torchmetrics", "numpy")},
        },
        **measured,
    )


def _scaled(datamodule: EmotionDataModule, outcome: Outcome, temperature: float | None) -> Scaled:
    """What is kept of the test's probabilities at a temperature."""
    if temperature is None:
        return Scaled(None, None)
    index, probabilities = outcome.index, scaled(log_of(outcome.probabilities), temperature).astype(np.float32)
    true, cluster = datamodule.labels[index], _clusters(datamodule, index)
    return Scaled(temperature, calibrate(probabilities, true, outcome.predictions, cluster))


def by_cluster(
    datamodule: EmotionDataModule, index: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Confusion matrices [cluster, class, class] of the predictions for the table rows ``index``, in table order."""
    classes = datamodule.num_classes
    cluster = _clusters(datamodule, index)
    pairs = cluster * classes**2 + datamodule.labels[index] * classes + predicted
    return np.bincount(pairs, minlength=(cluster.max() + 1) * classes**2).reshape(-1, classes, classes)


def _ideal_by_cluster(datamodule: EmotionDataModule, index: npt.NDArray[np.int64]) -> list[float] | None:
    chance = datamodule.ideal(index)
    return None if chance is None else np.bincount(_clusters(datamodule, index), chance).round(5).tolist()


def _clusters(datamodule: EmotionDataModule, index: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Number of the cluster of each of the table rows ``index``, from 0 in table order."""
    return pd.factorize(datamodule.table[datamodule.cluster].to_numpy()[index])[0]


def _logger(name: str, spec: RunSpec, folder: Path) -> Logger | None:
    if name == "none":
        return None
    if name == "csv":
        return CSVLogger(folder / "logs", name=spec.path(Path()).parent.as_posix(), version=spec.name)
    if name == "wandb":
        return wandb_logger(spec, folder)
    raise unknown("logger", name, ("csv", "wandb", "none"))
