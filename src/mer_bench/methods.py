"""Facts about the built-in fusion methods, available without torch: names, papers, modalities and sizes.

They are read from ``methods.json`` beside this file. ``make methods`` writes it from the classes in
:mod:`mer_bench.fusion`, and a test compares it with them.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from mer_bench.modalities import check_modalities

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
            8 classes; 0 where it was not asked.
        needs: The modalities that it requires.
        least: The least number of modalities that it accepts.
        most: The largest number; None = any.
        options: Its options and their defaults, as JSON holds them.
        by_class: Those options whose default depends on the names of the classes.
        file: The file that defines it.
    """

    title: str
    track: str
    version: int
    modalities: str
    kind: str
    paper: str
    idea: str
    parameters: int
    needs: list[str]
    least: int
    most: int | None
    options: dict[str, Any]
    by_class: list[str]
    file: str

    def check_modalities(self, name: str, modalities: Collection[str]) -> None:
        """Raise Misuse unless the method, which messages call ``name``, can work on ``modalities``."""
        check_modalities(name, modalities, self.needs, self.least, math.inf if self.most is None else self.most)


@cache
def method_facts() -> Mapping[str, MethodFacts]:
    """Facts about every built-in method by its name in suites, in the order of ``METHODS``."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    folder = FILE.with_name("fusion")
    return {name: MethodFacts(**facts, file=str(folder / f"{name}.py")) for name, facts in content.items()}


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
