"""Probabilities that a run keeps: they are those behind its predictions, and stay until the run is made anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fake_runs
import numpy as np
import pytest
from fake_runs import spec as fake_spec
from suites import Call, execute_and_write, perform, spec_of, train, write_suite

from mer_bench.calibration import UNIT
from mer_bench.datasets import DATASETS
from mer_bench.errors import Misuse
from mer_bench.metrics import calibration_error, log_losses
from mer_bench.probabilities import probabilities_path, read_probabilities
from mer_bench.records import RunRecord, check_kept, read_record, write_record
from mer_bench.suites import read_suite_file
from mer_bench.training import bench as benches
from mer_bench.training import cluster
from mer_bench.training.execute import missing
from mer_bench.training.options import RunSettings

KEEP = ("probabilities",)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def record(root: Path, results: Path) -> RunRecord:
    return train(spec_of(root), root, keep=results)


def test_what_is_kept_gives_the_predictions_and_the_scores_of_the_record(
    root: Path, results: Path, record: RunRecord
) -> None:
    found = read_probabilities(record, results)  # there before the record is written
    assert found is not None
    assert record.calibration is not None
    assert found.shape == (120, 8)
    assert found.astype(float).sum(1) == pytest.approx(1, abs=0.005)
    assert np.take_along_axis(found, np.array(record.test_predictions)[:, None], 1)[:, 0].tolist() == (
        found.max(1).tolist()
    )
    labels = DATASETS[record.spec.dataset](root, label_set="eight", protocol="folds6", fold=1).labels
    expected = log_losses(found, labels[record.test_index]).sum()
    assert sum(record.calibration.log_loss) / UNIT == pytest.approx(expected, rel=0.001)
    bins = np.array([record.calibration.utterances, record.calibration.correct, record.calibration.confidence])
    assert bins[2].sum() == pytest.approx(found.max(1).astype(float).sum(), rel=0.001)
    assert 0 < calibration_error(bins) < 1


def test_keeping_changes_nothing_else_and_the_record_has_its_calibration_anyway(root: Path, record: RunRecord) -> None:
    volatile = {"seconds": 0.0, "peak_memory_mib": 0.0, "probabilities": None}
    plain = train(record.spec, root)
    assert plain.probabilities is None
    assert plain.calibration is not None
    assert replace(plain, **volatile) == replace(record, **volatile)


def test_a_run_is_made_again_until_its_probabilities_are_there_and_keeps_them_then(root: Path, tmp_path: Path) -> None:
    spec, settings = spec_of(root, "majority"), RunSettings(root, tmp_path, "none")
    execute_and_write(spec, settings)
    assert missing([spec], tmp_path) == []
    assert missing([spec], tmp_path, keep=KEEP) == [spec]
    execute_and_write(spec, replace(settings, keep=KEEP))
    assert missing([spec], tmp_path, keep=KEEP) == []
    path = probabilities_path(spec, tmp_path)
    path.unlink()
    assert missing([spec], tmp_path) == []  # a file that is absent is no reason of its own
    assert missing([spec], tmp_path, keep=KEEP) == [spec]
    again = read_record(execute_and_write(spec, settings))  # as its record had them
    assert read_probabilities(again, tmp_path) is not None


def test_speed_alone_is_no_short_way_to_probabilities(root: Path, tmp_path: Path) -> None:
    spec, settings = spec_of(root, "majority"), RunSettings(root, tmp_path, "none")
    execute_and_write(spec, settings)
    found = read_record(execute_and_write(spec, replace(settings, keep=KEEP, measures=("efficiency",))))
    assert found.efficiency is not None
    assert read_probabilities(found, tmp_path) is not None


@pytest.mark.usefixtures("_workers_are_this_process")
def test_a_bench_says_how_many_runs_it_makes_again_to_keep_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benches, "execute_job", fake_runs.execute_job)
    settings = RunSettings(tmp_path, tmp_path / "results", log_folder=tmp_path, keep=KEEP)
    write_record(fake_runs.record(fake_spec("works", 1)), settings.results)
    _, output = perform([fake_spec("works", 1), fake_spec("works", 2)], settings)
    assert "2 runs: 0 recorded, 2 to do, 1 of them to keep probabilities\n" in output
    write_record(fake_runs.record(fake_spec("works", 3)), settings.results)
    _, output = perform([fake_spec("works", 3)], replace(settings, measures=("literature",)))
    assert "1 of them to measure literature and to keep probabilities\n" in output


def test_a_suite_and_an_option_name_what_to_keep(root: Path, tmp_path: Path, call: Call) -> None:
    path = write_suite(tmp_path / "suite.toml", methods='"majority"')
    options = ["--data", root, "--results", tmp_path / "results", "--logger", "none"]
    wrong = call("bench", path, *options, "--keep", "probability")
    assert (wrong.code, wrong.err.strip()) == (
        2,
        "error: unknown file to keep 'probability': did you mean 'probabilities'? valid are probabilities",
    )
    path.write_text('keep = ["probabilities"]\n' + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert read_suite_file(path).keep == KEEP
    with pytest.raises(Misuse, match="unknown file to keep in suite x 'weights'"):
        check_kept(["weights"], " in suite x")


def test_the_run_command_keeps_them(root: Path, tmp_path: Path, call: Call) -> None:
    line = ["--dataset", "simulated-ravdess", "--method", "majority", "--data", root, "--results", tmp_path]
    done = call("run", *line, "--logger", "none", "--keep", "probabilities")
    assert done.code == 0, done.err
    found = read_record(Path(done.out.strip()))
    assert read_probabilities(found, tmp_path) is not None


def test_a_machine_of_a_cluster_sends_them_to_the_caller(root: Path, tmp_path: Path) -> None:
    spec = spec_of(root, "majority")
    settings = RunSettings(root, Path("of the caller"), "none", keep=KEEP)
    record, content = cluster._execute((spec, None), settings, Path.cwd())
    assert isinstance(record, RunRecord)
    assert content is not None
    assert not settings.results.exists()
    path = probabilities_path(spec, tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert read_probabilities(record, tmp_path) is not None
    assert cluster._execute((spec, None), replace(settings, keep=()), Path.cwd())[1] is None
