"""What the readers of all corpora share: clips, searching for files, and reports about what is missing."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import click
import numpy as np

from mer_bench.errors import Misuse


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
    """The first of the npz files that holds all ``arrays``; files that cannot be read are skipped."""
    for path in paths:
        try:
            with np.load(path, allow_pickle=False) as archive:
                if arrays <= set(archive.files):
                    return path
        except (OSError, ValueError, EOFError, BadZipFile):
            continue
    return None


def decode_bytes(content: bytes) -> str:
    """Decode the bytes of a text file as UTF-8, or as Latin-1 if they are not valid UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def fingerprint(paths: Iterable[Path], root: Path) -> str:
    """Sixteen hexadecimal digits that change when a file is added, removed, moved below ``root`` or resized."""
    lines = (f"{p.relative_to(root).as_posix()} {p.stat().st_size}\n" for p in sorted(paths) if p.is_file())
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def report_reasons(name: str, reasons: Sequence[tuple[str, str]], shown: int = 5, *, what: str = "missing for") -> None:
    """Print each reason with the number of utterances it applies to and the first ``shown`` of their ids.

    Args:
        name: Feature set or kind of file that the reasons are about.
        reasons: Pairs of utterance id and reason.
        shown: Number of ids to print per reason.
        what: Words before the number of utterances.
    """
    for reason, count in Counter(reason for _, reason in reasons).most_common():
        ids = [i for i, r in reasons if r == reason]
        more = ", ..." if count > shown else ""
        click.echo(f"{name}: {what} {count:,} utterances: {reason} ({', '.join(ids[:shown])}{more})", err=True)


def report_subset(problem: str, remedy: str, *, partial: bool) -> None:
    """Stop because a corpus is not complete, or only print a warning if ``partial`` is set.

    Raises:
        Misuse: ``partial`` is not set.
    """
    if not partial:
        raise Misuse(f"{problem}; {remedy}")
    click.echo(f"WARNING: {problem}; scores on a subset cannot be compared with other results", err=True)
