"""Hidden states of frozen self-supervised speech models: wav2vec 2.0, HuBERT and WavLM."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from data_prep.extract import EMPTY, Extractor, FloatArray, Recipe, Unreadable, release
from data_prep.extractors.hub import FrozenModel
from data_prep.extractors.media import RATE, decode_audio
from mer_bench.errors import Misuse, unknown

FAMILIES = ("wav2vec2", "hubert", "wavlm")  #: their transformers blank padded frames; data2vec-audio's does not
POOLINGS = ("frames", "mean")
LONGEST = 30.0  #: seconds that a model sees at once: the memory of attention grows with their square
BATCH_SECONDS = 120.0  #: of sound, padding included, in one call of the model


def speech(
    source: dict[str, Any], *, model: str, layer: str = "last", pooling: str = "frames", download: bool = False
) -> Extractor:
    """Hidden states of wav2vec 2.0, HuBERT or WavLM, by hub name or folder: 50 frames a second, or their mean.

    An utterance longer than 30 s is cut into the fewest parts of equal length that are not, each is encoded by itself,
    and their frames follow one another.

    Args:
        source: See :func:`data_prep.extractors.media.provenance`.
        model: See :class:`FrozenModel`.
        layer: ``last``, the number of a transformer layer (0: its input), or ``mean`` of all but that input.
        pooling: ``frames`` [time, dim], or their ``mean`` [1, dim].
        download: Whether the hub may be asked.

    Raises:
        Misuse: the model is not on this machine, none of these families, or has no such layer.
    """
    if pooling not in POOLINGS:
        raise unknown("pooling", pooling, POOLINGS)
    frozen = FrozenModel(model, download, processor="AutoFeatureExtractor", unused=("masked_spec_embed",))
    check_speech_model(frozen)
    number = layer_number(layer, frozen.config.num_hidden_layers)
    depth = "" if layer == "last" else "-mean" if number is None else f"-l{number}"
    recipe = Recipe(
        name=frozen.short + depth + ("-frames" if pooling == "frames" else ""),
        modality="audio",
        extractor=frozen.name,
        revision=frozen.revision,
        layer="mean of all layers" if number is None else f"hidden state {number}",
        frame_rate=RATE / int(np.prod(frozen.config.conv_stride)) if pooling == "frames" else None,
        settings={
            "sample_rate": RATE,
            "pooling": pooling,
            "longest": LONGEST,
            "library": f"transformers {release('transformers')}",
            **source,
        },
    )
    return Extractor(
        recipe,
        decode_audio,
        partial(encode_speech, frozen=frozen, layer=number, pooling=pooling),
        parameters=frozen.parameters,
        batch_size=16,
    )


def check_speech_model(frozen: FrozenModel) -> None:
    """Raise Misuse unless a model takes samples at 16 kHz and gives a frame for each stride of its convolutions."""
    kind = frozen.config.model_type
    if kind not in FAMILIES:
        raise Misuse(f"{frozen.asked!r} is a {kind} model; speech models are {', '.join(FAMILIES)}")
    rate = frozen.processor.sampling_rate
    if rate != RATE:
        raise Misuse(f"{frozen.asked!r} takes sound at {rate} Hz; only models at {RATE} Hz are supported")


def layer_number(layer: str, layers: int) -> int | None:
    """The index of a hidden state, 0 being the transformer's input; None for the mean of 1, 2, ...

    Raises:
        Misuse: the model has no such layer.
    """
    if layer in ("last", "mean"):
        return layers if layer == "last" else None
    if not layer.isdecimal() or int(layer) > layers:
        raise Misuse(f"no layer {layer!r}: valid are last, mean, and 0 to {layers}")
    return int(layer)


def encode_speech(
    clips: Sequence[FloatArray],
    *,
    frozen: FrozenModel,
    layer: int | None,
    pooling: str = "frames",
    longest: float = LONGEST,
) -> list[FloatArray | Unreadable]:
    """Hidden states [time, dim] of each clip's samples, or their mean [1, dim]; the same in whatever company.

    Each clip is normalised by itself. Padding is masked where a model is made for it; a model whose first convolution
    is followed by a normalisation over time ("group": the base sizes) would let the padding into every frame, so its
    clips go through one by one.

    Args:
        clips: Samples at 16 kHz.
        frozen: A model that :func:`check_speech_model` lets pass.
        layer: See :func:`layer_number`.
        pooling: ``frames`` or ``mean``.
        longest: Seconds that the model sees at once.
    """
    shortest = receptive_field(frozen.config)
    owner: list[int] = []  # the clip of each part
    parts: list[FloatArray] = []
    for i, samples in enumerate(clips):
        if len(samples) < shortest:
            continue
        values = frozen.processor(samples, sampling_rate=RATE, return_tensors="np")["input_values"][0]
        cut = np.array_split(values.astype(np.float32), math.ceil(len(values) / (longest * RATE)))
        owner += [i] * len(cut)
        parts += cut
    hidden: list[FloatArray] = [EMPTY] * len(parts)
    masked = frozen.config.feat_extract_norm == "layer"
    for rows in batches([len(part) for part in parts], int(BATCH_SECONDS * RATE) if masked else 0):
        for row, frames in zip(rows, hidden_states(frozen, [parts[i] for i in rows], layer), strict=True):
            hidden[row] = frames
    out: list[FloatArray | Unreadable] = []
    for i in range(len(clips)):
        mine = [frames for clip, frames in zip(owner, hidden, strict=True) if clip == i]
        if not mine:
            out.append(Unreadable(f"it is shorter than the {1000 * shortest / RATE:.0f} ms that the model needs"))
            continue
        frames = np.concatenate(mine)
        out.append(frames.mean(axis=0, keepdims=True) if pooling == "mean" else frames)
    return out


def batches(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Indices in groups of similar lengths: as many as fit into ``most`` samples when padded, and always one."""
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= most:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def hidden_states(frozen: FrozenModel, parts: Sequence[FloatArray], layer: int | None) -> list[FloatArray]:
    """Hidden states [time, dim] of normalised samples that are encoded together."""
    import torch

    samples = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(part) for part in parts], batch_first=True)
    lengths = torch.tensor([len(part) for part in parts])
    mask = (torch.arange(samples.shape[1]) < lengths[:, None]).long() if len(parts) > 1 else None
    with torch.inference_mode():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")  # WavLM's own two masks
            out = frozen.model(
                samples.to(frozen.device),
                attention_mask=None if mask is None else mask.to(frozen.device),
                output_hidden_states=True,
            )
        # [batch, time, dim] each: the transformer's input and each layer's output; of the last layer's, transformers 4
        # lists what has passed the final normalisation of the large sizes, 5 what has not
        states = (*out.hidden_states[:-1], out.last_hidden_state)
        chosen = torch.stack(states[1:]).mean(dim=0) if layer is None else states[layer]
    frames = frame_counts(frozen.config, lengths.tolist())
    return [state[:count].float().cpu().numpy() for state, count in zip(chosen, frames, strict=True)]


def frame_counts(config: Any, lengths: Sequence[int]) -> list[int]:
    """Frames that the convolutions make of so many samples."""
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        lengths = [(length - kernel) // stride + 1 for length in lengths]
    return list(lengths)


def receptive_field(config: Any) -> int:
    """Samples behind one frame: the fewest that a model takes."""
    samples = 1
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples
