"""Committed records, scored again from raw labels: those of RAVDESS are in the names of its files, which are known.

``MER_RAW`` names a folder above the releases, so that the labels of IEMOCAP and MELD are read as well.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from rescore import NUMBER, RESULTS, Label, iemocap_labels, meld_labels, ravdess_labels, raw_labels, rescore

from mer_bench.records import RunRecord, read_record


@pytest.fixture(scope="module")
def records() -> list[RunRecord]:
    return [read_record(path) for path in sorted((RESULTS / "ravdess").glob("*/*.json"))]


@pytest.fixture(scope="module")
def labels() -> dict[str, Sequence[Label]]:
    """Those of the official file names: emotions 1 to 8, the first without a strong intensity."""
    parts = product("12345678", "12", "12", "12", range(1, 25))
    names = [f"03-01-0{e}-0{i}-0{s}-0{r}-{actor:02}" for e, i, s, r, actor in parts if (e, i) != ("1", "2")]
    assert len(names) == 1440
    return {"ravdess": ravdess_labels(names)}


def test_twenty_random_records_and_their_rows_have_the_scores_of_the_raw_labels(
    records: list[RunRecord], labels: dict[str, Sequence[Label]]
) -> None:
    done, problems = rescore(records, labels)
    assert problems == []
    assert done["ravdess"] == NUMBER
    assert done["rows"] >= 10


def test_what_differs_from_the_raw_labels_is_found(
    records: list[RunRecord], labels: dict[str, Sequence[Label]]
) -> None:
    record = next(each for each in records if each.spec.protocol == "folds6")
    first = (record.test_predictions[0] + 1) % 8
    wrong = replace(record, test_predictions=[first, *record.test_predictions[1:]])
    assert rescore([wrong], labels)[1] == [f"{record.spec.name}: its confusion matrix is another one"]
    moved = replace(record, test_index=[row + 1 for row in record.test_index])
    assert rescore([moved], labels)[1] == [f"{record.spec.name}: its test rows are not those of the protocol"]
    ravdess = list(labels["ravdess"])
    actor, emotion = ravdess[record.test_index[0]]
    ravdess[record.test_index[0]] = (actor, "calm" if emotion == "sad" else "sad")
    assert len(rescore([record], {"ravdess": ravdess})[1]) == 1


def test_raw_labels_are_read_in_the_order_of_the_tables(tmp_path: Path) -> None:
    folder = tmp_path / "Session3" / "dialog" / "EmoEvaluation"
    folder.mkdir(parents=True)
    lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", "", "C-E1:\tNeutral;\t()"]
    for start, name, emotion in ((9.5, "Ses03F_impro01_M000", "ang"), (10.5, "Ses03F_impro01_F001", "xxx"),
                                 (9.5, "Ses03F_impro01_F000", "exc")):  # fmt: skip
        lines.append(f"[{start:.4f} - 12.0000]\t{name}\t{emotion}\t[2.5, 2.5, 2.5]")
    (folder / "Ses03F_impro01.txt").write_text("\n".join(lines), encoding="utf-8")
    assert iemocap_labels(tmp_path) == [("3", "exc"), ("3", "ang"), ("3", "xxx")]
    for split, rows in {"test": ["10,0,Joy", "9,11,fear", "9,2,anger"], "train": ["0,0,neutral"]}.items():
        text = "\n".join(["Dialogue_ID,Utterance_ID,Emotion", *rows])
        (tmp_path / f"{split}_sent_emo.csv").write_text(text, encoding="utf-8")
    assert meld_labels(tmp_path) == [("train", "neutral"), ("test", "anger"), ("test", "fear"), ("test", "joy")]


@pytest.mark.skipif("MER_RAW" not in os.environ, reason="MER_RAW names no folder above the releases")
def test_twenty_random_records_of_each_corpus_have_the_scores_of_the_release() -> None:
    labels = raw_labels(Path(os.environ["MER_RAW"]))
    assert labels
    for corpus in labels:
        records = [read_record(path) for path in sorted((RESULTS / corpus).glob("*/*.json"))]
        done, problems = rescore(records, labels)
        assert problems == []
        assert done[corpus] == min(NUMBER, len(records))
