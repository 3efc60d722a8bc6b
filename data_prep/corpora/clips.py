"""Which file and which span belong to each utterance of a prepared corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_prep.corpora import iemocap, meld, ravdess
from data_prep.extract import Clip
from mer_bench.utterances import read_table

#: seconds within MELD's clips that were cut minutes too long, inferred from their neighbours' times: the first begins
#: with an utterance of two seconds and has seven words; the second ends where the next one begins, and has three
MELD_SPANS = {"test_dia38_utt4": (0.0, 5.0), "test_dia220_utt0": (231.0, None)}


def media_folder(corpus: Path, raw: Path) -> Path:
    """The folder that the media column of the table in ``corpus`` is relative to.

    Args:
        corpus: Folder of the utterance table; its name says which corpus it is.
        raw: What the user calls RAW in ``make data``, or anything between it and the folder in question.

    Raises:
        Misuse: the corpus is not below ``raw``.
    """
    find = {"iemocap": iemocap.find_root, "meld": meld.find_media}.get(corpus.resolve().name)
    return find(raw) if find else raw


def audio_clips(corpus: Path, raw: Path) -> list[Clip]:
    """Each utterance's audio; the releases cut it into utterances, two of MELD's at the wrong place.

    Args:
        corpus: Folder of the utterance table.
        raw: The folder that its ``media`` column is relative to, see :func:`media_folder`.
    """
    rows: Any = read_table(corpus).itertuples()
    return [
        Clip(row.id, raw / row.media if row.media else None, "", *MELD_SPANS.get(row.id, (0.0, None))) for row in rows
    ]


def vision_clips(corpus: Path, raw: Path, *, marked_side: str = "left") -> list[Clip]:
    """Each utterance's video, and which part of it shows the speaker while she speaks.

    RAVDESS: the take's audio-video or else its video-only file. IEMOCAP: the dialogue's video, between the utterance's
    times, one half of the picture. MELD and others: the file that the table names; MELD's times count from the
    beginning of the episode, not of the clip.

    Args:
        corpus: Folder of the utterance table; its name says which corpus it is.
        raw: What the user calls RAW.
        marked_side: The half of IEMOCAP's picture with the actor who wears the motion capture's markers. The
            dialogue's name says who that is: in ``Ses01F_impro01`` it is the woman. IEMOCAP's documentation does not
            tell the side. Public code that cuts the speakers out by windows set by eye takes the left for the actor
            with markers (IoannisKansizoglou/Iemocap-preprocess, ``find_speaker``, and others after it); some takes it
            for the woman in every dialogue, which agrees in half of them. Look at a contact sheet.
    """
    table, name = read_table(corpus), corpus.resolve().name
    rows: Any = table.itertuples()
    if name == "ravdess":
        files = ravdess.find_files(raw)
        return [Clip(take, files.get((take, "01", ".mp4"), files.get((take, "02", ".mp4")))) for take in table["id"]]
    folder = media_folder(corpus, raw)
    if name != "iemocap":
        return audio_clips(corpus, folder)  # sound and pictures are in one file
    other = {"left": "right", "right": "left"}[marked_side]
    return [
        Clip(
            row.id,
            folder / f"Session{row.session}" / "dialog" / "avi" / "DivX" / f"{row.dialogue}.avi",
            start=row.start,
            end=row.end,
            half=marked_side if row.speaker[-1] == row.dialogue[5] else other,
        )
        for row in rows
    ]
