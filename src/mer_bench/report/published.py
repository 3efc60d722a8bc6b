"""Numbers that papers print, quoted from ``published.toml`` with their source and how far it was checked.

A page beside the leaderboard and the HTML page show them, but never rank them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from mer_bench.files import read_toml

PUBLISHED = """\
Numbers as their authors or others print them, in alphabetical order and **never ranked**: protocols, features and
selection differ from each other and from the tables of this benchmark. Trust: *certain* = read in the source itself;
*high*, *good* = transcribed by others, not read in the source.
"""


@dataclass(frozen=True)
class Published:
    """A published number."""

    method: str
    dataset: str
    protocol: str
    metric: str
    value: Decimal  #: with the digits that are printed
    source: str
    trust: str  #: "certain", "high" or "good"; see :data:`PUBLISHED`
    params: str = "–"
    note: str = ""


def load_published() -> list[Published]:
    """Read the published numbers that come with the package."""
    content = read_toml(Path(__file__).with_name("published.toml"), "file", parse_float=Decimal)
    return [Published(**entry) for entry in content["published"]]


def by_corpus(published: Iterable[Published]) -> dict[str, list[Published]]:
    """The published numbers by corpus, in alphabetical order."""
    found: dict[str, list[Published]] = defaultdict(list)
    for one in sorted(published, key=lambda one: (one.method.lower(), one.protocol, one.metric, one.source, one.value)):
        found[one.dataset].append(one)
    return dict(sorted(found.items()))
