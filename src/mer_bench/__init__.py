"""mer_bench: fusion methods for multimodal emotion recognition, compared on identical frozen unimodal features.

What a user needs by name is imported when it is first asked for, so that ``import mer_bench`` takes no time.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

#: name -> the module that defines it
_EXPORTS = {
    "Misuse": "mer_bench.errors",
    "load_groups": "mer_bench.report.frames",
    "load_model": "mer_bench.bundle.model",
    "load_results": "mer_bench.results",
    "load_tables": "mer_bench.report.frames",
}  # fmt: skip
__all__ = ["Misuse", "__version__", "load_groups", "load_model", "load_results", "load_tables"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
