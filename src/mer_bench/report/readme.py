"""The generated parts of the pages: ``python -m mer_bench.readme`` rewrites what stands between their marks.

``<!-- KIND -->`` or ``<!-- KIND: ARGUMENT -->`` ... ``<!-- end -->`` holds what :data:`BLOCKS` has for the kind. In
README.md these are the table of methods, heads of the leaderboard's tables and the papers' claims tested, in
docs/simulated.md what is known of the corpora and what the methods attain on them.
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

#: kind -> what stands there, from all records and the mark's argument
BLOCKS: Mapping[str, Callable[[Sequence[RunRecord], str], str]] = {
    "methods": lambda records, argument: methods(),
    "table": excerpt,
    "claims": lambda records, argument: claims(records),
    "presets": lambda records, argument: presets(),
    "shares": lambda records, argument: diagnostic.shares(tables(records)),
    "answers": lambda records, argument: diagnostic.answers(tables(records)),
}


def fill(text: str, records: Sequence[RunRecord], kinds: Collection[str] = BLOCKS) -> str:
    """``text`` with every marked part of these kinds made anew."""

    def block(found: re.Match[str]) -> str:
        mark, kind, argument, end = found.groups()
        return f"{mark}\n{BLOCKS[kind](records, argument or '')}\n{end}" if kind in kinds else found[0]

    return MARKED.sub(block, text)


def methods() -> str:
    """Every method in a line, with what its paper calls it and its name in suites."""
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
    """Rewrite the pages of the working directory."""
    records, _ = load_records(Path("benchmarks/results"))
    for page in PAGES:
        write_atomic(page, fill(page.read_text(encoding="utf-8"), records))


if __name__ == "__main__":
    main()
