"""The table of presets in docs/simulated.md: ``python -m mer_bench.datasets.simulated_table`` rewrites it."""

from __future__ import annotations

import re
from pathlib import Path

from mer_bench.datasets.simulated import PRESETS
from mer_bench.datasets.simulated_truth import truth
from mer_bench.files import write_atomic
from mer_bench.report import markdown

BLOCK = re.compile(r"(<!-- presets -->\n).*?(<!-- end -->)", re.DOTALL)


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


def fill(text: str) -> str:
    """``text`` with the tables between its marks made anew."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{presets()}\n{found[2]}", text)


def main() -> None:
    """Rewrite docs/simulated.md of the working directory."""
    path = Path("docs/simulated.md")
    write_atomic(path, fill(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
