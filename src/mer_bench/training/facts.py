"""Facts about any method and corpus that a suite may name: of built-in ones without torch, of others from their code.

That code imports torch. A bench lets a worker answer (:func:`asking`), so that its own process stays small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from mer_bench.corpora import CorpusFacts, corpus_facts
from mer_bench.methods import MethodFacts, method_facts

Ask = Callable[..., Any]  #: calls a picklable function with the arguments that follow it


def _here(function: Callable[..., Any], *given: Any) -> Any:
    return function(*given)


_ask: Ask = _here


@contextmanager
def asking(ask: Ask) -> Iterator[None]:
    """Within it, ``ask`` calls the functions that need torch, such as in a worker; no question is asked twice."""
    global _ask
    before = _ask
    _ask = cache(ask)
    try:
        yield
    finally:
        _ask = before


def find_facts(name: str, kind: str = "method") -> MethodFacts:
    """The facts of a method; see :func:`mer_bench.fusion.find.find_method` for names and errors."""
    return method_facts().get(name) or _ask(_method, name, kind)


def find_corpus(name: str, root: Path, where: str = "") -> CorpusFacts:
    """The facts of a corpus; see :func:`mer_bench.datasets.find_dataset` for names and errors."""
    return corpus_facts().get(name) or _ask(_corpus, name, root, where)


def generate(name: str, root: Path, label_set: str, protocol: str) -> None:
    """Generate a simulated corpus unless it is there."""
    if not find_corpus(name, root).is_generated(root):
        _ask(_generate, name, root, label_set, protocol)


def _method(name: str, kind: str) -> MethodFacts:
    from mer_bench.fusion.find import class_facts

    return class_facts(name, kind)


def _corpus(name: str, root: Path, where: str) -> CorpusFacts:
    from mer_bench.datasets import find_dataset

    return find_dataset(name, root, where).facts()


def _generate(name: str, root: Path, label_set: str, protocol: str) -> None:
    from mer_bench.datasets import find_dataset

    find_dataset(name, root)(root, label_set=label_set, protocol=protocol)
