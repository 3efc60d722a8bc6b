"""Facts that results depend on, as literals: a change of any of them makes scores incomparable with earlier ones."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from itertools import product

import numpy as np
import pandas as pd
import pytest

from mer_bench.datasets import DATASETS
from mer_bench.datasets.iemocap import validation_dialogues

ACTORS = {  # of each fold of RAVDESS, as in EmoBox
    1: {1, 11, 20, 21},
    2: {4, 10, 12, 14},
    3: {8, 9, 19, 23},
    4: {3, 5, 7, 24},
    5: {2, 15, 16, 18},
    6: {6, 13, 17, 22},
}
CLASSES = {  # in the order of their numbers
    ("ravdess", "eight"): "neutral calm happy sad angry fearful disgust surprised",
    ("ravdess", "four"): "angry happy sad neutral",
    ("meld", "four"): "angry happy sad neutral",
    ("iemocap", "six"): "happy sad neutral angry excited frustrated",
    ("iemocap", "six_community"): "happy sad neutral angry excited frustrated",
    ("iemocap", "four"): "angry happy sad neutral",
    ("meld", "seven"): "neutral surprise fear sadness joy disgust anger",
    ("meld", "sentiment"): "negative neutral positive",
}


@pytest.mark.parametrize("fold", range(1, 7))
@pytest.mark.parametrize("protocol", ["folds6", "fixed"])
def test_actors_of_ravdess_by_fold(protocol: str, fold: int) -> None:
    table = pd.DataFrame({"speaker": [f"{actor:02}" for actor in range(1, 25)]})
    split = DATASETS["ravdess"].split(None, table, protocol, fold)  # type: ignore[arg-type]
    found = {
        part: {int(actor) for actor in table["speaker"][split == part]} for part in ("train", "validation", "test")
    }
    validation = ACTORS[fold % 6 + 1] if protocol == "folds6" else set()
    assert found["test"] == ACTORS[fold]
    assert found["validation"] == validation
    assert found["train"] == set(range(1, 25)) - ACTORS[fold] - validation


def takes() -> pd.DataFrame:
    """The ids of the 1,440 takes, as the release names them, with their actors."""
    rows = [
        (f"01-{emotion:02}-{intensity:02}-{sentence:02}-{repetition:02}-{actor:02}", f"{actor:02}", sentence)
        for actor in range(1, 25)
        for emotion, intensity, sentence, repetition in product(range(1, 9), (1, 2), (1, 2), (1, 2))
        if (emotion, intensity) != (1, 2)
    ]
    return pd.DataFrame(rows, columns=["id", "speaker", "sentence"])


def test_training_and_test_of_ravdess_share_neither_actor_nor_sentence() -> None:
    table, tested = takes(), []
    for fold in range(1, 13):
        split = DATASETS["ravdess"].split(None, table, "folds6_text", fold)  # type: ignore[arg-type]
        train, validation, test = (table[split == part] for part in ("train", "validation", "test"))
        group, spoken = (fold + 1) // 2, 1 if fold % 2 else 2
        assert [len(part) for part in (train, validation, test)] == [480, 120, 120]
        assert set(train["sentence"]) == set(validation["sentence"]) == {spoken}
        assert set(test["sentence"]) == {3 - spoken}
        actors = [set(part["speaker"].astype(int)) for part in (train, validation, test)]
        assert actors[1:] == [ACTORS[group % 6 + 1], ACTORS[group]]
        assert actors[0] == set(range(1, 25)) - actors[1] - actors[2]
        tested += list(test["id"])
    assert sorted(tested) == sorted(table["id"])  # all 1,440, each once
    assert len(tested) == 1440


@pytest.mark.parametrize("name", ["01-01-01-03-01-01", "01-01-01-01", "take1"])
def test_a_take_that_names_no_sentence_is_not_split_by_it(name: str) -> None:
    table = takes().assign(id=lambda each: [name, *each["id"][1:]])
    with pytest.raises(ValueError, match=f"the id '{name}' does not name one of the two sentences"):
        DATASETS["ravdess"].split(None, table, "folds6_text", 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fold", "test"), [(1, range(1, 5)), (2, range(5, 9)), (3, range(9, 13)), (4, range(13, 17)), (5, range(17, 21))]
)
def test_actors_of_ravdess_in_the_protocol_of_the_literature(fold: int, test: range) -> None:
    table = pd.DataFrame({"speaker": [f"{actor:02}" for actor in range(1, 25)]})
    split = DATASETS["ravdess"].split(None, table, "literature", fold)  # type: ignore[arg-type]
    assert set(np.flatnonzero(split == "test") + 1) == set(test)
    assert set(split) == {"train", "test"}


def test_groups_of_iemocap_and_ravdess_and_meld() -> None:
    dialogues = ["Ses01M_impro01", "Ses01F_script01_2", "Ses05M_script03_1"]
    table = pd.DataFrame({"speaker": ["Ses01F", "Ses01M", "Ses05F"], "dialogue": dialogues})
    assert DATASETS["iemocap"].groups(None, table) == {  # type: ignore[arg-type]
        "speaker": ["Ses01F", "Ses01M", "Ses05F"],
        "gender": ["female", "male", "female"],
        "scene": ["improvised", "scripted", "scripted"],
    }
    actors = pd.DataFrame({"speaker": ["01", "02", "24"]})  # RAVDESS numbers men oddly
    assert DATASETS["ravdess"].groups(None, actors)["gender"] == ["male", "female", "female"]  # type: ignore[arg-type]
    friends = pd.DataFrame({"speaker": ["Rachel", "Joey", "Gunther", "Phoebe", "All"]})
    expected = ["female", "male", "other", "female", "other"]
    assert DATASETS["meld"].groups(None, friends) == {"gender": expected}  # type: ignore[arg-type]


def test_validation_dialogues_of_iemocap_are_the_fixed_list() -> None:
    names = validation_dialogues()
    assert [sum(name.startswith(f"Ses0{session}") for name in names) for session in range(1, 6)] == [2, 3, 5, 2, 3]
    content = files("mer_bench.datasets").joinpath("iemocap_validation.txt").read_bytes()
    assert hashlib.sha256(content).hexdigest() == "62f064e600367d204c4d7caa173bbd674ba8416a5b27eff25d50584d51ed5d41"


@pytest.mark.parametrize("fold", range(1, 6))
def test_each_fold_of_iemocap_validates_on_dialogues_of_every_training_session(fold: int) -> None:
    names = validation_dialogues()
    dialogues = [*names, *(f"Ses0{session}F_impro99" for session in range(1, 6))]
    table = pd.DataFrame({"dialogue": dialogues, "session": [name[4] for name in dialogues]})
    split = DATASETS["iemocap"].split(None, table, "loso", fold)  # type: ignore[arg-type]
    sessions = {part: set(table["session"][split == part].astype(int)) for part in ("train", "validation", "test")}
    assert sessions["train"] == sessions["validation"] == set(range(1, 6)) - {fold}
    assert sessions["test"] == {fold}
    assert set(table["dialogue"][split == "validation"]) == {name for name in names if name[4] != str(fold)}


@pytest.mark.parametrize(("corpus", "label_set"), list(CLASSES))
def test_classes_have_these_numbers(corpus: str, label_set: str) -> None:
    classes = dict.fromkeys(DATASETS[corpus].label_sets[label_set].values())
    assert list(classes) == CLASSES[corpus, label_set].split()


def test_every_label_set_and_every_emotion_is_held_by_these_literals() -> None:
    real = {corpus: dataset for corpus, dataset in DATASETS.items() if "simulated" not in corpus}
    assert {(corpus, label_set) for corpus, dataset in real.items() for label_set in dataset.label_sets} == set(CLASSES)
    assert DATASETS["iemocap"].label_sets["six"] == {
        "hap": "happy",
        "sad": "sad",
        "neu": "neutral",
        "ang": "angry",
        "exc": "excited",
        "fru": "frustrated",
    }
    assert DATASETS["iemocap"].label_sets["four"] == {
        "ang": "angry",
        "hap": "happy",
        "exc": "happy",
        "sad": "sad",
        "neu": "neutral",
    }
