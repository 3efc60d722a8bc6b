"""What tests share: random batches, the same batch with more padding or one group alone, comparisons and references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence, Width
from mer_bench.functionals import COUNT
from mer_bench.testing import DIMS, alone, changed, pad, random_batch

__all__ = [
    "DIMS",
    "alone",
    "assert_close",
    "assert_same_gradients",
    "changed",
    "naive_attention",
    "on_meta",
    "pad",
    "random_batch",
    "sequence",
    "tensors",
    "widths",
]  # fmt: skip

if TYPE_CHECKING:
    from mer_bench.fusion.transformer import Attention


def widths(**frames: int) -> dict[str, Width]:
    """Widths of feature sets with several frames per utterance."""
    return {name: Width(dim, COUNT * dim) for name, dim in frames.items()}


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
    own += [*batch.present.values(), *batch.functionals.values()]
    return own + [part for sequence in batch.frames.values() for part in (sequence.values, sequence.mask)]
