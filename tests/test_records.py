"""Records: a run's path is its identity, a file is complete or absent, and others load beside a damaged one."""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest

from mer_bench.errors import Misuse
from mer_bench.files import new_folder, write_atomic
from mer_bench.records import (
    MEASURES,
    RunRecord,
    RunSpec,
    Training,
    check_measures,
    load_records,
    measured,
    read_record,
    training_fields,
    write_failure,
    write_record,
)

SPEC = RunSpec(
    dataset="iemocap",
    label_set="six",
    protocol="session5",
    fold=0,
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
    features={"text": {"name": "minilm", "dim": 384}, "audio": {"name": "mfcc", "dim": 40}},
    rows={"train": 6, "validation": 2, "test": 3},
    validation_confusion=[[1, 0, 0], [0, 1, 0], [0, 0, 0]],
    test_confusion=[[1, 0, 0], [0, 1, 0], [1, 0, 0]],
    test_index=[3, 5, 8],
    test_predictions=[0, 1, 0],
    curve=[{"train/loss": 0.1 + 0.2, "val/weighted_f1": 1 / 3}],
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
}


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
    assert set(OTHER_TRAINING) == {field.name for field in fields(Training)} == set(training_fields())


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


def test_training_fields_have_the_types_of_their_defaults() -> None:
    assert training_fields() == {name: type(value) for name, value in asdict(Training()).items()}


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
    path = write_record(replace(RECORD, encoder_parameters=25_886_368), tmp_path)
    assert read_record(path).encoder_parameters == 25_886_368
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["encoder_parameters"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert read_record(path) == replace(RECORD, encoder_parameters=None)


def test_measures_are_optional_and_survive_a_file(tmp_path: Path) -> None:
    measures: dict[str, Any] = {
        "literature": [[[1, 0, 0], [0, 0, 1], [1, 0, 0]]],
        "robustness": {"missing": {"0.1": [[1, 0, 0], [1, 0, 0], [1, 0, 0]]}},
        "efficiency": {"device": "cpu", "threads": 1, "latency_seconds": 0.001, "latency_utterances": 1},
    }
    assert tuple(measures) == MEASURES
    path = write_record(replace(RECORD, **measures), tmp_path)
    assert read_record(path) == replace(RECORD, **measures)
    assert measured(read_record(path)) == set(MEASURES)
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({k: v for k, v in content.items() if k not in measures}), encoding="utf-8")
    assert read_record(path) == RECORD  # an older record, without measures
    assert measured(RECORD) == set()


@pytest.mark.parametrize(("name", "nearest"), [("litrature", "literature"), ("speed", None)])
def test_a_measure_that_does_not_exist_is_one_sentence(name: str, nearest: str | None) -> None:
    assert check_measures(["robustness", "robustness"]) == ("robustness",)
    with pytest.raises(Misuse, match=f"unknown measure '{name}'.*{nearest or ', '.join(MEASURES)}"):
        check_measures([name])


@pytest.mark.parametrize(
    ("change", "spec"),
    [({}, {field: value}) for field in OTHER_SPEC for value in (None, "x", 77, [1])]
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
    with pytest.raises(Misuse, match="another run than its name says"):
        read_record(moved)


def test_a_record_that_is_absent_is_a_misuse(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="No such file"):
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
