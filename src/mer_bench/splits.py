"""The labels and splits of a corpus as data, for what needs no features: other toolkits, and scores of their output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mer_bench.errors import Misuse
from mer_bench.records import Protocol

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LabelledSplits:
    """A label set and a protocol of a prepared corpus; :func:`mer_bench.datasets.splits.read_splits` reads them."""

    dataset: str
    label_set: str
    protocol: str
    file: Path  #: the utterance table
    table: pd.DataFrame  #: see :mod:`mer_bench.utterances`
    classes: tuple[str, ...]
    labels: Rows  #: class of each table row; -1 = the label set leaves it out
    cluster: str  #: column whose groups statistics resample as a whole
    clusters: str  #: what these groups are called: "dialogues"
    folds: Mapping[int, Mapping[str, Rows]]  #: fold -> split -> table rows, ascending
    facts: Protocol  #: of the protocol, with the number of all its folds

    def only(self, folds: Sequence[int]) -> LabelledSplits:
        """The same with these folds alone; raises Misuse for one that the protocol does not have."""
        for fold in folds:
            if fold not in self.folds:
                raise Misuse(f"{self.protocol} has the folds {', '.join(map(str, self.folds))}, not {fold}")
        return replace(self, folds={fold: self.folds[fold] for fold in sorted(set(folds))})

    def clusters_of(self, rows: Rows) -> Rows:
        """Number of the group of each of these rows, by first appearance, as records count them."""
        return pd.factorize(self.table[self.cluster].to_numpy()[rows])[0]

    def to_csv(self) -> str:
        """Every utterance of every fold as CSV: fold, id, dialogue, speaker, label and split, in table order.

        Utterances that a fold does not use, or that the label set leaves out, are not in it.
        """
        parts: list[Any] = []
        for fold, splits in self.folds.items():
            split = pd.Series("", index=self.table.index, dtype=object)
            for name, rows in splits.items():
                split.iloc[rows] = name
            used = np.flatnonzero(split != "")
            part = self.table.loc[used, ["id", "dialogue", "speaker"]]
            part = part.assign(label=np.array(self.classes, object)[self.labels[used]], split=split[used])
            parts.append(part.assign(fold=fold)[["fold", "id", "dialogue", "speaker", "label", "split"]])
        return pd.concat(parts).to_csv(index=False, lineterminator="\n")
