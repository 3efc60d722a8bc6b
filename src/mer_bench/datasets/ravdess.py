"""RAVDESS (Livingstone & Russo 2018): 24 actors, 1,440 acted takes, 8 emotions, audio and vision; CC BY-NC-SA 4.0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from mer_bench.datasets.base import EmotionDataModule
from mer_bench.records import Protocol

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")

#: The six speaker-independent folds of four actors that EmoBox uses, so that results are comparable.
FOLDS = ((1, 11, 20, 21), (4, 10, 12, 14), (8, 9, 19, 23), (3, 5, 7, 24), (2, 15, 16, 18), (6, 13, 17, 22))


class RAVDESS(EmotionDataModule):
    """Each take is a dialogue of one utterance. Its text says nothing about the emotion, so that it is not a modality.

    Protocols: ``folds6`` tests on fold k, validates on fold k + 1 (cyclic) and trains on the other four. ``fixed``
    trains on all five other folds and tests the last epoch. ``literature`` is the protocol of CFN-SR: five folds of
    consecutive actors, with actors 21 to 24 always in training, and no validation.
    """

    corpus = "ravdess"
    modalities = ("audio", "vision")
    label_sets = {"eight": {emotion: emotion for emotion in EMOTIONS}}
    protocols = {
        "folds6": Protocol(
            6,
            "six speaker-independent folds of four actors; test on fold k, validation on fold k + 1 (cyclic), training "
            "on the other four.",
            "actors",
        ),
        "fixed": Protocol(
            6,
            "six speaker-independent folds of four actors; test on fold k, training on the other five for a budget "
            "declared beforehand; the last epoch is scored, nothing is selected.",
            "actors",
        ),
        "literature": Protocol(
            5,
            "five contiguous folds of four actors, as CFN-SR's code has them: actors 21-24 are never tested and there "
            "is no validation. Only to compare with papers; optimistic.",
            "actors",
        ),
    }
    default_features = {"audio": "mfcc", "vision": "landmarks"}
    cluster = "speaker"
    how_to_get = "download the speech archives of Zenodo record 1188976"
    raw = "<folder>"
    licence = "CC BY-NC-SA 4.0: its source is named, it is not used commercially, what is made of it is shared alike"

    def split(self, table: pd.DataFrame, protocol: str, fold: int) -> npt.NDArray[np.str_]:
        """Split by actor."""
        actor = table["speaker"].astype(int).to_numpy()
        if protocol == "literature":
            return np.where((actor - 1) // 4 == fold - 1, "test", "train")
        split = np.where(np.isin(actor, FOLDS[fold - 1]), "test", "train")
        if protocol == "folds6":
            split = np.where(np.isin(actor, FOLDS[fold % 6]), "validation", split)
        return split

    def groups(self, table: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Actors and their gender: those with odd numbers are men."""
        return {
            "speaker": list(table["speaker"]),
            "gender": ["male" if int(name) % 2 else "female" for name in table["speaker"]],
        }
