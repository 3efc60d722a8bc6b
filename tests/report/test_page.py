"""The HTML page: its numbers are those of the records, and it runs and fetches nothing but its own content."""

from __future__ import annotations

import base64
import hashlib
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

import html_pages
import numpy as np
import pages as report
import pytest
from fake_runs import consistent
from test_compare import record

from mer_bench.cli import main
from mer_bench.errors import Misuse
from mer_bench.methods import method_facts
from mer_bench.metrics import weighted_f1
from mer_bench.records import Efficiency, FeatureFacts, RunRecord, RunSpec, Training, write_record
from mer_bench.report import page
from mer_bench.report.cache import open_cache
from mer_bench.report.columns import PAGE, UNKNOWN, Cell, columns, values
from mer_bench.report.names import PICTURES
from mer_bench.report.page_data import PRESETS, bibtex, by_seed, curve, page_columns, row_keys, safe, unique
from mer_bench.report.pairs import pairs
from mer_bench.report.published import Published, load_published
from mer_bench.report.reproduce import commands, read_recipes
from mer_bench.report.statistics import difference
from mer_bench.report.table_page import facts as table_facts
from mer_bench.report.tables import tables
from mer_bench.training.suite import Suite, read_suite

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
    """Elements of the page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

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


@pytest.fixture(scope="module")
def held(text: str) -> html_pages.Held:
    return html_pages.read(text)


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without plots, for tests that do not need them."""
    if not {"text", "held"} & set(request.fixturenames) and "pictures" not in request.node.name:
        monkeypatch.setattr(page.plots, "draw", lambda *_, **__: {})


def shown(data: Any, row: Any, name: str) -> str:
    """What a row of a table shows in a column."""
    at = [column["name"] for column in data["columns"]].index(name)
    return str(row["cells"][at].get("x", "–"))


def test_every_row_stands_in_its_table_with_the_scores_of_the_leaderboard(held: html_pages.Held) -> None:
    made_of = tables([*made(), *map(simulated, made())])
    assert [len(data["rows"]) for data in held.tables()] == [4, 4]
    for table, data in zip(made_of, held.tables(), strict=True):
        for row, found in zip(table.rows, data["rows"], strict=True):
            low, high = table.evidence[row].interval
            assert found["name"].startswith(row.title)
            assert shown(data, found, "Modalities") == (" + ".join(row.modalities) or "none")
            assert shown(data, found, "Weighted F1") == row.score("weighted_f1").split()[0]
            assert shown(data, found, "95 % interval") == f"{100 * low:.1f} to {100 * high:.1f}"
            for heading, name in (("Accuracy", "accuracy"), ("Macro F1", "macro_f1"), ("UAR", "uar")):
                assert shown(data, found, heading) == row.score(name).split()[0]
            assert shown(data, found, "Seeds") == "3"
    first = held.tables()[0]
    assert [shown(first, row, "Rank") for row in first["rows"]] == ["1", "2", "–", "–"]
    assert [shown(first, row, "Ranks") for row in first["rows"]] == ["1-2", "1-2", "–", "–"]
    assert shown(first, first["rows"][0], "Behind the best") == "best"


def test_the_first_thing_is_the_matrix_of_real_corpora_whose_cells_lead_to_their_rows(held: html_pages.Held) -> None:
    (block,) = held.front["matrix"]
    ((column,), (table, _)) = block["columns"], tables([*made(), *map(simulated, made())])
    assert (column["title"], column["ranked"]) == ("MELD", 2)
    keys = {row["key"] for row in held.json(f"{column['table']}.json")["rows"]}
    for line, row in zip(block["lines"], table.ranks, strict=True):
        (cell,) = line["cells"]
        assert cell["row"] in keys
        assert cell["score"] == pytest.approx(100 * row.weighted_f1, abs=1e-6), "two digits would be rounded twice"
        assert cell["ranks"] == [1, 2]
    assert [line["name"] for line in block["references"]] == ["Best single modality", "Majority class"]
    assert {cell["row"] for line in block["references"] for cell in line["cells"]} <= keys


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
    assert not re.search(r"url\(", text)
    (policy,) = [each["content"] for each in reader.tags("meta") if each.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    for tag in ("script", "style"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode() in policy


def evil() -> list[RunRecord]:
    return [
        replace(
            run,
            spec=replace(run.spec, options={EVIL: EVIL}, dataset=EVIL, features={"text": EVIL}, label_set=EVIL,
                         protocol=EVIL, method=run.spec.method + EVIL),
            classes=(EVIL, "<img src=x onerror=alert(1)>", "</script><b onclick=alert(1)>"),
            device=EVIL, versions={EVIL: EVIL}, features={"text": FeatureFacts(EVIL, EVIL, EVIL, EVIL, 1, 0)},
        )
        for run in made()
    ]  # fmt: skip


def test_what_records_say_is_no_markup_and_no_name_of_a_file() -> None:
    found = page.page(evil(), published=[Published(EVIL, EVIL, EVIL, EVIL, Decimal("1"), EVIL, EVIL, EVIL, EVIL)])
    reader, held = Reader(found), html_pages.read(found)
    assert {each.get("type") for each in reader.tags("script")} == {"application/json", "text/plain", None}
    assert [each.get("type") for each in reader.tags("script")].count(None) == 1
    assert not reader.tags("img")
    assert not [name for _, attributes in reader.elements for name in attributes if name.startswith("on")]
    assert EVIL in held.tables()[0]["classes"], "it stands there to be read"
    assert EVIL in held.json("published.json")[0]["corpus"]
    assert all(re.fullmatch(r"[a-z0-9-]+\.(json|svg)", name) for name in held.files)


def test_pictures_are_those_of_the_tables_each_with_its_caption(held: html_pages.Held) -> None:
    named = [each for table in held.front["tables"].values() for each in table["pictures"]] + held.front["across"]
    assert {name for name, _ in named} == {name for name in held.files if name.endswith(".svg")}
    assert len(named) == 6
    assert all("<svg" in held.files[name] for name, _ in named)
    captions = {name.rpartition("-")[2].removesuffix(".svg"): caption for name, caption in named}
    assert captions["ranking"] == PICTURES["ranking"]
    assert all(captions.values())


def test_simulated_corpora_have_a_tab_of_their_own_that_says_what_they_are(held: html_pages.Held) -> None:
    real, rest = held.front["tabs"]
    assert (real["title"], rest["title"], rest["simulated"]) == ("MELD", "Simulated", True)
    assert all(name.startswith("simulated-meld") for name in rest["tables"])
    assert "never evidence about real corpora" in held.front["simulated"]
    (only_real,) = html_pages.read(page.page(made())).front["tabs"]
    assert only_real["title"] == "MELD"


def test_published_numbers_are_quoted_and_never_ranked(held: html_pages.Held) -> None:
    assert "never ranked" in held.front["published"]
    quoted = {(row[0], row[2]) for corpus in held.json("published.json") for row in corpus["rows"]}
    assert {(one.method, str(one.value)) for one in load_published()} == quoted


def test_rows_with_few_seeds_are_neither_tied_nor_behind() -> None:
    few = [one for one in made() if one.spec.method != "b" or one.spec.seed < 2]
    held = html_pages.read(page.page(few))
    (data,) = held.tables()
    at = [column["name"] for column in data["columns"]].index("95 % interval")
    assert [row["cells"][at]["b"][-1] for row in data["rows"][:2]] == [True, None]
    assert [row["few"] for row in data["rows"]] == ["", "two seeds", "", ""]
    assert [row["tied"] for row in data["rows"]] == [True, False, False, False]
    (line,) = (line for line in held.front["matrix"][0]["lines"] if line["name"] == "b")
    assert (line["cells"][0]["tied"], line["cells"][0]["ranks"], line["seeds"]) == (None, None, [2, 2])


def test_every_pair_is_what_the_statistics_say() -> None:
    incomplete = replace(record("c", 0, [3]), test_by_cluster=None)
    (table,) = tables([*made(), incomplete])
    (details,) = html_pages.read(page.page([*made(), incomplete])).details()
    assert details["pairs"] == pairs(table)
    for (a, b), pair in zip(combinations(table.rows, 2), pairs(table), strict=True):
        if "c" in (a.method, b.method):
            assert pair is None
            continue
        one = difference(table.evidence[a], table.evidence[b])
        assert pair == [pytest.approx(100 * one.effect, abs=1e-3), pytest.approx(100 * one.low, abs=1e-3),
                        pytest.approx(100 * one.high, abs=1e-3), pytest.approx(one.p, abs=1e-4)]  # fmt: skip


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


def test_every_column_is_in_a_preset_and_the_seeds_stand_beside_the_score() -> None:
    (table,) = tables([measured(run) for run in made()])
    assert {column.name for column in page_columns(table)} == {column.name for column in columns(table, PAGE)}
    (data,) = html_pages.read(page.page([measured(run) for run in made()])).tables()
    held = {column["name"]: column["presets"] for column in data["columns"]}
    assert [name for name, presets in held.items() if presets == list(PRESETS)] == [
        "Rank", "Method", "Modalities", "Weighted F1", "Seeds"
    ]  # fmt: skip
    assert list(held)[:5] == ["Rank", "Method", "Modalities", "Weighted F1", "Seeds"]
    assert held["Accuracy"] == ["scores", "all"]
    assert held["Missing 0.5"] == ["robustness", "all"]
    assert held["MFLOPs"] == ["cost", "all"]
    assert all("all" in presets for presets in held.values())


def test_numbers_to_copy_are_those_of_the_csv_of_the_table() -> None:
    (table,) = tables([measured(run) for run in made()])
    (data,) = html_pages.read(page.page([measured(run) for run in made()])).tables()
    for row, expected in zip(data["rows"], values(table), strict=True):
        for column, cell in zip(data["columns"], row["cells"], strict=True):
            if column["name"] in expected and column["name"] != "Method":
                assert cell.get("v") == expected[column["name"]], column["name"]
                for name in column["more"]:
                    assert cell.get("m", {}).get(name) == expected[f"{column['name']}, {name}"]


def test_a_row_tells_what_was_measured_beside_its_score() -> None:
    (details,) = html_pages.read(
        page.page([measured(run) if run.spec.method == "b" else run for run in made()])
    ).details()
    assert [key for key, row in details["rows"].items() if row["beside"]] == ["b"]
    stated = dict(details["rows"]["b"]["beside"])
    assert stated["Best test epoch"].startswith("100.00 ± 0.00 instead of ")
    assert stated["Retained with only"].startswith("audio:\N{NO-BREAK SPACE}0")
    assert {"Retained at missing rate", "Retained under noise", "Retained under noise on audio"} <= stated.keys()
    assert stated["Forward pass"].startswith("3.00 ms for one utterance, 2,000 utterances per second in batches of 32")
    assert stated["Forward pass"].endswith("on Processor X (2 threads)")


def test_notes_are_those_of_the_leaderboard_and_a_row_has_its_provenance_and_every_training() -> None:
    records = [replace(run, versions={"torch": "2.13.0"}, device="some device") for run in made()]
    held, (table,) = html_pages.read(page.page(records)), tables(records)
    ((data,), (details,)) = held.tables(), held.details()
    assert data["facts"] == list(table_facts(table))
    assert data["sets"] == [["text", "minilm"]]
    runs = {run[-2]: run[-1] for row in details["rows"].values() for run in row["runs"]}
    assert runs == {run.spec.sha256: run.spec.path(Path("benchmarks/results")).as_posix() for run in records}
    made_by = dict(details["rows"]["a"]["made"])
    assert made_by["Method"] == "a, version 1, reimplemented, utterance context"
    assert (made_by["Software"], made_by["Device"]) == ("torch 2.13.0", "some device")


def test_details_of_a_row_are_its_scores_confusions_and_curve() -> None:
    runs = [replace(run, curve=[{"val/weighted_f1": (run.spec.seed + at) / 10} for at in range(2 + run.spec.seed)])
            if run.spec.method == "b" else run for run in made()]  # fmt: skip
    (table,), (details,) = tables(runs), html_pages.read(page.page(runs)).details()
    row = table.rows[1]
    found = details["rows"]["b"]
    assert found["classes"][0] == [95.2, 100.0, 97.6]
    assert found["confusion"] == row.pooled.sum(0).tolist()
    assert details["support"] == [20, 20, 20]
    assert found["curve"] == [10.0, 20.0], "the mean over seeds, as far as all have trained"
    assert details["rows"]["a"]["curve"] == []
    assert curve(replace(row, records=(*row.records, record("b", 9, [])))) == [], "one without a curve"
    assert [line[0] for line in by_seed(row)] == ["0", "1", "2"]
    assert [line[0] for line in by_seed(replace(row, folds=2))] == ["incomplete"]


@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "benchmarks").glob("*.toml")))
def test_the_command_of_a_row_trains_that_row(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    suite, recipes = read_suite(Path("benchmarks") / file), read_recipes(Path("benchmarks"))
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
        (_, line), (_, single) = commands(row, recipes, lambda _: Path("benchmarks/results"))
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
    recipes = read_recipes(tmp_path)
    (tmp_path / "notes.toml").write_text('dataset = "meld"')
    with pytest.raises(Misuse, match=r"notes\.toml lacks the key 'label_set'"):
        read_recipes(tmp_path)

    def lines(**spec: Any) -> list[str]:
        run = record("a", 0, [])
        held = {"label_set": "seven", "options": {"hidden": 8, "dropout": 0.1}, "training": Training(3, 4)}
        ((row, *_),) = [table.rows for table in tables([replace(run, spec=replace(run.spec, **held | spec))])]
        return [line for _, line in commands(row, recipes, lambda _: Path("some where"))]

    whole, single = lines()
    assert whole.startswith(f"mer-bench bench {tmp_path}/own.toml --methods a --seeds 0 --corpus real --results ")
    assert "--spec 'some where/meld/a/seven-official-text-fold1-seed0-" in single
    for change in (
        {"dataset": "other"}, {"label_set": "three"}, {"protocol": "loso"}, {"method": "b"}, {"training": Training(3)},
        {"options": {"hidden": 9, "dropout": 0.1}}, {"options": {"hidden": 8, "dropout": 0.2}}, {"options": {}},
        {"features": {"text": "glove"}},
    ):  # fmt: skip
        assert len(lines(**change)) == 1, change


def test_a_method_has_its_paper_code_and_an_entry_with_what_is_known() -> None:
    front = html_pages.read(page.page([record("tensor_fusion", 0, []), record("late_average", 0, [])])).front
    found = front["methods"]["tensor_fusion"]
    assert found["paper"] == "https://arxiv.org/abs/1707.07250"
    assert (ROOT / found["code"]).is_file()
    assert found["bibtex"] == (
        "@misc{tensor_fusion,\n  title = {{TFN}},\n  year = {2017},\n  url = {https://arxiv.org/abs/1707.07250},\n"
        "  note = {Zadeh et al. 2017; complete this entry from the paper},\n}\n"
    )
    assert front["methods"]["late_average"]["bibtex"] == "", "a baseline without a paper"
    for name, facts in method_facts().items():
        entry = bibtex(name, facts)
        assert bool(entry) == bool(facts.paper)
        assert entry.count("{") == entry.count("}")
        assert "author" not in entry


def test_names_in_addresses_are_safe_and_no_two_alike() -> None:
    assert safe("../CFN-SR, scaled ✓") == "cfn-sr-scaled"
    assert safe("…") == "unnamed"
    assert unique(["A b", "a-b", "a-b-2", "a b"]) == ["a-b", "a-b-2", "a-b-2-2", "a-b-3"]
    (table,) = tables(made())
    assert list(row_keys(table).values()) == ["a", "b", "single-modality", "majority-class"]


def test_without_records_the_page_says_how_to_make_some() -> None:
    held = html_pages.read(page.page([]))
    assert "There are no records yet" in held.front["empty"]
    assert held.json("published.json")


def test_the_documentation_is_linked_where_it_is_named() -> None:
    assert html_pages.read(page.page(made(), docs="docs/")).front["docs"] == "docs/"
    for wrong in ("javascript:alert(1)/", "docs", "data:text/html,/"):
        with pytest.raises(Misuse, match="is not the address of a folder"):
            page.page(made(), docs=wrong)


def test_the_form_for_a_site_holds_the_same_files_and_takes_away_its_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for run in made():
        write_record(consistent(run), Path("results"))
    site, data = Path("site"), Path("site/data")
    data.mkdir(parents=True)
    (data / "files.txt").write_text("old.json\n../../results/other.json\nalone.svg\n")
    for name in ("old.json", "mine.json", "alone.svg"):
        (data / name).write_text("{}")
    Path("results/other.json").write_text("{}")
    monkeypatch.setattr(sys, "argv", ["mer-bench", "report", "--site", "site", "--docs", "docs/"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert (stopped.value.code, capsys.readouterr().out.split()) == (0, ["site/index.html"])
    index = (site / "index.html").read_text(encoding="utf-8")
    whole = html_pages.read(page.page([consistent(run) for run in made()], results=Path("results"), docs="docs/"))
    assert {each.name: each.read_text(encoding="utf-8") for each in data.iterdir() if each.name != "files.txt"} == {
        **whole.files, "mine.json": "{}"
    }  # fmt: skip
    assert Path("results/other.json").exists(), "what a list says decides no path"
    alone = html_pages.read(index)
    assert alone.files == {}
    assert alone.front == whole.front | {"embedded": False}
    assert "connect-src 'self'" in index
    (site / "index.html").write_text("<h1>My own page</h1>")
    with pytest.raises(Misuse, match="was not written by mer-bench report"):
        page.write_site(made(), site, results=Path("results"))
    assert (site / "index.html").read_text() == "<h1>My own page</h1>"


def test_a_kept_table_is_shown_until_what_it_was_made_from_changes(tmp_path: Path) -> None:
    kept = open_cache(tmp_path)
    first = page.page(made(), cache=kept)
    assert page.page(made(), cache=kept) == first
    own = frozenset({made()[0].spec.sha256})
    marked = html_pages.read(page.page(made(), cache=kept, own=own)).tables()[0]["rows"]
    assert marked[0]["mark"] == "(own)"
    moved = html_pages.read(page.page(made(), cache=kept, results=Path("elsewhere"))).details()[0]
    assert moved["rows"]["a"]["runs"][0][-1].startswith("elsewhere/")
    fewer = html_pages.read(page.page(made()[:6], cache=kept)).tables()[0]["rows"]
    assert len(fewer) == 2


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
    held = html_pages.read((tmp_path / "out" / "page.html").read_text(encoding="utf-8"))
    assert [table["heading"] for table in held.front["tables"].values()] == [
        "MELD, emotion, official split, single utterances"
    ]  # fmt: skip
    assert json.dumps(held.front)
