"""The fenced blocks of a page of the documentation, as tests read them."""

from __future__ import annotations

import re
import textwrap
from typing import NamedTuple

FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]*?) -->\n)?^ *```(?P<kind>\w*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL
)
FILE = re.compile(r"# ([\w./-]+\.\w+)\n")  #: first line of a block that is written to the file of that name


class Block(NamedTuple):
    """A fenced block of a page."""

    kind: str
    text: str
    reason: str  #: why it is not run; empty where it is
    line: int


def blocks(text: str) -> list[Block]:
    return [
        Block(
            found["kind"],
            textwrap.dedent(found["text"]),
            found["reason"] or "",
            text[: found.start("text")].count("\n") + 1,
        )
        for found in FENCE.finditer(text)
    ]


def commands(text: str) -> list[str]:
    """The commands of a console block; a backslash at the end of a line continues the command."""
    return re.findall(r"^\$ (.*)$", text.replace("\\\n", " "), flags=re.MULTILINE)
