"""Hidden states of frozen speech models: wav2vec 2.0, HuBERT and WavLM, and the encoder of Whisper."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from data_prep.corpora.base import Unreadable
from data_prep.extract import EMPTY, Extractor, FloatArray, Recipe, minor_version
from data_prep.extractors.hub import FrozenModel, count_parameters
from data_prep.extractors.media import RATE, decode_audio
from mer_bench.errors import Misuse, unknown

FAMILIES = ("wav2vec2", "hubert", "wavlm")  #: models that mask padded frames; data2vec-audio does not
POOLINGS = ("frames", "mean")
MAX_SECONDS = 30.0  #: length of one input of the model: the memory for attention grows with its square
BATCH_SECONDS = 120.0  #: length of all inputs in one call of the model, including padding


def speech(
    source: dict[str, Any],
    *,
    model: str,
    layer: str = "last",
    pooling: str = "frames",
    average: int = 1,
    download: bool = False,
) -> Extractor:
    """Hidden states of wav2vec 2.0, HuBERT or WavLM, by hub name or folder: 50 frames per second, or their mean.

    An utterance longer than 30 s is divided into the fewest equal parts of at most 30 s. Each part is encoded
    separately, and their frames are concatenated.

    Args:
        source: Provenance of the media, see :func:`data_prep.extractors.media.provenance`.
        model: Name or folder of the model, see :class:`FrozenModel`.
        layer: ``last``, the number of a transformer layer (0: its input), or ``mean`` of all layers but that input.
        pooling: ``frames`` [time, dim], or their ``mean`` [1, dim].
        average: Number of consecutive frames that are averaged into one.
        download: Whether the model may be downloaded.

    Raises:
        Misuse: the model is not on this machine, belongs to another family, or has no such layer.
    """
    if pooling not in POOLINGS:
        raise unknown("pooling", pooling, POOLINGS)
    if average > 1 and pooling == "mean":
        raise Misuse(f"--average {average} makes fewer frames, and --pooling mean makes one vector: choose one of them")
    frozen = FrozenModel(model, download, processor="AutoFeatureExtractor", unused=("masked_spec_embed",))
    check_speech_model(frozen)
    number = layer_number(layer, frozen.config.num_hidden_layers)
    layer_suffix = "" if layer == "last" else "-mean" if number is None else f"-l{number}"
    recipe = Recipe(
        name=frozen.short
        + layer_suffix
        + ("-frames" if pooling == "frames" else "")
        + ("" if average == 1 else f"-by{average}"),
        modality="audio",
        extractor=frozen.name,
        revision=frozen.revision,
        layer="mean of all layers" if number is None else f"hidden state {number}",
        frame_rate=RATE / int(np.prod(frozen.config.conv_stride)) / average if pooling == "frames" else None,
        settings={
            "sample_rate": RATE,
            "pooling": pooling,
            "longest": MAX_SECONDS,
            **({} if average == 1 else {"average": average}),
            "library": f"transformers {minor_version('transformers')}",
            **source,
        },
    )
    return Extractor(
        recipe,
        decode_audio,
        partial(encode_speech, frozen=frozen, layer=number, pooling=pooling, average=average),
        parameters=frozen.parameters,
        batch_size=16,
    )


def check_speech_model(frozen: FrozenModel) -> None:
    """Raise Misuse unless the model belongs to one of :data:`FAMILIES` and takes samples at 16 kHz."""
    family = frozen.config.model_type
    if family not in FAMILIES:
        other = " (for Whisper: 'audio whisper')" if family == "whisper" else ""
        raise Misuse(
            f"{frozen.requested!r} is a {family} model; supported speech models are {', '.join(FAMILIES)}{other}"
        )
    check_rate(frozen)


def check_rate(frozen: FrozenModel) -> None:
    """Raise Misuse unless the model takes samples at 16 kHz."""
    rate = frozen.processor.sampling_rate
    if rate != RATE:
        raise Misuse(f"{frozen.requested!r} takes sound at {rate} Hz; only models at {RATE} Hz are supported")


def layer_number(layer: str, layers: int, *, mean: bool = True) -> int | None:
    """The index of a hidden state, where 0 is the transformer's input; None for the ``mean`` of all others.

    Raises:
        Misuse: the model has no such layer.
    """
    if layer == "last" or (mean and layer == "mean"):
        return layers if layer == "last" else None
    if not layer.isdecimal() or int(layer) > layers:
        raise Misuse(f"no layer {layer!r}: valid are last,{' mean,' if mean else ''} and 0 to {layers}")
    return int(layer)


def encode_speech(
    clips: Sequence[FloatArray],
    *,
    frozen: FrozenModel,
    layer: int | None,
    pooling: str = "frames",
    average: int = 1,
    max_seconds: float = MAX_SECONDS,
) -> list[FloatArray | Unreadable]:
    """Hidden states [time, dim] of each clip's samples, or their mean [1, dim]; independent of the other clips.

    Each clip is normalised separately. Padding is masked if the model supports masks. In a model whose first
    convolution is followed by a normalisation over time ("group": the base sizes), padding would change every frame, so
    its clips are encoded one by one.

    Args:
        clips: Samples at 16 kHz.
        frozen: A model that :func:`check_speech_model` accepts.
        layer: Index of the hidden state, or None, see :func:`layer_number`.
        pooling: ``frames`` or ``mean``.
        average: Number of consecutive frames that are averaged into one, see :func:`average_frames`.
        max_seconds: Length above which a clip is divided into parts.
    """
    shortest = receptive_field(frozen.config)
    clip_of_part: list[int] = []
    parts: list[FloatArray] = []
    for i, samples in enumerate(clips):
        if len(samples) < shortest:
            continue
        values = frozen.processor(samples, sampling_rate=RATE, return_tensors="np")["input_values"][0]
        cut = np.array_split(values.astype(np.float32), math.ceil(len(values) / (max_seconds * RATE)))
        clip_of_part += [i] * len(cut)
        parts += cut
    hidden: list[FloatArray] = [EMPTY] * len(parts)
    masked = frozen.config.feat_extract_norm == "layer"
    for rows in batches([len(part) for part in parts], int(BATCH_SECONDS * RATE) if masked else 0):
        for row, frames in zip(rows, hidden_states(frozen, [parts[i] for i in rows], layer), strict=True):
            hidden[row] = frames
    out: list[FloatArray | Unreadable] = []
    for i in range(len(clips)):
        own_parts = [frames for clip, frames in zip(clip_of_part, hidden, strict=True) if clip == i]
        if not own_parts:
            out.append(Unreadable(f"it is shorter than the {1000 * shortest / RATE:.0f} ms that the model needs"))
            continue
        frames = np.concatenate(own_parts)
        out.append(frames.mean(axis=0, keepdims=True) if pooling == "mean" else average_frames(frames, average))
    return out


def batches(lengths: Sequence[int], max_samples: int) -> list[list[int]]:
    """Indices in groups of similar lengths: single ones, or at most ``max_samples`` samples after padding."""
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= max_samples:
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
            warnings.filterwarnings(
                "ignore", "Support for mismatched key_padding_mask"
            )  # WavLM itself passes two types of masks
            out = frozen.model(
                samples.to(frozen.device),
                attention_mask=None if mask is None else mask.to(frozen.device),
                output_hidden_states=True,
            )
        # [batch, time, dim] each: the transformer's input and the output of each layer. Large sizes normalise the last
        # output; transformers 4 lists it after that normalisation, transformers 5 before
        states = (*out.hidden_states[:-1], out.last_hidden_state)
        chosen = torch.stack(states[1:]).mean(dim=0) if layer is None else states[layer]
    frames = frame_counts(frozen.config, lengths.tolist())
    return [state[:count].float().cpu().numpy() for state, count in zip(chosen, frames, strict=True)]


def frame_counts(config: Any, lengths: Sequence[int]) -> list[int]:
    """Number of frames that the convolutions compute from each number of samples."""
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        lengths = [(length - kernel) // stride + 1 for length in lengths]
    return list(lengths)


def receptive_field(config: Any) -> int:
    """Number of samples that one frame depends on, which is the shortest input of the model."""
    samples = 1
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


# --- Whisper ----------------------------------------------------------------------------------------------------------

WINDOWS = 8  #: number of windows of 30 s that the encoder of Whisper reads together


def whisper(
    source: dict[str, Any], *, model: str, layer: str = "last", average: int = 4, download: bool = False
) -> Extractor:
    """Hidden states of Whisper's encoder, of any size, by hub name or folder: 12.5 frames per second.

    The encoder reads windows of 30 s; a shorter sound is followed by silence, whose frames are not stored. A longer one
    is encoded in consecutive windows. The decoder is not used, and the checkpoint may lack it.

    Args:
        source: Provenance of the media, see :func:`data_prep.extractors.media.provenance`.
        model: Name or folder of the model, see :class:`FrozenModel`; a final ``-encoder`` is no part of its name.
        layer: ``last`` (after the final normalisation), or the number of a transformer layer (0: its input).
        average: Number of consecutive frames, of which the encoder makes 50 per second, that are averaged into one.
        download: Whether the model may be downloaded.

    Raises:
        Misuse: the model is not on this machine, is not Whisper, or has no such layer.
    """
    frozen = FrozenModel(model, download, processor="AutoFeatureExtractor", unused=("decoder.",))
    if frozen.config.model_type != "whisper":
        family = frozen.config.model_type
        raise Misuse(
            f"{frozen.requested!r} is a {family} model, not Whisper; for wav2vec 2.0 and others: 'audio speech'"
        )
    check_rate(frozen)
    layers = frozen.config.encoder_layers
    number = layer_number(layer, layers, mean=False)
    recipe = Recipe(
        name=frozen.short.removesuffix("-encoder")
        + ("" if layer == "last" else f"-l{number}")
        + ("" if average == 4 else f"-by{average}"),
        modality="audio",
        extractor=frozen.name.removesuffix("-encoder"),
        revision=frozen.revision,
        layer="last hidden state" if layer == "last" else f"hidden state {number}",
        frame_rate=RATE / (samples_per_frame(frozen) * average),
        settings={
            "sample_rate": RATE,
            "window": frozen.processor.n_samples / RATE,
            "average": average,
            "library": f"transformers {minor_version('transformers')}",
            **source,
        },
    )
    # loaded on first use, since a set that is up to date needs no model
    encoder = cache(partial(whisper_encoder, frozen, None if layer == "last" else number))
    return Extractor(
        recipe,
        decode_audio,
        lambda clips: encode_whisper(clips, frozen=frozen, encoder=encoder(), average=average),
        parameters=lambda: count_parameters(encoder()),
        batch_size=16,
    )


def samples_per_frame(frozen: FrozenModel) -> int:
    """Number of samples for each frame of Whisper's encoder, whose second convolution halves the spectrum's frames."""
    return 2 * int(frozen.processor.hop_length)


def whisper_encoder(frozen: FrozenModel, layer: int | None) -> Any:
    """The encoder of Whisper up to a layer, whose output is that hidden state; None for all of it.

    The layers above are removed rather than computed in vain, and with them the normalisation that follows the last.
    """
    import torch

    encoder = frozen.model.encoder
    if layer is not None:
        encoder.layers = encoder.layers[:layer]
        encoder.layer_norm = torch.nn.Identity()
    return encoder


def encode_whisper(
    clips: Sequence[FloatArray], *, frozen: FrozenModel, encoder: Any, average: int
) -> list[FloatArray | Unreadable]:
    """Hidden states [time, dim] of each clip's own samples, without those of the silence that fills its last window.

    Args:
        clips: Samples at 16 kHz.
        frozen: The model, for its spectrum.
        encoder: What :func:`whisper_encoder` returns.
        average: Number of consecutive frames that are averaged into one; the last one averages those that are left.
    """
    import torch

    longest, stride = int(frozen.processor.n_samples), samples_per_frame(frozen)
    windows = [(i, clip[at : at + longest]) for i, clip in enumerate(clips) for at in range(0, len(clip), longest)]
    own: list[list[FloatArray]] = [[] for _ in clips]
    for first in range(0, len(windows), WINDOWS):
        part = windows[first : first + WINDOWS]
        spectra = frozen.processor([samples for _, samples in part], sampling_rate=RATE, return_tensors="pt")
        with torch.inference_mode():
            states = encoder(spectra["input_features"].to(frozen.device)).last_hidden_state.float().cpu().numpy()
        for (i, samples), state in zip(part, states, strict=True):
            own[i].append(state[: math.ceil(len(samples) / stride)])
    return [average_frames(np.concatenate(states), average) for states in own]


def average_frames(frames: FloatArray, count: int) -> FloatArray:
    """Means of each ``count`` consecutive frames [time, dim]; the last mean is of those that are left."""
    if count == 1:
        return frames
    starts = np.arange(0, len(frames), count)
    sums: FloatArray = np.add.reduceat(frames, starts, axis=0)
    return sums / np.diff(starts, append=len(frames))[:, None].astype(np.float32)
