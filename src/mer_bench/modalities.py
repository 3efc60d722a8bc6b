"""Names of modalities and their order. Standard library only."""

from __future__ import annotations

MODALITIES = ("text", "audio", "vision")  #: the usual ones, in their usual order; a corpus may have others


def modality_of(name: str) -> str:
    """The modality of a name in a run's features: of ``audio2``, a second set of audio, it is ``audio``."""
    return name.rstrip("0123456789") or name


def modality_order(name: str) -> tuple[int, str]:
    """Sorting key of the modalities of a run: the usual ones first, in their usual order."""
    modality = modality_of(name)
    return MODALITIES.index(modality) if modality in MODALITIES else len(MODALITIES), name
