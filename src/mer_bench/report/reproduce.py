"""The commands that train a row of a table again."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mer_bench.records import RunRecord, RunSpec
from mer_bench.report.rows import ResultRow
from mer_bench.suites import Suite, SuiteRow, read_suite_file
from mer_bench.workspace import suite_argument

AGAIN = "build/again"  #: where the commands of the page write, so that they train anew beside the committed records

Recipe = tuple[Suite, SuiteRow]  #: a suite, and what it says of one method in one of its tables


def read_recipes(folder: Path) -> list[Recipe]:
    """What the suites in ``folder`` train.

    Raises:
        Misuse: a TOML file in it is not a suite.
    """
    suites = [read_suite_file(file) for file in sorted(folder.glob("*.toml"))]
    fewest = sorted(suites, key=lambda suite: len(suite.shares))  # one that trains on less data too is the last choice
    return [(suite, row) for suite in fewest for row in suite.rows]


def commands(
    row: ResultRow, recipes: Sequence[Recipe], folder: Callable[[RunRecord], Path]
) -> Iterator[tuple[str, str]]:
    """Command lines that train a row again: all of it where a suite holds it, and one of its trainings.

    Args:
        row: The row.
        recipes: What suites train.
        folder: Function that gives the folder in which the commands find a record.
    """
    first = min(row.records, key=lambda record: (record.spec.seed, record.spec.fold))
    suite = next((suite for suite, of in recipes if gives(suite, of, row.spec)), None)
    if suite:
        seeds = " ".join(str(seed) for seed in sorted({record.spec.seed for record in row.records}))
        words = ["mer-bench", "bench", suite_argument(suite.file), "--methods", row.method, "--seeds", seeds]
        words += ["--results", AGAIN] if first.simulated else ["--corpus", "real", "--results", AGAIN]
        yield "The row", shlex.join(words)
    spec = first.path(folder(first)).as_posix()
    yield "One training of it", shlex.join(["mer-bench", "run", "--spec", spec, "--results", AGAIN])


def gives(suite: Suite, row: SuiteRow, spec: RunSpec) -> bool:
    """Whether the suite, run today, trains such a run, whose settings may be tuned from there."""
    spec = spec.untuned
    return (
        spec.dataset in suite.datasets
        and (spec.label_set, spec.method) == (suite.label_set, row.method)
        and spec.protocol == suite.protocol_of(spec.dataset)
        and spec.features.items() <= row.features.items()
        and row.options.items() <= spec.options.items() <= {**row.common, **row.options}.items()
        and spec.training == row.training
        and spec.share in suite.shares
    )
