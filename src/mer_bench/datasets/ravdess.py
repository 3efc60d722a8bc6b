"""RAVDESS (Livingstone & Russo 2018): 24 actors, 1,440 acted takes, 8 emotions, audio and vision; CC BY-NC-SA 4.0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from mer_bench.datasets.base import EmotionDataModule
from mer_bench.records import Protocol

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")

SHARED = ("angry", "happy", "sad", "neutral")  #: classes of the label set ``four``, here and in other corpora

#: The six speaker-independent folds of four actors that EmoBox uses, so that results are comparable.
FOLDS = ((1, 11, 20, 21), (4, 10, 12, 14), (8, 9, 19, 23), (3, 5, 7, 24), (2, 15, 16, 18), (6, 13, 17, 22))


class RAVDESS(EmotionDataModule):
    """Each take is a dialogue of one utterance. Its text says nothing about the emotion, so that it is not a modality.

    Label sets: all ``eight`` emotions, or the ``four`` that other corpora have as well; calm is none of these.

    Protocols: ``folds6`` tests on fold k, validates on fold k + 1 (cyclic) and trains on the other four. ``fixed``
    trains on all five other folds and tests the last epoch. ``literature`` is the protocol of CFN-SR: five folds of
    consecutive actors, with actors 21 to 24 always in training, and no validation. ``folds6_text`` splits actors as
    ``folds6`` does, and sentences as well: fold 2k - 1 trains and validates on the first sentence and tests fold k of
    the actors on the second, fold 2k the other way round. Validation has the sentence of training, because nothing of
    the test sentence may choose the epoch; it measures unseen actors alone.
    """

    corpus = "ravdess"
    title = "RAVDESS"
    words = {
        "eight": "eight emotions",
        "four": "four emotions",
        "folds6": "six folds of actors",
        "fixed": "six folds of actors without validation",
        "literature": "five folds as in CFN-SR's code",
        "folds6_text": "six folds of actors with unseen sentences",
    }
    modalities = ("audio", "vision")
    label_sets = {"eight": {emotion: emotion for emotion in EMOTIONS}, "four": {emotion: emotion for emotion in SHARED}}
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
        "folds6_text": Protocol(
            12,
            "six speaker-independent folds of four actors, each with either of the two sentences; test on one sentence "
            "of fold k, validation on the other one of fold k + 1 (cyclic), training on the other one of the remaining "
            "four, so that test and training share neither actor nor sentence.",
            "actors",
            folds_per_cluster=2,
        ),
    }
    default_features = {"audio": "mfcc", "vision": "landmarks"}
    cluster = "speaker"
    how_to_get = "download the speech archives of Zenodo record 1188976"
    raw = "<folder>"
    licence = "CC BY-NC-SA 4.0: its source is named, it is not used commercially, what is made of it is shared alike"

    def split(self, table: pd.DataFrame, protocol: str, fold: int) -> npt.NDArray[np.str_]:
        """Split by actor, and by sentence where the protocol says so."""
        actor = table["speaker"].astype(int).to_numpy()
        if protocol == "literature":
            return np.where((actor - 1) // 4 == fold - 1, "test", "train")
        group = (fold + 1) // 2 if protocol == "folds6_text" else fold
        split = np.where(np.isin(actor, FOLDS[group - 1]), "test", "train")
        if protocol != "fixed":
            split = np.where(np.isin(actor, FOLDS[group % 6]), "validation", split)
        if protocol == "folds6_text":
            spoken = sentences(table)
            trained = 1 if fold % 2 else 2
            split = np.where((spoken == trained) == (split != "test"), split, "")
        return split

    def groups(self, table: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Actors and their gender: those with odd numbers are men."""
        return {
            "speaker": list(table["speaker"]),
            "gender": ["male" if int(name) % 2 else "female" for name in table["speaker"]],
        }


def sentences(table: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Which of the two sentences each take says, 1 or 2: the fourth number of its id.

    Raises:
        ValueError: an id is not that of a take.
    """
    number = table["id"].str.extract(r"^(?:\d\d-){3}0([12])-\d\d-\d\d$")[0]
    if number.isna().any():
        raise ValueError(f"the id {table['id'][number.isna()].iloc[0]!r} does not name one of the two sentences")
    return np.where(number == "1", 1, 2)
