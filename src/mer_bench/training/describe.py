"""Facts about methods and datasets, taken from their classes: for ``methods.json`` and ``mer-bench list``."""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mer_bench.datasets import DATASETS, find_dataset, own_datasets
from mer_bench.errors import unknown
from mer_bench.files import write_atomic
from mer_bench.fusion import METHODS
from mer_bench.fusion.base import FusionModule
from mer_bench.methods import FILE, MethodFacts
from mer_bench.training.build import options_of
from mer_bench.training.suite import is_prepared


def describe_method(name: str) -> MethodFacts:
    """The facts of a built-in method, from its class."""
    method = METHODS[name]
    dims = {"audio": 40, "vision": 140} if method.most > 1 else {"audio": 40}
    return MethodFacts(
        title=method.title,
        track=method.context,
        version=method.version,
        modalities=_modalities(method),
        kind=method.provenance,
        paper=method.paper.replace("arXiv ", "https://arxiv.org/abs/"),
        idea=(sys.modules[method.__module__].__doc__ or "").splitlines()[0].rstrip("."),
        parameters=method(dims, 8).num_parameters,
    )


def _modalities(method: type[FusionModule]) -> str:
    """How many modalities a method takes."""
    if method.most == 1:
        return "one"
    return ", ".join([f"{method.least} or more" if method.least > 1 else "any", *sorted(method.needs)])


def method_details(name: str) -> tuple[dict[str, Any], str]:
    """Facts, options with their defaults and docstring of a built-in method: as JSON-able data, and as text.

    Raises:
        Misuse: there is no such method.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    facts, method = describe_method(name), METHODS[name]
    docstring, options = inspect.getdoc(method) or "", options_of(method)
    lines = [f"{name}: {facts.idea}.", ""]
    lines += [f"{key.capitalize():<12}{value}" for key, value in asdict(facts).items() if key not in ("title", "idea")]
    lines += [
        "",
        "Options and their defaults:",
        *(f"  {option} = {json.dumps(given)}" for option, given in options.items()),
    ]
    return {"name": name, **asdict(facts), "options": options, "docstring": docstring}, "\n".join(
        [*lines, "", docstring]
    )


def describe_datasets(root: Path) -> dict[str, dict[str, Any]]:
    """What is known of every corpus by its name, and whether it is prepared below ``root``."""
    return {
        name: {
            "modalities": list(module.modalities),
            "label sets": list(module.label_sets),
            "protocols (folds)": [f"{name} ({protocol.folds})" for name, protocol in module.protocols.items()],
            "prepared": "generated when needed" if module.simulated else "yes" if is_prepared(name, root) else "no",
        }
        for name, module in {each: find_dataset(each, root) for each in [*DATASETS, *own_datasets(root)]}.items()
    }


def main() -> None:
    """Write ``methods.json``."""
    lines = (f"{json.dumps(name)}: {json.dumps(asdict(describe_method(name)))}" for name in METHODS)
    write_atomic(FILE, "{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
