"""What a spec says reaches the training: its optimizer, schedule and loss, its seed; and what a record says of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import confusion_matrix
from suites import RAVDESS, spec_of, train
from torch import Tensor

from mer_bench import metrics
from mer_bench.batch import Batch
from mer_bench.datasets.ravdess import EMOTIONS
from mer_bench.fusion.base import FusionModule
from mer_bench.records import RunRecord, Training

#: Every option differs from its default.
TRAINING: dict[str, float] = {
    "epochs": 4, "batch_size": 24, "learning_rate": 3e-3, "weight_decay": 0.07, "warmup": 0.25, "label_smoothing": 0.2,
    "gradient_clip": 0.5,
}  # fmt: skip


@dataclass
class Seen:
    """What a training did."""

    rates: list[float] = field(default_factory=list)  #: learning rate of each step
    decays: set[float] = field(default_factory=set)
    norms: list[float] = field(default_factory=list)  #: gradient norm of each step, after clipping
    logits: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    record: RunRecord | None = None


@pytest.fixture(scope="module")
def seen(root: Path) -> Seen:
    seen = Seen()
    cross_entropy, step = FusionModule.cross_entropy, torch.optim.AdamW.step

    def loss(self: FusionModule, logits: Tensor, batch: Batch) -> Tensor:
        value = cross_entropy(self, logits, batch)
        seen.logits.append(logits.detach().clone())
        seen.labels.append(batch.label.clone())
        seen.losses.append(float(value.detach()))
        return value

    def noted(self: torch.optim.AdamW, closure: Any = None) -> Any:
        def evaluated() -> Any:
            value = closure()
            (group,) = self.param_groups
            seen.rates.append(group["lr"])
            seen.decays.add(group["weight_decay"])
            squares = (p.grad.square().sum() for p in group["params"] if p.grad is not None)
            seen.norms.append(float(sum(squares, torch.zeros(())).sqrt()))
            return value

        return step(self, evaluated)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FusionModule, "cross_entropy", loss)
        patch.setattr(torch.optim.AdamW, "step", noted)
        seen.record = train(spec_of(root, training=TRAINING), root)
    return seen


def test_the_options_of_these_tests_are_not_the_defaults() -> None:
    assert all(getattr(Training(), name) != value for name, value in TRAINING.items())


def test_the_learning_rate_rises_to_its_peak_within_the_warm_up_and_falls_to_zero(seen: Seen) -> None:
    assert len(seen.rates) == 4 * 480 // 24
    peak = 0.25 * len(seen.rates)
    assert max(seen.rates) == pytest.approx(TRAINING["learning_rate"])
    assert int(np.argmax(seen.rates)) == peak
    assert seen.rates[: int(peak) + 1] == pytest.approx(
        np.linspace(TRAINING["learning_rate"] / peak, TRAINING["learning_rate"], int(peak) + 1)
    )
    cosine = 0.5 * (1 + np.cos(np.pi * np.arange(len(seen.rates) - peak) / (len(seen.rates) - peak)))
    assert seen.rates[int(peak) :] == pytest.approx(TRAINING["learning_rate"] * cosine)


def test_weight_decay_reaches_the_optimizer(seen: Seen) -> None:
    assert seen.decays == {TRAINING["weight_decay"]}


def test_gradients_are_clipped_to_the_norm_of_the_spec(seen: Seen) -> None:
    assert max(seen.norms) == pytest.approx(TRAINING["gradient_clip"], rel=1e-3)


def test_labels_are_smoothed_in_the_loss(seen: Seen) -> None:
    for logits, labels, loss in zip(seen.logits, seen.labels, seen.losses, strict=True):
        smoothed = float(F.cross_entropy(logits, labels, label_smoothing=0.2))
        assert loss == pytest.approx(smoothed)
        assert abs(loss - float(F.cross_entropy(logits, labels))) > 1e-4
    assert {len(labels) for labels in seen.labels} == {24}


# What a record says


def test_the_confusion_of_each_cluster_is_that_of_its_labels_and_predictions(root: Path, seen: Seen) -> None:
    record = seen.record
    assert record is not None
    table = pd.read_csv(root / RAVDESS / "utterances.csv", dtype=str, keep_default_na=False).loc[record.test_index]
    labels, predicted = table["emotion"].map(EMOTIONS.index), np.array(record.test_predictions)
    actors = list(dict.fromkeys(table["speaker"]))
    assert len(actors) == 4
    expected = [
        confusion_matrix(labels[mine], predicted[mine], labels=range(8)).tolist()
        for mine in ((table["speaker"] == actor).to_numpy() for actor in actors)
    ]
    assert record.test_by_cluster == expected
    assert len({str(matrix) for matrix in expected}) > 1


def test_the_validation_confusion_is_that_of_the_chosen_epoch_and_not_of_the_last(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.2, 0.6, 0.4])
    monkeypatch.setitem(metrics.SCORES, "weighted_f1", lambda _: next(scores))
    matrices: list[list[list[int]]] = []
    original = FusionModule.on_validation_epoch_end

    def noted(self: FusionModule) -> None:
        matrices.append(self.validation_confusion.compute().tolist())
        original(self)

    monkeypatch.setattr(FusionModule, "on_validation_epoch_end", noted)
    record = train(spec_of(root, training={"epochs": 3, "learning_rate": 2e-2}), root)
    assert record.best_epoch == 1
    assert len({str(matrix) for matrix in matrices}) == 3
    assert record.validation_confusion == matrices[1]


# The seed


@dataclass(frozen=True)
class Start:
    """How a training begins."""

    weights: bytes
    mask: Tensor  #: which elements the first dropout keeps
    order: list[int]  #: rows of the first batch


def start(root: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> Start:
    weights: list[bytes] = []
    masks: list[Tensor] = []
    order: list[list[int]] = []
    step = FusionModule.training_step

    def noted_step(self: FusionModule, batch: Batch, number: int) -> Tensor:
        weights.append(b"".join(p.detach().numpy().tobytes() for p in self.parameters()))
        order.append(batch.index.tolist())
        return step(self, batch, number)

    def noted_mask(module: torch.nn.Module, _: object, output: Tensor) -> None:
        if isinstance(module, torch.nn.Dropout) and module.training:
            masks.append(output.detach() != 0)

    hook = torch.nn.modules.module.register_module_forward_hook(noted_mask)
    with monkeypatch.context() as patch:
        patch.setattr(FusionModule, "training_step", noted_step)
        train(replace(spec_of(root, training={"epochs": 1}), seed=seed), root)
    hook.remove()
    return Start(weights[0], masks[0], order[0])


def test_another_seed_gives_other_weights_other_masks_of_dropout_and_another_order(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, again, other = (start(root, seed, monkeypatch) for seed in (0, 0, 1))
    assert (one.weights, one.order) == (again.weights, again.order)
    assert torch.equal(one.mask, again.mask)
    assert one.weights != other.weights
    assert one.order != other.order
    # equal masks would agree but for the few elements that are zero without dropout
    assert 0.6 < float((one.mask == other.mask).float().mean()) < 0.9
