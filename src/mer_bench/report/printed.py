"""Tables for a paper: those that were asked for, in one format, with a caption that says what they are."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from mer_bench.errors import Misuse, unknown
from mer_bench.external import ExternalRecord
from mer_bench.methods import method_facts
from mer_bench.records import RunRecord
from mer_bench.report import elsewhere
from mer_bench.report.columns import csv_of, print_table, values
from mer_bench.report.formatting import escape, latex, markdown, unescape
from mer_bench.report.statistics import LEAST_SEEDS
from mer_bench.report.tables import Table, tables

FORMATS = ("markdown", "latex", "csv", "json")
ARXIV = re.compile(r"https://arxiv\.org/abs/((\d\d)\d\d\.\d{4,5})")

Numbered = Mapping[int, Table]  #: number in the leaderboard -> table


def choose(
    records: Sequence[RunRecord],
    external: Sequence[ExternalRecord] = (),
    *,
    dataset: str | None = None,
    label_set: str | None = None,
    protocol: str | None = None,
    track: str | None = None,
    number: int | None = None,
) -> Numbered:
    """The tables of these records that have all that is given.

    Raises:
        Misuse: there is none; the message names what is not there, and what is.
    """
    found = dict(enumerate(tables(records, external), 1))
    if not found:
        raise Misuse("there are no records, so there is no table; --results names another folder")
    if number is not None:
        if number not in found:
            raise Misuse(f"there are tables 1 to {len(found)}, not {number}")
        found = {number: found[number]}
    for kind, name in (("dataset", dataset), ("label_set", label_set), ("protocol", protocol), ("track", track)):
        if name is not None:
            have = {
                at: table.track if kind == "track" else getattr(table.first.spec, kind) for at, table in found.items()
            }
            if name not in have.values():
                raise unknown(f"{kind.replace('_', ' ')} among the tables", name, dict.fromkeys(have.values()))
            found = {at: each for at, each in found.items() if have[at] == name}
    return found


def print_tables(chosen: Numbered, format: str) -> str:
    """Tables in one of :data:`FORMATS`: a caption as a line above in Markdown, as comments in LaTeX, as keys in JSON.

    Raises:
        Misuse: the format is another one, or it is ``csv``, which holds one table, and there are several.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if format == "json":
        return (
            json.dumps([_data(number, table) for number, table in chosen.items()], indent=1, ensure_ascii=False) + "\n"
        )
    if format == "csv":
        if len(chosen) > 1:
            listed = "; ".join(f"{number} ({table.title}; {_sets(table)})" for number, table in chosen.items())
            raise Misuse(
                f"csv holds one table, but {len(chosen)} match: choose one by --number, or by --dataset, --label-set, "
                f"--protocol and --track, of {listed}"
            )
        (table,) = chosen.values()
        return csv_of([*values(table), *elsewhere.values(table)])
    return "\n".join(
        _head(table, format) + print_table(table, format, bold=True) + _external(table, format)
        for table in chosen.values()
    )


def caption(table: Table) -> list[str]:
    """What a table is, in sentences of plain text: protocol, features with their hashes, and its marks."""
    spec, protocol = table.first.spec, table.protocol
    sets = ", ".join(f"{modality} {name} (sha256 {digest[:12]})" for modality, name, digest in table.sets)
    found = [f"{table.title}."]
    if table.first.simulated:
        found.append("Simulated corpus: no evidence about real ones.")
    if protocol:
        found.append(f"Protocol {spec.protocol}: {protocol.text}")
    found.append(f"Features: {sets}.")
    found.append("Scores in percent: mean ± standard deviation over seeds; one seed has no deviation.")
    if table.behind:
        found.append("Bold: the best, and those not shown to be behind it (≈; Holm-corrected p of 0.05 or more).")
    if any(row.ranked and table.tied(row) is None for row in table.evidence):
        found.append(f"With fewer than {LEAST_SEEDS} seeds no row is said to be behind the best or tied with it.")
    if table.rank_intervals:
        found.append("Ranks: 95 % interval of the rank.")
    if any(row.probability_scores for row in table.rows):
        found.append("NLL in nats, Brier score and expected calibration error (ECE): the smaller the better.")
    own = ", ◇ not built in" * any(row.records[-1].provenance == "own" for row in table.rows)
    contributed = " § contributed, all others run by the maintainers." * any(row.contributed for row in table.rows)
    return [*found, f"† reconstruction, ° baseline{own}; – no rank.{contributed}"]


def _sets(table: Table) -> str:
    return ", ".join(name for _, name, _ in table.sets)


def _head(table: Table, format: str) -> str:
    if format == "markdown":
        return f"{escape(' '.join(caption(table)))}\n\n"
    return "".join(f"% {sentence}\n" for sentence in caption(table)) if format == "latex" else ""


def _external(table: Table, format: str) -> str:
    """The block of predictions made elsewhere, with what it is."""
    found = elsewhere.lines(table)
    if not found:
        return ""
    said = [elsewhere.PREFACE, *elsewhere.notes(table)]
    if format == "markdown":
        text = "".join(f"- {sentence}\n" for sentence in said[1:])
        return f"\n{said[0]}\n\n{markdown(found, elsewhere.align(found[0]))}\n{text}"
    return "\n" + "".join(f"% {unescape(each)}\n" for each in said) + latex(found, elsewhere.align(found[0]))


def _data(number: int, table: Table) -> dict[str, object]:
    spec = table.first.spec
    return {
        "number": number,
        "title": table.title,
        "dataset": spec.dataset,
        "label_set": spec.label_set,
        "protocol": spec.protocol,
        "track": table.track,
        "simulated": table.first.simulated,
        "features": {modality: {"name": name, "sha256": digest} for modality, name, digest in table.sets},
        "caption": " ".join(caption(table)),
        "rows": values(table),
        "external": elsewhere.values(table),
    }


def bibtex(chosen: Numbered) -> str:
    """A BibTeX entry for each paper of a method in these tables, in the order of :func:`method_facts`.

    An entry has what is known for certain: the address, and for arXiv the number and the year of submission. Authors
    and title are not known here; ``key`` is what BibTeX sorts by in their place.
    """
    here = {
        row.method
        for table in chosen.values()
        for row in (*table.rows, *table.ablations, *table.strategies, *table.reduced)
    }
    papers: dict[str, list[str]] = defaultdict(list)
    names: dict[str, str] = {}
    for name, facts in method_facts().items():
        if name in here and facts.paper:
            papers[facts.paper].append(facts.title)
            names.setdefault(facts.paper, name)
    return "\n".join(_entry(names[paper], paper, titles) for paper, titles in papers.items())


def _entry(name: str, paper: str, titles: Sequence[str]) -> str:
    arxiv = ARXIV.fullmatch(paper)
    fields = {"key": titles[0], "howpublished": rf"\url{{{paper}}}", "note": f"Paper of {' and '.join(titles)}"}
    if arxiv:
        fields |= {"eprint": arxiv[1], "archiveprefix": "arXiv", "year": f"20{arxiv[2]}"}
    return f"@misc{{{name},\n" + "".join(f"  {field} = {{{text}}},\n" for field, text in fields.items()) + "}\n"
