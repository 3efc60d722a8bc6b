"""The leaderboard as files: a short front page, a page and a CSV file per table, and what becomes of older files."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pages
import pytest
from fake_runs import consistent
from pages import cells
from test_leaderboard import SETS, clustered, make

from mer_bench.errors import Misuse
from mer_bench.methods import method_facts
from mer_bench.records import RunRecord, write_record
from mer_bench.report import plots
from mer_bench.report.board import MARK, Layout, check, make_board, read_board, write_board
from mer_bench.report.leaderboard import Places, front_page, listed, matrix_rows
from mer_bench.report.matrix import Entry, Standing
from mer_bench.report.names import PICTURES, TRACKS
from mer_bench.report.printed import choose, print_tables

IEMOCAP = {"dataset": "iemocap", "label_set": "six", "protocol": "loso"}
TITLES = {track: [each.title for each in method_facts().values() if each.track == track] for track in TRACKS}


def standing(corpus: str, track: str, rows: int = 80, **changes: object) -> Standing:
    """A table as it is expected to become: each method with its default settings and tuned."""
    names = [name + end for name in TITLES[track] for end in ("", ", tuned")]
    names = names[:rows]
    ranked = tuple(
        Entry(name, name, ("text", "audio"), 70 - at / 4, (60.0, 75.0), at + 1, (1, rows), at < rows // 2,
              1_234_567, 3, name.endswith("tuned"), " †" * (at % 3 == 0))
        for at, name in enumerate(names)
    )  # fmt: skip
    alone = replace(ranked[0], rank=None, ranks=None, tied=None, reads=("text",))
    references = {"single": alone, "linear": replace(alone, name="Linear"), "majority": replace(alone, name="Majority")}
    slug = f"{corpus}-label-set-protocol-{track}-features-of-audio-features-of-text"
    words = f"{corpus.upper()}, six emotions, leave one session out, {track}"
    made = Standing(False, (corpus, "label", "protocol"), track, words, "features of text and features of audio", slug,
                    False, ranked, references)  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def several() -> list[RunRecord]:
    """Runs of two corpora and both tracks, of which one table is a simulated one."""
    made = [
        clustered(name, seed, hits, **IEMOCAP) for name, hits in (("a", 8), ("b", 8), ("c", 3)) for seed in range(3)
    ]
    made += [make("bc_lstm", seed, context="dialogue", **IEMOCAP) for seed in range(2)]
    made += [make("unimodal", seed, modalities=("text",), **IEMOCAP) for seed in range(2)]
    made += [make("gated", sets=SETS | {"text": "roberta"}, **IEMOCAP), make("a", dataset="ravdess", protocol="folds6")]
    return [*made, make("gated", simulated=True, dataset="simulated_meld")]


def links(text: str) -> list[str]:
    """What a page links to, but for other addresses and its own headings."""
    found = re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r"^\[\d+\]: (\S+)$", text, flags=re.MULTILINE)
    return [unquote(each) for each in found if "://" not in each]


def test_the_front_page_stays_short_with_every_method_tuned_on_every_corpus() -> None:
    tables = [
        standing(corpus, track) for corpus in ("iemocap", "meld", "ravdess") for track in ("utterance", "dialogue")
    ]
    others = [standing(corpus, "utterance", 9, splits=(corpus, "four", f"p{number}"), saw_labels=True)
              for corpus in ("iemocap", "ravdess") for number in range(10)]  # fmt: skip
    simulated = [standing(f"simulated-{number}", "utterance", simulated=True) for number in range(20)]
    every = listed([*tables, *others, *simulated])
    page = front_page(every, Places("benchmarks/tables", "docs/protocol.md", "docs/simulated.md", True, True))
    assert len(page.splitlines()) <= 150
    assert len(page.encode()) <= 25 * 1024
    assert {f"[{each.number}]" in page or f"[{each.number}: " in page for each in every if each.standing in tables} == {
        True
    }
    assert not any(each.file in page for each in every if each.standing.simulated)
    assert page.count("<details>") == page.count("</details>") == 8  # of each track the matrix, and six tables
    assert "Behind the best: 24 rows." in page


def test_every_row_of_the_matrix_is_a_link_and_every_link_of_every_page_is_a_file() -> None:
    layout = Layout(Path("leaderboard.md"), Path("some/tables"))
    files = make_board(several()).files(layout)
    front = files[layout.front]
    for block in front.split("\n\n"):
        if block.startswith("| Method"):
            head, _, *rows = map(cells, block.splitlines())
            assert all(re.fullmatch(r"\[.+\]\[\d\]", cell) for cell in head[1:-3])
            assert all(re.fullmatch(r"\[.+\]\[\d\]|\*.+\*", row[0]) for row in rows)
    assert set(re.findall(r"\]\[(\d+)\]", front)) == set(re.findall(r"^\[(\d+)\]: ", front, flags=re.MULTILINE))
    for path, text in files.items():
        for link in links(text):
            target = Path("/", path.parent, link).resolve()
            assert Path("/") / "leaderboard.md" == target or target.relative_to("/") in files, (path, link)
    linked = {Path(link) for link in links(front)}
    assert {path for path in files if path.suffix == ".md" and path.name != "leaderboard.md"} <= linked


def test_what_is_tied_with_the_best_stands_first_and_the_rest_is_folded() -> None:
    front = pages.front(several())
    block = front[front.index("### Table 1: [IEMOCAP") :].partition("\n### ")[0]
    tied = cells(block.splitlines()[4])
    assert tied[0] == "Tied with the best: 2 rows"
    assert re.fullmatch(r"[ab] \*\*\d\d\.\d\*\* \(1-2\); [ab] \*\*\d\d\.\d\*\* \(1-2\)", tied[1])
    assert re.search(r"<summary>1 more row</summary><p>Behind the best: c \d\d\.\d \(3\)\.</p>", block)
    assert "| To beat, never ranked | Single modality, text " in block
    dialogue = front[front.index("### Dialogues") :]
    assert re.search(r"\[bc-LSTM\]\[\d\] +\| +\d\d\.\d \(two seeds\) \|", dialogue), "no rank is said of two seeds"
    assert "Not tested for ties: 1 row" in dialogue


def test_a_row_that_was_not_run_on_a_corpus_has_no_score_there() -> None:
    rows = [cells(row) for row in pages.front(several()).splitlines() if row.startswith("| [b]")]
    assert [row[2] for row in rows] == ["–"]


def test_the_page_of_a_table_says_everything_and_its_csv_is_what_the_command_prints() -> None:
    records = several()
    files = pages.files(records)
    first = files["iemocap-six-loso-utterance-minilm-wavlm.md"]
    assert first.startswith(f"{MARK}\n# IEMOCAP, six emotions, leave one session out, single utterances\n")
    headings = re.findall(r"^## (.*)$", first, flags=re.MULTILINE)
    assert headings == ["Ranking", "F1 by class", "Notes", "Raters", "Rows and their options", "How to read it"]
    assert files["iemocap-six-loso-utterance-minilm-wavlm.csv"] == print_tables(choose(records, number=1), "csv")
    assert "never evidence" in files["simulated_meld-emotion-official-utterance-minilm-wavlm.md"]
    assert "never evidence" not in first


def test_pictures_are_shown_where_they_exist_and_of_this_table_alone(tmp_path: Path) -> None:
    assert list(PICTURES) == list(plots.PLOTS)
    layout = Layout(tmp_path / "leaderboard.md", tmp_path / "tables", tmp_path / "plots")
    layout.plots.mkdir()  # type: ignore[union-attr]
    slug = "iemocap-six-loso-utterance-minilm-wavlm"
    for name in (f"{slug}-ranking.svg", f"{slug}-tokens-classes.svg", f"{slug}-ranking.png"):
        (tmp_path / "plots" / name).touch()
    files = make_board(several(), []).files(layout)
    shown = {path.name: re.findall(r"!\[.*?\]\((.*?)\)", text) for path, text in files.items()}
    assert {name: found for name, found in shown.items() if found} == {f"{slug}.md": [f"../plots/{slug}-ranking.svg"]}


def test_two_tables_of_one_name_have_a_page_each() -> None:
    one = standing("iemocap", "utterance")
    long = standing("iemocap", "utterance", slug="x" * 400)
    assert [each.file for each in listed([one, one, long])] == [one.slug, f"{one.slug}-2", "x" * 200]


def test_pages_of_tables_that_are_gone_are_deleted_and_no_file_of_the_user(tmp_path: Path) -> None:
    results, layout = tmp_path / "results", Layout.of(tmp_path / "leaderboard.md")
    for name in ("gated", "low_rank"):
        write_record(consistent(make(name, hits=9)), results)
    path = write_record(consistent(make("gated", hits=9, dataset="ravdess", protocol="folds6")), results)
    write_board(read_board(results), layout)
    gone = [page for page in layout.tables.iterdir() if page.name.startswith("ravdess")]
    assert sorted(page.suffix for page in gone) == [".csv", ".md"]
    mine = [layout.tables / name for name in ("notes.md", "ravdess-mine.csv", "data.csv")]
    for file in mine:
        file.write_text("my own", encoding="utf-8")
    kept = {page: page.stat() for page in layout.tables.iterdir() if page not in (*gone, *mine)}
    contents = {page: page.read_bytes() for page in gone}
    path.unlink()
    write_board(read_board(results), layout)
    assert check(results, layout) is None
    for page, content in contents.items():
        page.write_bytes(content)
    assert (check(results, layout) or "").startswith(f"{min(gone)} is of a table that the records no longer make")
    write_board(read_board(results), layout)
    assert not any(page.exists() for page in gone)
    assert {file.read_text(encoding="utf-8") for file in mine} == {"my own"}
    assert check(results, layout) is None
    unchanged = [page for page in kept if page.suffix == ".csv" or page.name == "published.md"]
    assert [page.stat().st_ino for page in unchanged] == [kept[page].st_ino for page in unchanged], "not written again"


def test_a_file_of_the_user_where_a_page_belongs_is_not_replaced(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path / "leaderboard.md")
    layout.tables.mkdir()
    (layout.tables / "published.md").write_text("my own", encoding="utf-8")
    with pytest.raises(Misuse, match=r"published\.md was not written by mer-bench leaderboard: move it"):
        write_board(make_board([make("gated")]), layout)
    assert [path.name for path in layout.tables.iterdir()] == ["published.md"]
    assert not layout.front.exists()


def test_a_part_of_the_matrix_has_its_first_rows_and_those_to_beat() -> None:
    found = [standing("iemocap", "utterance"), standing("ravdess", "utterance", 30)]
    text = matrix_rows(found, 3, "benchmarks/tables")
    head, _, *rows = map(cells, text.split("\n\n")[1].splitlines())
    first, second = TITLES["utterance"][:2]
    assert head[1] == f"[IEMOCAP](benchmarks/tables/{found[0].slug}.md)"
    assert [row[0] for row in rows] == [f"{first} †", f"{first}, tuned", second, *(
        "*Best single modality*", "*Linear*", "*Majority class*")]  # fmt: skip
    assert [row[-1] for row in rows[:3]] == ["default", "tuned", "default"]
    assert "the first 3 of 64 rows" in text
