from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from factories import tensors
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mer_bench.batch import Batch, PaddedSequence, Source


def gather_by_loop(values: Tensor, offsets: Tensor, rows: Tensor) -> PaddedSequence:
    spans = [values[int(offsets[row]) : int(offsets[row + 1])] for row in rows]
    longest = max(1, *(len(span) for span in spans)) if spans else 1
    padded = torch.zeros(len(spans), longest, values.shape[1])
    mask = torch.zeros(len(spans), longest, dtype=torch.bool)
    for i, span in enumerate(spans):
        padded[i, : len(span)] = span
        mask[i, : len(span)] = True
    return PaddedSequence(padded, mask)


def dialogues(lengths: list[int], frames: dict[str, PaddedSequence] | None = None) -> Batch:
    """A batch of dialogues, built by a plain loop."""
    total = sum(lengths)
    grid = torch.full((len(lengths), max(lengths)), -1)
    dialogue, turn = torch.zeros(total, dtype=torch.long), torch.zeros(total, dtype=torch.long)
    position = 0
    for i, length in enumerate(lengths):
        for j in range(length):
            grid[i, j], dialogue[position], turn[position] = position, i, j
            position += 1
    count = torch.arange(total)
    frames = frames or {}
    present = {name: sequence.mask.any(1) for name, sequence in frames.items()}
    functionals = {name: sequence.values.sum(1) for name, sequence in frames.items()}
    return Batch(present, functionals, frames, count % 3, count % 2, dialogue, turn, count + 7, grid)


@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=12),
    dim=st.integers(1, 4),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.uint8]),
    data=st.data(),
)
def test_gather_equals_a_plain_loop(lengths: list[int], dim: int, dtype: torch.dtype, data: st.DataObject) -> None:
    rows = torch.tensor(data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=10)))
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    # a corpus without a single frame cannot be stored, so there is always one
    values = (torch.rand(max(int(offsets[-1]), 1), dim) * 255).to(dtype)
    before = values.clone()
    found, expected = Source(values).gather(offsets.numpy(), rows.numpy()), gather_by_loop(values, offsets, rows)
    assert torch.equal(found.values, expected.values)
    assert torch.equal(found.mask, expected.mask)
    assert found.values.dtype == torch.float32
    assert torch.equal(values, before)


def test_gather_on_a_device_does_not_synchronise() -> None:
    values, statistics = torch.empty(6, 2, device="meta"), (torch.empty(2, device="meta"),) * 2
    found = Source(values, statistics).gather(np.array([0, 2, 2, 6]), np.array([2, 0, 1]))
    assert found.values.is_meta
    assert found.mask.is_meta
    assert found.values.shape == (3, 4, 2)


def test_gather_does_not_leak_frame_zero_into_padding() -> None:
    values = torch.tensor([[float("nan")], [1.0], [2.0]])  # a masked multiplication would keep the NaN
    found = Source(values).gather(np.array([0, 1, 1, 3]), np.array([1, 2]))
    assert found.values.tolist() == [[[0.0], [0.0]], [[1.0], [2.0]]]
    assert found.mask.tolist() == [[False, False], [True, True]]


def test_gather_standardises_real_frames_and_leaves_padding_zero() -> None:
    values = torch.tensor([[1.0, 5.0], [3.0, 5.0], [2.0, 9.0]])
    statistics = (torch.tensor([1.0, 5.0]), torch.tensor([0.5, 2.0]))
    found = Source(values, statistics).gather(np.array([0, 2, 2, 3]), np.array([0, 1, 2]))
    assert found.values.tolist() == [[[0, 0], [1, 0]], [[0, 0], [0, 0]], [[0.5, 8], [0, 0]]]
    assert values[0].tolist() == [1, 5]


@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=6), width=st.integers(1, 3), wide=st.booleans())
def test_flatten_inverts_by_dialogue(lengths: list[int], width: int, wide: bool) -> None:
    batch = dialogues(lengths)
    flat = torch.randn(len(batch), width) if wide else torch.randn(len(batch))
    grouped = batch.by_dialogue(flat)
    assert grouped.shape[:2] == (len(lengths), max(lengths))
    assert torch.equal(batch.flatten(grouped), flat)
    start = 0
    for i, length in enumerate(lengths):
        assert torch.equal(grouped[i, :length], flat[start : start + length])
        assert not grouped[i, length:].any()
        start += length
    assert batch.turns.sum(1).tolist() == lengths


def test_by_dialogue_keeps_integers_and_booleans_and_hides_nan() -> None:
    batch = dialogues([1, 2])
    assert batch.by_dialogue(batch.index).tolist() == [[7, 0], [8, 9]]
    assert batch.by_dialogue(torch.tensor([True, False, True])).tolist() == [[True, False], [False, True]]
    first_is_nan = torch.tensor([[float("nan")], [1.0], [2.0]])
    assert batch.by_dialogue(first_is_nan)[0, 1].item() == 0


def test_by_dialogue_and_flatten_pass_gradients_only_to_real_turns() -> None:
    batch = dialogues([3, 1])
    flat = torch.randn(4, 2, requires_grad=True)
    batch.flatten(2 * batch.by_dialogue(flat)).sum().backward()
    assert flat.grad is not None
    assert torch.equal(flat.grad, torch.full((4, 2), 2.0))


def test_to_moves_every_tensor() -> None:
    sequence = PaddedSequence(torch.ones(3, 2, 1), torch.ones(3, 2, dtype=torch.bool))
    batch = dialogues([2, 1], {"audio": sequence}).to("meta")
    assert {tensor.device.type for tensor in tensors(batch)} == {"meta"}
    assert len(batch) == 3


def test_to_keeps_every_value() -> None:
    sequence = PaddedSequence(torch.randn(3, 2, 1), torch.tensor([[True, True], [True, False], [False, False]]))
    batch = dialogues([2, 1], {"audio": sequence})
    copy = batch.to(torch.device("cpu"))
    assert all(torch.equal(*pair) for pair in zip(tensors(copy), tensors(batch), strict=True))


def test_batches_are_frozen() -> None:
    batch = dialogues([1])
    with pytest.raises(FrozenInstanceError):
        batch.label = batch.turn  # type: ignore[misc]
