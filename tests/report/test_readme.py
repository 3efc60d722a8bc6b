"""The generated parts of README.md and the pages in docs are those that methods and records give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mer_bench.errors import Misuse
from mer_bench.report import findings, readme
from mer_bench.report.leaderboard import load

ROOT = Path(__file__).parents[2]


def test_the_pages_are_up_to_date() -> None:
    """All but the facts about the simulated corpora, which take long to compute and have tests of their own."""
    results = ROOT / "benchmarks" / "results"
    content = readme.Content(load(results, brief=True).records, results)
    found = {
        "README.md": ["matrix"],
        "docs/findings.md": ["claims", *findings.QUESTIONS, "effort"],
        "docs/simulated.md": ["presets", "pages", "shares", "answers"],
    }
    for name, kinds in found.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        assert sorted(mark[1] for mark in readme.MARKED.findall(text)) == sorted(kinds)
        assert readme.fill(text, content, {*kinds} - {"presets"}) == text, "run make leaderboard"


def test_the_readme_is_one_screen_and_its_parts_stand_in_order() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    parts = ["Install", "Two commands", "In Python", "Evaluate your method", "Leaderboard"]
    parts += ["What was run, and what was not", "Documentation", "Licence and citation"]
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == parts


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    text = "before\n<!-- claims -->\nold\n<!-- end -->\nafter <!-- end -->\n"
    filled = readme.fill(text, readme.Content([]))
    assert filled.startswith("before\n<!-- claims -->\n\n| Claim")
    assert filled.endswith("\n<!-- end -->\nafter <!-- end -->\n")
    assert "old" not in filled


def test_a_mark_without_a_number_of_rows_is_refused() -> None:
    with pytest.raises(Misuse, match="must name a number of rows"):
        readme.fill("<!-- matrix: all -->\n<!-- end -->", readme.Content([]))
