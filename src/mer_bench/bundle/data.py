"""Utterances without labels as batches, standardised with the statistics of a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mer_bench.batch import Batch, Rows, Source
from mer_bench.datasets.base import LIMIT, EmotionDataModule, Statistics
from mer_bench.errors import Misuse, unknown
from mer_bench.features import FeatureSet, FeatureSpec
from mer_bench.functionals import compute_functionals
from mer_bench.utterances import COLUMNS, FILE, check_table


class UnlabelledData(EmotionDataModule):
    """Utterances of any table for ``Trainer.predict``; batches are gathered as those of a corpus are.

    Args:
        table: With the columns of an utterance table; labels are not read.
        features: Modality -> the frames of each row of the table.
        statistics: Of the training rows, see :data:`mer_bench.datasets.base.Statistics`.
        reads: What the model reads: "frames", "functionals" or both.
        context: What a batch consists of: single utterances or whole dialogues.
        rows: Rows of the table to predict, ascending; None = all.
        batch_size: Utterances or dialogues per training batch of the model; evaluation takes four times as many.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        features: Mapping[str, FeatureSet],
        statistics: Statistics,
        *,
        reads: frozenset[str],
        context: Literal["utterance", "dialogue"],
        rows: Rows | None = None,
        batch_size: int = 32,
    ) -> None:
        L.LightningDataModule.__init__(self)  # there is neither a corpus nor a split
        self.table, self.features, self.reads = table, dict(features), reads
        self._frames = {
            name: Source(torch.from_numpy(opened.values), statistics["frames"].get(name))
            for name, opened in features.items()
            if "frames" in reads
        }
        self._functionals = {
            name: Source(torch.from_numpy(compute_functionals(features[name], len(pair[0]))), pair, limit=LIMIT)
            for name, pair in statistics["functionals"].items()
            if "functionals" in reads
        }
        self.context, self.batch_size, self.seed = context, batch_size, 0
        chosen = np.arange(len(table)) if rows is None else rows
        self.rows = {"train": chosen[:0], "validation": chosen[:0], "test": chosen}
        self.labels = np.zeros(len(table), np.int64)
        self._speaker = self._speakers()

    def setup(self, stage: str) -> None:
        """Do nothing: the statistics are those of the model."""

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return batches of every chosen utterance."""
        return self._loader("test")


def packed(spec: FeatureSpec, sequences: list[npt.NDArray[Any] | None]) -> FeatureSet:
    """Arrays [time, dim], or None where an utterance lacks the modality, as an open feature set.

    Raises:
        Misuse: an array has another shape or type than the model reads, or holds values that are not finite.
    """
    parts, dtype = [], np.uint8 if spec.integer else np.float32
    for number, sequence in enumerate(sequences):
        if sequence is None or not np.size(sequence):
            parts.append(np.zeros((0, spec.dim), dtype))
            continue
        array = np.asarray(sequence)
        if array.ndim != 2 or array.shape[1] != spec.dim:
            raise Misuse(f"{spec.modality} of utterance {number} has shape {array.shape}, not [time, {spec.dim}]")
        if not (array.dtype == dtype if spec.integer else array.dtype.kind in "fiu"):
            raise Misuse(f"{spec.modality} of utterance {number} holds {array.dtype}, not {np.dtype(dtype)}")
        if not np.isfinite(array).all():
            raise Misuse(f"{spec.modality} of utterance {number} holds NaN or infinite values")
        parts.append(array.astype(dtype))
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    parts.append(np.zeros((int(offsets[-1] == 0), spec.dim), dtype))  # gathering needs one frame to point to
    return FeatureSet(spec, np.concatenate(parts), offsets)


def read_utterances(folder: Path, context: Literal["utterance", "dialogue"]) -> pd.DataFrame:
    """Read ``folder/utterances.csv``, which needs no labels.

    The column ``id`` is enough for a model of single utterances; one of dialogues needs ``dialogue``, ``turn`` and
    ``speaker`` as well.

    Raises:
        Misuse: the file is absent or unreadable, lacks a column or has an unknown one, or its dialogues are not whole.
    """
    path = folder / FILE
    if not path.is_file():
        raise Misuse(f"there is no utterance table at {path}: --table takes a folder with one, and feature sets beside")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise Misuse(f"{path} is not a readable utterance table: {' '.join(str(error).split())}") from error
    for column in table.columns:
        if column not in COLUMNS:
            raise unknown(f"column in {path}", str(column), COLUMNS)
    needed = ("id", "dialogue", "turn", "speaker") if context == "dialogue" else ("id",)
    for column in needed:
        if column not in table:
            why = "this model reads whole dialogues" if column != "id" else "predictions are named by it"
            raise Misuse(f"{path} lacks the column {column!r}: {why}")
    if not {"dialogue", "turn"} <= set(table):
        table = table.assign(dialogue=table["id"], turn="0")
    table = table.reindex(columns=list(COLUMNS), fill_value="")
    try:
        table["turn"] = table["turn"].astype(int)
    except (ValueError, OverflowError) as error:
        raise Misuse(f"{path}: the column turn holds something that is no whole number: {error}") from error
    check_table(table, str(path))
    return table


def absent(spec: FeatureSpec, rows: int) -> FeatureSet:
    """A modality that no row of the table has."""
    return packed(spec, [None] * rows)


def present(features: Mapping[str, FeatureSet]) -> dict[str, npt.NDArray[np.bool_]]:
    """Modality -> whether each row of the table has it."""
    return {modality: np.diff(opened.offsets) > 0 for modality, opened in features.items()}


def to_numpy(pairs: list[tuple[Tensor, Tensor]], rows: int, classes: int) -> npt.NDArray[np.float64]:
    """What ``predict_step`` gave for all batches, in table order [row, class]; NaN for rows that were not predicted."""
    found = torch.full((rows, classes), torch.nan, dtype=torch.float64)
    for index, probabilities in pairs:
        found[index] = probabilities
    return found.numpy()
