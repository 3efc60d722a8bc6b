"""Records of trials: their form, their checks, and that they have no test."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from test_records import RECORD
from trials_on_paper import changed, outcome, run_of, write_suite

from mer_bench.errors import Misuse
from mer_bench.records import RunRecord, RunSpec, Tuned, change_settings, load_records, write_record
from mer_bench.training.draws import trial
from mer_bench.trials import TrialRecord, load_trials, read_trial, trials_folder, write_trial


@pytest.fixture
def spec(tmp_path: Path) -> RunSpec:
    return trial(write_suite(tmp_path), run_of(), 2)


def test_a_record_is_read_as_it_was_written_and_is_small(tmp_path: Path, spec: RunSpec) -> None:
    record = outcome(spec, 7)
    path = write_trial(record, trials_folder(tmp_path))
    assert read_trial(path) == record
    assert load_trials([tmp_path]) == ([record], [])
    assert path.stat().st_size < 1024
    assert load_records(tmp_path) == ([], [])  # no run


def test_a_record_has_no_field_for_a_test(tmp_path: Path, spec: RunSpec) -> None:
    assert not [item.name for item in fields(TrialRecord) if "test" in item.name]
    with pytest.raises(Misuse, match="rows must be 'train' or 'validation'"):
        write_trial(changed(outcome(spec, 7), rows={"train": 40, "validation": 20, "test": 9}), tmp_path)


def test_what_the_file_leaves_out_is_in_its_identity(tmp_path: Path, spec: RunSpec) -> None:
    """A file of another default would be another trial: its path would not be that of its content."""
    path = write_trial(outcome(spec, 7), tmp_path)
    content = json.loads(path.read_text())
    assert "epochs" not in content["spec"]["training"]
    other = replace(spec, training=replace(spec.training, epochs=31))
    path.rename(path.with_name(f"{other.name}.json"))
    with pytest.raises(Misuse, match="another trial than its path says"):
        read_trial(path.with_name(f"{other.name}.json"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rows": {"train": 40, "validation": 19}}, "does not count the validation rows"),
        ({"rows": {"train": 40}}, "rows does not count train and validation"),
        ({"classes": ("calm", "calm")}, "a class occurs twice"),
        ({"validation_confusion": [[1]]}, "does not have 2 rows and columns"),
        ({"best_epoch": 9}, "are not those of a training"),
    ],
)
def test_a_record_that_contradicts_itself_is_not_written(
    tmp_path: Path, spec: RunSpec, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(Misuse, match=said):
        write_trial(changed(outcome(spec, 7), **changes), tmp_path)


def test_a_record_that_was_changed_is_left_out_in_one_sentence(tmp_path: Path, spec: RunSpec) -> None:
    path = write_trial(outcome(spec, 7), trials_folder(tmp_path))
    path.write_text(path.read_text().replace("[7,3]", "[9,1]"))
    records, (problem,) = load_trials([tmp_path])
    assert not records
    assert "was changed after it was written" in problem
    assert "tune again" in problem


def test_a_run_is_no_trial_and_a_trial_no_run(tmp_path: Path, spec: RunSpec) -> None:
    with pytest.raises(Misuse, match="is not that of a trial"):
        write_trial(outcome(replace(spec, tuned=None), 7), tmp_path)
    tested: RunRecord = replace(RECORD, spec=replace(RECORD.spec, tuned=Tuned(0, "space", {})))
    with pytest.raises(Misuse, match="never tested"):
        write_record(tested, tmp_path)


def test_settings_change_options_and_training_by_their_names_and_back() -> None:
    spec = run_of()
    tuned = Tuned(1, "space", {"hidden": 48, "dropout": None, "learning_rate": 1e-3}, 8)
    other = change_settings(spec, {"hidden": 64, "dropout": 0.2, "learning_rate": 1e-2}, tuned)
    assert (other.options, other.training.learning_rate) == ({"hidden": 64, "dropout": 0.2}, 1e-2)
    assert other.untuned == spec
    assert other.sha256 != spec.sha256
    with pytest.raises(Misuse, match="learning_rate must be"):
        change_settings(spec, {"learning_rate": -1.0}, tuned)


@pytest.mark.parametrize(
    ("tuned", "said"),
    [
        (Tuned(8, "space", {}, 8), "beyond its number of trials"),
        (Tuned(0, "space", {"learning_rate": 0.5}, 8), "trial 0 does not have the settings of the suite"),
        (Tuned(1, "space", {"learning_rate": "fast"}, 8), "learning_rate must be"),
    ],
)
def test_a_tuned_record_whose_description_contradicts_itself_is_refused(
    tmp_path: Path, tuned: Tuned, said: str
) -> None:
    with pytest.raises(Misuse, match=said):
        write_record(replace(RECORD, spec=replace(RECORD.spec, tuned=tuned)), tmp_path)
