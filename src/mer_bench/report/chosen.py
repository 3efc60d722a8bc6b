"""How the settings of a table's rows were chosen: what the committed suites that train them say of it.

The suites come with the package, so that equal records give equal pages anywhere. A suite speaks of a table if it
trains a row of it, with the same method, features, options and training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mer_bench.errors import Misuse
from mer_bench.report.formatting import escape
from mer_bench.report.reproduce import Recipe, gives
from mer_bench.report.rows import ResultRow
from mer_bench.report.tables import Table
from mer_bench.suites import Suite, read_suite_file
from mer_bench.workspace import suites_folder


def committed_recipes(folder: Path | None = None) -> list[Recipe]:
    """What the suites of the package, or those in ``folder``, train; a file that is no suite is passed over."""
    found: list[Suite] = []
    for file in sorted((folder or suites_folder()).glob("*.toml")):
        with suppress(Misuse):  # a page of records must not fail by a suite that is being written
            found.append(read_suite_file(file))
    return [(suite, row) for suite in found for row in suite.rows]


def with_settings(table: Table, recipes: Sequence[Recipe]) -> Table:
    """The table with the sentences about its settings."""
    return replace(table, settings=tuple(_sentences(table, recipes)))


def _sentences(table: Table, recipes: Sequence[Recipe]) -> Iterator[str]:
    by_row = {row: _of(row, recipes) for row in table.rows}
    files = dict.fromkeys(suite.file.name for found in by_row.values() for suite, _ in found if suite.chosen)
    for name in files:
        rows = [row for row, found in by_row.items() if any(suite.file.name == name for suite, _ in found)]
        text = next(suite.chosen for found in by_row.values() for suite, _ in found if suite.file.name == name)
        part = "" if len(rows) == len(table.rows) else f", {len(rows)} of {len(table.rows)} rows"
        yield f"Settings (`{name}`{part}): {escape(text)}"
    own = [row for row, found in by_row.items() if found and not row.spec.tuned and all(of.options for _, of in found)]
    if files and own:
        yield f"Rows with options of their own beside those that all share: {_names(own)}."
    if files and (others := [row for row, found in by_row.items() if not found]):
        yield f"No suite trains these rows today: {_names(others)}."


def _of(row: ResultRow, recipes: Sequence[Recipe]) -> list[Recipe]:
    return [(suite, of) for suite, of in recipes if gives(suite, of, row.spec)]


def _names(rows: Sequence[ResultRow]) -> str:
    return ", ".join(sorted({escape(row.title) for row in rows}))
