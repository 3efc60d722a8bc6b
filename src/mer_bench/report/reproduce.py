"""The commands that make a row again."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer_bench.records import RunRecord, Training
from mer_bench.report.rows import Row

if TYPE_CHECKING:
    pass

AGAIN = "build/again"  #: where the commands of the page write, so that they train anew beside the committed records


@dataclass(frozen=True)
class Recipe:
    """What a suite file says of one method in one of its tables."""

    file: Path
    datasets: tuple[str, ...]
    label_set: str
    protocol: str
    features: Mapping[str, str]
    method: str
    common: Mapping[str, Any]  #: options of which each method takes those that it has
    options: Mapping[str, Any]
    training: Training

    def gives(self, record: RunRecord) -> bool:
        """Whether the suite, run today, trains what the record holds."""
        spec = record.spec
        return (
            spec.dataset in self.datasets
            and (spec.label_set, spec.protocol, spec.method) == (self.label_set, self.protocol, self.method)
            and spec.features.items() <= self.features.items()
            and self.options.items() <= spec.options.items() <= {**self.common, **self.options}.items()
            and spec.training == self.training
        )


def read_recipes(folder: Path) -> list[Recipe]:
    """What the suites in ``folder`` train, read without torch; a file that is no suite is passed over."""
    found = []
    for file in sorted(folder.glob("*.toml")):
        try:
            suite = tomllib.loads(file.read_text(encoding="utf-8"))
            shared = replace(Training(), **suite.get("training", {}))
            datasets = suite["dataset"] if isinstance(suite["dataset"], list) else [suite["dataset"]]
            for table in suite["table"]:
                usual = replace(shared, **table.get("training", {}))
                for entry in table["methods"]:
                    method: dict[str, Any] = {"name": entry} if isinstance(entry, str) else entry
                    found.append(Recipe(
                        file, tuple(datasets), suite["label_set"], suite["protocol"], table["features"], method["name"],
                        table.get("options", {}), method.get("options", {}),
                        replace(usual, **method.get("training", {})),
                    ))  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return found


def commands(row: Row, recipes: Sequence[Recipe], results: Path) -> Iterator[tuple[str, str]]:
    """Command lines that train a row again: all of it where a suite holds it, and one of its trainings."""
    first = min(row.records, key=lambda record: (record.spec.seed, record.spec.fold))
    recipe = next((each for each in recipes if all(each.gives(record) for record in row.records)), None)
    if recipe:
        seeds = " ".join(str(seed) for seed in sorted({record.spec.seed for record in row.records}))
        words = ["mer-bench", "bench", recipe.file.as_posix(), "--methods", row.method, "--seeds", seeds]
        words += ["--results", AGAIN] if first.simulated else ["--corpus", "real", "--results", AGAIN]
        yield "The row", shlex.join(words)
    spec = first.spec.path(results).as_posix()
    yield "One training of it", shlex.join(["mer-bench", "run", "--spec", spec, "--results", AGAIN])
