"""Predictions that other toolkits made, as the block that a page shows below a table.

A table compares on identical features. Of predictions made elsewhere the features are known by their author's word
alone, so they are never ranked among the rows of a table: they stand in a block of their own, in an order of their own.
"""

from __future__ import annotations

from collections.abc import Iterator

from mer_bench.report.columns import NAMES
from mer_bench.report.formatting import between, effect, escape, p_value
from mer_bench.report.rows import CONTRIBUTED, EXTERNAL, ExternalRow, few_seeds
from mer_bench.report.tables import Table

HEADING = "Predictions made elsewhere"
PREFACE = (
    f"Scores of predictions made elsewhere ({EXTERNAL.strip()}), on features as their authors state them. They were "
    "neither trained here nor on the features of this table, so they have no rank in it. A place compares them with "
    "each other alone; it needs all folds of as many seeds as the table's rows have, and the statement that every "
    "choice was made on validation."
)


def lines(table: Table) -> list[tuple[str, ...]]:
    """The block as cells of Markdown: the headings, then the rows, those with a place first; empty without rows."""
    if not table.external:
        return []
    scores = [name for name in NAMES if name != "weighted_f1"]
    head = (
        "Place",
        "Made elsewhere",
        "Features as stated",
        NAMES["weighted_f1"],
        "95 % interval",
        "Against the best row",
    )
    found: list[tuple[str, ...]] = [(*head, *(NAMES[name] for name in scores), "Parameters", "Seeds")]
    for place, row in enumerate(table.external, 1):
        interval = between(*table.external_evidence[row].interval) if row in table.external_evidence else "–"
        parameters = row.statement.parameters
        found.append(
            (
                "–" if row.lacks else str(place),
                row.name_with_code,
                escape(row.reads),
                row.score("weighted_f1"),
                interval,
                _against(table, row),
                *(row.score(name) for name in scores),
                "–" if parameters is None else f"{parameters:,}",
                str(row.complete) if row.complete == len(row.seeds) else f"{row.complete}/{len(row.seeds)} seeds",
            )
        )
    return found


def align(head: tuple[str, ...]) -> str:
    """Alignment of the columns of :func:`lines`."""
    return "".join("<" if name in ("Made elsewhere", "Features as stated", "Seeds") else ">" for name in head)


def notes(table: Table) -> Iterator[str]:
    """Sentences under the block as Markdown."""
    if table.against_best and table.best:
        yield (
            f"Against the best row: points of weighted F1 minus those of {escape(table.best.name)}, paired, with p "
            "Holm-corrected over this block. It compares features and methods at once."
        )
    for row in table.external:
        if row.lacks:
            yield f"{row.name_with_code} has no place: {'; '.join(row.lacks)}."
        if row.statement.url:
            yield f"{row.name_with_code}: {escape(row.statement.url)}"
    if any(row.contributed for row in table.external):
        yield f"{CONTRIBUTED.strip()} marks predictions of an accepted submission."


def values(table: Table) -> list[dict[str, float | str | None]]:
    """The block as data, with the headings of :func:`mer_bench.report.columns.values` where there are such."""
    found: list[dict[str, float | str | None]] = []
    for place, row in enumerate(table.external, 1):
        scores = {name: 100 * row.scores[name] for name in NAMES}
        one: dict[str, float | str | None] = {"Rank": None, "Method": row.name, "Method, code name": row.method}
        for name, each in scores.items():
            one[NAMES[name]] = round(float(each.mean()), 4)
            deviation = round(float(each.std(ddof=1)), 4) if len(each) > 1 else None
            one[f"{NAMES[name]}, standard deviation"] = deviation
        if row in table.external_evidence:
            low, high = table.external_evidence[row].interval
            one |= {"95 % interval": round(100 * low, 4), "95 % interval, upper end": round(100 * high, 4)}
        one |= {"Parameters": row.statement.parameters, "Seeds": row.complete, "Provenance": "external"}
        one |= {"Place among predictions made elsewhere": None if row.lacks else place}
        one |= {"Features as stated": row.statement.features or None, "Address": row.statement.url}
        found.append(one)
    return found


def _against(table: Table, row: ExternalRow) -> str:
    if row not in table.against_best:
        return (few_seeds(row) if row in table.external_evidence else "") or "–"
    found, p = table.against_best[row]
    return f"{effect(found, '+')}, {p_value(p)}"
