"""Files of tuned settings: which trial each fold of each row has chosen on its own validation rows. No torch.

``mer-bench tune`` writes the file from the records of the trials; the suite reads it, and what it says is believed only
for runs whose version, features and space are still the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from mer_bench.errors import Misuse
from mer_bench.files import read_toml
from mer_bench.records import SIMULATED, RunSpec, failure_path
from mer_bench.schema import Count, Hash, Name, Option, Positive, Seed, Share, decode
from mer_bench.suites import Suite
from mer_bench.training.draws import space_id, space_of, trial
from mer_bench.trials import TrialRecord, read_trial, trials_folder
from mer_bench.workspace import default_results, in_clone

FOLDER = "tuned"  #: beside the suites; beside the records where these are not the usual ones


@dataclass(frozen=True)
class FoldChoice:
    """What one fold has chosen."""

    fold: Positive
    trial: Count  #: 0 = the suite's own settings
    score: Share | None = None  #: its weighted F1 on validation; None = every trial failed
    default: Share | None = None  #: that of trial 0; None = it failed
    settings: Mapping[Name, Option] = field(default_factory=dict)  #: what it changes
    failed: list[Count] = field(default_factory=list)  #: trials among which it could not choose


@dataclass(frozen=True)
class TunedRow:
    """What the folds of one row of a suite have chosen."""

    dataset: Name
    method: Name
    version: Count
    options: Mapping[Name, Option]  #: as the suite has them
    features: Mapping[Name, Name]
    features_sha256: Mapping[Name, Hash]
    space: Name  #: see :func:`mer_bench.training.draws.space_id`
    fold: Annotated[list[FoldChoice], Meta(min_length=1)]


@dataclass(frozen=True)
class TunedFile:
    """A file of tuned settings."""

    trials: Positive  #: of each row and fold
    seed: Seed  #: of the trials
    row: list[TunedRow] = field(default_factory=list)


def tuned_path(suite: Suite, results: Path) -> Path:
    """Where the settings stand that were tuned for a suite with the records below ``results``."""
    name = f"{SIMULATED * suite.is_stand_in}{suite.file.stem}.toml"
    usual = in_clone() and results == default_results()
    return (suite.file.parent if usual else results) / FOLDER / name


def find_tuned(suite: Suite, results: Path) -> Path | None:
    """The file of tuned settings that a suite reads: that of the records, else the one beside the suite."""
    path = tuned_path(suite, results)
    found = (path, suite.file.parent / FOLDER / path.name)
    return next((each for each in found if each.is_file()), None)


@dataclass(frozen=True)
class Choices:
    """What has come of the trials of a suite."""

    file: TunedFile
    kept: list[RunSpec]  #: runs all of whose trials failed, so that they keep the settings of the suite
    failed: list[RunSpec]  #: the trials that failed
    open: int  #: runs some of whose trials were not made


def choose(suite: Suite, specs: Sequence[RunSpec], trials: int, results: Path) -> Choices:
    """Let each fold choose on its own validation rows: the best weighted F1, of equal ones the lower trial.

    Args:
        suite: The suite.
        specs: Its runs with its own settings and the seed of the trials, all folds.
        trials: Number of trials of each.
        results: Folder of the records, below which those of the trials stand.

    Raises:
        Misuse: the record of a trial cannot be read.
    """
    rows: dict[str, tuple[RunSpec, list[FoldChoice]]] = {}
    kept, failures, unfinished = [], [], 0
    for spec in specs:
        if not space_of(suite, spec):
            continue
        made, failed = {}, []
        for number in range(trials):
            each = trial(suite, spec, number)
            path = each.path(trials_folder(results))
            if path.is_file():
                made[number] = read_trial(path)
            elif failure_path(path).is_file():
                failed.append(number)
                failures.append(each)
        if len(made) + len(failed) < trials:
            unfinished += 1
            continue
        kept += [spec] * (not made)
        found = rows.setdefault(f"{spec.dataset} {space_id(suite, spec)} {spec.features}", (spec, []))[1]
        found.append(_choice(suite, spec, made, failed))
    file = TunedFile(trials, specs[0].seed, [_tuned_row(suite, spec, found) for spec, found in rows.values()])
    return Choices(file, kept, failures, unfinished)


def _choice(suite: Suite, spec: RunSpec, made: Mapping[int, TrialRecord], failed: list[int]) -> FoldChoice:
    if not made:
        return FoldChoice(spec.fold, 0, failed=failed)
    best = max(made, key=lambda number: (made[number].score, -number))
    tuned = trial(suite, spec, best)
    return FoldChoice(
        spec.fold,
        best,
        round(made[best].score, 6),
        round(made[0].score, 6) if 0 in made else None,
        _settings(tuned),
        failed,
    )


def _settings(tuned: RunSpec) -> dict[str, Any]:
    """What a trial other than that of the suite's own settings changes."""
    assert tuned.tuned is not None
    if tuned.tuned.trial == 0:
        return {}
    return {n: tuned.options[n] if n in tuned.options else getattr(tuned.training, n) for n in tuned.tuned.default}


def _tuned_row(suite: Suite, spec: RunSpec, found: list[FoldChoice]) -> TunedRow:
    return TunedRow(
        spec.dataset,
        spec.method,
        spec.version,
        spec.options,
        spec.features,
        spec.features_sha256,
        space_id(suite, spec),
        found,
    )


def tuned_specs(
    suite: Suite, specs: Iterable[RunSpec], path: Path, file: TunedFile
) -> tuple[dict[str, RunSpec], list[str]]:
    """The runs with tuned settings, by the sha256 of the run with the suite's own, and a sentence for what is stale.

    Args:
        suite: The suite.
        specs: Its runs with its own settings.
        path: The file of tuned settings.
        file: Its content.
    """
    found: dict[str, RunSpec] = {}
    without: dict[str, dict[str, None]] = {}  # reason -> methods
    for spec in specs:
        if not space_of(suite, spec):
            continue
        alike = [(row, _stale(suite, spec, row)) for row in file.row if _is_alike(row, spec)]
        reason = next((why for _, why in alike), "")
        choices = [choice for row, why in alike if not why for choice in row.fold if choice.fold == spec.fold]
        if not choices:
            without.setdefault(reason, {})[spec.method] = None
            continue
        (choice, *_) = choices
        tuned = trial(suite, spec, choice.trial, file.trials)
        if choice.trial >= file.trials or _settings(tuned) != choice.settings:
            raise Misuse(
                f"{path}: the settings of {spec.method}, fold {spec.fold}, are not those of trial {choice.trial}; do "
                "not edit the file, tune again"
            )
        found[spec.sha256] = tuned
    sentences = []
    for reason, methods in without.items():
        names = ", ".join(methods)
        what = f"is stale for {names}: {reason}" if reason else f"lacks folds of {names}"
        sentences.append(f"{path} {what}; no tuned rows of these until mer-bench tune {suite.file}")
    return found, sentences


def _is_alike(row: TunedRow, spec: RunSpec) -> bool:
    same = (row.dataset, row.method, dict(row.features)) == (spec.dataset, spec.method, dict(spec.features))
    return same and row.options == spec.options


def _stale(suite: Suite, spec: RunSpec, row: TunedRow) -> str:
    """Why the choices of a row are not for a run of today; empty if they are."""
    if row.version != spec.version:
        return f"it was tuned with version {row.version} of the code, which now has version {spec.version}"
    if dict(row.features_sha256) != dict(spec.features_sha256):
        return "it was tuned with other features of these names"
    if row.space != space_id(suite, spec):
        return "it was tuned from another space, or from other settings of the suite"
    return ""


def read_tuned(path: Path) -> TunedFile:
    """Read a file of tuned settings; raises Misuse if it is none."""
    return decode(read_toml(path, "tuned settings"), TunedFile, f"tuned settings {path}")


def write_text(suite: Suite, file: TunedFile) -> str:
    """The text of a file of tuned settings: equal choices give equal bytes."""
    lines = [
        f"# Settings that mer-bench tune has chosen for the suite {suite.file.name}; generated, edits are lost.",
        "# Each fold chose on its own validation rows, by weighted F1; no trial has opened a test set.",
        f"trials = {file.trials}  # of each row and fold; trial 0 has the settings of the suite",
        f"seed = {file.seed}  # of all trials",
    ]
    for row in file.row:
        facts = {name: getattr(row, name) for name in TunedRow.__dataclass_fields__ if name != "fold"}
        lines += ["", "[[row]]", *(f"{name} = {_toml(value)}" for name, value in facts.items()), "fold = ["]
        for choice in row.fold:
            known = {name: getattr(choice, name) for name in FoldChoice.__dataclass_fields__}
            lines.append(f"  {_toml({name: value for name, value in known.items() if value not in (None, {}, [])})},")
        lines.append("]")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """A value in TOML on one line."""
    write: Callable[[Any], str] = _toml
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(name)} = {write(each)}' for name, each in value.items())} }}" if value else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(write, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if name.replace("_", "a").replace("-", "a").isalnum() and name.isascii() else json.dumps(name)
