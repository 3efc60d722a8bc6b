"""One run on small simulated corpora: its record is right, it repeats, and nothing of the test set leaks."""

from __future__ import annotations

import csv
import gc
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
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
from suites import AUDIO, RAVDESS, permute_labels, spec_of, train

from mer_bench import metrics
from mer_bench.datasets import DATASETS
from mer_bench.datasets.iemocap import SIX, validation_dialogues
from mer_bench.datasets.ravdess import EMOTIONS, FOLDS
from mer_bench.errors import FailedRun, Misuse
from mer_bench.exposure import known
from mer_bench.features import open_features, write_features
from mer_bench.fusion.base import FusionModule, PredictionTable
from mer_bench.records import RunRecord, RunSpec, read_record
from mer_bench.training.build import PRECISIONS, TF32, build_datamodule, build_method
from mer_bench.training.cost import flops_per_utterance, peak_memory_mib, reset_peak_memory
from mer_bench.training.options import Hardware
from mer_bench.training.run import run
from mer_bench.utterances import read_table


@pytest.fixture(scope="module")
def record(root: Path) -> RunRecord:
    return train(spec_of(root, training={"epochs": 3, "learning_rate": 2e-3}), root)


def table_of(root: Path, dataset: str = RAVDESS) -> pd.DataFrame:
    return pd.read_csv(root / dataset / "utterances.csv", dtype=str, keep_default_na=False)


def accuracy(record: RunRecord) -> float:
    matrix = np.array(record.test_confusion)
    return float(np.trace(matrix) / matrix.sum())


# The content of a record


def test_a_record_holds_exactly_the_test_rows_in_table_order_and_their_confusion(root: Path, record: RunRecord) -> None:
    table = table_of(root)
    assert record.test_index == np.flatnonzero(table["speaker"].astype(int).isin(FOLDS[0])).tolist()
    assert len(record.test_predictions) == len(record.test_index) == record.rows["test"] == 120
    assert record.rows == {"train": 480, "validation": 120, "test": 120}
    assert record.classes == EMOTIONS
    labels = table["emotion"].map(EMOTIONS.index)[record.test_index]
    expected = confusion_matrix(labels, record.test_predictions, labels=range(8))
    assert record.test_confusion == expected.tolist()


def test_the_epoch_is_the_one_with_the_best_validation_score_and_its_validation_confusion_is_recorded(
    record: RunRecord,
) -> None:
    scores = [entry["val/weighted_f1"] for entry in record.curve]
    assert len(scores) == 3
    assert len(set(scores)) > 1
    assert record.best_epoch == int(np.argmax(scores))
    matrix = np.array(record.validation_confusion)
    true, predicted = np.indices(matrix.shape)
    score = f1_score(true.ravel(), predicted.ravel(), sample_weight=matrix.ravel(), average="weighted", zero_division=0)
    assert score == pytest.approx(max(scores))
    assert matrix.sum() == record.rows["validation"]


def test_parameters_and_flops_are_those_of_the_method(root: Path, record: RunRecord) -> None:
    small, large = spec_of(root), spec_of(root, options={"hidden": 32})
    counts, flops = [], []
    for spec in (small, large):
        datamodule = build_datamodule(spec, root)
        datamodule.setup("test")
        method = build_method(spec, datamodule.dims, datamodule.classes)
        counts.append(sum(p.numel() for p in method.parameters()))
        flops.append(flops_per_utterance(method, datamodule))
    assert record.parameters == counts[0] < counts[1]
    assert 0 < record.flops_per_utterance == flops[0] < flops[1]


def test_a_record_states_where_its_numbers_come_from(record: RunRecord) -> None:
    assert record.simulated
    assert record.context == "utterance"
    assert record.features["audio"].extractor == "simulation"
    assert record.features["audio"].exposure == known("simulation", RAVDESS)
    assert record.features["audio"].exposure is not None
    assert record.attainable is not None
    assert record.attainable["utterance"]["audio"]["accuracy"] > 0.4
    assert record.ideal_by_cluster is not None
    assert len(record.ideal_by_cluster) == 4  # actors
    assert 0.25 < sum(record.ideal_by_cluster) / record.rows["test"] < 0.6  # about the best of the audio alone
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


@pytest.mark.filterwarnings("ignore")  # warnings about 16-bit precision on a CPU
def test_every_precision_is_one_that_lightning_takes() -> None:
    assert "32-true" in PRECISIONS
    for precision in PRECISIONS:
        if precision != TF32 and not precision.startswith("transformer-engine"):  # needs another package
            L.Trainer(accelerator="cpu", precision=precision, logger=False, enable_checkpointing=False)


@pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="the peak can be reset only on Linux")
def test_peak_memory_is_that_of_the_run_not_of_what_its_process_did_before(root: Path) -> None:
    gibibyte = np.ones(2**30, np.uint8)
    held = train(spec_of(root), root).peak_memory_mib
    del gibibyte
    alone = train(spec_of(root), root).peak_memory_mib
    assert held is not None
    assert alone is not None
    assert 10 < alone < held - 900


@pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="the peak can be reset only on Linux")
def test_peak_memory_counts_what_was_computed_and_no_page_of_a_mapped_file(tmp_path: Path) -> None:
    with (tmp_path / "features").open("wb") as file:
        file.write(bytes(2**28))
    assert reset_peak_memory()
    before = peak_memory_mib()
    mapped = np.memmap(tmp_path / "features", np.uint8, "r")
    assert mapped[:: 2**12].sum() == 0  # has every page read
    read = peak_memory_mib()
    computed = np.ones(2**27, np.uint8)
    del computed
    assert read - before < 20 < 100 < peak_memory_mib() - before < 150


@pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="the peak can be reset only on Linux")
def test_peak_memory_counts_no_file_that_an_earlier_run_has_left_mapped(tmp_path: Path) -> None:
    with (tmp_path / "features").open("wb") as file:
        file.write(bytes(2**28))
    gc.disable()
    try:
        mapped = np.memmap(tmp_path / "features", np.uint8, "r")
        assert mapped[:: 2**12].sum() == 0
        left: list[object] = [mapped]
        left.append(left)  # as the parts of a trainer refer to each other
        del mapped, left
        assert reset_peak_memory()
        before = peak_memory_mib()
        gc.collect()
        assert abs(peak_memory_mib() - before) < 20
    finally:
        gc.enable()


def test_the_callback_is_called_before_training_and_after_each_epoch(root: Path) -> None:
    calls: list[tuple[int, float | None]] = []
    record = train(spec_of(root), root, notify=lambda epoch, s: calls.append((epoch, s.get("val/weighted_f1"))))
    scores = [entry["val/weighted_f1"] for entry in record.curve]
    assert [epoch for epoch, _ in calls] == [0, 1, 2]
    assert calls[0][1] is None
    assert [score for _, score in calls[1:]] == pytest.approx(scores)


# Kinds of runs


def test_without_training_majority_predicts_the_most_frequent_training_emotion(root: Path) -> None:
    record = train(spec_of(root, "majority", "simulated-iemocap", features={}, protocol="session5"), root)
    table = table_of(root, "simulated-iemocap")
    training = table[(table["session"] != "5") & ~table["dialogue"].isin(validation_dialogues())]
    most = training["emotion"][training["emotion"].isin(list(SIX))].value_counts().idxmax()
    assert {record.classes[i] for i in record.test_predictions} == {SIX[most]}
    assert record.curve == []
    assert record.parameters == 0
    assert np.sum(record.validation_confusion) == record.rows["validation"] > 0


def test_a_method_with_dialogue_context_scores_every_labelled_utterance_of_the_test_session(root: Path) -> None:
    training = {"epochs": 1, "batch_size": 8}
    record = train(spec_of(root, "bc_lstm", "simulated-iemocap", protocol="session5", training=training), root)
    table = table_of(root, "simulated-iemocap")
    labelled = table["emotion"].isin(list(SIX))
    assert record.context == "dialogue"
    assert record.test_index == np.flatnonzero((table["session"] == "5") & labelled).tolist()


class Weights:
    """The trainable weights after each epoch's validation, at the end of each epoch, and when the test starts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.validated = self._recorded(monkeypatch, "on_validation_epoch_end")
        self.trained = self._recorded(monkeypatch, "on_train_epoch_end")
        self.tested = self._recorded(monkeypatch, "on_test_epoch_start")

    @staticmethod
    def _recorded(monkeypatch: pytest.MonkeyPatch, hook: str) -> list[bytes]:
        original: Callable[..., None] = getattr(FusionModule, hook)
        weights: list[bytes] = []

        def with_record(module: FusionModule) -> None:
            weights.append(b"".join(p.detach().numpy().tobytes() for p in module.parameters()))
            original(module)

        monkeypatch.setattr(FusionModule, hook, with_record)
        return weights


def set_scores(monkeypatch: pytest.MonkeyPatch, *scores: float) -> None:
    """Replace the weighted F1 of each epoch."""
    sequence = iter(scores)
    monkeypatch.setitem(metrics.SCORES, "weighted_f1", lambda matrix: next(sequence))


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ((0.2, 0.6, 0.4), 1),
        ((0.5, 0.3, 0.5), 0),  # the first of equal scores
        ((0.5, 0.3, 0.5 + 1e-12), 0),  # equal in single precision, in which Lightning compares
    ],
)
def test_the_weights_that_are_scored_are_those_of_the_epoch_that_the_record_names(
    root: Path, monkeypatch: pytest.MonkeyPatch, scores: tuple[float, ...], best: int
) -> None:
    set_scores(monkeypatch, *scores)
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
    set_scores(monkeypatch, 0.2, 0.6, 0.5, 0.4, 0.3)
    record = train(spec_of(root, training={"epochs": 5, "patience": 2}), root)
    assert len(record.curve) == 4
    assert record.best_epoch == 1


# Diverged


@pytest.mark.parametrize("protocol", ["folds6", "fixed"])
def test_a_training_that_diverges_is_a_failed_run_with_its_epoch(root: Path, protocol: str) -> None:
    spec = spec_of(root, protocol=protocol, training={"epochs": 2, "learning_rate": 1e30, "gradient_clip": 0.0})
    with pytest.raises(FailedRun, match=r"training diverged in epoch 1: (train|val)/loss is (nan|inf)"):
        train(spec, root)


def test_logits_that_are_not_finite_are_no_predictions() -> None:
    predictions = PredictionTable(4, 2)
    predictions.update(torch.tensor([3, 1]), torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
    index, classes, probabilities = predictions.compute()
    assert (index.tolist(), classes.tolist()) == ([1, 3], [0, 1])
    assert probabilities.tolist() == torch.tensor([[2.0, 0.0], [0.0, 1.0]]).softmax(1).tolist()
    predictions.update(torch.tensor([0, 2]), torch.tensor([[0.0, torch.nan], [torch.inf, 0.0]]))
    with pytest.raises(FailedRun, match="the logits of 2 test utterances are not finite"):
        predictions.compute()


# Repeatable


def test_the_same_spec_gives_the_same_record_and_another_seed_another(root: Path, record: RunRecord) -> None:
    torch.manual_seed(99)  # the state that a run finds must not matter
    again = train(record.spec, root)
    volatile = {"seconds": 0.0, "peak_memory_mib": 0.0}
    assert replace(again, **volatile) == replace(record, **volatile)
    other = train(replace(record.spec, seed=1), root)
    assert other.curve != record.curve
    assert other.test_predictions != record.test_predictions


# The test set is read once, after the weights are chosen


def test_other_test_labels_change_no_curve_no_choice_and_no_prediction(
    root: Path, record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    permute_labels(monkeypatch, "test")
    other = train(record.spec, root)
    assert other.test_confusion != record.test_confusion
    assert other.curve == record.curve
    assert other.best_epoch == record.best_epoch
    assert other.test_predictions == record.test_predictions


def test_other_test_labels_do_not_change_which_regression_linear_chooses(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(root, "linear", options={})
    record = train(spec, root)
    permute_labels(monkeypatch, "test")
    other = train(spec, root)
    assert other.test_confusion != record.test_confusion
    assert (other.curve, other.test_predictions) == (record.curve, record.test_predictions)


def test_other_test_features_change_no_curve_and_no_choice(root: Path, record: RunRecord, tmp_path: Path) -> None:
    shutil.copytree(root / RAVDESS, tmp_path / RAVDESS)
    folder = tmp_path / RAVDESS / AUDIO["audio"]
    found, ids = open_features(folder), list(read_table(folder.parent)["id"])
    sequences = np.split(found.values.copy(), found.offsets[1:-1])
    for row in record.test_index:
        sequences[row] = 30 - 2 * sequences[row]
    changed = write_features(folder, sequences, ids=ids, modality="audio", extractor="changed")
    other = train(replace(record.spec, features_sha256={"audio": changed.sha256}), tmp_path)
    assert other.test_predictions != record.test_predictions
    assert other.curve == record.curve
    assert other.validation_confusion == record.validation_confusion
    assert other.best_epoch == record.best_epoch


PERMUTATIONS = 8
ONE_IN_THOUSAND = 4.785  #: quantile 0.999 of Student's t with PERMUTATIONS - 1 degrees of freedom


def above_chance(record: RunRecord) -> float:
    """Accuracy less that of predictions with the same frequencies that are independent of the labels."""
    matrix = np.array(record.test_confusion)
    return accuracy(record) - float(matrix.sum(0) @ matrix.sum(1)) / matrix.sum() ** 2


def train_permuted(spec: RunSpec, root: Path, seed: int, *leaked: str) -> RunRecord:
    """Train with permuted training and validation labels; rows of ``leaked`` are trained on as well, as they are."""
    with pytest.MonkeyPatch.context() as patch:
        permute_labels(patch, "train", "validation", seed=seed)
        permuted = DATASETS[RAVDESS]._rows

        def leaking(self: Any, protocol: str, fold: int) -> Any:
            rows = permuted(self, protocol, fold)
            return rows | {"train": np.sort(np.concatenate([rows["train"], *(rows[split] for split in leaked)]))}

        patch.setattr(DATASETS[RAVDESS], "_rows", leaking)
        return train(replace(spec, seed=seed), root)


def test_with_shuffled_labels_a_method_scores_at_chance_and_without_or_with_a_leak_clearly_above(root: Path) -> None:
    """The permutations' own spread decides what is at chance: it is larger than that of independent utterances."""
    spec = spec_of(root, options={"hidden": 64}, training={"learning_rate": 1e-2})
    shuffled = np.array([above_chance(train_permuted(spec, root, seed)) for seed in range(PERMUTATIONS)])
    spread = float(shuffled.std(ddof=1))
    assert abs(shuffled.mean()) < ONE_IN_THOUSAND * spread / PERMUTATIONS**0.5
    limit = shuffled.mean() + ONE_IN_THOUSAND * spread * (1 + 1 / PERMUTATIONS) ** 0.5
    assert above_chance(train(spec, root)) > limit
    assert above_chance(train_permuted(spec, root, 0, "test")) > limit


# Misuse


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"features_sha256": {"audio": "0" * 64}},
            "'simulated-audio' of simulated-ravdess is not the one that the run names",
        ),
        ({"options": {"hiden": 8}}, r"unknown option of unimodal 'hiden': did you mean 'hidden'\?"),
        ({"options": {"hidden": "wide"}}, "option hidden of unimodal must be a whole number from 1 on, not 'wide'"),
        ({"options": {"dropout": 2.0}}, "option dropout of unimodal must be a number from 0 to below 1, not 2.0"),
        ({"options": {"hidden": -1}}, "option hidden of unimodal must be a whole number from 1 on, not -1"),
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


# Loggers


def test_an_unknown_logger_is_refused_by_name(root: Path, record: RunRecord) -> None:
    with pytest.raises(Misuse, match=r"unknown logger 'cvs': did you mean 'csv'\?"):
        run(record.spec, root, logger="cvs")


def test_the_csv_logger_writes_the_curve(root: Path, tmp_path: Path) -> None:
    record = train(spec_of(root), root, logger="csv", log_folder=tmp_path)
    (path,) = tmp_path.rglob("metrics.csv")
    with path.open(encoding="utf-8", newline="") as file:
        logged = [float(row["val/weighted_f1"]) for row in csv.DictReader(file) if row["val/weighted_f1"]]
    assert logged == pytest.approx([entry["val/weighted_f1"] for entry in record.curve])


def command(*arguments: str | Path) -> None:
    """Execute the command line in a process of its own."""
    line = [sys.executable, "-m", "mer_bench", *map(str, arguments)]
    finished = subprocess.run(line, capture_output=True, text=True, check=False, timeout=200)
    assert finished.returncode == 0, finished.stderr[-3000:]


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_the_wandb_logger_works_offline_and_the_process_ends(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    choice = f"--dataset {RAVDESS} --method unimodal --feature audio=simulated-audio --train epochs=1".split()
    folders = ["--data", root, "--results", tmp_path / "results", "--logs", tmp_path / "logs"]
    command("run", *choice, *folders, "--logger", "wandb")
    assert len(list((tmp_path / "results").rglob("*.json"))) == 1
    (log,) = (tmp_path / "logs").glob("wandb/offline-run-*/run-*.wandb")
    assert b"val/weighted_f1" in log.read_bytes()


# Several devices


@pytest.fixture(scope="module")
def evaluated(root: Path) -> tuple[list[int], list[int]]:
    """The test rows of one device, and the number of its validation utterances of each class."""
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
    hardware = Hardware(devices=2, strategy="ddp")
    spec = spec_of(root, training={"epochs": 1}, hardware=hardware)  # 120 utterances fit in one batch
    file, results = tmp_path / "spec.json", tmp_path / "results"
    file.write_text(json.dumps(asdict(spec)), encoding="utf-8")
    command("run", "--spec", file, "--data", root, "--results", results, "--logger", "none")
    assert_two_devices_evaluate_all_once(read_record(spec.path(results)), evaluated)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore")  # from Lightning and Python, about logging and forking
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

def checked(trainer, *args, ckpt_path, **rest):
    path = Path(ckpt_path).resolve()
    # Another machine does not have the files of the first one.
    assert path.is_relative_to(Path(os.environ["TMPDIR"]).resolve()), f"{path} is on the other machine"
    return test(trainer, *args, ckpt_path=ckpt_path, **rest)

L.Trainer.test = checked
from mer_bench.cli import main
main()
"""


def test_a_compiled_run_goes_through_the_compiler_and_predicts_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward  # the code generator of the default backend takes minutes

    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend=backend))
    spec = spec_of(root, options={"dropout": 0.0})  # compiled dropout draws other masks
    without, through = (train(each, root) for each in (spec, replace(spec, compile=True)))
    assert compiled
    assert without.test_predictions == through.test_predictions
    assert without.flops_per_utterance == through.flops_per_utterance > 0
    assert without.spec.name != through.spec.name


def test_tf32_sets_the_precision_of_matrix_products_and_the_next_run_sets_it_back(root: Path) -> None:
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
        port = str(free.getsockname()[1])
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    nodes = []
    for rank in ("0", "1"):
        folder = tmp_path / rank
        (folder / "tmp").mkdir(parents=True)
        line = [sys.executable, "-c", NODE, "run", "--spec", tmp_path / "spec.json", "--data", root]
        line += ["--results", folder / "results", "--logger", "none"]
        own = environment | {"TMPDIR": str(folder / "tmp"), "NODE_RANK": rank}
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        nodes.append(subprocess.Popen(list(map(str, line)), env=own, text=True, **pipes))
    try:
        errors = [node.communicate(timeout=200)[1] for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0], errors[0][-3000:] + errors[1][-3000:]
    record = read_record(spec.path(tmp_path / "0" / "results"))
    assert len(record.test_predictions) == record.rows["test"]
    assert not (tmp_path / "1" / "results").exists()
