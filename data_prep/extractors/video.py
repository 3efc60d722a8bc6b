"""Frames of a video: evenly over a span of time, by the frames' own clocks, no larger than they are needed.

decord decodes. Where the clocks of a file are not in order, decord numbers its frames wrongly, and OpenCV, which counts
them right, takes its place: an AVI with B-frames came out a whole group of pictures, two seconds, off; so did the first
seconds of an MP4 that had been cut without being encoded again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.extract import Clip, Unreadable, release

Pixels = npt.NDArray[np.uint8]  #: [frame, height, width, 3], RGB

#: words of decord's messages and what they mean, in this order
REASONS = {
    "cannot find video stream": "the file has no video track",
    "avfilter_graph": "its video holds no frames",
    "av_read_frame": "the file is truncated",
    "Error reading": "no video can be read from the file; it is damaged or truncated",
}


@dataclass(frozen=True)
class Video:
    """What is known of a video before its frames are decoded."""

    path: Path
    times: npt.NDArray[np.float64]  #: [frame] seconds at which each frame appears
    duration: float  #: seconds at which the last one ends
    width: int  #: of the part that ``half`` names
    height: int
    ordered: bool  #: whether decord numbers its frames rightly
    half: str = ""  #: "left" or "right" if only that half of the picture is wanted

    def at(self, moments: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Numbers of the frames that are seen at ``moments`` (seconds)."""
        shown = np.searchsorted(self.times, moments + 1e-4, side="right") - 1  # decord's clocks have single precision
        return shown.clip(0, len(self.times) - 1).astype(np.int64)

    def scaled(self, ratio: float) -> tuple[int, int]:
        """Width and height times ``ratio``, but no larger than they are."""
        ratio = min(ratio, 1.0)
        return max(1, round(self.width * ratio)), max(1, round(self.height * ratio))


def probe(path: Path, half: str = "") -> Video:
    """Open a video and read its clock; all else then sees only the ``half`` of its picture, if one is named.

    Raises:
        Unreadable: the file is empty, damaged or truncated, has no video track, or the track holds no frames.
    """
    import decord

    if not path.stat().st_size:
        raise Unreadable("the file is empty")
    decord.logging.set_level(decord.logging.QUIET)  # the reason is in the exception
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        if not len(reader):
            raise Unreadable("its video holds no frames")
        clock = np.asarray(reader.get_frame_timestamp(range(len(reader))), np.float64)  # [frame, (start, end)]
        height, width, _ = reader[0].shape
        width = width // 2 if half else width
    except (RuntimeError, decord.DECORDError) as error:
        raise _unreadable(error) from error
    times, duration = clock[:, 0], float(clock[:, 1].max())
    if np.isfinite(clock).all() and times[0] > -1e-3 and (np.diff(times) > 0).all():
        return Video(path, times, duration, width, height, True, half)
    import cv2

    capture = _capture(path)
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    capture.release()
    count = round(duration * rate) if 0 < duration < 1e6 else 0  # a header's own count includes frames that are hidden
    if count <= 0:
        raise Unreadable("its video tells neither its rate nor its length")
    return Video(path, np.arange(count) / rate, duration, width, height, False, half)


def moments(video: Video, clip: Clip, *, count: int | None = None, fps: float | None = None) -> npt.NDArray[np.float64]:
    """Seconds in the middle of equal parts of the clip's span: ``count`` parts, or as many as ``fps`` a second give.

    Raises:
        Unreadable: the span is empty or begins after the video's end.
    """
    start, end = clip.start, video.duration if clip.end is None else min(clip.end, video.duration)
    if start >= video.duration:
        raise Unreadable(f"it begins at {start:.2f} s, but its video ends at {video.duration:.2f} s")
    if end <= start:
        raise Unreadable(f"its span from {start:.2f} to {end:.2f} s holds no time")
    if fps is None:
        assert count is not None
        return start + (np.arange(count) + 0.5) * (end - start) / count
    return np.minimum(start + (np.arange(max(1, round((end - start) * fps))) + 0.5) / fps, end)


def read(video: Video, numbers: npt.NDArray[np.int64], size: tuple[int, int] | None = None) -> Pixels:
    """The frames of these numbers, scaled to ``size`` (width, height) while they are decoded.

    Raises:
        Unreadable: one of them cannot be decoded.
    """
    wanted, where = np.unique(numbers, return_inverse=True)  # a short clip shows a frame more than once
    if size == (video.width, video.height):
        size = None
    decode = _read_by_decord if video.ordered else _read_by_opencv
    pixels = decode(video.path, wanted.tolist(), None if video.half else size)
    if video.half:  # cut before it is scaled, or the other half bleeds into it
        import cv2

        pixels = pixels[:, :, : video.width] if video.half == "left" else pixels[:, :, -video.width :]
        if size:
            pixels = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in pixels])
    return pixels[where]


def decoders() -> dict[str, str]:
    """Names and versions of what decodes and scales: other ones may give other values."""
    import decord

    return {"decord": decord.__version__, "opencv": release("opencv-python-headless")}


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
            if number - position > 25:  # fewer are decoded faster than sought
                capture.set(cv2.CAP_PROP_POS_FRAMES, number)
                position = number
            while position < number and capture.grab():
                position += 1
            sound, picture = capture.read()
            position = number + 1
            if sound:
                picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA) if size else picture
                frames.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
            elif frames:
                frames.append(frames[-1])  # a header may promise a few frames more than there are
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
    known = (reason for words, reason in REASONS.items() if words in str(error))
    return Unreadable(next(known, "the file cannot be decoded; it is damaged or truncated"))
