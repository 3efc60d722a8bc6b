"""The HTML page: its numbers are those of the records, and it runs and fetches nothing but its own content."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import random
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from functools import cache
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pages as report
import pytest
from fake_runs import consistent
from test_compare import record

from mer_bench.errors import Misuse
from mer_bench.metrics import weighted_f1
from mer_bench.records import Efficiency, FeatureFacts, RunRecord, RunSpec, Training, write_record
from mer_bench.report import page
from mer_bench.report.columns import PAGE, UNKNOWN, Cell, columns, groups
from mer_bench.report.pairs import pairs
from mer_bench.report.published import Published, load_published
from mer_bench.report.statistics import difference
from mer_bench.report.table_page import facts
from mer_bench.report.tables import tables
from mer_bench.training.suite import Suite, read_suite

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]
EVIL = '<script>alert("x")</script>'
WRONG = {"a": [7], "b": [7, 20, 40], "unimodal": list(range(0, 60, 4)), "majority": list(range(20, 60))}


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["lightning"] = None
from mer_bench.cli import main
main()
"""


class Reader(HTMLParser):
    """Elements of the page with their attributes, and the cells of the ranked tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tbody":
            self.inside = "data-position" in dict(attrs)
            self.rows += [[]] if self.inside else []
        elif tag == "tr":
            self.inside = self.inside and dict(attrs).get("class") != "details"
        elif tag in ("td", "th") and self.inside:
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.inside and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def made() -> list[RunRecord]:
    runs = [record(name, seed, wrong) for name, wrong in WRONG.items() for seed in range(3)]
    return [replace(run, parameters=10 ** (3 + index), flops_per_utterance=1500) for index, run in enumerate(runs)]


def simulated(run: RunRecord) -> RunRecord:
    return replace(run, simulated=True, spec=replace(run.spec, dataset="simulated-meld"))


@pytest.fixture(scope="module")
def text() -> str:
    return page.page([*made(), *map(simulated, made())])


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without plots, for tests that do not need them."""
    if "text" not in request.fixturenames and "pictures" not in request.node.name:
        monkeypatch.setattr(page, "draw", lambda found, *_: ({page.plots.slug(table): [] for table in found}, []))


def test_every_row_stands_in_its_table_with_the_scores_of_the_leaderboard(text: str) -> None:
    found = [[" ".join(cell.split()) for cell in row] for row in Reader(text).rows]
    made_of = tables([*made(), *map(simulated, made())])
    assert len(found) == sum(len(table.rows) for table in made_of) == 8
    for cells, (table, row) in zip(found, [(t, row) for t in made_of for row in t.rows], strict=True):
        low, high = table.evidence[row].interval
        assert cells[1] == (row.title if row.title == row.method else f"{row.title}{row.method}")
        assert cells[2] == (" + ".join(row.modalities) or "none")
        assert cells[3] == row.score("weighted_f1")
        assert cells[4] == f"{100 * low:.1f} to {100 * high:.1f}"
        for index, name in ((7, "accuracy"), (8, "macro_f1"), (9, "uar")):
            assert cells[index] == row.score(name).split()[0]
        assert cells[-1] == "3"
    assert [cells[0] for cells in found[:4]] == ["1", "2", "–", "–"]
    assert found[0][5] == "best"
    assert [cells[6] for cells in found[:4]] == ["1-2", "1-2", "–", "–"]


def test_equal_records_give_equal_bytes_in_any_order(text: str) -> None:
    records = [*made(), *map(simulated, made())]
    random.Random(3).shuffle(records)
    assert page.page(records) == text


def test_the_page_needs_nothing_from_anywhere(text: str) -> None:
    reader = Reader(text)
    for tag, attributes in reader.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    (policy,) = [each["content"] for each in reader.tags("meta") if each.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy


def test_ids_are_unique_and_every_reference_has_its_target(text: str) -> None:
    reader = Reader(text)
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = ("aria-controls", "aria-labelledby", "href", "xlink:href")
    wanted = {
        a[name].lstrip("#") for _, a in reader.elements for name in named if (a.get(name) or "data:")[:5] != "data:"
    }
    assert wanted <= set(ids)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(ids)


def test_what_records_say_is_text_and_never_markup() -> None:
    records = [
        replace(
            run,
            spec=replace(run.spec, options={EVIL: EVIL}, dataset=EVIL, features={"text": EVIL}, label_set=EVIL,
                         protocol=EVIL, method=run.spec.method + EVIL),
            classes=(EVIL, "<img src=x onerror=alert(1)>", "</script><b onclick=alert(1)>"),
            device=EVIL, versions={EVIL: EVIL}, features={"text": FeatureFacts(EVIL, EVIL, EVIL, EVIL, 1, 0)},
        )
        for run in made()
    ]  # fmt: skip
    evil = Published(EVIL, EVIL, EVIL, EVIL, Decimal("1"), EVIL, EVIL, EVIL, EVIL)
    found = page.page(records, published=[evil])
    assert_inert(found)
    assert found.count("&lt;script&gt;alert") > 100  # it stands there to be read


def test_what_records_say_is_text_in_pictures_too() -> None:
    found = page.page([replace(run, classes=("</svg>", "<img src=x>", "<b onclick=f()>")) for run in made()])
    assert_inert(found)
    assert found.count("<svg") == found.count("</svg>")


def assert_inert(text: str) -> None:
    """Nothing in the page runs but its own script."""
    reader = Reader(text)
    assert [each.get("type") for each in reader.tags("script")] == ["application/json", None]
    assert not reader.tags("img")
    assert not [name for _, attributes in reader.elements for name in attributes if name.startswith("on")]


def test_simulated_corpora_have_a_section_of_their_own_that_says_what_they_are(text: str) -> None:
    real, rest = text.split("<h2>Simulated corpora</h2>")
    assert "never evidence about real corpora" not in real
    assert "they are never evidence about real corpora" in rest
    assert "simulated-meld" not in real[real.index("<h2>Real corpora") :]
    assert rest.count('class="badge">simulated') == 1
    (only_real,) = re.findall(r"<h2>(\w+) corpora</h2>", page.page(made()))
    assert only_real == "Real"


def test_published_numbers_are_quoted_and_cannot_be_sorted(text: str) -> None:
    ranked, quoted = text.split("<h2>Published numbers</h2>")
    assert "never ranked" in quoted
    assert 'class="sort"' in ranked
    assert 'class="sort"' not in quoted
    for one in load_published():
        assert f"{one.value}</td>" in quoted


def test_rows_with_few_seeds_have_a_tick_for_a_dot_and_their_pairs_say_so() -> None:
    few = [one for one in made() if one.spec.method != "b" or one.spec.seed < 2]
    (table,) = tables(few)
    assert pairs(table)["few"] == ["", "two seeds", "", ""]
    shown = page.page(few)
    assert shown.count('<path class="tick"') == 1
    assert shown.count('class="filled"') == 1
    assert page.page(made()).count('<path class="tick"') == 0
    assert "With fewer than 3 seeds no row is said to be behind the best or tied with it." in shown


def test_every_pair_is_what_the_statistics_say() -> None:
    incomplete = replace(record("c", 0, [3]), test_by_cluster=None)
    (table,) = tables([*made(), incomplete])
    found = pairs(table)
    for (a, b), pair in zip(combinations(table.rows, 2), found["pairs"], strict=True):
        if "c" in (a.method, b.method):
            assert pair is None
            continue
        one = difference(table.evidence[a], table.evidence[b])
        assert pair == [pytest.approx(100 * one.effect, abs=1e-3), pytest.approx(100 * one.low, abs=1e-3),
                        pytest.approx(100 * one.high, abs=1e-3), pytest.approx(one.p, abs=1e-4)]  # fmt: skip
    assert found["names"] == [f"{row.name} ({row.reads})" for row in table.rows]


def test_columns_with_nothing_to_say_are_left_out() -> None:
    (table,) = tables(made())
    names = {column.name for column in columns(table, PAGE)}
    assert {"Weighted F1", "95 % interval", "Behind the best", "MFLOPs", "Memory, MiB", "Training, s"} <= names
    assert not names & {"Attained", "Fusion", *MEASURED}
    (bare,) = tables([replace(run, test_by_cluster=None, peak_memory_mib=None) for run in made()])
    assert not {column.name for column in columns(bare, PAGE)} & {"95 % interval", "Behind the best", "Memory, MiB"}


MEASURED = ("Inflated by", "Missing 0.5", "Noise 0 dB", "Latency, ms", "Utterances / s")


def measured(run: RunRecord) -> RunRecord:
    """A run without errors at its best test epoch, with half or none of its hits under disturbances, and with times."""
    matrix = np.array(run.test_confusion)
    all_lost = np.roll(np.diag(matrix.sum(1)), 1, axis=1)
    half = (matrix // 2 + all_lost // 2).tolist()
    seed = run.spec.seed
    return replace(
        run, peak_memory_mib=700.0 + seed,
        literature=[run.test_confusion, np.diag(matrix.sum(1)).tolist(), half],
        robustness={"only": {"audio": all_lost.tolist(), "text": half},
                    "missing": {"0.1": run.test_confusion, "0.5": half},
                    "noise": {"0": half, "20": run.test_confusion}, "noise audio": {"0": run.test_confusion}},
        efficiency=Efficiency("Processor X", 2, 0.002 + 0.001 * seed, 1, 0.016, 32),
    )  # fmt: skip


def test_what_was_measured_beside_the_score_stands_in_columns_as_the_leaderboard_has_it() -> None:
    records = [measured(run) if run.spec.method == "b" else run for run in made()]
    (table,) = tables(records)
    b, other = (next(row for row in table.rows if row.method == name) for name in ("b", "a"))
    shown = {column.name: column for column in columns(table, PAGE)}
    assert set(MEASURED) <= set(shown)
    honest = float(weighted_f1(b.pooled).mean())
    half = float(weighted_f1(np.array([run.robustness["only"]["text"] for run in records if run.robustness])).mean())
    share = f"{100 * half / honest:.0f} %"
    cells = {name: shown[name].cell(table, b) for name in MEASURED}
    assert {name: cell.text for name, cell in cells.items()} == {
        "Inflated by": f"{100 * (1 - honest):+.2f}", "Missing 0.5": share, "Noise 0 dB": share, "Latency, ms": "3.00",
        "Utterances / s": "2,000",
    }  # fmt: skip
    assert cells["Inflated by"].value == pytest.approx(100 * (1 - honest))
    assert cells["Missing 0.5"].value == pytest.approx(100 * half / honest)
    assert cells["Latency, ms"].value == pytest.approx(3.0)
    assert cells["Inflated by"].tip == (
        f"Weighted F1 100.00 ± 0.00 at the best test epoch\ninstead of {b.score('weighted_f1')}"
    )
    assert cells["Missing 0.5"].tip.replace("\N{NO-BREAK SPACE}", " ").splitlines() == [
        "Weighted F1 retained", f"with only audio: 0 %, text: {share}", f"at missing rate 0.1: 100 %, 0.5: {share}"
    ]  # fmt: skip
    assert cells["Noise 0 dB"].tip.replace("\N{NO-BREAK SPACE}", " ").splitlines() == [
        "Weighted F1 retained", f"under noise 0 dB: {share}, 20 dB: 100 %", "under noise on audio 0 dB: 100 %"
    ]  # fmt: skip
    assert {cells[name].tip for name in MEASURED[3:]} == {"on Processor X (2 threads)"}
    assert all(shown[name].cell(table, other) == UNKNOWN for name in MEASURED)
    for head, names in (("Best test epoch", MEASURED[:1]), ("Retained", MEASURED[1:3]), ("Cost", MEASURED[3:])):
        block = report.leaderboard(records, []).partition(f"| {head} ")[2].partition("\n\n")[0].splitlines()
        (line,) = [[cell.strip() for cell in line.split("|")] for line in block if line.startswith("| b ")]
        assert {cells[name].text for name in names} <= set(line)
    memory = shown["Memory, MiB"].cell(table, b)
    assert memory == Cell("701", 701.0, tip="on cpu")
    assert memory.text in line


def test_every_column_stands_under_the_heading_of_its_group() -> None:
    (table,) = tables([measured(run) for run in made()])
    shown = columns(table, PAGE)
    found = groups(shown)
    assert [name for name, _ in found] == ["", "Scores", "Best test epoch", "Retained", "Cost", ""]
    assert [name for name, width in found for _ in range(width)] == [column.group for column in shown]


def test_a_row_tells_what_was_measured_beside_its_score() -> None:
    text = page.page([measured(run) if run.spec.method == "b" else run for run in made()])
    assert text.count("<h4>Beside the score</h4>") == 1
    stated = dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", text.partition("<h4>Beside the score</h4>")[2]))
    assert stated["Best test epoch"].startswith("100.00 ± 0.00 instead of ")
    assert stated["Retained with only"].startswith("audio:\N{NO-BREAK SPACE}0")
    assert {"Retained at missing rate", "Retained under noise", "Retained under noise on audio"} <= stated.keys()
    assert stated["Forward pass"].startswith("3.00 ms for one utterance, 2,000 utterances per second in batches of 32")
    assert stated["Forward pass"].endswith("on Processor X (2 threads)")


def test_notes_are_those_of_the_leaderboard_and_a_row_has_its_provenance_and_every_training() -> None:
    records = [replace(run, versions={"torch": "2.13.0"}, device="some device") for run in made()]
    text, (table,) = page.page(records), tables(records)
    listed = re.findall(r"<li>(.*?)</li>", text, re.DOTALL)
    notes = [html.unescape(re.sub(r"</?code>", "`", sentence)).strip() for sentence in listed]
    assert notes == list(facts(table))
    assert "<code>minilm</code> (text)" in text
    assert all(f"- {sentence}\n" in report.leaderboard(records) for sentence in notes)
    for run in records:
        assert f"<code>{run.spec.sha256}</code>" in text
        assert f"<code>{run.spec.path(Path('benchmarks/results')).as_posix()}</code>" in text
    for expected in ("torch 2.13.0", "some device", "a, version 1, reimplemented, utterance context"):
        assert expected in text


@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "benchmarks").glob("*.toml")))
def test_the_command_of_a_row_trains_that_row(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    suite, recipes = read_suite(Path("benchmarks") / file), page.read_recipes(Path("benchmarks"))
    runs = [
        replace(record(row.method, 0, []), spec=RunSpec(
            dataset, suite.label_set, suite.protocol_of(dataset), 1, row.features, {}, row.method, 1, row.options,
            row.training, seed,
        ))
        for dataset in suite.datasets for row in suite.rows for seed in suite.seeds
    ]  # fmt: skip
    rows = [row for table in tables(runs) for row in table.rows]
    assert rows

    @cache
    def read(file: str, method: str, seeds: str) -> Suite:
        return read_suite(Path(file), methods=[method], seeds=[int(seed) for seed in seeds.split()])

    for row in rows:
        (_, line), (_, single) = page.commands(row, recipes, lambda _: Path("benchmarks/results"))
        words = shlex.split(line)
        assert words[:2] == ["mer-bench", "bench"]
        options = dict(zip(words[3::2], words[4::2], strict=True))
        again = read(words[2], options["--methods"], options["--seeds"])
        spec = row.records[0].spec
        assert spec.dataset in again.datasets
        assert (again.label_set, set(again.seeds)) == (spec.label_set, set(suite.seeds))
        assert again.protocol_of(spec.dataset) == spec.protocol
        assert (spec.method, spec.features, spec.options, spec.training) in [
            (each.method, each.features, each.options, each.training) for each in again.rows
        ]
        assert options["--results"] != "benchmarks/results"
        assert shlex.split(single)[:3] == ["mer-bench", "run", "--spec"]


def test_a_row_that_no_suite_holds_has_the_command_of_its_training_alone(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(
        'dataset = "meld"\nlabel_set = "seven"\nprotocol = "official"\nseeds = [0]\ntraining = { epochs = 3 }\n'
        '[[table]]\nfeatures = { text = "minilm" }\noptions = { dropout = 0.1, other = 1 }\n'
        'methods = [{ name = "a", options = { hidden = 8 }, training = { batch_size = 4 } }]\n'
    )
    recipes = page.read_recipes(tmp_path)
    (tmp_path / "notes.toml").write_text('dataset = "meld"')
    with pytest.raises(Misuse, match=r"notes\.toml lacks the key 'label_set'"):
        page.read_recipes(tmp_path)

    def lines(**spec: Any) -> list[str]:
        run = record("a", 0, [])
        held = {"label_set": "seven", "options": {"hidden": 8, "dropout": 0.1}, "training": Training(3, 4)}
        ((row, *_),) = [table.rows for table in tables([replace(run, spec=replace(run.spec, **held | spec))])]
        return [line for _, line in page.commands(row, recipes, lambda _: Path("some where"))]

    whole, single = lines()
    assert whole.startswith(f"mer-bench bench {tmp_path}/own.toml --methods a --seeds 0 --corpus real --results ")
    assert "--spec 'some where/meld/a/seven-official-text-fold1-seed0-" in single
    for change in (
        {"dataset": "other"}, {"label_set": "three"}, {"protocol": "loso"}, {"method": "b"}, {"training": Training(3)},
        {"options": {"hidden": 9, "dropout": 0.1}}, {"options": {"hidden": 8, "dropout": 0.2}}, {"options": {}},
        {"features": {"text": "glove"}},
    ):  # fmt: skip
        assert len(lines(**change)) == 1, change


def test_scores_by_seed_and_class_are_those_of_the_row() -> None:
    (table,) = tables(made())
    row = table.rows[1]
    assert [line[0] for line in page.by_seed(row)] == ["0", "1", "2"]
    assert page.by_class(table, row)[0] == ("angry", "20", "95.2", "100.0", "97.6")
    assert [line[0] for line in page.by_seed(replace(row, folds=2))] == ["incomplete"]


def test_without_records_the_page_says_how_to_make_some() -> None:
    found = page.page([])
    assert "There are no records yet" in found
    assert "Published numbers" in found


def test_the_page_is_made_without_torch(tmp_path: Path) -> None:
    for run in made():
        write_record(consistent(run), tmp_path / "results")
    (tmp_path / "results" / "meld" / "a" / "broken.json").write_text("{")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "report", "--results", "results", "--output", "out/page.html"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["out/page.html"]
    assert "broken.json is not a readable record" in done.stderr
    assert "meld: emotion, official" in (tmp_path / "out" / "page.html").read_text(encoding="utf-8")


def test_without_jinja2_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(Misuse, match=r"pip install 'mer-bench\[report\]'"):
        page.page([])


def test_the_page_contains_the_pairs(text: str) -> None:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    first, second = tables([*made(), *map(simulated, made())])
    assert json.loads(found) == {"t1": pairs(first), "t2": pairs(second)}
