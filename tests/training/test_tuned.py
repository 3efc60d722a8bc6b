"""What folds choose by their trials, and the file that says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from trials_on_paper import SUITE, outcome, run_of, write_suite

from mer_bench.errors import Misuse
from mer_bench.records import RunSpec, write_failure
from mer_bench.suites import Suite
from mer_bench.training.draws import trial
from mer_bench.training.tuned import Choices, choose, read_tuned, tuned_path, tuned_specs, write_text
from mer_bench.trials import trials_folder, write_trial

#: hits of the trials of each fold; with 2 of 10 another class is better than with 0
HITS = {1: [4, 6, 9, 5], 2: [7, 3, 7, 1]}


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return write_suite(tmp_path)


def make(suite: Suite, results: Path, hits: dict[int, list[int | None]], method: str = "early_concat") -> list[RunSpec]:
    """Write the trials of each fold, a failure for None; returns the runs."""
    runs = [run_of(method, fold) for fold in hits]
    for run in runs:
        for number, right in enumerate(hits[run.fold]):
            if right is None:
                write_failure(trial(suite, run, number), trials_folder(results), "no luck")
            else:
                write_trial(outcome(trial(suite, run, number), right), trials_folder(results))
    return runs


def chosen(found: Choices) -> list[int]:
    return [choice.trial for row in found.file.row for choice in row.fold]


def test_each_fold_chooses_by_itself_and_the_lower_of_equal_trials(suite: Suite, tmp_path: Path) -> None:
    found = choose(suite, make(suite, tmp_path, dict(HITS)), 4, tmp_path)
    assert chosen(found) == [2, 0]
    first, second = found.file.row[0].fold
    assert first.score == pytest.approx(outcome(run_of(), 9).score, abs=1e-6)
    assert (first.default, second.settings) == (pytest.approx(outcome(run_of(), 4).score, abs=1e-6), {})
    assert first.settings.keys() == {"dropout", "hidden", "learning_rate", "weight_decay"}
    assert not found.failed
    assert not found.kept


def test_a_smaller_budget_chooses_from_the_first_trials(suite: Suite, tmp_path: Path) -> None:
    runs = make(suite, tmp_path, dict(HITS))
    assert chosen(choose(suite, runs, 2, tmp_path)) == [1, 0]
    assert choose(suite, runs, 5, tmp_path).open == 2  # the fifth was not made


def test_a_failed_trial_leaves_the_choice_to_others(suite: Suite, tmp_path: Path) -> None:
    found = choose(suite, make(suite, tmp_path, {1: [4, None, 9, None], 2: [None, 1, 2, 3]}), 4, tmp_path)
    assert chosen(found) == [2, 3]
    assert [choice.failed for choice in found.file.row[0].fold] == [[1, 3], [0]]
    assert found.file.row[0].fold[1].default is None
    assert [each.tuned.trial for each in found.failed if each.tuned] == [1, 3, 0]


def test_a_run_whose_trials_all_failed_keeps_the_settings_of_the_suite(suite: Suite, tmp_path: Path) -> None:
    runs = make(suite, tmp_path, {1: [None] * 4, 2: [1, 2, 3, 4]})
    found = choose(suite, runs, 4, tmp_path)
    assert chosen(found) == [0, 3]
    assert found.kept == runs[:1]
    path = tmp_path / "tuned.toml"
    path.write_text(write_text(suite, found.file))
    tuned, _ = tuned_specs(suite, runs, path, read_tuned(path))
    assert tuned[runs[0].sha256].options == runs[0].options


def test_equal_choices_are_these_bytes_and_are_read_back(suite: Suite, tmp_path: Path) -> None:
    found = choose(suite, make(suite, tmp_path, dict(HITS)), 4, tmp_path)
    text = write_text(suite, found.file)
    assert text == GOLDEN
    (tmp_path / "tuned.toml").write_text(text)
    assert read_tuned(tmp_path / "tuned.toml") == found.file


GOLDEN = """\
# Settings that mer-bench tune has chosen for the suite paper.toml; generated, edits are lost.
# Each fold chose on its own validation rows, by weighted F1; no trial has opened a test set.
trials = 4  # of each row and fold; trial 0 has the settings of the suite
seed = 3  # of all trials

[[row]]
dataset = "ravdess"
method = "early_concat"
version = 4
options = { hidden = 48 }
features = { audio = "mfcc", vision = "landmarks" }
features_sha256 = { audio = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", vision = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb" }
space = "5fe69e2fcbec"
fold = [
  { fold = 1, trial = 2, score = 0.949875, default = 0.67033, settings = { dropout = 0.00547, hidden = 64, learning_rate = 0.0022, weight_decay = 0.391 } },
  { fold = 2, trial = 0, score = 0.846547, default = 0.846547 },
]
"""  # noqa: E501


def test_runs_of_every_seed_get_the_choice_of_their_fold(suite: Suite, tmp_path: Path) -> None:
    runs = make(suite, tmp_path, dict(HITS))
    file = choose(suite, runs, 4, tmp_path).file
    every = [replace(run, seed=seed) for seed in (3, 4) for run in runs]
    found, stale = tuned_specs(suite, every, Path("t.toml"), file)
    assert not stale
    for run in every:
        tuned = found[run.sha256]
        assert tuned.tuned is not None
        assert (tuned.tuned.trial, tuned.tuned.trials, tuned.seed) == ((2, 0)[run.fold - 1], 4, run.seed)
        assert tuned.untuned == run
    settings = file.row[0].fold[0].settings
    assert found[runs[0].sha256].training.learning_rate == settings["learning_rate"]
    assert found[runs[0].sha256].options == {"hidden": settings["hidden"], "dropout": settings["dropout"]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 5}, "version 4 of the code, which now has version 5"),
        ({"features_sha256": {"audio": "a" * 64, "vision": "c" * 64}}, "other features of these names"),
        ({"training": replace(run_of().training, epochs=31)}, "from other settings of the suite"),
        ({"options": {"hidden": 49}}, "t.toml lacks folds of early_concat"),
        ({"fold": 3}, "t.toml lacks folds of early_concat"),
    ],
)
def test_choices_for_another_run_are_said_to_be_stale(
    suite: Suite, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    runs = make(suite, tmp_path, dict(HITS))
    file = choose(suite, runs, 4, tmp_path).file
    found, (sentence,) = tuned_specs(suite, [replace(runs[0], **change)], Path("t.toml"), file)  # type: ignore[arg-type]
    assert not found
    assert said in sentence
    assert sentence.startswith(("t.toml is stale for early_concat: ", "t.toml lacks"))
    assert "mer-bench tune" in sentence


def test_choices_from_another_space_are_stale(suite: Suite, tmp_path: Path) -> None:
    runs = make(suite, tmp_path, dict(HITS))
    file = choose(suite, runs, 4, tmp_path).file
    other = write_suite(tmp_path, SUITE.replace("[32, 64, 128]", "[32, 64]"))
    found, (sentence,) = tuned_specs(other, runs, Path("t.toml"), file)
    assert not found
    assert "from another space" in sentence


def test_a_file_that_was_edited_is_refused(suite: Suite, tmp_path: Path) -> None:
    runs = make(suite, tmp_path, dict(HITS))
    text = write_text(suite, choose(suite, runs, 4, tmp_path).file)
    path = tmp_path / "tuned.toml"
    settings = read_rate(text)
    path.write_text(text.replace(settings, "learning_rate = 0.5"))
    with pytest.raises(Misuse, match="are not those of trial 2; do not edit the file"):
        tuned_specs(suite, runs, path, read_tuned(path))
    path.write_text(text.replace("trials = 4", "trials = 0"))
    with pytest.raises(Misuse, match="trials must be"):
        read_tuned(path)


def read_rate(text: str) -> str:
    return next(part for part in text.replace("}", ",").split(", ") if part.startswith("learning_rate")).strip()


def test_stand_ins_and_other_folders_have_files_of_their_own(suite: Suite, tmp_path: Path) -> None:
    assert tuned_path(suite, tmp_path / "r") == tmp_path / "r" / "tuned" / "paper.toml"
    assert tuned_path(replace(suite, is_stand_in=True), tmp_path).name == "simulated-paper.toml"
