"""What suites need to know of the built-in corpora, available without torch and pandas.

It is read from ``corpora.json`` beside this file. ``make methods`` writes it from the classes in
:mod:`mer_bench.datasets`, and a test compares it with them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from mer_bench.errors import Misuse, unknown
from mer_bench.files import sha256
from mer_bench.modalities import modality_of
from mer_bench.workspace import prepare_command

FILE = Path(__file__).with_name("corpora.json")
SIMULATION = "simulation.json"  #: file of a simulated corpus that holds its configuration


@dataclass(frozen=True)
class CorpusFacts:
    """Facts about one corpus, as its datamodule states them.

    Attributes:
        name: Name of the corpus and of its folder.
        simulated: Whether it is generated on first use.
        modalities: Its modalities.
        label_sets: Names of its label sets.
        protocols: Number of folds of each protocol.
        default_features: The usual feature set of each modality.
        how_to_get: Where it is from.
        raw: What the command that prepares it is given; empty where there is nothing to prepare.
        generated: sha256 of the configuration from which a simulated corpus is generated; empty where it is not known.
        title: Name for readers; empty = ``name``.
        words: Name of a label set or protocol -> what it is in words.
    """

    name: str
    simulated: bool
    modalities: list[str]
    label_sets: list[str]
    protocols: dict[str, int]
    default_features: dict[str, str]
    how_to_get: str
    raw: str
    generated: str = ""
    title: str = ""
    words: Mapping[str, str] = field(default_factory=dict)

    def check_names(self, label_set: str, protocol: str, fold: int) -> None:
        """Raise Misuse if the corpus does not have the label set, the protocol or the fold."""
        if label_set not in self.label_sets:
            raise unknown(f"label set of {self.name}", label_set, self.label_sets)
        if protocol not in self.protocols:
            raise unknown(f"protocol of {self.name}", protocol, self.protocols)
        if not 1 <= fold <= self.protocols[protocol]:
            raise Misuse(f"{self.name} {protocol} has folds 1 to {self.protocols[protocol]}, not {fold}")

    def check_modality(self, name: str, where: str = "") -> None:
        """Raise Misuse, which names ``where`` or else the corpus, if the corpus does not have the modality.

        A number after the name tells several feature sets of a modality apart.
        """
        if modality_of(name) not in self.modalities:
            raise unknown(f"modality {f'in {where}' if where else f'of {self.name}'}", name, self.modalities)

    def how_to_prepare(self) -> str:
        """Where the corpus is from, and the command that prepares it."""
        return f"{self.how_to_get}, then run {prepare_command(self.name, self.raw)}" if self.raw else self.how_to_get

    def is_generated(self, root: Path) -> bool:
        """Whether a simulated corpus is below ``root`` as this version of the package generates it."""
        path = root / self.name / SIMULATION
        return bool(self.generated) and path.is_file() and sha256(path) == self.generated


@cache
def corpus_facts() -> Mapping[str, CorpusFacts]:
    """Facts about every built-in corpus by its name, in the order of ``DATASETS``."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    return {name: CorpusFacts(**facts) for name, facts in content.items()}
