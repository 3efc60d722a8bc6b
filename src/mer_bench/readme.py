"""The generated parts of README.md: ``python -m mer_bench.readme`` rewrites what stands between its marks.

``<!-- methods -->`` ... ``<!-- end -->`` holds the table of methods, ``<!-- table: TITLE -->`` ... ``<!-- end -->`` the
head of the leaderboard's table of that title.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mer_bench import report
from mer_bench.files import write_atomic
from mer_bench.records import RunRecord, load_records
from mer_bench.suite import describe_methods

BLOCK = re.compile(r"(<!-- (methods|table: (.+?)) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(text: str, records: Sequence[RunRecord]) -> str:
    """``text`` with every marked part made anew."""

    def block(found: re.Match[str]) -> str:
        content = methods() if found[2] == "methods" else report.excerpt(records, found[3])
        return f"{found[1]}\n{content}\n{found[4]}"

    return BLOCK.sub(block, text)


def methods() -> str:
    """Every method in a line: name with its paper, idea, track, modalities, kind, parameters."""
    lines, links = [], []
    for name, track, modalities, kind, parameters, paper, idea in describe_methods()[1:]:
        lines.append((f"[{name}]" if paper else name, idea.rstrip("."), track, modalities, kind, parameters))
        if paper:
            links.append(f"[{name}]: {paper.replace('arXiv ', 'https://arxiv.org/abs/')}\n")
    head = ("Method", "Idea", "Track", "Modalities", "Kind", "Parameters")
    return report.markdown([head, *lines], "<<<<<>") + "\n" + "".join(links)


def main() -> None:
    """Rewrite README.md of the working directory."""
    path = Path("README.md")
    records, _ = load_records(Path("benchmarks/results"))
    write_atomic(path, fill(path.read_text(encoding="utf-8"), records))


if __name__ == "__main__":
    main()
