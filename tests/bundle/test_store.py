"""What a run keeps: the weights that were tested, whole or not at all, and a card that says what they are."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from lab import spec_for
from rich.console import Console
from suites import Call, Workspace, execute_and_write, perform, train, write_suite

from mer_bench.bundle import store
from mer_bench.bundle.facts import CARD, FILE, WEIGHTS, facts_of, read_facts
from mer_bench.bundle.model import Bundle
from mer_bench.bundle.predict import predict_table
from mer_bench.errors import Misuse
from mer_bench.files import sha256
from mer_bench.records import bundle_path, load_records, read_record
from mer_bench.training.bench import bench
from mer_bench.training.checks import before_training
from mer_bench.training.execute import missing
from mer_bench.training.options import BenchOptions, RunSettings
from mer_bench.training.suite import read_suite


@pytest.mark.parametrize("method", ["early_concat", "bc_lstm", "majority"])
def test_the_kept_model_predicts_what_the_record_says_and_the_run_is_the_same_without(
    records: dict[str, Path], loaded: dict[str, Bundle], data: Path, method: str
) -> None:
    record = read_record(records[method])
    frame = predict_table(loaded[method], data / "lab", "test")
    assert frame["prediction"].tolist() == [record.classes[each] for each in record.test_predictions]
    again = train(spec_for(data, method), data)
    measured = {"seconds": record.seconds, "peak_memory_mib": record.peak_memory_mib}
    assert replace(again, **measured) == record


def test_the_weights_are_those_of_the_chosen_epoch_and_not_of_the_last(data: Path, tmp_path: Path) -> None:
    """The first epoch is made the best one: a step of this size throws the weights off."""
    spec = spec_for(data, "early_concat", training={"epochs": 3, "learning_rate": 0.5, "warmup": 0.9})
    record = train(spec, data, bundle=tmp_path / "three")
    assert record.best_epoch < 2
    short = spec_for(data, "early_concat", training={"epochs": 3, "learning_rate": 0.5, "warmup": 0.9, "patience": 1})
    stopped = train(short, data, bundle=tmp_path / "stopped")
    assert (stopped.best_epoch, len(stopped.curve)) == (record.best_epoch, record.best_epoch + 2)
    files = [safetensors.torch.load_file(tmp_path / name / WEIGHTS) for name in ("three", "stopped")]
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0] | files[1])


def test_a_bundle_is_described_by_its_record_and_feature_sets(records: dict[str, Path], data: Path) -> None:
    record, folder = read_record(records["early_concat"]), bundle_path(records["early_concat"])
    facts = read_facts(folder)
    assert {path.name for path in folder.iterdir()} == {FILE, WEIGHTS, CARD}
    assert facts.spec == record.spec
    assert facts.classes == ("happy", "sad", "angry")
    assert facts.features["eeg"].settings == {"rate": 16, "source": "files 0"}
    assert facts.weights_sha256 == sha256(folder / WEIGHTS)
    assert facts == facts_of(record, facts.features, facts.licence, facts.weights_sha256)
    score = facts.scores["weighted_f1"]
    assert score.low <= score.value <= score.high
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    assert {name for name in tensors if name.startswith(("mean.", "scale."))} == {
        f"{part}.functionals.{name}" for part in ("mean", "scale") for name in ("audio", "vision", "eeg")
    }


def test_bundles_do_not_disturb_the_records_beside_them(records: dict[str, Path]) -> None:
    found, problems = load_records(records["majority"].parents[2])
    assert (len(found), problems) == (3, [])


def test_the_card_says_what_the_model_is_and_escapes_what_files_say(records: dict[str, Path]) -> None:
    text = (bundle_path(records["early_concat"]) / CARD).read_text(encoding="utf-8")
    assert "The corpus: CC &lt;b>BY&lt;/b> \\[4.0\\](http://x) | \\*see\\* \\`there\\`" in text
    assert "| Weighted F1 " in text
    assert "made-vision" in text
    assert "hiring" in text
    assert "trained on 36 utterances, its epoch chosen on 12, tested on 24" in text
    assert "simulated" not in text


def test_a_model_that_cannot_be_written_whole_leaves_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "card", no_space)
    settings = RunSettings(data, tmp_path, "none", save_model=True)
    with pytest.raises(Misuse, match=r"cannot write .*\.bundle: No space left on device"):
        execute_and_write(spec_for(data, "majority"), settings)
    assert [path for path in tmp_path.rglob("*") if not path.is_dir() or path.name.endswith(".bundle")] == []


def test_a_strategy_that_shards_and_a_cluster_keep_no_model_and_say_so(data: Path, tmp_path: Path) -> None:
    spec, settings = spec_for(data, "majority"), RunSettings(data, tmp_path, "none", save_model=True)
    with pytest.raises(Misuse, match="strategy 'fsdp' shards them"):
        before_training([replace(spec, strategy="fsdp", devices=2)], settings, elsewhere=False)
    with pytest.raises(Misuse, match="mer-bench export"):
        before_training([spec], settings, elsewhere=True)


def test_the_options_declare_it_once_and_the_identity_of_a_run_does_not_know_it() -> None:
    assert all("save_model" in {item.name for item in fields(kind)} for kind in (RunSettings, BenchOptions))
    assert not RunSettings().save_model


@pytest.mark.usefixtures("_workers_are_this_process")
def test_a_bench_makes_again_what_has_a_record_and_no_model(data: Path, tmp_path: Path) -> None:
    specs = [spec_for(data, "majority")]
    settings = RunSettings(data, tmp_path, "none")
    failed, said = perform(specs, settings)
    path = specs[0].path(tmp_path)
    assert (failed, path.is_file(), bundle_path(path).exists()) == ([], True, False)
    assert missing(specs, tmp_path) == []
    assert missing(specs, tmp_path, save_model=True) == specs
    failed, said = perform(specs, replace(settings, save_model=True))
    assert "1 to do, 1 of them to save the model" in said
    assert (failed, bundle_path(path).is_dir()) == ([], True)
    assert "0 to do" in perform(specs, replace(settings, save_model=True))[1]


@pytest.mark.usefixtures("_workers_are_this_process")
def test_a_suite_can_say_that_models_are_kept(data: Path, tmp_path: Path) -> None:
    suite = data / "lab" / "suite.toml"
    suite.write_text(
        'dataset = "lab"\nlabel_set = "three"\nprotocol = "fixed"\nseeds = [0]\nsave_models = true\n'
        '[training]\nepochs = 1\n[[table]]\nfeatures = { audio = "sound" }\nmethods = ["majority"]\n'
    )
    options = BenchOptions(data, tmp_path / "results", "none")
    result = bench(suite, options, Console(quiet=True))
    assert result.failed == []
    assert bundle_path(result.specs[0].path(tmp_path / "results")).is_dir()
    plain = write_suite(tmp_path / "plain.toml")
    assert (read_suite(suite, root=data).save_models, read_suite(plain).save_models) == (True, False)


def test_speed_alone_is_measured_without_training_only_where_the_model_is_there(data: Path, tmp_path: Path) -> None:
    spec, settings = spec_for(data, "majority"), RunSettings(data, tmp_path, "none")
    path = execute_and_write(spec, settings)
    execute_and_write(spec, replace(settings, measures=("efficiency",), save_model=True))
    assert bundle_path(path).is_dir()
    assert read_record(path).efficiency is not None


def test_the_command_keeps_a_model_beside_the_record(call: Call, data: Path, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "none.toml", data, tmp_path / "results")
    answer = call("run", "--dataset", "lab", "--method", "majority", *workspace.options, "--save-model")
    assert answer.code == 0, answer.err
    facts = json.loads((bundle_path(Path(answer.out.strip())) / FILE).read_text())
    assert facts["spec"]["method"] == "majority"
