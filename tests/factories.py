"""What tests share: random batches, the same batch with more padding or one group alone, comparisons and references."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence

if TYPE_CHECKING:
    from mer_bench.fusion.transformer import Attention

DIMS = {"text": 6, "audio": 5, "vision": 4}


def random_batch(
    dims: Mapping[str, int] = DIMS,
    num_classes: int = 4,
    dialogues: Sequence[int] = (5, 3, 1),
    *,
    context: str = "dialogue",
    times: tuple[int, int] = (2, 9),
    missing: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
) -> Batch:
    """Gaussian features of ``sum(dialogues)`` utterances.

    Args:
        dims: Width of each modality.
        num_classes: Number of classes; the labels repeat 0, 1, ... in turn.
        dialogues: Number of turns of each dialogue; in utterance context only their sum matters.
        context: "dialogue", or "utterance": then the grid is one column, each utterance on its own.
        times: Least and largest number of frames of a sequence.
        missing: Modality -> utterances that lack it.
        seed: Seed of the features, lengths and speakers.
    """
    draw = torch.Generator().manual_seed(seed)
    rows = sum(dialogues)
    features = {}
    for name, dim in dims.items():
        length = torch.randint(times[0], times[1] + 1, (rows,), generator=draw)
        length[list((missing or {}).get(name, ()))] = 0
        steps = torch.arange(max(int(length.max()), 1))
        mask = steps < length[:, None]
        features[name] = PaddedSequence(torch.randn(*mask.shape, dim, generator=draw) * mask[..., None], mask)
    turns = torch.tensor([1] * rows if context == "utterance" else list(dialogues))
    real = torch.arange(int(turns.max())) < turns[:, None]
    grid = torch.full(real.shape, -1)
    grid[real] = torch.arange(rows)
    dialogue, turn = real.nonzero(as_tuple=True)
    speaker = torch.randint(0, 2, (rows,), generator=draw)
    return Batch(features, torch.arange(rows) % num_classes, speaker, dialogue, turn, torch.arange(rows) + 40, grid)


def pad(batch: Batch, *, frames: int = 3, turns: int = 0) -> Batch:
    """The same utterances with more padding, by one frame more in each further modality."""
    features = {
        name: PaddedSequence(F.pad(s.values, (0, 0, 0, frames + extra)), F.pad(s.mask, (0, frames + extra)))
        for extra, (name, s) in enumerate(batch.features.items())
    }
    return replace(batch, features=features, grid=F.pad(batch.grid, (0, turns), value=-1))


def sequence(lengths: Sequence[int], dim: int) -> PaddedSequence:
    """Random sequences of the given lengths."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return PaddedSequence(torch.randn(*mask.shape, dim) * mask[..., None], mask)


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """A module whose parameters have shapes but no memory."""
    with torch.device("meta"):
        return build()


def assert_close(actual: Tensor, expected: Tensor, *, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """Assert that two tensors are equal except for rounding in single precision."""
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


def assert_same_gradients(actual: Tensor, expected: Tensor, inputs: Sequence[Tensor]) -> None:
    """Assert that two tensors have the same gradients of a random sum with respect to ``inputs``."""
    direction = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad((output * direction).sum(), inputs) for output in (actual, expected))
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-4)


def naive_attention(attention: Attention, queries: Tensor, source: Tensor) -> Tensor:
    """Multi-head attention of one sequence [time, dim] to another one, one query and one head at a time."""
    rows = []
    for query in attention.query(queries):
        heads = []
        for part in torch.arange(source.shape[1]).chunk(attention.heads):
            keys, values = attention.key(source)[:, part], attention.value(source)[:, part]
            scores = torch.stack([query[part] @ key / len(part) ** 0.5 for key in keys])
            heads.append(sum(weight * value for weight, value in zip(scores.softmax(0), values, strict=True)))
        rows.append(attention.output(torch.cat(heads)))
    return torch.stack(rows)


def tensors(batch: Batch) -> list[Tensor]:
    """Every tensor of the batch."""
    own = [batch.label, batch.speaker, batch.dialogue, batch.turn, batch.index, batch.grid]
    return own + [part for sequence in batch.features.values() for part in (sequence.values, sequence.mask)]


def alone(batch: Batch, group: int) -> tuple[Batch, Tensor]:
    """One row of the grid as a batch of its own, with no padding left, and its positions in ``batch``."""
    rows = batch.grid[group][batch.grid[group] >= 0]
    features = {}
    for name, sequence in batch.features.items():
        values, mask = sequence.values[rows], sequence.mask[rows]
        time = max(int(mask.sum(1).max()), 1)
        features[name] = PaddedSequence(values[:, :time], mask[:, :time])
    count = torch.arange(len(rows))
    fields = {name: getattr(batch, name)[rows] for name in ("label", "speaker", "turn", "index")}
    return Batch(features, dialogue=torch.zeros_like(count), grid=count[None], **fields), rows
