"""Counts of the real corpora and facts of their feature sets, for the cards on docs/datasets.md.

``python -m website.counts DATA ...`` writes ``counts.json`` from the corpora that are prepared below these folders. It
holds numbers and names alone, nothing of a corpus's content. What it says of corpora that are not there stays.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mer_bench.exposure import exposure
from mer_bench.features import open_features
from mer_bench.files import sha256, write_atomic

FILE = Path(__file__).with_name("counts.json")
CORPORA = ("ravdess", "iemocap", "meld")
SPLITS = ("train", "validation", "test")


@cache
def counts() -> dict[str, Any]:
    """Corpus -> its counts, as :func:`count` gives them."""
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def count(root: Path, dataset: str) -> dict[str, Any]:
    """What the cards say of a corpus that is prepared below ``root``.

    Raises:
        Misuse: it is not prepared, or a feature set is damaged.
    """
    from mer_bench.datasets import DATASETS
    from mer_bench.datasets.splits import read_splits

    corpus = DATASETS[dataset]
    label_sets: dict[str, Any] = {}
    for label_set in corpus.label_sets:
        protocols = {}
        for protocol in corpus.protocols:
            found = read_splits(root, dataset, label_set, protocol)
            protocols[protocol] = [[len(rows.get(name, ())) for name in SPLITS] for rows in found.folds.values()]
        classes = Counter(found.classes[label] for label in found.labels if label >= 0)
        label_sets[label_set] = {"classes": {name: classes[name] for name in found.classes}, "folds": protocols}
    table = found.table
    files = [found.file, *sorted(found.file.parent.glob("labels_*.csv"))]
    return {
        "sha256": {file.name: sha256(file) for file in files},
        "utterances": len(table),
        "dialogues": int(table["dialogue"].nunique()),
        "speakers": int(table["speaker"].nunique()),
        "label_sets": label_sets,
        "features": {path.parent.name: features(path.parent, dataset) for path in sets(root / dataset)},
    }


def sets(folder: Path) -> list[Path]:
    """The descriptions of the feature sets of a corpus."""
    return sorted(folder.glob("*/spec.json"))


def features(folder: Path, dataset: str) -> dict[str, Any]:
    """What a feature card says of the set in ``folder``."""
    found = open_features(folder)
    spec, seen = found.spec, exposure(found.spec.extractor, dataset, found.spec.exposure)
    return {
        "modality": spec.modality,
        "extractor": spec.extractor,
        "revision": spec.revision,
        "layer": spec.layer,
        "frame_rate": spec.frame_rate and round(spec.frame_rate, 2),
        "per_utterance": round(spec.frames / max(1, int((np.diff(found.offsets) > 0).sum())), 1),
        "dim": spec.dim,
        "extractor_parameters": spec.extractor_parameters,
        "missing": int((np.diff(found.offsets) == 0).sum()),
        "exposure": [seen.kind, seen.source],
    }


def main(roots: Sequence[str]) -> None:
    """Write ``counts.json``."""
    content = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    for dataset in CORPORA:
        for root in map(Path, roots):
            if (root / dataset).is_dir():
                content[dataset] = count(root, dataset)
    write_atomic(FILE, json.dumps({name: content[name] for name in CORPORA if name in content}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
