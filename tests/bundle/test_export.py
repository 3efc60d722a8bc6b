"""Getting the model of a record: copied where it was kept, else trained again and compared."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from lab import spec_for
from suites import Call, train

from mer_bench.bundle import export as exporting
from mer_bench.bundle.export import export
from mer_bench.bundle.facts import FILE, WEIGHTS
from mer_bench.errors import Misuse
from mer_bench.records import RunSpec, bundle_path, read_record, write_record


@pytest.fixture
def bare(records: dict[str, Path], tmp_path: Path) -> Path:
    """The record of early_concat without its model, in a folder of its own."""
    return write_record(read_record(records["early_concat"]), tmp_path / "bare")


def same(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in (FILE, WEIGHTS))


def test_a_kept_model_is_copied_without_its_corpus(records: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "new" / "model", tmp_path / "empty"):
        assert "copied" in export(records["early_concat"], folder, tmp_path / "nowhere")[0]
        assert same(folder, bundle_path(records["early_concat"]))


def test_a_model_that_was_not_kept_is_trained_again_and_is_the_same(
    bare: Path, records: dict[str, Path], data: Path, tmp_path: Path, call: Call
) -> None:
    answer = call("export", bare, "--to", tmp_path / "again", "--data", data)
    assert answer.code == 0, answer.err
    assert "trained again; its 24 test predictions are those of the record" in answer.out
    assert same(tmp_path / "again", bundle_path(records["early_concat"]))
    assert not bundle_path(bare).exists()


def test_other_predictions_than_those_of_the_record_are_said_aloud(
    bare: Path, data: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_elsewhere(spec: RunSpec, root: Path, **settings: object) -> object:
        record = train(spec, root, **settings)
        first, *rest = record.test_predictions
        return replace(record, test_predictions=[(first + 1) % 3, *rest])

    monkeypatch.setattr(exporting, "run", run_elsewhere)
    answer = call("export", bare, "--to", tmp_path / "again", "--data", data)
    assert (answer.code, answer.out) == (0, f"{tmp_path / 'again'}\n")
    assert "WARNING: 1 of 24 test predictions differ from those of the record, which was made on cpu" in answer.err


def test_a_model_of_another_run_of_the_same_spec_is_not_taken_for_that_of_the_record(
    bare: Path, records: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    shutil.copytree(bundle_path(records["early_concat"]), bundle_path(bare))
    record = read_record(bare)
    assert record.code is not None
    write_record(replace(record, code=replace(record.code, source="0" * 64)), bare.parents[2])
    assert export(bare, tmp_path / "model", data)[0].startswith("trained again")


def test_the_description_of_a_run_is_enough(data: Path, tmp_path: Path) -> None:
    from mer_bench.records import write_failure

    path = write_failure(spec_for(data, "majority"), tmp_path, "no luck")
    assert export(path, tmp_path / "model", data)[0].startswith("trained; there is no record")
    assert (tmp_path / "model" / WEIGHTS).is_file()


def test_what_cannot_be_exported_is_one_sentence_and_nothing_is_touched(
    records: dict[str, Path], bare: Path, data: Path, tmp_path: Path
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("mine")
    for folder in (full, full / "mine"):
        with pytest.raises(Misuse, match="exists; name a folder that does not, or an empty one"):
            export(records["early_concat"], folder, data)
    assert (full / "mine").read_text() == "mine"
    with pytest.raises(Misuse, match="is absent"):
        export(tmp_path / "none.json", tmp_path / "model", data)
    with pytest.raises(Misuse, match="unknown dataset"):
        export(bare, tmp_path / "model", tmp_path / "nowhere")
    (tmp_path / "bare.json").write_text("[]")
    with pytest.raises(Misuse, match="must be a mapping"):
        export(tmp_path / "bare.json", tmp_path / "model", data)
    several = write_record(
        replace(read_record(bare), spec=replace(spec_for(data, "majority"), devices=2)), tmp_path / "several"
    )
    with pytest.raises(Misuse, match="run on several devices"):
        export(several, tmp_path / "model", data)
    assert not (tmp_path / "model").exists()
