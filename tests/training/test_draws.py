"""What a trial tries: a function of its number, from the part of the space that its method has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from trials_on_paper import SUITE, run_of, write_suite

from mer_bench.errors import Misuse
from mer_bench.records import RunSpec
from mer_bench.suites import Suite
from mer_bench.training.draws import check_space, draw, space_id, space_of, trial
from mer_bench.training.suite import read_suite


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return write_suite(tmp_path)


def settings(spec: RunSpec) -> dict[str, object]:
    assert spec.tuned is not None
    return {name: spec.options.get(name, getattr(spec.training, name, None)) for name in spec.tuned.default}


def test_a_trial_is_a_function_of_its_number(suite: Suite) -> None:
    """Golden: another draw would leave every trial that was made without its record."""
    assert [settings(trial(suite, run_of(), number)) for number in range(4)] == GOLDEN


GOLDEN = [
    {"dropout": None, "hidden": 48, "learning_rate": 0.001, "weight_decay": 0.01},
    {"dropout": 0.0771, "hidden": 128, "learning_rate": 0.000122, "weight_decay": 0.853},
    {"dropout": 0.00547, "hidden": 64, "learning_rate": 0.0022, "weight_decay": 0.391},
    {"dropout": 0.434, "hidden": 64, "learning_rate": 0.000398, "weight_decay": 0.93},
]


def test_trial_0_is_the_suite_and_others_change_nothing_but_the_space(suite: Suite) -> None:
    run = run_of()
    first, third = trial(suite, run, 0), trial(suite, run, 3)
    assert replace(first, tuned=None) == run
    assert first.is_trial
    assert third.untuned == run
    assert third.options.keys() == {"hidden", "dropout"}
    assert trial(suite, run, 3, 8).is_trial is False
    assert trial(suite, run, 3, 8).untuned == run


def test_each_method_draws_what_it_has(suite: Suite) -> None:
    drawn = {method: set(space_of(suite, run_of(method))) for method in ("majority", "linear", "bc_lstm", "mult")}
    shared = {"learning_rate", "weight_decay"}
    assert drawn == {
        "majority": set(), "linear": shared, "bc_lstm": shared | {"hidden", "layers", "dropout"},
        "mult": shared | {"layers"},
    }  # fmt: skip
    assert {settings(trial(suite, run_of("bc_lstm"), number))["hidden"] for number in range(1, 9)} == {50, 100}


def test_folds_and_seeds_try_the_same_and_rows_do_not(suite: Suite, tmp_path: Path) -> None:
    usual = settings(trial(suite, run_of(), 2))
    assert settings(trial(suite, run_of(fold=5, seed=4), 2)) == usual
    other = replace(run_of(), features={"audio": "mfcc"}, features_sha256={"audio": "a" * 64})
    assert settings(trial(suite, other, 2)) != usual
    renamed = replace(suite, file=tmp_path / "other.toml")
    assert settings(trial(renamed, run_of(), 2)) != usual


def test_the_identity_of_a_space_changes_with_the_space_and_with_what_it_starts_from(suite: Suite) -> None:
    assert suite.tune is not None
    wider = replace(suite, tune=replace(suite.tune, space={**suite.tune.space, "hidden": [32, 64]}))
    more = replace(suite, tune=replace(suite.tune, trials=16))
    longer = replace(run_of(), training=replace(run_of().training, epochs=31))
    usual = space_id(suite, run_of())
    assert space_id(more, run_of()) == usual  # more trials keep the first ones
    assert space_id(suite, run_of(fold=2, seed=9)) == usual
    assert usual not in {space_id(wider, run_of()), space_id(suite, longer)}


def test_draws_are_spread_evenly_and_stay_in_their_range(suite: Suite) -> None:
    space = space_of(suite, run_of("bc_lstm"))
    usual = {"learning_rate": 1e-3, "weight_decay": 0.01, "dropout": 0.1, "layers": 2, "hidden": 100}
    drawn = [draw(space, usual, "a row", number) for number in range(1, 65)]
    rates = np.array([one["learning_rate"] for one in drawn])
    assert rates.min() >= 1e-4
    assert rates.max() <= 1e-2
    shares = np.sort(np.log(rates / 1e-4) / np.log(100))
    # the largest distance from an even spread, which exceeds 0.16 in one of twenty random draws of this length
    assert np.abs(shares - (np.arange(64) + 0.5) / 64).max() < 0.05
    assert {one["layers"] for one in drawn} == {1, 2, 3, 4}
    assert all(type(one["layers"]) is int for one in drawn)
    assert all(0 <= one["dropout"] <= 0.5 and type(one["dropout"]) is float for one in drawn)
    counts = np.unique([one["hidden"] for one in drawn], return_counts=True)[1]
    assert counts.min() >= 28


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("weight_decay =", "wieght_decay =", "unknown setting in .tune. .*wieght_decay.*weight_decay"),
        ("bc_lstm = {", "bc_lsmt = {", "unknown method in .tune. .*bc_lsmt.*bc_lstm"),
        ("hidden = [50, 100]", "heads = [2]", "unknown setting in .tune. .*heads"),
        ("low = 1e-4", "low = 0", "learning_rate needs 0 < low < high"),
        ("low = 0, high = 0.5", "low = 0.5, high = 0.5", "dropout needs low < high"),
        ("[32, 64, 128]", "[32, 32]", "hidden needs a list of different values"),
        ("[32, 64, 128]", "[]", "hidden needs a list of different values"),
        ("trials = 4", "trails = 4", "trails"),
        ("log = true", "log = true, step = 2", "step"),
    ],
)
def test_a_space_that_is_wrong_is_refused_in_one_sentence(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in SUITE
    (tmp_path / "paper.toml").write_text(SUITE.replace(old, new), encoding="utf-8")
    with pytest.raises(Misuse, match=f"(?s){said}"):
        read_suite(tmp_path / "paper.toml")


def test_a_name_of_a_training_option_and_of_a_method_is_refused(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    from mer_bench.methods import method_facts
    from mer_bench.training import draws

    facts = replace(method_facts()["linear"], options={"weight_decay": 0.1})
    monkeypatch.setattr(draws, "find_facts", lambda name: facts if name == "linear" else method_facts()[name])
    with pytest.raises(Misuse, match="weight_decay is a training option and an option of linear"):
        check_space(suite)
