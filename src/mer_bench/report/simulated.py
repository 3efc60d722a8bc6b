"""Information and best possible scores of every simulated corpus, as Markdown tables for docs/simulated.md."""

from __future__ import annotations

from mer_bench.datasets.simulated import PRESETS
from mer_bench.datasets.simulated_truth import truth
from mer_bench.report.formatting import markdown


def presets() -> str:
    """Two Markdown tables of every preset: its information, and its best possible scores."""
    parts = ("Redundant", "Unique 1st", "Unique 2nd", "Synergy")
    bits: list[tuple[str, ...]] = [("Corpus", "Bits", "By way of showing", "Decomposition of", *parts)]
    scores: list[tuple[str, ...]] = [("Corpus", "Labels", "Text", "Audio", "Vision", "All", "All, dialogue")]
    for name, dials in PRESETS.items():
        known = truth(dials)
        whole = "+".join(dials.modalities)
        first, others = dials.modalities[0], dials.modalities[1:]
        shares = known["decomposition"][f"{first} | {'+'.join(others)}"].values()
        evidence = ", ".join(f"`{way}` {each:.2f}" for way, each in known["evidence"].items())
        numbers = (f"{round(each, 2) + 0.0:.2f}" for each in shares)
        against = f"{first} against {' + '.join(others)}"
        bits.append((f"`{name}`", f"{known['information'][whole]:.2f}", evidence, against, *numbers))
        label_set, tracks = next(iter(known["attainable"].items()))
        one = [tracks["utterance"].get(modality) for modality in ("text", "audio", "vision")]
        best = [*one, tracks["utterance"][whole], tracks["dialogue"][whole]]
        scores.append((f"`{name}`", label_set, *(_score(each) if each else "–" for each in best)))
    return markdown(bits, "<><<>>>>") + "\n" + markdown(scores, "<<>>>>>")


def _score(rates: dict[str, float]) -> str:
    return f"{100 * rates['weighted_f1']:.1f} ({100 * rates['accuracy']:.1f})"
