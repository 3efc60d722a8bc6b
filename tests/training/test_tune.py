"""``mer-bench tune``: trials that never open a test set, what is chosen by them, and the bench of what was chosen."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lab import CORPUS, WIDTHS, write_corpus
from rich.console import Console
from suites import Call, train, work_here

from mer_bench.errors import Misuse
from mer_bench.features import open_features, write_features
from mer_bench.records import RunSpec, load_records
from mer_bench.report.board import read_board
from mer_bench.report.tables import tables
from mer_bench.training import execute as executing
from mer_bench.training import run as running
from mer_bench.training.bench import bench
from mer_bench.training.build import build, build_datamodule
from mer_bench.training.draws import trial
from mer_bench.training.options import BenchOptions, TuneOptions
from mer_bench.training.run import run, run_trial
from mer_bench.training.suite import read_suite, run_from_file, suite_specs
from mer_bench.training.tune import TuneResult, tune
from mer_bench.training.tuned import read_tuned
from mer_bench.trials import TrialRecord, load_trials, read_trial, trials_folder
from mer_bench.utterances import DESCRIPTION, read_table, write_table

SUITE = """
dataset = "lab"
label_set = "three"
protocol = "fixed"
seeds = [0, 1]

[training]
epochs = 2
learning_rate = 5e-3
batch_size = 8

[tune]
trials = 3

[tune.space]
learning_rate = { low = 1e-3, high = 1e-1, log = true }
dropout = { low = 0.0, high = 0.5 }
hidden = [4, 8]

[[table]]
features = { audio = "sound", vision = "faces" }
methods = ["majority", "linear", { name = "early_concat", options = { hidden = 6 } }]
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of corpora with the corpus ``lab``."""
    root = tmp_path_factory.mktemp("tuned")
    write_corpus(root / "lab")
    (root / "lab" / DESCRIPTION).write_text(CORPUS)
    return root


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    work_here(monkeypatch)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "paper.toml").write_text(SUITE)
    return tmp_path / "paper.toml"


def tuned(suite: Path, data: Path, results: Path, **more: Any) -> TuneResult:
    options = TuneOptions(root=data, results=results, logger="none", **more)
    return tune(suite, options, Console(file=io.StringIO()))


def first_trial(suite: Path, data: Path, number: int = 1) -> RunSpec:
    read = read_suite(suite, methods=["early_concat"], root=data)
    return trial(read, suite_specs(read, data)[0], number)


def with_another_test_set(data: Path, into: Path) -> Path:
    """The same corpus with other labels and other features of the test utterances."""
    shutil.copytree(data / "lab", into / "lab", ignore=shutil.ignore_patterns("functionals*", "verified.json"))
    table = read_table(data / "lab")
    test = (table["split"] == "test").to_numpy()
    random = np.random.default_rng(9)
    table.loc[test, "emotion"] = random.permutation(table.loc[test, "emotion"].to_numpy())
    opened = {name: open_features(data / "lab" / name) for name in ("sound", "faces")}
    write_table(into / "lab", table)
    for (name, found), modality in zip(opened.items(), WIDTHS, strict=False):
        parts = [
            np.array(found.values[start:end], np.float32)
            for start, end in zip(found.offsets[:-1], found.offsets[1:], strict=True)
        ]
        parts = [random.normal(5, 9, one.shape).astype(np.float32) if test[at] else one for at, one in enumerate(parts)]
        parts = [one if len(one) else np.zeros((0, 0), np.float32) for one in parts]
        shutil.rmtree(into / "lab" / name)
        write_features(into / "lab" / name, parts, ids=list(table["id"]), modality=modality, extractor="other",
                       revision="1", settings={})  # fmt: skip
    return into


def results_of(records: list[TrialRecord]) -> list[tuple[object, ...]]:
    """All that trials have found, without the identity of the features and the time it took."""
    found = [(r.spec.method, r.spec.tuned, r.rows, r.validation_confusion, r.best_epoch, r.epochs) for r in records]
    return sorted(found, key=repr)


def test_what_the_test_set_holds_changes_neither_trials_nor_choices(suite: Path, data: Path, tmp_path: Path) -> None:
    other = with_another_test_set(data, tmp_path / "other")
    found = tuned(suite, data, tmp_path / "a", budget=2), tuned(suite, other, tmp_path / "b", budget=2)
    (first, _), (second, _) = load_trials([tmp_path / "a"]), load_trials([tmp_path / "b"])
    assert len(first) == 4  # majority has nothing to tune
    assert {r.spec.features_sha256["audio"] for r in first} != {r.spec.features_sha256["audio"] for r in second}
    assert results_of(first) == results_of(second)
    chosen = [[(row.method, row.fold) for row in read_tuned(each.file).row] for each in found]
    assert chosen[0] == chosen[1]
    assert [method for method, _ in chosen[0]] == ["linear", "early_concat"]


def test_a_run_on_the_other_test_set_is_another_one(suite: Path, data: Path, tmp_path: Path) -> None:
    """The corpora of the test above differ in what they test, and in nothing else that a run sees."""
    other = with_another_test_set(data, tmp_path / "other")
    read = read_suite(suite, methods=["early_concat"], root=data)
    one, two = (train(suite_specs(read, root)[0], root) for root in (data, other))
    assert one.tested != two.tested
    assert one.calibration != two.calibration
    assert one.validation_confusion == two.validation_confusion


def test_the_datamodule_of_a_trial_has_no_test_rows_and_no_test_labels(suite: Path, data: Path) -> None:
    spec = first_trial(suite, data)
    datamodule, whole = build_datamodule(spec, data), build_datamodule(spec.untuned, data)
    test = whole.rows["test"]
    assert len(test) == 24
    assert len(datamodule.rows["test"]) == 0
    assert (datamodule.labels[test] == -1).all()
    assert set(datamodule.table["emotion"].iloc[test]) == {""}
    for split in ("train", "validation"):
        assert np.array_equal(datamodule.rows[split], whole.rows[split])  # type: ignore[index]
    with pytest.raises(RuntimeError, match="the test set is closed"):
        datamodule.test_dataloader()
    with pytest.raises(RuntimeError, match="closed test set"):
        datamodule.collate([test[:2]])


def test_no_batch_of_a_trial_holds_a_test_utterance(suite: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datamodule, method = build(first_trial(suite, data), data)
    gathered: set[int] = set()
    original = type(datamodule).collate

    def noted(self: Any, groups: Any) -> Any:
        gathered.update(int(row) for group in groups for row in group)
        return original(self, groups)

    monkeypatch.setattr(running, "build", lambda spec, root: (datamodule, method))
    monkeypatch.setattr(type(datamodule), "collate", noted)
    run_trial(first_trial(suite, data), data, logger="none")
    assert gathered == set(range(48))  # 36 of training and 12 of validation


def test_trial_0_scores_on_validation_what_the_run_scores(suite: Path, data: Path) -> None:
    spec = first_trial(suite, data, 0)
    record, run_record = run_trial(spec, data, logger="none"), train(spec.untuned, data)
    assert record.validation_confusion == run_record.validation_confusion
    assert (record.best_epoch, record.parameters) == (run_record.best_epoch, run_record.parameters)


def test_a_trial_is_never_run_as_a_run(suite: Path, data: Path, tmp_path: Path) -> None:
    result = tuned(suite, data, tmp_path / "r", methods=("linear",))
    path = result.trials[0].path(trials_folder(tmp_path / "r"))
    with pytest.raises(Misuse, match="a trial of a tuning, which is never tested"):
        run_from_file(path, data)
    with pytest.raises(Misuse, match="never tested"):
        run(read_trial(path).spec, data, logger="none")
    with pytest.raises(Misuse, match="is not a trial"):
        run_trial(read_trial(path).spec.untuned, data, logger="none")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the trials that are made from now on."""
    numbers: list[int] = []
    original = executing.execute_trial

    def noted(spec: RunSpec, *given: Any) -> TrialRecord:
        assert spec.tuned is not None
        numbers.append(spec.tuned.trial)
        return original(spec, *given)

    monkeypatch.setattr(executing, "execute_trial", noted)
    return numbers


def test_a_tuning_that_was_interrupted_goes_on_and_a_larger_budget_keeps_the_trials(
    suite: Path, data: Path, tmp_path: Path, made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = executing.execute_trial

    def interrupted(spec: RunSpec, *given: Any) -> TrialRecord:
        if len(made) == 1:
            raise KeyboardInterrupt
        return original(spec, *given)

    with monkeypatch.context() as patch:
        patch.setattr(executing, "execute_trial", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tuned(suite, data, tmp_path / "r", methods=("linear",), budget=2)
    assert made == [0]
    result = tuned(suite, data, tmp_path / "r", methods=("linear",), budget=2)
    assert made == [0, 1]
    assert result.open == 1  # early_concat
    text = result.file.read_bytes()
    whole = tuned(suite, data, tmp_path / "whole", methods=("linear",), budget=2)
    assert whole.file.read_bytes() == text
    made.clear()
    tuned(suite, data, tmp_path / "r", methods=("linear",), budget=3)
    assert made == [2]
    assert read_tuned(result.file).trials == 3


def test_a_trial_that_fails_is_noted_and_left_out_and_tried_again(
    suite: Path, data: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = executing.execute_trial
    failing = {0, 1, 2}

    def failed(spec: RunSpec, *given: Any) -> TrialRecord:
        assert spec.tuned is not None
        if spec.tuned.trial in failing:
            raise ValueError("no luck")
        return original(spec, *given)

    monkeypatch.setattr(executing, "execute_trial", failed)
    words = ["tune", suite, "--data", data, "--results", tmp_path / "r", "--logger", "none", "--methods", "linear"]
    answer = call(*words)
    assert answer.code == 1
    assert "every trial of linear, fold 1, failed: it keeps the settings of the suite" in answer.err
    failing -= {0, 2}
    answer = call(*words)
    assert answer.code == 0
    assert "trial 1 of linear, fold 1, failed: fold 1 chose without it" in answer.err
    (row,) = read_tuned(tmp_path / "r" / "tuned" / "paper.toml").row
    assert row.fold[0].failed == [1]
    assert row.fold[0].trial in (0, 2)


def test_default_and_tuned_are_two_rows_of_one_table(suite: Path, data: Path, tmp_path: Path) -> None:
    results = tmp_path / "r"
    tuned(suite, data, results, methods=("linear",))
    options = BenchOptions(root=data, results=results, logger="none", methods=("linear",))
    found = bench(suite, options, Console(file=io.StringIO()))
    assert [(spec.seed, spec.tuned is not None) for spec in found.specs] == [
        (0, False),
        (0, True),
        (1, False),
        (1, True),
    ]
    records, problems = load_records(results)
    assert not problems
    (table,) = tables(records)
    assert {row.label: row.complete for row in table.rows} == {"linear °": 2, "linear (tuned in 3 trials) °": 2}
    assert [(row.label, default and default.label) for row, default in table.tuned.items()] == [
        ("linear (tuned in 3 trials) °", "linear °")
    ]
    board = read_board(results)
    assert any("## Tuning\n" in each.rest for each in board.sections)
    assert board == read_board(results)  # from the cache
    again = bench(suite, replace(options, rows="tuned"), Console(file=io.StringIO()))
    assert [spec.tuned is not None for spec in again.specs] == [True, True]
    own = bench(suite, replace(options, rows="default"), Console(file=io.StringIO()))
    assert not any(spec.tuned for spec in own.specs)


def test_stale_choices_are_said_and_left_out(suite: Path, data: Path, tmp_path: Path) -> None:
    results, output = tmp_path / "r", io.StringIO()
    tuned(suite, data, results, methods=("linear",))
    suite.write_text(SUITE.replace("high = 1e-1", "high = 2e-1"))
    options = BenchOptions(root=data, results=results, logger="none", seeds=(0,), methods=("linear",))
    found = bench(suite, options, Console(file=output, width=300))
    assert "is stale for linear: it was tuned from another space" in output.getvalue()
    assert [spec.tuned for spec in found.specs] == [None]


def test_a_suite_without_a_space_and_one_that_was_not_tuned_are_named(suite: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=r"paper.toml has nothing of these methods and folds to tune"):
        tuned(suite, data, tmp_path / "r", methods=("majority",))
    with pytest.raises(Misuse, match=r"has no tuned rows for .*: mer-bench tune .*paper.toml makes the choice"):
        bench(suite, BenchOptions(root=data, results=tmp_path / "r", logger="none", rows="tuned"))
    suite.write_text(SUITE[: SUITE.index("[tune]")] + SUITE[SUITE.index("[[table]]") :])
    with pytest.raises(Misuse, match=r"paper.toml has no table \[tune\]"):
        tuned(suite, data, tmp_path / "r")
