"""Frames of a video, chosen evenly from a span of time by their timestamps, and decoded at the size that is needed.

The decoder is decord. If the timestamps of a file are not in ascending order, decord numbers its frames wrongly, and
OpenCV, which numbers them correctly, is used instead. Without this, the frames of an AVI with B-frames were wrong by
two seconds (one group of pictures), and so were the first seconds of an MP4 that had been cut without re-encoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.corpora.base import Clip, Unreadable
from data_prep.extract import minor_version

Pixels = npt.NDArray[np.uint8]  #: [frame, height, width, 3], RGB

#: parts of decord's messages and their meanings; the first part that occurs decides
REASONS = {
    "cannot find video stream": "the file has no video track",
    "avfilter_graph": "its video holds no frames",
    "av_read_frame": "the file is truncated",
    "Error reading": "no video can be read from the file; it is damaged or truncated",
}


@dataclass(frozen=True)
class Video:
    """Properties of a video that are known before its frames are decoded."""

    path: Path
    times: npt.NDArray[np.float64]  #: [frame] start of each frame in seconds
    duration: float  #: end of the last frame in seconds
    width: int  #: pixels, of the part that ``half`` selects
    height: int
    ordered: bool  #: whether decord numbers the frames correctly
    half: str = ""  #: "left" or "right" if only that half of the picture is used

    def at(self, moments: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Numbers of the frames that are shown at ``moments`` (seconds)."""
        # decord's timestamps have single precision
        shown = np.searchsorted(self.times, moments + 1e-4, side="right") - 1
        return shown.clip(0, len(self.times) - 1).astype(np.int64)

    def scaled(self, ratio: float) -> tuple[int, int]:
        """Width and height multiplied by ``ratio``, but at most the original size."""
        ratio = min(ratio, 1.0)
        return max(1, round(self.width * ratio)), max(1, round(self.height * ratio))


def probe(path: Path, half: str = "") -> Video:
    """Read the properties and timestamps of a video, or of the ``half`` of its picture if one is given.

    Raises:
        Unreadable: the file is empty, damaged or truncated, has no video track, or the track contains no frames.
    """
    import decord

    if not path.stat().st_size:
        raise Unreadable("the file is empty")
    decord.logging.set_level(decord.logging.QUIET)  # the exception states the reason
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        if not len(reader):
            raise Unreadable("its video holds no frames")
        timestamps = np.asarray(reader.get_frame_timestamp(range(len(reader))), np.float64)  # [frame, (start, end)]
        height, width, _ = reader[0].shape
        width = width // 2 if half else width
    except (RuntimeError, decord.DECORDError) as error:
        raise _unreadable(error) from error
    times, duration = timestamps[:, 0], float(timestamps[:, 1].max())
    if np.isfinite(timestamps).all() and times[0] > -1e-3 and (np.diff(times) > 0).all():
        return Video(path, times, duration, width, height, True, half)
    import cv2

    capture = _capture(path)
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    capture.release()
    count = round(duration * rate) if 0 < duration < 1e6 else 0  # the count in the header includes hidden frames
    if count <= 0:
        raise Unreadable("its video states neither its frame rate nor its length")
    return Video(path, np.arange(count) / rate, duration, width, height, False, half)


def moments(video: Video, clip: Clip, *, count: int | None = None, fps: float | None = None) -> npt.NDArray[np.float64]:
    """Midpoints in seconds of equal parts of the clip's span: ``count`` parts, or ``fps`` parts per second.

    Raises:
        Unreadable: the span is empty or begins after the end of the video.
    """
    start, end = clip.start, video.duration if clip.end is None else min(clip.end, video.duration)
    if start >= video.duration:
        raise Unreadable(f"it begins at {start:.2f} s, but its video ends at {video.duration:.2f} s")
    if end <= start:
        raise Unreadable(f"its span from {start:.2f} to {end:.2f} s has no duration")
    if fps is None:
        assert count is not None
        return start + (np.arange(count) + 0.5) * (end - start) / count
    return np.minimum(start + (np.arange(max(1, round((end - start) * fps))) + 0.5) / fps, end)


def read(video: Video, numbers: npt.NDArray[np.int64], size: tuple[int, int] | None = None) -> Pixels:
    """The frames with the given numbers, scaled to ``size`` (width, height) while they are decoded.

    Raises:
        Unreadable: one of the frames cannot be decoded.
    """
    wanted, inverse = np.unique(numbers, return_inverse=True)  # numbers repeat if the clip is short
    if size == (video.width, video.height):
        size = None
    decode = _read_by_decord if video.ordered else _read_by_opencv
    pixels = decode(video.path, wanted.tolist(), None if video.half else size)
    if video.half:  # cropped before scaling, so that pixels of the other half are not interpolated
        import cv2

        pixels = pixels[:, :, : video.width] if video.half == "left" else pixels[:, :, -video.width :]
        if size:
            pixels = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in pixels])
    return pixels[inverse]


def decoders() -> dict[str, str]:
    """Names and versions of the libraries that decode and scale, since the values depend on them."""
    import decord

    return {"decord": decord.__version__, "opencv": minor_version("opencv-python-headless")}


def _read_by_decord(path: Path, wanted: list[int], size: tuple[int, int] | None) -> Pixels:
    import decord

    width, height = size or (-1, -1)
    try:
        reader = decord.VideoReader(str(path), num_threads=1, width=width, height=height)
        pixels: Pixels = reader.get_batch(wanted).asnumpy()
        return pixels
    except (RuntimeError, decord.DECORDError) as error:
        raise _unreadable(error) from error


def _read_by_opencv(path: Path, wanted: list[int], size: tuple[int, int] | None) -> Pixels:
    import cv2

    capture, position = _capture(path), 0
    frames: list[Any] = []
    try:
        for number in wanted:
            if number - position > 25:  # decoding fewer frames is faster than seeking
                capture.set(cv2.CAP_PROP_POS_FRAMES, number)
                position = number
            while position < number and capture.grab():
                position += 1
            success, picture = capture.read()
            position = number + 1
            if success:
                picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA) if size else picture
                frames.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
            elif frames:
                frames.append(frames[-1])  # a header may state a few frames more than the file contains
            else:
                raise Unreadable("the file is damaged or truncated")
    finally:
        capture.release()
    return np.stack(frames)


def _capture(path: Path) -> Any:
    import cv2

    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    if not capture.isOpened():
        raise Unreadable("no video can be read from the file; it is damaged or truncated")
    return capture


def _unreadable(error: Exception) -> Unreadable:
    reasons = (reason for part, reason in REASONS.items() if part in str(error))
    return Unreadable(next(reasons, "the file cannot be decoded; it is damaged or truncated"))
