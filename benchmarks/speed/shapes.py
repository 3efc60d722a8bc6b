"""The shapes of data that methods are timed on, and random corpora of these shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from mer_bench.datasets import DATASETS
from mer_bench.datasets.base import EmotionDataModule
from mer_bench.features import read_spec, write_features
from mer_bench.fusion import METHODS
from mer_bench.modalities import MODALITIES
from mer_bench.records import Protocol, RunSpec, Training
from mer_bench.utterances import COLUMNS, write_table

CLASSES = ("happy", "sad", "neutral", "angry", "excited", "frustrated")
#: mean, standard deviation and maximum of the number of turns in a dialogue of IEMOCAP
TURNS = (48.4, 17.0, 110)


@dataclass(frozen=True)
class Shape:
    """Size of the training data."""

    dialogues: int
    utterances: int  #: in all dialogues together
    sizes: Mapping[str, tuple[int, int]]  #: modality -> frames of an utterance, width of a frame

    def scaled(self, scale: float) -> Shape:
        """Return the shape with ``scale`` times as many dialogues and utterances."""
        dialogues, utterances = (max(1, round(scale * count)) for count in (self.dialogues, self.utterances))
        return replace(self, dialogues=dialogues, utterances=utterances)


@dataclass(frozen=True)
class Case:
    """A method and a shape, with the options that give the model the size it has in the public code, or its paper."""

    method: str
    shape: Shape
    batch_size: int
    options: Mapping[str, Any] = field(default_factory=dict)


def _dialogues(**widths: int) -> Shape:
    return Shape(120, 5810, {name: (1, width) for name, width in widths.items()})


TOKENS = Shape(2717, 2717, {"text": (20, 300), "audio": (20, 74), "vision": (20, 35)})
CASES: tuple[Case, ...] = (
    Case("mmgcn", _dialogues(text=100, audio=1582, vision=342), 16, {"layers": 64}),
    Case("m3net", _dialogues(text=1024, audio=1582, vision=342), 16),
    Case("sdt", _dialogues(text=1024, audio=1582, vision=342), 16),
    Case("dialogue_gcn", _dialogues(text=100), 32, {"rnn": "lstm", "hidden": 124}),
    Case("tensor_fusion", TOKENS, 32, {"hidden": 51}),
    Case("low_rank", TOKENS, 32, {"rank": 4, "hidden": 79}),
    Case("mult", TOKENS, 32, {"dim": 50, "heads": 10, "layers": 4, "kernel": 5}),
    Case("misa", TOKENS, 32),
    Case("ef_lstm", TOKENS, 32),
)


class RandomCorpus(EmotionDataModule):
    """A corpus of random features and labels."""

    corpus = "speed"
    simulated = True
    modalities = MODALITIES
    label_sets: ClassVar[Mapping[str, Mapping[str, str]]] = {"six": {name: name for name in CLASSES}}
    protocols: ClassVar[Mapping[str, Protocol]] = {"split": Protocol(1, "the splits of the table")}
    default_features: ClassVar[Mapping[str, str]] = {}
    how_to_get = "benchmarks/speed writes it"


DATASETS[RandomCorpus.corpus] = RandomCorpus


def lengths(dialogues: int, utterances: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw the number of turns of each dialogue, distributed as in IEMOCAP."""
    if dialogues == utterances:
        return np.ones(dialogues, np.int64)
    mean, deviation, longest = (utterances / dialogues / TURNS[0] * value for value in TURNS)
    turns = rng.normal(mean, deviation, dialogues).clip(2, longest).astype(np.int64)
    for i in rng.integers(dialogues, size=abs(utterances - turns.sum())):
        turns[i] = max(1, turns[i] + np.sign(utterances - turns.sum()))
    return turns


def write_corpus(root: Path, shape: Shape, *, signal: float = 0.0) -> None:
    """Write training data of ``shape``, and a tenth as much for each of validation and test.

    ``signal`` is the deviation of a column's mean between classes, relative to that of its values within a class.
    """
    rng = np.random.default_rng(0)
    rows = []
    for split, share in (("train", 1.0), ("validation", 0.1), ("test", 0.1)):
        part = shape.scaled(share)
        for number, turns in enumerate(lengths(part.dialogues, part.utterances, rng)):
            for turn in range(turns):
                cell = dict.fromkeys(COLUMNS, "")
                cell |= {"dialogue": f"{split}{number}", "turn": turn, "split": split, "start": np.nan, "end": np.nan}
                cell |= {"speaker": rng.choice(["F", "M"]), "emotion": rng.choice(CLASSES)}
                rows.append(cell | {"id": f"{split}{number}-{turn}"})
    table = pd.DataFrame(rows)
    folder = root / RandomCorpus.corpus
    folder.mkdir(parents=True)
    write_table(folder, table)
    for modality, (frames, width) in shape.sizes.items():
        means = signal * np.random.default_rng(1).standard_normal((len(CLASSES), width), np.float32)
        class_means = dict(zip(CLASSES, means, strict=True))
        drawn = (rng.standard_normal((frames, width), np.float32) + class_means[row["emotion"]] for row in rows)
        write_features(folder / modality, drawn, ids=table["id"].tolist(), modality=modality, extractor="noise")


def spec(case: Case, root: Path, *, epochs: int) -> RunSpec:
    """Return the run of a case on the corpus in ``root``."""
    names = {name: name for name in case.shape.sizes}
    return RunSpec(
        dataset=RandomCorpus.corpus,
        label_set="six",
        protocol="split",
        fold=1,
        features=names,
        features_sha256={name: read_spec(root / RandomCorpus.corpus / name).sha256 for name in names},
        method=case.method,
        version=METHODS[case.method].version,
        options=case.options,
        training=Training(epochs=epochs, batch_size=case.batch_size),
        seed=0,
    )
