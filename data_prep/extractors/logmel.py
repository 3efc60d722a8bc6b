"""Logarithmic mel spectrograms."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from data_prep.extract import Extractor, FloatArray, Recipe, minor_version
from data_prep.extractors import torchaudio_cpu
from data_prep.extractors.media import RATE, decode_audio

N_FFT, WINDOW, HOP = 512, 400, 160  #: in samples: windows of 25 ms every 10 ms
FLOOR = 1e-10  #: lower bound of the power before the logarithm


def logmel(source: dict[str, Any], *, mels: int = 80) -> Extractor:
    """Natural logarithm of the mel power spectrum at 16 kHz: 25 ms windows every 10 ms, [time, mels].

    Args:
        source: Provenance of the media, see :func:`data_prep.extractors.media.provenance`.
        mels: Number of mel bands on Slaney's scale, each of unit area.
    """
    recipe = Recipe(
        name=f"logmel{mels}",
        modality="audio",
        extractor="logmel",
        revision=f"torchaudio {minor_version('torchaudio')}",
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
    return Extractor(recipe, decode_audio, lambda clips: [logmel_function(mels)(samples) for samples in clips])


@cache
def logmel_function(mels: int) -> Any:
    """The function from samples to a log mel spectrum [1 + samples // 160, mels]."""
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
