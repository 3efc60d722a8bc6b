"""Labels and splits of a corpus without its features."""

from __future__ import annotations

from pathlib import Path

from mer_bench.datasets import find_dataset
from mer_bench.splits import LabelledSplits, Rows
from mer_bench.utterances import FILE


def read_splits(root: Path, dataset: str, label_set: str | None = None, protocol: str | None = None) -> LabelledSplits:
    """Read the labels and all folds of a corpus that is prepared below ``root``; a simulated one generates itself.

    Args:
        root: Folder of the prepared corpora.
        dataset: Name of the corpus.
        label_set: None = the corpus's first.
        protocol: None = the corpus's first.

    Raises:
        Misuse: a name is unknown, or the corpus is not prepared.
    """
    corpus = find_dataset(dataset, root)
    label_set, protocol = label_set or next(iter(corpus.label_sets)), protocol or next(iter(corpus.protocols))
    corpus.check_names(label_set, protocol, 1)
    facts = corpus.protocols[protocol]
    folds = range(1, facts.folds + 1)
    first, *_ = modules = [corpus(root, label_set=label_set, protocol=protocol, fold=fold) for fold in folds]
    rows: list[dict[str, Rows]] = [{name: each for name, each in module.rows.items()} for module in modules]
    return LabelledSplits(
        dataset,
        label_set,
        protocol,
        first.folder / FILE,
        first.table,
        first.classes,
        first.labels,
        corpus.cluster,
        facts.clusters,
        dict(zip(folds, rows, strict=True)),
        facts,
    )
