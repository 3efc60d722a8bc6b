"""RAVDESS speech: official files to an utterance table, MFCC and facial landmarks.

Livingstone and Russo, "The Ryerson Audio-Visual Database of Emotional Speech and Song", PLoS ONE 13(5), 2018.

A file is named ``MM-CC-EE-II-SS-RR-AA``: modality (01 audio-video, 02 video only, 03 audio only), channel (01 speech,
02 song), emotion, intensity, statement, repetition, actor. The 01, 02 and 03 files of one take show the same
performance, so the take, the name without its first field, is the utterance: nothing of it can end up on both sides of
a split.
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

from data_prep.extract import fingerprint, report_unread
from mer_bench.errors import Misuse
from mer_bench.files import sha256

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
STATEMENTS = ("Kids are talking by the door", "Dogs are sitting by the door")
ACTORS = tuple(f"{actor:02}" for actor in range(1, 25))
NAME = re.compile(r"(0[123])-(0[12])((?:-\d\d){5})")
ARCHIVES = re.compile(r"(Video_Speech|Audio_Speech|FacialTracking)_Actors?_\d\d.*\.zip", re.IGNORECASE)
AUDIO = (("03", ".wav"), ("03", ".flac"), ("01", ".mp4"))  #: best first; the audio track of the 02 files is silent
Files = dict[tuple[str, str, str], Path]


def all_takes() -> list[str]:
    """The ids of the 1,440 speech takes, 24 actors x 60: neutral, which has no strong intensity, 96; the others 192."""
    return [
        f"01-{emotion:02}-{intensity:02}-{statement:02}-{repetition:02}-{actor}"
        for actor in ACTORS
        for emotion, intensity, statement, repetition in product(range(1, 9), (1, 2), (1, 2), (1, 2))
        if (emotion, intensity) != (1, 2)
    ]


def find_files(raw: Path) -> Files:
    """Official speech files below ``raw`` by (take, modality field, suffix); of copies, the shallowest."""
    found: Files = {}
    for path in sorted(raw.rglob("*-*.*"), key=lambda p: (len(p.parts), p)):
        name = NAME.fullmatch(path.stem)
        if name and name[2] == "01":
            found.setdefault((f"{name[2]}{name[3]}", name[1], path.suffix.lower()), path)
    return found


def utterances(raw: Path, *, partial: bool = False) -> pd.DataFrame:
    """The utterance table of the takes that any file below ``raw`` shows; says which takes lack what.

    Args:
        raw: Any folder above the official files.
        partial: Accept a subset of the corpus, with a warning instead of an error.

    Raises:
        Misuse: takes are missing, or a file claims one that RAVDESS does not have.
    """
    files = find_files(raw)
    packed = read_packed(raw)
    takes = {take for take, _, suffix in files if suffix in (".wav", ".flac", ".mp4", ".csv")} | set(packed)
    _check(takes, raw, partial)
    _report(takes, files, set(packed), raw)
    rows = []
    for take in sorted(takes, key=lambda take: (take[-2:], take)):
        _, emotion, _, statement, _, actor = take.split("-")
        media = next((files[take, *kind] for kind in AUDIO if (take, *kind) in files), None)
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
    strangers = sorted(takes - set(expected))
    if strangers:
        raise Misuse(f"{raw} holds {strangers[0]!r}, which is not one of RAVDESS's 1,440 speech takes")
    if not takes:
        raise Misuse(f"no RAVDESS speech file (such as 03-01-01-01-01-01-01.wav) below {raw}")
    missing = [take for take in expected if take not in takes]
    if not missing:
        return
    by_actor = {actor: sum(take[-2:] == actor for take in missing) for actor in ACTORS}
    parts = [f"actor {actor} lacks {n} of 60" for actor, n in by_actor.items() if 0 < n < 60]
    absent = [actor for actor, n in by_actor.items() if n == 60]
    lacking = ", ".join(parts + ([f"nothing of actor {', '.join(absent)}"] if absent else []))
    sentence = f"{len(takes):,} of RAVDESS's 1,440 speech takes are below {raw}: {lacking}"
    if not partial:
        raise Misuse(f"{sentence}; complete the download, or pass --partial to go on with a subset")
    click.echo(f"WARNING: {sentence}; scores on a subset compare with nothing", err=True)


def _report(takes: set[str], files: Files, packed: set[str], raw: Path) -> None:
    """Say what is there twice, and what only some of the takes have."""
    copies: dict[tuple[str, int], list[Path]] = {}
    official = [path for path in raw.rglob("*-*.*") if NAME.fullmatch(path.stem) and path.is_file()]
    for path in official:
        copies.setdefault((path.name, path.stat().st_size), []).append(path)
    twice = sum(len(same) - 1 for same in copies.values())
    differ = sorted(name for name, count in Counter(name for name, _ in copies).items() if count > 1)
    if twice:
        click.echo(f"{twice:,} files are copies of others")
    if differ:
        more = f"{', ...' if len(differ) > 5 else ''}; the one nearest to {raw} is used"
        click.echo(
            f"{len(differ):,} files exist in versions of different size: {', '.join(differ[:5])}{more}", err=True
        )
    tracked = {take for take, _, suffix in files if suffix == ".csv"} | packed
    filmed = {take for take, modality, suffix in files if suffix == ".mp4" and modality != "03"}
    heard = {take for take in takes if any((take, *kind) in files for kind in AUDIO)}
    for what, some in (("audio", heard), ("video", filmed), ("landmarks", tracked)):
        if some:  # a modality that nobody downloaded is no defect
            report_unread(what, [(take, "no file") for take in sorted(takes - some, key=lambda t: (t[-2:], t))])


def _duration(media: Path | None) -> float:
    """Seconds of a wav or flac from its header; NaN for what would have to be decoded, or cannot be."""
    if media is None or media.suffix.lower() == ".mp4":
        return float("nan")
    import soundfile

    try:
        return float(soundfile.info(media).duration)
    except (OSError, RuntimeError):
        return float("nan")


# --- facial landmarks -------------------------------------------------------------------------------------------------


def find_packed(raw: Path) -> Path | None:
    """The first npz below ``raw`` that holds landmarks as ``clip``, ``offset`` and ``xy``, if any."""
    for path in sorted(raw.rglob("*.npz")):
        try:
            with np.load(path, allow_pickle=False) as archive:
                if {"clip", "offset", "xy"} <= set(archive.files):
                    return path
        except (OSError, ValueError):
            continue
    return None


def read_packed(raw: Path) -> dict[str, npt.NDArray[np.int16]]:
    """Landmarks [time, 68, 2] in pixels for each speech take of the npz below ``raw``; {} if there is none."""
    path = find_packed(raw)
    if path is None:
        return {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            clips, offsets, xy = archive["clip"], archive["offset"], archive["xy"]
        if xy.shape != (offsets[-1], 68, 2) or len(offsets) != len(clips) + 1:
            raise ValueError(f"clip {clips.shape}, offset {offsets.shape} and xy {xy.shape} do not fit")
    except (OSError, ValueError, EOFError) as error:
        raise Misuse(f"cannot read landmarks from {path}: {error}") from error
    names = (NAME.fullmatch(str(clip)) for clip in clips)
    spans = zip(names, pairwise(offsets.tolist()), strict=True)
    return {f"01{name[3]}": xy[start:stop] for name, (start, stop) in spans if name and name[2] == "01"}


def read_tracking(path: Path) -> npt.NDArray[np.float64]:
    """Landmarks [time, 68, 2] in pixels from a FacialTracking CSV: spaces in its header, any bytes in its rows.

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
    """The tracking CSV of each take that has one: its audio-video file's, or else its video-only file's."""
    files = sorted(find_files(raw).items(), reverse=True)  # of a take's files the first is taken last, and stays
    return {take: path for (take, _, suffix), path in files if suffix == ".csv"}


def landmark_source(raw: Path) -> str:
    """What identifies the landmark files below ``raw``; empty if there are none."""
    tracked = [path for (_, _, suffix), path in find_files(raw).items() if suffix == ".csv"]
    packed = find_packed(raw)
    parts = (fingerprint(tracked, raw) if tracked else "", sha256(packed)[:16] if packed else "")
    return "+".join(filter(None, parts))
