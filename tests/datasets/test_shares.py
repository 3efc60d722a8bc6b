"""Nested shares of the training utterances: whole clusters, the same for every run, and nothing else of the corpus."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mer_bench.datasets.shares import nested_share
from mer_bench.datasets.simulated import SimulatedRAVDESS
from mer_bench.functionals import open_functionals

SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
Integers = npt.NDArray[np.int64]


def corpus(clusters: int = 30, size: int = 7, classes: int = 4) -> tuple[Integers, Integers, Integers]:
    """Training rows, and the cluster and class of every row, of which every other cluster is for training."""
    cluster = np.repeat(np.arange(2 * clusters), size)
    labels = np.random.default_rng(0).integers(0, classes, len(cluster))
    return np.flatnonzero(cluster % 2 == 0), cluster, labels


def test_each_share_is_of_whole_clusters_and_contained_in_the_next() -> None:
    rows, cluster, labels = corpus()
    found = [nested_share(rows, cluster, labels, share) for share in SHARES]
    for less, more in pairwise(found):
        assert set(less) < set(more)
    for share, chosen in zip(SHARES, found, strict=True):
        assert (np.diff(chosen) > 0).all()
        assert len(set(cluster[chosen])) == np.ceil(share * 30)
        assert np.isin(cluster[rows], cluster[chosen]).sum() == len(chosen)
    assert (found[-1] == rows).all()


def test_a_share_is_a_function_of_the_corpus_and_no_run_of_its_first_clusters() -> None:
    rows, cluster, labels = corpus()
    once, again = (nested_share(rows, cluster, labels, 0.5) for _ in range(2))
    assert (once == again).all()
    assert sorted(set(cluster[once])) != sorted(set(cluster[rows]))[:15]


def test_the_smallest_share_has_every_class_where_it_can() -> None:
    """One class is in a single cluster, whichever it is."""
    rows, cluster, labels = corpus(classes=3)
    for only in range(0, 60, 2):
        rare = np.where((cluster == only) & (np.arange(len(cluster)) % 7 == 0), 3, labels)
        chosen = nested_share(rows, cluster, rare, 0.1)
        assert set(rare[chosen]) == {0, 1, 2, 3}
        assert len(set(cluster[chosen])) == 3
    alone = np.where(cluster < 60, cluster // 2, 0)  # a class for each cluster: three clusters can only have three
    assert len(set(alone[nested_share(rows, cluster, alone, 0.1)])) == 3


def test_a_share_changes_the_training_rows_alone_and_what_is_learnt_from_them(root: Path) -> None:
    def built(share: float) -> SimulatedRAVDESS:
        made = SimulatedRAVDESS(
            root, {"audio": "simulated-audio"}, label_set="eight", protocol="folds6", fold=2, share=share
        )
        made.reads = frozenset({"functionals"})
        return made

    whole, part = built(1.0), built(0.25)
    for split in ("validation", "test"):
        assert (whole.rows[split] == part.rows[split]).all()
    assert len(part.rows["train"]) == 120  # four of sixteen actors
    assert part.table["speaker"].iloc[part.rows["train"]].nunique() == 4
    assert set(part.rows["train"]) < set(whole.rows["train"])
    assert part.class_counts.sum() == 120
    assert (part.class_counts > 0).all()
    mean, _ = part.statistics["functionals"]["audio"]
    other, _ = whole.statistics["functionals"]["audio"]
    values = open_functionals(part.folder / "simulated-audio", part.features["audio"])
    there = np.diff(part.features["audio"].offsets)[part.rows["train"]] > 0
    assert mean.numpy() == pytest.approx(values[part.rows["train"][there]].mean(0), abs=1e-4)
    assert np.abs(mean.numpy() - other.numpy()).max() > 1e-3
