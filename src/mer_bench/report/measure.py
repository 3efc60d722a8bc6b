"""``python -m mer_bench.report.measure DATA`` writes ``measured.json`` anew from the corpora prepared below ``DATA``.

What it holds of corpora that are not prepared there stays. See :mod:`mer_bench.report.measured` for what is measured.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mer_bench.datasets import DATASETS
from mer_bench.datasets.base import EmotionDataModule
from mer_bench.errors import Misuse
from mer_bench.files import write_atomic
from mer_bench.raters import FILE as RATERS
from mer_bench.raters import agreement, distributions, votes
from mer_bench.report.measured import FILE, NEARLY, WORDS, Content, Measured, OneRater, Overlap, all_measured
from mer_bench.report.statistics import Counts, resample
from mer_bench.utterances import FILE as TABLE

UNIT = 60  #: what a vote counts, so that its parts are whole numbers


def words(text: str) -> tuple[str, ...]:
    """The words of a transcript in lower case, without what stands in square brackets ("[LAUGHTER]")."""
    return tuple(re.findall(r"[^\W_]+(?:'[^\W_]+)*", re.sub(r"\[.*?\]", " ", text.lower())))


def overlap(test: Sequence[str], train: Sequence[str]) -> Counter[str]:
    """How many texts there are in ``test``, and how many of them ``train`` has, as the fields of :class:`Overlap`."""
    known = {words(text) for text in train}
    sets = [frozenset(each) for each in known]
    having: dict[str, list[int]] = defaultdict(list)
    for number, each in enumerate(sets):
        for word in each:
            having[word].append(number)
    found: Counter[str] = Counter()
    for text in map(words, test):
        if len(text) < WORDS:
            continue
        wanted = frozenset(text)
        shared = Counter(number for word in wanted for number in having.get(word, ()))
        nearest = max((count / len(wanted | sets[number]) for number, count in shared.items()), default=0.0)
        found.update(texts=1, identical=int(text in known), nearly=int(nearest >= NEARLY))
    return found


def texts_of(folds: Sequence[EmotionDataModule]) -> dict[str, Overlap]:
    """Overlap of test and training texts by scene, summed over folds."""
    table = folds[0].table
    scene = np.array(folds[0].groups(table).get("scene", ["all"] * len(table)))
    text = table["text"].to_numpy()
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for fold in folds:
        for name in sorted(set(scene)):
            test = fold.rows["test"][scene[fold.rows["test"]] == name]
            found[name] += overlap(text[test].tolist(), text[fold.rows["train"]].tolist())
    return {
        name: Overlap(each["texts"], each["identical"], each["nearly"]) for name, each in found.items() if each["texts"]
    }


def one_rater(folds: Sequence[EmotionDataModule]) -> OneRater:
    """The score of one rater against the majority of the others, and how far the raters differ."""
    first = folds[0]
    rows = np.concatenate([fold.rows["test"] for fold in folds])
    ids = first.table["id"].to_numpy()[rows].tolist()
    given = distributions(votes(first.ratings, ids, first.class_of, first.num_classes))
    given = given[given.any(1)]
    cluster = pd.factorize(first.table[first.cluster].to_numpy()[rows])[0]
    counts, met = against_others(first, ids, cluster)
    levels = np.array(agreement(first.ratings, ids, first.class_of, first.labels[rows].tolist()))
    found = resample(counts[None])
    low, high = found.interval
    entropy = float(-(given * np.log(np.where(given > 0, given, 1))).sum(1).mean())
    weights = {str(level): round(float(met[levels == level].mean()), 5) for level in np.unique(levels)}
    return OneRater(
        weighted_f1=round(found.score, 5),
        low=round(low, 5),
        high=round(high, 5),
        ratings=int(counts.sum()) // UNIT,
        utterances=int((met > 0).sum()),
        entropy=round(entropy, 5),
        rated=len(given),
        weights=weights,
    )


def against_others(corpus: EmotionDataModule, ids: Sequence[str], cluster: Counts) -> tuple[Counts, Counts]:
    """Confusion matrices [cluster, class, class] of raters (columns) against the majority of the others (rows).

    A rating counts where one class has more votes than any other class or category among the other raters. A category
    outside of the label set is a class of its own, the last, which is never right. Every rating counts :data:`UNIT`.
    Beside it stands how many such ratings each utterance has.
    """
    count = corpus.num_classes
    found = np.zeros((cluster.max() + 1, count + 1, count + 1), np.int64)
    met = np.zeros(len(ids), np.int64)
    for row, (name, at) in enumerate(zip(ids, cluster, strict=True)):
        by_rater = corpus.ratings.get(name, {})
        alone = {rater: {rater: named} for rater, named in by_rater.items()}
        parts = votes(alone, list(by_rater), corpus.class_of, count)
        for own in parts:
            others = parts.sum(0) - own
            best = np.flatnonzero(np.isclose(others, others.max()))
            if len(parts) > 1 and len(best) == 1 and best[0] < count:
                found[at, best[0]] += np.rint(UNIT * own).astype(np.int64)
                met[row] += 1
    return found, met


def measure(corpus: type[EmotionDataModule], root: Path) -> list[Measured]:
    """What is known of a prepared corpus with each label set and protocol."""
    found = []
    for label_set in corpus.label_sets:
        for name, protocol in corpus.protocols.items():
            folds = [
                corpus(root, label_set=label_set, protocol=name, fold=number + 1) for number in range(protocol.folds)
            ]
            texts = texts_of(folds) if "text" in corpus.modalities else {}
            rater = one_rater(folds) if (root / corpus.corpus / RATERS).is_file() else None
            if texts or rater:
                found.append(Measured(corpus.corpus, label_set, name, texts, rater))
    return found


def main(arguments: Sequence[str]) -> None:
    """Measure the real corpora below the folder that is the one argument."""
    if len(arguments) != 1:
        raise SystemExit("usage: python -m mer_bench.report.measure DATA")
    root, kept = Path(arguments[0]), dict(all_measured()) if FILE.is_file() else {}
    for name, corpus in DATASETS.items():
        if not corpus.simulated and (root / name / TABLE).is_file():
            kept = {key: each for key, each in kept.items() if key[0] != name}
            kept |= {(each.dataset, each.label_set, each.protocol): each for each in measure(corpus, root)}
    content: dict[str, Any] = asdict(Content([kept[key] for key in sorted(kept)]))
    write_atomic(FILE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Misuse as error:
        raise SystemExit(f"error: {error}") from error
