"""Submissions: what a check finds wrong with one, and how an accepted one is read."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import html_pages
import pages
import pytest
from fake_runs import external, record, spec
from suites import Call

from mer_bench import load_results, load_tables
from mer_bench.errors import Misuse
from mer_bench.external import write_external
from mer_bench.methods import method_facts
from mer_bench.records import Code, ContributedRecord, RunRecord, load_records, write_record
from mer_bench.report.board import Layout, check, load, read_board, write_board
from mer_bench.report.page import page
from mer_bench.report.printed import choose, print_tables
from mer_bench.submission import FILE, check_submission, new_submission, read_submission, unexpected

ROOT = Path(__file__).parent.parent
DESCRIPTION = {
    "name": "MyNet",
    "contact": "A. Author <a@example.org>",
    "licence": "CC-BY-4.0",
    "selected_on": "validation",
    "statement": "All settings are the defaults of the paper.",
    "url": "https://example.org/net",
}


def a_run(method: str = "gated", seed: int = 0, fold: int = 1) -> RunRecord:
    """A record of a built-in method of today's code."""
    facts = method_facts()[method]
    made = record(replace(spec(method, seed), version=facts.version, fold=fold))
    return replace(made, context=facts.track, provenance=facts.kind, code=Code("0" * 64, {}, "c" * 40, False))


def describe(folder: Path, **changes: Any) -> None:
    facts = {key: value for key, value in {**DESCRIPTION, **changes}.items() if value is not None}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in facts.items()))


PUBLISHED = [a_run("early_concat", seed, fold) for seed in range(2) for fold in range(1, 7)]
SUBMITTED = [a_run("gated", seed, fold) for seed in range(2) for fold in range(1, 7)]


def submitted(folder: Path, records: Sequence[RunRecord] = SUBMITTED, **changes: Any) -> Path:
    describe(folder, **changes)
    for each in records:
        write_record(each, folder)
    return folder


def test_a_whole_submission_is_ready(tmp_path: Path) -> None:
    write_external([external("Net", seed, fold, selected_on="validation") for seed in (0, 1) for fold in range(1, 7)],
                   tmp_path / "s")  # fmt: skip
    found = check_submission(submitted(tmp_path / "s"), PUBLISHED)
    assert found.problems == ()
    assert found.remarks == ("some of the records are of simulated corpora, which are no evidence about real ones",)
    assert found.summary == (
        f"{tmp_path / 's'}: 12 records and 12 records of predictions made elsewhere, of Net, gated on simulated-ravdess"
    )


def other_rows(made: RunRecord) -> RunRecord:
    return replace(made, test_index=[0, 1, 3])


def other_labels(made: RunRecord) -> RunRecord:
    return replace(made, test_confusion=[[0, 1], [1, 1]])


def other_features(made: RunRecord) -> RunRecord:
    return replace(made, spec=replace(made.spec, features_sha256={"audio": "1" * 64}))


def another_version(made: RunRecord) -> RunRecord:
    return replace(made, spec=replace(made.spec, version=made.spec.version + 1))


def own(made: RunRecord) -> RunRecord:
    return replace(made, spec=replace(made.spec, method="my:Net"), provenance="own")


@pytest.mark.parametrize(
    ("change", "description", "part"),
    [
        (other_rows, {}, "tests other utterances of fold 1, or knows other labels of them, than the published"),
        (other_labels, {}, "tests other utterances of fold 1, or knows other labels of them, than the published"),
        (other_features, {}, f"audio a of simulated-ravdess has the hash {'1' * 12} in the submission and {'0' * 12}"),
        (another_version, {}, "the records of gated were made by version "),
        (own, {"url": None}, "needs the url of the code"),
        (None, {"selected_on": "test"}, "selected_on must be 'validation', not 'test'"),
        (None, {"licence": "GPL-3.0"}, "licence must be 'CC0-1.0' or 'CC-BY-4.0', not 'GPL-3.0'"),
        (None, {"license": "CC0-1.0"}, "'license': did you mean 'licence'?"),
        (None, {"contact": None}, "lacks the key 'contact'"),
        (None, {"contact": ""}, "contact must be"),
        (None, {"statement": "none"}, "statement must be"),
        (None, {"url": "ftp://x.org"}, "url must be an address"),
    ],
)
def test_each_problem_is_one_sentence(
    tmp_path: Path, change: Callable[[RunRecord], RunRecord] | None, description: dict[str, Any], part: str
) -> None:
    folder = submitted(tmp_path / "s", [change(each) if change else each for each in SUBMITTED[:1]], **description)
    (problem,) = check_submission(folder, PUBLISHED).problems
    assert part in problem
    assert "\n" not in problem


def test_edited_records_and_what_does_not_belong_there_are_problems(tmp_path: Path) -> None:
    folder = submitted(tmp_path / "s")
    (first, second, *_) = sorted(folder.rglob("*.json"))
    first.write_text(first.read_text().replace('"seconds":1.0', '"seconds":0.5'))
    second.write_text(second.read_text()[:-9])
    for name in ("clip.wav", "gated/weights.ckpt", "simulated-ravdess/gated/probabilities.npz", ".hidden",
                 "simulated-ravdess/gated/x.failed.json"):  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (folder / "simulated-ravdess" / "gated" / "link.json").symlink_to(first)
    problems = check_submission(folder, PUBLISHED).problems
    assert len(problems) == 3
    assert problems[0].endswith(
        "holds what is neither a record nor submission.toml: .hidden, clip.wav, gated/weights.ckpt, "
        "simulated-ravdess/gated/link.json, simulated-ravdess/gated/probabilities.npz, "
        "simulated-ravdess/gated/x.failed.json"
    )
    assert "was changed after it was written" in problems[1]
    assert "is not a readable record" in problems[2]


def test_large_files_are_named_and_not_read(tmp_path: Path) -> None:
    folder = submitted(tmp_path / "s")
    (folder / "simulated-ravdess" / "gated" / "large.json").write_bytes(b"[" * (2 << 20))
    (problem,) = check_submission(folder, PUBLISHED).problems
    assert "has 2,097,152 bytes, and a record at most 1,048,576" in problem


def test_predictions_need_their_statement_and_the_url_of_their_code(tmp_path: Path) -> None:
    describe(tmp_path, url=None)
    write_external([external("Net")], tmp_path)
    first, second = check_submission(tmp_path, PUBLISHED).problems
    assert "needs the url of the code" in first
    assert "the predictions of Net lack their statement: score them again with --selected-on validation" in second
    describe(tmp_path)
    other = replace(external("Other", selected_on="validation"), test_index=[0, 1, 9])
    write_external([other], tmp_path)
    assert any("external/Other" in each and "tests other utterances" in each
               for each in check_submission(tmp_path, PUBLISHED).problems)  # fmt: skip


def test_what_cannot_be_compared_and_what_is_not_whole_is_said(tmp_path: Path) -> None:
    new_set = replace(SUBMITTED[0].spec, features={"audio": "new"}, features_sha256={"audio": "2" * 64})
    facts = replace(SUBMITTED[0].features["audio"], name="new")
    dirty = replace(SUBMITTED[0], spec=new_set, features={"audio": facts}, code=Code("0" * 64, {}, None, True))
    found = check_submission(submitted(tmp_path / "s", [dirty, PUBLISHED[0]]), PUBLISHED)
    assert found.problems == ()
    said = "\n".join(found.remarks)
    for part in (
        "no published record reads audio new of simulated-ravdess, so its hash 222222222222 cannot be compared",
        "1 of the records were made by code with changes that were not committed",
        "1 of the runs are published already",
        "gated on audio has 1 of 6 folds with seed 0 of simulated-ravdess eight folds6",
        "gated on audio has 0 complete seeds of simulated-ravdess eight folds6, and published rows up to 2",
    ):
        assert part in said, said
    nothing = check_submission(tmp_path / "s", [])
    assert "no published record has these classes on simulated-ravdess eight folds6" in "\n".join(nothing.remarks)


def test_a_folder_without_records_or_description_is_no_submission(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="mer-bench submit --new"):
        check_submission(tmp_path / "nowhere", [])
    first, second = check_submission(tmp_path, []).problems
    assert "cannot read the description of a submission" in first
    assert "holds no records" in second


def test_the_template_lacks_only_what_must_be_filled_in(tmp_path: Path) -> None:
    path = new_submission(tmp_path / "s")
    with pytest.raises(Misuse, match="exists"):
        new_submission(tmp_path / "s")
    text = path.read_text(encoding="utf-8")
    with pytest.raises(Misuse, match="name must be"):
        read_submission(path.parent)
    for key in ("name", "contact", "statement"):
        text = text.replace(f'{key} = ""', f'{key} = "{DESCRIPTION[key]}"')
    path.write_text(text, encoding="utf-8")
    assert read_submission(path.parent).contact == DESCRIPTION["contact"]


@pytest.fixture
def accepted(tmp_path: Path) -> Path:
    """A folder of published records, with an accepted submission beside it."""
    results = tmp_path / "benchmarks" / "results"
    for each in PUBLISHED:
        write_record(each, results)
    submitted(tmp_path / "benchmarks" / "contributed" / "net")
    write_external([external("Net", selected_on="validation")], tmp_path / "benchmarks" / "contributed" / "net")
    return results


def test_rows_of_accepted_submissions_are_marked_and_no_others(accepted: Path) -> None:
    found = load(accepted)
    assert found.problems == []
    text = pages.leaderboard(found.records, [], found.own, found.external)
    assert "| GMU § " in text
    assert "| Early concatenation ° |" in " ".join(text.split())
    assert (
        "§ marks contributed rows, whose records others submitted; all other rows were run by the maintainers." in text
    )
    assert "| Net ▷ § " in text
    rows = print_tables(choose(found.records), "csv").splitlines()
    assert {row.rpartition(",")[2] for row in rows} == {"Run by", "maintainers", "contributed"}
    assert r"\S{}" in print_tables(choose(found.records), "latex")
    frame = load_results(accepted).set_index("method")
    assert set(frame["contributed"]["gated"]) == {True}
    assert set(frame["contributed"]["early_concat"]) == {False}
    assert all((accepted / file).is_file() for file in frame["file"])
    assert dict(load_tables(accepted).set_index("method")["contributed"]) == {
        "gated": True, "early_concat": False, "Net": True
    }  # fmt: skip
    (details,) = html_pages.read(page(found.records, published=[], results=accepted)).details()
    path = (accepted.parent / "contributed" / "net" / SUBMITTED[0].spec.path(Path())).as_posix()
    assert path in {run[-1] for row in details["rows"].values() for run in row["runs"]}


def test_without_submissions_nothing_says_who_ran_a_row(accepted: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "mine"
    accepted.rename(elsewhere)
    records, _ = load_records(elsewhere)
    assert not any(isinstance(each, ContributedRecord) for each in records)
    assert "Run by" not in pages.leaderboard(records, [])
    assert "§" not in pages.leaderboard(records, [])


def test_of_a_run_that_both_have_the_published_record_counts(accepted: Path) -> None:
    write_record(SUBMITTED[0], accepted)
    records, _ = load_records(accepted)
    (one,) = (each for each in records if each.spec == SUBMITTED[0].spec)
    assert type(one) is RunRecord


def test_nothing_in_a_record_says_that_it_is_contributed(tmp_path: Path) -> None:
    path = write_record(SUBMITTED[0], tmp_path)
    path.write_text(json.dumps({**asdict(SUBMITTED[0]), "submission": "net"}), encoding="utf-8")
    assert "unknown key" in load_records(tmp_path)[1][0]


def test_the_check_of_the_leaderboard_checks_accepted_submissions(accepted: Path, tmp_path: Path) -> None:
    layout = Layout.of(tmp_path / "page.md")
    write_board(read_board(accepted), layout)
    assert check(accepted, layout) is None
    describe(accepted.parent / "contributed" / "net", selected_on="test")
    assert "selected_on must be 'validation'" in str(check(accepted, layout))


def test_the_command_prints_problems_and_exits_with_one(
    call: Call, tmp_path: Path, accepted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("Makefile", "src/mer_bench"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)  # which is a clone now
    assert call("submit", "new", "--new").out == "new/submission.toml\n"
    folder = submitted(tmp_path / "s")
    good = call("submit", "--check", folder)
    assert (good.code, good.err) == (0, "")
    assert good.out.endswith("gated on simulated-ravdess\nready\n")
    describe(folder, surname="x")
    bad = call("submit", "--check", folder)
    assert bad.code == 1
    assert bad.err.startswith("problem: unknown key in ")
    assert "ready" not in bad.out
    assert call("submit", folder).code == 2


def test_git_has_records_and_nothing_else_below_the_published_ones(tmp_path: Path) -> None:
    folder = "benchmarks/results"
    tracked = subprocess.run(["git", "ls-files", "-z", folder], cwd=ROOT, capture_output=True, check=True, text=True)
    for name in filter(None, tracked.stdout.split("\0")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(unexpected(tmp_path / folder, (), trials=True)) == []
    (found,) = unexpected(tmp_path / folder, ())
    assert "neither a record nor a folder of records: trials/" in found, "what is submitted has none"
