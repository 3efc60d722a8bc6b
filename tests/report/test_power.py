"""The smallest difference that a table could show: its variances are those of draws, and tests find it as often."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pages as report
import pytest
import simulate
from fake_runs import consistent
from suites import Call
from test_leaderboard import clustered, line

from mer_bench.errors import Misuse
from mer_bench.metrics import SCORES
from mer_bench.records import RunRecord, write_record
from mer_bench.report.power import Variances, power, pseudo_values, resolution, variances, variances_of
from mer_bench.report.tables import tables


def runs(methods: str = "abc", seeds: int = 3, **spec: object) -> list[RunRecord]:
    return [
        clustered(name, seed, 8 - at, **spec)  # type: ignore[arg-type]
        for at, name in enumerate(methods) for seed in range(seeds)
    ]  # fmt: skip


def draws(count: int, seeds: int, clusters: int, stream: int = 0) -> list[tuple[float, Variances]]:
    """The difference of two equally good methods, and the components that are estimated from their counts."""
    generator, found = np.random.default_rng(stream), []
    for _ in range(count):
        pair = simulate.world(seeds, (0.0, 0.0), generator, clusters=clusters)
        one, other = (float(SCORES["weighted_f1"](counts.sum(1)).mean()) for counts in pair)
        found.append((one - other, variances(pair)))
    return found


def test_pseudo_values_are_those_of_leaving_each_cluster_out() -> None:
    (counts,) = simulate.world(2, [0.0], np.random.default_rng(1), clusters=6)
    found = pseudo_values(counts, "weighted_f1")
    assert found.shape == (2, 6)
    score = SCORES["weighted_f1"]
    for seed in range(2):
        for cluster in range(6):
            without = np.delete(counts[seed], cluster, axis=0).sum(0)
            expected = 6 * score(counts[seed].sum(0)) - 5 * score(without)
            assert found[seed, cluster] == pytest.approx(float(expected))


def test_components_are_those_of_an_analysis_of_variance_by_hand() -> None:
    """Of two methods with two seeds on two clusters, whose score is the accuracy of clusters of equal size."""
    hits = np.array([[[6, 2], [8, 8]], [[5, 5], [5, 9]]])  # [method, seed, cluster], of ten
    counts = np.zeros((2, 2, 2, 2, 2), np.int64)
    counts[..., 0, 0], counts[..., 0, 1] = hits, 10 - hits
    found = variances(list(counts), "accuracy")
    y = hits / 10
    rest = [((m[0, 0] - m[0, 1] - m[1, 0] + m[1, 1]) / 2) ** 2 for m in y]
    assert found.rest[0] == pytest.approx(rest)
    seeds = [m.mean(1).var(ddof=1) - r / 2 for m, r in zip(y, rest, strict=True)]
    assert found.seeds[0] == pytest.approx(np.maximum(seeds, 0))
    together = (y[0].mean(0) - y[1].mean(0)).var(ddof=1) - sum(rest) / 2
    assert found.clusters[0] == pytest.approx(max(together, 0))
    assert (found.cluster_count, found.seed_counts.tolist()) == (2, [[2, 2]])


def test_the_variance_is_that_of_draws_with_as_many_and_with_more_seeds_and_clusters() -> None:
    known = [each for _, each in draws(200, 3, 24)]
    for seeds, clusters in ((3, 24), (10, 24), (3, 60)):
        predicted = np.mean([float(each.with_more(seeds=seeds, clusters=clusters).variance()[0]) for each in known])
        effects = [effect for effect, _ in draws(200, seeds, clusters, stream=1)]
        assert predicted == pytest.approx(np.var(effects), rel=0.35)  # a standard error of a variance is 10 %


def test_the_variance_of_the_bootstrap_is_what_it_is_taken_for() -> None:
    generator, found, expected = np.random.default_rng(3), [], []
    for _ in range(60):
        pair = simulate.world(4, (0.0, 0.0), generator, clusters=31)
        one, other = simulate.evidence(pair, 400)
        found.append(np.var(one.resampled - other.resampled))
        expected.append(float(variances(pair).variance(bootstrap=True)[0]))
    assert np.mean(expected) == pytest.approx(np.mean(found), rel=0.1)


@pytest.mark.parametrize("tests", [1, 9])
def test_the_smallest_difference_is_found_in_eighty_percent_of_draws(tests: int) -> None:
    generator, found, size = np.random.default_rng(4), 0, 200
    pairs = [simulate.world(5, (0.0, 0.0), generator, clusters=31) for _ in range(size)]
    true = float(np.median([variances(pair).smallest_difference(tests) for pair in pairs]))
    for pair in pairs:
        one, other = simulate.evidence(pair, 1_000)
        effect, deviations = one.score - other.score, one.resampled - other.resampled - (one.score - other.score)
        found += (1 + (np.abs(deviations) >= abs(effect + true)).sum()) / 1_001 < 0.05 / tests
    assert 0.7 <= found / size <= 0.9


def test_more_seeds_and_clusters_and_fewer_tests_show_smaller_differences() -> None:
    ((_, now),) = draws(1, 3, 31)
    smallest = now.smallest_difference()
    assert now.with_more(seeds=10).smallest_difference() < smallest < now.smallest_difference(tests=20)
    assert now.with_more(clusters=62).smallest_difference() < smallest
    assert now.with_more().smallest_difference() == smallest


def test_a_table_says_how_small_a_difference_it_could_show() -> None:
    (table,) = tables(runs())
    found = variances_of(table)
    assert found is not None
    said = resolution(table)
    assert said in report.leaderboard(runs())
    numbers = [100 * each for each in (found.smallest_difference(), found.smallest_difference(2))]
    assert f"a difference of {numbers[0]:.1f} points between two rows" in said
    assert f"of {numbers[1]:.1f} between the best of 3 rows and another (Holm)" in said
    assert f"with 10 seeds {100 * found.with_more(seeds=10).smallest_difference():.1f} and " in said
    assert "with twice the dialogues" in said
    (table,) = tables(runs(seeds=2))
    assert (resolution(table), variances_of(table)) == ("", None)
    assert "With a power of" not in report.leaderboard(runs(seeds=2))


def test_the_command_prints_the_numbers_for_other_seeds_and_clusters(call: Call, tmp_path: Path) -> None:
    for each in runs():
        write_record(consistent(each), tmp_path)
    said = call("power", "--dataset", "meld", "--seeds", "10", "--clusters", "280", "--results", tmp_path)
    assert (said.code, said.err) == (0, "")
    (table,) = tables(runs())
    now = variances_of(table)
    assert now is not None
    asked = now.with_more(seeds=10, clusters=280)
    lines = {text.split("  ")[0]: text.split() for text in said.out.splitlines()}
    for name, each, counted in (("now", now, ["3", "12"]), ("asked", asked, ["10", "280"])):
        numbers = [f"{100 * each.smallest_difference(tests):.1f}" for tests in (1, 2)]
        assert lines[name][1:3] == counted
        assert lines[name][-2:] == numbers
    assert "any" in lines["any number of seeds"]
    alone = call("power", "--results", tmp_path).out
    assert "asked" not in alone


def test_what_is_not_there_is_one_sentence_that_names_what_is(call: Call, tmp_path: Path) -> None:
    for each in runs(seeds=1):
        write_record(consistent(each), tmp_path)
    wrong = call("power", "--dataset", "meld", "--protocol", "loso", "--results", tmp_path)
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "unknown protocol among the tables 'loso': valid are official" in wrong.err
    few = call("power", "--dataset", "meld", "--seeds", "10", "--results", tmp_path)
    assert (few.code, few.err.count("\n")) == (2, 1)
    assert "needs two ranked rows with 3 complete seeds, and no table has them: meld: " in few.err
    assert "(at most 1 seed a row)" in few.err
    assert call("power", "--seeds", "1", "--results", tmp_path).code == 2
    with pytest.raises(Misuse, match="no table has them"):
        power(tables(runs(seeds=2)))


def test_tables_without_enough_seeds_are_named_beside_the_others() -> None:
    text = power(tables([*runs(), *runs(seeds=1, dataset="iemocap")]))
    assert line(text, "these tables have not").endswith(
        "iemocap: emotion, official, utterance track (at most 1 seed a row)"
    )
