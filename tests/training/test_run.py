"""One run, on small simulated corpora: what its record says, that it repeats, that nothing of the test set leaks."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score

from mer_bench import metrics
from mer_bench.datasets import DATASETS
from mer_bench.datasets.iemocap import SIX, validation_dialogues
from mer_bench.datasets.ravdess import EMOTIONS, FOLDS
from mer_bench.errors import Misuse
from mer_bench.fusion.base import FusionModule
from mer_bench.records import RunRecord, RunSpec, read_record
from mer_bench.training.build import PRECISIONS, TF32, build_datamodule, build_method
from mer_bench.training.cost import flops_per_utterance
from mer_bench.training.options import Hardware
from mer_bench.training.run import run
from mer_bench.training.suite import one_run

RAVDESS = "simulated-ravdess"
AUDIO = {"audio": "simulated-audio"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def spec_of(root: Path, method: str = "unimodal", dataset: str = RAVDESS, **changes: Any) -> RunSpec:
    usual: dict[str, Any] = {
        "features": AUDIO if method == "unimodal" else {},
        "label_set": None,
        "protocol": None,
        "options": {} if method == "majority" else {"hidden": 16},
        "training": {"epochs": 2, "learning_rate": 2e-3},
        "fold": 1,
        "seed": 0,
    }
    return one_run(root, dataset, method, **{**usual, **changes})


def train(spec: RunSpec, root: Path, **rest: Any) -> RunRecord:
    record = run(spec, root, **{"logger": "none", **rest})
    assert record is not None
    return record


@pytest.fixture(scope="module")
def record(root: Path) -> RunRecord:
    return train(spec_of(root, training={"epochs": 3, "learning_rate": 2e-3}), root)


def table_of(root: Path, dataset: str = RAVDESS) -> pd.DataFrame:
    return pd.read_csv(root / dataset / "utterances.csv", dtype=str, keep_default_na=False)


def accuracy(record: RunRecord) -> float:
    matrix = np.array(record.test_confusion)
    return float(np.trace(matrix) / matrix.sum())


# What a record says


def test_a_record_holds_exactly_the_test_rows_in_table_order(root: Path, record: RunRecord) -> None:
    speaker = table_of(root)["speaker"].astype(int)
    assert record.test_index == np.flatnonzero(speaker.isin(FOLDS[0])).tolist()
    assert len(record.test_predictions) == len(record.test_index) == record.rows["test"] == 120
    assert record.rows == {"train": 480, "validation": 120, "test": 120}


def test_the_test_confusion_is_that_of_labels_and_predictions(root: Path, record: RunRecord) -> None:
    labels = table_of(root)["emotion"].map(EMOTIONS.index)[record.test_index]
    expected = confusion_matrix(labels, record.test_predictions, labels=range(8))
    assert record.test_confusion == expected.tolist()
    assert record.classes == EMOTIONS


def test_the_epoch_is_the_one_with_the_best_validation_score(record: RunRecord) -> None:
    scores = [entry["val/weighted_f1"] for entry in record.curve]
    assert len(scores) == 3
    assert len(set(scores)) > 1
    assert record.best_epoch == int(np.argmax(scores))


def test_the_validation_confusion_is_of_the_chosen_epoch(record: RunRecord) -> None:
    matrix = np.array(record.validation_confusion)
    true, predicted = np.indices(matrix.shape)
    score = f1_score(true.ravel(), predicted.ravel(), sample_weight=matrix.ravel(), average="weighted", zero_division=0)
    assert score == pytest.approx(record.curve[record.best_epoch]["val/weighted_f1"])
    assert matrix.sum() == record.rows["validation"]


def test_parameters_and_flops_are_those_of_the_method(root: Path, record: RunRecord) -> None:
    small, large = spec_of(root), spec_of(root, options={"hidden": 32})
    counts, flops = [], []
    for spec in (small, large):
        datamodule = build_datamodule(spec, root)
        datamodule.setup("test")
        method = build_method(spec, datamodule.dims, datamodule.num_classes)
        counts.append(sum(p.numel() for p in method.parameters()))
        flops.append(flops_per_utterance(method, datamodule))
    assert record.parameters == counts[0] < counts[1]
    assert 0 < record.flops_per_utterance == flops[0] < flops[1]


def test_a_record_says_where_its_numbers_come_from(record: RunRecord) -> None:
    assert record.simulated
    assert record.context == "utterance"
    assert record.features["audio"]["extractor"] == "simulation"
    assert record.attainable is not None
    assert record.attainable["utterance"]["audio"]["accuracy"] > 0.4
    assert record.seconds > 0
    assert record.peak_memory_mib is None or record.peak_memory_mib > 10
    assert record.versions["torch"] == torch.__version__


def test_a_run_leaves_the_settings_of_its_process_as_they_were(root: Path, record: RunRecord) -> None:
    def settings() -> tuple[object, ...]:
        deterministic = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
        return torch.get_num_threads(), torch.get_float32_matmul_precision(), deterministic, list(warnings.filters)

    before = settings()
    train(replace(record.spec, training=replace(record.spec.training, epochs=1, precision="tf32")), root)
    assert settings() == before


@pytest.mark.filterwarnings("ignore")  # a processor has no 16-bit floats of its own
def test_every_precision_is_one_that_lightning_takes() -> None:
    assert "32-true" in PRECISIONS
    for precision in PRECISIONS:
        if precision != TF32 and not precision.startswith("transformer-engine"):  # which needs a package of its own
            L.Trainer(accelerator="cpu", precision=precision, logger=False, enable_checkpointing=False)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone is told")
def test_memory_that_tensors_free_is_taken_again_without_asking_the_system() -> None:
    code = """
import resource, sys, torch
from mer_bench.training.execute import prepare_process
if sys.argv[1:]:
    prepare_process()
for _ in range(2):
    torch.ones(1 << 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = [
        int(subprocess.run([sys.executable, "-c", code, *given], check=True, capture_output=True, text=True).stdout)
        for given in ([], ["prepared"])
    ]
    assert 10 * faults[1] < faults[0]


@pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="Linux alone forgets a process's peak")
def test_peak_memory_is_that_of_the_run_not_of_what_its_process_did_before(root: Path) -> None:
    gibibyte = np.ones(2**30, np.uint8)
    held = train(spec_of(root), root).peak_memory_mib
    del gibibyte
    alone = train(spec_of(root), root).peak_memory_mib
    assert held is not None
    assert alone is not None
    assert 10 < alone < held - 900


def test_epochs_are_told_as_they_pass(root: Path) -> None:
    told: list[tuple[int, float | None]] = []
    record = train(spec_of(root), root, notify=lambda epoch, s: told.append((epoch, s.get("val/weighted_f1"))))
    scores = [entry["val/weighted_f1"] for entry in record.curve]
    assert told == [(0, None), (1, scores[0]), (2, scores[1])]


# Kinds of runs


def test_without_training_majority_predicts_the_most_frequent_training_emotion(root: Path) -> None:
    record = train(spec_of(root, "majority", "simulated-iemocap", features={}), root)
    table = table_of(root, "simulated-iemocap")
    training = table[(table["session"] != "5") & ~table["dialogue"].isin(validation_dialogues())]
    most = training["emotion"][training["emotion"].isin(list(SIX))].value_counts().idxmax()
    assert {record.classes[i] for i in record.test_predictions} == {SIX[most]}
    assert record.curve == []
    assert record.parameters == 0
    assert np.sum(record.validation_confusion) == record.rows["validation"] > 0


def test_a_method_with_dialogue_context_scores_every_labelled_utterance_of_the_test_session(root: Path) -> None:
    training = {"epochs": 1, "batch_size": 8}
    record = train(spec_of(root, "bc_lstm", "simulated-iemocap", training=training), root)
    table = table_of(root, "simulated-iemocap")
    labelled = table["emotion"].isin(list(SIX))
    assert record.context == "dialogue"
    assert record.test_index == np.flatnonzero((table["session"] == "5") & labelled).tolist()


class Weights:
    """What the trainable weights were after each epoch's validation, at the end of training and during the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.validated: list[bytes] = []
        self.trained: list[bytes] = []
        self.tested: list[bytes] = []
        for hook, seen in (
            ("on_validation_epoch_end", self.validated),
            ("on_train_epoch_end", self.trained),
            ("on_test_epoch_start", self.tested),
        ):
            self._spy(monkeypatch, hook, seen)

    def _spy(self, monkeypatch: pytest.MonkeyPatch, hook: str, seen: list[bytes]) -> None:
        original: Callable[..., None] = getattr(FusionModule, hook)

        def spied(module: FusionModule) -> None:
            seen.append(b"".join(p.detach().numpy().tobytes() for p in module.parameters()))
            original(module)

        monkeypatch.setattr(FusionModule, hook, spied)


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ((0.2, 0.6, 0.4), 1),
        ((0.5, 0.3, 0.5), 0),  # of equals the first
        ((0.5, 0.3, 0.5 + 1e-12), 0),  # equal in single precision, in which Lightning compares
    ],
)
def test_the_weights_that_are_scored_are_those_of_the_epoch_that_the_record_names(
    root: Path, monkeypatch: pytest.MonkeyPatch, scores: tuple[float, ...], best: int
) -> None:
    sequence: Iterator[float] = iter(scores)
    monkeypatch.setitem(metrics.SCORES, "weighted_f1", lambda matrix: next(sequence))
    weights = Weights(monkeypatch)
    record = train(spec_of(root, training={"epochs": 3}), root)
    assert len(set(weights.validated)) == 3
    assert weights.tested == [weights.validated[best]]
    assert record.best_epoch == best


def test_without_validation_the_last_epoch_is_scored(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = Weights(monkeypatch)
    record = train(spec_of(root, protocol="fixed"), root)
    assert record.rows == {"train": 600, "validation": 0, "test": 120}
    assert record.validation_confusion is None
    assert record.best_epoch == 1
    assert [set(entry) for entry in record.curve] == [{"train/loss"}] * 2
    assert weights.validated == []
    assert weights.trained[0] != weights.trained[1]
    assert weights.tested == [weights.trained[1]]


def test_patience_ends_a_training_that_no_longer_improves(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sequence = iter((0.2, 0.6, 0.5, 0.4, 0.3))
    monkeypatch.setitem(metrics.SCORES, "weighted_f1", lambda matrix: next(sequence))
    record = train(spec_of(root, training={"epochs": 5, "patience": 2}), root)
    assert len(record.curve) == 4
    assert record.best_epoch == 1


# Repeatable


def test_the_same_spec_gives_the_same_record_and_another_seed_another(root: Path, record: RunRecord) -> None:
    torch.manual_seed(99)  # the state that a run finds must not matter
    again = train(record.spec, root)
    volatile = {"seconds": 0.0, "peak_memory_mib": 0.0}
    assert replace(again, **volatile) == replace(record, **volatile)
    other = train(replace(record.spec, seed=1), root)
    assert other.curve != record.curve
    assert other.test_predictions != record.test_predictions


# The test set is read once, after everything is decided


def with_labels(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any, Any], None]) -> None:
    """Let every datamodule that is built from now on change its labels after its rows are known."""
    module = DATASETS[RAVDESS]
    original: Callable[..., Any] = module._rows

    def changed(self: Any, protocol: str, fold: int) -> Any:
        rows = original(self, protocol, fold)
        change(self.labels, rows)
        return rows

    monkeypatch.setattr(module, "_rows", changed)


def test_other_test_labels_change_no_curve_no_choice_and_no_prediction(
    root: Path, record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    def permute(labels: Any, rows: Any) -> None:
        labels[rows["test"]] = np.random.default_rng(0).permutation(labels[rows["test"]])

    with_labels(monkeypatch, permute)
    other = train(record.spec, root)
    assert other.test_confusion != record.test_confusion
    assert other.curve == record.curve
    assert other.best_epoch == record.best_epoch
    assert other.test_predictions == record.test_predictions


def test_other_test_features_change_no_curve_and_no_choice(root: Path, record: RunRecord, tmp_path: Path) -> None:
    shutil.copytree(root / RAVDESS, tmp_path / RAVDESS)
    folder = tmp_path / RAVDESS / AUDIO["audio"]
    values, offsets = np.load(folder / "values.npy"), np.load(folder / "offsets.npy")
    for row in record.test_index:
        values[offsets[row] : offsets[row + 1]] = 30 - 2 * values[offsets[row] : offsets[row + 1]]
    np.save(folder / "values.npy", values)
    other = train(record.spec, tmp_path)
    assert other.test_predictions != record.test_predictions
    assert other.curve == record.curve
    assert other.validation_confusion == record.validation_confusion
    assert other.best_epoch == record.best_epoch


def test_with_shuffled_labels_a_method_scores_at_chance_and_without_clearly_above(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(root, options={"hidden": 64}, training={"epochs": 4, "learning_rate": 2e-3})
    honest = train(spec, root)

    def shuffle(labels: Any, rows: Any) -> None:
        for split in ("train", "validation"):
            labels[rows[split]] = np.random.default_rng(1).permutation(labels[rows[split]])

    with_labels(monkeypatch, shuffle)
    blind = train(spec, root)
    assert accuracy(honest) > 0.32
    assert accuracy(blind) < 0.23  # chance is 0.125; three deviations of 120 draws are 0.09


# Misuse


def test_features_other_than_those_of_the_spec_are_refused(root: Path, record: RunRecord) -> None:
    with pytest.raises(Misuse, match="'simulated-audio' of simulated-ravdess is not the one that the run names"):
        run(replace(record.spec, features_sha256={"audio": "0" * 64}), root, logger="none")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": {"hiden": 8}}, r"unknown option of unimodal 'hiden': did you mean 'hidden'\?"),
        ({"options": {"hidden": "wide"}}, "method 'unimodal' refuses its options .*wide"),
        ({"options": {"dropout": 2.0}}, "method 'unimodal' refuses its options .*2.0"),
        ({"options": {"hidden": -1}}, "method 'unimodal' refuses its options .*-1"),
        ({"dataset": "simulated-ravdes"}, r"unknown dataset 'simulated-ravdes': did you mean 'simulated-ravdess'\?"),
        ({"method": "unimodel"}, r"unknown method 'unimodel': did you mean 'unimodal'\?"),
        ({"protocol": "fold6"}, r"unknown protocol of simulated-ravdess 'fold6': did you mean 'folds6'\?"),
        ({"fold": 7}, "has folds 1 to 6, not 7"),
    ],
)
def test_a_wrong_spec_is_one_sentence(root: Path, record: RunRecord, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Misuse, match=message) as caught:
        run(replace(record.spec, **changes), root, logger="none")
    assert "\n" not in str(caught.value)


def test_an_unknown_logger_is_refused_by_name(root: Path, record: RunRecord) -> None:
    with pytest.raises(Misuse, match=r"unknown logger 'cvs': did you mean 'csv'\?"):
        run(record.spec, root, logger="cvs")


# Loggers


def test_the_csv_logger_writes_the_curve(root: Path, tmp_path: Path) -> None:
    record = train(spec_of(root), root, logger="csv", log_folder=tmp_path)
    (path,) = tmp_path.rglob("metrics.csv")
    with path.open(encoding="utf-8", newline="") as file:
        logged = [float(row["val/weighted_f1"]) for row in csv.DictReader(file) if row["val/weighted_f1"]]
    assert logged == pytest.approx([entry["val/weighted_f1"] for entry in record.curve])


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "mer_bench", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=200)


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_the_wandb_logger_works_offline_and_the_process_ends(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    choice = ["--dataset", RAVDESS, "--method", "unimodal", "--feature", "audio=simulated-audio", "--train", "epochs=1"]
    places = ["--data", root, "--results", tmp_path / "results", "--logs", tmp_path / "logs"]
    finished = command("run", *choice, *places, "--logger", "wandb")
    assert finished.returncode == 0, finished.stderr
    assert len(list((tmp_path / "results").rglob("*.json"))) == 1
    (log,) = (tmp_path / "logs").glob("wandb/offline-run-*/run-*.wandb")
    assert b"val/weighted_f1" in log.read_bytes()


# Several devices


@pytest.fixture(scope="module")
def evaluated(root: Path) -> tuple[list[int], list[int]]:
    """What one device evaluates: the test rows, and the validation utterances of each class."""
    record = train(spec_of(root, training={"epochs": 1}), root)
    return record.test_index, np.sum(record.validation_confusion, axis=1).tolist()


def assert_two_devices_evaluate_all_once(record: RunRecord, evaluated: tuple[list[int], list[int]]) -> None:
    assert record.spec.devices == 2
    assert record.test_index == evaluated[0]
    assert len(record.test_predictions) == np.sum(record.test_confusion) == len(evaluated[0])
    assert np.sum(record.validation_confusion, axis=1).tolist() == evaluated[1]
    assert len(record.curve) == 1


def test_ddp_with_fewer_evaluation_batches_than_devices_counts_every_utterance_once(
    root: Path, tmp_path: Path, evaluated: tuple[list[int], list[int]]
) -> None:
    spec = spec_of(
        root, training={"epochs": 1}, hardware=Hardware(devices=2, strategy="ddp")
    )  # 120 utterances fit in one batch
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(asdict(spec)), encoding="utf-8")
    results = tmp_path / "results"
    finished = command("run", "--spec", file, "--data", root, "--results", results, "--logger", "none")
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert_two_devices_evaluate_all_once(read_record(spec.path(results)), evaluated)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore")  # of Lightning and of Python, about logging and forking
def test_ddp_fork_with_an_odd_number_of_batches_counts_every_utterance_once(
    root: Path, evaluated: tuple[list[int], list[int]]
) -> None:
    training = {"epochs": 1, "batch_size": 12}  # evaluation takes 48, 48 and 24
    record = train(spec_of(root, training=training, hardware=Hardware(devices=2, strategy="ddp_fork")), root)
    assert_two_devices_evaluate_all_once(record, evaluated)


NODE = """
import os, sys, tempfile
from pathlib import Path
import lightning as L

test = L.Trainer.test

def noted(trainer, *args, ckpt_path, **rest):
    path = Path(ckpt_path).resolve()
    # what another machine would lack; the first one reads its own
    assert path.is_relative_to(Path(os.environ["TMPDIR"]).resolve()), f"{path} is on the other machine"
    return test(trainer, *args, ckpt_path=ckpt_path, **rest)

L.Trainer.test = noted
from mer_bench.cli import main
main()
"""


def test_a_compiled_run_goes_through_the_compiler_and_predicts_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward  # the code generator of the real one takes minutes

    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend=backend))
    plain = spec_of(root, options={"dropout": 0.0})  # its masks would be others
    without, through = (train(spec, root) for spec in (plain, replace(plain, compile=True)))
    assert compiled
    assert without.test_predictions == through.test_predictions
    assert without.flops_per_utterance == through.flops_per_utterance > 0
    assert without.spec.name != through.spec.name


def test_tf32_sets_how_torch_multiplies_and_the_next_run_sets_it_back(root: Path) -> None:
    seen = []
    for precision in ("tf32", "32-true"):
        spec = spec_of(root, training={"epochs": 1, "precision": precision})
        train(spec, root, notify=lambda *_: seen.append(torch.get_float32_matmul_precision()))
    assert list(dict.fromkeys(seen)) == ["high", "highest"]


def test_on_two_machines_each_loads_the_chosen_weights_from_its_own_folder(root: Path, tmp_path: Path) -> None:
    spec = spec_of(root, training={"epochs": 2, "learning_rate": 2e-3}, hardware=Hardware(num_nodes=2, strategy="ddp"))
    (tmp_path / "spec.json").write_text(json.dumps(asdict(spec)), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    nodes = []
    for rank in ("0", "1"):
        (tmp_path / rank / "tmp").mkdir(parents=True)
        line = [sys.executable, "-c", NODE, "run", "--spec", tmp_path / "spec.json", "--data", root]
        line += ["--results", tmp_path / rank / "results", "--logger", "none"]
        place = {"TMPDIR": str(tmp_path / rank / "tmp"), "NODE_RANK": rank}
        nodes.append(subprocess.Popen(list(map(str, line)), env={**os.environ, **shared, **place}, text=True,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))  # fmt: skip
    try:
        said = [node.communicate(timeout=200)[1] for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0], said[0][-3000:] + said[1][-3000:]
    record = read_record(spec.path(tmp_path / "0" / "results"))
    assert len(record.test_predictions) == record.rows["test"]
    assert not (tmp_path / "1" / "results").exists()
