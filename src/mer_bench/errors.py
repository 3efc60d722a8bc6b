"""Exceptions that the command line shows as one sentence, and the message for an unknown name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

#: Characters that no line of text holds: control characters, line separators, marks that reorder text, and halves of
#: surrogate pairs. A class of a regular expression.
CONTROL = r"\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff"


class Misuse(Exception):
    """A mistake of the user. The message is one clear sentence; the command line prints it and exits with code 2."""


class FailedRun(Exception):
    """A run without a valid result, such as a training that diverged; the command line exits with code 1."""


def unknown(kind: str, name: str, choices: Iterable[str]) -> Misuse:
    """Return the error for a name that is not among ``choices``; the message suggests a similar one if there is any."""
    valid = list(choices)
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return Misuse(f"unknown {kind} {name!r}: {hint}valid are {', '.join(valid) or 'none'}")


def printable(text: str) -> str:
    """The text with its control characters, except line breaks, as escapes, so that it cannot steer a terminal."""
    return re.sub(rf"(?!\n)[{CONTROL}]", lambda found: found[0].encode("unicode_escape").decode(), text)
