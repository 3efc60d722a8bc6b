"""What can be known of runs before anything trains, where torch is: each method and each fold is constructed once."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import StrategyRegistry

from mer_bench.errors import Misuse, unknown
from mer_bench.fusion.find import class_facts, find_method
from mer_bench.methods import method_facts
from mer_bench.records import RunSpec
from mer_bench.schema import decode
from mer_bench.training.build import PRECISIONS, build_datamodule, build_method, check_pixels, check_trainer
from mer_bench.training.transfer import open_others


def validate(
    specs: Sequence[RunSpec], root: Path, *, elsewhere: bool = False, measures: Collection[str] = ()
) -> list[str]:
    """Build the datamodule of every fold and the method of every row once, so that mistakes show before training.

    Args:
        specs: The runs.
        root: Folder of the prepared corpora.
        elsewhere: Whether other machines train, whose hardware is not known here.
        measures: What is measured beside the scores; some need more than features.

    Returns:
        One sentence for each fold that has no validation rows to choose the epoch by.

    Raises:
        Misuse: the first mistake found.
    """
    seen: dict[str, Any] = {}
    sentences: dict[tuple[Any, ...], str] = {}
    for method in dict.fromkeys(spec.method for spec in specs):
        _check_facts(method)
    for spec in specs:
        decode(asdict(spec), RunSpec, "the run")
        check_hardware(spec)
        splits = f"{spec.dataset} {spec.label_set} {spec.protocol} {spec.fold}"
        data = f"{splits} {spec.features} {find_method(spec.method).context} {spec.is_trial}"
        if data not in seen:
            seen[data] = build_datamodule(spec, root)
            if "raters" in measures:
                seen[data].ratings  # noqa: B018 - read here, so that it is missed before anything trains
            targets = f"{spec.dataset} {spec.label_set} {spec.features} on other corpora"
            if targets not in seen:
                seen[targets] = open_others(spec, seen[data], root, measures)
        if spec.is_trial and not seen[data].has_validation:
            raise Misuse(
                f"{spec.dataset} {spec.protocol} has no validation rows, by which a trial could be chosen; tune on a "
                "protocol that has some"
            )
        if not seen[data].has_validation:
            sentences[spec.dataset, spec.label_set, spec.protocol, spec.fold] = (
                f"{spec.dataset} {spec.protocol} fold {spec.fold} has no validation rows: the last epoch is scored"
            )
        row = f"{spec.method} {spec.features} {spec.options} {spec.training.balance}"
        if row not in seen:
            seen[row] = build_method(spec, seen[data].dims, seen[data].classes)
            check_pixels(seen[row], seen[data])
    for spec in {(s.devices, s.num_nodes, s.strategy, s.training.precision): s for s in specs}.values():
        if not elsewhere:
            _quiet_check_trainer(spec)
    return list(sentences.values())


def check_hardware(spec: RunSpec) -> None:
    """Raise Misuse for a strategy or a precision that does not exist."""
    strategies = ["auto", *StrategyRegistry.available_strategies()]
    if spec.strategy not in strategies:
        raise unknown("strategy", spec.strategy, strategies)
    if spec.training.precision not in PRECISIONS:
        raise unknown("precision", spec.training.precision, PRECISIONS)


def _check_facts(method: str) -> None:
    """Raise Misuse if the facts by which the runs of a built-in method were chosen are not those of its code."""
    stated = method_facts().get(method)
    if stated and replace(class_facts(method), parameters=stated.parameters) != stated:
        raise Misuse(f"methods.json does not state what the code of the method {method!r} now is: run make methods")


def _quiet_check_trainer(spec: RunSpec) -> None:
    """Without what a Trainer says of the devices that it finds: that comes with the runs."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        check_trainer(spec)
    finally:
        log.setLevel(level)
