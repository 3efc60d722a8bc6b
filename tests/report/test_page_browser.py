"""The HTML page in a real browser: what a reader presses does what it says, and nothing is asked of another site.

A system chromium is driven headless. The tests are skipped where there is none; MER_BENCH_BROWSER names one, or is
"required", which makes its absence a failure.
"""

from __future__ import annotations

import csv
import functools
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from test_compare import record
from test_page import EVIL, evil, measured, simulated

from mer_bench.methods import method_facts
from mer_bench.records import Efficiency, FeatureFacts, Protocol, RunRecord
from mer_bench.report import page
from mer_bench.report.cache import open_cache
from mer_bench.report.pairs import pairs
from mer_bench.report.statistics import resample
from mer_bench.report.tables import tables

pytest.importorskip("matplotlib")
required = os.environ.get("MER_BENCH_BROWSER") == "required"
playwright = (import_module if required else pytest.importorskip)("playwright.sync_api")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WRONG = {"a": [7], "b": [7, 20, 40], "zeta": list(range(0, 60, 5)), "majority": list(range(20, 60))}
MELD = "meld-emotion-official-utterance-minilm"
OTHER = "other-emotion-official-dialogue-mfcc"
KIB = 1024


def browser_path() -> str:
    """The browser, or a skip that says what to do."""
    wanted = os.environ.get("MER_BENCH_BROWSER", "")
    installed = next(filter(None, map(shutil.which, NAMES)), None)
    found = installed if wanted in ("", "required") else wanted
    if found is None:
        stop = pytest.fail if wanted else pytest.skip
        stop("no chromium on PATH: install it (apt-get install chromium) or set MER_BENCH_BROWSER to its path")
    return found


def made() -> list[RunRecord]:
    """Three methods and the majority class on one corpus, its simulated likeness, and another corpus without text."""
    runs = [
        replace(record(name, seed, wrong), parameters=[5000, 70, 900, 0][index], curve=[{"val/weighted_f1": 0.5}] * 2)
        for index, (name, wrong) in enumerate(WRONG.items())
        for seed in range(3)
    ]
    runs[0] = replace(runs[0], device=EVIL)
    runs = [
        replace(run, efficiency=Efficiency(EVIL, 2, latency, 1, 1.0, 32)) if latency else run
        for run in runs for latency in ({"a": 0.02, "zeta": 0.009}.get(run.spec.method),)
    ]  # fmt: skip
    other = [
        replace(run, context="dialogue", features={"audio": FeatureFacts("mfcc", "", "", "", 1, 0)},
                spec=replace(run.spec, dataset="other", features={"audio": "mfcc"}, features_sha256={"audio": "1"}))
        for run in runs if run.spec.method in ("a", "zeta")
    ]  # fmt: skip
    runs = [measured(run) if run.spec.method == "b" else run for run in runs]
    return [*runs, *map(simulated, runs), *other]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page in both forms, and one of records that are full of markup."""
    found = tmp_path_factory.mktemp("page")
    text = page.page(made(), docs="docs/", results=found, cache=open_cache(found))
    (found / "report.html").write_text(text, encoding="utf-8")
    page.write_site(made(), found / "site", results=found)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page.plots, "draw", lambda *_, **__: {})
        (found / "evil.html").write_text(page.page(evil()), encoding="utf-8")
    return found


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """Address of the folder through a web server."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = browser_path()
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path)
        yield opened
        opened.close()


@pytest.fixture
def tab(browser: Any, folder: Path) -> Iterator[Any]:
    """The self-contained page; fails the test if anything was said on the console or asked of a network."""
    yield from watched(browser, (folder / "report.html").as_uri())


@pytest.fixture
def served(browser: Any, server: str) -> Iterator[Any]:
    """The form for a site; likewise, but for its own files."""
    yield from watched(browser, f"{server}/site/index.html", server)


def watched(browser: Any, url: str, own: str = "") -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme="light")
    context.set_default_timeout(10_000)
    opened, troubles = context.new_page(), []
    opened.asked = []
    opened.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    opened.on("dialog", lambda dialog: (troubles.append("a script of a record ran"), dialog.dismiss()))
    opened.on("request", lambda request: opened.asked.append(request.url))
    show(opened, url)
    yield opened
    context.close()
    assert troubles == []
    assert [
        each for each in opened.asked if not each.startswith((url.partition("#")[0], "data:", own or "data:"))
    ] == []


def show(tab: Any, url: str) -> None:
    tab.goto("about:blank")
    tab.goto(url)
    tab.wait_for_selector("main[data-shown]")


def view(tab: Any, hash: str) -> None:
    """Open the page anew at a part of its address."""
    show(tab, tab.url.partition("#")[0] + hash)


def column(tab: Any, name: str) -> list[str]:
    """What the rows of the shown table say in a column."""
    names = [text.strip() for text in tab.locator(".ranking > thead > tr:last-child > th").all_inner_texts()]
    cells = tab.locator(f".ranking > tbody > tr[data-key] > :nth-child({names.index(name) + 1})")
    return [text.split("\n")[0].strip() for text in cells.all_inner_texts()]


def heading(tab: Any, name: str) -> Any:
    return tab.locator(".ranking").get_by_role("button", name=name, exact=True)


def wear(tab: Any, scheme: str) -> None:
    """Let the system ask for a light or a dark page, and wait until it is one."""
    tab.emulate_media(color_scheme=scheme)
    tab.wait_for_function("(name) => document.documentElement.dataset.theme === name", arg=scheme)


def many() -> list[RunRecord]:
    """3,000 and some records of three corpora, both tracks."""
    built_in = [name for name in method_facts() if name not in ("majority", "unimodal", "linear")]
    names = built_in + [f"method {number}" for number in range(112 - len(built_in))]
    made_of = {name: record(name, 0, list(range(position % 40))) for position, name in enumerate(names)}
    corpora = [("iemocap", "six", "loso", 3), ("meld", "seven", "official", 3), ("ravdess", "eight", "folds6", 3)]
    return [
        replace(
            one, context="dialogue" if position % 4 == 0 else "utterance", protocol=Protocol(folds, "Of a test."),
            spec=replace(one.spec, dataset=dataset, label_set=labels, protocol=protocol, fold=fold, seed=seed),
        )
        for dataset, labels, protocol, folds in corpora
        for position, one in enumerate(made_of.values())
        for fold in range(1, folds + 1)
        for seed in range(3)
    ]  # fmt: skip


def test_the_first_load_of_three_thousand_records_is_small(
    browser: Any, server: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is opened later is not made here: pictures and pairs."""
    monkeypatch.setattr(page.plots, "draw", lambda *_, **__: {})
    monkeypatch.setattr(page, "kept_pairs", lambda *_: [])
    fewer = functools.partial(resample, resamples=20)  # sizes do not depend on their number
    monkeypatch.setattr("mer_bench.report.tables.resample", fewer)
    records = many()
    assert len(records) > 3000
    page.write_site(records, folder / "large", results=folder / "none")
    for opened in watched(browser, f"{server}/large/index.html", server):
        assert opened.locator(".matrix tbody tr").count() == 112
        answers = opened.evaluate(
            "performance.getEntries().filter((each) => each.decodedBodySize).map((each) => each.decodedBodySize)"
        )
        assert 50 * KIB < sum(answers) < 600 * KIB
        assert 1000 < opened.evaluate("document.querySelectorAll('*').length") < 5000
        opened.get_by_role("tab", name="IEMOCAP").click()
        opened.wait_for_selector(".ranking")
        assert opened.evaluate("document.querySelectorAll('*').length") < 5000


def test_the_matrix_comes_first_and_a_cell_leads_to_its_row(tab: Any) -> None:
    assert tab.get_by_role("tab", selected=True).inner_text() == "Overview"
    blocks = tab.locator(".block")
    assert blocks.locator("h2").all_inner_texts() == ["Single utterances", "Dialogues"]
    rows = [row.split("\t") for row in blocks.first.locator("tbody tr").all_inner_texts()]
    assert [row[0] for row in rows] == ["a", "b", "zeta", "Majority class"]
    (table, *_) = tables(made())
    score = f"{100 * table.rows[0].weighted_f1:.1f}"
    low, high = table.rank_intervals[table.rows[0]]
    assert "".join(rows[0][1].split()).startswith(f"{score}{low}" + (f"–{high}" if high > low else "") + "of3")
    blocks.first.get_by_role("link", name=f"a, {score}").click()
    tab.wait_for_selector("tr.details .boxes")
    assert tab.url.endswith(f"#table={MELD}&open=a")
    assert tab.get_by_role("tab", selected=True).inner_text() == "MELD"
    tab.go_back()
    tab.wait_for_selector(".matrix")
    assert "#" not in tab.url


def test_the_matrix_sorts_by_a_corpus_and_finds_a_method(tab: Any) -> None:
    block = tab.locator(".block").first
    names = block.locator("tbody th")
    block.get_by_role("button", name="Parameters").click()
    assert names.all_inner_texts()[:3] == ["b", "zeta", "a"]
    assert "sort=parameters" in tab.url
    block.get_by_role("button", name="MELD").click()
    assert names.all_inner_texts()[:3] == ["a", "b", "zeta"]
    assert block.locator("[aria-sort]").count() == 1
    tab.get_by_role("searchbox", name="Method").fill("ZET")
    assert names.all_inner_texts() == ["zeta"]


def test_a_heading_sorts_and_pressing_it_again_turns_the_order(tab: Any) -> None:
    view(tab, f"#table={MELD}&columns=all")
    assert column(tab, "Method") == ["a", "b", "zeta", "Majority class"]
    heading(tab, "Parameters").click()
    assert column(tab, "Parameters") == ["0", "70", "900", "5,000"]
    assert tab.locator(".ranking [aria-sort]").get_attribute("aria-sort") == "ascending"
    heading(tab, "Parameters").click()
    assert column(tab, "Parameters") == ["5,000", "900", "70", "0"]
    assert tab.locator(".ranking [aria-sort]").get_attribute("data-column") == "Parameters"
    heading(tab, "Weighted F1").click()
    scores = [float(text.split()[0]) for text in column(tab, "Weighted F1")]
    assert scores == sorted(scores, reverse=True)  # scores: best first


def test_rows_of_unknown_value_stay_last_whichever_way(tab: Any) -> None:
    view(tab, f"#table={MELD}&columns=cost")
    for order in (["9.00", "20.00"], ["20.00", "9.00"]):
        heading(tab, "Latency, ms").click()
        found = column(tab, "Latency, ms")
        assert [each for each in found if each in order] == order
        assert found[-1] == "–"


def test_presets_show_their_columns_with_the_seeds_beside_the_score(tab: Any) -> None:
    view(tab, f"#table={MELD}")
    heads = tab.locator(".ranking > thead > tr:last-child > th")
    assert heads.all_inner_texts()[:6] == ["Rank", "Method", "Modalities", "Weighted F1", "Seeds", "95 % interval"]
    tab.get_by_text("robustness", exact=True).click()
    assert {"Missing 0.5", "Noise 0 dB"} <= set(heads.all_inner_texts())
    assert "Accuracy" not in heads.all_inner_texts()
    assert tab.url.endswith("columns=robustness")
    tab.get_by_text("cost", exact=True).click()
    assert "Parameters" in heads.all_inner_texts()
    tab.go_back()
    playwright.expect(heads.filter(has_text="Missing 0.5")).to_have_count(1)
    view(tab, f"#table={OTHER}")
    assert tab.get_by_role("radio", name="robustness").is_disabled(), "nothing was measured there"
    assert tab.get_by_role("radio", name="cost").is_enabled()


def test_a_view_that_was_sent_is_the_view_that_is_seen(tab: Any) -> None:
    view(tab, f"#table={MELD}&columns=cost&sort=-Method&q=a&open=zeta")
    assert column(tab, "Method") == ["zeta", "Majority class", "a"]
    assert tab.get_by_role("searchbox", name="Search").input_value() == "a"
    assert tab.locator("tr.details").count() == 1
    assert tab.locator('[data-row="zeta"]').get_attribute("aria-expanded") == "true"
    view(tab, "#table=constructor&columns=no&sort=-no&open=no")
    assert tab.get_by_role("tab", selected=True).inner_text() == "Overview"


def test_filters_leave_the_rows_that_match_and_say_how_many(tab: Any) -> None:
    view(tab, f"#table={MELD}")
    count = tab.locator("output")
    assert count.inner_text() == "4 rows"
    tab.get_by_role("combobox", name="Modalities").select_option("none")
    assert (column(tab, "Method"), count.inner_text()) == (["Majority class"], "1 of 4 rows")
    tab.get_by_role("button", name="Clear", exact=True).click()
    tab.get_by_role("searchbox", name="Search").fill("ZETA")
    assert column(tab, "Method") == ["zeta"]
    tab.get_by_role("searchbox", name="Search").fill("no such thing")
    assert count.inner_text() == "0 of 4 rows"
    tab.get_by_role("button", name="Clear the filter").click()
    assert count.inner_text() == "4 rows"
    assert tab.url.endswith(f"#table={MELD}")


def test_an_opened_row_has_scores_confusion_curve_hashes_and_commands(tab: Any) -> None:
    view(tab, f"#table={MELD}")
    tab.locator('[data-row="a"]').click()
    details = tab.locator("tr.details")
    details.locator(".boxes").wait_for()
    text = details.inner_text()
    assert EVIL in text, "markup in a record is shown as text"
    assert "mer-bench run --spec" in text
    (table, *_) = tables(made())
    counts = table.rows[0].pooled.sum(0)
    shown = details.locator(".confusion td").all_inner_texts()
    assert shown == [f"{100 * each / row.sum():.0f}" for row in counts for each in row]
    assert "50.0 in epoch 1 to 50.0 in epoch 2" in (details.locator(".curve").get_attribute("aria-label") or "")
    details.locator("summary").click()
    tab.wait_for_selector(".details details code")
    assert table.rows[0].records[0].spec.sha256 in details.inner_text()
    tab.locator('[data-row="a"]').click()
    assert details.count() == 0


def test_the_form_for_a_site_fetches_what_is_opened_when_it_is_opened(served: Any, server: str) -> None:
    def asked() -> list[str]:
        return [each.removeprefix(f"{server}/site/data/") for each in served.asked if "/data/" in each]

    assert asked() == []
    served.get_by_role("tab", name="MELD").click()
    served.wait_for_selector(".ranking")
    assert asked() == [f"{MELD}.json"]
    served.locator('[data-row="a"]').click()
    served.wait_for_selector(".boxes")
    assert asked() == [f"{MELD}.json", f"{MELD}-details.json"]
    served.locator("summary", has_text="Pictures").click()
    served.wait_for_selector("figure img")
    assert served.evaluate("document.querySelector('figure img').decode().then(() => true)")
    assert any(each.startswith(f"{MELD}-ranking.svg") for each in asked())
    served.get_by_role("tab", name="Published numbers").click()
    served.wait_for_selector("table.published")
    assert "published.json" in asked()


def test_what_cannot_be_fetched_is_said(browser: Any, server: str, folder: Path) -> None:
    context = browser.new_context()
    opened = context.new_page()
    opened.goto((folder / "site" / "index.html").as_uri())
    opened.get_by_role("tab", name="MELD").click()
    assert "through a web server" in opened.get_by_role("alert").inner_text()
    context.close()


def test_pictures_are_drawn_when_they_are_opened(tab: Any) -> None:
    view(tab, f"#table={MELD}")
    assert tab.locator("img").count() == 0
    tab.locator("summary", has_text="Pictures").click()
    tab.wait_for_selector("figure img")
    assert tab.evaluate("document.querySelector('figure img').decode().then(() => true)")
    assert tab.locator("figure").count() == len(tab.locator("img").all()) > 2


@pytest.mark.parametrize("name", ["CSV", "LaTeX", "Markdown"])
def test_the_table_is_copied_as_it_is_shown(tab: Any, name: str) -> None:
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    view(tab, f"#table={MELD}&q=a&sort=Parameters&columns=cost")
    tab.locator(".tools").get_by_role("button", name=name).click()
    playwright.expect(tab.locator("#said")).to_have_text(f"The table as {name} is in the clipboard.")
    text = tab.evaluate("navigator.clipboard.readText()")
    heads = tab.locator(".ranking > thead > tr:last-child > th").all_inner_texts()
    if name == "CSV":
        head, *rows = csv.reader(text.splitlines())
        assert [each for each in head if each in heads] == heads
        assert "Weighted F1, standard deviation" in head
        assert [row[head.index("Parameters")] for row in rows] == ["0", "900", "5000"]
    elif name == "LaTeX":
        lines = text.splitlines()
        assert lines[2].count("&") == len(heads) - 1
        assert r"$\pm$" in text
        assert lines[4].split(" & ")[1] == "Majority class"
    else:
        lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines()]
        assert lines[0] == heads
        assert [line[1] for line in lines[2:]] == ["Majority class", "zeta", "a"]


def test_names_of_records_are_escaped_in_copies(tab: Any, folder: Path) -> None:
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    show(tab, (folder / "evil.html").as_uri())
    tab.asked.clear()
    tab.locator(".copies").first.get_by_role("button", name="Markdown").click()
    playwright.expect(tab.locator("#said")).to_contain_text("clipboard")
    text = tab.evaluate("navigator.clipboard.readText()")
    assert "&lt;script>" in text
    assert "<script" not in text


def test_markup_of_records_is_text_in_every_view(tab: Any, folder: Path) -> None:
    show(tab, (folder / "evil.html").as_uri())
    tab.asked.clear()
    names = tab.get_by_role("tab").all_inner_texts()
    for name in names:
        tab.get_by_role("tab", name=name, exact=True).click()
        tab.wait_for_timeout(150)
        for button in tab.locator(".more").all():
            button.click()
        for summary in tab.locator("main details.panel > summary").all():
            summary.click()
        tab.wait_for_timeout(300)
        assert tab.locator("main script, main b, main [onclick], main img[src='x']").count() == 0, name
    assert EVIL in names


def test_two_rows_of_a_table_are_compared_as_the_statistics_say(tab: Any) -> None:
    (table,) = (t for t in tables(made()) if t.first.spec.dataset == "meld")
    found = pairs(table)
    view(tab, f"#view=compare&a={MELD}/a&b={MELD}/b")
    result = tab.locator(".result")
    first, last = found[0], found[3]
    assert first is not None
    assert last is not None
    effect, low, high, p = first  # a against b
    assert f"{effect:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}".replace("-", "−") in result.inner_text()
    assert f"p = {p:.3f}" in result.inner_text()
    tab.get_by_role("combobox", name="Row of A").select_option("zeta")  # against b: the pair turned round
    effect, low, high, p = last
    wanted = f"{-effect:+.1f} points, 95 % interval {-high:+.1f} to {-low:+.1f}".replace("-", "−")
    playwright.expect(result).to_contain_text(wanted)
    assert "mer-bench compare zeta b --dataset meld" in result.inner_text()
    tab.get_by_role("button", name="Swap").click()
    playwright.expect(result).to_contain_text(f"{effect:+.1f} points".replace("-", "−"))
    tab.get_by_role("combobox", name="Row of A").select_option("zeta")
    playwright.expect(result).to_have_text("Choose two different rows.")


def test_rows_of_two_tables_stand_beside_each_other_with_a_sentence(tab: Any) -> None:
    view(tab, f"#view=compare&a={MELD}/a&b={OTHER}/a")
    text = tab.locator(".result").inner_text()
    assert "They were tested on different utterances" in text
    (table, *_) = tables(made())
    low, high = table.evidence[table.rows[0]].interval
    assert f"({100 * low:.1f} to {100 * high:.1f})" in text
    view(tab, f"#table={MELD}&open=b")
    tab.get_by_role("link", name="Compare with another row").click()
    playwright.expect(tab.get_by_role("combobox", name="Row of A")).to_have_value("b")


def test_methods_lead_to_the_documentation_only_where_there_is_one(tab: Any, served: Any) -> None:
    assert tab.locator("header a").get_attribute("href") == "docs/"
    majority = tab.locator(".matrix .references a", has_text="Majority class").first
    assert majority.get_attribute("href") == "docs/methods/#majority"
    assert served.locator("header a").count() == 0


def test_the_chosen_tab_is_in_view_in_a_narrow_window(tab: Any) -> None:
    tab.set_viewport_size({"width": 200, "height": 600})
    for key in ("End", "Home"):
        tab.get_by_role("tab", selected=True).focus()
        tab.keyboard.press(key)
        tab.keyboard.press("Enter")
        view(tab, tab.evaluate("location.hash"))
        strip, chosen = (tab.locator(each).bounding_box() for each in (".tabs", ".tabs [aria-selected=true]"))
        assert strip["x"] <= chosen["x"]
        assert chosen["x"] + chosen["width"] <= strip["x"] + strip["width"]
    assert tab.evaluate("(() => { const s = document.querySelector('.tabs'); return s.scrollWidth > s.clientWidth })()")


def test_the_keyboard_alone_reaches_tabs_sorts_and_opens(tab: Any) -> None:
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the results"
    assert tab.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "main"
    tab.get_by_role("tab", selected=True).focus()
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate("document.activeElement.textContent") == "MELD"
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("ArrowLeft")
    assert tab.evaluate("document.activeElement.textContent") == "Compare two rows"
    tab.keyboard.press("Home")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".ranking")
    for _ in range(60):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.textContent") == "Method":
            break
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.keyboard.press("Enter")
    assert column(tab, "Method")[0] == "a"
    tab.keyboard.press("Enter")
    assert column(tab, "Method")[0] == "zeta"
    assert tab.evaluate("document.activeElement.textContent") == "Method", "the focus stays"
    for _ in range(60):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.className") == "more":
            break
    tab.keyboard.press("Enter")
    assert tab.locator("tr.details").count() == 1
    assert tab.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
    tab.keyboard.press("Enter")
    assert tab.locator("tr.details").count() == 0


def test_the_head_and_the_method_stay_in_sight_where_a_table_scrolls(tab: Any) -> None:
    tab.set_viewport_size({"width": 800, "height": 500})
    view(tab, f"#table={MELD}&columns=all&open=a,b")
    box = tab.locator(".scroll", has=tab.locator(".ranking"))
    box.evaluate("(node) => { node.scrollLeft = 300; node.scrollTop = 400 }")
    place, head = box.bounding_box(), tab.locator(".ranking > thead").bounding_box()
    assert abs(head["y"] - place["y"]) < 3
    method = tab.locator(".ranking > thead th.method").bounding_box()
    assert place["x"] <= method["x"] < place["x"] + 80


def test_on_a_phone_score_and_interval_come_first_and_filters_are_folded(tab: Any) -> None:
    tab.set_viewport_size({"width": 390, "height": 844})
    view(tab, f"#table={MELD}")
    heads = tab.locator(".ranking > thead > tr:last-child > th").all_inner_texts()
    assert heads[:5] == ["Method", "Weighted F1", "95 % interval", "Seeds", "Rank"]
    assert not tab.get_by_role("searchbox", name="Search").is_visible()
    tab.locator("summary", has_text="Filter").click()
    assert tab.get_by_role("searchbox", name="Search").is_visible()
    interval = tab.locator(".ranking tbody tr").first.locator("td").nth(1).bounding_box()
    assert interval["x"] + interval["width"] <= 390


def test_the_theme_follows_the_system_until_the_reader_chooses(tab: Any) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    assert tab.evaluate(paper) == "rgb(255, 255, 255)"
    wear(tab, "dark")
    assert tab.evaluate(paper) == "rgb(20, 23, 26)"
    press = tab.get_by_role("button", name="Dark theme")
    assert press.get_attribute("aria-pressed") == "true"
    press.click()
    assert tab.evaluate(paper) == "rgb(255, 255, 255)"
    tab.reload()
    assert tab.evaluate(paper) == "rgb(255, 255, 255)"  # the choice is kept


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(tab: Any, scheme: str) -> None:
    ratio = """
    (selector) => {
      const light = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map((part) => part / 255)
          .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const node = document.querySelector(selector);
      let ground = node;
      while (/, 0\\)$/.test(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement;
      const [a, b] = [light(getComputedStyle(node).color), light(getComputedStyle(ground).backgroundColor)];
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    }"""
    wear(tab, scheme)
    for selector in (".lead", ".tabs button", ".matrix small", ".references td", ".above p", "footer"):
        assert tab.evaluate(ratio, selector) >= 4.5, selector  # WCAG 2 AA
    view(tab, f"#table=simulated-{MELD}&open=a")
    wear(tab, scheme)
    tab.wait_for_selector(".boxes")
    for selector in (".sort", ".ranked td", ".reference td", "summary", ".warning strong", ".hint", ".details dt",
                     ".presets :checked + span"):  # fmt: skip
        assert tab.evaluate(ratio, selector) >= 4.5, selector


def test_hovering_and_focus_tell_more_and_escape_takes_it_away(tab: Any) -> None:
    view(tab, f"#table={MELD}&columns=cost")
    tip = tab.get_by_role("tooltip")
    assert not tip.is_visible()
    tab.locator(".ranking td", has_text="20.00").first.hover()
    assert tip.inner_text() == f"on {EVIL} (2 threads)"
    tab.keyboard.press("Escape")
    assert not tip.is_visible()
    heading(tab, "MFLOPs").focus()
    assert tip.inner_text().startswith("Millions of floating-point operations")


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_nothing_but_tables_scrolls_sideways(tab: Any, width: int) -> None:
    tab.set_viewport_size({"width": width, "height": 800})
    for hash in ("", f"#table={MELD}&columns=all&open=a", "#view=published", f"#view=compare&a={MELD}/a&b={MELD}/b"):
        view(tab, hash)
        for panel in tab.locator("main > details.panel > summary").all():
            panel.click()
        tab.wait_for_timeout(300)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, hash
