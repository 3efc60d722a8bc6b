"""The shorter forms of a record's file: nothing is lost, and what describes no record is refused."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mer_bench.compact import COUNTS, RUNS, compact, expand, single
from mer_bench.errors import Misuse
from mer_bench.records import read_record, rewrite
from mer_bench.schema import canonical_json
from tests import fake_runs

MATRIX = st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=2), min_size=2, max_size=2)


def spelled_out(content: dict[str, Any]) -> Any:
    """The content with its shorter forms replaced by what they stand for."""
    rest, found = expand(json.loads(canonical_json(content)), "a file")
    for array, name in (("index", "test_index"), ("clusters", "test_by_cluster")):
        assert array not in found or found.pop(array).tolist() == found[name]
    assert all(rest[name] == [] for name in found), "what is spelled out is not left for the schema as well"
    return rest | found


def content_of(index: list[int], clusters: list[Any] | None) -> dict[str, Any]:
    return {
        "classes": ["a", "b"],
        "test_index": index,
        "test_by_cluster": clusters,
        "test_predictions": [0] * max(len(index), 1),
    }


@given(st.sets(st.integers(0, 60)), st.lists(MATRIX, max_size=6))
def test_rows_and_matrices_come_back(rows: set[int], clusters: list[Any]) -> None:
    index, clusters = sorted(rows), clusters[: len(rows)]
    content = content_of(index, clusters)
    short = compact(content)
    assert spelled_out(short) == content
    assert isinstance(short["test_index"], dict) == bool(index)
    assert isinstance(short["test_by_cluster"], dict) == bool(clusters and np.any(clusters[-1]))


@given(st.lists(MATRIX, max_size=6))
def test_matrices_of_other_corpora_come_back(clusters: list[Any]) -> None:
    content = {**content_of([1], None), "transfer": {"other": {"protocol": "loso", "by_cluster": clusters}}}
    assert spelled_out(compact(content)) == content


def test_the_forms_are_gaps_with_what_follows_them_and_a_list_for_each_quantity() -> None:
    content = content_of([2, 3, 4, 7], [[[0, 5], [0, 0]], [[0, 0], [1, 2]]])
    content["curve"] = [{"loss": 1.812074899673462, "score": 0.1}, {"loss": 0.25, "score": 0.30000000000000004}]
    short = compact(content)
    assert short["test_index"] == {RUNS: [2, 3, 2, 1]}
    assert short["test_by_cluster"] == {COUNTS: [1, 5, 4, 1, 0, 2]}
    assert short["curve"] == {"loss": [1.8120749, 0.25], "score": [0.1, 0.3]}
    assert spelled_out(short)["curve"] == [{"loss": 1.8120749, "score": 0.1}, {"loss": 0.25, "score": 0.3}]


@pytest.mark.parametrize("index", [[3, 2], [2, 2], [-1, 2]])
def test_what_is_no_ascending_index_is_left_for_the_check_that_refuses_it(index: list[int]) -> None:
    assert compact(content_of(index, None))["test_index"] == index


def test_epochs_of_different_quantities_stay_a_list() -> None:
    for curve in ([{"loss": 1.0}, {"loss": 1.0, "score": 0.5}], [{}], []):
        assert compact({"curve": curve})["curve"] == curve


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_keeps_its_value_in_single_precision(number: float) -> None:
    with np.errstate(over="ignore"):
        assert np.float32(single(number)) == np.float32(number)
    assert np.isfinite(single(number))


ROWS = "test_index does not describe the test utterances"
TRANSFER = "transfer does not describe the utterances of another corpus"
CLUSTERS = "test_by_cluster does not describe the test utterances"


@pytest.mark.parametrize(
    ("name", "stated", "said"),
    [
        ("test_index", {RUNS: [2, 3, 4]}, ROWS),  # no pairs
        ("test_index", {RUNS: [2, 3]}, ROWS),  # of four
        ("test_index", {RUNS: [2, 10**15]}, ROWS),
        ("test_index", {RUNS: [2**53, 4]}, ROWS),  # the last row is beyond what a count may be
        ("test_index", {RUNS: [2, 10**30]}, ROWS),
        ("test_index", {RUNS: [2, 2**63 - 1, 0, 2**63 - 1, 0, 6]}, ROWS),  # their sum is four in 64 bits
        ("test_index", {RUNS: [2**53, 0] * 1024 + [2, 4]}, ROWS),  # the sum of the gaps is two in 64 bits
        ("test_index", {RUNS: [-2, 4]}, ROWS),
        ("test_index", {RUNS: [2.0, 4]}, ROWS),
        ("test_index", {RUNS: [2, True, 0, 3]}, ROWS),
        ("test_index", {RUNS: "2, 4"}, ROWS),
        ("test_index", {RUNS: [2, 4], "more": []}, ROWS),
        ("test_index", {"rows": [2, 4]}, ROWS),
        ("test_index", {}, ROWS),
        ("test_by_cluster", {COUNTS: [10**12, 4]}, CLUSTERS),
        ("test_by_cluster", {COUNTS: [0, 2**53 + 1]}, CLUSTERS),
        ("test_by_cluster", {COUNTS: [0, -4]}, CLUSTERS),
        ("test_by_cluster", {COUNTS: [0, 4.0]}, CLUSTERS),
        ("test_by_cluster", {COUNTS: [16, 4]}, CLUSTERS),  # in the fifth cluster of four utterances
        ("test_by_cluster", {COUNTS: [2**63 - 1, 1, 2**63 - 1, 3]}, CLUSTERS),
        ("test_by_cluster", {RUNS: [0, 4]}, CLUSTERS),
        ("transfer", {"other": {"by_cluster": {COUNTS: [10**12, 4]}}}, TRANSFER),
        ("transfer", {"other": {"by_cluster": {COUNTS: [4, 1]}}}, TRANSFER),  # two clusters with one count
        ("transfer", {"other": {"by_cluster": {COUNTS: [2**63 - 1, 1, 2**63 - 1, 3]}}}, TRANSFER),
        ("transfer", {"other": {"by_cluster": {RUNS: [0, 4]}}}, TRANSFER),
        ("curve", {"loss": [1.0], "score": []}, "curve does not have one number per epoch of each quantity"),
        ("curve", {"loss": 1.0}, "curve does not have one number per epoch of each quantity"),
    ],
)
def test_what_describes_no_record_is_refused_in_one_sentence(name: str, stated: Any, said: str) -> None:
    content = {**content_of([2, 3, 4, 5], [[[4, 0], [0, 0]]]), "curve": [], name: stated}
    with pytest.raises(Misuse, match=f"^a file: {said}$"):
        expand(content, "a file")


@pytest.mark.parametrize(
    ("name", "value"), [("loss", "x"), ("loss", 1e301), ("loss", [0.5]), ("lo\nss", 0.5), ("\ud800", 0.5), ("", None)]
)
def test_a_curve_of_no_numbers_is_refused_as_if_it_were_spelled_out(name: str, value: Any, tmp_path: Path) -> None:
    record = fake_runs.consistent(fake_runs.record(fake_runs.spec("linear")))
    path = record.path(tmp_path)
    path.parent.mkdir(parents=True)
    said = []
    forms: list[Any] = [{name: [0.5, value]}, [{name: 0.5}, {name: value}]]
    for curve in forms:
        path.write_text(json.dumps({**asdict(record), "curve": curve}), encoding="utf-8")
        with pytest.raises(Misuse) as caught:
            read_record(path)
        said.append(str(caught.value))
    assert said[0] == said[1]


@pytest.mark.parametrize("content", [{"test_index": {RUNS: [0, 1]}}, {"test_by_cluster": {COUNTS: [0, 1]}}])
def test_what_lacks_the_parts_that_it_stands_on_is_refused(content: Any) -> None:
    with pytest.raises(Misuse, match="does not describe the test utterances"):
        expand(content, "a file")


@pytest.mark.parametrize("content", [[], 1, None, "text"])
def test_what_is_no_record_at_all_is_left_for_the_schema(content: Any) -> None:
    assert expand(content, "a file") == (content, {})


def test_records_that_spell_everything_out_are_read_and_written_again(tmp_path: Path) -> None:
    record = fake_runs.consistent(fake_runs.record(fake_runs.spec("linear")))
    record = replace(record, curve=[{"train/loss": 0.5}, {"train/loss": 0.25}], seconds=1 / 3)
    path = record.path(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(asdict(record)), encoding="utf-8")
    assert read_record(path) == record
    rewrite(tmp_path)
    written = json.loads(path.read_bytes())
    assert (written["test_index"], written["curve"]) == ({RUNS: [0, 3]}, {"train/loss": [0.5, 0.25]})
    assert read_record(path) == record
