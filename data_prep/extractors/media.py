"""Sound out of files: one channel of float32 samples at one rate, from wav and flac or a video's audio track."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.extract import Clip, FloatArray, Unreadable, fingerprint

RATE = 16_000  #: Hz; what speech models expect, and what several corpora are recorded at
LONGEST = 1800.0  #: seconds; longer is no utterance, and would not fit in memory
SOUND_FILES = (".wav", ".flac")  #: read by soundfile; every other suffix (mp4, m4a, avi, mov, mkv, mp3 ...) by PyAV


def load_audio(path: Path, rate: int = RATE, start: float = 0.0, end: float | None = None) -> FloatArray:
    """The mean of the channels [samples] at ``rate``, resampled once from the file's own (soxr, high quality).

    PyAV and not decord reads containers: decord's reader leaves the second channel of a stereo track uninitialised,
    mixes stereo down 3 dB too loud and does not tell the track's rate.

    Args:
        path: wav, flac, or anything with an audio track that FFmpeg knows; of several tracks the first.
        rate: Hz.
        start: Seconds. A container is decoded from its beginning all the same, which is exact in every format.
        end: Seconds, or None for all that is left.

    Raises:
        Unreadable: the file cannot be decoded, breaks off, holds no samples in that span, or more than half an hour of
            them, or some that are not finite, or states an absurd rate. A silent track is a readable one.
        OSError: it cannot be opened.
    """
    if not path.stat().st_size:
        raise Unreadable("the file is empty")
    read = _read_sound_file if path.suffix.lower() in SOUND_FILES else _read_container
    channels, native = read(path, start, end)
    samples = channels.mean(axis=1)
    if not len(samples):
        raise Unreadable("the file holds no samples" + (" in the utterance's span" if start or end else ""))
    if not np.isfinite(samples).all():
        raise Unreadable("the samples are not finite")
    if native != rate:
        import soxr

        samples = soxr.resample(samples, native, rate, "soxr_hq")
    return np.ascontiguousarray(samples, dtype=np.float32)


def decode_audio(clip: Clip, rate: int = RATE) -> FloatArray:
    """A clip's samples between its start and end, see :func:`load_audio`."""
    return load_audio(clip.media, rate, clip.start, clip.end)


def provenance(clips: Iterable[Clip], raw: Path) -> dict[str, Any]:
    """What the media contribute to a recipe: their fingerprint, and the decoder where there are containers."""
    paths = [clip.path for clip in clips if clip.path]
    contained = any(path.suffix.lower() not in SOUND_FILES for path in paths)
    decoder = {"decoder": f"PyAV {version('av').partition('.')[0]}"} if contained else {}
    return {"source": fingerprint(paths, raw), **decoder}


def _bounds(rate: int, frames: float, start: float, end: float | None) -> tuple[int, int]:
    """First sample and the one after the last of a span in a file of ``frames`` samples.

    Raises:
        Unreadable: the rate is absurd (resampling from 1 Hz would fill the memory), or the span too long.
    """
    if not 4_000 <= rate <= 400_000:
        raise Unreadable(f"it states a sample rate of {rate:,} Hz")
    first, stop = round(start * rate), frames if end is None else min(round(end * rate), frames)
    if stop - first > LONGEST * rate and np.isfinite(stop):
        raise Unreadable(f"it lasts {(stop - first) / rate / 60:,.0f} minutes, which is no utterance")
    return first, int(min(stop, first + LONGEST * rate + 1))


def _read_sound_file(path: Path, start: float, end: float | None) -> tuple[FloatArray, int]:
    """(samples [samples, channels], rate) of a wav or flac."""
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            first, stop = _bounds(file.samplerate, file.frames, start, end)
            file.seek(min(first, file.frames))
            return file.read(max(stop - first, 0), dtype="float32", always_2d=True), file.samplerate
    except soundfile.LibsndfileError as error:
        raise Unreadable(f"it is no readable {path.suffix[1:]} file: {error.error_string}") from error


def _read_container(path: Path, start: float, end: float | None) -> tuple[FloatArray, int]:
    """(samples [samples, channels], rate) of the first audio track; sample times are the track's own."""
    import av

    parts: list[FloatArray] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise Unreadable("it has no audio track")
            stream = container.streams.audio[0]
            rate = stream.codec_context.sample_rate
            planes = av.AudioResampler(format="fltp")  # of the same rate and channels: float32, a row a channel
            first, stop = _bounds(rate, np.inf, start, end)
            reached = 0  # sample after the last that was decoded
            for frame in container.decode(stream):
                here = round((frame.time or 0.0) * rate) if frame.pts is not None else reached
                reached = here + frame.samples
                if reached > first:
                    block = np.concatenate([part.to_ndarray() for part in planes.resample(frame)], axis=1)
                    parts.append(block[:, max(first - here, 0) : max(stop - here, 0)])
                if reached >= stop:
                    break
            if end is None and reached >= stop:
                raise Unreadable(f"it lasts more than {LONGEST / 60:.0f} minutes, which is no utterance")
            stated = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
            if reached < stop and reached / rate < stated - max(0.25, 0.1 * stated):
                raise Unreadable(f"it breaks off after {reached / rate:.1f} of {stated:.1f} seconds")
    except av.FFmpegError as error:
        raise Unreadable(f"it cannot be decoded: {error.strerror}") from error
    return (np.concatenate(parts, axis=1).T if parts else np.empty((0, 1), np.float32)), rate
