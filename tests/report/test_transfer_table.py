"""The table "Across corpora": the same trainings on their own test and on that of another corpus, and the drop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pages as report
import pytest
from test_leaderboard import clustered, line

from mer_bench.metrics import SCORES
from mer_bench.records import Protocol, RunRecord, Transfer
from mer_bench.report.archive import make_kept, unpack
from mer_bench.report.rows import ResultRow
from mer_bench.report.statistics import resample
from mer_bench.report.tables import tables
from mer_bench.report.transfer import drop_of, transfer_lines, transfer_notes

FACTS = Protocol(5, "Each session once.", "dialogues")


def on_another(
    run: RunRecord, hits: int, clusters: int = 12, *, sha256: str = "a" * 64, corpus: str = "other"
) -> RunRecord:
    """The run, tested on another corpus of two classes, where it is right in about ``hits`` of ten."""
    draw = np.random.default_rng([run.spec.seed, run.spec.fold, hits])
    right = draw.binomial(10, hits / 10, clusters)
    counts = [[[int(n), 10 - int(n), 0], [2, 3, 0], [0, 0, 0]] for n in right]
    hashes = dict.fromkeys(run.spec.features, sha256)
    return replace(run, transfer={corpus: Transfer("loso", FACTS, hashes, counts)})


def runs(method: str = "a", hits: int = 8, there: int = 4, seeds: int = 3, folds: int = 1) -> Iterator[RunRecord]:
    facts = Protocol(folds, "Folds.", "dialogues")
    for seed in range(seeds):
        for fold in range(1, folds + 1):
            yield replace(on_another(clustered(method, seed, hits, fold=fold), there), protocol=facts)


def row_of(records: list[RunRecord]) -> ResultRow:
    (table,) = tables(records)
    (row,) = table.rows
    return row


def test_the_drop_is_that_of_the_same_trainings_with_its_interval() -> None:
    records = list(runs())
    (table,) = tables(records)
    head, cells = transfer_lines(table)
    assert head[:3] == ("Across corpora", "Modalities", "Tested on")
    assert cells[1:3] == ("text + audio", "other")
    here = np.array([SCORES["weighted_f1"](np.array(run.test_confusion)) for run in records])
    there = np.array(
        [SCORES["weighted_f1"](np.sum(run.transfer["other"].by_cluster, 0)) for run in records if run.transfer]
    )
    assert cells[3].split(" ")[0] == f"{100 * here.mean():.2f}"
    assert cells[4] == f"{100 * there.mean():.2f} ± {100 * there.std(ddof=1):.2f}"
    assert cells[5] == f"{100 * (here.mean() - there.mean()):+.1f}"
    low, high = (float(each) for each in cells[6].split(" to "))
    assert low < float(cells[5]) < high
    uar = np.array([SCORES["uar"](np.sum(run.transfer["other"].by_cluster, 0)) for run in records if run.transfer])
    assert cells[8].split(" ")[0] == f"{100 * uar.mean():.2f}"
    assert cells[-1] == "3"
    page = report.leaderboard(records, [])
    assert line(page, "| other").startswith("| a ")
    assert line(page, "- Tested on other").endswith(
        "all 180 utterances of these classes that `loso` tests, in 12 dialogues."
    )
    assert all(f"- {note}\n" in page for note in transfer_notes(table))


def test_clusters_of_the_two_corpora_are_drawn_independently_and_seeds_alike() -> None:
    """Twelve dialogues here and there: drawn alike, equal counts would have no drop in any resample."""
    counts = row_of(list(runs(seeds=1))).counts
    assert counts is not None
    same, other = resample(counts), resample(counts, bank=1)
    assert same.score == other.score
    assert abs(np.corrcoef(same.resampled, other.resampled)[0, 1]) < 0.05
    assert same.resampled.std() == pytest.approx(other.resampled.std(), rel=0.1)
    # one dialogue is not resampled, so that what is left is the draw of seeds, which is the same for both
    one = np.array([[[[n, 10 - n], [0, 0]]] for n in (2, 5, 9)])
    assert (resample(one, stream=3).resampled == resample(one, stream=3, bank=1).resampled).all()


def test_the_drop_of_equal_tests_is_zero_and_as_uncertain_as_both_together() -> None:
    records = [
        replace(run, transfer={"other": Transfer("loso", FACTS, {}, run.test_by_cluster or [])})
        for run in runs(seeds=1)
    ]
    row = row_of(records)
    found = drop_of(row.others["other"], "weighted_f1", 0)
    assert row.counts is not None
    assert found.score == 0
    assert found.resampled.std() == pytest.approx(2**0.5 * resample(row.counts).resampled.std(), rel=0.1)


def test_the_models_of_all_folds_are_tested_on_the_same_utterances() -> None:
    records = list(runs(seeds=2, folds=3))
    row = row_of(records)
    found = row.others["other"]
    assert found.here.shape[:2] == (2, 36)
    assert found.there.shape[:2] == (2, 12)
    counts: dict[int, list[object]] = {0: [], 1: []}
    for run in records:
        assert run.transfer is not None
        counts[run.spec.seed].append(run.transfer["other"].by_cluster)
    expected = [np.sum(np.array(each), 0) for each in counts.values()]
    assert (found.there == np.array(expected)).all()
    (table,) = tables(records)
    assert list(transfer_notes(table))[1] == (
        "Tested on other: all 180 utterances of these classes that `loso` tests, in 12 dialogues, summed over the 3 "
        "models of a seed."
    )


def test_a_seed_counts_if_all_its_folds_were_tested_on_the_same() -> None:
    records = list(runs(seeds=3, folds=2))
    assert len(row_of(records).others["other"].there) == 3
    lacking = [replace(run, transfer=None) if (run.spec.seed, run.spec.fold) == (1, 2) else run for run in records]
    assert len(row_of(lacking).others["other"].there) == 2
    elsewhere = [on_another(run, 4, sha256="b" * 64) if run.spec.seed == 0 else run for run in records]
    assert len(row_of(elsewhere).others["other"].there) == 2  # of other features
    fewer = [on_another(run, 4, clusters=11) if run.spec.seed == 0 else run for run in records]
    assert len(row_of(fewer).others["other"].there) == 2  # of other utterances
    assert row_of([replace(run, transfer=None) for run in records]).others == {}
    assert transfer_lines(tables([replace(run, transfer=None) for run in records])[0]) == []


def test_the_cache_keeps_what_the_table_needs() -> None:
    records = list(runs())
    assert report.leaderboard([unpack(make_kept(run)) for run in records], []) == report.leaderboard(records, [])


def test_the_page_has_it() -> None:
    page = pytest.importorskip("mer_bench.report.page")
    records = list(runs())
    text = page.page(records)
    assert "<summary>Across corpora: " in text
    assert "all 180 utterances of these classes" in text
    assert "<summary>Across corpora: " not in page.page([replace(run, transfer=None) for run in records])
