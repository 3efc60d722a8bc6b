"""The code that made a run: records hold it, and a bench says when it was edited without a new version."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from suites import RAVDESS, Answer, Call, spec_of, train, write_suite

from mer_bench.datasets import DATASETS
from mer_bench.records import load_records, read_record, write_record
from mer_bench.training import code
from mer_bench.training.code import code_of, is_changed

CLASSES = tuple(DATASETS[RAVDESS].label_sets["eight"].values())


def test_a_record_holds_source_options_and_commit(root: Path) -> None:
    spec = spec_of(root, "tensor_fusion", options={"hidden": 4, "dropout": 0.5}, training={"epochs": 1})
    found = code_of(spec, CLASSES)
    assert found.options["hidden"] == 4
    assert found.options["post_fusion"] == [128, 128]  # a default, in the form that JSON has
    assert found.source == code.sha256(Path(code.__file__).parents[1] / "fusion" / "tensor_fusion.py")
    assert train(spec_of(root, "majority"), root).code == code_of(spec_of(root, "majority"), CLASSES)


def test_a_record_holds_options_whose_defaults_depend_on_the_names_of_the_classes(root: Path) -> None:
    spec = spec_of(root, "graph_smile", options={"hidden": 8})
    assert code_of(spec, ("neutral", "joy", "anger", "sadness")).options["sentiments"] == "0+--"
    assert code_of(spec, CLASSES).options["sentiments"] == ""
    chosen = replace(spec, options={"sentiments": "abcd"})
    assert code_of(chosen, ("neutral", "joy", "anger", "sadness")).options["sentiments"] == "abcd"


@pytest.mark.parametrize(
    ("change", "changed"),
    [({}, False), ({"source": "0" * 64}, True), ({"commit": None}, False), ({"dirty": True}, False)],
)
def test_source_and_options_tell_whether_code_was_edited(root: Path, change: dict[str, object], changed: bool) -> None:
    record = train(spec_of(root, "majority"), root)
    assert record.code is not None
    assert is_changed(replace(record, code=replace(record.code, **change))) == changed
    assert not is_changed(replace(record, code=None))


def test_another_default_is_other_code(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = replace(train(spec_of(root, "majority"), root), code=code_of(spec_of(root, "early_concat"), CLASSES))
    record = replace(record, spec=spec_of(root, "early_concat"))
    assert not is_changed(record)
    facts = code.find_facts("early_concat")
    monkeypatch.setattr(code, "find_facts", lambda _: replace(facts, options={**facts.options, "dropout": 0.77}))
    assert is_changed(record)


def test_a_default_that_depends_on_the_classes_is_no_edited_code(root: Path) -> None:
    spec = spec_of(root, "graph_smile", options={"hidden": 8})
    known = code_of(spec, ("neutral", "joy", "anger", "sadness"))
    record = replace(train(spec_of(root, "majority"), root), spec=spec, code=known)
    assert known.options["sentiments"] == "0+--"
    assert not is_changed(record)
    assert is_changed(replace(record, code=replace(known, options={**known.options, "hidden": 9})))


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_that_of_the_package_and_dirty_means_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "src" / "mer_bench"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(code.mer_bench, "__file__", str(package / "__init__.py"))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))  # as within a hook of git
    look = code._repository.__wrapped__
    monkeypatch.delenv("GIT_DIR")
    assert look() == (None, False)
    git(tmp_path, "init", "-q")
    (tmp_path / "results.json").write_text("{}")
    git(tmp_path, "add", "results.json")
    git(tmp_path, "commit", "-qm", "a")
    assert look() == (None, False)  # a repository that does not hold the package, such as one around an environment
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "b")
    commit = git(tmp_path, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert look() == (commit, False)
    (tmp_path / "results.json").write_text("[]")  # a bench writes records all the time
    assert look() == (commit, False)
    (package / "__init__.py").write_text("x = 1")
    assert look() == (commit, True)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert look() == (None, False)


def test_a_bench_says_that_code_was_edited_and_makes_such_runs_again_when_asked(
    call: Call, root: Path, tmp_path: Path
) -> None:
    suite = write_suite(tmp_path / "suite.toml", methods='"majority"')
    results = tmp_path / "results"

    def bench(*more: str) -> Answer:
        answer = call("bench", suite, "--data", root, "--results", results, "--logger", "none", *more)
        assert answer.code == 0
        return answer

    assert "other code" not in bench().err
    records, _ = load_records(results)
    edited, kept = records[:2], records[2:]
    for record in edited:
        assert record.code is not None
        write_record(replace(record, code=replace(record.code, source="0" * 64), seconds=77.0), results)
    said = bench().err
    assert "2 records were made by other code, of the same version, of majority: --rerun-changed" in said
    assert "6 recorded, 0 to do" in said
    assert "4 recorded, 2 to do" in bench("--rerun-changed").err
    again = [read_record(record.spec.path(results)) for record in edited]
    assert [record.code for record in again] == [record.code for record in edited]
    assert all(record.seconds < 77 for record in again)
    assert [read_record(record.spec.path(results)) for record in kept] == kept  # were not made again
    assert "other code" not in bench("--rerun-changed").err
    assert (results / RAVDESS).is_dir()
