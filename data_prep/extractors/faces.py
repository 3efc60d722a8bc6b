"""Where the face is in each frame, and the square cut out around it.

Boxes are [frame, (left, top, right, bottom)] in pixels, NaN in frames that show no face.
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

#: (share of its longer side that is added to a box on each side, share by which it is then moved down): the 68 points
#: end at the brows, the detector's box ends above the chin; so framed, both show the head from hair to chin
FRAMING = {"landmarks": (0.2, -0.15), "detect": (0.12, 0.07), "none": (0.0, 0.0)}
DETECTOR = "haarcascade_frontalface_default.xml"
EVERY, LINES = 3, 360  #: a face is looked for in each third frame, decoded at this height: it costs 80 ms a frame


# --- boxes ------------------------------------------------------------------------------------------------------------


@cache
def _tracked(raw: Path) -> tuple[dict[str, Path], dict[str, npt.NDArray[np.int16]]]:
    """RAVDESS's tracking files by take, and the packed ones, read once in each process."""
    return ravdess.tracking_files(raw), ravdess.read_packed(raw)


def landmarks(raw: Path, take: str) -> npt.NDArray[Any] | None:
    """The 68 points [frame, 68, 2] that RAVDESS's makers tracked in a take, in pixels of the video; None without."""
    tracked, packed = _tracked(raw)
    return ravdess.read_tracking(tracked[take]) if take in tracked else packed.get(take)


def landmark_boxes(points: npt.NDArray[Any], numbers: npt.NDArray[np.int64]) -> Boxes:
    """Bounding boxes of the points in the frames of these numbers; the last frames may lack a row of points."""
    xy = points[np.minimum(numbers, len(points) - 1)].astype(np.float64)
    boxes = np.concatenate([xy.min(axis=1), xy.max(axis=1)], axis=1)
    boxes[~shows_face(xy)] = np.nan
    return boxes


def detect_boxes(frames: Pixels) -> Boxes:
    """The largest face that OpenCV's frontal Haar cascade (Viola and Jones 2001) finds in each frame."""
    import cv2

    boxes = np.full((len(frames), 4), np.nan)
    least = max(24, frames.shape[1] // 8)  # what looks like a smaller face is mostly none
    for i, frame in enumerate(frames):
        grey = cv2.equalizeHist(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))
        found = _cascade().detectMultiScale(grey, 1.1, 5, minSize=(least, least))
        if len(found):
            left, top, width, height = max(found, key=lambda face: face[2] * face[3]).tolist()
            boxes[i] = left, top, left + width, top + height
    return boxes


@cache
def _cascade() -> Any:
    import cv2

    cv2.setNumThreads(1)  # there are worker processes
    return cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / DETECTOR))


# --- squares ----------------------------------------------------------------------------------------------------------


def steady(boxes: Boxes, window: int = 3) -> Boxes:
    """Fill frames without a box from the nearest with one, after a running median over ``window`` of those.

    The median drops a single wrong detection. Boxes are held, not interpolated: a cut of the film moves a face at once.
    """
    known = np.flatnonzero(np.isfinite(boxes).all(axis=1))
    if not len(known):
        return boxes
    padded = np.pad(boxes[known], ((window // 2, window // 2), (0, 0)), mode="edge")
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, window, axis=0), axis=-1)
    nearest = np.abs(np.arange(len(boxes))[:, None] - known).argmin(axis=1)
    return smooth[nearest]


def squares(boxes: Boxes, width: int, height: int, margin: float = 0.0, down: float = 0.0) -> Boxes:
    """Squares around the boxes: margin and shift as in :data:`FRAMING`, then moved to lie in the picture.

    One that is larger than the picture becomes the picture's shorter side; without a box it is the picture's middle.
    """
    boxes = np.where(np.isfinite(boxes), boxes, [0.0, 0.0, width, height])
    longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True)
    side = np.clip(longer * (1 + 2 * margin), 1, min(width, height))
    corner = (boxes[:, :2] + boxes[:, 2:]) / 2 + longer * [0, down] - side / 2
    corner = np.clip(corner, 0, np.array([width, height]) - side)
    return np.concatenate([corner, corner + side], axis=1)


def cut(frames: Pixels, boxes: Boxes, side: int) -> Pixels:
    """What the boxes hold, scaled to [frame, side, side, 3]; parts of a box outside the picture are left out."""
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
    """Write a picture with one row of frames for each clip, its id above: for eyes, to see what was cut out."""
    import cv2

    strips = []
    for name, frames in rows.items():
        chosen = frames[np.linspace(0, len(frames) - 1, columns).round().astype(int)]
        label = np.full((16, columns * side, 3), 255, np.uint8)
        cv2.putText(label, name, (2, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
        small = [cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA) for frame in chosen]
        strips += [label, np.hstack(small)]
    sound, data = cv2.imencode(path.suffix or ".png", cv2.cvtColor(np.vstack(strips), cv2.COLOR_RGB2BGR))
    if sound:
        path.write_bytes(data.tobytes())
