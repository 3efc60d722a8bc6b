"""FusionModule: the LightningModule that all fusion methods extend by their layers and ``forward``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import combinations
from typing import Any, ClassVar, Literal

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix

from mer_bench import metrics
from mer_bench.batch import Batch, Width
from mer_bench.errors import FailedRun, Misuse
from mer_bench.fusion.layers import drop_modalities
from mer_bench.modalities import MODALITIES, check_modalities, modality_order
from mer_bench.records import Training

#: Increase it when a change of what all methods share may change numbers (3: functionals are features).
SHARED_VERSION = 3

#: Probability that ``balance = "modality_dropout"`` drops a modality of an utterance in training. A choice of ours.
MODALITY_DROPOUT = 0.2


torch.serialization.add_safe_globals([Width])  # the hyperparameters of a checkpoint hold it


class FusionModule(L.LightningModule):
    """Base of all methods: the three steps, the metric states, the optimizer and the hyperparameters.

    A subclass is constructed as ``Method(dims, num_classes, **options)`` with keyword-only options whose defaults are
    the paper's and which its own docstring describes. It implements ``forward(batch) -> logits [utterance,
    num_classes]``, which must not read ``batch.label``. Auxiliary losses override :meth:`losses`.

    Args:
        dims: Widths of each modality's features; its keys are the modalities that the method fuses.
        num_classes: Number of emotions.
    """

    #: "utterance": batches of single utterances; "dialogue": batches of whole dialogues. Also the leaderboard track.
    context: ClassVar[Literal["utterance", "dialogue"]] = "utterance"
    #: Name of the method in its paper.
    title: ClassVar[str] = ""
    #: Increase it when a change of this method alone may change its numbers: older records then leave the leaderboard.
    revision: ClassVar[int] = 0
    #: :data:`SHARED_VERSION` + ``revision``.
    version: ClassVar[int]
    #: "reconstruction" where the paper does not determine the method; shown wherever the method is named.
    provenance: ClassVar[Literal["baseline", "reimplemented", "reconstruction"]] = "reimplemented"
    paper: ClassVar[str] = ""
    #: Modalities that the method requires, and the least and the largest number of modalities that it accepts.
    needs: ClassVar[frozenset[str]] = frozenset()
    least: ClassVar[int] = 1
    most: ClassVar[float] = math.inf

    #: What ``forward`` and ``losses`` read of an utterance: "functionals", "frames" or both. Batches hold nothing else.
    reads: frozenset[str] = frozenset({"functionals"})

    #: Options whose whole numbers may be 0; all others start at 1.
    may_be_zero: ClassVar[frozenset[str]] = frozenset()

    #: Names of the submodules that are unimodal encoders, dotted where they are nested; names that a module lacks are
    #: ignored. One rule holds for all methods: an encoder reads a single modality, and it leads from that modality's
    #: features to the representation with which the method's fusion begins. These count as fusion: modules that several
    #: modalities share, projections and self-attention inside a fusion mechanism (the queries of cross-attention, the
    #: selection within the guide of CFN-SR), decoders and classifiers. A token encoder counts as a whole, although it
    #: may also pool tokens that the fusion has reweighted.
    unimodal_encoders: tuple[str, ...] = ("encoders",)

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls.version = SHARED_VERSION + cls.revision

    class_counts: Tensor
    validation_confusion: Metric
    validation_loss: _Mean

    def __init__(self, dims: Mapping[str, Width], num_classes: int) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.check_modalities(tuple(dims))
        self.dims = {name: dims[name] for name in sorted(dims, key=modality_order)}
        self.num_classes = num_classes
        self.training_options = Training()
        self.register_buffer("class_counts", torch.ones(num_classes))
        self.validation_confusion = MulticlassConfusionMatrix(num_classes, validate_args=False)
        self.validation_loss = _Mean()
        self.training_losses: dict[str, _Mean] = {}
        self.test_predictions: PredictionTable | None = None
        self.curve: list[dict[str, float]] = []  # one entry per epoch
        self.validation_matrices: list[list[list[int]]] = []
        self._validation_scores: dict[str, float] = {}

    @classmethod
    def code_name(cls) -> str:
        """What messages call the method: a built-in one has the name of its file, any other is ``module:Class``."""
        package, _, module = cls.__module__.rpartition(".")
        return module if package == "mer_bench.fusion" else f"{cls.__module__}:{cls.__qualname__}"

    @classmethod
    def check_modalities(cls, modalities: tuple[str, ...]) -> None:
        """Raise Misuse unless the method can work on ``modalities``."""
        check_modalities(cls.code_name(), modalities, cls.needs, cls.least, cls.most)

    @classmethod
    def accepted_modalities(cls) -> list[tuple[str, ...]]:
        """Every set of modalities that the method can work on, the smallest ones first."""
        sets = (chosen for size in range(1, len(MODALITIES) + 1) for chosen in combinations(MODALITIES, size))
        found = []
        for chosen in sets:
            with suppress(Misuse):
                cls.check_modalities(chosen)
                found.append(chosen)
        return found

    @classmethod
    def options_for(cls, classes: Sequence[str]) -> dict[str, Any]:
        """Options whose default depends on the names of the classes; what a suite says comes first."""
        return {}

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes]."""
        raise NotImplementedError

    def present(self, batch: Batch) -> Tensor:
        """Mask [modality, utterance]: which modalities each utterance has, in the order of ``dims``."""
        return torch.stack([batch.present[name] for name in self.dims])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses of a training batch; their sum is minimised. Override it to add auxiliary terms."""
        return {"cross_entropy": self.cross_entropy(self(batch), batch)}

    def cross_entropy(self, logits: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy with the suite's label smoothing and class weights (:meth:`class_weights`)."""
        smoothing = self.training_options.label_smoothing
        return F.cross_entropy(logits, batch.label, self.class_weights(), label_smoothing=smoothing)

    def class_weights(self) -> Tensor | None:
        """Weights [num_classes] of the training loss, with a mean of 1; None if all classes count alike.

        "balanced" is in inverse proportion to a class's training rows, "sqrt" to their square root. A class without
        training rows has the weight of the rarest class that has some.
        """
        kind = self.training_options.class_weights
        if kind == "none":
            return None
        count = self.class_counts
        rarest = count.masked_fill(count == 0, math.inf).min()
        weight = count.maximum(rarest) ** (-1.0 if kind == "balanced" else -0.5)
        return weight / weight.mean()

    def modality_cross_entropies(self, logits: Tensor, batch: Batch) -> Tensor:
        """:meth:`cross_entropy` of each modality's own classifier over the utterances that have the modality.

        Shapes:
            logits [modality, utterance, num_classes] -> [modality]; zero for a modality that no utterance has.
        """
        of_class, present = self.class_weights(), self.present(batch)
        each = F.cross_entropy(
            logits.movedim(-1, 1),
            batch.label.expand(logits.shape[:2]),
            of_class,
            reduction="none",
            label_smoothing=self.training_options.label_smoothing,
        )
        total = (present if of_class is None else present * of_class[batch.label]).sum(1)
        return (each * present).sum(1) / total.clamp(min=1e-6)

    def setup(self, stage: str) -> None:
        """Store the class counts of the training rows and create the prediction table; prediction needs neither."""
        datamodule = getattr(self.trainer, "datamodule", None)
        if datamodule is not None and stage != "predict":
            self.class_counts.copy_(datamodule.class_counts)
            self.test_predictions = PredictionTable(len(datamodule.table), self.num_classes).to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One optimisation step; losses are summed on the device and logged once per epoch."""
        if self.training_options.balance == "modality_dropout":
            kept = drop_modalities(self.present(batch), MODALITY_DROPOUT)
            batch = batch.without({name: ~there for name, there in zip(self.dims, kept, strict=True)})
        losses = self.losses(batch)
        for name, value in losses.items():
            if name not in self.training_losses:
                self.training_losses[name] = _Mean().to(self.device)
            self.training_losses[name].update(value.detach(), len(batch))
        return torch.stack(list(losses.values())).sum()

    def on_train_epoch_end(self) -> None:
        """Log the mean of each loss and append the epoch's entry to the curve.

        Raises:
            FailedRun: a loss is not finite, in training or in validation.
        """
        means = {f"train/{name}": float(mean.compute()) for name, mean in self.training_losses.items()}
        entry = {"train/loss": sum(means.values()), **(means if len(means) > 1 else {})}
        self.log_dict(entry)
        self.curve.append({**entry, **self._validation_scores})
        for name, value in self.curve[-1].items():
            if not math.isfinite(value):
                raise FailedRun(f"training diverged in epoch {len(self.curve)}: {name} is {value}")
        for mean in self.training_losses.values():
            mean.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count predictions; the scores are computed from the counts at the end of the epoch."""
        logits = self(batch)
        self.validation_confusion.update(logits.argmax(1), batch.label)
        self.validation_loss.update(F.cross_entropy(logits, batch.label), len(batch))

    def on_validation_epoch_end(self) -> None:
        """Log validation loss and scores; ``val/weighted_f1`` selects the epoch."""
        matrix = self.validation_confusion.compute().cpu().numpy()
        self._validation_scores = {"val/loss": float(self.validation_loss.compute())} | {
            f"val/{name}": float(score(matrix)) for name, score in metrics.SCORES.items()
        }
        self.log_dict(self._validation_scores)
        self.validation_matrices.append(matrix.tolist())
        self.validation_confusion.reset()
        self.validation_loss.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Record each utterance's prediction in table order."""
        assert self.test_predictions is not None
        self.test_predictions.update(batch.index, self(batch))

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> tuple[Tensor, Tensor]:
        """Table rows [utterance] and probabilities [utterance, class], on the CPU; labels are not read."""
        return batch.index.cpu(), self(batch).cpu().double().softmax(1)

    def configure_optimizers(self) -> Any:
        """AdamW with linear warm-up and a cosine to zero; None for a method without trainable parameters."""
        if not self.num_parameters:
            return None
        options = self.training_options
        optimizer = self.adamw()
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = max(1, int(options.warmup * steps))
        schedule = torch.optim.lr_scheduler.SequentialLR(
            optimizer,
            [
                torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warmup, total_iters=warmup),
                torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - warmup)),
            ],
            [warmup],
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def adamw(self) -> torch.optim.AdamW:
        """AdamW of the trainable parameters."""
        options = self.training_options
        return torch.optim.AdamW(
            [p for p in self.parameters() if p.requires_grad],
            options.learning_rate,
            weight_decay=options.weight_decay,
            # Lightning cannot clip gradients of a fused optimizer under mixed precision
            fused=options.precision in ("32-true", "32", "tf32"),
        )

    @property
    def num_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @property
    def encoder_parameters(self) -> int:
        """Number of trainable parameters of the :attr:`unimodal_encoders`; all others belong to the fusion.

        It is 0 for three methods: majority has no parameters; linear and ef_lstm concatenate the modalities
        before their first layer with parameters.
        """
        modules = dict(self.named_modules())
        encoders = [modules[name] for name in self.unimodal_encoders if name in modules]
        return sum(p.numel() for encoder in encoders for p in encoder.parameters() if p.requires_grad)

    def encoders_by_modality(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters of each modality's own :attr:`unimodal_encoders`, in the order of ``dims``.

        An encoder belongs to a modality if a part of its dotted name is the modality's, or begins with it
        (``encoders.audio``, ``text_context``), or if it is one of a list of as many modules as there are modalities.
        Empty unless every parameter of the unimodal encoders belongs to a modality, and every modality has some.
        """
        found: dict[str, list[nn.Parameter]] = {name: [] for name in self.dims}
        modules = dict(self.named_modules())
        for root in (name for name in self.unimodal_encoders if name in modules):
            for path, parameter in modules[root].named_parameters(root):
                owner = self._owner(path.split("."), root.count("."), modules)
                if owner is None:
                    return {}
                found[owner] += [parameter] * parameter.requires_grad
        return found if found and all(found.values()) else {}

    def _owner(self, parts: Sequence[str], start: int, modules: Mapping[str, nn.Module]) -> str | None:
        """The modality whose encoder holds the parameter of this dotted name, which is looked at from ``start`` on."""
        for at in range(start, len(parts)):
            owner = next((name for name in self.dims if parts[at] == name or parts[at].startswith(f"{name}_")), None)
            above = modules[".".join(parts[:at])]
            if owner is None and at > start and isinstance(above, nn.ModuleList) and len(above) == len(self.dims):
                owner = list(self.dims)[int(parts[at])]
            if owner is not None:
                return owner
        return None


class PredictionTable(Metric):
    """Predictions and probabilities in table order, summed over devices, and how often each row was predicted.

    The counts reveal a distributed sampler that repeats utterances, which would otherwise change scores unnoticed.
    """

    full_state_update = False
    predictions: Tensor
    probabilities: Tensor
    seen: Tensor
    not_finite: Tensor

    def __init__(self, rows: int, classes: int) -> None:
        super().__init__()
        self.add_state("not_finite", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("predictions", torch.zeros(rows, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("probabilities", torch.zeros(rows, classes), dist_reduce_fx="sum")
        self.add_state("seen", torch.zeros(rows, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, index: Tensor, logits: Tensor) -> None:
        """Record the largest logit's class, and the softmax, of logits [utterance, class] for the rows ``index``."""
        self.not_finite += (~logits.isfinite().all(1)).sum()
        self.predictions.index_add_(0, index, logits.argmax(1))
        self.probabilities.index_add_(0, index, logits.softmax(1, torch.float32))
        self.seen.index_add_(0, index, torch.ones_like(index))

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Table rows in ascending order, the class predicted for each, and its probabilities [row, class].

        Raises:
            RuntimeError: an utterance was seen more than once.
            FailedRun: the logits of an utterance are not finite.
        """
        if int(self.not_finite):
            raise FailedRun(f"the logits of {int(self.not_finite)} test utterances are not finite: training diverged")
        if int(self.seen.max()) > 1:
            raise RuntimeError("an utterance was evaluated more than once: the distributed sampler repeats utterances")
        index = self.seen.nonzero()[:, 0]
        return index, self.predictions[index], self.probabilities[index]


class _Mean(Metric):
    """Weighted mean of a loss, over steps and devices."""

    full_state_update = False
    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("weight", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, value: Tensor, weight: int) -> None:
        self.total += value * weight
        self.weight += weight

    def compute(self) -> Tensor:
        return self.total / self.weight
