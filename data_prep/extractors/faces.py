"""Location of the face in each frame, and the square region around it.

Boxes have the shape [frame, (left, top, right, bottom)], in pixels, and are NaN in frames that show no face.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.corpora import ravdess
from data_prep.extractors.landmarks import shows_face
from data_prep.extractors.video import Pixels

Boxes = npt.NDArray[np.float64]

#: (margin added to a box on each side, distance by which it is then moved down), both as fractions of its longer side.
#: The 68 points end at the eyebrows, and the detector's box ends above the chin. With these values both show the head
#: from hair to chin.
FRAMING = {"landmarks": (0.2, -0.15), "detect": (0.12, 0.07), "none": (0.0, 0.0)}
DETECTOR = "haarcascade_frontalface_default.xml"
DETECTION_STEP, DETECTION_HEIGHT = 3, 360  #: detection takes 80 ms per frame: every third one, with 360 lines


@cache
def _tracked(raw: Path) -> tuple[dict[str, Path], dict[str, npt.NDArray[np.int16]]]:
    """RAVDESS's tracking files and the landmarks in an npz, by take; read once in each process."""
    return ravdess.tracking_files(raw), ravdess.read_landmark_archive(raw)


def landmarks(raw: Path, take: str) -> npt.NDArray[Any] | None:
    """The landmarks [frame, 68, 2] of a take in pixels of the video, as published with RAVDESS; None without any."""
    tracked, in_archive = _tracked(raw)
    return ravdess.read_tracking(tracked[take]) if take in tracked else in_archive.get(take)


def landmark_boxes(points: npt.NDArray[Any], numbers: npt.NDArray[np.int64]) -> Boxes:
    """Bounding boxes of the points in the frames ``numbers``; frames after the last row of points use that row."""
    xy = points[np.minimum(numbers, len(points) - 1)].astype(np.float64)
    boxes = np.concatenate([xy.min(axis=1), xy.max(axis=1)], axis=1)
    boxes[~shows_face(xy)] = np.nan
    return boxes


def detect_boxes(frames: Pixels) -> Boxes:
    """Box of the largest face that OpenCV's frontal Haar cascade (Viola and Jones 2001) finds in each frame."""
    import cv2

    boxes = np.full((len(frames), 4), np.nan)
    min_size = max(24, frames.shape[1] // 8)  # smaller detections are mostly wrong
    for i, frame in enumerate(frames):
        grey = cv2.equalizeHist(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))
        found = _cascade().detectMultiScale(grey, 1.1, 5, minSize=(min_size, min_size))
        if len(found):
            left, top, width, height = max(found, key=lambda face: face[2] * face[3]).tolist()
            boxes[i] = left, top, left + width, top + height
    return boxes


@cache
def _cascade() -> Any:
    import cv2

    cv2.setNumThreads(1)  # parallelism comes from the worker processes
    return cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / DETECTOR))


def smooth_and_fill(boxes: Boxes, window: int = 3) -> Boxes:
    """Smooth the boxes by a running median over ``window`` boxes, and fill frames without a box from the nearest one.

    The median removes a single wrong detection. Boxes are not interpolated, because a cut moves the face instantly.
    """
    known = np.flatnonzero(np.isfinite(boxes).all(axis=1))
    if not len(known):
        return boxes
    padded = np.pad(boxes[known], ((window // 2, window // 2), (0, 0)), mode="edge")
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, window, axis=0), axis=-1)
    nearest = np.abs(np.arange(len(boxes))[:, None] - known).argmin(axis=1)
    return smooth[nearest]


def squares(boxes: Boxes, width: int, height: int, margin: float = 0.0, down: float = 0.0) -> Boxes:
    """Squares around the boxes, with margin and shift as in :data:`FRAMING`, then moved into the picture.

    A square is at most as large as the shorter side of the picture. Without a box, it is in the middle of the picture.
    """
    boxes = np.where(np.isfinite(boxes), boxes, [0.0, 0.0, width, height])
    longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True)
    side = np.clip(longer * (1 + 2 * margin), 1, min(width, height))
    corner = (boxes[:, :2] + boxes[:, 2:]) / 2 + longer * [0, down] - side / 2
    corner = np.clip(corner, 0, np.array([width, height]) - side)
    return np.concatenate([corner, corner + side], axis=1)


def crop(frames: Pixels, boxes: Boxes, side: int) -> Pixels:
    """The content of the boxes, scaled to [frame, side, side, 3]; parts of a box outside the picture are omitted."""
    import cv2

    height, width = frames.shape[1:3]
    corners = np.round(boxes).astype(int).clip(0, [width, height, width, height])
    corners[:, :2] = np.minimum(corners[:, :2], np.maximum(corners[:, 2:] - 1, 0))  # at least one pixel
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 1)
    pieces = []
    for frame, (left, top, right, bottom) in zip(frames, corners.tolist(), strict=True):
        piece = frame[top:bottom, left:right]
        shrinks = min(piece.shape[:2]) > side
        pieces.append(cv2.resize(piece, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC))
    return np.stack(pieces)


def contact_sheet(path: Path, rows: dict[str, Pixels], *, columns: int = 10, side: int = 112) -> None:
    """Write a picture for visual inspection: one row of ``columns`` crops per clip, with its name above."""
    import cv2

    strips = []
    for name, frames in rows.items():
        selected = frames[np.linspace(0, len(frames) - 1, columns).round().astype(int)]
        label = np.full((16, columns * side, 3), 255, np.uint8)
        cv2.putText(label, name, (2, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
        small = [cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA) for frame in selected]
        strips += [label, np.hstack(small)]
    success, data = cv2.imencode(path.suffix or ".png", cv2.cvtColor(np.vstack(strips), cv2.COLOR_RGB2BGR))
    if success:
        path.write_bytes(data.tobytes())
