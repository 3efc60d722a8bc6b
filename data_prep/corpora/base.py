"""What the readers of all corpora share: clips, searching for files, and reports about what is missing."""

from __future__ import annotations

import codecs
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from mer_bench.errors import Misuse

#: names of each split of a table in releases, packs and folders, in lower case
SPLIT_NAMES = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "dev", "devel", "development"),
    "test": ("test", "testing", "tst"),
}
QUOTES = "‘’“”–—…"  #: what English transcripts contain besides ASCII; its bytes differ between the encodings
#: encodings that are told apart by their quotation marks, the usual one first
ENCODINGS = ("cp1252", "gbk", "mac_roman")
ICONV = {"utf-16": "UTF-16", "gbk": "GBK", "mac_roman": "MACINTOSH"}  #: their names in the command iconv


class Unreadable(Exception):
    """One utterance cannot be decoded; the message is the reason shown to the user."""


@dataclass(frozen=True)
class Clip:
    """The part of a media file, or the transcript, from which an extractor computes one utterance's features."""

    id: str
    path: Path | None = None  #: media file; None if the utterance has none
    text: str = ""
    start: float = 0.0  #: seconds within ``path``
    end: float | None = None  #: seconds within ``path``; None for the end of the file
    half: str = ""  #: "left" or "right" if the speaker fills only that half of the picture

    @property
    def media(self) -> Path:
        """The media file.

        Raises:
            Unreadable: the utterance has no media file, or the file does not exist.
        """
        if self.path is None:
            raise Unreadable("there is no file for it")
        if not self.path.is_file():
            raise Unreadable("the file is absent")
        return self.path


def shallowest_first(raw: Path, pattern: str) -> list[Path]:
    """The paths below ``raw`` that match a glob pattern, those with the fewest parent folders first."""
    return sorted(raw.rglob(pattern), key=lambda path: (len(path.parts), path))


def find_npz(paths: Iterable[Path], arrays: set[str]) -> Path | None:
    """The first of the npz files that holds all ``arrays``; prints which files cannot be read and are skipped."""
    for path in paths:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                if arrays <= set(archive.files):
                    return path
        except Exception as error:  # a file that is damaged or of another kind can raise errors of many types
            click.echo(f"{path} is skipped: {' '.join(str(error).split())}", err=True)
    return None


def decode_bytes(content: bytes) -> str:
    """Decode the bytes of a text file as UTF-8, or as Latin-1 if they are not valid UTF-8.

    Raises:
        ValueError: they are text in UTF-16, GBK or Mac Roman, which Latin-1 would turn into other characters.
    """
    found = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else ""
    try:
        if not found:
            return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        marks = {name: sum(map(content.decode(name, "replace").count, QUOTES)) for name in ENCODINGS}
        found = max(ENCODINGS, key=marks.__getitem__)  # the first of equals
    if found == ENCODINGS[0]:
        return content.decode("latin-1")
    raise ValueError(f"its encoding is {found} and not UTF-8; convert it: iconv -f {ICONV[found]} -t UTF-8")


def split_of(name: object) -> str:
    """The split of the table (``train``, ``validation`` or ``test``) that a source calls ``name``; "" if it is none."""
    plain = str(name).strip().lower()
    return next((split for split, names in SPLIT_NAMES.items() if plain in names), "")


def check_offsets(offsets: npt.NDArray[Any], rows: int, frames: int) -> list[int]:
    """The offsets [rows + 1] of ``rows`` sequences that are stored one after the other in ``frames`` frames.

    Raises:
        ValueError: they are not whole numbers, do not begin with 0, fall, or do not end with ``frames``.
    """
    if offsets.ndim != 1 or offsets.dtype.kind not in "iuf":
        raise ValueError(f"its offsets have the shape {offsets.shape} and the type {offsets.dtype}, not whole numbers")
    if len(offsets) != rows + 1:
        raise ValueError(f"it has {len(offsets):,} offsets for {rows:,} utterances; there must be one more than those")
    if not np.isfinite(offsets).all() or (offsets != np.rint(offsets)).any():
        raise ValueError("its offsets are not whole numbers")
    values = [int(value) for value in offsets.tolist()]
    if values[0] != 0:
        raise ValueError(f"its offsets begin with {values[0]:,} instead of 0")
    fall = next((i for i in range(rows) if values[i + 1] < values[i]), None)
    if fall is not None:
        raise ValueError(f"its offsets fall from {values[fall]:,} to {values[fall + 1]:,} at utterance {fall}")
    if values[-1] != frames:
        raise ValueError(f"its offsets end with {values[-1]:,}, but it has {frames:,} frames")
    return values


def fingerprint(paths: Iterable[Path], root: Path) -> str:
    """Sixteen hexadecimal digits that change when a file is added, removed, moved below ``root`` or resized."""
    lines = (f"{p.relative_to(root).as_posix()} {p.stat().st_size}\n" for p in sorted(paths) if p.is_file())
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def report_reasons(
    name: str,
    reasons: Sequence[tuple[str, str]],
    shown: int = 5,
    *,
    what: str = "missing for",
    unit: str = "utterances",
) -> None:
    """Print each reason with the number of utterances it applies to and the first ``shown`` of their ids.

    Args:
        name: Feature set or kind of file that the reasons are about.
        reasons: Pairs of utterance id and reason.
        shown: Number of ids to print per reason.
        what: Words before the number of utterances.
        unit: What the reasons are about, if not utterances.
    """
    for reason, count in Counter(reason for _, reason in reasons).most_common():
        ids = [i for i, r in reasons if r == reason]
        more = ", ..." if count > shown else ""
        click.echo(f"{name}: {what} {count:,} {unit}: {reason} ({', '.join(ids[:shown])}{more})", err=True)


def report_subset(problem: str, remedy: str, *, partial: bool) -> None:
    """Stop because a corpus is not complete, or only print a warning if ``partial`` is set.

    Raises:
        Misuse: ``partial`` is not set.
    """
    if not partial:
        raise Misuse(f"{problem}; {remedy}")
    click.echo(f"WARNING: {problem}; scores on a subset cannot be compared with other results", err=True)
