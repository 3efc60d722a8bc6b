"""The index of a folder of pictures: a page with thumbnails, by corpus and table. Equal pictures give an equal page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape as html
from pathlib import Path

from mer_bench.errors import Misuse
from mer_bench.files import write_atomic
from mer_bench.report.formatting import escape
from mer_bench.report.names import TRACKS, corpus_title, feature_names, in_words
from mer_bench.report.tables import Table

NAME = "README.md"  #: what GitHub shows below the files of a folder
FIRST = "<!-- Written by `mer-bench plots`. Do not edit. -->"
COLUMNS, THUMBNAIL = 3, 260  #: thumbnails side by side, and the width of one in pixels


def check_index(folder: Path) -> None:
    """Refuse a folder whose page somebody else has written.

    Raises:
        Misuse: it is not an index of pictures.
    """
    path = folder / NAME
    if path.is_file() and not path.read_text(encoding="utf-8", errors="replace").startswith(FIRST):
        raise Misuse(f"{path} is not an index that `mer-bench plots` has written; name another folder with --output")


def write_index(folder: Path, files: Iterable[str], titles: Mapping[str, tuple[Table, str]]) -> None:
    """Write the index of ``files``; ``titles`` has the table and the kind of a picture by its name without suffix."""
    write_atomic(folder / NAME, index(files, titles))


def index(files: Iterable[str], titles: Mapping[str, tuple[Table, str]]) -> str:
    """The page as Markdown, with the thumbnails in HTML. Pictures of several tables come first."""
    several: list[tuple[str, str]] = []
    corpora: dict[tuple[bool, str], dict[tuple[str, str], list[tuple[str, str]]]] = {}
    for file in sorted(files):
        found = titles.get(file.rpartition(".")[0])
        if found is None:
            several.append((file, over_tables(file.rpartition(".")[0])))
            continue
        table, title = found
        corpus = table.first.simulated, corpus_title(table.splits[0])
        heading = in_words(table), feature_names(table)
        corpora.setdefault(corpus, {}).setdefault(heading, []).append((file, title))
    order = list(dict.fromkeys(title for _, title in titles.values()))
    parts = [FIRST, "# Pictures", "Each thumbnail links to its picture. `mer-bench plots` draws them from the records."]
    if several:
        parts += ["## Over several tables", _thumbnails(several)]
    for (_, corpus_name), tables in sorted(corpora.items()):
        parts.append(f"## {escape(corpus_name)}")
        for (words, features), pictures in sorted(tables.items()):
            pictures.sort(key=lambda each: (order.index(each[1]), each[0]))
            parts += [f"### {escape(words)}", f"Features: {escape(features)}.", _thumbnails(pictures, words)]
    return "\n\n".join(parts) + "\n"


def over_tables(name: str) -> str:
    """What a picture of several tables shows."""
    kind, _, track = name.removesuffix("-critical").partition("-")
    return f"Mean ranks, {kind} corpora, {TRACKS[track]}" if track in TRACKS else "What each method attains, simulated"


def _thumbnails(pictures: Sequence[tuple[str, str]], table: str = "") -> str:
    lines = ["<table>"]
    for first in range(0, len(pictures), COLUMNS):
        lines.append("<tr>")
        for file, title in pictures[first : first + COLUMNS]:
            said = html(f"{title}: {table}" if table else title)
            image = f'<img src="{html(file)}" alt="{said}" width="{THUMBNAIL}">'
            lines.append(f'<td valign="top"><a href="{html(file)}">{image}</a><br>{html(title)}</td>')
        lines.append("</tr>")
    return "\n".join([*lines, "</table>"])
