"""IEMOCAP (Busso et al. 2008): 5 sessions of two actors, 151 dialogues, 10,039 utterances; licensed by USC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files

import numpy as np
import numpy.typing as npt
import pandas as pd

from mer_bench.datasets.base import EmotionDataModule
from mer_bench.records import Protocol

SIX = {"hap": "happy", "sad": "sad", "neu": "neutral", "ang": "angry", "exc": "excited", "fru": "frustrated"}


class IEMOCAP(EmotionDataModule):
    """Label sets and protocols of IEMOCAP.

    Label sets: ``six`` (7,380 utterances of the release), ``four`` (5,531; excited counts as happy) and
    ``six_community`` (7,433; older labels of the feature packs of DialogueRNN, from a sidecar file).

    Protocols: ``loso`` leaves one session out: fold k tests on session k. ``session5`` is its fifth fold alone, to
    compare with papers: it trains on sessions 1 to 4 and tests on session 5. Both validate on the dialogues of
    ``iemocap_validation.txt`` that are in the training sessions. For ``session5`` these are the twelve validation
    dialogues that are usual in the literature.
    """

    corpus = "iemocap"
    title = "IEMOCAP"
    words = {
        "six": "six emotions",
        "four": "four emotions",
        "six_community": "six emotions of feature packs",
        "loso": "leave one session out",
        "session5": "session 5 as test",
    }
    modalities = ("text", "audio", "vision")
    label_sets = {
        "six": SIX,
        "four": {"ang": "angry", "hap": "happy", "exc": "happy", "sad": "sad", "neu": "neutral"},
        "six_community": SIX,
    }
    sidecars = frozenset({"six_community"})
    protocols = {
        "loso": Protocol(
            5,
            "leave one session out: each session is the test set once; validation is a fixed list of the training "
            "sessions' dialogues.",
        ),
        "session5": Protocol(
            1, "training on sessions 1-4 less a fixed list of dialogues for validation; test on session 5."
        ),
    }
    default_features = {"text": "minilm-tokens", "audio": "gemaps"}
    how_to_get = "ask USC SAIL for the licence (https://sail.usc.edu/iemocap/)"
    raw = "<IEMOCAP_full_release>"
    licence = "by agreement with USC SAIL, for research alone; it is not passed on"

    def split(self, table: pd.DataFrame, protocol: str, fold: int) -> npt.NDArray[np.str_]:
        """Split by session, and by dialogue for validation."""
        session = table["session"].astype(int).to_numpy()
        test = session == (5 if protocol == "session5" else fold)
        validation = table["dialogue"].isin(validation_dialogues()).to_numpy()
        return np.where(test, "test", np.where(validation, "validation", "train"))

    def groups(self, table: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Speakers, their gender, and whether the dialogue was improvised or scripted."""
        return {
            "speaker": list(table["speaker"]),
            "gender": ["female" if name.endswith("F") else "male" for name in table["speaker"]],
            "scene": ["scripted" if "script" in name else "improvised" for name in table["dialogue"]],
        }


def validation_dialogues() -> list[str]:
    """Return the fixed validation dialogues, about a tenth of each session."""
    lines = files("mer_bench.datasets").joinpath("iemocap_validation.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]
