"""Methods and datasets as rows of text."""

from __future__ import annotations

import sys
from pathlib import Path

from mer_bench.datasets import DATASETS
from mer_bench.fusion import METHODS
from mer_bench.fusion.base import FusionModule
from mer_bench.training.suite import is_prepared


def describe_methods() -> list[tuple[str, ...]]:
    """Heading and one row a method; parameters on audio (width 40) and vision (width 140) with 8 classes."""
    rows: list[tuple[str, ...]] = [("method", "track", "modalities", "kind", "parameters", "paper", "idea")]
    for name, method in METHODS.items():
        dims = {"audio": 40, "vision": 140} if method.most > 1 else {"audio": 40}
        idea = (sys.modules[method.__module__].__doc__ or "").splitlines()[0]
        count = f"{method(dims, 8).num_parameters:,}"
        rows.append((name, method.context, _modalities(method), method.provenance, count, method.paper, idea))
    return rows


def _modalities(method: type[FusionModule]) -> str:
    """How many modalities a method takes."""
    if method.most == 1:
        return "one"
    return ", ".join([f"{method.least} or more" if method.least > 1 else "any", *sorted(method.needs)])


def describe_datasets(root: Path) -> list[tuple[str, ...]]:
    """Heading and one row a corpus."""
    rows: list[tuple[str, ...]] = [("dataset", "modalities", "label sets", "protocols (folds)", "prepared")]
    for name, module in DATASETS.items():
        protocols = ", ".join(f"{protocol} ({folds})" for protocol, folds in module.protocols.items())
        ready = "generated when needed" if module.simulated else "yes" if is_prepared(name, root) else "no"
        rows.append((name, ", ".join(module.modalities), ", ".join(module.label_sets), protocols, ready))
    return rows
