"""The site is built without a warning, its links lead somewhere, and nothing in it comes from another host."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from fake_runs import consistent, record, spec
from suites import Call

from mer_bench.methods import method_facts
from mer_bench.records import write_record
from website.links import Page, in_repository, in_site

pytest.importorskip("mkdocs")  # the extra [site], which [dev] contains

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built documentation, with a front page of nothing beside it."""
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", "website/mkdocs.yml"]
    done = subprocess.run([*command, "--site-dir", str(site / "docs")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (site / "index.html").write_text("<title>front</title>", encoding="utf-8")
    return site / "docs"


def test_all_links_of_the_site_lead_somewhere_and_it_loads_nothing_from_elsewhere(docs: Path) -> None:
    assert list(in_site(docs.parent)) == []
    assert (docs / "search" / "search_index.json").is_file()
    assert "fonts.g" not in (docs / "index.html").read_text(encoding="utf-8")


def test_every_page_of_the_site_leads_to_the_leaderboard(docs: Path) -> None:
    for path in docs.rglob("index.html"):
        front = "../" * len(path.relative_to(docs).parts) + "index.html"
        assert front in Page(path.read_text(encoding="utf-8")).links, path


def test_the_site_has_the_anchor_of_each_method_that_the_leaderboard_links_to(docs: Path) -> None:
    page = Page((docs / "methods" / "index.html").read_text(encoding="utf-8"))
    assert set(method_facts()) <= page.anchors


def test_formulas_are_mathml_and_lists_are_lists(docs: Path) -> None:
    methods = (docs / "methods" / "index.html").read_text(encoding="utf-8")
    assert methods.count("<math ") > 60
    for path in docs.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert 'class="arithmatex">\\' not in text, path
        assert "\n- " not in re.sub(r"<(pre|table).*?</\1>", "", text.partition("<article")[2], flags=re.DOTALL), path


def test_the_python_reference_has_signatures_and_descriptions_without_their_markup(docs: Path) -> None:
    text = (docs / "api" / "index.html").read_text(encoding="utf-8")
    for name in ("load_results", "check_method", "write_features", "BenchOptions", "Misuse"):
        assert f"{name}</" in text
    assert ":class:<code>" not in text
    assert 'section-title">Raises:' in text


def test_the_front_page_is_a_page_of_this_site(tmp_path: Path, call: Call) -> None:
    pytest.importorskip("jinja2")
    write_record(consistent(record(spec("early_concat"))), tmp_path / "results")
    front = tmp_path / "site" / "index.html"
    answer = call("report", "--results", tmp_path / "results", "--output", front)
    assert answer.code == 0, answer.err
    assert [each for each in in_site(front.parent) if "docs/" not in each] == []


def test_links_of_the_repository_lead_to_files_and_headings() -> None:
    assert list(in_repository()) == []


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text(
        '<link rel="stylesheet" href="https://fonts.example/x.css"><link rel="canonical" href="https://a.example/">'
        '<script src="//cdn.example/x.js"></script><style>@import "https://b.example/y.css"; a { b: url(z.png) }'
        "</style>"
        '<a href="https://c.example">fine</a><a href="#state">fine</a><a href="other.html#here">fine</a>'
        '<a href="other.html#there">x</a><a href="gone.html">x</a><a href="../site.txt">x</a>'
        '<img src="data:image/x,y">',
        encoding="utf-8",
    )
    (site / "other.html").write_text('<p id="here">', encoding="utf-8")
    (tmp_path / "site.txt").write_text("outside", encoding="utf-8")
    found = "\n".join(in_site(site))
    for address in ("https://fonts.example/x.css", "//cdn.example/x.js", "https://b.example/y.css"):
        assert f"loads {address} from elsewhere" in found
    for address in ("z.png", "gone.html", "../site.txt"):
        assert f"links to {address}, which is not there" in found
    assert "links to other.html#there, but there is no such anchor" in found
    assert len(found.splitlines()) == 7
    assert list(in_site(tmp_path / "nothing")) == [f"there are no pages in {tmp_path / 'nothing'}"]


def test_links_of_markdown_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(
        "# A *b* `c`, d\n## Twice\n## Twice\n[ok](docs/a.md#x-1) [ok](#a-b-c-d) [ok](#twice-1) `[no](no.md)`\n"
        "[gone](docs/b.md) [gone](docs/a.md#y)\n\n[ref]: gone.md\n[web]: https://a.example/b.md\n",
        encoding="utf-8",
    )
    (tmp_path / "docs" / "a.md").write_text("# X 1\n```\n# Y\n[no](no.md)\n```\n", encoding="utf-8")
    assert list(in_repository(tmp_path)) == [
        "README.md links to docs/b.md, which is not there",
        "README.md links to docs/a.md#y, but docs/a.md has no such heading",
        "README.md links to gone.md, which is not there",
    ]


def test_the_workflow_makes_the_site_and_uploads_its_folder() -> None:
    yaml = pytest.importorskip("yaml")
    flow = yaml.safe_load((ROOT / ".github" / "workflows" / "site.yml").read_text(encoding="utf-8"))
    steps = flow["jobs"]["site"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["make site"]
    assert {"path": "build/site"} in [step.get("with") for step in steps]
    used = [step["uses"] for step in steps if "uses" in step]
    assert all(name.startswith("actions/") and name.partition("@v")[2].isdigit() for name in used)
