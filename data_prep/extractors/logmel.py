"""Logarithmic mel spectrograms."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from data_prep.extract import Extractor, FloatArray, Recipe, release
from data_prep.extractors import torchaudio_cpu
from data_prep.extractors.media import RATE, decode_audio

N_FFT, WINDOW, HOP = 512, 400, 160  #: samples: windows of 25 ms every 10 ms
FLOOR = 1e-10  #: power below which the logarithm is cut


def logmel(source: dict[str, Any], *, mels: int = 80) -> Extractor:
    """Natural logarithm of the mel power spectrum at 16 kHz: 25 ms windows every 10 ms, [time, mels].

    Args:
        source: See :func:`data_prep.extractors.media.provenance`.
        mels: Mel bands on Slaney's scale, each of unit area.
    """
    recipe = Recipe(
        name=f"logmel{mels}",
        modality="audio",
        extractor="logmel",
        revision=f"torchaudio {release('torchaudio')}",
        frame_rate=RATE / HOP,
        settings={
            "sample_rate": RATE,
            "n_mels": mels,
            "n_fft": N_FFT,
            "window": WINDOW,
            "hop_length": HOP,
            "floor": FLOOR,
            "precision": "float64",
            **source,
        },
    )
    return Extractor(recipe, decode_audio, partial(encode_logmel, mels=mels))


def encode_logmel(clips: Sequence[FloatArray], *, mels: int) -> list[FloatArray]:
    """The log mel spectrum of each clip's samples, see :func:`logmel_function`."""
    compute = logmel_function(mels)
    return [compute(samples) for samples in clips]


@cache
def logmel_function(mels: int) -> Any:
    """The function samples -> log mel spectrum [1 + samples // 160, mels]."""
    import torch

    torchaudio = torchaudio_cpu.load()
    with torchaudio_cpu.float64():
        transform = torchaudio.transforms.MelSpectrogram(
            sample_rate=RATE,
            n_fft=N_FFT,
            win_length=WINDOW,
            hop_length=HOP,
            n_mels=mels,
            mel_scale="slaney",
            norm="slaney",
            center=True,
            pad_mode="constant",
            power=2.0,
        )

    @torch.inference_mode()
    def compute(samples: FloatArray) -> FloatArray:
        power = transform(torch.from_numpy(samples).double())  # [mels, time]
        return np.ascontiguousarray(power.clamp(min=FLOOR).log().T.numpy(), dtype=np.float32)

    return compute
