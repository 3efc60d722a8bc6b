"""The one exception that a user's mistake raises, and the sentence that names the nearest valid choice."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Misuse(Exception):
    """A user's mistake: its message is one clear sentence; the command line prints it and exits with 2."""


def unknown(kind: str, name: str, choices: Iterable[str]) -> Misuse:
    """The error for a name that is not among ``choices``, with the nearest one if any is near."""
    valid = list(choices)
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return Misuse(f"unknown {kind} {name!r}: {hint}valid are {', '.join(valid) or 'none'}")
