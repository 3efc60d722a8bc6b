"""The table "Tuning": what a budget of trials is worth, and to whom. Needs numpy, but not torch.

Its rows are those of which trials were recorded. Trials score validation alone, so that what is said of them says
nothing about test scores; those are of the runs with the suite's own settings and of the runs with the chosen ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np

from mer_bench.methods import is_current, title
from mer_bench.records import RunSpec, Tuned
from mer_bench.report.formatting import between, escape, points
from mer_bench.report.names import marked_names
from mer_bench.report.rows import REFERENCES, ResultRow, modalities, options_text
from mer_bench.report.statistics import significant
from mer_bench.report.tables import Table, find_like
from mer_bench.trials import TrialRecord

AFTER = (1, 2, 4, 8, 16, 32, 64)  #: numbers of trials of which the expected best score is shown
SEEDS = 3  #: fewer say nothing about whether a gain is real


@dataclass(frozen=True)
class Tuning:
    """The trials of one row of a suite, and its rows in the table."""

    trials: tuple[TrialRecord, ...]
    default: ResultRow | None  #: with the suite's own settings
    tuned: ResultRow | None  #: with those that each fold has chosen
    budget: int  #: trials of each fold

    @property
    def scores(self) -> list[list[float]]:
        """Weighted F1 on validation [fold][trial] of the folds that have trial 0, which stands first."""
        found: dict[int, dict[int, float]] = defaultdict(dict)
        for each in self.trials:
            if each.spec.tuned and each.spec.tuned.trial < self.budget:
                found[each.spec.fold][each.spec.tuned.trial] = each.score
        return [[scores[number] for number in sorted(scores)] for scores in found.values() if 0 in scores]

    @property
    def validation_gain(self) -> float:
        """What the best trial of each fold gains on validation over trial 0, mean over folds."""
        return float(np.mean([max(scores) - scores[0] for scores in self.scores]))

    def expected(self, trials: int) -> float:
        """Expected best score on validation of that many random trials, mean over folds."""
        return float(np.mean([expected_best(scores, trials) for scores in self.scores]))


def expected_best(scores: Sequence[float], trials: int) -> float:
    """Expected maximum of random draws, with replacement, from ``scores`` (Dodge et al., EMNLP 2019, equation 4)."""
    below = np.arange(len(scores) + 1) / len(scores)  # the share of scores at or below each, in ascending order
    return float((np.sort(scores) * np.diff(below**trials)).sum())


def with_trials(table: Table, trials: Sequence[TrialRecord]) -> Table:
    """The table with those of the trials that are of its rows: same features and track."""
    held = {(modality, name, digest) for modality, name, digest in table.features}

    def belongs(trial: TrialRecord) -> bool:
        spec = trial.spec
        features = {(each, spec.features[each], spec.features_sha256[each]) for each in spec.features}
        track = trial.context == table.track or spec.method in REFERENCES
        return features <= held and track and is_current(spec.method, spec.version)

    return replace(table, trials=tuple(filter(belongs, trials)))


def tunings(table: Table) -> list[Tuning]:
    """What was tuned of a table, in the order of its rows; of several spaces of a row the one of its tuned row.

    Without a tuned row the space with most trials counts.
    """
    groups: dict[tuple[object, ...], dict[str, list[TrialRecord]]] = defaultdict(lambda: defaultdict(list))
    for each in table.trials:
        own = each.spec.untuned
        key = own.method, modalities(own), options_text(own), astuple(own.training), own.seed
        groups[key][_state(each.spec).space].append(each)
    found = []
    for spaces in groups.values():
        default = find_like(next(iter(spaces.values()))[0].spec.untuned, table.rows)
        rows = {space: _tuned_row(table, trials[0].spec) for space, trials in spaces.items()}
        space = max(spaces, key=lambda each: (rows[each] is not None, len(spaces[each]), each))
        row, trials = rows[space], spaces[space]
        budget = _state(row.spec).trials if row else None
        made = Tuning(tuple(trials), default, row, budget or 1 + max(_state(each.spec).trial for each in trials))
        found += [made] * bool(made.scores)
    order = {row: position for position, row in enumerate(table.rows)}
    return sorted(found, key=lambda each: order[shown] if (shown := each.default or each.tuned) else len(order))


def _state(spec: RunSpec) -> Tuned:
    assert spec.tuned is not None
    return spec.tuned


def _tuned_row(table: Table, trial: RunSpec) -> ResultRow | None:
    """The tuned row of a trial, whose space is that of no other row; of several budgets the largest one."""
    wanted = trial.method, trial.version, modalities(trial), _state(trial).space
    rows = [r for r in table.tuned if wanted == (r.method, r.spec.version, r.modalities, _state(r.spec).space)]
    return max(rows, key=lambda row: _state(row.spec).trials or 0, default=None)


def tuning_lines(table: Table) -> list[tuple[str, ...]]:
    """Cells of the table: the headings, then one line for each row of which there are trials; empty without any."""
    found = tunings(table)
    if not found:
        return []
    shown = [number for number in AFTER if number <= max(each.budget for each in found)]
    heads = ("Tuning", "Modalities", "Trials", "Default", "Tuned", "Gain", "95 % interval", "Gain on validation")
    lines = [(*heads, *(f"After {number}" for number in shown))]
    short = marked_names(table)
    for each in found:
        spec = each.trials[0].spec.untuned
        shown_row = each.default or each.tuned
        name = short[each.default] if each.default else escape(f"{title(spec.method)}{options_text(spec)}")
        folds = shown_row.folds if shown_row else len(each.scores)
        trials = f"{each.budget}" + f" ({len(each.scores)}/{folds} folds)" * (len(each.scores) < folds)
        scores = [row.score("weighted_f1") if row else "–" for row in (each.default, each.tuned)]
        expected = [points(each.expected(number)) if number <= each.budget else "" for number in shown]
        reads = " + ".join(modalities(spec))
        gain = points(each.validation_gain, "+")
        lines.append((name, reads, trials, *scores, *_gain(table, each.tuned), gain, *expected))
    return lines


def _gain(table: Table, row: ResultRow | None) -> tuple[str, str]:
    if row not in table.tuned_effects:
        return "–", "–"
    found, p = table.tuned_effects[row]
    return points(found.effect, "+") + " ≈" * (_counts(table, row) and not significant(p)), between(
        found.low, found.high, "+"
    )


def _counts(table: Table, row: ResultRow) -> bool:
    """Whether both rows have enough seeds to say anything of their difference."""
    default = table.tuned[row]
    return default is not None and min(row.complete, default.complete) >= SEEDS


def tuning_notes(table: Table) -> Iterator[str]:
    """What the columns mean, and what tuning was worth."""
    found = tunings(table)
    if not found:
        return
    names = sorted({name for each in found for name in _state(each.trials[0].spec).default})
    first = sorted({each.trials[0].spec.seed for each in found})
    yield (
        f"Tuning: {', '.join(names).replace('_', ' ')}, as far as a method has them, drawn from a space that all rows "
        "share; trial 0 is the suite's own setting. Each fold has chosen by weighted F1 on its own validation rows; "
        f"trials never open a test set, and all have seed {', '.join(map(str, first))}. *Gain* compares the runs with "
        "chosen settings with those of the suite's own on the test set (paired, Holm-corrected over the tuned rows; ≈ "
        f"not shown to differ, said from {SEEDS} seeds on). *Gain on validation* is that of the best trial over trial "
        "0, which is never negative. *After n*: expected best validation score of n random trials (draws with "
        "replacement from all trials of a fold). Means over folds."
    )
    effects = {row: effect for row, effect in table.tuned_effects.items() if _counts(table, row)}
    if effects:
        gains = [each.effect for each, _ in effects.values()]
        real = [(row, each.effect) for row, (each, p) in effects.items() if significant(p)]
        better, worse = ([row.title for row, gain in real if (gain > 0) == up] for up in (True, False))
        yield (
            f"On the test set tuning changes weighted F1 by {between(min(gains), max(gains), '+')} points, on average "
            f"{points(float(np.mean(gains)), '+')}; of {len(effects)} rows it is shown to help {_named(better)} and "
            f"to harm {_named(worse)}."
        )


def _named(methods: Sequence[str]) -> str:
    return f"{len(methods)} ({escape(', '.join(sorted(methods)))})" if methods else "none"
