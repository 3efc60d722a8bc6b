"""The pages of the leaderboard as tests read them: those of tables as one text, with rows by their code names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mer_bench.records import RunRecord
from mer_bench.report.board import MARK, Layout, make_board
from mer_bench.report.leaderboard import listed

LAYOUT = Layout(Path("leaderboard.md"), Path("tables"))
MARKS = re.compile(r"(?: [†°‡§◇]| \(own\)| [⁰¹²³⁴⁵⁶⁷⁸⁹]+)*$")


def files(records: Sequence[RunRecord], *others: object, layout: Layout = LAYOUT, **more: object) -> dict[str, str]:
    """Every file of the board by its name."""
    made = make_board(records, *others, **more)  # type: ignore[arg-type]
    return {path.name: text for path, text in made.files(layout).items()}


def front(records: Sequence[RunRecord], *others: object, layout: Layout = LAYOUT, **more: object) -> str:
    """The leaderboard itself."""
    return files(records, *others, layout=layout, **more)[layout.front.name]


def everything(records: Sequence[RunRecord], *others: object, **more: object) -> str:
    """All pages, the front page included, as one text."""
    return "\n".join(text for name, text in files(records, *others, **more).items() if name.endswith(".md"))


def leaderboard(records: Sequence[RunRecord], *others: object, **more: object) -> str:
    """All pages but the front page, one after the other, without what they say of how to read them."""
    board = make_board(records, *others, **more)  # type: ignore[arg-type]
    texts = board.files(LAYOUT)
    names = [each.file for each in listed(each.standing for each in board.sections)]
    pages = [LAYOUT.tables / f"{name}.md" for name in (*names, "across", "published")]
    return "\n".join(texts[page].partition("## How to read it")[0] for page in pages if page in texts)


def coded(page: str) -> str:
    """The tables of pages with code names and options in place of short names, as "Rows and their options" has them."""
    return "\n".join(map(_coded, page.split(MARK)))


def _coded(page: str) -> str:
    names = {}
    for text in page.partition("\n## Rows and their options\n")[2].splitlines():
        if "`" in text:
            short, code, _, options = cells(text)
            label = code.strip("`") + (f" ({options})" if options != "defaults" else "")
            names[short] = label + MARKS.search(short)[0]  # type: ignore[index]  # which matches at the end of any text
    return "\n".join(_renamed(text, names) for text in page.splitlines())


def _renamed(text: str, names: dict[str, str]) -> str:
    found = cells(text) if text.startswith("| ") else []
    at = next((at for at, cell in enumerate(found[:2]) if cell in names), None)
    return text if at is None else f"| {' | '.join([*found[:at], names[found[at]], *found[at + 1 :]])} |"


def cells(text: str) -> list[str]:
    """Cells of a line of a table."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", text.strip())[1:-1]]
