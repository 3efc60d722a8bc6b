"""RAVDESS's facial landmarks as features: 68 points of every video frame, centred and scaled by the eyes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.corpora.base import Clip, Unreadable
from data_prep.corpora.ravdess import landmark_fingerprint, read_landmark_archive, read_tracking, tracking_files
from data_prep.extract import EMPTY, Extractor, FloatArray, Recipe, extract
from mer_bench.utterances import read_table

FRAME_RATE = 30_000 / 1001  #: of the videos, which are NTSC
LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)  #: indices among the 68 landmarks


def shows_face(points: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which frames of [frame, 68, 2] show a face; without one, all points are zero, or some are not finite."""
    valid: npt.NDArray[np.bool_] = np.isfinite(points).all(axis=(1, 2)) & (points != 0).any(axis=(1, 2))
    return valid


def forward_fill(valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """For each frame the index of the last valid frame up to it, or else of the first one; at least one is valid."""
    last = np.maximum.accumulate(np.where(valid, np.arange(len(valid)), -1))
    return np.where(last < 0, np.argmax(valid), last)


def normalise(xy: npt.NDArray[np.number]) -> FloatArray:
    """Convert pixels [time, 68, 2] to [time, 140]: the face's shape (x_0, y_0, x_1, y_1, ...) and the head's movement.

    Shape: the origin is the midpoint between the eyes in each frame, the eyes are level, and the unit is the median
    distance between the eyes in the clip, which a blink or one wrongly tracked frame does not change. This removes the
    movement of the head, which also carries emotion. Four further columns therefore contain it: x and y of the midpoint
    relative to its median in the clip, the distance between the eyes (all in that unit), and their slope in radians.
    The values do not depend on the position and size of the face in the picture. Frames without a face repeat the last
    frame with one, or the first one if there is none before. A clip without any face gives an empty array.
    """
    points = xy.astype(np.float64)
    valid = shows_face(points)
    if not valid.any():
        return EMPTY
    points = points[forward_fill(valid)]
    left, right = points[:, LEFT_EYE].mean(axis=1), points[:, RIGHT_EYE].mean(axis=1)  # [time, 2]
    middle, across = (left + right) / 2, right - left
    distance = np.linalg.norm(across, axis=1)
    unit = np.median(distance[valid])
    if unit == 0:
        return EMPTY
    slope = np.arctan2(across[:, 1], across[:, 0])
    cosine, sine = np.cos(slope)[:, None], np.sin(slope)[:, None]
    x, y = np.moveaxis((points - middle[:, None]) / unit, 2, 0)  # [time, 68] each
    shape = np.stack([cosine * x + sine * y, cosine * y - sine * x], axis=2).reshape(len(points), 136)
    position = (middle - np.median(middle[valid], axis=0)) / unit
    return np.column_stack([shape, position, distance / unit, slope]).astype(np.float32)


def decode_landmarks(in_archive: dict[str, npt.NDArray[np.int16]], clip: Clip) -> FloatArray:
    """Normalised landmarks [time, 140] of a take, from its tracking CSV or else from those in the npz.

    Raises:
        Unreadable: the take has no landmarks, or no frame shows a face.
        ValueError: the CSV lacks a column.
    """
    if clip.path is None and clip.id not in in_archive:
        raise Unreadable("there are no landmarks for it")
    frames = normalise(in_archive[clip.id] if clip.path is None else read_tracking(clip.path))
    if not len(frames):
        raise Unreadable("no frame shows a face")
    return frames


def _decode(in_archive: Callable[[], dict[str, npt.NDArray[np.int16]]], clip: Clip) -> FloatArray:
    return decode_landmarks(in_archive(), clip)


def landmark_clips(table: pd.DataFrame, raw: Path) -> list[Clip]:
    """One clip per take, whose media file is its tracking CSV, if there is one."""
    files = tracking_files(raw)
    return [Clip(take, files.get(take)) for take in table["id"]]


def landmark_extractor(source: str, in_archive: Callable[[], dict[str, npt.NDArray[np.int16]]] = dict) -> Extractor:
    """The extractor of the set ``landmarks``: vision, 140 columns, at the 29.97 frames per second of the videos.

    Args:
        source: Fingerprint of the landmark files.
        in_archive: Function that returns the landmarks of the clips without a CSV, see :func:`decode_landmarks`.
    """
    recipe = Recipe(
        name="landmarks",
        modality="vision",
        extractor="facial landmarks",
        revision="RAVDESS FacialTracking",
        frame_rate=FRAME_RATE,
        settings={
            "points": 68,
            "shape": "origin midway between the eyes, eyes level, unit their median distance in the clip",
            "head": "x, y, distance and slope of the eyes",
            "source": source,
        },
    )
    return Extractor(recipe, partial(_decode, in_archive), list)


def extract_landmarks(corpus: Path, raw: Path, *, force: bool = False) -> bool:
    """Store the set ``landmarks``, see :func:`landmark_extractor`.

    Methods mask each modality separately and do not need equal frame rates, so the landmarks are not resampled.

    Returns:
        Whether there is any landmark file below ``raw``.
    """
    table = read_table(corpus)
    source = landmark_fingerprint(raw)
    if not source:
        return False
    in_archive = cache(lambda: read_landmark_archive(raw))  # read only if the set is not up to date
    extract(corpus, landmark_extractor(source, in_archive), landmark_clips(table, raw), force=force)
    return True
