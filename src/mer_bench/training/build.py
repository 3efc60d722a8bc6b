"""Spec -> datamodule, method, trainer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import Logger

from mer_bench.batch import Width
from mer_bench.datasets import find_dataset
from mer_bench.datasets.base import READS, EmotionDataModule
from mer_bench.encoders import ResNeXt3D
from mer_bench.errors import Misuse, unknown
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.find import find_method, options_of, provenance, said
from mer_bench.records import MONITOR, RunSpec
from mer_bench.training.balance import balancing, check_balance

TF32 = "tf32"  #: a precision that Lightning has no name for: how a GPU multiplies 32-bit numbers
#: What Lightning's Trainer takes as ``precision`` and what keeps the weights in 32 bits, and TF32. Measures and scores
#: are computed outside of the Trainer too, with batches and weights in 32 bits.
PRECISIONS = (TF32, "32-true", "32", "16-mixed", "16", "bf16-mixed", "bf16")


def build(spec: RunSpec, root: Path) -> tuple[EmotionDataModule, FusionModule]:
    """The datamodule and the method of a spec.

    Raises:
        Misuse: the spec does not fit the data or the method.
    """
    datamodule = build_datamodule(spec, root)
    method = build_method(spec, datamodule.dims, datamodule.classes)
    datamodule.reads = method.reads
    check_pixels(method, datamodule)
    return datamodule, method


def trainer_precision(spec: RunSpec) -> Any:
    """What Lightning calls the precision of a spec."""
    return "32-true" if spec.training.precision == TF32 else spec.training.precision


def build_datamodule(spec: RunSpec, root: Path) -> EmotionDataModule:
    """Open the corpus of a spec, without test rows for a trial; check that its features are those that it names."""
    corpus = find_dataset(spec.dataset, root)
    datamodule = corpus(
        root,
        spec.features,
        label_set=spec.label_set,
        protocol=spec.protocol,
        fold=spec.fold,
        context=find_method(spec.method).context,
        batch_size=spec.training.batch_size,
        seed=spec.seed,
        share=spec.share,
    )
    if set(spec.features) != set(spec.features_sha256):
        raise Misuse("the run has features and features_sha256 of different modalities")
    for modality, opened in datamodule.features.items():
        if opened.spec.sha256 != spec.features_sha256[modality]:
            raise Misuse(f"feature set {opened.spec.name!r} of {spec.dataset} is not the one that the run names")
    if spec.is_trial:
        datamodule.close_test()
    return datamodule


def build_method(spec: RunSpec, dims: Mapping[str, Width], classes: Sequence[str]) -> FusionModule:
    """Construct the method of a spec.

    Raises:
        Misuse: an unknown option, a value that the method refuses, or modalities that it cannot work on.
    """
    options = {**find_method(spec.method).options_for(classes), **spec.options}
    module = construct(spec.method, dims, len(classes), options)
    module.training_options = spec.training
    check_balance(spec, module)
    if spec.compile:
        module.compile(dynamic=True)  # compiled at its first call; lengths change from batch to batch
    return module


def construct(name: str, dims: Mapping[str, Width], num_classes: int, options: Mapping[str, Any]) -> FusionModule:
    """An untrained module of a method.

    Raises:
        Misuse: an unknown option, a value that the method refuses, or modalities that it cannot work on.
    """
    method = find_method(name)
    method.check_modalities(tuple(dims))
    for option, value in options.items():
        check_option(name, option, value)
    try:
        module = method(dims, num_classes, **options)
    except Misuse:
        raise
    except Exception as error:  # a method that is not built in may raise anything
        why = error if provenance(name) != "own" else said(error)
        raise Misuse(f"method {name!r} refuses its options {dict(options)}: {why}") from error
    declared = {module.reads} if isinstance(module.reads, str) else module.reads
    for kind in sorted(declared - READS):
        raise unknown(f"input that method {name!r} declares by reads", kind, sorted(READS))
    return module


def check_option(method: str, name: str, value: Any) -> None:
    """Raise Misuse for an option that the method lacks, or a value out of the range that its default and name imply.

    A whole number starts at 1, or at 0 where the method says so; a number is finite and not negative, a rate of dropout
    below 1; a text or a truth value replaces its like. An option whose default is None is left to the method.
    """
    found = find_method(method)
    options = options_of(found)
    if name not in options:
        raise unknown(f"option of {method}", name, options)
    default = options[name]
    least = 0 if name in found.may_be_zero else 1
    if isinstance(default, bool):
        fits, wanted = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        fits, wanted = type(value) is int and value >= least, f"a whole number from {least} on"
    elif isinstance(default, float):
        limit = 1 if "dropout" in name else math.inf
        fits = type(value) in (int, float) and 0 <= value < limit
        wanted = "a number from 0 to below 1" if limit == 1 else "a finite number that is not negative"
    elif isinstance(default, tuple):
        fits = isinstance(value, list | tuple) and all(type(each) is int and each >= 1 for each in value)
        wanted = "a list of whole numbers from 1 on"
    else:
        fits, wanted = default is None or isinstance(value, type(default)), "a text"
    if not fits:
        raise Misuse(f"option {name} of {method} must be {wanted}, not {value!r}")


def check_pixels(method: FusionModule, datamodule: EmotionDataModule) -> None:
    """Raise Misuse if the method would read pixels as features: the shared encoders are not made for their width."""
    if method.num_parameters and not any(isinstance(module, ResNeXt3D) for module in method.modules()):
        for opened in datamodule.features.values():
            if opened.spec.integer:
                raise Misuse(
                    f"feature set {opened.spec.name!r} holds pixels, which {method.code_name()!r} with these options "
                    'does not read: give it features, or take cfn_sr with encoders = "paper"'
                )


def build_trainer(
    spec: RunSpec, datamodule: EmotionDataModule, folder: Path, watchers: Sequence[Callback], logger: Logger | None
) -> L.Trainer:
    """The Trainer of a run; checkpoints live in a temporary folder."""
    training = spec.training
    monitor = MONITOR if datamodule.has_validation else None
    callbacks: list[Callback] = [
        *watchers,
        *balancing(spec),
        ModelCheckpoint(folder, "best", monitor=monitor, mode="max" if monitor else "min", save_weights_only=True),
    ]
    if monitor and training.patience:
        callbacks.append(EarlyStopping(monitor, patience=training.patience, mode="max"))
    return _trainer(
        spec,
        max_epochs=training.epochs,
        gradient_clip_val=training.gradient_clip or None,
        deterministic=True,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if monitor else 0,
        logger=logger or False,
        callbacks=callbacks,
        default_root_dir=folder,
    )


def check_trainer(spec: RunSpec) -> None:
    """Raise Misuse if Lightning cannot train on this machine as the spec says."""
    found, wanted = _trainer(spec, logger=False, enable_checkpointing=False).precision, trainer_precision(spec)
    if str(found).partition("-")[0] != wanted.partition("-")[0]:  # Lightning takes another one where there is no GPU
        raise Misuse(
            f"this machine would train in the precision {found} and not in {wanted}; name {found}, or use a GPU"
        )


def _trainer(spec: RunSpec, **settings: Any) -> L.Trainer:
    hardware = {name: getattr(spec, name) for name in ("devices", "num_nodes", "strategy")}
    hardware["precision"] = trainer_precision(spec)
    try:
        return L.Trainer(
            accelerator="auto", **hardware, enable_progress_bar=False, enable_model_summary=False, **settings
        )
    except (ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException) as error:
        facts = ", ".join(f"{name} {value}" for name, value in hardware.items())
        raise Misuse(f"Lightning cannot train with {facts} on this machine: {' '.join(str(error).split())}") from error
