"""Mel-frequency cepstral coefficients, equal with torchaudio and librosa: of whole utterances, and those of CFN-SR."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from data_prep.corpora.base import Clip, Unreadable
from data_prep.extract import Extractor, FloatArray, Recipe, minor_version
from data_prep.extractors import torchaudio_cpu
from data_prep.extractors.media import RATE, decode_audio, load_audio
from mer_bench.errors import unknown

N_FFT, HOP, N_MELS = 2048, 512, 128  #: librosa's defaults, used with every sample rate
BACKENDS = ("torchaudio", "librosa")
CFN_SR_RATE, CFN_SR_OFFSET, CFN_SR_SECONDS = 44_100, 0.5, 2.45


def mfcc(source: dict[str, Any], *, backend: str = "torchaudio") -> Extractor:
    """MFCC of whole utterances: 40 coefficients at 16 kHz, 31.25 frames per second.

    Args:
        source: Provenance of the media, see :func:`data_prep.extractors.media.provenance`.
        backend: ``torchaudio`` (2.5 times faster) or ``librosa``.

    Raises:
        Misuse: there is no such backend.
    """
    return _extractor("mfcc", RATE, 40, backend, decode_audio, source)


def mfcc13(source: dict[str, Any], *, backend: str = "torchaudio") -> Extractor:
    """MFCC as in CFN-SR: 13 coefficients at 44.1 kHz of the 2.45 s after the first 0.5 s, [212, 13] per utterance.

    Fu et al., "A cross-modal fusion network based on self-attention and residual structure for multimodal emotion
    recognition" (arXiv 2111.02172). The samples of a shorter utterance are padded with zeros, because the network of
    the paper requires 212 frames. An utterance that ends before 0.5 s is missing.

    Args:
        source: Provenance of the media, see :func:`data_prep.extractors.media.provenance`.
        backend: ``torchaudio`` or ``librosa``.
    """
    span = {"offset": CFN_SR_OFFSET, "duration": CFN_SR_SECONDS, "padding": "zeros after the samples"}
    return _extractor("mfcc13", CFN_SR_RATE, 13, backend, decode_cfn_sr, {**span, **source})


def decode_cfn_sr(clip: Clip) -> FloatArray:
    """The 108,045 samples of CFN-SR's span.

    Raises:
        Unreadable: the utterance ends before the span begins.
    """
    start = clip.start + CFN_SR_OFFSET
    end = start + CFN_SR_SECONDS
    if clip.end is not None:
        end = min(end, clip.end)
        if end <= start:
            raise Unreadable(f"it ends before {CFN_SR_OFFSET} s")
    samples = load_audio(clip.media, CFN_SR_RATE, start, end)
    size = round(CFN_SR_SECONDS * CFN_SR_RATE)
    return np.pad(samples[:size], (0, max(size - len(samples), 0)))


def _extractor(
    name: str, rate: int, n_mfcc: int, backend: str, decode: Callable[[Clip], FloatArray], settings: dict[str, Any]
) -> Extractor:
    if backend not in BACKENDS:
        raise unknown("MFCC backend", backend, BACKENDS)
    recipe = Recipe(
        name=name,
        modality="audio",
        extractor="mfcc",
        revision=f"{backend} {minor_version(backend)}",
        frame_rate=rate / HOP,
        settings={
            "sample_rate": rate,
            "n_mfcc": n_mfcc,
            "n_fft": N_FFT,
            "hop_length": HOP,
            "n_mels": N_MELS,
            "precision": "float64",
            **settings,
        },
    )
    return Extractor(recipe, decode, lambda clips: [mfcc_function(backend, rate, n_mfcc)(samples) for samples in clips])


@cache
def mfcc_function(backend: str, rate: int = RATE, n_mfcc: int = 40) -> Callable[[FloatArray], FloatArray]:
    """The function from samples to MFCC [1 + samples // 512, n_mfcc] of one backend.

    Both backends compute in float64 and round at the end, so that the values depend neither on the backend nor on the
    machine. Computing in float32 would change the first coefficient by 1e-3.
    """
    if backend == "librosa":
        return partial(_with_librosa, rate=rate, n_mfcc=n_mfcc)
    import torch

    torchaudio = torchaudio_cpu.load()
    with torchaudio_cpu.float64():
        transform = torchaudio.transforms.MFCC(
            sample_rate=rate,
            n_mfcc=n_mfcc,
            log_mels=False,
            norm="ortho",
            melkwargs={  # librosa's defaults, which differ from torchaudio's
                "n_fft": N_FFT,
                "hop_length": HOP,
                "n_mels": N_MELS,
                "mel_scale": "slaney",
                "norm": "slaney",
                "center": True,
                "pad_mode": "constant",
                "power": 2.0,
            },
        )

    @torch.inference_mode()
    def with_torchaudio(samples: FloatArray) -> FloatArray:
        # [1, 1, samples]: the lower bound of 80 dB is relative to the loudest point of all samples in one call
        coefficients = transform(torch.from_numpy(samples).double()[None, None])[0, 0]
        return np.ascontiguousarray(coefficients.T.numpy(), dtype=np.float32)

    return with_torchaudio


def _with_librosa(samples: FloatArray, rate: int, n_mfcc: int) -> FloatArray:
    import librosa

    coefficients = librosa.feature.mfcc(
        y=samples.astype(np.float64),
        sr=rate,
        n_mfcc=n_mfcc,
        n_fft=N_FFT,
        hop_length=HOP,
        n_mels=N_MELS,
        dtype=np.float64,  # for the mel filters
    )
    return np.ascontiguousarray(coefficients.T, dtype=np.float32)
