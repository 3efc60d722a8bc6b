"""What is known of every simulated corpus, as Markdown tables for docs/simulated.md: information and best scores."""

from __future__ import annotations

from mer_bench.datasets.simulated import PRESETS
from mer_bench.datasets.simulated_truth import truth
from mer_bench.report.formatting import markdown


def presets() -> str:
    """What is known of every preset as two Markdown tables: information and best possible scores."""
    bits, scores = [], []
    for name, dials in PRESETS.items():
        known = truth(dials)
        whole = "+".join(dials.modalities)
        first, second = (dials.modalities[:1], dials.modalities[1:])
        atoms = known["decomposition"][f"{'+'.join(first)} | {'+'.join(second)}"]
        bits.append((
            f"`{name}`",
            f"{known['information'][whole]:.2f}",
            ", ".join(f"`{way}` {each:.2f}" for way, each in known["evidence"].items()),
            f"{first[0]} against {' + '.join(second)}",
            *(f"{round(each, 2) + 0.0:.2f}" for each in atoms.values()),
        ))  # fmt: skip
        label_set, tracks = next(iter(known["attainable"].items()))
        alone, context = tracks["utterance"], tracks["dialogue"]
        one = (alone.get(modality) for modality in ("text", "audio", "vision"))
        scores.append((
            f"`{name}`",
            label_set,
            *(_score(each) if each else "–" for each in (*one, alone[whole], context[whole])),
        ))  # fmt: skip
    head = (
        "Corpus",
        "Bits",
        "By way of showing",
        "Decomposition of",
        "Redundant",
        "Unique 1st",
        "Unique 2nd",
        "Synergy",
    )
    columns = ("Corpus", "Labels", "Text", "Audio", "Vision", "All", "All, dialogue")
    return markdown([head, *bits], "<><<>>>>") + "\n" + markdown([columns, *scores], "<<>>>>>")


def _score(rates: dict[str, float]) -> str:
    return f"{100 * rates['weighted_f1']:.1f} ({100 * rates['accuracy']:.1f})"
