"""Trials of a tuning: which settings a method has of the space of a suite, and what is drawn for a trial. No torch.

Draws are an additive recurrence, a sequence of low discrepancy: the value of setting j in trial n is the fractional
part of s_j + n a_j, where a_j are powers of the inverse generalised golden ratio (the root of x^(d+1) = x + 1 for d
settings; Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018). The start s_j is a hash of the
suite, the row and the setting. So a trial is a function of its number: more trials keep the first ones, and all folds
and seeds of a row try the same settings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mer_bench.errors import Misuse, unknown
from mer_bench.records import TRAINING, RunSpec, Training, Tuned, change_settings
from mer_bench.suites import Range, Space, Suite
from mer_bench.training.facts import find_facts

DIGITS = 3  #: significant digits of a number that is drawn


def check_space(suite: Suite) -> None:
    """Raise Misuse for a setting that no method of the suite has, or that could be a training option and a method's."""
    tune = suite.tune
    if tune is None:
        return
    listed = dict.fromkeys(row.method for row in suite.rows)
    options = {method: find_facts(method).options for method in listed}
    where = f"[tune] of {suite.where}"
    for method in tune.methods:
        if method not in listed:
            raise unknown(f"method in {where}", method, listed)
    spaces = [(tune.space, options), *((space, {method: options[method]}) for method, space in tune.methods.items())]
    for space, methods in spaces:
        for name in space:
            having = [method for method, its in methods.items() if name in its]
            if name in TRAINING and having:
                raise Misuse(f"{where}: {name} is a training option and an option of {having[0]}; leave it out")
            if name not in TRAINING and not having:
                known = TRAINING.union(*methods.values())
                raise unknown(f"setting in {where}", name, sorted(known))


def space_of(suite: Suite, spec: RunSpec) -> Space:
    """What is drawn for a run: the part of the suite's space that its method has; nothing where nothing is trained."""
    facts = find_facts(spec.method)
    if suite.tune is None or (facts.parameters == 0 and facts.kind != "own"):
        return {}
    space = {**suite.tune.space, **suite.tune.methods.get(spec.method, {})}
    return {name: space[name] for name in sorted(space) if name in TRAINING or name in facts.options}


def trial(suite: Suite, spec: RunSpec, number: int, trials: int | None = None) -> RunSpec:
    """A trial of a run that has the settings of the suite, or the run that has them as the choice from ``trials``.

    Raises:
        Misuse: a value that is drawn is out of the range of its training option.
    """
    space = space_of(suite, spec)
    facts = find_facts(spec.method).options
    usual = {name: getattr(Training(), name) if name in TRAINING else facts[name] for name in space}
    default = {n: getattr(spec.training, n) if n in TRAINING else spec.options.get(n) for n in space}
    settings = draw(space, usual, _row(suite, spec), number) if number else default
    return change_settings(spec, settings, Tuned(number, space_id(suite, spec), default, trials))


def space_id(suite: Suite, spec: RunSpec) -> str:
    """Identity of what the trials of a run are drawn from, and of the settings of the suite that they change."""
    space = {name: asdict(each) if isinstance(each, Range) else each for name, each in space_of(suite, spec).items()}
    facts = _row(suite, spec), asdict(spec.training), space
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def draw(space: Space, usual: Mapping[str, Any], row: str, number: int) -> dict[str, Any]:
    """The settings of a trial.

    Args:
        space: What each setting is drawn from.
        usual: A value of each setting, which says whether it is a whole number.
        row: Names the row, whose draws no other row shares.
        number: Number of the trial, from 1.
    """
    ratio = _golden_ratio(len(space))
    found = {}
    for position, name in enumerate(sorted(space), 1):
        start = int.from_bytes(hashlib.sha256(f"{row} {name}".encode()).digest()[:6], "big") / 2**48
        found[name] = _at(space[name], (start + number * ratio**-position) % 1, type(usual[name]) is int)
    return found


def _at(values: Range | list[Any], share: float, whole: bool) -> Any:
    """The value at a share of a range, or of a list."""
    if not isinstance(values, Range):
        return values[int(share * len(values))]
    low, high = values.low, values.high + whole  # a whole number takes the part of the range up to the next one
    value = low * (high / low) ** share if values.log else low + (high - low) * share
    if whole:
        return min(int(value), int(values.high))
    return min(max(float(f"{value:.{DIGITS}g}"), float(low)), float(high))


def _golden_ratio(settings: int) -> float:
    """The root of x^(d+1) = x + 1 above 1."""
    root = 2.0
    for _ in range(100):
        root = (1 + root) ** (1 / (settings + 1))
    return root


def _row(suite: Suite, spec: RunSpec) -> str:
    options = json.dumps(dict(spec.options), sort_keys=True)
    return f"{suite.file.stem} {spec.method} {'+'.join(sorted(spec.features))} {options}"
