"""docs/methods.md: what each method computes, from ``methods.json`` and the docstrings of the classes."""

from __future__ import annotations

import json
from collections.abc import Mapping

from mer_bench.fusion import METHODS
from mer_bench.methods import MethodFacts, method_facts
from mer_bench.report.formatting import markdown
from mer_bench.report.printed import _entry as bibtex_entry
from website.docstrings import to_markdown

KINDS = {
    "baseline": "a baseline",
    "reimplemented": "reimplemented from its paper",
    "reconstruction": "a reconstruction (†): its paper does not determine the method",
}
TRACKS = {
    "utterance": ("Methods for single utterances", "They read one utterance at a time."),
    "dialogue": (
        "Methods for dialogues",
        "They read whole dialogues, and so have more to decide from than the methods above: tables keep both apart.",
    ),
}
INTRODUCTION = """\
# Methods

All methods read the same frozen features. This page is generated from their code: for each method the idea, the
equation, the paper, what differs from it, and the number of trainable parameters. The number is counted with default
options, for 8 classes, for audio of width 40 and vision of width 140 where a method accepts these two, for audio alone
where it accepts one modality, and with text of width 384 where it needs text. A suite may set other options, so that a
table shows another number.

"The utterance vectors" of modality m, h_m, come from the encoder that all methods share: a table compares fusion. In
the equations σ is the logistic function, ⊙ the product of elements, [a; b] a concatenation, relu(x) = max(x, 0), and
W and b are learnt weights.

`mer-bench list methods NAME` prints all options of a method, and `mer-bench table --bibtex` the entries of the papers
of a table. An entry states what is known for certain: the address of the paper and, for arXiv, its number and year.
"""


def page() -> str:
    """The whole page."""
    facts = method_facts()
    parts = [INTRODUCTION, _overview(facts)]
    for track, (heading, text) in TRACKS.items():
        parts.append(f"## {heading}\n\n{text}\n")
        parts += [_section(name, its) for name, its in facts.items() if its.track == track]
    return "\n".join(parts)


def _overview(facts: Mapping[str, MethodFacts]) -> str:
    rows = [("Method", "Name", "Reads", "Modalities", "Parameters")]
    for name, its in facts.items():
        reads = "dialogues" if its.track == "dialogue" else "utterances"
        rows.append((f"[{its.title}](#{name})", f"`{name}`", reads, its.modalities, f"{its.parameters:,}"))
    return markdown(rows, "<<<<>")


def heading(name: str, facts: MethodFacts) -> str:
    """The heading of a method's section."""
    return f"{facts.title}: {name}"


def _section(name: str, facts: MethodFacts) -> str:
    idea = facts.idea.removeprefix(f"{facts.title}: ")
    modalities = {"one": "one modality", "any": "any number of modalities"}.get(facts.modalities, facts.modalities)
    rows = [
        f"*{idea[:1].upper()}{idea[1:]}.*\n",
        to_markdown(METHODS[name].__doc__ or ""),
        f"- Modalities: {modalities}",
        f"- Kind: {KINDS[facts.kind]}; version {facts.version}",
        f"- Parameters: {facts.parameters:,}",
        f"- Code: [`fusion/{name}.py`](../src/mer_bench/fusion/{name}.py)",
    ]
    if facts.options:
        defaults = ", ".join(f"`{option} = {json.dumps(value)}`" for option, value in facts.options.items())
        rows.append(f"- Options: {defaults}")
    if facts.paper:
        entry = bibtex_entry(name, facts.paper, [facts.title])
        rows += [
            f"- Paper: <{facts.paper}>\n",
            f'<details markdown="1"><summary>BibTeX</summary>\n\n```bibtex\n{entry}```\n\n</details>',
        ]
    # the anchor is what the leaderboard links to
    return f'<a id="{name}"></a>\n\n### {heading(name, facts)}\n\n' + "\n".join(rows) + "\n"
