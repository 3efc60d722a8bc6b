"""Facts about the built-in fusion methods, available without torch: names, papers, modalities and sizes.

They are read from ``methods.json`` beside this file. ``make methods`` writes it from the classes in
:mod:`mer_bench.fusion`, and a test compares it with them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

FILE = Path(__file__).with_name("methods.json")

#: Group of the entry points by which an installed package registers methods: ``name = "module:Class"``.
GROUP = "mer_bench.methods"


@dataclass(frozen=True)
class MethodFacts:
    """Facts about one method.

    Attributes:
        title: Name in its paper, such as ``CFN-SR``.
        track: "utterance", or "dialogue" for a method that reads whole dialogues.
        version: Version of its code; records of other versions are not compared with it.
        modalities: How many modalities it accepts, and which ones it requires.
        kind: "baseline", "reimplemented", "reconstruction" (the paper does not determine the method) or "own" (not
            built in).
        paper: Address of the paper; empty for a baseline without one.
        idea: The title and its idea in one sentence, the first line of its module.
        parameters: Number of trainable parameters with default options for audio of width 40, vision of width 140 and
            8 classes.
    """

    title: str
    track: str
    version: int
    modalities: str
    kind: str
    paper: str
    idea: str
    parameters: int


@cache
def method_facts() -> Mapping[str, MethodFacts]:
    """Facts about every built-in method by its name in suites, in the order of ``METHODS``."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    return {name: MethodFacts(**facts) for name, facts in content.items()}


def registered() -> list[EntryPoint]:
    """The methods of installed packages, without those that take the name of a built-in one; nothing is imported."""
    return [point for point in sorted(entry_points(group=GROUP)) if point.name not in method_facts()]


def is_current(method: str, version: int) -> bool:
    """Whether this is the version of the method's code; true of a method that is not built in."""
    facts = method_facts().get(method)
    return facts is None or facts.version == version


def title(method: str) -> str:
    """Name of a method in its paper; of one that is not built in, the name of its class, or its registered name."""
    facts = method_facts().get(method)
    return facts.title if facts else method.rpartition(":")[2]


def titles(methods: Iterable[str]) -> dict[str, str]:
    """Titles of methods of one page; one that is not built in keeps its full name where another has its title too."""
    found = set(methods) | set(method_facts())
    count = Counter(map(title, found))
    return {name: title(name) if name in method_facts() or count[title(name)] == 1 else name for name in found}
