"""The media file and the span of time of each utterance of a prepared corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_prep.corpora import iemocap, meld, ravdess
from data_prep.corpora.base import Clip
from mer_bench.utterances import read_table

#: Start and end in seconds within two clips of MELD that were cut minutes too long, inferred from the times of their
#: neighbours. The first begins with an utterance of two seconds and seven words; the second ends where the next
#: utterance begins, and has three words.
MELD_SPANS = {"test_dia38_utt4": (0.0, 5.0), "test_dia220_utt0": (231.0, None)}


def media_folder(corpus: Path, raw: Path) -> Path:
    """The folder to which the column ``media`` of the table in ``corpus`` is relative.

    Args:
        corpus: Folder of the utterance table; its name says which corpus it is.
        raw: The folder that the corpus was prepared from, or any folder between it and the media folder.

    Raises:
        Misuse: the corpus is not below ``raw``.
    """
    find = {"iemocap": iemocap.find_root, "meld": meld.find_media}.get(corpus.resolve().name)
    return find(raw) if find else raw


def audio_clips(corpus: Path, raw: Path) -> list[Clip]:
    """The audio of each utterance: one whole file, except for two files of MELD that were cut at the wrong time.

    Args:
        corpus: Folder of the utterance table.
        raw: Folder to which its column ``media`` is relative, see :func:`media_folder`.
    """
    rows: Any = read_table(corpus).itertuples()
    return [
        Clip(row.id, raw / row.media if row.media else None, "", *MELD_SPANS.get(row.id, (0.0, None))) for row in rows
    ]


def vision_clips(corpus: Path, raw: Path, *, marked_side: str = "left") -> list[Clip]:
    """The video of each utterance: the file, the span of time, and the half of the picture that shows the speaker.

    RAVDESS: the audio-video file of the take, or else its video-only file. IEMOCAP: one half of the picture of the
    dialogue's video between the times of the utterance. MELD and others: the file named by the table. MELD's times
    are not used, because they count from the beginning of the episode and not of the clip.

    Args:
        corpus: Folder of the utterance table; its name says which corpus it is.
        raw: The folder that the corpus was prepared from.
        marked_side: Half of IEMOCAP's picture that shows the actor with motion capture markers. The name of the
            dialogue says who wears them: in ``Ses01F_impro01`` it is the woman. IEMOCAP's documentation does not state
            the side. Public code that cuts out the speakers with manually chosen windows takes the left half for the
            actor with markers (``find_speaker`` of IoannisKansizoglou/Iemocap-preprocess and code based on it). Other
            code takes it for the woman in every dialogue, which is the same in half of the dialogues. Check the result
            with a contact sheet.
    """
    table, name = read_table(corpus), corpus.resolve().name
    rows: Any = table.itertuples()
    if name == "ravdess":
        files = ravdess.find_files(raw)
        return [Clip(take, files.get((take, "01", ".mp4"), files.get((take, "02", ".mp4")))) for take in table["id"]]
    folder = media_folder(corpus, raw)
    if name != "iemocap":
        return audio_clips(corpus, folder)  # the same file holds sound and pictures
    other_side = {"left": "right", "right": "left"}[marked_side]
    return [
        Clip(
            row.id,
            folder / f"Session{row.session}" / "dialog" / "avi" / "DivX" / f"{row.dialogue}.avi",
            start=row.start,
            end=row.end,
            half=marked_side if row.speaker[-1] == row.dialogue[5] else other_side,
        )
        for row in rows
    ]
