"""Encoders trained end to end: published sizes and names, properties of clips, pixels from the store to a record."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from factories import on_meta
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence, Width
from mer_bench.cli import main
from mer_bench.datasets.ravdess import EMOTIONS, RAVDESS
from mer_bench.encoders import ENCODERS, MFCCCNN, ResNeXt3D
from mer_bench.encoders.resnext3d import flip_and_crop, max_pool
from mer_bench.encoders.weights import load_weights
from mer_bench.errors import Misuse
from mer_bench.features import write_features
from mer_bench.fusion.cfn_sr import CFNSR, CrossModalBlock
from mer_bench.records import read_record, write_record
from mer_bench.training.run import run
from mer_bench.training.suite import one_run, read_suite, stand_in
from mer_bench.training.validate import validate
from mer_bench.utterances import COLUMNS, write_table

SIDE = 33  #: the smallest side that it accepts
DIM = 3 * SIDE * SIDE
PIXELS = {"audio": Width(13, 13), "vision": Width(3 * 224 * 224, 3 * 224 * 224)}
SMALL = {"audio": Width(13, 13), "vision": Width(DIM, DIM)}
SUITE = Path(__file__).parents[2] / "benchmarks" / "ravdess_end_to_end.toml"


def sequence(lengths: Sequence[int], dim: int, *, seed: int = 0) -> PaddedSequence:
    """Whole numbers from 0 to 255; a length of zero is a missing clip."""
    draw = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(*lengths, 1)) < torch.tensor(lengths)[:, None]
    return PaddedSequence(torch.randint(0, 256, (*mask.shape, dim), generator=draw) * mask[..., None].float(), mask)


def clips(lengths: Mapping[str, Sequence[int]], num_classes: int = 3) -> Batch:
    """A batch of MFCCs and pixels, each clip with its own noise."""
    audio, vision = sequence(lengths["audio"], 13), sequence(lengths["vision"], DIM)
    audio = PaddedSequence((audio.values / 127 - 1) * audio.mask[..., None], audio.mask)
    return batch_of({"audio": audio, "vision": vision}, num_classes)


def batch_of(frames: Mapping[str, PaddedSequence], num_classes: int = 3) -> Batch:
    """One utterance per clip."""
    present = {name: sequence.mask.any(1) for name, sequence in frames.items()}
    count = torch.arange(len(next(iter(present.values()))))
    return Batch(present, {}, frames, count % num_classes, count, count, 0 * count, count, count[:, None])


def encoder_of(name: str, **options: Any) -> Any:
    """A small encoder with running statistics other than the initial ones."""
    torch.manual_seed(1)
    encoder = ENCODERS[name](DIM, frames=3) if name == "resnext3d" else ENCODERS[name](13, frames=40)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return encoder


def input_of(name: str, lengths: Sequence[int]) -> PaddedSequence:
    return sequence(lengths, DIM if name == "resnext3d" else 13)


def tokens_and_vector(encoder: Any, x: PaddedSequence) -> tuple[PaddedSequence, Tensor]:
    batch = batch_of({encoder.modality: x})
    tokens = encoder.tokens(batch)
    return tokens, encoder.pool(batch, tokens)


@torch.no_grad()
def encode(encoder: Any, x: PaddedSequence) -> tuple[PaddedSequence, Tensor]:
    encoder.eval()
    return tokens_and_vector(encoder, x)


each_encoder = pytest.mark.parametrize("name", ENCODERS)

# Sizes and names


@pytest.mark.parametrize(
    ("build", "count", "source"),
    [
        (lambda: ResNeXt3D(3 * 224 * 224), 25_865_664, "3D ResNeXt-50 without head, the authors' module counted"),
        (lambda: nn.ModuleList([ResNeXt3D(DIM), nn.Linear(2048, 8)]), 25_882_056, "with head, 25.88M in print"),
        (lambda: MFCCCNN(), 20_704, "MFCCNet without head, the authors' module counted"),
        (lambda: nn.ModuleList([MFCCCNN(), nn.Linear(MFCCCNN().pooled, 8)]), 34_024, "with head, 0.03M in print"),
        (lambda: CFNSR(PIXELS, 8, encoders="paper"), 26_301_417, "the authors' training log; 26.30M in the paper"),
        (lambda: CFNSR(PIXELS, 8, encoders="paper", cross_modal=False), 25_916_072, "their ab_1, without the block"),
        (lambda: CFNSR(PIXELS, 8, encoders="paper", residual=False), 26_301_417, "their ab_2, without residual"),
        (lambda: CFNSR(PIXELS, 8, encoders="paper", self_attention=False), 26_051_369, "their msaf_ravdess.py"),
        (lambda: CrossModalBlock(2048, 64, slices=2), 385_345, "the authors' block at vision 2048, audio 64"),
        (lambda: CrossModalBlock(2048, 64).attend.target, 131_136, "its channel_affine"),
        (lambda: CrossModalBlock(2048, 64).attend.guide, 4_096, "its y_affine"),
        (lambda: CrossModalBlock(2048, 64).attend.score, 65, "its score"),
        (lambda: CFNSR(PIXELS, 8, encoders="paper").head, 29_704, "3712 -> 8"),
    ],
)
def test_parameter_counts_are_the_published_ones(build: Callable[[], nn.Module], count: int, source: str) -> None:
    assert sum(p.numel() for p in on_meta(build).parameters()) == count, source


def test_encoders_and_fusion_are_counted_apart() -> None:
    whole = on_meta(lambda: CFNSR(PIXELS, 8, encoders="paper"))
    assert isinstance(whole, CFNSR)
    assert whole.encoder_parameters == 25_865_664 + 20_704
    assert whole.num_parameters - whole.encoder_parameters == 385_345 + 29_704
    whole.encoders["vision"].requires_grad_(False)
    assert whole.encoder_parameters == 20_704


def test_feature_maps_have_the_sizes_of_the_papers() -> None:
    sizes: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: sizes.__setitem__(name, tuple(output.shape[1:]))

    vision, audio = on_meta(lambda: ResNeXt3D(3 * 224 * 224)), on_meta(MFCCCNN)
    for name, module in (*vision.named_children(), *((f"audio {n}", m) for n, m in audio.named_children())):
        module.register_forward_hook(note(name))
    out = vision(torch.empty(2, 3, 30, 224, 224, device="meta"))
    assert out.shape == (2, 2048, 2, 7, 7)
    assert audio(torch.empty(2, 13, 212, device="meta")).shape == (2, 64, 26)
    assert sizes["conv1"] == (64, 30, 112, 112)
    assert sizes["layer1"] == (256, 15, 56, 56)
    assert sizes["layer2"] == (512, 8, 28, 28)
    assert sizes["layer3"] == (1024, 4, 14, 14)
    assert sizes["audio bn1"] == (32, 210)
    assert sizes["audio conv2"] == (32, 208)
    assert sizes["audio bn2"] == (32, 26)
    assert (vision.slices, vision.positions, audio.pooled) == (2, 49, 1664)


def normalised(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *parts)


@pytest.mark.parametrize("stem_relu", [True, False])
def test_the_3d_resnext_is_what_its_state_dict_says_layer_by_layer(stem_relu: bool) -> None:
    encoder = encoder_of("resnext3d").eval()
    encoder.stem_relu = stem_relu
    state = encoder.state_dict()
    video = torch.randn(2, 3, 3, SIDE, SIDE)
    x = normalised(state, "bn1", F.conv3d(video, state["conv1.weight"], stride=(1, 2, 2), padding=3))
    x = F.max_pool3d(x.relu() if stem_relu else x, 3, 2, 1)
    for layer, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and not block else 1
            shortcut = x
            if not block:
                shortcut = F.conv3d(x, state[f"{name}.downsample.0.weight"], stride=stride)
                shortcut = normalised(state, f"{name}.downsample.1", shortcut)
            y = normalised(state, f"{name}.bn1", F.conv3d(x, state[f"{name}.conv1.weight"])).relu()
            y = F.conv3d(y, state[f"{name}.conv2.weight"], stride=stride, padding=1, groups=32)
            y = normalised(state, f"{name}.bn2", y).relu()
            y = normalised(state, f"{name}.bn3", F.conv3d(y, state[f"{name}.conv3.weight"]))
            x = (y + shortcut).relu()
    with torch.no_grad():
        torch.testing.assert_close(encoder(video), x, rtol=1e-4, atol=1e-4)


def test_the_mfcc_cnn_is_what_its_state_dict_says_layer_by_layer() -> None:
    encoder = encoder_of("mfcc_cnn").eval()
    state = encoder.state_dict()
    y = x = torch.randn(2, 13, 40)
    for layer in (1, 2, 3):
        y = F.conv1d(y, state[f"conv{layer}.weight"], state[f"conv{layer}.bias"], padding=2).relu()
        y = normalised(state, f"bn{layer}", F.max_pool1d(y, 8) if layer == 2 else y)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), y)
        padded = PaddedSequence(x.mT, torch.ones(2, 40, dtype=torch.bool))
        torch.testing.assert_close(encode(encoder, padded)[1], y.flatten(1))


def test_max_pooling_and_its_gradient_are_those_of_torch() -> None:
    x = torch.randn(2, 3, 7, 9, 8, requires_grad=True)
    ours, theirs = max_pool(x), F.max_pool3d(x, 3, 2, 1)
    assert torch.equal(ours, theirs)
    weight = torch.randn_like(ours)
    torch.testing.assert_close(*(torch.autograd.grad((y * weight).sum(), x)[0] for y in (ours, theirs)))


# Clips


@each_encoder
def test_a_clip_depends_neither_on_padding_nor_on_its_neighbours(name: str) -> None:
    encoder, x = encoder_of(name), input_of(name, [7, 1, 0, 50])
    tokens, vector = encode(encoder, x)
    assert tokens.mask.any(1).tolist() == [True, True, False, True]
    for row, length in enumerate((7, 1, 0, 50)):
        time = max(length, 1) + 4 * row
        alone = PaddedSequence(
            F.pad(x.values[row : row + 1], (0, 0, 0, 20))[:, :time], F.pad(x.mask[row : row + 1], (0, 20))[:, :time]
        )
        torch.testing.assert_close(encode(encoder, alone)[1][0], vector[row], rtol=1e-4, atol=1e-4)


@each_encoder
def test_a_missing_clip_is_zero_and_leaves_the_statistics_alone(name: str) -> None:
    encoder, x = encoder_of(name), input_of(name, [0, 5, 5])
    tokens, vector = encode(encoder, x)
    assert not tokens.mask[0].any()
    assert not tokens.values[0].any()
    assert not vector[0].any()
    assert vector[1:].any(1).all()
    means = []
    for rows in (slice(0, 3), slice(1, 3)):
        other = encoder_of(name).train()
        other.augment = False
        torch.manual_seed(0)  # the same dropout of the same shape
        other.encode(PaddedSequence(x.values[rows], x.mask[rows]))
        means.append(torch.cat([m.running_mean for m in other.modules() if hasattr(m, "running_mean")]))
    assert torch.equal(*means)


@each_encoder
def test_a_batch_without_any_clip_is_finite(name: str) -> None:
    encoder, x = encoder_of(name).train(), input_of(name, [0, 0])
    tokens, vector = tokens_and_vector(encoder, x)
    assert not tokens.mask.any()
    assert not vector.any()


@each_encoder
def test_a_batch_of_one_trains(name: str) -> None:
    encoder = (ResNeXt3D(DIM, frames=1) if name == "resnext3d" else MFCCCNN(frames=20)).train()
    tokens_and_vector(encoder, input_of(name, [1]))[1].square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


def test_frames_are_evenly_spaced_and_a_short_clip_repeats_them() -> None:
    encoder = encoder_of("resnext3d")
    x = sequence([3], DIM)
    expected = encode(encoder, x)[1]
    for times in (2, 3, 4):
        slow = PaddedSequence(x.values.repeat_interleave(times, 1), x.mask.repeat_interleave(times, 1))
        torch.testing.assert_close(encode(encoder, slow)[1], expected)
    one = PaddedSequence(x.values[:, :1], x.mask[:, :1])
    still = PaddedSequence(x.values[:, :1].expand(-1, 3, -1), x.mask)
    torch.testing.assert_close(encode(encoder, one)[1], encode(encoder, still)[1])


def test_mfccs_are_cut_or_padded_with_zeros() -> None:
    encoder = encoder_of("mfcc_cnn")
    x = sequence([60], 13)
    cut = PaddedSequence(x.values[:, :40], x.mask[:, :40])
    torch.testing.assert_close(encode(encoder, x)[1], encode(encoder, cut)[1])
    short = PaddedSequence(x.values[:, :25], x.mask[:, :25])
    filled = PaddedSequence(F.pad(x.values[:, :25], (0, 0, 0, 15)), x.mask[:, :40])
    torch.testing.assert_close(encode(encoder, short)[1], encode(encoder, filled)[1])


def test_pixels_are_normalised_with_the_statistics_of_imagenet() -> None:
    encoder = ResNeXt3D(DIM, frames=1)
    seen: list[Tensor] = []
    encoder.conv1.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    frame = torch.arange(3.0).repeat_interleave(SIDE * SIDE) * 100  # a red, a green and a blue plane
    encode(encoder, PaddedSequence(frame[None, None], torch.ones(1, 1, dtype=torch.bool)))
    assert seen[0].shape == (1, 3, 1, SIDE, SIDE)
    expected = [(0 - 0.485) / 0.229, (100 / 255 - 0.456) / 0.224, (200 / 255 - 0.406) / 0.225]
    for plane, value in zip(seen[0][0], expected, strict=True):
        torch.testing.assert_close(plane, torch.full_like(plane, value))


def test_a_clip_is_flipped_and_cropped_as_a_whole_by_the_global_generator() -> None:
    ramp = torch.arange(40.0).expand(64, 3, 2, 40, 40)  # brighter to the right
    torch.manual_seed(3)
    moved = flip_and_crop(ramp)
    assert torch.equal(moved[:, :, 0], moved[:, :, 1])
    slope = moved[:, 0, 0, 0, -1] - moved[:, 0, 0, 0, 0]
    assert 16 < int((slope < 0).sum()) < 48
    share = slope.abs() / 39
    assert float(share.min() ** 2) + 0.02 >= 0.8
    assert float(share.max()) <= 1 + 1e-5
    assert float(share.std()) > 0.01
    torch.manual_seed(3)
    assert torch.equal(flip_and_crop(ramp), moved)
    assert not torch.equal(flip_and_crop(ramp), moved)


def test_only_training_moves_the_pixels() -> None:
    encoder, x = encoder_of("resnext3d"), input_of("resnext3d", [3, 3])
    assert torch.equal(encode(encoder, x)[1], encode(encoder, x)[1])
    seen: list[Tensor] = []
    encoder.conv1.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    encoder.train()
    for _ in range(2):
        encoder.encode(x)
    encoder.augment = False
    for _ in range(2):
        encoder.encode(x)
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[2], seen[3])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ResNeXt3D(140), "140 values per frame are not square RGB pixels"),
        (lambda: ResNeXt3D(3 * 40 * 41), "not square RGB pixels"),
        (lambda: ResNeXt3D(3 * 32 * 32), "at least side 33, not 30 of side 32"),
        (lambda: ResNeXt3D(DIM, frames=0), "at least 1 frame"),
        (lambda: MFCCCNN(frames=19), "at least 20 frames per clip, not 19"),
    ],
)
def test_sizes_that_an_encoder_cannot_work_on_are_a_misuse(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(Misuse, match=message):
        build()


# Checkpoints


def authors(state: Mapping[str, Tensor], head: str, *, parallel: bool = False) -> dict[str, Tensor]:
    """The state dict in the authors' files: a classifier, no counters of batches, and perhaps DataParallel's prefix."""
    state = {k: v for k, v in state.items() if "num_batches_tracked" not in k}
    state |= {f"{head}.weight": torch.zeros(8, 5), f"{head}.bias": torch.zeros(8)}
    return {f"module.{key}": value for key, value in state.items()} if parallel else state


@pytest.mark.parametrize(
    ("name", "form"), [("resnext3d", "wrapped"), *(("mfcc_cnn", f) for f in ("plain", "parallel", "wrapped", "ours"))]
)
def test_weights_of_the_authors_and_ours_load(tmp_path: Path, name: str, form: str) -> None:
    source = encoder_of(name)
    content: dict[str, Any] = authors(source.state_dict(), source.head, parallel=form in ("parallel", "wrapped"))
    if form == "wrapped":
        content = {"epoch": 7, "arch": "resnext-50", "state_dict": content}
    elif form == "ours":
        content = source.state_dict()
    torch.save(content, tmp_path / "some.pth")
    torch.manual_seed(9)
    target = ENCODERS[name](DIM, frames=3) if name == "resnext3d" else ENCODERS[name](13, frames=40)
    x = input_of(name, [3, 2])
    assert not torch.equal(encode(target, x)[1], encode(source, x)[1])
    load_weights(target, tmp_path / "some.pth")
    assert torch.equal(encode(target, x)[1], encode(source, x)[1])


def test_an_encoder_trained_end_to_end_is_taken_out_of_the_whole_network(tmp_path: Path) -> None:
    whole = CFNSR(SMALL, 3, encoders="paper")
    torch.save({"state_dict": whole.state_dict()}, tmp_path / "whole.ckpt")
    for modality, encoder in (("audio", MFCCCNN()), ("vision", ResNeXt3D(DIM))):
        load_weights(encoder, tmp_path / "whole.ckpt")
        for key, value in whole.encoders[modality].state_dict().items():
            assert torch.equal(encoder.state_dict()[key], value)
    torch.save(authors(MFCCCNN().state_dict(), "fc1"), tmp_path / "audio.pth")
    again = CFNSR(SMALL, 3, encoders="paper", weights={"audio": str(tmp_path / "audio.pth")})
    stored = torch.load(tmp_path / "audio.pth", weights_only=True)
    assert torch.equal(again.encoders["audio"].conv1.weight, stored["conv1.weight"])


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_does_not_fit_is_one_sentence(tmp_path: Path) -> None:
    state = authors(MFCCCNN().state_dict(), "fc1")
    path = tmp_path / "some.pth"
    cases: list[tuple[Any, str]] = [
        ({k: v for k, v in state.items() if k != "bn2.weight"}, "it lacks bn2.weight$"),
        (state | {"conv4.weight": torch.zeros(1)}, "it holds unknown conv4.weight$"),
        (state | {"conv1.weight": torch.zeros(32, 40, 7)}, "it has another shape of conv1.weight$"),
        ({}, r"it lacks conv1.weight, conv1.bias, bn1.weight and 15 more$"),
        ([1, 2], "it lacks conv1.weight"),
        ({"state_dict": 3}, "it lacks conv1.weight"),
        (authors(encoder_of("resnext3d").state_dict(), "fc"), "it lacks .*; it holds unknown .*; it has another shape"),
        ({"state_dict": Payload(tmp_path / "executed")}, r"cannot read checkpoint .*only files of tensors"),
    ]
    for content, message in cases:
        torch.save(content, path)
        with pytest.raises(Misuse, match=message) as caught:
            load_weights(MFCCCNN(), path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    assert not (tmp_path / "executed").exists()
    deeper = encoder_of("resnext3d").state_dict() | {"layer3.6.conv1.weight": torch.zeros(1)}  # a ResNeXt-101 has it
    torch.save(deeper, path)
    with pytest.raises(Misuse, match=r"does not fit ResNeXt3D: it holds unknown layer3\.6\.conv1\.weight"):
        load_weights(encoder_of("resnext3d"), path)


@pytest.mark.parametrize("content", [None, b"", b"hello", b"PK\x03\x04 cut short"])
def test_a_file_that_is_no_checkpoint_is_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "some.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Misuse, match="cannot read checkpoint") as caught:
        load_weights(MFCCCNN(), path)
    assert "\n" not in str(caught.value)


# CFN-SR with the paper's encoders


@pytest.fixture(scope="module")
def network() -> CFNSR:
    torch.manual_seed(1)
    return CFNSR(SMALL, 3, encoders="paper")


def test_each_time_slice_of_the_block_has_a_softmax_of_its_own() -> None:
    torch.manual_seed(2)
    block = CrossModalBlock(6, 8, layers=1, slices=2).eval()
    target = PaddedSequence(torch.randn(3, 14, 6), torch.tensor([True, True, False])[:, None].expand(-1, 14))
    guide = PaddedSequence(torch.randn(3, 5, 8), torch.ones(3, 5, dtype=torch.bool))
    found = block(target, guide)
    block.slices = 1
    for part in (slice(0, 7), slice(7, 14)):
        alone = block(PaddedSequence(target.values[:, part], target.mask[:, part]), guide)
        torch.testing.assert_close(found.values[:, part], alone.values)
    assert not torch.allclose(found.values, block(target, guide).values)
    ratio = (found.values / target.values - 1)[..., 0]  # what the residual leaves is the weight
    torch.testing.assert_close(ratio[:2].unflatten(1, (2, 7)).sum(-1), torch.ones(2, 2), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_logits_are_a_clips_own_and_finite_where_modalities_are_missing(network: CFNSR) -> None:
    batch = clips({"audio": [212, 0, 100], "vision": [2, 3, 0]})
    network.eval()
    found = network(batch)
    assert found.shape == (3, 3)
    assert found.isfinite().all()
    for row in range(3):
        one = {m: PaddedSequence(x.values[row : row + 1], x.mask[row : row + 1]) for m, x in batch.frames.items()}
        torch.testing.assert_close(network(batch_of(one))[0], found[row], rtol=1e-4, atol=1e-4)
    for modality, x in batch.frames.items():
        other = PaddedSequence(x.values.flip(2) * 0.5, x.mask)
        changed = network(replace(batch, frames={**batch.frames, modality: other}))
        assert float((changed - found).abs().max()) > 1e-4


def test_the_whole_network_overfits_two_clips() -> None:
    torch.manual_seed(0)
    network = CFNSR(SMALL, 3, encoders="paper").train()
    batch = clips({"audio": [212, 200], "vision": [4, 30]})
    optimizer = torch.optim.Adam(network.parameters(), 3e-4)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        logits = network(batch)
        loss = F.cross_entropy(logits, batch.label)
        loss.backward()
        losses.append(loss.item())
        if len(losses) == 1:
            untouched = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
            assert [
                n for n in untouched if not n.endswith(("key.bias", "score.bias"))
            ] == []  # without effect in a softmax
        optimizer.step()
    assert losses[-1] < 0.25 * losses[0]
    assert logits.argmax(1).tolist() == batch.label.tolist()


@pytest.mark.parametrize(
    ("dims", "options", "message"),
    [
        (SMALL, {"encoders": "papre"}, "unknown encoders 'papre': did you mean 'paper'"),
        (
            {"audio": SMALL["audio"], "text": Width(5, 5)},
            {"encoders": "paper"},
            "given text and audio with guide audio",
        ),
        (SMALL, {"encoders": "paper", "guide": "vision"}, "audio that guides vision"),
        (
            {"audio": Width(13, 13), "vision": Width(140, 140)},
            {"encoders": "paper"},
            "140 values per frame are not square RGB",
        ),
        (SMALL, {"weights": {"audio": "some.pth"}}, 'option weights needs encoders = "paper"'),
        (SMALL, {"encoders": "paper", "weights": {"text": "x"}}, "unknown modality of weights"),
        (SMALL, {"encoders": "paper", "weights": {"audio": "x"}}, "cannot read checkpoint x"),
    ],
)
def test_options_that_do_not_go_together_are_a_misuse(
    dims: dict[str, Width], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(Misuse, match=message) as caught:
        on_meta(lambda: CFNSR(dims, 3, **options))
    assert "\n" not in str(caught.value)


# From pixels on disk to a record


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RAVDESS with one take of four actors: one for testing, one for validation, two for training."""
    folder = tmp_path_factory.mktemp("data")
    rows = [
        dict.fromkeys(COLUMNS, "") | {"id": actor, "dialogue": actor, "turn": 0, "speaker": actor, "emotion": emotion}
        for actor, emotion in zip(("1", "2", "3", "4"), EMOTIONS, strict=False)
    ]
    write_table(folder / "ravdess", pd.DataFrame(rows))
    draw = np.random.default_rng(0)
    ids = ["1", "2", "3", "4"]
    frames = [draw.integers(0, 256, (length, DIM)).astype(np.uint8) for length in (3, 2, 0, 4)]
    mfcc = [5 + 3 * draw.standard_normal((212, 13)) for _ in ids]
    write_features(folder / "ravdess/frames", frames, ids=ids, modality="vision", extractor="crops", dtype="uint8")
    write_features(folder / "ravdess/mfcc13", mfcc, ids=ids, modality="audio", extractor="mfcc")
    return folder


FEATURES = {"audio": "mfcc13", "vision": "frames"}
DATA = "--data RAVDESS --data.label_set eight --data.protocol folds6"


def test_pixels_reach_the_batch_untouched_and_features_standardised(root: Path) -> None:
    module = RAVDESS(root, FEATURES, label_set="eight", protocol="folds6")
    module.setup("fit")
    assert module.dims["vision"].frames == DIM
    assert isinstance(module.features["vision"].values, np.memmap)
    batch = module.collate([np.array([row]) for row in (3, 2, 0)])
    assert list(batch.functionals) == ["audio"]
    vision = batch.frames["vision"]
    assert vision.values.dtype == torch.float32
    assert vision.mask.sum(1).tolist() == [4, 0, 3]
    stored, offsets = module.features["vision"].values, module.features["vision"].offsets
    for position, row in enumerate((3, 2, 0)):
        own = vision.values[position][vision.mask[position]]
        assert torch.equal(own, torch.from_numpy(stored[offsets[row] : offsets[row + 1]].astype(np.float32)))
    assert not vision.values[~vision.mask].any()
    train = module.collate([np.array([row]) for row in module.rows["train"]]).frames["audio"].values
    torch.testing.assert_close(train.flatten(0, 1).mean(0), torch.zeros(13), rtol=0, atol=1e-4)


def test_nothing_reads_all_pixels(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("read whole")

    for name in ("column_statistics", "open_functionals"):
        with monkeypatch.context() as patched:
            patched.setattr(f"mer_bench.datasets.base.{name}", refuse)
            RAVDESS(root, {"vision": "frames"}, label_set="eight", protocol="folds6").setup("fit")
            with pytest.raises(AssertionError, match="read whole"):
                RAVDESS(root, FEATURES, label_set="eight", protocol="folds6").setup("fit")


def spec_of(root: Path, method: str = "cfn_sr", **changes: Any) -> Any:
    options = {"encoders": "paper"} if method == "cfn_sr" else {}
    usual: dict[str, Any] = {"label_set": None, "protocol": None, "fold": 1, "seed": 0, "options": options}
    usual |= {"features": FEATURES, "training": {"epochs": 1, "batch_size": 2}}
    spec = one_run(root, "ravdess", method, **{**usual, **changes})
    validate([spec], root)
    return spec


def test_a_run_trains_the_encoders_and_its_record_counts_them_apart(root: Path, tmp_path: Path) -> None:
    record = run(spec_of(root), root, logger="none")
    assert record is not None
    assert record.encoder_parameters == 25_865_664 + 20_704
    assert record.parameters == 26_301_417
    assert record.flops_per_utterance > 10**8
    assert math.isfinite(record.curve[0]["train/loss"])
    assert record.rows == {"train": 2, "validation": 1, "test": 1}
    assert read_record(write_record(record, tmp_path)) == record


@pytest.mark.parametrize(("method", "options"), [("early_concat", {"hidden": 1}), ("cfn_sr", {"hidden": 8})])
def test_a_method_that_reads_features_refuses_pixels(root: Path, method: str, options: dict[str, Any]) -> None:
    with pytest.raises(Misuse, match=rf"'frames' holds pixels, which '{method}' with these options does not read"):
        spec_of(root, method, options=options)


@pytest.mark.filterwarnings("ignore")  # Lightning's warnings about a Trainer that the user configures
def test_fit_refuses_pixels_to_a_method_that_reads_features(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("jsonargparse")
    data = [*DATA.split(), "--data.root", str(root), "--data.features", json.dumps(FEATURES)]
    monkeypatch.setattr("sys.argv", ["mer-bench", "fit", *data, "--model", "EarlyConcat"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "'frames' holds pixels, which 'early_concat'" in capsys.readouterr().err


def test_a_method_that_reads_no_features_accepts_pixels(root: Path) -> None:
    record = run(spec_of(root, "majority"), root, logger="none")
    assert record is not None
    assert (record.parameters, record.encoder_parameters) == (0, 0)


def test_the_suite_trains_the_whole_network_as_the_authors_do() -> None:
    suite = read_suite(SUITE)
    paper = {"encoders": "paper"}
    assert [row.options for row in suite.rows if row.method == "cfn_sr"] == [paper, paper | {"cross_modal": False}]
    for row in suite.rows:
        assert row.features == FEATURES
        training = row.training
        assert (training.epochs, training.batch_size, training.learning_rate) == (70, 16, 1e-3)
        assert (training.weight_decay, training.gradient_clip) == (0, 0)
    assert [row.options for row in stand_in(suite).rows] == [{}, {}, {"cross_modal": False}]


@pytest.mark.filterwarnings("ignore")  # Lightning's warnings about a Trainer that the user configures
def test_fit_trains_the_whole_network(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jsonargparse")
    from mer_bench.training.fit import main

    trainer = ("fast_dev_run=true", "accelerator=cpu", "enable_progress_bar=false")
    arguments = ["fit", *DATA.split(), "--data.root", str(root), "--data.features", json.dumps(FEATURES)]
    arguments += ["--model", "CFNSR", "--model.encoders", "paper", *(f"--trainer.{option}" for option in trainer)]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["mer-bench", *arguments])
    main(arguments)
