"""Raters: their distributions, scores against them, and what is refused of their file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from mer_bench.errors import Misuse
from mer_bench.groups import group_cells
from mer_bench.metrics import SMALLEST
from mer_bench.raters import (
    FILE,
    agreement,
    cross_entropies,
    distributions,
    divergences,
    rate,
    raters_csv,
    read_raters,
    statements,
    votes,
)

RATINGS = {
    "u0": {"E1": ["neu"], "E2": ["neu", "fru"], "E3": ["neu"]},
    "u1": {"E1": ["fru"], "E2": ["exc"], "E3": ["hap"]},
    "u2": {"E1": ["sur"], "E2": ["oth"], "E3": ["oth"]},
    "u3": {"E1": ["sur"], "E2": ["fru"], "E3": ["fru"]},
}
IDS = ["u0", "u1", "u2", "u3", "u4"]
CLASSES = {"neu": 0, "fru": 1, "exc": 2, "hap": 2}


def test_a_rater_has_one_vote_that_the_named_categories_share() -> None:
    found = votes(RATINGS, IDS, CLASSES, 3)
    assert found.tolist() == [[2.5, 0.5, 0, 0], [0, 1, 2, 0], [0, 0, 0, 3], [0, 2, 0, 1], [0, 0, 0, 0]]
    assert distributions(found) == pytest.approx(
        np.array([[5 / 6, 1 / 6, 0], [0, 1 / 3, 2 / 3], [0, 0, 0], [0, 1, 0], [0, 0, 0]])
    )


def test_agreement_counts_the_raters_who_named_the_class() -> None:
    ratings = {**RATINGS, "u5": {"E1": ["neu"], "E2": ["fru"]}}
    assert agreement(ratings, [*IDS, "u5"], CLASSES, [0, 2, 1, 1, 0, 0]) == ["all", "most", "few", "most", "few", "few"]


def test_soft_scores_are_those_of_scipy() -> None:
    draw = np.random.default_rng(0)
    p = draw.dirichlet(np.ones(4), 50)
    q = distributions(np.hstack([draw.integers(1, 4, (50, 4)), np.ones((50, 1))]))
    assert cross_entropies(p, q) == pytest.approx([entropy(b) + entropy(b, a) for a, b in zip(p, q, strict=True)])
    assert divergences(p, q) == pytest.approx([jensenshannon(a, b) ** 2 for a, b in zip(p, q, strict=True)])
    assert cross_entropies(np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])) == pytest.approx(-np.log(SMALLEST))
    assert divergences(np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])) == pytest.approx(np.log(2))


def test_sums_by_cluster_leave_out_utterances_without_a_distribution() -> None:
    draw = np.random.default_rng(1)
    p = draw.dirichlet(np.ones(3), 5).astype(np.float32)
    true, cluster = np.array([0, 2, 1, 1, 0]), np.array([0, 0, 1, 1, 1])
    found = rate(RATINGS, IDS, CLASSES, p, true, p.argmax(1), cluster)
    given = distributions(votes(RATINGS, IDS, CLASSES, 3))
    assert found.utterances == [2, 1]
    assert found.cross_entropy == pytest.approx(100 * np.bincount(cluster, cross_entropies(p, given)), abs=1)
    assert found.divergence[0] == pytest.approx(100 * divergences(p[:2], given[:2]).sum(), abs=1)
    assert found.divergence[1] == pytest.approx(100 * divergences(p[3:4], given[3:4]).sum(), abs=1)
    matrices = np.zeros((2, 3, 3), np.int64)
    np.add.at(matrices, (cluster, true, p.argmax(1)), 1)
    assert found.agreement.names == ["all", "few", "most"]
    assert group_cells({"agreement": found.agreement}, "agreement", matrices).sum(1).tolist() == [1, 2, 2]
    assert all(holds for holds, _ in statements(found, matrices))


def test_ratings_are_read_as_they_were_written(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(raters_csv(RATINGS))
    assert read_raters(tmp_path, IDS) == RATINGS


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "must begin with the columns id, rater, category"),
        ("id,rater,emotion\n", "must begin with the columns id, rater, category"),
        ("id,rater,category\nu0,E1\n", "line 2: expected an id, a rater and a category, not 'u0,E1'"),
        ("id,rater,category\nu0,,neu\n", "line 2: expected an id, a rater and a category, not 'u0,,neu'"),
        ("id,rater,category\nu0,E1,neu\nu9,E1,neu\n", "line 3: the utterance table has no 'u9'"),
        ("id,rater,category\nu0,E1,neu\nu0,E1,neu\n", "line 3: E1 names 'neu' of u0 a second time"),
    ],
)
def test_a_file_of_raters_that_cannot_be_one_is_refused(content: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(Misuse) as found:
        read_raters(tmp_path, IDS)
    assert str(tmp_path / FILE) in str(found.value)
    assert reason in str(found.value)


def test_a_corpus_without_raters_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=r"the measure raters needs .*raters.csv.* --raters"):
        read_raters(tmp_path, IDS)
