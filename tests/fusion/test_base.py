"""What all methods share: the loss, the optimizer's schedule, and what is logged of an epoch."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import DIMS, random_batch
from torch import Tensor

from mer_bench.batch import Batch, Width
from mer_bench.datasets.base import READS
from mer_bench.fusion import METHODS
from mer_bench.fusion.base import FusionModule
from mer_bench.records import Training


class Given(FusionModule):
    """A method with one parameter whose logits are given."""

    def __init__(self, logits: dict[int, Tensor]) -> None:
        super().__init__(DIMS, 3)
        self.logits, self.scale = logits, torch.nn.Parameter(torch.ones(()))

    def forward(self, batch: Batch) -> Tensor:
        return self.scale * self.logits[len(batch)]


@pytest.fixture
def batches() -> list[Batch]:
    """Of six and of two utterances."""
    return [random_batch(num_classes=3, dialogues=dialogues) for dialogues in ((4, 2), (2,))]


@pytest.fixture
def module(batches: list[Batch], monkeypatch: pytest.MonkeyPatch) -> Any:
    found: Any = Given({len(batch): torch.randn(len(batch), 3) for batch in batches})
    found.logged = {}
    monkeypatch.setattr(found, "log_dict", found.logged.update)
    return found


def test_cross_entropy_is_smoothed_and_weighted_by_class_as_the_training_says(
    module: Any, batches: list[Batch]
) -> None:
    module.training_options = Training(label_smoothing=0.1)
    module.class_counts.copy_(torch.tensor([100.0, 4.0, 0.0]))  # the last counts as the second
    logits = torch.randn(6, 3)
    label = batches[0].label.numpy()
    p = np.log(np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True))
    target = 0.9 * np.eye(3)[label] + 0.1 / 3
    assert float(module.cross_entropy(logits, batches[0])) == pytest.approx(
        float(-(target * p).sum(1).mean()), rel=1e-5
    )
    for kind, weight in {"balanced": np.array([0.01, 0.25, 0.25]), "sqrt": np.array([0.1, 0.5, 0.5])}.items():
        module.training_options = Training(label_smoothing=0.1, class_weights=kind)
        weighted = -(target * p * weight).sum() / weight[label].sum()
        assert float(module.cross_entropy(logits, batches[0])) == pytest.approx(float(weighted), rel=1e-5)
        np.testing.assert_allclose(module.class_weights(), weight / weight.mean(), rtol=1e-5)
    assert (Training().label_smoothing, Training().class_weights) == (0, "none")


def test_the_learning_rate_rises_in_a_line_and_falls_in_a_cosine_to_zero() -> None:
    module: Any = METHODS["early_concat"](DIMS, 3, hidden=4)
    module.training_options = Training(learning_rate=0.01, warmup=0.25, weight_decay=0.3)
    module.trainer = SimpleNamespace(estimated_stepping_batches=20)
    found = module.configure_optimizers()
    optimizer, schedule = found["optimizer"], found["lr_scheduler"]["scheduler"]
    assert found["lr_scheduler"]["interval"] == "step"
    (group,) = optimizer.param_groups
    assert type(optimizer) is torch.optim.AdamW
    assert group["weight_decay"] == 0.3
    assert sum(p.numel() for p in group["params"]) == module.num_parameters
    rates = []
    for _ in range(20):
        rates.append(group["lr"])
        optimizer.step()
        schedule.step()
    rising = [0.01 * (1 + 4 * step / 5) / 5 for step in range(5)]  # from a fifth, as there are five such steps
    falling = [0.01 * (1 + math.cos(math.pi * step / 15)) / 2 for step in range(15)]
    assert rates == pytest.approx(rising + falling)
    assert group["lr"] == pytest.approx(0, abs=1e-9)


def test_the_usual_training_is_as_the_docs_state() -> None:
    usual = Training()
    assert (usual.epochs, usual.batch_size, usual.learning_rate, usual.weight_decay) == (30, 32, 1e-3, 1e-2)
    assert (usual.warmup, usual.gradient_clip, usual.label_smoothing, usual.patience) == (0.1, 1.0, 0.0, 0)


def test_the_losses_of_an_epoch_are_means_over_utterances_and_not_over_batches(
    module: Any, batches: list[Batch]
) -> None:
    every = F.cross_entropy(
        torch.cat([module.logits[len(batch)] for batch in batches]), torch.cat([batch.label for batch in batches])
    )
    for batch in batches:
        module.validation_step(batch, 0)
    module.on_validation_epoch_end()
    assert module.logged["val/loss"] == pytest.approx(float(every), rel=1e-5)
    for batch in batches:
        module.training_step(batch, 0)
    module.on_train_epoch_end()
    assert module.logged["train/loss"] == pytest.approx(float(every), rel=1e-5)
    assert module.curve == [module.logged]
    for batch in batches[:1]:  # the next epoch begins anew
        module.training_step(batch, 0)
        module.validation_step(batch, 0)
    module.on_validation_epoch_end()
    module.on_train_epoch_end()
    first = float(F.cross_entropy(module.logits[6], batches[0].label))
    assert module.curve[1]["train/loss"] == pytest.approx(first, rel=1e-5)
    assert module.curve[1]["val/loss"] == pytest.approx(first, rel=1e-5)


def test_rows_of_the_validation_matrix_are_the_true_classes(module: Any, batches: list[Batch]) -> None:
    module.logits[6] = F.one_hot(torch.tensor([0, 0, 0, 2, 2, 2]), 3).float()  # the labels are 0, 1, 2, 0, 1, 2
    module.validation_step(batches[0], 0)
    module.on_validation_epoch_end()
    assert module.validation_matrices == [[[1, 0, 1], [1, 0, 1], [1, 0, 1]]]
    assert module.logged["val/accuracy"] == pytest.approx(2 / 6)
    assert module.logged["val/uar"] == pytest.approx(1 / 3 * (1 / 2 + 0 + 1 / 2))


def test_a_checkpoint_holds_the_widths_and_is_read_without_running_what_it_holds(tmp_path: Path) -> None:
    dims = {**DIMS, "text": Width(300, 300)}
    module = METHODS["early_concat"](dims, 3, hidden=4)
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", default_root_dir=tmp_path)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "one.ckpt", weights_only=True)
    loaded = METHODS["early_concat"].load_from_checkpoint(tmp_path / "one.ckpt", map_location="cpu", weights_only=True)
    assert loaded.dims == loaded.hparams["dims"] == dims
    for name, value in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_a_method_reads_functionals_alone_unless_it_says_so() -> None:
    assert FusionModule.reads == {"functionals"}
    assert METHODS["majority"].reads == frozenset()
    for name, method in METHODS.items():
        assert method.reads <= READS, name
