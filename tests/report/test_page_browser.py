"""The HTML page in a real browser: what a reader presses does what it says, and nothing is asked of a network.

A system chromium is driven headless. The tests are skipped where there is none; MER_BENCH_BROWSER names one, or is
"required", which makes its absence a failure.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
from test_compare import record
from test_page import EVIL, simulated

from mer_bench.records import Efficiency, FeatureFacts, RunRecord
from mer_bench.report import page
from mer_bench.report.pairs import pairs
from mer_bench.report.tables import tables

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
required = os.environ.get("MER_BENCH_BROWSER") == "required"
playwright = (import_module if required else pytest.importorskip)("playwright.sync_api")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WRONG = {"a": [7], "b": [7, 20, 40], "zeta": list(range(0, 60, 5)), "majority": list(range(20, 60))}


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
        replace(record(name, seed, wrong), parameters=[5000, 70, 900, 0][index])
        for index, (name, wrong) in enumerate(WRONG.items())
        for seed in range(2)
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
    return [*runs, *map(simulated, runs), *other]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page.page(made()), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = browser_path()
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path)
        yield opened
        opened.close()


@pytest.fixture
def tab(browser: Any, url: str) -> Iterator[Any]:
    """The page, opened anew; fails the test if anything was said on the console or asked of a network."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, color_scheme="light")
    context.set_default_timeout(10_000)
    opened, troubles = context.new_page(), []
    opened.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    opened.on("dialog", lambda dialog: (troubles.append("a script of a record ran"), dialog.dismiss()))
    opened.on("request", lambda request: troubles.append(request.url) if request.url != url else None)
    opened.goto(url)
    yield opened
    context.close()
    assert [each for each in troubles if not each.startswith("data:")] == []


def column(tab: Any, table: str, name: str) -> list[str]:
    """What the visible rows of a table say in a column."""
    names = [text.strip() for text in tab.locator(f"{table} .ranking > thead > tr:last-child > th").all_inner_texts()]
    position = names.index(name) + 1
    cells = tab.locator(f"{table} .ranking > tbody:not([hidden]) > tr:first-child > :nth-child({position})")
    return [text.split("\n")[0].strip() for text in cells.all_inner_texts()]


def state(tab: Any, name: str) -> str | None:
    return tab.locator("#t1 th", has=tab.get_by_role("button", name=name, exact=True)).first.get_attribute("aria-sort")


def wear(tab: Any, scheme: str) -> None:
    """Let the system ask for a light or a dark page, and wait until it is one."""
    tab.emulate_media(color_scheme=scheme)
    tab.wait_for_function("(name) => document.documentElement.dataset.theme === name", arg=scheme)


def test_a_heading_sorts_and_pressing_it_again_turns_the_order(tab: Any) -> None:
    assert column(tab, "#t1", "Method") == ["a", "b", "zeta", "Majority class"]
    press = tab.locator("#t1").get_by_role("button", name="Parameters", exact=True)
    press.click()
    assert column(tab, "#t1", "Parameters") == ["0", "70", "900", "5,000"]
    assert (state(tab, "Parameters"), state(tab, "Rank")) == ("ascending", None)
    press.click()
    assert column(tab, "#t1", "Method") == ["a", "zeta", "b", "Majority class"]
    assert state(tab, "Parameters") == "descending"
    assert column(tab, "#t2", "Method") == ["a", "zeta"]  # other tables stay as they are
    tab.locator("#t1").get_by_role("button", name="Weighted F1", exact=True).click()
    scores = [float(text.split()[0]) for text in column(tab, "#t1", "Weighted F1")]
    assert scores == sorted(scores, reverse=True)  # scores: best first


def test_rows_of_unknown_value_stay_last_whichever_way(tab: Any) -> None:
    press = tab.locator("#t1").get_by_role("button", name="Rank", exact=True)
    for order in (["3", "2", "1", "–"], ["1", "2", "3", "–"]):
        press.click()
        assert column(tab, "#t1", "Rank") == order


def test_a_column_under_the_heading_of_a_group_sorts_by_itself(tab: Any) -> None:
    assert "Cost" in tab.locator("#t1 .groups").inner_text().split("\t")
    press = tab.locator("#t1").get_by_role("button", name="Latency, ms", exact=True)
    for order in (["9.00", "20.00", "–", "–"], ["20.00", "9.00", "–", "–"]):
        press.click()
        assert column(tab, "#t1", "Latency, ms") == order
    assert column(tab, "#t1", "Method") == ["a", "zeta", "b", "Majority class"]
    tab.locator("#t1 .ranking > tbody > tr > td", has_text="20.00").first.hover()
    assert tab.get_by_role("tooltip").inner_text() == f"on {EVIL} (2 threads)"


def test_the_method_and_the_heading_of_a_group_stay_in_sight_where_a_table_scrolls(tab: Any) -> None:
    tab.set_viewport_size({"width": 700, "height": 900})
    box = tab.locator("#t1 .scroll").first
    box.evaluate("(node) => { node.scrollLeft = node.querySelector('.groups th').offsetLeft + 150 }")
    left, scores = box.bounding_box()["x"], tab.locator("#t1 .groups span", has_text="Scores")
    method = tab.locator("#t1 th.method").first.bounding_box()
    assert abs(method["x"] - left) < 3
    assert scores.bounding_box()["x"] >= method["x"] + method["width"]


def test_the_keyboard_alone_reaches_skips_sorts_and_opens(tab: Any) -> None:
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the tables"
    assert tab.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "main"
    for _ in range(40):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.textContent") == "Method":
            break
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.keyboard.press("Enter")
    assert column(tab, "#t1", "Method") == ["a", "b", "Majority class", "zeta"]
    tab.keyboard.press("Enter")
    assert column(tab, "#t1", "Method") == ["zeta", "Majority class", "b", "a"]
    assert state(tab, "Method") == "descending"
    for _ in range(40):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.className") == "more":
            break
    tab.keyboard.press("Enter")
    assert tab.locator("#t1-r3").is_visible()
    assert tab.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
    tab.keyboard.press("Enter")
    assert not tab.locator("#t1-r3").is_visible()


def test_filters_leave_the_rows_that_match_and_say_how_many(tab: Any) -> None:
    count = tab.locator("output")
    assert count.inner_text() == "10 rows in 3 tables"
    tab.get_by_role("combobox", name="Corpus", exact=True).select_option("other")
    assert count.inner_text() == "2 rows in 1 table"
    assert not tab.locator("#t1").is_visible()
    assert not tab.get_by_role("heading", name="Simulated corpora").is_visible()
    tab.get_by_role("button", name="Reset", exact=True).click()
    tab.get_by_role("combobox", name="Track", exact=True).select_option("utterance")
    assert count.inner_text() == "8 rows in 2 tables"
    tab.get_by_role("combobox", name="Modalities", exact=True).select_option("none")
    assert column(tab, "#t1", "Method") == ["Majority class"]
    tab.get_by_role("button", name="Reset", exact=True).click()
    tab.get_by_role("searchbox", name="Method", exact=True).fill("ZETA major")
    assert count.inner_text() == "5 rows in 3 tables"
    assert column(tab, "#t1", "Method") == ["zeta", "Majority class"]
    tab.get_by_role("searchbox", name="Method", exact=True).fill("no such thing")
    assert count.inner_text() == "0 rows in 0 tables"
    tab.get_by_role("button", name="Reset the filter").click()
    playwright.expect(count).to_have_text("10 rows in 3 tables")  # a reset form is filtered in the next turn


def test_two_methods_are_compared_as_the_statistics_say(tab: Any) -> None:
    (table,) = (t for t in tables(made()) if t.first.spec.dataset == "meld")
    data = pairs(table)
    panel = tab.locator("#t1 .compare")
    panel.locator("summary").click()
    result = panel.locator(".result")
    playwright.expect(result).not_to_be_empty()  # an opened panel is filled in the next turn
    text = result.inner_text()
    effect, low, high, p = data["pairs"][0]  # a against b
    assert f"{effect:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}".replace("-", "−") in text
    assert f"p = {p:.3f}" in text
    assert ("A is ahead" in text) == (p < 0.05)
    panel.get_by_role("combobox", name="A", exact=True).select_option("2")  # zeta against b: the pair turned round
    effect, low, high, p = data["pairs"][3]
    text = result.inner_text()
    assert f"{-effect:+.1f} points, 95 % interval {-high:+.1f} to {-low:+.1f}".replace("-", "−") in text
    assert "mer-bench compare zeta b --dataset meld" in text
    gains = [row.split("\t") for row in panel.locator("tbody tr").all_inner_texts()]
    for (name, count, a, b, gain, *_), index in zip(gains, range(3), strict=True):
        mine, yours = data["f1"][2][index], data["f1"][1][index]
        assert (name, count) == (table.first.classes[index], "20")
        assert (a, b, gain) == (f"{mine:.1f}", f"{yours:.1f}", f"{mine - yours:+.1f}".replace("-", "−"))
    panel.get_by_role("button", name="Swap").click()
    assert f"{effect:+.1f} points".replace("-", "−") in result.inner_text()
    panel.get_by_role("combobox", name="A", exact=True).select_option("2")
    panel.get_by_role("combobox", name="B", exact=True).select_option("2")
    assert result.inner_text() == "Choose two different rows."


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
    wear(tab, scheme)
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
    for selector in (".lead", ".sort", ".ranked td", ".reference td", "summary", ".warning strong", ".badge", "small"):
        assert tab.evaluate(ratio, selector) >= 4.5, selector  # WCAG 2 AA


def test_hovering_and_focus_tell_more_and_escape_takes_it_away(tab: Any) -> None:
    tip = tab.get_by_role("tooltip")
    assert not tip.is_visible()
    tab.locator("#t1 tbody .method").first.hover()
    assert tip.inner_text().split("\n")[:2] == ["F1 by class", "angry 100.0"]
    tab.keyboard.press("Escape")
    assert not tip.is_visible()
    tab.locator("#t1").get_by_role("button", name="UAR", exact=True).focus()
    assert tip.inner_text() == "Unweighted average recall."
    # markup in a record is shown as text and does not run
    tab.locator("#t1 .more").first.click()
    assert EVIL in tab.locator("#t1-r1").inner_text()
    assert tab.locator("#t1-r1 script").count() == 0


@pytest.mark.parametrize("width", [360, 768, 1400])
def test_nothing_but_tables_scrolls_sideways(tab: Any, width: int) -> None:
    tab.set_viewport_size({"width": width, "height": 800})
    tab.locator("#t1 .more").first.click()
    for panel in tab.locator("#t1 .panel > summary").all():
        panel.click()
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.locator("#t1 .pictures svg").first.bounding_box()["width"] <= width
    assert len(tab.screenshot()) > 10_000
