"""Reading of sound: one channel of float32 samples at a given rate, from wav, flac or the audio track of a video."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.corpora.base import Clip, Unreadable, fingerprint
from data_prep.extract import FloatArray

RATE = 16_000  #: Hz; the rate that speech models expect, and the rate of several corpora
MAX_SECONDS = 1800.0  #: a longer file is not an utterance, and might not fit into memory
SOUND_FILES = (".wav", ".flac")  #: read by soundfile; every other suffix (mp4, m4a, avi, mov, mkv, mp3 ...) by PyAV


def load_audio(path: Path, rate: int = RATE, start: float = 0.0, end: float | None = None) -> FloatArray:
    """The mean of the channels [samples] at ``rate``, resampled once from the rate of the file (soxr, high quality).

    Containers are read by PyAV and not by decord, because decord's reader leaves the second channel of a stereo track
    uninitialised, mixes stereo down 3 dB too loud and does not provide the sample rate.

    Args:
        path: wav, flac, or any container with an audio track that FFmpeg can decode; of several tracks the first.
        rate: Sample rate of the result in Hz.
        start: Start of the span in seconds. A container is decoded from its beginning, which is exact in every format.
        end: End of the span in seconds, or None for the end of the file.

    Raises:
        Unreadable: the file cannot be decoded, is truncated, states an implausible sample rate, or holds in that span
            no samples, more than half an hour of them, or some that are not finite. A silent track is accepted.
        OSError: the file cannot be opened.
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
    """The samples of a clip between its start and end, see :func:`load_audio`."""
    return load_audio(clip.media, rate, clip.start, clip.end)


def provenance(clips: Iterable[Clip], raw: Path) -> dict[str, Any]:
    """Recipe settings that describe the media: their fingerprint, and the decoder if there are containers."""
    paths = [clip.path for clip in clips if clip.path]
    return {"source": fingerprint(paths, raw), **decoder(paths)}


def decoder(paths: Iterable[Path]) -> dict[str, str]:
    """The library that reads the sound of containers, if some of the paths are such."""
    contained = any(path.suffix.lower() not in SOUND_FILES for path in paths)
    return {"decoder": f"PyAV {version('av').partition('.')[0]}"} if contained else {}


def _bounds(rate: int, frames: float, start: float, end: float | None) -> tuple[int, int]:
    """Index of the first sample of a span, and of the sample after its last, in a file of ``frames`` samples.

    Raises:
        Unreadable: the span is too long, or the rate implausible (resampling from 1 Hz would exhaust the memory).
    """
    if not 4_000 <= rate <= 400_000:
        raise Unreadable(f"it states a sample rate of {rate:,} Hz")
    first, stop = round(start * rate), frames if end is None else min(round(end * rate), frames)
    if stop - first > MAX_SECONDS * rate and np.isfinite(stop):
        raise Unreadable(f"it lasts {(stop - first) / rate / 60:,.0f} minutes, which is too long for an utterance")
    return first, int(min(stop, first + MAX_SECONDS * rate + 1))


def _read_sound_file(path: Path, start: float, end: float | None) -> tuple[FloatArray, int]:
    """(samples [samples, channels], rate) of a wav or flac."""
    import soundfile

    stated, present = _data_chunk(path)
    if present < stated:  # soundfile would read the rest without a word
        raise Unreadable(f"it is truncated: its header states {stated:,} bytes of sound, and it has {present:,}")
    try:
        with soundfile.SoundFile(path) as file:
            first, stop = _bounds(file.samplerate, file.frames, start, end)
            file.seek(min(first, file.frames))
            samples = file.read(max(stop - first, 0), dtype="float32", always_2d=True)
            if len(samples) < stop - first:
                raise Unreadable(f"it is truncated: {len(samples):,} of {stop - first:,} samples can be read")
            return samples, file.samplerate
    except soundfile.LibsndfileError as error:
        raise Unreadable(f"it is not a readable {path.suffix[1:]} file: {error.error_string}") from error


def _data_chunk(path: Path) -> tuple[int, int]:
    """Bytes in the data chunk of a wav as its header states and as the file has; (0, 0) for other files.

    Programs that write into a pipe do not know the length; they state about 2 or 4 GiB, which counts as not stated.
    """
    with path.open("rb") as file:
        if file.read(4) != b"RIFF":
            return 0, 0
        file.seek(12)
        while len(header := file.read(8)) == 8:
            size = int.from_bytes(header[4:], "little")
            if header[:4] == b"data":
                return (size, path.stat().st_size - file.tell()) if size < 0x7FFF0000 else (0, 0)
            file.seek(size + size % 2, 1)
    return 0, 0


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
            planes = av.AudioResampler(
                format="fltp"
            )  # keeps rate and channels; converts to float32 with one row per channel
            first, stop = _bounds(rate, np.inf, start, end)
            reached = 0  # index after the last decoded sample
            for frame in container.decode(stream):
                position = round((frame.time or 0.0) * rate) if frame.pts is not None else reached
                reached = position + frame.samples
                if reached > first:
                    block = np.concatenate([part.to_ndarray() for part in planes.resample(frame)], axis=1)
                    parts.append(block[:, max(first - position, 0) : max(stop - position, 0)])
                if reached >= stop:
                    break
            if end is None and reached >= stop:
                raise Unreadable(
                    f"it lasts more than {MAX_SECONDS / 60:.0f} minutes, which is too long for an utterance"
                )
            stated = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
            if reached < stop and reached / rate < stated - max(0.25, 0.1 * stated):
                raise Unreadable(f"it is truncated after {reached / rate:.1f} of {stated:.1f} seconds")
    except av.FFmpegError as error:
        raise Unreadable(f"it cannot be decoded: {error.strerror}") from error
    return (np.concatenate(parts, axis=1).T if parts else np.empty((0, 1), np.float32)), rate
