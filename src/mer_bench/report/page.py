"""The HTML page of all records: a matrix of methods and corpora, tables to sort and filter, pictures, comparisons.

It has two forms of one content. The one for a site is ``index.html`` with a folder of JSON and SVG files, which the
page fetches when they are opened; the other is one self-contained file, which holds the same files compressed. Both are
pure functions of the records and the suites, so equal records give equal bytes. ``page.html`` is the frame,
``page.css`` its style and ``page.js`` its script; :mod:`mer_bench.report.page_data` has what tables and rows show.
Needs numpy and matplotlib, but not torch.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mer_bench.errors import Misuse
from mer_bench.external import ExternalRecord
from mer_bench.files import write_atomic
from mer_bench.methods import method_facts
from mer_bench.records import RunRecord
from mer_bench.report import matrix, plots
from mer_bench.report.board import described
from mer_bench.report.cache import NOT_KEPT, Cache, hash_of, open_cache
from mer_bench.report.formatting import LATEX
from mer_bench.report.gallery import over_tables
from mer_bench.report.leaderboard import NO_RECORDS, SIMULATED
from mer_bench.report.matrix import Block, Line, Standing, standing
from mer_bench.report.names import PICTURES, TRACKS, corpus_title, feature_names, in_words, short_names, slug
from mer_bench.report.page_data import (
    PRESETS,
    PROVENANCE,
    Json,
    details_data,
    headline,
    method_data,
    published_data,
    row_keys,
    table_data,
    unique,
)
from mer_bench.report.pairs import kept_pairs
from mer_bench.report.published import PUBLISHED, Published, by_corpus, load_published
from mer_bench.report.reproduce import Recipe, read_recipes
from mer_bench.report.table_page import NONE, Own
from mer_bench.report.tables import Table, tables
from mer_bench.trials import TrialRecord
from mer_bench.workspace import default_results, suites_folder

HERE = Path(__file__).parent
DATA = "data"  #: folder of what the page for a site fetches, beside its index.html
LIST = "files.txt"  #: in that folder, the names of the files that were written there
GENERATOR = '<meta name="generator" content="mer-bench report">'


@dataclass(frozen=True)
class Content:
    """What both forms of the page show."""

    front: Json  #: what it shows first
    files: Mapping[str, str]  #: name of a file that it opens -> JSON or SVG


def content(
    records: Sequence[RunRecord],
    *,
    results: Path | None = None,
    suites: Path | None = None,
    published: Sequence[Published] | None = None,
    own: Own = NONE,
    published_in: Path | None = None,
    external: Sequence[ExternalRecord] = (),
    trials: Sequence[TrialRecord] = (),
    docs: str = "",
    cache: Cache = NOT_KEPT,
    jobs: int = 1,
) -> Content:
    """All that the page shows; independent of the order of ``records``.

    Args:
        records: All runs.
        results: Where the commands that reproduce a run find its record; None = the usual folder.
        suites: Folder of the suite files that commands name; None = that of the suites that have names.
        published: Numbers to quote; None = those that come with the package.
        own: Runs whose rows are marked.
        published_in: Where commands find the records of all other runs; None = in ``results`` too.
        external: Predictions made elsewhere.
        trials: Those of tunings.
        docs: Address of the documentation, relative to the page; empty = there is none.
        cache: Where to keep tables, pictures and comparisons of methods.
        jobs: How many processes draw side by side.

    Raises:
        Misuse: matplotlib is not installed, or ``docs`` is no address.
    """
    if docs and (urlsplit(docs).scheme not in ("", "http", "https") or not docs.endswith("/")):
        raise Misuse(f"--docs {docs!r} is not the address of a folder: name one such as docs/ or https://host/docs/")
    makes = _Making(results or default_results(), read_recipes(suites or suites_folder()), own, published_in, cache)
    found = list(described(tables(records, external), trials, makes.recipes))
    named = dict(zip(unique([slug(table) for table in found]), found, strict=True))
    kept = {key: makes.table(table) for key, table in named.items()}
    pictures = _pictures(named, plots.draw(found, cache=cache, jobs=jobs))
    files = {f"{key}.json": each.rows for key, each in kept.items()}
    files |= {f"{key}-details.json": each.details for key, each in kept.items()}
    files |= {file: svg for of_table in pictures.values() for file, _, svg in of_table}
    files["published.json"] = written(published_data(by_corpus(load_published() if published is None else published)))
    methods = sorted({row.method for table in found for row in table.rows} & set(method_facts()))
    front = {
        "runs": len(records),
        "docs": docs,
        "empty": "" if records else NO_RECORDS.strip(),
        "tables": {
            key: json.loads(each.summary) | {"pictures": [picture[:2] for picture in pictures[key]]}
            for key, each in kept.items()
        },
        "tabs": list(_tabs(named, kept)),
        "matrix": [_block(block, kept) for block in matrix.matrix(each.standing for each in kept.values()
                                                                  if not each.standing.simulated)],
        "across": [each[:2] for each in pictures[""]],
        "order": matrix.ORDER,
        "choice": matrix.CHOICE,
        "presets": list(PRESETS),
        "provenance": list(PROVENANCE.values()),
        "methods": {name: method_data(name, method_facts()[name]) for name in methods},
        "latex": LATEX,
        "simulated": _plain(SIMULATED),
        "published": _plain(PUBLISHED).replace("the tables above", "the tables of this page"),
        "own": bool(own),
        "publishedIn": published_in.as_posix() if published_in else "",
    }  # fmt: skip
    return Content(front, files)


@dataclass(frozen=True)
class Kept:
    """What the page shows of a table, as the cache keeps it."""

    made_from: bytes  #: hash
    summary: str  #: JSON, as the other two
    rows: str
    details: str
    standing: Standing
    keys: dict[str, str]  #: short name of a row -> its name in addresses


@dataclass(frozen=True)
class _Making:
    """Makes what the page shows of tables, unless the cache has it."""

    results: Path
    recipes: list[Recipe]
    own: Own
    published_in: Path | None
    cache: Cache

    def folder(self, record: RunRecord) -> Path:
        """Where commands find a record."""
        if self.published_in is None or record.spec.sha256 in self.own:
            return self.results
        return self.published_in

    def table(self, table: Table) -> Kept:
        suites = {suite.file: suite for suite, _ in self.recipes}.values()
        shown = (table.content, repr(list(table.trials)), repr(list(table.settings)), repr(list(suites)))
        made_from = hash_of(*shown, repr(sorted(self.own)), str(self.results), str(self.published_in))
        name = f"page {slug(table)}"
        kept = self.cache.get(name, Kept)
        if kept is None or kept.made_from != made_from:
            kept = self._make(table, made_from)
            self.cache.put(name, kept)
        return kept

    def _make(self, table: Table, made_from: bytes) -> Kept:
        summary = {
            "heading": in_words(table),
            "track": TRACKS[table.track],
            "features": feature_names(table),
            "splits": list(table.splits),
            "rows": len(table.rows),
            "headline": headline(table),
        }
        names, keys = short_names(table), row_keys(table)
        return Kept(
            made_from,
            written(summary),
            written(table_data(table, self.own)),
            written(details_data(table, self.recipes, self.folder, kept_pairs(table, self.cache))),
            standing(table),
            {names[row]: keys[row] for row in names},
        )


def written(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _pictures(named: Mapping[str, Table], drawn: Mapping[str, bytes]) -> dict[str, list[tuple[str, str, str]]]:
    """File, caption and SVG of the pictures of each table by its name in addresses; of several tables by ``""``."""
    left = dict(drawn)
    found: dict[str, list[tuple[str, str, str]]] = {}
    for key, table in named.items():
        of_it = ((kind, left.pop(f"{slug(table)}-{kind}.svg", b"")) for kind in PICTURES)
        found[key] = [(f"{key}-{kind}.svg", PICTURES[kind], svg.decode()) for kind, svg in of_it if svg]
    found[""] = [
        (f"across-{unique([name.removesuffix('.svg')])[0]}.svg", over_tables(name.removesuffix(".svg")), svg.decode())
        for name, svg in sorted(left.items())
    ]
    return found


def _plain(text: str) -> str:
    return text.replace("*", "").replace("\n", " ").strip()


def _tabs(named: Mapping[str, Table], kept: Mapping[str, Kept]) -> Iterator[Json]:
    """The corpora, then all simulated ones in one; the tables of the matrix first."""
    blocks = matrix.matrix(each.standing for each in kept.values())
    first = [column for block in blocks for column in block.columns]
    order = sorted(named, key=lambda key: not any(kept[key].standing is column for column in first))
    for corpus in sorted({table.splits[0] for table in named.values() if not table.first.simulated}):
        of_it = [key for key in order if named[key].splits[0] == corpus and not named[key].first.simulated]
        yield {"title": corpus_title(corpus), "tables": of_it}
    if simulated := [key for key, table in named.items() if table.first.simulated]:
        yield {"title": "Simulated", "tables": simulated, "simulated": True}


def _block(block: Block, kept: Mapping[str, Kept]) -> Json:
    """The matrix of one track; cells name their table and row."""
    keys = [next(key for key, each in kept.items() if each.standing is column) for column in block.columns]
    titles = [corpus_title(column.splits[0]) for column in block.columns]

    def line(each: Line) -> Json:
        return {
            "name": each.name,
            "method": each.method,
            "tuned": each.tuned,
            "parameters": each.parameters,
            "seeds": each.seeds,
            "cells": [cell and _entry(cell, kept[key]) for cell, key in zip(each.cells, keys, strict=True)],
        }

    return {
        "heading": block.heading,
        "columns": [
            {"table": key, "title": title, "heading": column.heading, "features": column.features,
             "ranked": len(column.ranked)}
            for key, title, column in zip(keys, titles, block.columns, strict=True)
        ],
        "lines": [line(each) for each in block.lines],
        "references": [line(each) for each in block.references],
    }  # fmt: skip


def _entry(entry: matrix.Entry, kept: Kept) -> Json:
    name = entry.name if entry.name in kept.keys else entry.name.removesuffix(", tuned")
    return {
        "row": kept.keys[name],
        "name": entry.name,
        "score": round(entry.score, 6),
        "interval": entry.interval and [round(each, 6) for each in entry.interval],
        "rank": entry.rank,
        "ranks": entry.ranks,
        "tied": entry.tied,
        "seeds": entry.seeds,
        "parameters": entry.parameters,
    }


def frame(front: Json, embedded: Mapping[str, str] | None = None) -> str:
    """The HTML around what the page shows: with the files that it opens, or without, where it fetches them."""
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    blocks = "".join(
        f'<script type="text/plain" data-file="{name}">{_compressed(text)}</script>\n'
        for name, text in (embedded or {}).items()
    )
    data = written(front | {"embedded": embedded is not None})
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    fetched = "img-src data:" if embedded is not None else "img-src 'self' data:; connect-src 'self'"
    parts = {
        "policy": f"default-src 'none'; {fetched}; style-src {_hash(style)}; script-src {_hash(script)}",
        "generator": GENERATOR,
        "style": style,
        "front": data,
        "blocks": blocks,
        "script": script,
    }
    template = (HERE / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{ (\w+) \}\}", lambda found: parts[found[1]], template)  # in one pass: parts are not templates


def _compressed(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def page(records: Sequence[RunRecord], **options: Any) -> str:
    """The self-contained form of the :func:`content` of these records, which takes the same options."""
    made = content(records, **options)
    return frame(made.front, made.files)


def write(records: Sequence[RunRecord], target: Path, *, results: Path, **options: Any) -> Path:
    """Write the self-contained form, and return the file; what the cache beside the records has is not made again."""
    write_atomic(target, page(records, results=results, cache=open_cache(results), **options))
    return target


def write_site(records: Sequence[RunRecord], folder: Path, *, results: Path, **options: Any) -> Path:
    """Write the form for a site into ``folder`` and return its index.html, which needs a web server.

    Files of an earlier report in ``folder`` that are needed no more are removed, and no others.

    Raises:
        Misuse: ``folder`` has an index.html that this command has not written.
    """
    index, data = folder / "index.html", folder / DATA
    if index.exists() and GENERATOR not in index.read_text(encoding="utf-8", errors="replace"):
        raise Misuse(f"{index} was not written by mer-bench report; name another folder for --site")
    made = content(records, results=results, cache=open_cache(results), **options)
    before = (data / LIST).read_text(encoding="utf-8").split() if (data / LIST).is_file() else []
    for name, text in made.files.items():
        write_atomic(data / name, text)
    write_atomic(data / LIST, "".join(f"{name}\n" for name in sorted(made.files)))
    write_atomic(index, frame(made.front))
    for name in set(before) - set(made.files):
        if re.fullmatch(r"[a-z0-9-]+\.(json|svg)", name):
            (data / name).unlink(missing_ok=True)
    return index
