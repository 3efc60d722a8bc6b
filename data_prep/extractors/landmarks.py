"""RAVDESS's facial landmarks as features: 68 points of every video frame, centred and scaled by the eyes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.corpora.ravdess import landmark_source, read_packed, read_tracking, tracking_files
from data_prep.extract import EMPTY, Clip, Extractor, FloatArray, Recipe, Unreadable, extract
from mer_bench.utterances import read_table

FRAME_RATE = 30_000 / 1001  #: of the videos, NTSC


LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)  #: of the 68 landmarks


def shows_face(points: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which frames of [frame, 68, 2] show a face: where there is none, all points are zero, or some are not finite."""
    good: npt.NDArray[np.bool_] = np.isfinite(points).all(axis=(1, 2)) & (points != 0).any(axis=(1, 2))
    return good


def held(good: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """For each frame the number of the last good one up to it, or of the first one after it; one of them is good."""
    last = np.maximum.accumulate(np.where(good, np.arange(len(good)), -1))
    return np.where(last < 0, np.argmax(good), last)


def normalise(xy: npt.NDArray[np.number]) -> FloatArray:
    """Pixels [time, 68, 2] to [time, 140]: the face's shape (x_0, y_0, x_1, y_1, ...), then how the head moves.

    Shape: the origin is the midpoint between the eyes in each frame, the eyes lie level, and the unit is the clip's
    median distance between them, which a blink or one badly tracked frame does not move. That takes out the head's own
    movement, which carries emotion too, so four columns keep it: the midpoint's x and y from its median in the clip,
    the distance between the eyes (all in that unit), and their slope in radians. Nothing depends on where in the
    picture the face is or how large it is. Frames without a face repeat the last with one before them, or the first
    after; a clip without any comes back empty.
    """
    points = xy.astype(np.float64)
    good = shows_face(points)
    if not good.any():
        return EMPTY
    points = points[held(good)]
    left, right = points[:, LEFT_EYE].mean(axis=1), points[:, RIGHT_EYE].mean(axis=1)  # [time, 2]
    middle, across = (left + right) / 2, right - left
    distance = np.linalg.norm(across, axis=1)
    unit = np.median(distance[good])
    if unit == 0:
        return EMPTY
    slope = np.arctan2(across[:, 1], across[:, 0])
    cosine, sine = np.cos(slope)[:, None], np.sin(slope)[:, None]
    x, y = np.moveaxis((points - middle[:, None]) / unit, 2, 0)  # [time, 68] each
    shape = np.stack([cosine * x + sine * y, cosine * y - sine * x], axis=2).reshape(len(points), 136)
    place = (middle - np.median(middle[good], axis=0)) / unit
    return np.column_stack([shape, place, distance / unit, slope]).astype(np.float32)


def decode_landmarks(packed: dict[str, npt.NDArray[np.int16]], clip: Clip) -> FloatArray:
    """Normalised landmarks [time, 140] of a take, from its tracking CSV or else from the npz.

    Raises:
        Unreadable: there are none for it, or no frame shows a face.
        ValueError: the CSV lacks a column.
    """
    if clip.path is None and clip.id not in packed:
        raise Unreadable("there are no landmarks for it")
    frames = normalise(packed[clip.id] if clip.path is None else read_tracking(clip.path))
    if not len(frames):
        raise Unreadable("no frame shows a face")
    return frames


def landmark_clips(table: pd.DataFrame, raw: Path) -> list[Clip]:
    """Each take's tracking CSV, if it has one."""
    files = tracking_files(raw)
    return [Clip(take, files.get(take)) for take in table["id"]]


def extract_landmarks(corpus: Path, raw: Path, *, force: bool = False) -> bool:
    """Store the set ``landmarks``: vision, 140 columns, at the videos' own 29.97 frames a second.

    Methods mask each modality by itself and never need equal rates, so resampling to the audio's 31.25 would only blur.

    Returns:
        Whether there is any landmark file below ``raw``.
    """
    table = read_table(corpus)
    source = landmark_source(raw)
    if not source:
        return False
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
    packed = cache(lambda: read_packed(raw))  # read if there is work to do
    extractor = Extractor(recipe, lambda clip: decode_landmarks(packed(), clip), list)
    extract(corpus, extractor, landmark_clips(table, raw), force=force)
    return True
