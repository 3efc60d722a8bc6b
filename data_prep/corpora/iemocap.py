"""IEMOCAP: from the label and transcript files of the release to an utterance table and six-class labels.

Busso et al., "IEMOCAP: interactive emotional dyadic motion capture database", Language Resources and Evaluation, 2008.
The licence of USC forbids passing on the corpus and everything derived from it, including features.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import pandas as pd

from data_prep.corpora.base import report_reasons, report_subset
from mer_bench.errors import Misuse
from mer_bench.files import write_atomic
from mer_bench.utterances import COLUMNS

COUNTS = {
    "xxx": 2507,  # the annotators did not agree
    "fru": 1849,
    "neu": 1708,
    "ang": 1103,
    "sad": 1084,
    "exc": 1041,
    "hap": 595,
    "sur": 107,
    "fea": 40,
    "oth": 3,
    "dis": 2,
}
DIALOGUES, SESSIONS = 151, 5
COMMUNITY = ("hap", "sad", "neu", "ang", "exc", "fru")  #: the classes of DialogueRNN-style packs, by their integers
COMMUNITY_ROWS = 7433
COMMUNITY_FILE = "labels_six_community.csv"
ARCHIVES = re.compile(r"IEMOCAP_full_release.*\.(tar\.gz|tgz|zip)", re.IGNORECASE)
SIZE = 20 * 10**9  #: bytes of the release
LABEL = re.compile(r"\[(\d+\.\d+) - (\d+\.\d+)\]\t(Ses\d\d[FM]_\w+_[FM]\w+)\t(\w{3})\t")
TRANSCRIPT = re.compile(r"(Ses\d\d[FM]_\w+_[FM]\w+) \[[\d.]+-[\d.]+\]:(.*)")


def find_root(raw: Path) -> Path:
    """The folder that contains Session1 .. Session5, anywhere below ``raw``.

    Raises:
        Misuse: there is no folder Session*/dialog/EmoEvaluation.
    """
    found = [
        p
        for p in raw.rglob("EmoEvaluation")
        if p.parent.name == "dialog" and p.parents[1].name[:-1] == "Session" and "__MACOSX" not in p.parts
    ]
    if not found:
        raise Misuse(f"no IEMOCAP release (Session1/dialog/EmoEvaluation/*.txt ...) below {raw}")
    return min((p.parents[2] for p in found), key=lambda p: (len(p.parts), p))


def release_lines(root: Path, folder: str) -> Iterator[tuple[str, str, str]]:
    """(session, place for messages, line) of every text file in the given folder of each session's ``dialog``."""
    for path in sorted(root.glob(f"Session[1-5]/dialog/{folder}/*.txt")):
        if path.name.startswith("."):  # the release also holds macOS's ``._*`` files, which are not text
            continue
        content = path.read_bytes()
        utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if utf_16 else "utf-8-sig", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            yield path.parents[2].name.removeprefix("Session"), f"{path}, line {number}", line


def utterances(root: Path, *, partial: bool = False) -> pd.DataFrame:
    """The utterance table, ordered by session, dialogue and start time.

    Args:
        root: Folder that contains Session1 .. Session5.
        partial: Whether to accept a subset of the corpus, with a warning instead of an error.

    Raises:
        Misuse: the counts are not those of the release.
    """
    text: dict[str, str] = {}
    unmatched = 0
    for _, place, line in release_lines(root, "transcriptions"):
        match = TRANSCRIPT.match(line)
        if match:
            if text.setdefault(match[1], match[2].strip()) != match[2].strip():
                raise Misuse(f"{place}: {match[1]} has another transcript before; remove one of the two")
        elif line.startswith("Ses"):
            raise Misuse(f"{place}: {line[:80]!r} is no transcript; expected id [start-end]: text")
        else:
            unmatched += bool(line.strip())
    rows = []
    for session, place, line in release_lines(root, "EmoEvaluation"):
        match = LABEL.match(line)
        if not match:
            if line.startswith("["):  # as all lines of labels and no others
                raise Misuse(f"{place}: {line[:80]!r} is no label; expected [start - end], id and emotion")
            continue
        start, end, utterance, emotion = match.groups()
        if float(end) <= float(start):
            raise Misuse(f"{place}: {utterance} ends at {end} s, but begins at {start} s")
        if utterance[4] != session:
            raise Misuse(f"{place}: {utterance} is not of session {session}; put the file into its session's folder")
        dialogue, number = utterance.rsplit("_", 1)
        rows.append(
            {
                "id": utterance,
                "dialogue": dialogue,
                "speaker": dialogue[:5] + number[0],  # the letter in the dialogue's name is not the speaker
                "session": session,
                "start": float(start),
                "end": float(end),
                "text": text.get(utterance, ""),
                "emotion": emotion,
                "split": "",
                "media": f"Session{session}/sentences/wav/{dialogue}/{utterance}.wav",
            }
        )
    table = pd.DataFrame(rows, columns=[column for column in COLUMNS if column != "turn"])
    repeated = table.loc[table["id"].duplicated(), "id"]
    if len(repeated):
        raise Misuse(
            f"the EmoEvaluation files below {root} hold {len(repeated):,} utterances more than once (first: "
            f"{repeated.iloc[0]}); remove the duplicate files"
        )
    table = table.sort_values(["session", "dialogue", "start", "id"], ignore_index=True)
    table["turn"] = table.groupby("dialogue").cumcount()
    _check(table, root, partial)
    click.echo(
        f"transcripts: {int((table['text'] == '').sum()):,} utterances have none, {unmatched:,} lines belong to no "
        f"utterance, {len(set(text) - set(table['id'])):,} transcripts have no label"
    )
    return table


def _check(table: pd.DataFrame, root: Path, partial: bool) -> None:
    if table.empty:
        raise Misuse(f"the EmoEvaluation files below {root} hold no utterance lines ([start - end] id emotion ...)")
    found = {str(code): int(count) for code, count in table["emotion"].value_counts().items()}
    wrong = [
        f"{found.get(code, 0):,} {code} instead of {COUNTS.get(code, 0):,}"
        for code in {**COUNTS, **found}
        if found.get(code, 0) != COUNTS.get(code, 0)
    ]
    for name, column, expected in (("dialogues", "dialogue", DIALOGUES), ("sessions", "session", SESSIONS)):
        if table[column].nunique() != expected:
            wrong.append(f"{table[column].nunique()} {name} instead of {expected}")
    if wrong:
        problem = f"{root} holds {len(table):,} of IEMOCAP's {sum(COUNTS.values()):,} utterances: {', '.join(wrong)}"
        report_subset(problem, "complete the release, or pass --partial to continue with a subset", partial=partial)


def report_media(table: pd.DataFrame, root: Path) -> None:
    """Print which wav and avi files of the release are missing; a type without any file is not reported."""
    dialogues = table.drop_duplicates("dialogue")
    videos = "Session" + dialogues["session"] + "/dialog/avi/DivX/" + dialogues["dialogue"] + ".avi"
    for what, names, files in (("audio", table["id"], table["media"]), ("video", dialogues["dialogue"], videos)):
        absent = [name for name, file in zip(names, files, strict=True) if not (root / file).is_file()]
        if len(absent) < len(names):
            report_reasons(what, [(name, "the release's file is absent") for name in absent])


def write_community(corpus: Path, table: pd.DataFrame, pack: Path) -> Path:
    """Write the six-class labels of a JSON ``{"dialogues": {name: {"utt": [ids], "label": [integers]}}}``.

    Raises:
        Misuse: the file is unreadable, has an unexpected number of utterances, or an id that the table lacks.
    """
    try:
        dialogues = json.loads(pack.read_text(encoding="utf-8"))["dialogues"].values()
        pairs = [pair for d in dialogues for pair in zip(d["utt"], d["label"], strict=True)]
        name_of = dict(enumerate(COMMUNITY))  # a list would take -1 for the last
        label = {str(utterance): name_of[number] for utterance, number in pairs}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Misuse(f"{pack} is not a file of six-class dialogues: {type(error).__name__}: {error}") from error
    if len(label) != len(pairs):
        raise Misuse(f"{pack} holds {len(pairs) - len(label):,} utterances more than once")
    absent = sorted(set(label) - set(table["id"]))
    if absent:
        raise Misuse(f"{pack} holds {len(absent):,} utterances that the table lacks (first: {absent[0]!r})")
    if len(label) != COMMUNITY_ROWS:
        raise Misuse(f"{pack} holds {len(label):,} utterances; the six-class variant has {COMMUNITY_ROWS:,}")
    return write_labels(corpus, table, label)


def write_labels(corpus: Path, table: pd.DataFrame, label: Mapping[str, str]) -> Path:
    """Write the six-class variant of the DialogueRNN-style packs as ``labels_six_community.csv``; return its path.

    The packs contain 7,433 utterances, the release 7,380. The 53 additional ones have no majority label in the release
    (xxx), but an older labelling, which the packs use, calls them happy. Papers use both variants, so this one has a
    file of its own.
    """
    rows = table.loc[table["id"].isin(list(label)), ["id", "emotion"]]
    labels = rows["id"].map(dict(label))
    in_release = table["emotion"].isin(COMMUNITY).sum()
    differ = pd.Series(rows["emotion"] + " -> " + labels)[rows["emotion"] != labels].value_counts()
    path = corpus / COMMUNITY_FILE
    write_atomic(path, rows.assign(emotion=labels).to_csv(index=False, lineterminator="\n"))
    changes = ", ".join(f"{count} {change}" for change, count in differ.items()) or "none"
    click.echo(f"community labels: {len(rows):,} ({in_release:,} in the release; differing: {changes}) -> {path}")
    return path
