"""Information, best possible scores and test sets of every simulated corpus, as tables for docs/simulated.md."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from mer_bench.datasets import DATASETS
from mer_bench.datasets.simulated import PRESETS, Latent, ideal_posterior
from mer_bench.datasets.simulated_truth import chance_of, truth
from mer_bench.report.formatting import markdown, points

TRACKS = ("utterance", "dialogue")


def presets() -> str:
    """Three Markdown tables of every preset: its information, its best possible scores, and its test set."""
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
    return "\n".join((markdown(bits, "<><<>>>>"), markdown(scores, "<<>>>>>"), markdown(_tests(), "<>>>>>>")))


def _tests() -> list[tuple[str, ...]]:
    """Cells of the table of test sets: the headings, then each preset."""
    found: list[tuple[str, ...]] = [
        ("Corpus", "Seed", "Utterances", "Clusters", "Most frequent class", "Ideal observer", "Ideal, dialogue")
    ]
    for name, config in PRESETS.items():
        known = [tested_by(name, track) for track in TRACKS]
        ideal = (f"{points(each.ideal)} ± {points(each.noise)}" for each in known)
        counts = (f"{known[0].utterances:,}", f"{known[0].clusters:,}")
        found.append((f"`{name}`", f"{config.seed}", *counts, points(known[0].largest), *ideal))
    return found


class Tested(NamedTuple):
    """The test utterances of all folds of a corpus, with its first label set and protocol, and an ideal observer."""

    utterances: int
    clusters: int
    largest: float  #: share of its most frequent class
    ideal: float  #: expected accuracy on these utterances of an ideal observer, who guesses between equal classes
    noise: float  #: half the width of the 95 % interval of the accuracy of a predictor like this, over clusters


def tested_by(name: str, track: str) -> Tested:
    """The test set of a simulated corpus, without its features, and what an ideal observer of all modalities scores.

    The noise is that of the mean over clusters as a sum of ratios, with the luck of the observer's guesses.
    """
    corpus, config = DATASETS[name], PRESETS[name]
    label_set, (protocol, facts) = next(iter(corpus.label_sets)), next(iter(corpus.protocols.items()))
    table, mapping = Latent.draw(config).corpus.table, corpus.label_sets[label_set]
    classes = tuple(dict.fromkeys(mapping.values()))
    labels = np.array([classes.index(mapping[each]) if each in mapping else -1 for each in table["emotion"]])
    without_features = object.__new__(corpus)  # splits need none
    tested = [without_features.split(table, protocol, fold) == "test" for fold in range(1, facts.folds + 1)]
    index = np.flatnonzero((labels >= 0) & np.any(tested, 0))
    posterior = ideal_posterior(config, label_set, classes, labels >= 0, index, config.modalities, track)
    chance = chance_of(posterior, labels[index])
    ideal = float(chance.mean())
    residuals = np.bincount(pd.factorize(table[corpus.cluster].to_numpy()[index])[0], chance - ideal)
    clusters = len(residuals)
    variance = clusters / (clusters - 1) * (residuals**2).sum() + (chance * (1 - chance)).sum()
    largest = np.bincount(labels[index]).max() / len(index)
    return Tested(len(index), clusters, float(largest), ideal, float(1.96 * np.sqrt(variance) / len(index)))


def _score(rates: dict[str, float]) -> str:
    return f"{100 * rates['weighted_f1']:.1f} ({100 * rates['accuracy']:.1f})"
