"""Facts about the corpora that published numbers depend on, written out here and not taken from the code."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from mer_bench.datasets import DATASETS

#: Records count by number of the class, and GraphSmile knows the sentiment of each by its place.
CLASSES = {
    ("ravdess", "eight"): ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"),
    ("ravdess", "four"): ("angry", "happy", "sad", "neutral"),
    ("meld", "four"): ("angry", "happy", "sad", "neutral"),
    ("iemocap", "six"): ("happy", "sad", "neutral", "angry", "excited", "frustrated"),
    ("iemocap", "six_community"): ("happy", "sad", "neutral", "angry", "excited", "frustrated"),
    ("iemocap", "four"): ("angry", "happy", "sad", "neutral"),
    ("meld", "seven"): ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"),
    ("meld", "sentiment"): ("negative", "neutral", "positive"),
}
#: label set of IEMOCAP, or corpus -> emotion of the release -> class, where the two have other names
RENAMED = {
    "six": {"hap": "happy", "sad": "sad", "neu": "neutral", "ang": "angry", "exc": "excited", "fru": "frustrated"},
    "meld": {"anger": "angry", "joy": "happy", "sadness": "sad", "neutral": "neutral"},
    "four": {"hap": "happy", "exc": "happy", "sad": "sad", "neu": "neutral", "ang": "angry"},
}
STANDS_FOR = ["", "simulated-"]


@pytest.mark.parametrize("prefix", STANDS_FOR)
@pytest.mark.parametrize(("corpus", "label_set"), CLASSES)
def test_classes_are_these_in_this_order(corpus: str, label_set: str, prefix: str) -> None:
    mapping = DATASETS[prefix + corpus].label_sets[label_set]
    classes = CLASSES[corpus, label_set]
    assert tuple(dict.fromkeys(mapping.values())) == classes
    own = RENAMED.get(label_set.removesuffix("_community"), {}) if corpus == "iemocap" else RENAMED.get(corpus, {})
    assert mapping == (own if set(own.values()) == set(classes) else {name: name for name in classes})


@pytest.mark.parametrize("prefix", STANDS_FOR)
def test_each_corpus_has_its_label_sets_protocols_and_modalities(prefix: str) -> None:
    ravdess, iemocap, meld = (DATASETS[prefix + name] for name in ("ravdess", "iemocap", "meld"))
    assert {(name, label_set) for name in ("ravdess", "iemocap", "meld")
            for label_set in DATASETS[prefix + name].label_sets} == set(CLASSES)  # fmt: skip
    facts = [{n: (p.folds, p.clusters) for n, p in c.protocols.items()} for c in (ravdess, iemocap, meld)]
    assert facts == [
        {"folds6": (6, "actors"), "fixed": (6, "actors"), "literature": (5, "actors"), "folds6_text": (12, "actors")},
        {"loso": (5, "dialogues"), "session5": (1, "dialogues")},
        {"official": (1, "dialogues")},
    ]
    # the headlines, which commands take where none is named
    assert [next(iter(c.protocols)) for c in (ravdess, iemocap, meld)] == ["folds6", "loso", "official"]
    assert [next(iter(c.label_sets)) for c in (ravdess, iemocap, meld)] == ["eight", "six", "seven"]
    assert ravdess.modalities == ("audio", "vision")  # all actors say the same two sentences
    assert iemocap.modalities == meld.modalities == ("text", "audio", "vision")
    # these label sets disagree with the emotions of the table, so that they have files of their own
    assert (ravdess.sidecars, iemocap.sidecars, meld.sidecars) == (frozenset(), {"six_community"}, {"sentiment"})
    # utterances of one actor of RAVDESS are not independent; in the other corpora those of a dialogue are not
    assert (ravdess.cluster, iemocap.cluster, meld.cluster) == ("speaker", "dialogue", "dialogue")


def test_features_of_a_prepared_corpus_are_those_that_make_data_extracts() -> None:
    assert DATASETS["ravdess"].default_features == {"audio": "mfcc", "vision": "landmarks"}
    assert DATASETS["iemocap"].default_features == {"text": "minilm-tokens", "audio": "gemaps"}
    assert DATASETS["meld"].default_features == {"text": "minilm-tokens"}


def split(corpus: str, table: pd.DataFrame, protocol: str, fold: int) -> list[str]:
    module: Any = DATASETS[corpus]
    return list(module.split(None, table, protocol, fold))  # reads the table alone


def test_iemocap_is_tested_on_its_fifth_session_or_on_each_in_turn() -> None:
    names = [f"Ses0{session}F_never_listed" for session in range(1, 6)]
    table = pd.DataFrame({"session": ["1", "2", "3", "4", "5"], "dialogue": names})
    assert split("iemocap", table, "session5", 1) == ["train", "train", "train", "train", "test"]
    for fold in range(1, 6):
        found = split("iemocap", table, "loso", fold)
        assert found == ["test" if session == fold else "train" for session in range(1, 6)]


def test_meld_has_the_splits_of_its_release() -> None:
    names = ["test", "train", "validation", "train"]
    assert split("meld", pd.DataFrame({"split": names}), "official", 1) == names
