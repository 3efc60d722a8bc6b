"""Ablations: options of their method that the suites run beside the whole method, and that are never ranked."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pages as report
import pytest
from test_compare import record

from mer_bench.fusion import METHODS
from mer_bench.records import RunRecord
from mer_bench.report import ablation
from mer_bench.report.tables import tables
from mer_bench.suites import SuiteRow
from mer_bench.training.build import options_of
from mer_bench.training.suite import read_suite

SUITES = Path(__file__).parents[2] / "benchmarks"
#: cells that equal others: two modalities make one pair per graph; a clip of RAVDESS has only one turn
SAME = {
    "ravdess": {"text guides, not audio", "one graph of all modalities", "edges within an utterance only",
                "edges to all turns"},
    "iemocap": {"vision guides, not audio", "one graph of all modalities"},
}  # fmt: skip


@pytest.mark.parametrize("method", ablation.CELLS)
def test_every_cell_changes_an_option_that_the_method_has(method: str) -> None:
    usual = options_of(METHODS[method])
    for changes in ablation.CELLS[method].values():
        assert all(name in usual and usual[name] != value for name, value in changes.items())


@pytest.mark.parametrize("corpus", SAME)
def test_the_suites_hold_every_cell_once_and_the_whole_method_as_the_corpus_s_suite_has_it(corpus: str) -> None:
    usual, suite = read_suite(SUITES / f"{corpus}.toml"), read_suite(SUITES / f"ablation_{corpus}.toml")
    assert set(suite.seeds) <= set(usual.seeds)

    def key(row: SuiteRow) -> str:
        return repr((row.method, row.features, sorted(row.options.items()), row.training))

    found: dict[str, list[str]] = {method: [] for method in ablation.CELLS}
    for row in suite.rows:
        name, options = ablation.split(row.method, row.options)
        found[row.method].append(name)
        assert key(replace(row, options=options)) in [key(other) for other in usual.rows]
    for method, cells in ablation.CELLS.items():
        assert sorted(found[method]) == sorted({"", *cells} - SAME[corpus])


def test_several_cells_at_once_are_named_together() -> None:
    options = {"hidden": 8, "residual": False, "cross_modal": False}
    assert ablation.split("cfn_sr", options) == (
        "without the cross-modal block, without the residual", {"hidden": 8}
    )  # fmt: skip
    assert ablation.split("cfn_sr", {"residual": True}) == ("", {"residual": True})
    assert ablation.split("gated", {"residual": False}) == ("", {"residual": False})


def run(method: str, seed: int, wrong: list[int], **options: object) -> RunRecord:
    made = record(method, seed, wrong)
    return replace(made, spec=replace(made.spec, options=options))


RECORDS = [
    *(run("cfn_sr", seed, [7], hidden=8) for seed in range(3)),
    *(run("cfn_sr", seed, [7], hidden=8, cross_modal=False) for seed in range(3)),
    *(run("cfn_sr", seed, list(range(0, 60, 3)), hidden=8, residual=False) for seed in range(3)),
    *(run("tacfn", seed, [1, 2, 3], residual=False) for seed in range(3)),  # its whole was not run
]


def test_an_ablation_is_compared_with_its_whole_and_never_ranked() -> None:
    (table,) = tables(RECORDS)
    # an ablation of what was not run is a row like any other
    assert [row.label for row in table.rows] == ["cfn_sr (hidden=8)", "tacfn (residual=false)"]
    effects = {ablation.split(row.method, row.spec.options)[0]: found for row, found in table.ablation_effects.items()}
    (same, p_same), (worse, p_worse) = effects["without the cross-modal block"], effects["without the residual"]
    assert (same.effect, p_same) == (0, 1)
    assert worse.effect < -0.2
    assert p_worse < 0.05
    page = report.leaderboard(RECORDS, [])
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in page.partition("## Rows and")[0].splitlines()
        if "without the" in line
    ]
    assert [line[:2] for line in lines] == [
        ["", "without the cross-modal block"], ["", "without the residual"]
    ]  # fmt: skip
    assert lines[0][3] == "+0.0 (+0.0 to +0.0) ≈"
    assert lines[1][3].startswith("-42.8 (-")
    assert not lines[1][3].endswith("≈")
    assert "blation" not in report.leaderboard(RECORDS[:3], [])


def test_the_html_report_has_the_same_cells() -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    from mer_bench.report.page import page

    text = re.sub(r"\s+", " ", page(RECORDS, published=[]))
    rows = re.findall(r'<tr class="(whole|part)"><th scope="row">(.*?)</th>(.*?)</tr>', text)
    parts = [("part", "without the cross-modal block"), ("part", "without the residual")]
    assert [(kind, name.strip()) for kind, name, _ in rows] == [
        ("whole", "CFN-SR"), *parts
    ]  # fmt: skip
    assert "+0.0 (+0.0 to +0.0) ≈" in rows[1][2]
    assert "what a method loses" not in page(RECORDS[:3], published=[])
