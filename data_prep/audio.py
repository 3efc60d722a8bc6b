"""Frozen audio extractors: MFCC."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np

from data_prep import torchaudio_cpu
from data_prep.cli import (
    Command,
    backend_option,
    force_option,
    raw_option,
    strict_option,
    table_option,
    workers_option,
)
from data_prep.clips import audio_clips
from data_prep.extract import Clip, Extractor, FloatArray, Recipe, extract, fingerprint
from mer_bench.errors import unknown
from mer_bench.features import FeatureSpec

RATE = 16_000  #: Hz; what speech models expect, and what several corpora are recorded at
N_MFCC, N_FFT, HOP, N_MELS = 40, 2048, 512, 128


def load_audio(path: Path) -> FloatArray:
    """One channel [samples] at 16 kHz, from wav or flac (soundfile) or the audio track of an mp4 (decord).

    Raises:
        ValueError: the file holds no samples, or some that are not finite.
        RuntimeError: it cannot be decoded.
        OSError: it cannot be opened.
    """
    if path.suffix.lower() == ".mp4":
        import decord

        # decord's own resampler: it does not tell a track's rate; both MFCC backends get the same samples
        try:
            samples = decord.AudioReader(str(path), sample_rate=RATE, mono=True)[:].asnumpy().mean(axis=0)
        except decord.DECORDError as error:  # no RuntimeError, unlike a truncated file's
            raise RuntimeError("the file has no audio track") from error
    else:
        import soundfile

        channels, rate = soundfile.read(path, dtype="float32", always_2d=True)
        samples = channels.mean(axis=1)
        if not np.isfinite(samples).all():
            raise ValueError("the samples are not finite")
        if rate != RATE and len(samples):
            import librosa

            samples = librosa.resample(samples, orig_sr=rate, target_sr=RATE, res_type="soxr_hq")
    if not len(samples):
        raise ValueError("the file holds no samples")
    return np.ascontiguousarray(samples, dtype=np.float32)


def mfcc_function(backend: str) -> Callable[[FloatArray], FloatArray]:
    """The function samples -> MFCC [time, 40] of one backend.

    Both compute in float64 and round at the end, so that the values depend on neither the backend nor the machine:
    rounding inside float32 alone moves the first coefficient by 1e-3.

    Raises:
        Misuse: there is no such backend.
    """
    if backend == "librosa":
        import librosa

        def with_librosa(samples: FloatArray) -> FloatArray:
            mfcc = librosa.feature.mfcc(
                y=samples.astype(np.float64),
                sr=RATE,
                n_mfcc=N_MFCC,
                n_fft=N_FFT,
                hop_length=HOP,
                n_mels=N_MELS,
                dtype=np.float64,  # of the mel filters
            )
            return np.ascontiguousarray(mfcc.T, dtype=np.float32)

        return with_librosa
    if backend != "torchaudio":
        raise unknown("MFCC backend", backend, ("torchaudio", "librosa"))
    import torch

    torchaudio = torchaudio_cpu.load()
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # the transform builds its window, mel filters and DCT in the default type
    try:
        transform = torchaudio.transforms.MFCC(
            sample_rate=RATE,
            n_mfcc=N_MFCC,
            log_mels=False,
            norm="ortho",
            melkwargs={  # librosa's defaults, which are not torchaudio's
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
    finally:
        torch.set_default_dtype(usual)

    @torch.inference_mode()
    def with_torchaudio(samples: FloatArray) -> FloatArray:
        # [1, 1, samples]: the 80 dB floor hangs on the loudest point of whatever is passed together
        mfcc = transform(torch.from_numpy(samples).double()[None, None])[0, 0]
        return np.ascontiguousarray(mfcc.T.numpy(), dtype=np.float32)

    return with_torchaudio


def decode_audio(clip: Clip) -> FloatArray:
    """A clip's samples, see :func:`load_audio`."""
    return load_audio(clip.media)


def extract_mfcc(
    corpus: Path,
    raw: Path,
    *,
    backend: str = "torchaudio",
    workers: int = 0,
    strict: bool = False,
    force: bool = False,
) -> FeatureSpec:
    """Store the set ``mfcc``: audio, 40 coefficients, 31.25 frames a second, no clip cut.

    Args:
        corpus: Folder of the utterance table.
        raw: The folder that the table's ``media`` column is relative to.
        backend: ``torchaudio`` (2.5 times faster) or ``librosa``.
        workers: See :func:`data_prep.extract.extract`; likewise the others.
        strict: Complain about utterances without audio.
        force: Extract even if it is done.
    """
    compute = mfcc_function(backend)
    clips = audio_clips(corpus, raw)
    recipe = Recipe(
        name="mfcc",
        modality="audio",
        extractor="mfcc",
        revision=f"{backend} {version(backend).partition('+')[0]}",
        frame_rate=RATE / HOP,
        settings={
            "sample_rate": RATE,
            "n_mfcc": N_MFCC,
            "n_fft": N_FFT,
            "hop_length": HOP,
            "n_mels": N_MELS,
            "precision": "float64",
            "source": fingerprint((clip.path for clip in clips if clip.path), raw),
        },
    )

    def encode(samples: list[FloatArray]) -> Sequence[FloatArray]:
        return [compute(one) for one in samples]

    return extract(corpus, Extractor(recipe, decode_audio, encode), clips, workers=workers, strict=strict, force=force)


@click.command("mfcc", cls=Command)
@table_option
@raw_option
@backend_option
@workers_option
@strict_option
@force_option
def mfcc_command(table: Path, raw: Path, backend: str, workers: int, strict: bool, force: bool) -> None:
    """MFCC of a prepared corpus; RAW is the folder that its media column is relative to."""
    extract_mfcc(table, raw, backend=backend, workers=workers, strict=strict, force=force)
