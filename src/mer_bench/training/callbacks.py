"""What a run writes to files while Lightning trains and tests: its curve, its chosen weights and its predictions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from mer_bench.fusion.base import FusionModule

Notify = Callable[[int, Mapping[str, float]], None]  #: epoch, the latest scores by name


@dataclass(frozen=True)
class Outcome:
    """What came of a training and its test."""

    curve: list[dict[str, float]]  #: one entry per epoch
    validation_confusions: list[list[list[int]]]  #: one matrix per epoch
    index: npt.NDArray[np.int64]  #: table rows of the test utterances, ascending
    predictions: npt.NDArray[np.int64]  #: class of each
    probabilities: npt.NDArray[np.float32]  #: of each class [utterance, class]


class RunFiles(Callback):
    """Writes curve and predictions to files on the first process: the one way that works under every strategy."""

    def __init__(self, folder: Path, notify: Notify | None) -> None:
        self.folder, self.notify = folder, notify

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Report the epochs that are done."""
        self._notify(trainer, module)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Report the last epoch."""
        self._notify(trainer, module)

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write the curve, and give every process the chosen weights."""
        self._write_curve(trainer, module)
        if trainer.world_size > 1:
            self._share_weights(trainer)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write the validation of a method that is not trained."""
        if trainer.state.fn == "validate":
            self._write_curve(trainer, module)

    def on_test_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write the predictions and their probabilities."""
        assert isinstance(module, FusionModule)
        assert module.test_predictions is not None
        index, predicted, probabilities = module.test_predictions.compute()
        if trainer.is_global_zero:
            np.save(self.folder / "test.npy", torch.stack([index, predicted]).reshape(2, -1).cpu().numpy())
            np.save(self.folder / "probabilities.npy", probabilities.cpu().numpy())

    def read(self) -> Outcome:
        """What was written."""
        curve, confusions = self.read_validation()
        index, predictions = np.load(self.folder / "test.npy")
        return Outcome(curve, confusions, index, predictions, np.load(self.folder / "probabilities.npy"))

    def read_validation(self) -> tuple[list[dict[str, float]], list[list[list[int]]]]:
        """The curve and the validation confusion, one entry each per epoch."""
        path = self.folder / "curve.json"
        curve, confusions = json.loads(path.read_text()) if path.is_file() else ([], [])
        return curve, confusions

    def _notify(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, FusionModule)
        if self.notify and trainer.is_global_zero:
            self.notify(len(module.curve), module.curve[-1] if module.curve else {})

    def _share_weights(self, trainer: L.Trainer) -> None:
        """Put the chosen weights, which the first process has written, into every process's own folder.

        Processes on other machines do not see its folder. A checkpoint that is itself a folder (of shards, as DeepSpeed
        writes) stays where it is: it needs a file system that the machines share.
        """
        best = _best_model(trainer)
        content = trainer.strategy.broadcast(best.read_bytes() if trainer.is_global_zero and best.is_file() else b"")
        if content and not trainer.is_global_zero:
            (self.folder / best.name).write_bytes(content)

    def _write_curve(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, FusionModule)
        if trainer.is_global_zero:
            (self.folder / "curve.json").write_text(json.dumps([module.curve, module.validation_matrices]))


@contextmanager
def evaluation(module: torch.nn.Module) -> Iterator[None]:
    """Within it, the module is in evaluation mode; afterwards each of its parts is in the mode that it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def best_checkpoint(trainer: L.Trainer, folder: Path) -> Path:
    """The checkpoint of the chosen epoch: this process's copy in ``folder`` if there is one, else the original."""
    written = _best_model(trainer)
    return folder / written.name if (folder / written.name).exists() else written


def _best_model(trainer: L.Trainer) -> Path:
    assert isinstance(trainer.checkpoint_callback, ModelCheckpoint)
    return Path(trainer.checkpoint_callback.best_model_path)
