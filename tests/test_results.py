"""Records as a DataFrame: which columns, of which types, and what is left out."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_runs import consistent, record, spec

import mer_bench
from mer_bench.metrics import SCORES
from mer_bench.records import RunRecord, Training, write_record
from mer_bench.results import COLUMNS


def runs() -> list[RunRecord]:
    first = consistent(record(replace(spec("b", 1), options={"hidden": 8})))
    return [replace(first, encoder_parameters=3), consistent(record(spec("a")))]


def test_a_run_is_a_row_with_the_facts_of_its_record(tmp_path: Path) -> None:
    for each in runs():
        write_record(each, tmp_path)
    other, one = mer_bench.load_results(tmp_path).to_dict("records")  # in the order of their files
    (expected, _) = runs()
    assert (other["method"], one["method"]) == ("a", "b")
    assert (one["dataset"], one["fold"], one["seed"]) == ("simulated-ravdess", 1, 1)
    assert (one["modalities"], one["features"], json.loads(one["options"])) == ("audio", "audio=a", {"hidden": 8})
    assert (one["parameters"], one["fusion_parameters"]) == (10, 7)
    assert {name: one[name] for name in SCORES} == {
        name: float(score(np.array(expected.test_confusion))) for name, score in SCORES.items()
    }
    assert (one["best_epoch"], one["epochs_trained"], one["seconds"]) == (0, 1, 1.0)
    assert {name: one[name] for name in asdict(Training())} == asdict(Training())
    assert (tmp_path / one["file"]).is_file()
    assert pd.isna(other["fusion_parameters"])
    assert pd.isna(other["folds"])
    assert np.isnan(other["validation_weighted_f1"])


def test_every_column_has_its_type_also_without_records_and_is_documented(tmp_path: Path) -> None:
    empty = mer_bench.load_results(tmp_path)
    write_record(runs()[0], tmp_path)
    full = mer_bench.load_results(str(tmp_path))
    assert (len(empty), len(full)) == (0, 1)
    kinds = {name: kind for name, (kind, _) in COLUMNS.items()}
    assert empty.dtypes.astype(str).to_dict() == full.dtypes.astype(str).to_dict() == kinds
    assert {"epochs": "Int64", "learning_rate": "float64", "precision": "string"}.items() <= kinds.items()
    assert {item.name for item in fields(Training)} <= set(kinds)
    named = mer_bench.load_results.__doc__.replace(",", " ").split()
    assert set(kinds) <= set(named)


def test_a_record_that_is_left_out_is_a_warning_at_the_callers_line(tmp_path: Path) -> None:
    kept, broken = (write_record(each, tmp_path) for each in runs())
    broken.write_text("{}", encoding="utf-8")
    with pytest.warns(UserWarning, match="delete the record") as caught:
        found = mer_bench.load_results(tmp_path)
    assert list(found["file"]) == [kept.relative_to(tmp_path).as_posix()]
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.warns(UserWarning, match="delete the record") as caught:
        mer_bench.load_tables(tmp_path)
    assert [warning.filename for warning in caught] == [__file__]


def test_without_a_path_the_records_of_the_working_folder_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(mer_bench.Misuse, match=r"no folder of records at benchmarks.results; without a path"):
        mer_bench.load_results()
    write_record(runs()[0], Path("results"))
    assert list(mer_bench.load_results()["method"]) == ["b"]
    write_record(runs()[1], Path("benchmarks/results"))
    assert list(mer_bench.load_results()["method"]) == ["a"]
    with pytest.raises(mer_bench.Misuse, match=r"no folder of records at nowhere$"):
        mer_bench.load_tables("nowhere")
