"""The generated parts of README.md and docs/simulated.md, which ``python -m mer_bench.report.readme`` rewrites.

A part stands between ``<!-- KIND -->`` or ``<!-- KIND: ARGUMENT -->`` and ``<!-- end -->``; :data:`BLOCKS` has a
function per kind. In README.md these are the table of methods and the first rows of tables of the leaderboard; in
docs/findings.md the tests of the papers' claims and what the tables say about the questions of the field; in
docs/simulated.md the facts about the corpora and what the methods attain on them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mer_bench.files import write_atomic
from mer_bench.methods import method_facts
from mer_bench.records import RunRecord
from mer_bench.report import diagnostic, findings
from mer_bench.report.compare import claims
from mer_bench.report.formatting import markdown
from mer_bench.report.leaderboard import excerpt, load
from mer_bench.report.simulated import presets
from mer_bench.report.tables import Table, tables

PAGES = (Path("README.md"), Path("docs/findings.md"), Path("docs/simulated.md"))
MARKED = re.compile(r"(<!-- (\w+)(?:: (.+?))? -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Sources:
    """What the generated parts are made of."""

    records: Sequence[RunRecord]

    @cached_property
    def tables(self) -> list[Table]:
        """All tables of the records."""
        return tables(self.records)

    @cached_property
    def real(self) -> list[Table]:
        """The tables that findings are about."""
        return findings.real(self.tables)


def _answer(question: Callable[[Sequence[Table]], str]) -> Callable[[Sources, str], str]:
    return lambda sources, argument: question(sources.real)


#: kind -> function of the sources and the argument that gives the text between the marks
BLOCKS: Mapping[str, Callable[[Sources, str], str]] = {
    "methods": lambda sources, argument: methods(),
    "table": lambda sources, argument: excerpt(sources.records, argument),
    "claims": lambda sources, argument: claims(sources.records),
    "presets": lambda sources, argument: presets(),
    "shares": lambda sources, argument: diagnostic.shares(sources.tables),
    "answers": lambda sources, argument: diagnostic.answers(sources.tables),
    "effort": lambda sources, argument: findings.effort(sources.records),
    **{name: _answer(question) for name, question in findings.QUESTIONS.items()},
}


def fill(text: str, sources: Sources, kinds: Collection[str] = BLOCKS) -> str:
    """``text`` with every marked part of these kinds generated again."""

    def block(found: re.Match[str]) -> str:
        mark, kind, argument, end = found.groups()
        return f"{mark}\n{BLOCKS[kind](sources, argument or '')}\n{end}" if kind in kinds else found[0]

    return MARKED.sub(block, text)


def methods() -> str:
    """One line per method, with its name in the paper and its code name, as a Markdown table."""
    lines, links = [], []
    for name, facts in method_facts().items():
        shown = f"[{facts.title}]" if facts.paper else facts.title
        idea = facts.idea.removeprefix(f"{facts.title}: ")
        lines.append((shown, f"`{name}`", idea, facts.track, facts.modalities, facts.kind, f"{facts.parameters:,}"))
        if facts.paper:
            links.append(f"[{facts.title}]: {facts.paper}\n")
    head = ("Method", "Name", "Idea", "Track", "Modalities", "Kind", "Parameters")
    return markdown([head, *lines], "<<<<<<>") + "\n" + "".join(links)


def main() -> None:
    """Rewrite the pages in the working directory."""
    sources = Sources(load(Path("benchmarks/results"), brief=True).records)
    for page in PAGES:
        write_atomic(page, fill(page.read_text(encoding="utf-8"), sources))


if __name__ == "__main__":
    main()
