"""The cache beside the records: the same pages with it as without, and nothing in it that is believed unseen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_runs import consistent, external
from pages import LAYOUT
from suites import Call
from test_leaderboard import clustered

from mer_bench import workspace
from mer_bench.calibration import Calibration
from mer_bench.errors import Misuse
from mer_bench.exposure import Exposure
from mer_bench.external import write_external
from mer_bench.files import sha256
from mer_bench.methods import is_current
from mer_bench.metrics import BINS
from mer_bench.records import MONITOR, RunRecord, read_record, write_record
from mer_bench.report import archive, cache, page, plots
from mer_bench.report import board as report
from mer_bench.report.archive import make_kept, unpack
from mer_bench.report.rows import ResultRow
from mer_bench.report.tables import Table
from mer_bench.workspace import copy_published

ROOT = Path(__file__).parents[2]
REAL = ("ravdess/early_concat", "ravdess/majority", "ravdess/unimodal", "meld/majority")


@pytest.fixture(autouse=True)
def _key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def runs() -> list[RunRecord]:
    return [consistent(clustered(name, seed, hits)) for name, hits in (("a", 8), ("b", 5)) for seed in range(3)]


@pytest.fixture
def results(runs: list[RunRecord], tmp_path: Path) -> Path:
    for each in runs:
        write_record(each, tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose records were read, and not taken from the cache."""
    names: list[str] = []

    def spy(path: Path, text: bytes | None = None) -> RunRecord:
        names.append(path.name)
        return read_record(path, text)

    monkeypatch.setattr(archive, "read_record", spy)
    return names


def plain(results: Path, *, with_published: bool = False) -> report.Board:
    """The pages of whole records, without a cache."""
    found = report.load(results, with_published=with_published)
    made = report.make_board(found.records, None, found.own, found.external, found.trials)
    return replace(made, problems=found.problems)


def text(board: report.Board) -> str:
    return "\n".join(board.files(LAYOUT).values())


def kept(results: Path) -> list[Path]:
    return sorted((results / cache.FOLDER).iterdir())


def test_a_statement_about_an_extractor_survives_the_record_and_the_cache(
    runs: list[RunRecord], tmp_path: Path, read: list[str]
) -> None:
    results = tmp_path / "results"
    statement = Exposure("labels", "fine-tuned on them")
    for run in runs:
        facts = {modality: replace(each, exposure=statement) for modality, each in run.features.items()}
        found = read_record(write_record(replace(run, features=facts), results))
        assert found.features == facts
        assert found.spec.sha256 == run.spec.sha256, "it is no part of a run's identity"
    first, second = (text(report.read_board(results)) for _ in range(2))
    assert first == second == text(plain(results))
    assert "saw labels of this corpus (fine-tuned on them)" in first
    assert len(read) == len(runs), "the second time nothing was read"


def test_real_records_make_the_same_page_with_the_cache_as_without(tmp_path: Path, read: list[str]) -> None:
    results = tmp_path / "results"
    for name in REAL:
        shutil.copytree(ROOT / "benchmarks" / "results" / name, results / name)
    whole = [read_record(path) for path in sorted((ROOT / "benchmarks/results/ravdess/cfn_sr").glob("*.json"))]
    for record in (each for each in whole if is_current(each.spec.method, each.spec.version)):
        for part in ({}, {"cross_modal": False}):
            write_record(replace(record, spec=replace(record.spec, options={**record.spec.options, **part})), results)
    expected = plain(results)
    for part in ("| Balance", "| Retained", "| Cost", "| Ablations"):
        assert part in text(expected), "the records have what each kind of table needs"
    assert report.read_board(results) == expected
    assert len(read) == len([*results.glob("*/*/*.json")])
    read.clear()
    assert report.read_board(results) == expected
    assert read == []


def test_the_html_page_of_brief_records_is_that_of_whole_ones(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jinja2")
    results = tmp_path / "results"
    for name in REAL:
        shutil.copytree(ROOT / "benchmarks" / "results" / name, results / name)
    whole = report.load(results).records
    drawn: list[list[tuple[str, list[float | None]]]] = []

    def draw(found: list[Table], *_: object) -> tuple[dict[str, list[Any]], list[Any]]:
        """No picture; what :func:`mer_bench.report.plots.learning` draws is compared instead."""
        records = [record for table in found for record in table.records]
        drawn.append([(r.spec.sha256, [epoch.get(MONITOR) for epoch in r.curve]) for r in records])
        return {plots.slug(table): [] for table in found}, []

    monkeypatch.setattr(page, "draw", draw)
    expected = page.page(whole, results=results)
    for _ in range(2):
        brief = report.load(results, brief=True).records
        assert page.page(brief, results=results) == expected
    assert len(read) == len(whole), "the second call reads no record"
    assert drawn[0] == drawn[1] == drawn[2]
    assert max(len(curve) for _, curve in drawn[0]) > 10


def test_own_published_external_and_contributed_records_and_problems_come_out_the_same(
    runs: list[RunRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: list[str]
) -> None:
    results, bundled = tmp_path / "results", tmp_path / "bundled"
    published = bundled / "benchmarks" / "results"
    own = [replace(each, spec=replace(each.spec, method="m:Own"), provenance="own") for each in runs[:3]]
    other = [replace(each, spec=replace(each.spec, method="n:Own"), provenance="own") for each in runs[3:]]
    net = [replace(each, spec=replace(each.spec, method="net")) for each in runs[3:]]
    for folder, records in ((results, own), (published, [*runs, *other]), (bundled / "benchmarks/contributed/s", net)):
        for each in records:
            write_record(each, folder)
    one = runs[0]
    write_external([made(one, "MyNet")], results)
    write_external([external("Lost"), made(one, "Net")], bundled / "benchmarks" / "contributed" / "s")
    runs[1].spec.path(published).write_text("{}", encoding="utf-8")
    odd = replace(runs[2], test_index=[each + 1 for each in runs[2].test_index])
    write_record(odd, published)
    monkeypatch.setattr(workspace, "BUNDLED", bundled)
    monkeypatch.setattr(workspace, "suites_folder", lambda: bundled / "benchmarks")
    for with_published in (True, False, True):
        expected = plain(results, with_published=with_published)
        for _ in range(2):
            read.clear()
            assert report.read_board(results, with_published=with_published) == expected
        assert set(read) == ({runs[1].spec.path(results).name} if with_published else set())
        if with_published:
            assert len(expected.problems) == 3
            assert all(sign in text(expected) for sign in ("(own)", " §", "▷", "m:Own", "n:Own"))


def test_a_table_changes_with_what_is_known_of_its_records_from_elsewhere(
    runs: list[RunRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published, results = tmp_path / "benchmarks" / "results", tmp_path / "own"
    own = [replace(each, spec=replace(each.spec, method="m:Own"), provenance="own") for each in runs[:3]]
    paths = [write_record(each, published) for each in (*runs, *own)]
    write_external([made(runs[0], "MyNet")], published)
    results.mkdir()
    monkeypatch.setattr(workspace, "suites_folder", lambda: tmp_path / "benchmarks")

    def same(sign: str) -> None:
        for folder in (published, results):
            expected = plain(folder, with_published=True)
            assert report.read_board(folder, with_published=True) == expected
        assert sign in text(expected)

    same("| Own ")
    # a method of another corpus takes the same title
    other = replace(own[0], spec=replace(own[0].spec, method="n:Own", dataset="other"))
    write_record(other, published)
    same("| m:Own ")
    # the same bytes are those of a run of one's own
    write_record(runs[0], results)
    same(" (own) ")
    # and of an accepted submission
    target = tmp_path / "benchmarks" / "contributed" / "s" / paths[0].parent.relative_to(published)
    target.parent.mkdir(parents=True)
    (results / paths[0].relative_to(published)).unlink()
    paths[0].parent.rename(target)
    same(" § ")
    write_external([made(runs[0], "YourNet")], results)
    same("YourNet")


def made(run: RunRecord, name: str) -> object:
    """Predictions made elsewhere that are those of a run."""
    from test_elsewhere import made as elsewhere

    return elsewhere(name, like=run)


def test_a_row_of_kept_records_has_all_that_a_row_of_whole_ones_has() -> None:
    whole = [
        replace(
            consistent(clustered("a", seed, 8 + seed)),
            robustness={"only": {"audio": [[1, 2], [3, 4]], "text": [[2, 1], [3, 4]]}},
            literature=[[[9, 1], [5, 5]], [[10, 0], [0, 10]], [[5, 5], [5, 5]]],
            gradients={"audio": [0.1, 0.7], "text": [0.3, 0.2]},
            curve=[{"train/loss": 1.0}, {"train/loss": 0.5}],
            calibration=Calibration([120, 30, 7], [20, 31, 4], [1] * BINS, [0] * BINS, [0.3] * BINS),
        )
        for seed in range(3)
    ]
    short = [unpack(make_kept(each)) for each in whole]
    assert (short[0].test_predictions, len(short[0].curve)) == ([], 1)
    one, other = (ResultRow(tuple(records), 1, False, "A") for records in (whole, short))
    for name in ("gradient_ratios", "subset_scores", "scores", "counts", "pooled", "flops", "memory"):
        np.testing.assert_equal(getattr(other, name), getattr(one, name), err_msg=name)
        assert getattr(one, name) is not None
    assert one.test_selection is not None
    assert other.test_selection is not None
    assert other.test_selection.inflation == one.test_selection.inflation > 0
    assert one.probability_scores is not None
    assert other.probability_scores is not None
    np.testing.assert_equal(vars(other.probability_scores), vars(one.probability_scores))
    assert [each.tested for each in short] == [each.tested for each in whole]
    assert [each.spec for each in short] == [each.spec for each in whole]


def test_only_a_record_that_changed_is_read_again_whatever_its_time_says(results: Path, read: list[str]) -> None:
    report.read_board(results)
    read.clear()
    path = sorted(results.glob("*/b/*.json"))[0]
    before, old = path.stat(), read_record(path)
    write_record(replace(old, seconds=old.seconds + 1, parameters=old.parameters + 1), results)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert report.read_board(results) == plain(results)
    assert read == [path.name]
    path.write_text(path.read_text(encoding="utf-8").replace('"seconds":', '"seconds": '), encoding="utf-8")
    assert report.read_board(results) == plain(results), "another form of the same content"
    path.write_text(path.read_text(encoding="utf-8").replace('"parameters":12', '"parameters":13'), encoding="utf-8")
    found = report.read_board(results)
    assert found == plain(results)
    assert "was changed after it was written" in found.problems[0]
    path.unlink()
    assert report.read_board(results) == plain(results)


def test_a_record_under_the_name_of_another_is_not_taken_from_the_cache(results: Path) -> None:
    report.read_board(results)
    first, second = sorted(results.glob("*/b/*.json"))[:2]
    shutil.copy(first, second)
    found = report.read_board(results)
    assert found == plain(results)
    assert "holds another run than its path says" in found.problems[0]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


BROKEN: dict[str, Callable[[Path], object]] = {
    "a bit": flip,
    "its end": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "all": lambda path: path.write_bytes(b""),
    "its name": lambda path: path.replace(path.with_name("other")),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_cache_that_was_broken_is_not_believed(results: Path, read: list[str], how: str) -> None:
    expected = report.read_board(results)
    read.clear()
    for path in kept(results):
        BROKEN[how](path)
    assert report.read_board(results) == expected
    assert len(set(read)) == 6


def test_files_of_a_cache_that_are_exchanged_are_not_believed(results: Path, read: list[str]) -> None:
    expected = report.read_board(results)
    read.clear()
    paths = kept(results)
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, [*contents[1:], contents[0]], strict=True):
        path.write_bytes(content)
    assert report.read_board(results) == expected
    assert len(read) == 6


def test_a_value_is_that_of_its_name_alone(tmp_path: Path) -> None:
    found = cache.open_cache(tmp_path)
    found.put("one", [1])
    found.put("two", [2])
    assert (found.get("one", list[int]), found.get("one", list[str]), found.get("three", list[int])) == (
        [1],
        None,
        None,
    )
    found._path("one").replace(found._path("two"))
    assert found.get("two", list[int]) is None


def test_a_change_of_any_source_that_makes_the_page_is_seen() -> None:
    from test_imports import closure

    names = [name for name in closure("mer_bench.report.board") if name.startswith("mer_bench.")]
    assert "mer_bench.report.tables" in names
    assert "mer_bench.records" in names
    sources = {path.stem for folder in cache.SOURCES for path in folder.glob("*.py")}
    assert {name.rpartition(".")[2] for name in names} - {"report"} <= sources
    assert len(sources) > len(list((ROOT / "src" / "mer_bench").glob("*.py")))


def test_what_another_user_wrote_reaches_no_page(results: Path, tmp_path: Path, read: list[str]) -> None:
    expected = report.read_board(results)
    mine, name = cache.open_cache(results), "part 1 " + str(next(iter(splits(results))))
    part = mine.get(name, report.Part)
    assert part is not None
    forged = replace(part, sections=(replace(part.sections[0], rest="<script>alert(1)</script>"),))
    theirs = cache.Cache(mine.folder, b"0" * 32)
    theirs.put(name, forged)
    theirs._path(name).replace(mine._path(name))
    assert report.read_board(results) == expected
    read.clear()
    (tmp_path / "home" / "mer_bench" / "key").write_bytes(b"1" * 32)  # the user is another
    assert report.read_board(results) == expected
    assert len(read) == 6
    mine.put(name, forged)
    (tmp_path / "home" / "mer_bench" / "key").write_bytes(mine.key)
    assert "<script>" in text(report.read_board(results)), "else this test would show nothing"


def splits(results: Path) -> list[object]:
    entries, _ = archive.load_entries([results], cache.Cache(results / "none", b""))
    return [each.entry.splits for each in entries]


def test_code_that_changed_believes_nothing_of_before(
    results: Path, read: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = report.read_board(results)
    for folder in cache.SOURCES:
        copy = tmp_path / "package" / folder.name
        shutil.copytree(folder, copy, ignore=lambda at, names: [n for n in names if (Path(at) / n).is_dir()])
        monkeypatch.setattr(cache, "SOURCES", (copy,))
        cache.code.cache_clear()
        before = cache.code()
        with (copy / "__init__.py").open("a", encoding="utf-8") as file:
            file.write("# changed\n")
        cache.code.cache_clear()
        assert cache.code() != before
        read.clear()
        assert report.read_board(results) == expected
        assert len(read) == 6
    cache.code.cache_clear()


def test_where_nothing_can_be_kept_the_page_is_the_same(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = plain(results)
    (results / cache.FOLDER).write_text("a file", encoding="utf-8")
    assert report.read_board(results) == expected
    (results / cache.FOLDER).unlink()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert report.read_board(results) == expected
    assert not [path for path in results.rglob("*.tmp")]
    (tmp_path / "home").mkdir(exist_ok=True)
    shutil.rmtree(tmp_path / "home")
    (tmp_path / "home").write_text("no folder", encoding="utf-8")  # no place for a key
    shutil.rmtree(results / cache.FOLDER, ignore_errors=True)
    assert report.read_board(results) == expected
    assert not (results / cache.FOLDER).exists()
    assert text(report.read_board(tmp_path / "none")) == text(report.make_board([]))
    assert not (tmp_path / "none").exists()


def test_two_processes_at_once_write_the_same_page(results: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mer_bench", "leaderboard", "--results", str(results), "--output"]
    pages = [tmp_path / f"{number}.md" for number in range(3)]
    processes = [subprocess.Popen([*command, str(page)], stdout=subprocess.DEVNULL) for page in pages]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    for target in pages:
        expected = plain(results).files(report.Layout.of(target))
        assert {path: path.read_text(encoding="utf-8") for path in expected} == expected
    assert len(list((tmp_path / "home" / "mer_bench").iterdir())) == 1, "the processes agree on one key"


def test_the_command_writes_and_checks_the_page_and_names_what_it_leaves_out(results: Path, call: Call) -> None:
    path = sorted(results.glob("*/b/*.json"))[0]
    path.write_text("{}", encoding="utf-8")
    first, second = (call("leaderboard", "--results", results) for _ in range(2))
    assert (first.code, first.err) == (second.code, second.err)
    assert first.err.startswith(f"warning: {path} lacks the key")
    found = call("leaderboard", "--check", "--results", results)
    assert (found.code, found.err[:6]) == (1, "error:")
    path.unlink()
    assert call("leaderboard", "--results", results).code == 0
    assert call("leaderboard", "--check", "--results", results).code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are Unicode")
def test_a_folder_whose_name_is_no_text_does_no_harm(results: Path) -> None:
    folder = results / os.fsdecode(b"\xff") / "b"
    folder.mkdir(parents=True)
    shutil.copy(sorted(results.glob("*/b/*.json"))[0], folder)
    expected = plain(results)
    assert len(expected.problems) == 1
    assert [report.read_board(results) for _ in range(2)] == [expected, expected]


def test_published_records_are_copied_without_their_cache(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "suites_folder", lambda: tmp_path)
    report.read_board(results)
    before = {path.name: sha256(path) for path in results.rglob("*.json")}
    copy_published(tmp_path / "copy")
    assert {path.name: sha256(path) for path in (tmp_path / "copy").rglob("*") if path.is_file()} == before


def test_every_field_of_a_record_is_either_kept_or_known_to_be_left_out() -> None:
    known = {"validation_confusion", "test_index", "test_predictions", "curve", "test_by_cluster", "versions", "code"}
    made = {"literature", "calibration", "gradients"}  # shortened
    kept = {item.name for item in fields(RunRecord)} - known - made
    run = consistent(clustered("a", 0, 8))
    short, more = (unpack(make_kept(run), with_details=each) for each in (False, True))
    for found, there in ((short, kept), (more, {*kept, "versions"})):
        assert {name for name in there if getattr(found, name) != getattr(run, name)} == set()


def test_a_record_that_changes_while_the_page_is_made_stops_it(results: Path) -> None:
    for kept_by in (cache.open_cache(results), cache.NOT_KEPT):
        found, _ = archive.load_entries([results], kept_by)
        assert len(archive.unpack_all(found, kept_by)) == 6
        old = read_record(found[0].file)
        write_record(replace(old, seconds=old.seconds + 1), results)
        shutil.rmtree(results / cache.FOLDER, ignore_errors=True)
        with pytest.raises(Misuse, match="changed while the page was made; run the command again"):
            archive.unpack_all(found, kept_by)
