"""Facts about methods and datasets, taken from their classes: for ``methods.json`` and ``mer-bench list``."""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mer_bench.batch import Width
from mer_bench.datasets import DATASETS, find_dataset, own_datasets
from mer_bench.files import write_atomic
from mer_bench.fusion import METHODS
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.find import find_method, provenance
from mer_bench.methods import FILE, MethodFacts
from mer_bench.training.build import construct, options_of
from mer_bench.training.suite import is_prepared

#: Widths of the features for which parameters are counted: MFCC, landmarks and, for methods that need text, MiniLM.
WIDTHS = {"audio": Width(40, 280), "vision": Width(140, 980), "text": Width(384, 384)}


def describe_method(name: str) -> MethodFacts:
    """The facts of a method, from its class.

    Raises:
        Misuse: there is no such method, or it cannot be constructed.
    """
    method = find_method(name)
    accepted = method.accepted_modalities()
    chosen = next((each for each in (("audio", "vision"), ("audio",), *accepted) if each in accepted), ())
    return MethodFacts(
        title=method.title,
        track=method.context,
        version=method.version,
        modalities=_modalities(method),
        kind=provenance(name),
        paper=method.paper.replace("arXiv ", "https://arxiv.org/abs/"),
        idea=(sys.modules[method.__module__].__doc__ or method.__doc__ or name).strip().splitlines()[0].rstrip("."),
        parameters=construct(name, {modality: WIDTHS[modality] for modality in chosen}, 8, {}).num_parameters,
    )


def _modalities(method: type[FusionModule]) -> str:
    """How many modalities a method takes."""
    if method.most == 1:
        return "one"
    return ", ".join([f"{method.least} or more" if method.least > 1 else "any", *sorted(method.needs)])


def method_details(name: str) -> tuple[dict[str, Any], str]:
    """Facts, options with their defaults and docstring of a method: as JSON-able data, and as text.

    Raises:
        Misuse: there is no such method, or it cannot be constructed.
    """
    facts, method = describe_method(name), find_method(name)
    docstring, options = inspect.cleandoc(method.__doc__ or ""), options_of(method)
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
