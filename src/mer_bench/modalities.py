"""Names of modalities and their order. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import factorial

MODALITIES = ("text", "audio", "vision")  #: the usual ones, in their usual order; a corpus may have others


def modality_of(name: str) -> str:
    """The modality of a name in a run's features: of ``audio2``, a second set of audio, it is ``audio``."""
    return name.rstrip("0123456789") or name


def modality_order(name: str) -> tuple[int, str]:
    """Sorting key of the modalities of a run: the usual ones first, in their usual order."""
    modality = modality_of(name)
    return MODALITIES.index(modality) if modality in MODALITIES else len(MODALITIES), name


def shapley_weights(names: Sequence[str]) -> dict[tuple[str, ...], list[float]]:
    r"""What the value of each subset of modalities counts for in the Shapley value of each modality.

    With M modalities and the value v of a subset, the Shapley value of m is

    .. math:: \phi_m = \sum_{S \not\ni m} \frac{|S|! (M - |S| - 1)!}{M!} \big(v(S \cup \{m\}) - v(S)\big)

    Returns:
        Subset in the order of ``names``, the empty one first -> one weight for each of ``names``.
    """
    total = len(names)

    def weight(size: int) -> float:
        return factorial(size) * factorial(total - size - 1) / factorial(total)

    return {
        chosen: [weight(len(chosen) - 1) if name in chosen else -weight(len(chosen)) for name in names]
        for size in range(total + 1)
        for chosen in combinations(names, size)
    }
