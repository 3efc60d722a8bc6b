"""A corpus described by ``corpus.toml`` beside its ``utterances.csv``, without any Python; see docs/your_corpus.md."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from msgspec import Meta

from mer_bench.datasets.base import SPLITS, EmotionDataModule
from mer_bench.errors import Misuse
from mer_bench.files import read_toml
from mer_bench.records import SIMULATED, Protocol
from mer_bench.schema import Label, Name, Positive, ShareBelowOne, Text, check_name, decode
from mer_bench.utterances import DESCRIPTION, read_table

Column = Literal["dialogue", "speaker", "session", "split"]
MODALITY = r"\A[A-Za-z]([A-Za-z0-9_-]{0,30}[A-Za-z_-])?\Z"  #: a number at the end tells sets of a modality apart
Modality = Annotated[str, Meta(pattern=MODALITY)]


@dataclass(frozen=True)
class Splits:
    """How a protocol splits the utterances: by the values of a column, or into folds of whole groups."""

    text: Text = ""  #: what is trained, validated and tested on, in one sentence
    split: Column | None = None  #: column whose values are train, validation, test, or empty for none
    folds: Column | None = None  #: column whose groups are tested in turn
    number: Positive | None = None  #: of folds, to which the groups are dealt in turn; None = a fold per group
    validation: ShareBelowOne = 0.0  #: share of the training groups that validates
    validate: Column | None = None  #: column of those groups; None = the column ``folds``


@dataclass(frozen=True)
class Description:
    """The content of ``corpus.toml``."""

    modalities: Annotated[list[Modality], Meta(min_length=1)]
    #: label set -> emotion in the table -> class, or a list of emotions that are the classes
    label_sets: Annotated[Mapping[Name, Mapping[Text, Label] | list[Label]], Meta(min_length=1)]
    protocols: Annotated[Mapping[Name, Splits], Meta(min_length=1)]
    features: Mapping[Modality, Name] = field(default_factory=dict)  #: usual feature set of each modality
    cluster: Column = "dialogue"  #: column whose groups statistics resample as a whole
    groups: list[Column] = field(default_factory=list)  #: columns whose groups are scored by themselves
    licence: Text = ""
    how_to_get: Text = "its folder has no utterance table; see docs/your_corpus.md"


class TableCorpus(EmotionDataModule):
    """A corpus whose facts stand in a file; :func:`read_corpus` makes a subclass for each."""

    splits: ClassVar[Mapping[str, Splits]]
    grouped_by: ClassVar[Sequence[Column]]

    def groups(self, table: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """The groups of the columns that the description lists."""
        return {column: list(table[column]) for column in self.grouped_by}

    def split(self, table: pd.DataFrame, protocol: str, fold: int) -> npt.NDArray[np.str_]:
        """Split by the values of a column, or by groups."""
        rule, where = self.splits[protocol], f"{self.folder / DESCRIPTION}, protocol {protocol}"
        if rule.folds is None:
            assert rule.split is not None
            found = table[rule.split].to_numpy(dtype=np.str_)
            for value in sorted(set(table[rule.split]) - {*SPLITS, ""}):
                raise Misuse(f"{where}: the column {rule.split!r} holds {value!r}; it may hold {', '.join(SPLITS)}")
            return found
        number = rule.number or len(_groups(table[rule.folds]))
        test = table[rule.folds].isin(_groups(table[rule.folds])[fold - 1 :: number]).to_numpy()
        column = table[rule.validate or rule.folds]
        training = sorted(_groups(column[~test]), key=lambda name: hashlib.sha256(name.encode()).digest())
        chosen = training[: math.ceil(rule.validation * len(training))]
        return np.where(test, "test", np.where(column.isin(chosen), "validation", "train"))


def _groups(column: pd.Series[str]) -> list[str]:
    """The groups of a column: numbers by their value, then names."""
    return sorted(set(column), key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


def read_corpus(folder: Path) -> type[TableCorpus]:
    """The datamodule of the corpus in ``folder``, whose name is that of the folder.

    Raises:
        Misuse: ``corpus.toml`` cannot be read or says what cannot be, or the corpus has no utterance table.
    """
    name, where = check_name(folder.name, "corpus"), str(folder / DESCRIPTION)
    if name.startswith(SIMULATED):
        raise Misuse(f"{where}: the names of simulated corpora alone begin with {SIMULATED}; name the folder otherwise")
    said = decode(read_toml(folder / DESCRIPTION, "corpus"), Description, where)
    for modality in said.features:
        if modality not in said.modalities:
            raise Misuse(f"{where}: features names the modality {modality!r}, which modalities does not list")
    table = read_table(folder)
    protocols = {}
    for protocol, rule in said.protocols.items():
        if (rule.split is None) == (rule.folds is None):
            raise Misuse(f"{where}: protocol {protocol} needs either split or folds, the name of a column")
        folds = 1 if rule.folds is None else len(_groups(table[rule.folds]))
        if rule.folds is not None and not 2 <= (rule.number or folds) <= folds:
            raise Misuse(f"{where}: protocol {protocol} needs 2 to {folds} folds, as {rule.folds} has {folds} groups")
        text = rule.text or _text(rule)
        protocols[protocol] = Protocol(rule.number or folds, text, f"{said.cluster}s")
    label_sets = {
        label_set: dict(classes) if isinstance(classes, Mapping) else dict(zip(classes, classes, strict=True))
        for label_set, classes in said.label_sets.items()
    }
    for label_set, mapping in label_sets.items():
        if len(set(mapping.values())) < 2:
            raise Misuse(f"{where}: label set {label_set} has fewer than two classes")
    facts = {
        "corpus": name,
        "modalities": tuple(said.modalities),
        "label_sets": label_sets,
        "protocols": protocols,
        "splits": dict(said.protocols),
        "cluster": said.cluster,
        "grouped_by": sorted(set(said.groups), key=said.groups.index),
        "default_features": dict(said.features),
        "licence": said.licence,
        "how_to_get": said.how_to_get,
        "__module__": __name__,
    }
    return type(name, (TableCorpus,), facts)


def _text(rule: Splits) -> str:
    """The sentence of a protocol that has none of its own."""
    if rule.folds is None:
        return f"the corpus's own training, validation and test split (column {rule.split})."
    count = f"{rule.number} folds of whole groups" if rule.number else "one fold per group"
    share = f"validation on a share of {rule.validation:g} of the training groups by {rule.validate or rule.folds}"
    validated = share if rule.validation else "no validation, so that the last epoch is scored"
    return f"{count} by {rule.folds}; each is tested once and the others train; {validated}."
