"""Labels and splits without features: what another toolkit is given is what runs train and test on."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from suites import RAVDESS, Call

from mer_bench.datasets import DATASETS
from mer_bench.datasets.splits import read_splits
from mer_bench.errors import Misuse


def test_the_csv_has_the_splits_and_labels_of_every_fold(root: Path) -> None:
    lines = list(csv.DictReader(io.StringIO(read_splits(root, RAVDESS, "eight", "folds6").to_csv())))
    assert list(lines[0]) == ["fold", "id", "dialogue", "speaker", "label", "split"]
    for fold in range(1, 7):
        module = DATASETS[RAVDESS](root, label_set="eight", protocol="folds6", fold=fold)
        of_fold = {line["id"]: line for line in lines if line["fold"] == str(fold)}
        assert list(of_fold) == list(module.table["id"])  # each once, in table order
        for split, rows in module.rows.items():
            for row in rows:
                line = of_fold[module.table["id"][row]]
                assert (line["split"], line["label"]) == (split, module.classes[module.labels[row]])
                assert line["speaker"] == module.table["speaker"][row]


def test_what_the_label_set_leaves_out_is_not_in_it(tmp_path: Path) -> None:
    corpus = read_splits(tmp_path, "simulated-iemocap", "four", "session5")
    lines = list(csv.DictReader(io.StringIO(corpus.to_csv())))
    assert len(lines) == (corpus.labels >= 0).sum() < len(corpus.table)
    assert {line["label"] for line in lines} == {"angry", "happy", "sad", "neutral"}


def test_the_first_label_set_and_protocol_are_the_default_and_unknown_names_are_told(root: Path) -> None:
    corpus = read_splits(root, RAVDESS)
    assert (corpus.label_set, corpus.protocol, corpus.clusters) == ("eight", "folds6", "actors")
    for given, part in (
        (("simulated-ravdes",), "did you mean 'simulated-ravdess'"),
        ((RAVDESS, "eigth"), "did you mean 'eight'"),
        ((RAVDESS, "eight", "fold6"), "did you mean 'folds6'"),
        (("iemocap",), "iemocap is not prepared below"),
    ):
        with pytest.raises(Misuse, match=part):
            read_splits(root, *given)


def test_the_command_writes_a_file_or_prints_the_same_bytes(call: Call, root: Path, tmp_path: Path) -> None:
    line = ["splits", "--dataset", RAVDESS, "--data", root]
    printed = call(*line)
    assert (printed.code, printed.err) == (0, "")
    target = tmp_path / "folder" / "splits.csv"
    assert call(*line, "--csv", target).out == f"{target}\n"
    assert target.read_bytes() == printed.out.encode()
    assert call(*line, "--csv", tmp_path).code == 2
