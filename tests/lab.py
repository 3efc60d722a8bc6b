"""A small corpus of dialogues in three modalities, described by a file, and runs on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mer_bench.features import write_features
from mer_bench.records import RunSpec
from mer_bench.training.suite import one_run
from mer_bench.training.validate import validate
from mer_bench.utterances import write_table

WIDTHS = {"audio": 5, "vision": 3, "eeg": 2}
CORPUS = """
modalities = ["audio", "vision", "eeg"]
features = { audio = "sound", vision = "faces", eeg = "waves" }
licence = "CC <b>BY</b> [4.0](http://x) | *see* `there`"

[label_sets]
three = ["happy", "sad", "angry"]

[protocols.fixed]
split = "split"
"""
UTTERANCES = 72


def write_corpus(folder: Path, seed: int = 0, **columns: Any) -> pd.DataFrame:
    """Write twelve dialogues of six turns; features hold the emotion, and some utterances lack some modality."""
    rows, random = np.arange(UTTERANCES), np.random.default_rng(seed)
    emotion = random.integers(0, 3, UTTERANCES)
    table = pd.DataFrame({"id": [f"u{row}" for row in rows], "dialogue": [f"d{row // 6}" for row in rows],
                          "turn": rows % 6, "speaker": [f"s{row % 2}" for row in rows], "session": "1",
                          "start": np.nan, "end": np.nan, "text": "", "media": "",
                          "emotion": np.array(["happy", "sad", "angry"])[emotion],
                          "split": np.repeat(["train", "validation", "test"], [36, 12, 24])})  # fmt: skip
    write_table(folder, table.assign(**columns))
    for number, (modality, name) in enumerate(zip(WIDTHS, ("sound", "faces", "waves"), strict=True)):
        sequences = [
            (random.standard_normal((1 + row % 4, WIDTHS[modality])) + 0.7 * emotion[row]).astype(np.float32)
            if row % 7 != number + 1
            else np.zeros((0, 0), np.float32)
            for row in rows
        ]
        write_features(folder / name, sequences, ids=list(table["id"]), modality=modality, extractor=f"made-{modality}",
                       revision="1", settings={"rate": 16, "source": f"files {seed}"})  # fmt: skip
    return table


def spec_for(data: Path, method: str, **changes: Any) -> RunSpec:
    options = {} if method == "majority" else {"hidden": 8}
    usual: dict[str, Any] = {"options": options, "training": {"epochs": 6, "learning_rate": 2e-2, "batch_size": 4}}
    spec = one_run(data, "lab", method, **{**usual, **changes})
    validate([spec], data, elsewhere=True)
    return spec
