"""MELD: from the official CSVs to an utterance table and sentiment labels.

Poria et al., "MELD: A Multimodal Multi-Party Dataset for Emotion Recognition in Conversations", ACL 2019.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from pathlib import Path

import click
import pandas as pd

from data_prep.corpora.base import decode_bytes, report_reasons, report_subset, shallowest_first
from mer_bench.errors import Misuse, unknown

EMOTIONS = ("neutral", "joy", "surprise", "anger", "sadness", "disgust", "fear")
SENTIMENTS = ("negative", "neutral", "positive")
#: name of the split in the table: (its name in the release, folder of its clips, number of utterances)
SPLITS = {
    "train": ("train", "train_splits", 9989),
    "validation": ("dev", "dev_splits_complete", 1109),
    "test": ("test", "output_repeated_splits_test", 2610),
}
TEST_SUPPORT = {"neutral": 1256, "joy": 402, "anger": 345, "surprise": 281, "sadness": 208, "disgust": 68, "fear": 50}
DEFECTS = {
    "train_dia125_utt3": "the clip cannot be read",
    "validation_dia110_utt7": "the clip is missing",
    "test_dia38_utt4": "the clip is cut minutes too long",
    "test_dia220_utt0": "the clip is cut minutes too long",
}
COLUMNS = ("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID", "StartTime", "EndTime")
ARCHIVES = re.compile(r"(MELD\.Raw|train|dev|test)\.(tar\.gz|tgz|zip)", re.IGNORECASE)
SIZE = 11 * 10**9  #: bytes of the release
TIME = re.compile(r"(\d+):(\d\d):(\d\d)[,.](\d{1,3})")
#: the bytes 0x80 .. 0x9f, which are printable in cp1252 and control characters in latin-1
C1 = {code: bytes([code]).decode("cp1252") for code in range(0x80, 0xA0) if code not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)}


def repair(text: str) -> str:
    """Undo the two encoding errors of the CSVs.

    Text in UTF-8 that was read as cp1252 shows an apostrophe as three characters. Text in cp1252 that was read as
    latin-1 shows it as the control character 0x92.
    """

    def as_utf8(run: re.Match[str]) -> str:
        try:
            return b"".join(bytes([ord(c)]) if ord(c) < 256 else c.encode("cp1252") for c in run[0]).decode()
        except UnicodeError:
            return run[0]  # correctly decoded accented letters or quotation marks

    return re.sub(r"[^\x00-\x7f]{2,}", as_utf8, text).translate(C1)


def seconds(time: str) -> float:
    """``0:20:57,256`` as 1257.256; NaN if the text is not a time."""
    match = TIME.fullmatch(time.strip())
    if not match:
        return float("nan")
    hours, minutes, whole, fraction = match.groups()
    return int(hours) * 3600 + int(minutes) * 60 + int(whole) + float(f"0.{fraction}")


def find_csv(raw: Path, split: str) -> Path:
    """The official CSV of one split, anywhere below ``raw``.

    Raises:
        Misuse: there is no such file.
    """
    name = f"{SPLITS[split][0]}_sent_emo.csv"
    found = shallowest_first(raw, name)
    if not found:
        raise Misuse(f"no MELD file {name} below {raw}")
    return found[0]


def clip_folders(split: str) -> list[tuple[str, str]]:
    """Folders that may hold a split's clips, and their suffix, best first: the films, or sounds extracted from them."""
    release, folder, _ = SPLITS[split]
    sounds = dict.fromkeys((folder, f"{folder}_wav", f"{release}_splits_wav"))
    return [(folder, ".mp4"), *((name, ".wav") for name in sounds)]


def find_clips(media: Path, split: str) -> tuple[str, str]:
    """The folder in ``media`` with a split's clips, and their suffix; if there are none, those of the release."""
    folders = clip_folders(split)
    return next(((name, end) for name, end in folders if any((media / name).glob(f"dia*_utt*{end}"))), folders[0])


def find_media(raw: Path) -> Path:
    """The folder that contains most of the clip folders, or else the folder of the training CSV."""
    names = {folder for split in SPLITS for folder, _ in clip_folders(split)}
    found = Counter(p.parent for p in raw.rglob("*") if p.name in names and p.is_dir() and "__MACOSX" not in p.parts)
    return max(sorted(found), key=found.__getitem__) if found else find_csv(raw, "train").parent


def report_clips(table: pd.DataFrame, media: Path) -> None:
    """Print which clips are missing (and how many of these are known defects), are empty, or belong to no utterance."""
    for split in SPLITS:
        folder, suffix = find_clips(media, split)
        rows = table[table["split"] == split]
        sizes = {p.name: p.stat().st_size for p in (media / folder).glob(f"dia*_utt*{suffix}") if p.is_file()}
        names = rows["media"].str.rpartition("/")[2]
        absent = rows.loc[~names.isin(list(sizes)), "id"]
        if sizes and len(absent):
            known = [i for i in absent if i in DEFECTS]
            ids = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
            counts = f"{len(absent):,} of {len(rows):,} {split} clips are missing, {len(known)} of them known defects"
            click.echo(f"clips: {counts}: {ids}", err=True)
        elif not sizes:
            click.echo(f"clips: there is no {folder}/*{suffix} in {media}", err=True)
        unknown_clips = sorted(set(sizes) - set(names))
        if unknown_clips:
            click.echo(f"clips: {len(unknown_clips):,} files of {folder} belong to no row (first: {unknown_clips[0]})")
        empty = [i for i, name in zip(rows["id"], names, strict=True) if sizes.get(name) == 0]
        report_reasons("clips", [(i, "the file is empty") for i in empty])


def read_split(raw: Path, split: str) -> pd.DataFrame:
    """The rows of one official CSV as text with repaired encoding, ordered by dialogue and utterance.

    Raises:
        Misuse: the file is absent, lacks a column, or holds a label that MELD does not have.
    """
    path = find_csv(raw, split)
    try:
        text = decode_bytes(path.read_bytes())  # if it is cp1252, repair() corrects what Latin-1 decodes wrongly
        rows = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
        absent = [column for column in COLUMNS if column not in rows]
        if absent:
            raise ValueError(f"it has no column {absent[0]}")
        for column in ("Dialogue_ID", "Utterance_ID"):
            odd = rows.loc[~rows[column].str.fullmatch(r" *[0-9]{1,6} *"), column]
            if len(odd):
                raise ValueError(f"its {column} {odd.iloc[0]!r} in row {odd.index[0] + 1} is no number from 0 on")
            rows[column] = rows[column].astype(int)
    except ValueError as error:  # pandas' parser errors are ValueErrors
        raise Misuse(f"{path} is not an official MELD file: {error}") from error
    repeated = rows[rows.duplicated(["Dialogue_ID", "Utterance_ID"])]
    if len(repeated):
        first = "dia{Dialogue_ID}_utt{Utterance_ID}".format(**repeated.iloc[0])
        raise Misuse(f"{path} holds {len(repeated):,} utterances more than once (first: {first}); remove the copies")
    for column, names in (("Emotion", EMOTIONS), ("Sentiment", SENTIMENTS)):
        rows[column] = rows[column].str.strip().str.lower()
        unknown_labels = sorted(set(rows[column]) - set(names))
        if unknown_labels:
            raise unknown(f"MELD {column.lower()} in {path.name}", unknown_labels[0], names)
    for column in ("Utterance", "Speaker"):
        repaired = rows[column].map(repair)
        rows["repaired"] = rows.get("repaired", 0) + (repaired != rows[column])
        rows[column] = repaired.str.strip()
    return rows.sort_values(["Dialogue_ID", "Utterance_ID"], ignore_index=True)


def utterances(raw: Path, *, partial: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The utterance table and the sentiment labels (``id, emotion``), both in the order train, validation, test.

    Sentiment cannot be derived from emotion: surprise is positive about as often as negative.

    Args:
        raw: Any folder above the official CSVs.
        partial: Whether to accept a subset of the corpus, with a warning instead of an error.

    Raises:
        Misuse: a file is absent or is not an official MELD file, or the counts are wrong.
    """
    parts = []
    media = find_media(raw)
    for split in SPLITS:
        folder, suffix = find_clips(media, split)
        rows = read_split(raw, split)
        clip = "dia" + rows["Dialogue_ID"].astype(str) + "_utt" + rows["Utterance_ID"].astype(str)
        parts.append(
            pd.DataFrame(
                {
                    "id": f"{split}_" + clip,
                    "dialogue": f"{split}_dia" + rows["Dialogue_ID"].astype(str),
                    "turn": rows.groupby("Dialogue_ID").cumcount(),  # the utterance numbers have gaps
                    "speaker": rows["Speaker"],
                    "session": "",
                    "start": rows["StartTime"].map(seconds),
                    "end": rows["EndTime"].map(seconds),
                    "text": rows["Utterance"],
                    "emotion": rows["Emotion"],
                    "split": split,
                    "media": f"{folder}/" + clip + suffix,
                    "sentiment": rows["Sentiment"],
                    "repaired": rows["repaired"],
                }
            )
        )
    table = pd.concat(parts, ignore_index=True)
    _check(table, raw, partial)
    click.echo(
        f"encoding repaired in {int(table['repaired'].sum()):,} fields; times: {int(table['start'].isna().sum()):,} "
        f"unreadable, {int((table['end'] <= table['start']).sum()):,} utterances that end before they begin"
    )
    labels = table[["id", "sentiment"]].rename(columns={"sentiment": "emotion"})
    return table.drop(columns=["sentiment", "repaired"]), labels


def _check(table: pd.DataFrame, raw: Path, partial: bool) -> None:
    wrong = []
    for split, (_, _, expected) in SPLITS.items():
        found = int((table["split"] == split).sum())
        if found != expected:
            wrong.append(f"{found:,} {split} utterances instead of {expected:,}")
    test = table.loc[table["split"] == "test", "emotion"].value_counts().to_dict()
    wrong += [
        f"{test.get(emotion, 0)} {emotion} in test instead of {expected:,}"
        for emotion, expected in TEST_SUPPORT.items()
        if test.get(emotion, 0) != expected
    ]
    if wrong:
        problem = f"the MELD files below {raw} are not the official ones: {', '.join(wrong)}"
        remedy = "take those of github.com/declare-lab/MELD, or pass --partial to use them anyway"
        report_subset(problem, remedy, partial=partial)
