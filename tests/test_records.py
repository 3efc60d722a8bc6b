"""Records: a run's path is its identity, a file is complete or absent, and others load beside a damaged one."""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mer_bench import records
from mer_bench.calibration import Scaled, calibrate
from mer_bench.errors import Misuse
from mer_bench.files import new_folder, write_atomic
from mer_bench.groups import Groups
from mer_bench.methods import method_facts
from mer_bench.raters import RaterScores
from mer_bench.records import (
    MEASURES,
    Code,
    Efficiency,
    FeatureFacts,
    Protocol,
    RunRecord,
    RunSpec,
    Training,
    Transfer,
    Tuned,
    check_measures,
    load_records,
    measured,
    pool_clusters,
    read_record,
    read_spec,
    write_failure,
    write_record,
)
from mer_bench.schema import canonical_json, parse_canonical

SPEC = RunSpec(
    dataset="iemocap",
    label_set="six",
    protocol="session5",
    fold=2,
    features={"text": "minilm", "audio": "mfcc"},
    features_sha256={"text": "a" * 64, "audio": "b" * 64},
    method="cfn_sr",
    version=1,
    options={"hidden": 64, "scale": True},
    training=Training(),
    seed=0,
)
RECORD = RunRecord(
    spec=SPEC,
    classes=("happy", "sad", "überrascht"),
    context="utterance",
    provenance="reimplemented",
    simulated=False,
    features={
        "text": FeatureFacts("minilm", "MiniLM", "1", "last", 384, 22_000_000),
        "audio": FeatureFacts("mfcc", "torchaudio", "2.11", "", 40, 0),
    },
    rows={"train": 6, "validation": 2, "test": 3},
    validation_confusion=[[1, 0, 0], [0, 1, 0], [0, 0, 0]],
    test_confusion=[[1, 0, 0], [0, 1, 0], [1, 0, 0]],
    test_index=[3, 5, 8],
    test_predictions=[0, 1, 0],
    curve=[{"train/loss": 0.3, "val/weighted_f1": 1.0}],
    best_epoch=0,
    parameters=385_345,
    flops_per_utterance=1_000,
    seconds=1.25,
    peak_memory_mib=300.5,
    device="cpu",
    versions={"torch": "2.13.0"},
)
#: field -> another value; a new field of RunSpec or Training has to be added here
OTHER_SPEC: dict[str, Any] = {
    "dataset": "meld",
    "label_set": "four",
    "protocol": "loso",
    "fold": 1,
    "features": {"text": "minilm", "audio": "wavlm"},
    "features_sha256": {"text": "a" * 64, "audio": "c" * 64},
    "method": "tacfn",
    "version": 2,
    "options": {"hidden": 65, "scale": True},
    "training": Training(epochs=31),
    "seed": 1,
    "devices": 2,
    "strategy": "ddp",
    "num_nodes": 2,
    "compile": True,
    "share": 0.5,
    "tuned": Tuned(1, "space", {"hidden": 64}, 8),
}
OTHER_TRAINING: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 1,
    "learning_rate": 1e-4,
    "weight_decay": 0.0,
    "warmup": 0.0,
    "gradient_clip": 0.0,
    "label_smoothing": 0.1,
    "patience": 3,
    "precision": "bf16-mixed",
    "class_weights": "sqrt",
    "balance": "agm",
}


def test_the_names_of_runs_on_all_data_are_those_that_they_had_before_there_were_shares() -> None:
    assert SPEC.sha256 == "0c27f8fd4db9ce5c438a290f9b01b8bc105e902535cfda57d433d9b302b14682"
    assert replace(SPEC, share=1).sha256 == SPEC.sha256 != replace(SPEC, share=0.5).sha256


@pytest.mark.parametrize("share", [0, 2, -0.1, "all"])
def test_a_share_is_above_zero_and_at_most_one(tmp_path: Path, share: object) -> None:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({**asdict(SPEC), "share": share}))
    with pytest.raises(Misuse, match="share must be a number"):
        read_spec(path)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = write_record(RECORD, tmp_path)
    assert path == SPEC.path(tmp_path)
    assert read_record(path) == RECORD
    assert load_records(tmp_path) == ([RECORD], [])
    assert files(tmp_path) == [path.relative_to(tmp_path).as_posix()]


def test_equal_records_are_equal_bytes(tmp_path: Path) -> None:
    first, again = write_record(RECORD, tmp_path / "a"), write_record(RECORD, tmp_path / "b")
    assert first.read_bytes() == again.read_bytes()
    assert write_record(read_record(first), tmp_path / "c").read_bytes() == first.read_bytes()


def test_every_field_has_another_value_below() -> None:
    assert set(OTHER_SPEC) == {field.name for field in fields(RunSpec)}
    assert set(OTHER_TRAINING) == {field.name for field in fields(Training)}


@pytest.mark.parametrize("field", OTHER_SPEC)
def test_the_path_depends_on_every_field_of_the_spec(field: str) -> None:
    other = replace(SPEC, **{field: OTHER_SPEC[field]})
    assert other.path(Path()) != SPEC.path(Path())
    assert other.sha256 != SPEC.sha256


@pytest.mark.parametrize("field", OTHER_TRAINING)
def test_the_path_depends_on_every_training_option(field: str) -> None:
    other = replace(SPEC, training=replace(SPEC.training, **{field: OTHER_TRAINING[field]}))
    assert other.path(Path()) != SPEC.path(Path())


def test_equal_specs_have_equal_paths_in_any_order_of_their_dicts() -> None:
    reordered = {
        name: dict(reversed(list(getattr(SPEC, name).items()))) for name in ("features", "features_sha256", "options")
    }
    assert list(reordered["features"]) != list(SPEC.features)
    assert replace(SPEC, **reordered).path(Path()) == SPEC.path(Path())


def assert_one_problem(folder: Path, broken: Path, *others: RunRecord) -> None:
    """Assert that the other records load, and that one sentence says that ``broken`` does not."""
    records, (problem,) = load_records(folder)
    assert records == list(others)
    assert str(broken) in problem
    assert "\n" not in problem


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_record_is_one_sentence_and_the_others_load(tmp_path: Path, share: float) -> None:
    broken = write_record(RECORD, tmp_path)
    other = replace(RECORD, spec=replace(SPEC, seed=1))
    write_record(other, tmp_path)
    text = broken.read_text(encoding="utf-8")
    broken.write_text(text[: int(share * len(text))], encoding="utf-8")
    assert_one_problem(tmp_path, broken, other)
    with pytest.raises(Misuse, match="not a readable record"):
        read_record(broken)


def test_a_record_from_before_encoders_were_counted_still_loads(tmp_path: Path) -> None:
    path = write_record(replace(RECORD, encoder_parameters=85_345), tmp_path)
    assert read_record(path).encoder_parameters == 85_345
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["encoder_parameters"], content["sha256"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert read_record(path) == replace(RECORD, encoder_parameters=None)


PREDICTED = np.array([0, 1, 0])
#: of the test utterances of RECORD
FITTED = calibrate(np.eye(3, dtype=np.float32)[PREDICTED], np.array([0, 1, 2]), PREDICTED, np.zeros(3, np.int64))
ALL = Groups(["all"], "clusters", ["0"])


@pytest.mark.parametrize(
    ("measures", "reason"),
    [
        ({"raters": RaterScores([30], [10], [4], ALL)}, "more utterances than a cluster"),
        ({"raters": RaterScores([30], [142], [2], ALL)}, "divergence of raters exceeds"),
        ({"raters": RaterScores([30, 1], [10], [2], ALL)}, "one sum per cluster"),
        (
            {"raters": RaterScores([30], [10], [2], Groups(["some"], "clusters", ["0"]))},
            "other levels than all, most, few",
        ),
        ({"raters": RaterScores([30], [10], [2], Groups(["all", "few"], "cells", ["400"]))}, "do not sum"),
        ({"temperature": Scaled(None, None)}, "temperature does not fit rows"),
    ],
)
def test_measures_that_contradict_the_test_are_refused(measures: dict[str, Any], reason: str) -> None:
    made = replace(RECORD, **measures, test_by_cluster=[RECORD.test_confusion])
    with pytest.raises(Misuse, match=reason):
        records.check_record(made, made.spec.path(Path("results")))
    with pytest.raises(Misuse, match="has clusters, but there is no test_by_cluster"):
        records.check_record(replace(made, test_by_cluster=None), made.spec.path(Path("results")))


def test_measures_are_optional_and_survive_a_file(tmp_path: Path) -> None:
    measures: dict[str, Any] = {
        "literature": [[[1, 0, 0], [0, 0, 1], [1, 0, 0]]],
        "robustness": {"missing": {"0.1": [[1, 0, 0], [1, 0, 0], [1, 0, 0]]}},
        "efficiency": Efficiency("cpu", 1, 0.001, 1, 0.02, 32),
        "gradients": {"text": [0.5], "audio": [0.0]},
        "temperature": Scaled(1.5, FITTED),
        "raters": RaterScores([30], [10], [2], Groups(["all", "few"], "cells", ["110"])),
    }
    assert tuple(measures) == MEASURES
    whole = replace(RECORD, **measures, test_by_cluster=[RECORD.test_confusion])
    path = write_record(whole, tmp_path)
    assert read_record(path) == whole
    assert measured(read_record(path)) == set(MEASURES)
    content = json.loads(path.read_text(encoding="utf-8"))
    content = {key: value for key, value in content.items() if key not in (*measures, "test_by_cluster", "sha256")}
    path.write_text(json.dumps(content), encoding="utf-8")
    assert read_record(path) == RECORD  # an older record, without measures
    assert measured(RECORD) == set()


def test_a_cluster_that_several_folds_test_is_pooled_once() -> None:
    first, second, third, fourth = (np.full((2, 3, 3), 10**number) for number in range(4))
    alike = Protocol(4, "Two folds with one sentence each.", "actors", folds_per_cluster=2)
    found = pool_clusters({3: third, 1: first, 2: second, 4: fourth}, alike)
    assert found is not None
    assert found[:, 0, 0].tolist() == [11, 11, 1100, 1100]
    apart = pool_clusters({1: first, 2: second}, Protocol(2, "Two folds."))
    assert apart is not None
    assert apart[:, 0, 0].tolist() == [1, 1, 10, 10]
    assert pool_clusters({1: first, 2: second[:1]}, alike) is None


def test_what_a_model_predicts_of_another_corpus_survives_a_file_and_is_checked(tmp_path: Path) -> None:
    hashes = {"text": "c" * 64, "audio": "d" * 64}
    other = Transfer("official", Protocol(1, "Its own."), hashes, [[[1, 0, 0], [0, 2, 0], [0, 0, 0]], [[0, 1, 0]] * 3])
    path = write_record(replace(RECORD, transfer={"meld": other}), tmp_path)
    found = read_record(path)
    assert found == replace(RECORD, transfer={"meld": other})
    assert measured(found) == {"transfer:meld"}
    wrong: list[tuple[dict[str, Transfer], str]] = [
        ({"iemocap": other}, "transfer is from iemocap to iemocap"),
        ({"simulated-meld": other}, "transfer is from iemocap to simulated-meld"),
        ({"meld": replace(other, features_sha256={"text": "c" * 64})}, "transfer to meld is of other modalities"),
        ({"meld": replace(other, by_cluster=[[[1]]])}, "transfer to meld has a cluster without an utterance"),
        ({"meld": replace(other, by_cluster=[])}, "transfer to meld has a cluster without an utterance"),
        ({"meld": replace(other, by_cluster=[[[0] * 3] * 3])}, "transfer to meld has a cluster without an utterance"),
    ]
    for transfer, said in wrong:
        with pytest.raises(Misuse, match=f"contradicts itself: {said}"):
            write_record(replace(RECORD, transfer=transfer), tmp_path)


@pytest.mark.parametrize(("name", "nearest"), [("litrature", "literature"), ("speed", None)])
def test_a_measure_that_does_not_exist_is_one_sentence(name: str, nearest: str | None) -> None:
    assert check_measures(["robustness", "robustness"]) == ("robustness",)
    with pytest.raises(Misuse, match=f"unknown measure '{name}'.*{nearest or ', '.join(MEASURES)}"):
        check_measures([name])


@pytest.mark.parametrize(
    ("change", "spec"),
    [
        ({}, {field: value})
        for field in OTHER_SPEC
        for value in (None, "x", 77, [1])
        if (field, value) != ("tuned", None)
    ]
    + [({"unknown": 1}, {}), ({"classes": None}, {})],
)
def test_a_record_with_a_wrong_field_is_one_sentence(
    tmp_path: Path, change: dict[str, Any], spec: dict[str, Any]
) -> None:
    broken = write_record(RECORD, tmp_path)
    content = json.loads(broken.read_text(encoding="utf-8"))
    broken.write_text(json.dumps({**content, **change, "spec": {**content["spec"], **spec}}), encoding="utf-8")
    assert_one_problem(tmp_path, broken)


@pytest.mark.parametrize("text", ["null", "[]", "{}", "3", '{"spec": []}', "\x00"])
def test_json_that_is_no_record_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = SPEC.path(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert_one_problem(tmp_path, path)


def test_a_record_under_the_name_of_another_run_is_a_misuse(tmp_path: Path) -> None:
    path = write_record(RECORD, tmp_path)
    moved = path.rename(replace(SPEC, seed=5).path(tmp_path))
    with pytest.raises(Misuse, match="another run than its path says"):
        read_record(moved)


def test_a_record_that_is_absent_is_a_misuse(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="it is absent"):
        read_record(tmp_path / "none.json")


def test_no_results_are_no_records(tmp_path: Path) -> None:
    assert load_records(tmp_path / "nowhere") == ([], [])


def test_a_failure_is_noted_and_is_no_record_until_success_removes_it(tmp_path: Path) -> None:
    note = write_failure(SPEC, tmp_path, "CUDA out of memory")
    assert json.loads(note.read_text())["reason"] == "CUDA out of memory"
    assert note.parent == SPEC.path(tmp_path).parent
    assert load_records(tmp_path) == ([], [])
    assert not SPEC.path(tmp_path).exists()
    other = write_failure(replace(SPEC, seed=1), tmp_path, "another run")
    write_record(RECORD, tmp_path)
    assert not note.exists()
    assert other.exists()
    assert load_records(tmp_path) == ([RECORD], [])


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "write", "replace"])
def test_a_full_disk_keeps_the_old_record_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = write_record(RECORD, tmp_path)
    before, tree = path.read_bytes(), files(tmp_path)
    target, name = {"fsync": (os, "fsync"), "write": (Path, "open"), "replace": (Path, "replace")}[call]
    with monkeypatch.context() as patched:
        patched.setattr(target, name, full_disk)
        with pytest.raises(Misuse, match="No space left on device"):
            write_record(replace(RECORD, seconds=9.0), tmp_path)
    assert path.read_bytes() == before
    assert files(tmp_path) == tree


def test_a_failed_write_does_not_remove_the_note_of_the_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = write_failure(SPEC, tmp_path, "earlier")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full_disk)
        with pytest.raises(Misuse):
            write_record(RECORD, tmp_path)
    assert files(tmp_path) == [note.relative_to(tmp_path).as_posix()]


def test_a_kill_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            write_record(RECORD, tmp_path)
    assert files(tmp_path) == []


def test_a_folder_that_is_a_file_is_a_misuse(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("not a folder")
    with pytest.raises(Misuse, match="cannot write"):
        write_record(RECORD, tmp_path / "results")


def test_an_atomic_write_is_utf8_with_unix_line_ends_and_replaces_the_old_text(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    write_atomic(path, "longer than the next")
    write_atomic(path, "é\n")
    assert path.read_bytes() == b"\xc3\xa9\n"
    assert files(tmp_path) == ["new/file.txt"]


@pytest.mark.parametrize("existed", [False, True])
def test_a_new_folder_is_complete_or_absent(tmp_path: Path, existed: bool) -> None:
    folder = tmp_path / "set"
    if existed:
        folder.mkdir()
        (folder / "old").write_text("old")
    before = files(tmp_path)
    with suppress(RuntimeError), new_folder(folder) as temporary:
        (temporary / "values").write_text("half")
        raise RuntimeError
    assert files(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["set"] * existed
    with new_folder(folder) as temporary:
        (temporary / "values").write_text("complete")
    assert files(tmp_path) == ["set/values"]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


# What a record says of itself


CALIBRATION = calibrate(
    np.array([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.7, 0.2, 0.1]], np.float32),
    np.array([0, 1, 2]),
    np.array([0, 1, 0]),
    np.array([0, 1, 1]),
)
WHOLE = replace(
    RECORD,
    test_by_cluster=[[[1, 0, 0], [0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 1, 0], [1, 0, 0]]],
    encoder_parameters=85_345,
    calibration=CALIBRATION,
    probabilities="f" * 64,
    protocol=Protocol(1, "training on sessions 1-4, test on session 5."),
    code=Code("d" * 64, {"hidden": 64, "scale": True, "layers": 5}, "e" * 40, False),
    literature=[[[1, 0, 0], [0, 0, 1], [1, 0, 0]]],
    robustness={"missing": {"0.1": [[1, 0, 0], [1, 0, 0], [1, 0, 0]]}},
    efficiency=Efficiency("cpu", 1, 0.001, 1, 0.02, 32),
    gradients={"text": [0.5], "audio": [0.25]},
)
UNMEASURED: dict[str, Any] = {"literature": None, "gradients": None}  #: what has one entry per epoch
PERFECT = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def bins(at: int, value: float) -> list[Any]:
    """Bins with this value in one of them."""
    return [value if index == at else 0 for index in range(15)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": ("happy", "happy", "sad")}, "a class occurs twice"),
        ({"rows": {"train": 6, "test": 3}}, "rows does not count train, validation and test"),
        ({"simulated": True}, "simulated does not fit the corpus 'iemocap'"),
        ({"spec": replace(SPEC, features_sha256={"text": "a" * 64})}, "name different modalities"),
        ({"features": {"text": RECORD.features["text"]}}, "features are not those of its spec"),
        ({"calibration": None}, None),
        ({"calibration": None, "test_by_cluster": None}, None),
        ({"test_by_cluster": None}, "calibration has clusters, but there is no test_by_cluster"),
        ({"calibration": replace(CALIBRATION, log_loss=[3])}, "log_loss of calibration does not have one sum per clu"),
        ({"calibration": replace(CALIBRATION, brier=[1, 2, 3])}, "brier of calibration does not have one sum"),
        ({"calibration": replace(CALIBRATION, log_loss=[1597, 0])}, "log_loss of calibration exceeds what"),
        ({"calibration": replace(CALIBRATION, brier=[202, 0])}, "brier of calibration exceeds what the utterances of"),
        ({"calibration": replace(CALIBRATION, brier=[201, 401])}, None),
        ({"calibration": replace(CALIBRATION, correct=[2])}, "calibration does not have 15 bins"),
        ({"calibration": replace(CALIBRATION, utterances=bins(13, 4))}, "does not count the test utterances"),
        ({"calibration": replace(CALIBRATION, correct=bins(13, 1))}, "does not count the correct predictions"),
        ({"calibration": replace(CALIBRATION, correct=bins(13, 2))}, "has more correct utterances than utterances"),
        ({"calibration": replace(CALIBRATION, confidence=bins(13, 0.94))}, "the confidence of a bin of calibration is"),
        ({"calibration": replace(CALIBRATION, confidence=CALIBRATION.confidence[::-1])}, "is outside of the bin"),
        ({"test_confusion": PERFECT, "test_by_cluster": None}, "test_confusion does not count test_predictions"),
        ({"test_confusion": PERFECT}, "test_confusion does not count test_predictions"),
        ({"test_confusion": [[1, 0], [0, 1], [1, 0]]}, "test_confusion does not have 3 rows and columns"),
        ({"test_confusion": [[1, 0, 0], [0, 1, 0]]}, "test_confusion does not have 3 rows and columns"),
        ({"test_by_cluster": [[[1, 0, 0], [0, 1, 0], [0, 0, 1]]]}, "test_by_cluster does not sum to test_confusion"),
        ({"test_by_cluster": [RECORD.test_confusion, [[0] * 3] * 3]}, "a cluster of test_by_cluster has no utterance"),
        ({"test_by_cluster": [[[1, 0, 0]]]}, "test_by_cluster does not have 3 rows and columns"),
        ({"test_by_cluster": []}, "test_by_cluster does not sum to test_confusion"),
        ({"test_predictions": [0, 0, 1]}, None),
        ({"test_predictions": [0, 1, 1]}, "test_confusion does not count test_predictions"),
        ({"test_predictions": [0, 1, 3]}, "test_predictions names a class that does not exist"),
        ({"test_predictions": [0, 1]}, "count different numbers of utterances"),
        ({"test_index": [3, 5]}, "count different numbers of utterances"),
        ({"test_index": [3, 8, 5]}, "test_index does not ascend"),
        ({"test_index": [3, 5, 5]}, "test_index does not ascend"),
        ({"rows": {"train": 6, "validation": 2, "test": 4}}, "count different numbers of utterances"),
        ({"rows": {"train": 6, "validation": 3, "test": 3}}, "validation_confusion does not count the validation rows"),
        ({"rows": {"train": 6, "validation": 0, "test": 3}}, "validation_confusion does not fit rows"),
        ({"validation_confusion": None}, "validation_confusion does not fit rows"),
        ({"validation_confusion": [[0, 1, 0], [0, 1, 0], [0, 0, 0]]}, "the score that curve states for its epoch"),
        ({"literature": [PERFECT, RECORD.test_confusion]}, "literature does not have one matrix per epoch"),
        ({"literature": [[[2, 0, 0], [0, 1, 0], [0, 0, 0]]]}, "literature counts other test utterances"),
        ({"robustness": {"noise": {"0": [[1, 0, 0], [2, 0, 0], [0, 0, 0]]}}}, "robustness counts other test utteranc"),
        ({"robustness": {"noise": {"0": [[3]]}}}, "robustness does not have 3 rows and columns"),
        ({"gradients": {}}, None),
        ({"gradients": {"text": [0.5]}}, "gradients are of other modalities than its spec names"),
        ({"gradients": {"text": [0.5], "audio": [0.5, 0.5]}}, "gradients do not have one norm per epoch"),
        ({"best_epoch": 1}, "best_epoch is not an epoch of curve"),
        ({"curve": [{"val/weighted_f1": 1.0}, {"val/weighted_f1": 0.5}], "best_epoch": 1, **UNMEASURED},
         "best_epoch is not the best validation score"),
        ({"curve": [{"val/weighted_f1": 1.0}, {}], **UNMEASURED}, "an epoch of curve lacks its validation score"),
        ({"encoder_parameters": 385_346}, "encoder_parameters exceed parameters"),
        ({"attainable": {"utterance": {"text": {"accuracy": 0.5}}}}, "attainable lacks a score"),
        ({"ideal_by_cluster": [1.0, 1.75]}, None),
        ({"ideal_by_cluster": [1.0]}, "ideal_by_cluster does not have one number per cluster"),
        ({"ideal_by_cluster": [1.5, 0.0]}, "ideal_by_cluster exceeds the utterances of a cluster"),
    ],
)  # fmt: skip
def test_a_record_that_contradicts_itself_is_named_and_neither_written_nor_read(
    tmp_path: Path, changes: dict[str, Any], said: str | None
) -> None:
    changed = replace(WHOLE, **changes)
    if said is None:
        assert read_record(write_record(changed, tmp_path)) == changed
        return
    with pytest.raises(Misuse, match="contradicts itself: ") as caught:
        write_record(changed, tmp_path)
    assert said in str(caught.value)
    assert files(tmp_path) == []
    path = changed.spec.path(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(asdict(changed)), encoding="utf-8")
    assert_one_problem(tmp_path, path)
    assert said in load_records(tmp_path)[1][0]


def test_context_and_provenance_are_those_of_a_method_s_version(tmp_path: Path) -> None:
    facts = method_facts()["cfn_sr"]
    today = replace(SPEC, version=facts.version)
    assert write_record(replace(RECORD, spec=today), tmp_path).is_file()
    for change in ({"context": "dialogue"}, {"provenance": "baseline"}):
        with pytest.raises(Misuse, match="context and provenance are not those of cfn_sr"):
            write_record(replace(RECORD, spec=today, **change), tmp_path)
        assert write_record(replace(RECORD, **change), tmp_path).is_file()  # what another version was is not known


def test_own_is_the_provenance_of_methods_that_are_not_built_in_and_theirs_alone(tmp_path: Path) -> None:
    named = replace(RECORD, spec=replace(SPEC, method="my_module:MyFusion"))
    path = write_record(replace(named, provenance="own"), tmp_path)
    assert path.parent.name == "my_module.MyFusion"  # Windows has no colon in names of folders
    assert read_record(path).spec.method == "my_module:MyFusion"
    with pytest.raises(Misuse, match="provenance says that my_module:MyFusion is built in"):
        write_record(named, tmp_path)
    with pytest.raises(Misuse, match="provenance says that the built-in method cfn_sr is not"):
        write_record(replace(RECORD, provenance="own"), tmp_path)


@pytest.mark.parametrize("key", ["seconds", "parameters", "device", "curve", "versions", "protocol", "features"])
def test_a_record_that_was_changed_by_hand_is_named_and_left_out(tmp_path: Path, key: str) -> None:
    path = write_record(WHOLE, tmp_path)
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")  # another layout is the same content
    assert read_record(path) == WHOLE
    others = {"seconds": 1.26, "parameters": 385_346, "device": "gpu", "versions": {}, "protocol": None}
    others["curve"] = {**content["curve"], "train/loss": [0.25]}
    others["features"] = {**content["features"], "text": {**content["features"]["text"], "parameters": 0}}
    path.write_text(json.dumps({**content, key: others[key]}), encoding="utf-8")
    assert_one_problem(tmp_path, path)
    with pytest.raises(Misuse, match="was changed after it was written: its sha256 is not that of its content"):
        read_record(path)


def test_a_record_of_other_test_utterances_than_most_of_its_fold_is_named_and_left_out(tmp_path: Path) -> None:
    runs = [replace(WHOLE, spec=replace(SPEC, seed=seed)) for seed in range(3)]
    for run in runs:
        write_record(run, tmp_path)
    index = write_record(replace(WHOLE, spec=replace(SPEC, seed=4), test_index=[3, 5, 9]), tmp_path)
    true = [[1, 0, 0], [1, 1, 0], [0, 0, 0]]  # another label of the third utterance
    labels = replace(WHOLE, spec=replace(SPEC, seed=5), test_confusion=true, literature=None, robustness=None)
    labels = replace(labels, test_by_cluster=[[[1, 0, 0], [0, 0, 0], [0, 0, 0]], [[0, 0, 0], [1, 1, 0], [0, 0, 0]]])
    odd = write_record(labels, tmp_path)
    elsewhere = replace(labels, spec=replace(SPEC, fold=3))
    write_record(elsewhere, tmp_path)
    records, problems = load_records(tmp_path)
    assert sorted(records, key=lambda each: each.spec.name) == sorted(
        [*runs, elsewhere], key=lambda each: each.spec.name
    )
    assert [path for path in (index, odd) for problem in problems if str(path) in problem] == [index, odd]
    assert all("tests other utterances" in problem for problem in problems)


# What a file may say


@pytest.mark.parametrize("name", ["../../x", "..", ".hidden", "a/b", "a\\b", "a b", "a\n# b", "", "x" * 101, "<b>"])
@pytest.mark.parametrize("key", ["dataset", "method", "label_set", "protocol", "strategy"])
def test_nothing_that_a_record_says_leads_out_of_its_folder(tmp_path: Path, key: str, name: str) -> None:
    spec = replace(SPEC, **{key: name})
    with pytest.raises(Misuse, match=f"{key} must be a name of at most 100 letters, digits"):
        write_record(replace(RECORD, spec=spec), tmp_path / "results")
    assert files(tmp_path) == []
    path = SPEC.path(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(asdict(replace(RECORD, spec=spec))), encoding="utf-8")
    assert_one_problem(tmp_path, path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\xef\xbb\xbf{}", "BOM"),
        ("{}".encode("utf-16"), "codec can't decode"),
        (b"[" * 20_000, "nested too deeply"),
        (b'{"spec": ' * 20_000, "nested too deeply"),
        (b"9" * 6_000, "Exceeds the limit"),
        (b'{"seconds": NaN}', "NaN is no number in JSON"),
        (b'{"seconds": -Infinity}', "-Infinity is no number in JSON"),
        (b'{"seconds": 1, "seconds": 2}', "the key 'seconds' occurs twice"),
        (b'{"seconds": 1e999}', "seconds must be a number <= 1e+30, not inf"),
        (b'{"secnds": 1}', "did you mean 'seconds'?"),
        (b'{"spec": {"seeds": 1}}', "did you mean 'seed'?"),
        (b"\xff", "codec can't decode"),
    ],
)
def test_what_is_not_strict_json_is_one_sentence(tmp_path: Path, text: bytes, said: str) -> None:
    path = SPEC.path(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(text)
    assert_one_problem(tmp_path, path)
    assert said in load_records(tmp_path)[1][0]
    with pytest.raises(Misuse) as caught:
        read_spec(path)
    assert "\n" not in str(caught.value)


def test_what_is_no_regular_file_is_skipped_aloud(tmp_path: Path) -> None:
    other = write_record(RECORD, tmp_path)
    pipe, folder, link = (other.with_name(f"{name}.json") for name in ("pipe", "folder", "link"))
    os.mkfifo(pipe)
    folder.mkdir()
    link.symlink_to("nowhere")
    records, problems = load_records(tmp_path)
    assert records == [RECORD]
    assert [sum(str(path) in problem for problem in problems) for path in (pipe, folder, link)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fold": 0}, "fold must be a whole number >= 1, not 0"),
        ({"seed": None}, "seed must be a whole number, not None"),
        ({"seed": 2**32}, "seed must be a whole number <= 4294967295"),
        ({"devices": 0}, "devices must be a whole number >= 1"),
        ({"num_nodes": 4294967296}, "num_nodes must be a whole number <= 1000, not 4294967296"),
        ({"training": {"learning_rate": 1e300}}, "training.learning_rate must be a number <= 1e+30, not 1e+300"),
        ({"training": {}}, None),
        ({"training": {"epochs": 0}}, "training.epochs must be a whole number >= 1, not 0"),
        ({"training": {"epoch": 1}}, "'epoch': did you mean 'epochs'?"),
        ({"training": {"gradient_clip": -1}}, "training.gradient_clip must be a number >= 0.0, not -1"),
        ({"training": {"warmup": True}}, "training.warmup must be a number, not True"),
        ({"options": {"hidden": {"a": 1}}}, "options[...]"),
        ({"features_sha256": {"text": "abc"}}, "must be a sha256 of 64 hexadecimal digits"),
        ({"compile": 1}, "compile must be true or false, not 1"),
    ],
)
def test_a_spec_out_of_range_is_one_sentence(tmp_path: Path, change: dict[str, Any], said: str | None) -> None:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({**asdict(SPEC), **change}), encoding="utf-8")
    if said is None:  # what a training does not say is the default
        assert read_spec(path) == SPEC
        return
    with pytest.raises(Misuse) as caught:
        read_spec(path)
    assert str(caught.value).startswith(str(path)) or "unknown key" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ['{"a":1,"a":2}', '{"b":1,"a":2}', '{"a": 1}', '{"a":NaN}', '{"a":1e-5}', '{"a":1e-05}', '{"a":1.0e3}',
     '{"a":"\\u0061"}', '\ufeff{"a":1}', '{"a":1', "[" * 3000, '{"a":-0}'],
)  # fmt: skip
def test_a_text_that_may_be_of_another_form_is_read_with_more_care(text: str) -> None:
    assert parse_canonical(text.encode()) is None


@pytest.mark.parametrize("content", [{"a": [2e-06, -2.5e-07, 1.5, 0, 2**53], "b": 'é \\ "', "c": None}, [], {}])
def test_a_text_that_was_written_by_this_package_is_read_fast(content: object) -> None:
    text = canonical_json(content)
    assert parse_canonical(text.encode()) == content == json.loads(text)


def test_every_committed_record_is_the_same_read_fast_and_with_care(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = sorted((Path(__file__).parents[1] / "benchmarks" / "results").glob("*/*/*.json"))[::40]
    fast = [read_record(path) for path in paths]
    monkeypatch.setattr(records, "parse_canonical", lambda text: None)
    assert [read_record(path) for path in paths] == fast


def test_a_checksum_is_that_of_the_whole_text_also_where_it_is_read_fast(tmp_path: Path) -> None:
    path = write_record(RECORD, tmp_path)
    text = path.read_text(encoding="utf-8")
    for change in (('"device":"', '"device":"x'), ('"sha256":"', '"sha256":"0')):
        changed = text.replace(*change)
        assert changed != text
        path.write_text(changed, encoding="utf-8")
        with pytest.raises(Misuse, match="was changed after it was written"):
            read_record(path)
