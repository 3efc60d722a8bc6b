"""Linear: regression on the functionals of each modality, the score that a neural method must exceed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion.base import FusionModule
from mer_bench.metrics import weighted_f1

#: Weight decays of the regressions; None is that of the suite, as for every other method.
DECAYS = (None, 3.0, 10.0, 30.0)


class Linear(FusionModule):
    """Multinomial logistic regression on the concatenated functionals of all modalities.

    How strongly it is regularised is chosen as the epoch is: one regression per weight decay of :data:`DECAYS` learns
    from the same batches, and after each epoch the one with the best weighted F1 on validation makes the predictions
    (of equal ones the first). Where there is no validation, the first one does. The training loss is the mean over the
    regressions.
    """

    title = "Linear"
    provenance = "baseline"
    unimodal_encoders = ()
    revision = 1
    chosen: Tensor

    def __init__(self, dims: Mapping[str, Width], num_classes: int) -> None:
        super().__init__(dims, num_classes)
        head = nn.Linear(sum(width.functionals for width in self.dims.values()), num_classes)
        self.heads = _copies(head)
        self.register_buffer("chosen", torch.zeros(1, dtype=torch.long))
        self.confusions, self.validation_losses = _copies(self.validation_confusion), _copies(self.validation_loss)

    def regressions(self, batch: Batch) -> Tensor:
        """Logits [regression, utterance, num_classes]; a missing modality adds nothing."""
        weight, bias = self._parameters_of_all()
        joined = F.linear(self._joined(batch), weight.flatten(0, 1), bias.flatten())
        return joined.reshape(-1, *bias.shape).transpose(0, 1)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [utterance, num_classes] of the chosen regression."""
        weight, bias = (each.index_select(0, self.chosen)[0] for each in self._parameters_of_all())
        return F.linear(self._joined(batch), weight, bias)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Mean cross-entropy of the regressions."""
        each = [self.cross_entropy(logits, batch) for logits in self.regressions(batch)]
        return {"cross_entropy": torch.stack(each).mean()}

    def adamw(self) -> torch.optim.AdamW:
        """AdamW with a weight decay for each regression."""
        optimizer = super().adamw()
        shared = optimizer.param_groups.pop()
        for head, decay in zip(self.heads, DECAYS, strict=True):
            own = {} if decay is None else {"weight_decay": decay}
            optimizer.add_param_group({**shared, "params": list(head.parameters()), **own})
        return optimizer

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count the predictions of each regression."""
        for logits, (confusion, loss) in zip(self.regressions(batch), self._metrics(), strict=True):
            confusion.update(logits.argmax(1), batch.label)
            loss.update(F.cross_entropy(logits, batch.label), len(batch))

    def on_validation_epoch_end(self) -> None:
        """Choose the regression; its scores are those of the epoch."""
        metrics = self._metrics()
        scores = [weighted_f1(confusion.compute().cpu().numpy()) for confusion, _ in metrics]
        best = int(np.argmax(scores))
        self.chosen.fill_(best)
        self.validation_confusion, self.validation_loss = metrics[best]
        super().on_validation_epoch_end()
        for metric in (each for pair in metrics for each in pair):
            metric.reset()

    @property
    def num_parameters(self) -> int:
        """Number of trainable parameters of one regression: the others are alternatives to it."""
        return super().num_parameters // len(DECAYS)

    def _joined(self, batch: Batch) -> Tensor:
        """Functionals [utterance, width] of all modalities."""
        return torch.cat([batch.functionals[name] for name in self.dims], -1)

    def _parameters_of_all(self) -> tuple[Tensor, Tensor]:
        """Weights [regression, num_classes, width] and biases [regression, num_classes]."""
        heads = cast(Sequence[nn.Linear], self.heads)
        return torch.stack([head.weight for head in heads]), torch.stack([head.bias for head in heads])

    def _metrics(self) -> Sequence[tuple[Any, Any]]:
        """Confusion matrix and loss of each regression on validation."""
        return list(zip(cast(Any, self.confusions), cast(Any, self.validation_losses), strict=True))


def _copies(module: nn.Module) -> nn.ModuleList:
    """As many equal copies of a module as there are regressions."""
    return nn.ModuleList(deepcopy(module) for _ in DECAYS)
