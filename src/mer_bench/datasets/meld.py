"""MELD (Poria et al. 2019): 13,708 utterances of the series Friends with the official splits; speakers overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from mer_bench.datasets.base import EmotionDataModule
from mer_bench.records import Protocol

EMOTIONS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
FEMALE, MALE = ("Rachel", "Monica", "Phoebe"), ("Ross", "Joey", "Chandler")  #: of the six leading characters


class MELD(EmotionDataModule):
    """Label sets and the protocol of MELD.

    Label sets: ``seven`` emotions, the ``four`` that other corpora have as well (joy counts as happy), or three classes
    of ``sentiment``, which the emotion does not determine.

    Protocol: the ``official`` train, validation and test splits.
    """

    corpus = "meld"
    title = "MELD"
    words = {"seven": "seven emotions", "four": "four emotions", "sentiment": "sentiment", "official": "official split"}
    modalities = ("text", "audio", "vision")
    label_sets = {
        "seven": {emotion: emotion for emotion in EMOTIONS},
        "four": {"anger": "angry", "joy": "happy", "sadness": "sad", "neutral": "neutral"},
        "sentiment": {sentiment: sentiment for sentiment in ("negative", "neutral", "positive")},
    }
    sidecars = frozenset({"sentiment"})
    protocols = {
        "official": Protocol(1, "the corpus's own train, validation and test split; speakers occur in several of them.")
    }
    default_features = {"text": "minilm-tokens"}
    how_to_get = "download MELD.Raw (https://affective-meld.github.io)"
    raw = "<MELD.Raw>"
    licence = "GPL-3.0, for research; its clips are from the series Friends, whose rights others hold"

    def groups(self, table: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Gender of the six leading characters; "other" is everybody else, of whom the release does not say it."""
        gender = {**dict.fromkeys(FEMALE, "female"), **dict.fromkeys(MALE, "male")}
        return {"gender": [gender.get(name, "other") for name in table["speaker"]]}
