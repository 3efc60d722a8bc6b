"""``python -m website.links SITE``: every link of the built site, and of the repository's pages, leads somewhere.

In the site, files and anchors of relative links must exist, and nothing may be loaded from another host; a link to
another host that a reader may follow (``<a>``) is not opened. In the repository, the files and headings that Markdown
pages link to must exist. Exit code 1: a sentence per link that leads nowhere.
"""

from __future__ import annotations

import html
import posixpath
import re
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parent.parent
#: pages of the repository whose links are checked, beside those in docs
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "leaderboard.md",
    "data_prep/README.md",
    "benchmarks/**/*.md",
    "examples/**/*.md",
    "docs/*.md",
)
#: attributes that load something, by tag; what a link element loads depends on its rel
LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "object": "data",
}
NOT_LOADED = {"canonical", "prev", "next", "alternate", "author", "license"}
CSS_ADDRESS = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")
CODE = re.compile(r"^ *(```+|~~~+).*?^ *\1 *$|`[^`\n]*`|<!--.*?-->", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(\s*<?([^()\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
HEADING = re.compile(r"^#{1,6} +(.+?)\s*#*$", re.MULTILINE)


class Page(HTMLParser):
    """What a page links to, what it loads and which anchors it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the addresses and names of a tag."""
        facts = {name: value or "" for name, value in attrs}
        self._in = tag
        self.anchors |= {facts[name] for name in ("id", "name") if name in facts}
        if tag in ("a", "area") and "href" in facts:
            self.links.append(facts["href"])
        if tag == "link" and not NOT_LOADED & set(facts.get("rel", "").split()):
            self.loaded.append(facts.get("href", ""))
        if address := facts.get(LOADS.get(tag, "")):
            self.loaded.append(address)
        self.loaded += [each.split()[0] for each in facts.get("srcset", "").split(",") if each.split()]
        self.loaded += _addresses(facts.get("style", ""))

    def handle_data(self, data: str) -> None:
        """Note what a style sheet in the page loads."""
        if self._in == "style":
            self.loaded += _addresses(data)


def _addresses(css: str) -> list[str]:
    return [first or second for first, second in CSS_ADDRESS.findall(css)]


def in_site(site: Path) -> Iterator[str]:
    """A sentence for each link of the built site that leads nowhere, and for each thing loaded from elsewhere."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    if not pages:
        yield f"there are no pages in {site}"
    front = site / "index.html"  # which keeps its filters in what follows #
    for path, page in pages.items():
        where = path.relative_to(site)
        for address in page.loaded:
            if urlsplit(address).scheme not in ("", "data") or urlsplit(address).netloc:
                yield f"{where} loads {address[:100]} from elsewhere"
        for address in dict.fromkeys([*page.links, *page.loaded]):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = path
            if parts.path:
                target = Path(posixpath.normpath(path.parent / unquote(parts.path)))
                target = target / "index.html" if target.is_dir() else target
            if where.name == "404.html":
                continue  # its addresses begin at the root of a host
            if not target.is_file() or not target.is_relative_to(site):
                yield f"{where} links to {address}, which is not there"
            elif parts.fragment and target != front and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{where} links to {address}, but there is no such anchor"
    for path in sorted(site.rglob("*.css")):
        for address in _addresses(path.read_text(encoding="utf-8")):
            if urlsplit(address).netloc:
                yield f"{path.relative_to(site)} loads {address[:100]} from elsewhere"


def in_repository(root: Path = ROOT) -> Iterator[str]:
    """A sentence for each relative link of a Markdown page of the repository that leads nowhere."""
    for path in sorted({found for pattern in PAGES for found in root.glob(pattern)}):
        text = CODE.sub("", path.read_text(encoding="utf-8"))
        for address in (first or second for first, second in LINK.findall(text)):
            parts = urlsplit(html.unescape(address))
            if parts.scheme or parts.netloc:
                continue
            target = path if not parts.path else Path(posixpath.normpath(path.parent / unquote(parts.path)))
            where = path.relative_to(root)
            if not target.exists():
                yield f"{where} links to {address}, which is not there"
            elif parts.fragment and target.suffix == ".md" and parts.fragment not in _headings(target):
                yield f"{where} links to {address}, but {target.relative_to(root)} has no such heading"


@cache
def _headings(path: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^ *(```+|~~~+).*?^ *\1 *$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))
    for heading in HEADING.findall(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while (anchor := f"{name}-{number}" if number else name) in found:
            number += 1
        found.add(anchor)
    return found


def main() -> None:
    """Check the repository, and the site whose folder is given."""
    found = [*in_repository(), *(sentence for folder in sys.argv[1:] for sentence in in_site(Path(folder)))]
    for sentence in found:
        print(sentence)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
