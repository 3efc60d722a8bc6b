"""Facts about methods and datasets, from their classes: for ``methods.json``, ``corpora.json``, ``mer-bench list``."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mer_bench.batch import Width
from mer_bench.corpora import FILE as CORPORA
from mer_bench.datasets import DATASETS, find_dataset, own_datasets
from mer_bench.files import write_atomic
from mer_bench.fusion import METHODS
from mer_bench.fusion.find import class_facts, find_method, options_of
from mer_bench.methods import FILE, MethodFacts
from mer_bench.training.build import construct
from mer_bench.training.suite import is_prepared

#: Widths of the features for which parameters are counted: MFCC, landmarks and, for methods that need text, MiniLM.
WIDTHS = {"audio": Width(40, 280), "vision": Width(140, 980), "text": Width(384, 384)}

#: The facts that ``mer-bench list methods NAME`` shows as text.
SHOWN = ("track", "version", "modalities", "kind", "paper", "parameters")


def describe_method(name: str) -> MethodFacts:
    """The facts of a method, from its class.

    Raises:
        Misuse: there is no such method, or it cannot be constructed.
    """
    method = find_method(name)
    accepted = method.accepted_modalities()
    chosen = next((each for each in (("audio", "vision"), ("audio",), *accepted) if each in accepted), ())
    module = construct(name, {modality: WIDTHS[modality] for modality in chosen}, 8, {})
    return replace(class_facts(name), parameters=module.num_parameters)


def method_details(name: str) -> tuple[dict[str, Any], str]:
    """Facts, options with their defaults and docstring of a method: as JSON-able data, and as text.

    Raises:
        Misuse: there is no such method, or it cannot be constructed.
    """
    facts, method = describe_method(name), find_method(name)
    docstring, options = inspect.cleandoc(method.__doc__ or ""), options_of(method)
    lines = [f"{name}: {facts.idea}.", ""]
    lines += [f"{key.capitalize():<12}{getattr(facts, key)}" for key in SHOWN]
    lines += [
        "",
        "Options and their defaults:",
        *(f"  {option} = {json.dumps(given)}" for option, given in options.items()),
    ]
    return {"name": name, **asdict(facts), "docstring": docstring}, "\n".join([*lines, "", docstring])


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
    """Write ``methods.json`` and ``corpora.json``."""
    methods = {name: asdict(describe_method(name)) for name in METHODS}
    for facts in methods.values():
        del facts["file"]  # the package knows where it is
    for file, content in ((FILE, methods), (CORPORA, {name: asdict(DATASETS[name].facts()) for name in DATASETS})):
        lines = (f"{json.dumps(name)}: {json.dumps(facts)}" for name, facts in content.items())
        write_atomic(file, "{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
