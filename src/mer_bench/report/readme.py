"""The generated parts of README.md and docs/simulated.md, which ``python -m mer_bench.report.readme`` rewrites.

A part stands between ``<!-- KIND -->`` or ``<!-- KIND: ARGUMENT -->`` and ``<!-- end -->``; :data:`BLOCKS` has a
function per kind. In README.md these are the first rows of the matrix; in docs/findings.md the tests of the papers'
claims and what the tables say about the questions of the field; in docs/simulated.md the facts about the corpora, their
tables and what methods attain on them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mer_bench.errors import Misuse
from mer_bench.files import write_atomic
from mer_bench.records import RunRecord
from mer_bench.report import diagnostic, findings
from mer_bench.report.board import load, make_board, read_board
from mer_bench.report.compare import claims
from mer_bench.report.leaderboard import Places, listed, matrix_rows, simulated_tables
from mer_bench.report.matrix import Standing
from mer_bench.report.simulated import presets
from mer_bench.report.tables import Table, real_tables, tables

PAGES = (Path("README.md"), Path("docs/findings.md"), Path("docs/simulated.md"))
MARKED = re.compile(r"(<!-- (\w+)(?:: (.+?))? -->\n).*?(<!-- end -->)", re.DOTALL)
TABLES = "benchmarks/tables"  #: where the pages of tables stand


@dataclass(frozen=True)
class Content:
    """What the parts are made of."""

    records: Sequence[RunRecord]
    results: Path | None = None  #: folder of the records, whose cache saves work

    @cached_property
    def tables(self) -> list[Table]:
        """The tables of the records."""
        return tables(self.records)

    @cached_property
    def standings(self) -> list[Standing]:
        """What the matrix needs of each table."""
        board = read_board(self.results) if self.results else make_board(self.records)
        return [each.standing for each in board.sections]


def _answer(question: Callable[[Sequence[Table]], str]) -> Callable[[Content, str], str]:
    return lambda content, argument: question(real_tables(content.tables))


#: kind -> function of the content and the argument that gives the text between the marks
BLOCKS: Mapping[str, Callable[[Content, str], str]] = {
    "matrix": lambda content, argument: matrix_rows(content.standings, _number(argument), TABLES),
    "claims": lambda content, argument: claims(content.tables),
    "presets": lambda content, argument: presets(),
    "pages": lambda content, argument: simulated_tables(listed(content.standings), Places(f"../{TABLES}")),
    "shares": lambda content, argument: diagnostic.shares(content.tables),
    "answers": lambda content, argument: diagnostic.answers(content.tables),
    "effort": lambda content, argument: findings.effort(content.records),
    **{name: _answer(question) for name, question in findings.QUESTIONS.items()},
}


def fill(text: str, content: Content, kinds: Collection[str] = BLOCKS) -> str:
    """``text`` with every marked part of these kinds generated again.

    Raises:
        Misuse: a mark names no number of rows.
    """

    def block(found: re.Match[str]) -> str:
        mark, kind, argument, end = found.groups()
        return f"{mark}\n{BLOCKS[kind](content, argument or '')}\n{end}" if kind in kinds else found[0]

    return MARKED.sub(block, text)


def _number(argument: str) -> int:
    """The rows that a mark asks for."""
    if not (argument.isdecimal() and int(argument)):
        raise Misuse(f"the mark <!-- matrix: {argument} --> must name a number of rows: <!-- matrix: 8 -->")
    return int(argument)


def main() -> None:
    """Rewrite the pages in the working directory."""
    results = Path("benchmarks/results")
    content = Content(load(results, brief=True).records, results)
    for page in PAGES:
        write_atomic(page, fill(page.read_text(encoding="utf-8"), content))


if __name__ == "__main__":
    main()
