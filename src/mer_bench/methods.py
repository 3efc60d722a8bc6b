"""What each built-in fusion method is, readable without torch: its name, its paper and what it takes.

The facts stand in ``methods.json`` beside this file. ``make methods`` writes it from the classes in
:mod:`mer_bench.fusion`, and a test holds it against them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("methods.json")


@dataclass(frozen=True)
class MethodFacts:
    """One method.

    Attributes:
        title: What its paper calls it, such as ``CFN-SR``.
        track: "utterance", or "dialogue" for a method that reads whole dialogues.
        version: Of its code; records of other versions are not compared with it.
        modalities: How many modalities it takes, and which it cannot do without.
        kind: "baseline", "reimplemented" or "reconstruction" (the paper does not determine the method).
        paper: Address of the paper; empty for a baseline without one.
        idea: One sentence.
        parameters: Trainable parameters with default options on audio of 40 columns, vision of 140, and 8 classes.
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
    """The facts of every built-in method by the name that suites use, in the order of ``METHODS``."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    return {name: MethodFacts(**facts) for name, facts in content.items()}


def title(method: str) -> str:
    """What the paper calls a method; the name itself where the method is not one of ours."""
    facts = method_facts().get(method)
    return facts.title if facts else method
