"""Which file and which span belong to each utterance of a prepared corpus."""

from __future__ import annotations

from pathlib import Path

from data_prep.extract import Clip
from mer_bench.table import read_table


def media_folder(corpus: Path, raw: Path) -> Path:
    """The folder that the media column of the table in ``corpus`` is relative to.

    Args:
        corpus: Folder of the utterance table; its name says which corpus it is.
        raw: What the user calls RAW in ``make data``, or anything between it and the folder in question.

    Raises:
        Misuse: the corpus is not below ``raw``.
    """
    from data_prep import iemocap, meld  # they import the extractors, which import this module

    find = {"iemocap": iemocap.find_root, "meld": meld.find_media}.get(corpus.resolve().name)
    return find(raw) if find else raw


def audio_clips(corpus: Path, raw: Path) -> list[Clip]:
    """Each utterance's whole audio file; the releases cut their audio into utterances.

    Args:
        corpus: Folder of the utterance table.
        raw: The folder that its ``media`` column is relative to, see :func:`media_folder`.
    """
    table = read_table(corpus)
    return [Clip(name, raw / media if media else None) for name, media in zip(table["id"], table["media"], strict=True)]
