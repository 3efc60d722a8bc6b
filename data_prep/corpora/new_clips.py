"""Clips of one's own: from files, a folder or a CSV to a list of clips with ids, and to an utterance table."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from data_prep.corpora.base import decode_bytes
from mer_bench.errors import Misuse, unknown
from mer_bench.schema import check_name
from mer_bench.utterances import COLUMNS

#: suffixes that make a file of a folder a clip
SOUNDS = (".aac", ".aif", ".aiff", ".flac", ".m4a", ".mka", ".mp3", ".ogg", ".opus", ".wav", ".wma")
VIDEOS = (".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
CSV_COLUMNS = ("path", "id", "text", "speaker", "dialogue", "turn", "landmarks")
DEFAULT_SPEAKER = "speaker"  #: of clips whose speakers are not given


@dataclass(frozen=True)
class NewClip:
    """A clip of which nothing is known but its files and what the user says about it."""

    id: str
    path: Path | None = None  #: media file; None if only a text or landmarks are given
    text: str = ""
    landmarks: Path | None = None  #: CSV of OpenFace, or of RAVDESS's FacialTracking
    dialogue: str = ""  #: "" for a clip that is a dialogue of its own
    speaker: str = ""


def clips_from_paths(
    paths: Sequence[Path], *, text: str | None = None, landmarks: Sequence[Path] = ()
) -> list[NewClip]:
    """Clips from files and folders; of a folder, the media files in it by their names. Each is a dialogue of its own.

    Args:
        paths: Media files and folders; without any, ``text`` or one file of landmarks is the clip.
        text: What is said in the clip, if there is one alone.
        landmarks: CSVs, each of the clip with the same name apart from its suffix, or of the only clip.

    Raises:
        Misuse: a file does not exist, a folder holds no clip, or a text or landmarks belong to none of the clips.
    """
    found = [each for path in paths for each in _media_files(path)]
    for path in [*found, *landmarks]:
        _check_file(path)
    if not found:
        if not text and len(landmarks) != 1:
            raise Misuse(
                "there is no clip: name media files or folders, or give --clips FILE.csv, --text, or a table of "
                "features that are extracted already (--table FOLDER)"
            )
        return [NewClip(landmarks[0].name if landmarks else "text", None, text or "", next(iter(landmarks), None))]
    clips = [NewClip(name, path) for name, path in zip(unique_ids(path.name for path in found), found, strict=True)]
    if text is not None:
        if len(clips) > 1:
            raise Misuse(
                f"--text belongs to one clip, and {len(clips)} are given: list them with their texts, --clips FILE.csv"
            )
        clips = [replace(clips[0], text=text)]
    for file in landmarks:
        of = [i for i, path in enumerate(found) if path.stem == file.stem or len(found) == len(landmarks) == 1]
        if len(of) != 1:
            raise Misuse(
                f"the landmarks {file} fit {len(of) or 'none'} of the clips: give the file the name of its clip, or "
                "list both with --clips FILE.csv"
            )
        if clips[of[0]].landmarks:
            raise Misuse(f"--landmarks gives {found[of[0]]} two files: {clips[of[0]].landmarks} and {file}")
        clips[of[0]] = replace(clips[of[0]], landmarks=file)
    return clips


def clips_from_csv(file: Path) -> list[NewClip]:
    """Clips from a CSV with the column ``path`` and optionally id, text, speaker, dialogue, turn and landmarks.

    Paths are relative to the folder of the CSV. The rows of a dialogue are ordered by their turns, or else as they
    stand in the file; dialogues come in the order of their first rows.

    Raises:
        Misuse: the file is not such a CSV, names a file that does not exist, or its ids, dialogues or turns are wrong.
    """
    try:
        table = pd.read_csv(io.StringIO(decode_bytes(file.read_bytes())), dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise Misuse(f"{file} is not a readable CSV of clips: {' '.join(str(error).split())}") from error
    for column in table.columns:
        if column not in CSV_COLUMNS:
            raise unknown(f"column in {file}", str(column), CSV_COLUMNS)
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes surplus fields at the beginning for an index
        raise Misuse(f"the rows of {file} hold more fields than its header; put texts with commas into quotation marks")
    if "path" not in table:
        raise Misuse(f"{file} has no column path, which names the file of each clip")
    if table.empty:
        raise Misuse(f"{file} lists no clips")
    table = table.apply(lambda column: column.str.strip()).reindex(columns=list(CSV_COLUMNS), fill_value="")
    _check_given_ids(table["id"], file)
    _check_dialogues(table, file)
    rows: list[Any] = list(table.itertuples())
    names = (Path(row.path).name or f"row-{row.Index + 1}" for row in rows if not row.id)
    made = iter(unique_ids(names, taken=table["id"]))
    clips = []
    for row in rows:
        media, landmarks = (file.parent / name if name else None for name in (row.path, row.landmarks))
        for path in filter(None, (media, landmarks)):
            _check_file(path, f"{file}, row {row.Index + 1}: ")
        clips.append(NewClip(row.id or next(made), media, row.text, landmarks, row.dialogue, row.speaker))
    first: dict[str, int] = {}  # dialogue -> number of its first row
    begins = [first.setdefault(clip.dialogue or f"{clip.id}/", i) for i, clip in enumerate(clips)]
    order = sorted(range(len(clips)), key=lambda i: (begins[i], int(rows[i].turn or 0)))
    return [clips[i] for i in order]


def utterance_table(clips: Sequence[NewClip]) -> pd.DataFrame:
    """The utterance table of some clips, without labels; the clips of a dialogue must be adjacent."""
    table = pd.DataFrame(
        {
            **dict.fromkeys(COLUMNS, ""),
            "id": [clip.id for clip in clips],
            "dialogue": [clip.dialogue or clip.id for clip in clips],
            "speaker": [clip.speaker or DEFAULT_SPEAKER for clip in clips],
            "start": float("nan"),
            "end": float("nan"),
            "text": [clip.text for clip in clips],
        }
    )
    return table.assign(turn=table.groupby("dialogue", sort=False).cumcount())


def dialogue_remarks(clips: Sequence[NewClip]) -> list[str]:
    """What is assumed of some clips when a model reads whole dialogues."""
    if len(clips) > 1 and not any(clip.dialogue for clip in clips):
        return [
            "the model reads whole dialogues, and each clip is taken for a dialogue of its own: list the clips with "
            "dialogue, turn and speaker (--clips FILE.csv) if they are turns of one"
        ]
    lacking = [clip.id for clip in clips if clip.dialogue and not clip.speaker]
    if lacking:
        return [f"no speaker is given of {len(lacking)} clips ({lacking[0]} ...), who are taken for one and the same"]
    return []


def unique_ids(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Names of files as ids: other characters than those of a name become ``-``, and repeated ones get a number."""
    ids, taken = dict[str, None](), frozenset(taken)
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9._+:-]+", "-", name).lstrip("._+:-")[:90] or "clip"
        number, found = 1, plain
        while found in ids or found in taken:
            number += 1
            found = f"{plain}-{number}"
        ids[check_name(found, "clip")] = None
    return list(ids)


def _media_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(
        each for each in path.iterdir() if each.suffix.lower() in (*SOUNDS, *VIDEOS) and not each.name.startswith(".")
    )
    if not found:
        raise Misuse(f"the folder {path} holds no clip: no file in it is a sound or a video by its suffix")
    return found


def _check_file(path: Path, where: str = "") -> None:
    if not path.is_file():
        raise Misuse(f"{where}there is no file {path}")


def _check_given_ids(ids: pd.Series[str], file: Path) -> None:
    given = ids[ids != ""]
    for name in given:
        check_name(name, f"clip in {file}")
    if given.duplicated().any():
        raise Misuse(f"{file} holds the id {given[given.duplicated()].iloc[0]!r} more than once")


def _check_dialogues(table: pd.DataFrame, file: Path) -> None:
    """Raise Misuse unless all rows name their dialogue or none does, and turns are different whole numbers."""
    lacking = table.index[table["dialogue"] == ""]
    turns = table["turn"][table["turn"] != ""]
    if len(lacking) == len(table):
        if len(turns):
            raise Misuse(f"{file} states turns without the dialogues that they belong to; add the column dialogue")
        return
    if len(lacking):
        raise Misuse(f"{file}, row {lacking[0] + 1}: names no dialogue, as other rows do")
    if 0 < len(turns) < len(table):
        raise Misuse(f"{file}, row {table.index[table['turn'] == ''][0] + 1}: states no turn, as other rows do")
    wrong = turns[~turns.str.fullmatch(r"\d{1,9}")]
    if len(wrong):
        raise Misuse(f"{file}, row {wrong.index[0] + 1}: the turn {wrong.iloc[0]!r} is not a whole number")
    repeated = (
        table.assign(turn=pd.to_numeric(turns))[["dialogue", "turn"]].duplicated() if len(turns) else turns == "x"
    )
    if repeated.any():
        row = table[repeated].iloc[0]
        raise Misuse(f"{file} holds turn {row.turn} of dialogue {row.dialogue!r} more than once")
