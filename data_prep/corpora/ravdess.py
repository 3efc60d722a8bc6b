"""RAVDESS speech: from the official files to an utterance table, and the readers of its facial landmarks.

Livingstone and Russo, "The Ryerson Audio-Visual Database of Emotional Speech and Song", PLoS ONE 13(5), 2018.

A file is named ``MM-CC-EE-II-SS-RR-AA``: modality (01 audio-video, 02 video only, 03 audio only), channel (01 speech,
02 song), emotion, intensity, statement, repetition, actor. The 01, 02 and 03 files of one take show the same
performance. Therefore the take, which is the name without its first field, is the utterance, and no performance can be
in two parts of a split.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise, product
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.corpora.base import check_offsets, find_npz, fingerprint, report_reasons, report_subset, shallowest_first
from mer_bench.errors import Misuse
from mer_bench.files import sha256

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
STATEMENTS = ("Kids are talking by the door", "Dogs are sitting by the door")
ACTORS = tuple(f"{actor:02}" for actor in range(1, 25))
NAME = re.compile(r"(0[123])-(0[12])((?:-\d\d){5})")
ARCHIVES = re.compile(r"(Video_Speech|Audio_Speech|FacialTracking)_Actors?_\d\d.*\.zip", re.IGNORECASE)
SIZE = 13 * 10**9  #: bytes of the release
#: modality field and suffix of files with sound, best first; the audio track of the 02 files is silent
AUDIO = (("03", ".wav"), ("03", ".flac"), ("01", ".mp4"))
Files = dict[tuple[str, str, str], Path]


def all_takes() -> list[str]:
    """The ids of the 1,440 speech takes: 24 actors with 60 each.

    There are 96 neutral takes, because neutral has no strong intensity, and 192 of every other emotion.
    """
    return [
        f"01-{emotion:02}-{intensity:02}-{statement:02}-{repetition:02}-{actor}"
        for actor in ACTORS
        for emotion, intensity, statement, repetition in product(range(1, 9), (1, 2), (1, 2), (1, 2))
        if (emotion, intensity) != (1, 2)
    ]


def find_files(raw: Path) -> Files:
    """Official speech files by (take, modality field, suffix); of copies, the one nearest to ``raw``."""
    found: Files = {}
    for path in shallowest_first(raw, "*-*.*"):
        name = NAME.fullmatch(path.stem)
        if name and name[2] == "01":
            found.setdefault((f"{name[2]}{name[3]}", name[1], path.suffix.lower()), path)
    return found


def utterances(raw: Path, *, partial: bool = False) -> pd.DataFrame:
    """The utterance table of all takes that have a file below ``raw``; prints which takes lack which files.

    Args:
        raw: Any folder above the official files.
        partial: Whether to accept a subset of the corpus, with a warning instead of an error.

    Raises:
        Misuse: takes are missing, or a file belongs to a take that RAVDESS does not have.
    """
    files = find_files(raw)
    in_archive = read_landmark_archive(raw)
    takes = {take for take, _, suffix in files if suffix in (".wav", ".flac", ".mp4", ".csv")} | set(in_archive)
    _check(takes, raw, partial)
    _report(takes, files, set(in_archive), raw)
    rows = []
    for take in sorted(takes, key=lambda take: (take[-2:], take)):
        _, emotion, _, statement, _, actor = take.split("-")
        media = next((files[take, *key] for key in AUDIO if (take, *key) in files), None)
        rows.append(
            {
                "id": take,
                "dialogue": take,
                "turn": 0,
                "speaker": actor,
                "session": actor,
                "start": 0.0,
                "end": _duration(media),
                "text": STATEMENTS[int(statement) - 1],
                "emotion": EMOTIONS[int(emotion) - 1],
                "split": "",
                "media": media.relative_to(raw).as_posix() if media else "",
            }
        )
    return pd.DataFrame(rows)


def _check(takes: set[str], raw: Path, partial: bool) -> None:
    expected = all_takes()
    unknown_takes = sorted(takes - set(expected))
    if unknown_takes:
        raise Misuse(f"{raw} holds {unknown_takes[0]!r}, which is not one of RAVDESS's 1,440 speech takes")
    if not takes:
        raise Misuse(f"no RAVDESS speech file (such as 03-01-01-01-01-01-01.wav) below {raw}")
    missing = Counter(take[-2:] for take in expected if take not in takes)
    if missing:
        parts = [f"actor {actor} lacks {count} of 60" for actor, count in missing.items() if count < 60]
        absent = [actor for actor, count in missing.items() if count == 60]
        lacking = ", ".join(parts + ([f"nothing of actor {', '.join(absent)}"] if absent else []))
        problem = f"{len(takes):,} of RAVDESS's 1,440 speech takes are below {raw}: {lacking}"
        report_subset(problem, "complete the download, or pass --partial to continue with a subset", partial=partial)


def _report(takes: set[str], files: Files, in_archive: set[str], raw: Path) -> None:
    """Print which files exist more than once, and which takes lack audio, video or landmarks."""
    copies = Counter(
        (path.name, path.stat().st_size) for path in raw.rglob("*-*.*") if NAME.fullmatch(path.stem) and path.is_file()
    )
    duplicates = copies.total() - len(copies)
    if duplicates:
        click.echo(f"{duplicates:,} files are copies of others")
    differ = sorted(name for name, count in Counter(name for name, _ in copies).items() if count > 1)
    if differ:
        names = ", ".join(differ[:5]) + (", ..." if len(differ) > 5 else "")
        message = (
            f"{len(differ):,} files exist in versions of different size: {names}; the one nearest to {raw} is used"
        )
        click.echo(message, err=True)
    with_landmarks = {take for take, _, suffix in files if suffix == ".csv"} | in_archive
    with_video = {take for take, modality, suffix in files if suffix == ".mp4" and modality != "03"}
    with_audio = {take for take in takes if any((take, *key) in files for key in AUDIO)}
    for what, some in (("audio", with_audio), ("video", with_video), ("landmarks", with_landmarks)):
        if some:  # a modality that was not downloaded at all is not reported
            report_reasons(what, [(take, "no file") for take in sorted(takes - some, key=lambda t: (t[-2:], t))])


def _duration(media: Path | None) -> float:
    """Seconds of a wav or flac according to its header; NaN for other files and for headers that cannot be read."""
    if media is None or media.suffix.lower() == ".mp4":
        return float("nan")
    import soundfile

    try:
        return float(soundfile.info(media).duration)
    except (OSError, RuntimeError):
        return float("nan")


# --- facial landmarks -------------------------------------------------------------------------------------------------


def find_landmark_archive(raw: Path) -> Path | None:
    """The first npz below ``raw`` that holds landmarks as ``clip``, ``offset`` and ``xy``, if there is one."""
    return find_npz(sorted(raw.rglob("*.npz")), {"clip", "offset", "xy"})


def read_landmark_archive(raw: Path) -> dict[str, npt.NDArray[np.int16]]:
    """Landmarks [time, 68, 2] in pixels of each speech take in the npz below ``raw``; {} if there is no such file.

    Raises:
        Misuse: the file cannot be read, or its arrays do not fit together.
    """
    path = find_landmark_archive(raw)
    if path is None:
        return {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            clips, xy = archive["clip"], archive["xy"]
            offsets = check_offsets(archive["offset"], clips.size, len(xy))
        if xy.shape[1:] != (68, 2) or xy.dtype.kind not in "iuf" or clips.ndim != 1:
            raise ValueError(f"clip has the shape {clips.shape} and xy the shape {xy.shape}, expected [frames, 68, 2]")
        if len(set(clips.tolist())) != len(clips):
            raise ValueError("it holds a clip more than once")
    except Exception as error:  # a damaged npz can raise errors of many types
        raise Misuse(f"cannot read landmarks from {path}: {' '.join(str(error).split())}") from error
    names = (NAME.fullmatch(str(clip)) for clip in clips)
    spans = zip(names, pairwise(offsets), strict=True)
    return {f"01{name[3]}": xy[start:stop] for name, (start, stop) in spans if name and name[2] == "01"}


def read_tracking(path: Path) -> npt.NDArray[np.float64]:
    """Landmarks [time, 68, 2] in pixels from a FacialTracking CSV; its other columns may hold any bytes.

    Raises:
        ValueError: a column x_0 .. x_67, y_0 .. y_67 is absent.
    """
    wanted = [f"{axis}_{point}" for point in range(68) for axis in "xy"]
    names = set(wanted)
    frame = pd.read_csv(
        path, usecols=lambda name: name.strip() in names, skipinitialspace=True, encoding_errors="replace"
    )
    frame.columns = frame.columns.str.strip()
    absent = [name for name in wanted if name not in frame]
    if absent:
        raise ValueError(f"{path.name} has no column {absent[0]}")
    values: npt.NDArray[np.float64] = frame[wanted].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    return values.reshape(-1, 68, 2)


def tracking_files(raw: Path) -> dict[str, Path]:
    """The tracking CSV of each take that has one: that of the audio-video file, or else of the video-only file."""
    files = sorted(find_files(raw).items(), reverse=True)  # so that 01 overwrites 02
    return {take: path for (take, _, suffix), path in files if suffix == ".csv"}


def landmark_fingerprint(raw: Path) -> str:
    """A string that identifies the landmark files below ``raw``; empty if there are none."""
    tracked = [path for (_, _, suffix), path in find_files(raw).items() if suffix == ".csv"]
    archive = find_landmark_archive(raw)
    parts = (fingerprint(tracked, raw) if tracked else "", sha256(archive)[:16] if archive else "")
    return "+".join(filter(None, parts))
