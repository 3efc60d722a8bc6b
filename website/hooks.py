"""Hooks of MkDocs: links that leave ``docs``, formulas as MathML, and the roles of docstrings.

The pages are written to be read in the repository too, where a link may lead to any file. In the site a link leads to
what the site has instead of that file (:data:`INSTEAD`); of other files there is a link only if the address of the
repository is known, which the environment variable ``REPOSITORY`` states.
"""

from __future__ import annotations

import html
import os
import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.nav import Link, Navigation

ROOT = Path(__file__).parent.parent
FRONT = "../index.html"  #: the interactive leaderboard, seen from the folder of the documentation

#: file of the repository -> page of the site that is shown for it
INSTEAD = {
    "README.md": "index.md",
    "data_prep/README.md": "repository/data_prep.md",
    "CONTRIBUTING.md": "repository/contributing.md",
    "CHANGELOG.md": "repository/changelog.md",
    "benchmarks/contributed/README.md": "repository/contributed.md",
    "benchmarks/speed/README.md": "repository/speed.md",
    "examples/own_method/README.md": "repository/own_method.md",
}
SHOWN_ON_FRONT = ("leaderboard.md", "benchmarks/tables", "benchmarks/plots")

FENCE = re.compile(r"^(```+|~~~+).*?^\1\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>[^()\s]+)\)")
LIST = re.compile(r"^(?![-*+ |>#]|$)(.*)\n(?=[-*] )", re.MULTILINE)  #: what a list follows without an empty line
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
ROLE = re.compile(r":(?:mod|class|func|meth|data|attr):(?=<code>)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the repository that stand outside ``docs``, and the pictures that pages show."""
    for source, target in INSTEAD.items():
        if target.startswith("repository/"):
            files.append(_outside(config, source, target))
    shown = {target for page in files.documentation_pages() for target in _pictures(page)}
    for source in sorted(shown):
        files.append(_outside(config, source, f"repository/{source}"))
    return files


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Put the leaderboard, which is no page of the documentation, before its pages."""
    nav.items.insert(0, Link("Leaderboard", FRONT))
    return nav


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Let links and pictures lead to what the site has."""
    source = _source(page.file)

    def rewrite(found: re.Match[str]) -> str:
        target, _, anchor = found["target"].partition("#")
        if not target or ":" in target:
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path.startswith("docs/"):
            there = path.removeprefix("docs/")
        elif found["picture"]:
            there = f"repository/{path}"
        elif path in INSTEAD:
            there, anchor = INSTEAD[path], "" if INSTEAD[path] == "index.md" else anchor
        elif path.startswith(SHOWN_ON_FRONT):
            return f'<a href="{"../" * page.url.count("/")}{FRONT}">{found["text"]}</a>'
        elif not (ROOT / path).exists():
            return found[0]  # MkDocs says that it leads nowhere
        elif repository := os.environ.get("REPOSITORY"):
            return f"[{found['text']}]({repository.rstrip('/')}/{path})"
        else:
            return found["text"]
        here = posixpath.relpath(there, posixpath.dirname(page.file.src_uri) or ".")
        return f"{found['picture']}[{found['text']}]({here}{f'#{anchor}' if anchor else ''})"

    return _outside_fences(lambda text: LIST.sub(r"\1\n\n", LINK.sub(rewrite, text)), markdown)


def on_page_content(html: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Turn formulas into MathML, which browsers draw without a script, and drop the roles of docstrings."""
    return ROLE.sub("", FORMULA.sub(_mathml, html))


def _outside_fences(change: Callable[[str], str], markdown: str) -> str:
    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [change(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(markdown[end:])])


def _mathml(found: re.Match[str]) -> str:
    is_block = found[2] == "["
    drawn = convert(html.unescape(found[3]).strip(), display="block" if is_block else "inline")
    return f'<div style="overflow-x: auto">{drawn}</div>' if is_block else drawn  # wide ones scroll


def _outside(config: MkDocsConfig, source: str, target: str) -> File:
    file = File.generated(config, target, abs_src_path=str(ROOT / source))
    file.inclusion = InclusionLevel.NOT_IN_NAV
    return file


def _source(file: File) -> str:
    """The path in the repository of what a page shows."""
    added = (
        source for source, target in INSTEAD.items() if target == file.src_uri and target.startswith("repository/")
    )
    return next(added, f"docs/{file.src_uri}")


def _pictures(page: File) -> set[str]:
    source, text = _source(page), FENCE.sub("", page.content_string)
    targets = {found["target"] for found in LINK.finditer(text) if found["picture"] and ":" not in found["target"]}
    paths = {posixpath.normpath(posixpath.join(posixpath.dirname(source), target)) for target in targets}
    return {path for path in paths if not path.startswith("docs/")}
