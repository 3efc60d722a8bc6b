"""In a clone and elsewhere: where files go, which suite a name is, and which commands messages name."""

from __future__ import annotations

import re
from pathlib import Path

import html_pages
import pytest
from fake_runs import record, spec
from suites import Call

import mer_bench.workspace as workspace
from mer_bench.datasets import DATASETS
from mer_bench.errors import Misuse
from mer_bench.records import load_records, write_record
from mer_bench.report.board import load
from mer_bench.suites import read_suite_file
from mer_bench.training import bench as benches
from mer_bench.training.options import BenchOptions
from mer_bench.utterances import read_table

ROOT = Path(__file__).parent.parent
NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.toml"))


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def clone(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository, which is the working folder."""
    monkeypatch.chdir(ROOT)
    return ROOT


@pytest.mark.usefixtures("clone")
def test_in_a_clone_records_and_leaderboard_are_the_repositorys() -> None:
    assert BenchOptions().results == Path("benchmarks/results")
    assert workspace.default_leaderboard(Path("benchmarks/results")) == Path("leaderboard.md")
    assert workspace.default_leaderboard(Path("my_results")) == Path("my_results/leaderboard.md")
    assert workspace.default_tables(Path("leaderboard.md")) == Path("benchmarks/tables")
    assert workspace.default_tables(ROOT / "leaderboard.md") == Path("benchmarks/tables")
    assert workspace.default_tables(Path("my_results/leaderboard.md")) == Path("my_results/tables")
    assert workspace.default_tables(Path("mine.md")) == Path("mine-tables")


@pytest.mark.usefixtures("empty")
def test_elsewhere_files_go_into_the_working_folder(call: Call) -> None:
    assert BenchOptions().results == Path("results")
    assert BenchOptions().root == Path("data")
    assert workspace.default_leaderboard(Path("results")) == Path("leaderboard.md")
    assert workspace.default_leaderboard(Path("others")) == Path("others/leaderboard.md")
    assert workspace.default_tables(Path("leaderboard.md")) == Path("tables")
    write_record(record(spec("unimodal")), Path("results"))
    assert call("leaderboard").out == "leaderboard.md\n"
    assert sorted(path.name for path in Path().iterdir()) == ["leaderboard.md", "results", "tables"]
    (page,) = Path("tables").glob("*-*.md")
    assert "`unimodal`" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("missing", ["Makefile", "benchmarks", "src/mer_bench"])
def test_a_folder_that_lacks_a_part_of_a_clone_is_none(empty: Path, missing: str) -> None:
    for part in {"Makefile", "benchmarks", "src/mer_bench"} - {missing}:
        (empty / part).mkdir(parents=True)
    assert not workspace.in_clone()
    (empty / missing).mkdir(parents=True)
    assert workspace.in_clone()


@pytest.mark.parametrize("name", NAMES)
def test_a_suite_is_given_by_name_or_path(empty: Path, name: str) -> None:
    by_name, by_path = (read_suite_file(path) for path in (Path(name), ROOT / "benchmarks" / f"{name}.toml"))
    assert by_name == by_path
    assert workspace.suite_argument(by_name.file) == name


@pytest.mark.usefixtures("clone")
def test_in_a_clone_a_name_is_the_suite_of_the_clone() -> None:
    assert workspace.find_suite(Path("ravdess")) == Path("benchmarks/ravdess.toml")
    assert workspace.suite_argument(Path("benchmarks/ravdess.toml")) == "benchmarks/ravdess.toml"


def test_a_file_without_a_suffix_is_taken_before_a_name(empty: Path) -> None:
    (empty / "ravdess").write_text("", encoding="utf-8")
    assert workspace.find_suite(Path("ravdess")) == Path("ravdess")


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("ravdes", "unknown suite 'ravdes': did you mean 'ravdess'. valid are ablation_iemocap, "),
        ("benchmarks/ravdess.toml", "unknown suite in benchmarks 'ravdess': .*; by name alone there are .*ravdess"),
        ("ravdess.toml", "unknown suite in . 'ravdess': .*; by name alone there are .*ravdess"),
    ],
)
def test_no_suite_is_one_sentence_with_the_names(given: str, sentence: str) -> None:
    with pytest.raises(Misuse, match=sentence):
        workspace.find_suite(Path(given))


@pytest.mark.parametrize("name", ["ravdess", "iemocap", "meld"])
def test_messages_name_the_command_that_works_where_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    label_set, protocol = next(iter(DATASETS[name].label_sets)), next(iter(DATASETS[name].protocols))
    for folder, command in ((ROOT, f"make data DATASET={name} RAW="), (tmp_path, f"mer-bench prepare {name} --raw ")):
        monkeypatch.chdir(folder)
        with pytest.raises(Misuse, match=command):
            DATASETS[name](tmp_path, label_set=label_set, protocol=protocol)
        with pytest.raises(Misuse, match=command.replace(name, "CORPUS")):
            read_table(tmp_path)


def test_no_message_names_make_but_by_the_helper() -> None:
    """Strings that are not docstrings or comments; ``workspace`` has the helper and ``cli`` the line for clones."""
    for path in (*(ROOT / "src").rglob("*.py"), *(ROOT / "data_prep").rglob("*.py")):
        if path.name not in ("workspace.py", "readme.py"):
            lines = path.read_text(encoding="utf-8").splitlines()
            named = [line for line in lines if re.search(r"make (data|bench|download)\b", line) and '"' in line]
            assert not [line for line in named if "own runs apart" not in line and '"""' not in line], path


def test_prepare_lists_and_runs_the_commands_of_data_preparation(call: Call, empty: Path) -> None:
    answer = call("prepare", "--help")
    assert answer.code == 0
    assert answer.out.startswith("Usage: mer-bench prepare")
    for name in ("ravdess", "iemocap", "meld", "download", "import", "pack", "audio", "vision", "text"):
        assert f"\n  {name} " in answer.out
    assert "mer-bench[prep]" in answer.out
    wrong = call("prepare", "ravdes", "--raw", empty)
    assert (wrong.code, wrong.err.partition(" valid")[0]) == (
        2,
        "error: unknown command 'ravdes': did you mean 'ravdess'?",
    )
    assert call("prepare", "ravdess").code == 2
    refused = call("prepare", "ravdess", "--raw", empty)
    assert (refused.code, refused.err.count("\n")) == (2, 1)


def test_published_rows_stand_beside_own_ones_which_are_marked(
    empty: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    bundled = empty / "bundled"
    for method in ("published", "both"):
        write_record(record(spec(method)), bundled / "benchmarks" / "results")
    monkeypatch.setattr(workspace, "BUNDLED", bundled)
    for method in ("mine", "both"):
        write_record(record(spec(method)), Path("results"))
    found = load(Path("results"), with_published=True)
    assert sorted(one.spec.method for one in found.records) == ["both", "mine", "published"]
    assert (found.problems, len(found.own)) == ([], 2)

    assert call("leaderboard", "--with-published").code == 0
    front = Path("leaderboard.md").read_text(encoding="utf-8")
    (path,) = Path("tables").glob("*-*.md")
    page = path.read_text(encoding="utf-8").partition("## How to read it")[0]
    assert front.count("(own) contain runs from your folder") == 1
    for text in (front.partition("## ")[2], page):
        rows = [line for line in text.splitlines() if line.startswith("| ")]
        for method, marked in (("mine", True), ("both", True), ("published", False)):
            named = [line for line in rows if re.search(rf"\b{method}\b", line) and ";" not in line]
            assert {"(own)" in line for line in named} == {marked}, named
    assert call("leaderboard", "--check", "--with-published").code == 0
    assert call("leaderboard").code == 0
    assert "| published" not in path.read_text(encoding="utf-8")
    assert "[published]" not in Path("leaderboard.md").read_text(encoding="utf-8")
    assert load_records(Path("results"))[0] != found.records


def test_the_html_page_too_marks_own_rows_and_says_where_published_records_are(
    empty: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    page = pytest.importorskip("mer_bench.report.page")
    monkeypatch.setattr(page.plots, "draw", lambda *_, **__: {})
    bundled = empty / "bundled"
    write_record(record(spec("published")), bundled / "benchmarks" / "results")
    monkeypatch.setattr(workspace, "BUNDLED", bundled)
    write_record(record(spec("mine")), Path("results"))
    assert call("report", "--with-published").code == 0
    both = html_pages.read(Path("report.html").read_text(encoding="utf-8"))
    assert {row["name"]: row["mark"] for row in both.tables()[0]["rows"]} == {"mine": "° (own)", "published": "°"}
    assert both.front["own"]
    (details,) = both.details()
    published = spec("published").path(bundled / "benchmarks" / "results").as_posix()
    assert f"mer-bench run --spec {published}" in details["rows"]["published"]["commands"][0][1]
    assert details["rows"]["mine"]["runs"][0][-1] == spec("mine").path(Path("results")).as_posix()
    assert call("report").code == 0
    alone = html_pages.read(Path("report.html").read_text(encoding="utf-8"))
    assert [(row["name"], row["mark"]) for row in alone.tables()[0]["rows"]] == [("mine", "°")]
    assert not alone.front["own"]


def test_published_records_that_are_packed_are_named_where_a_command_writes_them(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "BUNDLED", empty)
    assert workspace.published_folder() == Path("published")


@pytest.mark.parametrize(("results", "said"), [("benchmarks/results", 1), ("my_results", 0)])
@pytest.mark.usefixtures("clone")
def test_a_bench_of_the_published_records_says_how_to_go_back(
    call: Call, monkeypatch: pytest.MonkeyPatch, results: str, said: int
) -> None:
    done = benches.BenchResult([], [], Path("leaderboard.md"), "tables", [])
    monkeypatch.setattr(benches, "bench", lambda suite, options: done)
    answer = call("bench", "simulated", "--results", results)
    assert answer.err.count("make bench RESULTS=my_results") == said
    assert answer.err.count("git clean -fd benchmarks/results benchmarks/tables") == said
    assert answer.err.count("\n") == said
