"""The model card of a bundle: what the model is, how good it is, and what it must not be used for."""

from __future__ import annotations

from mer_bench.bundle.facts import BundleFacts
from mer_bench.methods import title
from mer_bench.report.formatting import between, escape, markdown, points

#: What a score is called on the card.
NAMES = {"weighted_f1": "Weighted F1", "accuracy": "Accuracy", "macro_f1": "Macro F1", "uar": "Unweighted recall"}

NOT_FOR = """\
- **Not for judging people.** It must not take part in decisions about hiring, work, education, credit, insurance,
  policing, borders, courts or health, nor be used to watch people who have not agreed to it. Several countries forbid
  such uses of emotion recognition by law.
- It names the class that a recording resembles most. It does not know what a person feels, and neither the probability
  of a class nor its absence is evidence of a state of mind.
- It has learnt from one corpus: from its speakers, their language, their ages and their microphones. Emotions in such
  corpora are mostly acted. Expect worse results on anybody and anything else, and unequal ones between groups.
"""


def card(facts: BundleFacts) -> str:
    """The Markdown of the card; whatever a file or a corpus says is escaped."""
    spec, method = facts.spec, escape(title(facts.spec.method))
    classes = ", ".join(map(escape, facts.classes))
    simulated = " The corpus is simulated: the model has no use but to try things out." if facts.simulated else ""
    rows_of: dict[str, int] = {split: count for split, count in facts.rows.items()}
    rows = [["Score", "Test fold", "95 % interval"]]
    rows += [
        [NAMES.get(name, escape(name)), points(each.value), between(each.low, each.high)]
        for name, each in facts.scores.items()
    ]
    features = [["Modality", "Feature set", "Extractor", "Revision", "Layer", "Width"]]
    for modality, each in facts.features.items():
        texts = (modality, each.name, each.extractor, each.revision or "–", each.layer or "–", str(each.dim))
        features.append([escape(text) for text in texts])
    reads = markdown(features, "<<<<<>") if facts.features else "It reads no features.\n"
    context = "whole dialogues" if facts.context == "dialogue" else "single utterances"
    trained = "trained on {train:,} utterances, its epoch chosen on {validation:,}, tested on {test:,}"
    if not facts.rows["validation"]:
        trained = "trained on {train:,} utterances to the last epoch, tested on {test:,}"
    own = " The method is not part of mer_bench." if facts.provenance == "own" else ""
    return f"""\
# {method} on {escape(spec.dataset)}

A model for multimodal emotion recognition, trained and tested by mer_bench {escape(facts.package)}.{simulated}

- Method: {method} (`{spec.method}`, version {spec.version}), which reads {context}.{own}
- Classes: {classes} (label set `{spec.label_set}`)
- Corpus: {escape(spec.dataset)}, protocol `{spec.protocol}`, fold {spec.fold}: {escape(facts.protocol.text)}
- Rows: {trained.format_map(rows_of)}
- Seed {spec.seed}; run `{spec.sha256[:12]}`

## Scores on the test fold

{markdown(rows, "<>>")}
In points. The intervals are of a bootstrap over the {facts.clusters} {escape(facts.protocol.clusters)} of the test
fold. This is one training with one seed on one fold; the leaderboard of mer_bench compares methods over all of them.

## What it reads

{reads}
The standardisation of the training rows is part of the model. Features of another extractor are refused.

## Licence

The corpus: {escape(facts.licence) or "its licence is not stated; ask those who made it."}

What binds the use of the corpus binds the use of a model that was trained on it. Read the licence before you pass the
model on or use it for anything but research.

## What it must not be used for

{NOT_FOR}"""
