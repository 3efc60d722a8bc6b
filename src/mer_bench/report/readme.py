"""The generated parts of README.md and docs/simulated.md, which ``python -m mer_bench.report.readme`` rewrites.

A part stands between ``<!-- KIND -->`` or ``<!-- KIND: ARGUMENT -->`` and ``<!-- end -->``; :data:`BLOCKS` has a
function per kind. In README.md these are the table of methods, the first rows of tables of the leaderboard and the
tests of the papers' claims; in docs/simulated.md the facts about the corpora and what the methods attain on them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from mer_bench.files import write_atomic
from mer_bench.methods import method_facts
from mer_bench.records import RunRecord, load_records
from mer_bench.report import diagnostic
from mer_bench.report.compare import claims
from mer_bench.report.formatting import markdown
from mer_bench.report.leaderboard import excerpt
from mer_bench.report.simulated import presets
from mer_bench.report.tables import tables

PAGES = (Path("README.md"), Path("docs/findings.md"), Path("docs/simulated.md"))
MARKED = re.compile(r"(<!-- (\w+)(?:: (.+?))? -->\n).*?(<!-- end -->)", re.DOTALL)

#: kind -> function of all records and the argument that gives the text between the marks
BLOCKS: Mapping[str, Callable[[Sequence[RunRecord], str], str]] = {
    "methods": lambda records, argument: methods(),
    "table": excerpt,
    "claims": lambda records, argument: claims(records),
    "presets": lambda records, argument: presets(),
    "shares": lambda records, argument: diagnostic.shares(tables(records)),
    "answers": lambda records, argument: diagnostic.answers(tables(records)),
}


def fill(text: str, records: Sequence[RunRecord], kinds: Collection[str] = BLOCKS) -> str:
    """``text`` with every marked part of these kinds generated again."""

    def block(found: re.Match[str]) -> str:
        mark, kind, argument, end = found.groups()
        return f"{mark}\n{BLOCKS[kind](records, argument or '')}\n{end}" if kind in kinds else found[0]

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
    records, _ = load_records(Path("benchmarks/results"))
    for page in PAGES:
        write_atomic(page, fill(page.read_text(encoding="utf-8"), records))


if __name__ == "__main__":
    main()
