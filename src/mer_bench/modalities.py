"""Names of modalities and their order, and how many a method takes. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import combinations

from mer_bench.errors import Misuse

MODALITIES = ("text", "audio", "vision")  #: the usual ones, in their usual order; a corpus may have others


def modality_of(name: str) -> str:
    """The modality of a name in a run's features: of ``audio2``, a second set of audio, it is ``audio``."""
    return name.rstrip("0123456789") or name


def modality_order(name: str) -> tuple[int, str]:
    """Sorting key of the modalities of a run: the usual ones first, in their usual order."""
    modality = modality_of(name)
    return MODALITIES.index(modality) if modality in MODALITIES else len(MODALITIES), name


def check_modalities(method: str, given: Collection[str], needs: Collection[str], least: int, most: float) -> None:
    """Raise Misuse unless a method that ``needs`` some modalities, and takes ``least`` to ``most``, works on these."""
    missing = sorted(set(needs) - set(given))
    if missing:
        raise Misuse(f"method {method!r} requires {', '.join(missing)}; given {', '.join(given) or 'none'}")
    if not least <= len(given) <= most:
        several = f"{least} or more" if most == math.inf else f"{least} to {most}"
        wanted = f"{least}" if least == most else several
        raise Misuse(f"method {method!r} takes {wanted} modalities; given {', '.join(given) or 'none'}")


def shapley_weights(names: Sequence[str]) -> dict[tuple[str, ...], list[float]]:
    r"""What the value of each subset of modalities counts for in the Shapley value of each modality.

    With M modalities and the value v of a subset, the Shapley value of m is

    .. math:: \phi_m = \sum_{S \not\ni m} \frac{|S|! (M - |S| - 1)!}{M!} \big(v(S \cup \{m\}) - v(S)\big)

    Returns:
        Subset in the order of ``names``, the empty one first -> one weight for each of ``names``.
    """
    total = len(names)

    def weight(size: int) -> float:
        return math.factorial(size) * math.factorial(total - size - 1) / math.factorial(total)

    return {
        chosen: [weight(len(chosen) - 1) if name in chosen else -weight(len(chosen)) for name in names]
        for size in range(total + 1)
        for chosen in combinations(names, size)
    }
