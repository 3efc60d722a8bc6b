"""What a run can measure beside its score: the best test epoch, robustness without retraining, temperature and speed.

Nothing here takes part in training, selection or ranking: the random state is restored, and a run gives the same
predictions with and without. Scores are stored as confusion matrices, times as seconds.
"""

from __future__ import annotations

import json
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.utils.benchmark import Timer
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassConfusionMatrix

from mer_bench.batch import Batch, PaddedSequence
from mer_bench.calibration import fit_temperature
from mer_bench.datasets.base import READS, EmotionDataModule
from mer_bench.fusion.base import FusionModule
from mer_bench.metrics import SMALLEST
from mer_bench.modalities import MODALITIES, modality_order
from mer_bench.records import Efficiency
from mer_bench.training.callbacks import evaluation

RATES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)  #: probabilities that an utterance lacks a modality
DECIBELS = (20, 10, 0)  #: signal-to-noise ratios; standardised features have a power of 1
THROUGHPUT_BATCH = 32  #: utterances
SEED = 20_080  #: seed of the missing modalities and of the noise, the same for every run

Matrices = dict[str, dict[str, list[list[int]]]]  #: kind of disturbance -> its level -> confusion matrix


class Literature(Callback):
    """Counts test predictions after every epoch, as the field's literature does; nothing reads them during training.

    The matrices are written to a file on the first process, the one way that works under every strategy.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "literature.json"
        self.matrices: list[list[list[int]]] = []
        self.seconds = 0.0

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Count with the weights that this epoch's validation used; every device takes its share."""
        assert isinstance(module, FusionModule)
        started = time.perf_counter()
        counts = MulticlassConfusionMatrix(module.num_classes, validate_args=False).to(module.device)
        with evaluation(module), isolate_rng(), torch.no_grad(), trainer.precision_plugin.forward_context():
            for batch in trainer.datamodule.test_dataloader():  # type: ignore[attr-defined]
                batch = batch.to(module.device)
                counts.update(module(batch).argmax(1), batch.label)
        self.matrices.append(counts.compute().tolist())
        self.seconds += time.perf_counter() - started

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write what was counted."""
        if trainer.is_global_zero:
            self.path.write_text(json.dumps([self.matrices, self.seconds]))

    def read(self) -> tuple[list[list[list[int]]], float]:
        """One confusion matrix per epoch, and the seconds that counting took; none where nothing was trained."""
        matrices, seconds = json.loads(self.path.read_text()) if self.path.is_file() else ([], 0.0)
        return matrices, seconds


class Gradients(Callback):
    """Mean norm of the gradient of each modality's own encoders in each epoch, as the loss gives it.

    It is taken before a strategy of :mod:`mer_bench.training.balance` changes it and before it is clipped, and is the
    same on all devices. Steps whose gradient is not finite, as mixed precision skips them, do not count.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "gradients.json"
        self.norms: dict[str, list[float]] = {}

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Find the encoders."""
        assert isinstance(module, FusionModule)
        self.encoders = module.encoders_by_modality()
        self.norms = {name: [] for name in self.encoders}

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Begin the sums over steps."""
        self.sum, self.steps = torch.zeros(2, len(self.encoders), device=module.device)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Add the norms of a step."""
        if self.encoders:
            gradients = [[p.grad for p in each if p.grad is not None] for each in self.encoders.values()]
            norms = torch.stack([get_total_norm(each) for each in gradients]).to(self.sum.device)
            finite = norms.isfinite()
            self.sum += norms.nan_to_num(0, 0, 0)
            self.steps += finite

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Add the means of an epoch."""
        for norms, mean in zip(self.norms.values(), (self.sum / self.steps.clamp(min=1)).tolist(), strict=True):
            norms.append(mean)

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write them."""
        if trainer.is_global_zero:
            self.path.write_text(json.dumps(self.norms))

    def read(self) -> dict[str, list[float]]:
        """What was written; empty where nothing was trained."""
        return json.loads(self.path.read_text()) if self.path.is_file() else {}


def robustness(method: FusionModule, datamodule: EmotionDataModule) -> Matrices:
    """Confusion matrices of the test set under each disturbance of :meth:`Disturbances.of`.

    Args:
        method: The method with the weights that the test used, on the device to use.
        datamodule: The corpus, set up and without a trainer, so that one process reads the whole test set.
    """
    standardised = [name for name, opened in datamodule.features.items() if not opened.spec.integer]
    disturbances = Disturbances(
        len(datamodule.table), datamodule.dims, standardised, datamodule.functionals_of, device=method.device
    )
    classes = method.num_classes
    counts: dict[tuple[str, str], Tensor] = defaultdict(
        lambda: torch.zeros(classes**2, dtype=torch.long, device=method.device)
    )
    method.eval()
    reads, datamodule.reads = datamodule.reads, READS  # functionals of disturbed frames are computed from these
    datamodule.setup("test")
    with torch.no_grad():
        for batch in datamodule.test_dataloader():
            batch = batch.to(method.device)
            for kind, level, disturbed in disturbances.of(batch):
                pairs = batch.label * classes + method(disturbed).argmax(1)
                counts[kind, level] += torch.bincount(pairs, minlength=classes**2)
    datamodule.reads = reads
    matrices: Matrices = defaultdict(dict)
    for (kind, level), flat in counts.items():
        matrices[kind][level] = flat.reshape(classes, classes).tolist()
    return dict(matrices)


class Disturbances:
    """Disturbs batches; an utterance is disturbed alike in every batch and for every method.

    The disturbance of an utterance depends on its table row alone, and a higher rate drops all that a lower one drops,
    so that curves are smooth and methods are compared on the same missing modalities.

    Args:
        rows: Number of rows of the utterance table.
        names: Modalities of the batches.
        standardised: Modalities to add noise to, whose features have deviation 1 over the training frames. Pixels are
            not standardised and get no noise.
        functionals_of: Functionals of a modality's disturbed frames.
        device: Device of the batches.
    """

    def __init__(
        self,
        rows: int,
        names: Collection[str],
        standardised: Collection[str],
        functionals_of: Callable[[str, PaddedSequence], Tensor],
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self.functionals_of = functionals_of
        self.standardised = sorted(standardised, key=modality_order)
        generator = np.random.default_rng(SEED)
        shape = (rows, len(MODALITIES))  # a column for each modality, whether or not the run has it
        lots = generator.random(shape, np.float32)
        bank = generator.standard_normal(1 << 20, np.float32)
        self.bank = torch.from_numpy(bank).to(device)
        start = generator.integers(0, len(bank), shape)
        self.lots, self.start = {}, {}
        for name in names:
            draw = (lots[:, MODALITIES.index(name)], start[:, MODALITIES.index(name)]) if name in MODALITIES else None
            if draw is None:  # each further modality has random numbers of its own, which no other run's set changes
                own = np.random.default_rng([SEED, *name.encode()])
                draw = own.random(rows, np.float32), own.integers(0, len(bank), rows)
            self.lots[name], self.start[name] = (torch.from_numpy(each.copy()).to(device) for each in draw)

    def of(self, batch: Batch) -> Iterator[tuple[str, str, Batch]]:
        """Kind, level and batch of each disturbance.

        ``only``
            Every proper subset of the modalities, "audio+text"; the others are missing.
        ``missing``
            Each modality of each utterance is missing with a probability, "0.3", independently; one that the utterance
            has always stays, so that with few modalities less is missing than the rate says.
        ``noise``, ``noise audio``
            Gaussian noise at a signal-to-noise ratio in dB, "10", on all modalities or on one.
        """
        names = sorted(batch.present, key=modality_order)
        for size in range(1, len(names)):
            for chosen in combinations(names, size):
                yield "only", "+".join(sorted(chosen)), batch.only(chosen)
        if len(names) > 1:
            for rate in RATES:
                yield "missing", f"{rate:g}", self.missing(batch, rate)
        noisy = [name for name in self.standardised if name in names]
        noise = {name: self._noise(batch, name) for name in noisy}
        for kind, disturbed in {"noise": noisy, **{f"noise {n}": [n] for n in noisy if len(names) > 1}}.items():
            for decibels in DECIBELS if disturbed else ():
                sigma = 10 ** (-decibels / 20)
                frames, functionals = dict(batch.frames), dict(batch.functionals)
                for name in disturbed:
                    values = frames[name].values + sigma * noise[name]
                    frames[name] = PaddedSequence(values, frames[name].mask)
                    functionals[name] = self.functionals_of(name, frames[name])
                yield kind, f"{decibels}", replace(batch, frames=frames, functionals=functionals)

    def missing(self, batch: Batch, rate: float) -> Batch:
        """The batch with each modality of each utterance missing at ``rate``, but never the last one."""
        names = list(batch.present)
        lots = torch.stack([self.lots[name][batch.index] for name in names], 1)
        present = torch.stack(list(batch.present.values()), 1)
        last = lots.masked_fill(~present, -1).max(1, keepdim=True).values
        keep = (lots >= rate) | (lots == last)
        return batch.without({name: ~keep[:, column] for column, name in enumerate(names)})

    def _noise(self, batch: Batch, name: str) -> Tensor:
        """Standard Gaussian noise [utterance, time, dim]; each utterance starts at its own offset of one long draw."""
        sequence = batch.frames[name]
        _, time, dim = sequence.values.shape
        start = self.start[name][batch.index]
        ring = self.bank.repeat(2 + time * dim // len(self.bank))
        drawn = ring.unfold(0, time * dim, 1)[start].reshape(sequence.values.shape)
        return drawn.masked_fill(~sequence.mask[..., None], 0)


def temperature(method: FusionModule, datamodule: EmotionDataModule) -> float | None:
    """The temperature of the logits at which validation is most likely; None where there is no validation.

    Arguments as for :func:`robustness`.
    """
    if not datamodule.has_validation:
        return None
    method.eval()
    datamodule.setup("validate")
    loader, found = datamodule.val_dataloader(), []
    assert isinstance(loader, DataLoader)
    with torch.no_grad():
        for batch in loader:
            batch = batch.to(method.device)
            found.append((method(batch).double().log_softmax(1).cpu().numpy(), batch.label.cpu().numpy()))
    logits, labels = (np.concatenate(each) for each in zip(*found, strict=True))
    return fit_temperature(np.maximum(logits, np.log(SMALLEST)), labels)


def efficiency(method: FusionModule, datamodule: EmotionDataModule) -> Efficiency:
    """Median seconds of a forward pass in inference mode on features that are on the device; weights do not matter.

    Latency is measured on one utterance of median length, or one dialogue where the method reads dialogues; throughput
    on :data:`THROUGHPUT_BATCH` utterances around the median, or on as few whole dialogues as hold them.
    """
    loader = datamodule.test_dataloader()
    groups, sizes = loader.dataset.groups, loader.sampler.sizes  # type: ignore[attr-defined]
    order = np.argsort(sizes, kind="stable")
    middle = len(order) // 2
    outwards = order[np.argsort(np.abs(np.arange(len(order)) - middle), kind="stable")]
    held = np.cumsum([len(groups[number]) for number in outwards])
    several = outwards[: 1 + int(np.searchsorted(held, THROUGHPUT_BATCH))]
    threads, found = torch.get_num_threads(), dict[str, Any]()
    method.eval()
    with torch.inference_mode():
        for name, chosen in (("latency", outwards[:1]), ("throughput", several)):
            batch = datamodule.collate([groups[number] for number in chosen]).to(method.device)
            timer = Timer("method(batch)", globals={"method": method, "batch": batch}, num_threads=threads)
            timer.timeit(2)
            found[f"{name}_seconds"] = timer.blocked_autorange(min_run_time=0.2).median
            found[f"{name}_utterances"] = len(batch)
    return Efficiency(device=device_name(method.device), threads=threads, **found)


def device_name(device: torch.device) -> str:
    """The name of a device; for a processor, its model."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8", errors="replace").splitlines() if facts.is_file() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()
