"""Predictions as CSV: what runs predicted, and what is said of predictions that others made."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from suites import RAVDESS, Call

from mer_bench.datasets import DATASETS
from mer_bench.datasets.splits import read_splits
from mer_bench.errors import Misuse
from mer_bench.metrics import SCORES, SMALLEST
from mer_bench.probabilities import probabilities_path, read_probabilities, write_probabilities
from mer_bench.records import FeatureFacts, RunRecord, RunSpec, Training, write_record
from mer_bench.report.external import counts, describe, predictions_csv, read_predictions, score, utterances_tested
from mer_bench.report.statistics import difference, resample
from mer_bench.report.tables import tables
from mer_bench.splits import LabelledSplits
from mer_bench.training.run import by_cluster

Line = dict[str, Any]


@pytest.fixture(scope="session")
def corpus(root: Path) -> LabelledSplits:
    return read_splits(root, RAVDESS, "eight", "folds6")


def guesses(corpus: LabelledSplits, seed: int, right: float = 0.6) -> list[Line]:
    """Predictions that are right at this rate, for every test utterance."""
    draw = np.random.default_rng(seed)
    lines = []
    for fold, row in zip(*utterances_tested(corpus), strict=True):
        label = int(corpus.labels[row]) if draw.random() < right else int(draw.integers(8))
        lines.append({"id": corpus.table["id"][row], "fold": int(fold), "prediction": corpus.classes[label]})
    return lines


def write(path: Path, lines: Sequence[Line]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return path


def recorded(root: Path, lines: Iterable[Line], method: str, seed: int = 0) -> list[RunRecord]:
    """Records of a method with these predictions."""
    predicted, records = {line["id"]: line["prediction"] for line in lines}, []
    for fold in range(1, 7):
        module = DATASETS[RAVDESS](root, label_set="eight", protocol="folds6", fold=fold)
        index = module.rows["test"]
        classes = np.array([module.classes.index(predicted[name]) for name in module.table["id"][index]])
        clusters = by_cluster(module, index, classes)
        spec = RunSpec(
            RAVDESS, "eight", "folds6", fold, {"audio": "a"}, {"audio": "0" * 64}, method, 1, {}, Training(), seed
        )
        records.append(
            RunRecord(
                spec, module.classes, "utterance", "reimplemented", True,
                {"audio": FeatureFacts("a", "e", "", "", 2, 0)}, {"train": 9, "validation": 0, "test": len(index)},
                None, clusters.sum(0).tolist(), index.tolist(), classes.tolist(), [], 0, 10, 20, 1.0, None, "cpu",
                clusters.tolist(), protocol=DATASETS[RAVDESS].protocols["folds6"],
            )
        )  # fmt: skip
    return records


def test_a_score_is_that_of_records_with_the_same_predictions(
    root: Path, corpus: LabelledSplits, tmp_path: Path
) -> None:
    lines = [guesses(corpus, seed) for seed in range(2)]
    records = [each for seed in range(2) for each in recorded(root, lines[seed], "theirs", seed)]
    (table,) = tables(records)
    (row,) = table.rows
    path = write(tmp_path / "p.csv", [{**line, "seed": seed} for seed in range(2) for line in lines[seed]])
    predictions = read_predictions(path, corpus)
    assert row.counts is not None
    assert (counts(predictions, corpus) == row.counts).all()
    found = score(predictions, corpus)
    assert {name: list(values) for name, values in found.scores.items()} == {
        name: list(SCORES[name](row.pooled)) for name in SCORES
    }
    assert found.against == ()
    assert found.probability_scores == {}


def test_an_actor_is_one_cluster_of_a_score_whichever_folds_test_it(root: Path, tmp_path: Path) -> None:
    corpus = read_splits(root, RAVDESS, "eight", "folds6_text")
    lines = guesses(corpus, 0)
    predictions = read_predictions(write(tmp_path / "p.csv", lines), corpus)
    found = counts(predictions, corpus)
    assert found.shape[:2] == (1, 24)
    assert set(found.sum((0, 2, 3))) == {30}  # takes of each actor, with both sentences
    assert "actors: 24" in describe(score(predictions, corpus), predictions, corpus, "p")
    some = corpus.only((1, 4))  # of two groups of actors, one sentence each
    tested = set(some.table["id"].to_numpy()[utterances_tested(some)[1]])
    part = read_predictions(write(tmp_path / "q.csv", [line for line in lines if line["id"] in tested]), some)
    assert set(counts(part, some).sum((0, 2, 3))) == {15}


def test_the_paired_test_is_that_of_two_records(root: Path, corpus: LabelledSplits, tmp_path: Path) -> None:
    ours, theirs = guesses(corpus, 0, 0.7), guesses(corpus, 1, 0.5)
    records = [*recorded(root, ours, "ours"), *recorded(root, theirs, "theirs")]
    (table,) = tables(records)
    rows = {row.method: row for row in table.rows}
    expected = difference(
        resample(rows["ours"].counts, stream=1), resample(rows["theirs"].counts, stream=0)  # type: ignore[arg-type]
    )  # fmt: skip
    predictions = read_predictions(write(tmp_path / "p.csv", ours), corpus)
    (one,) = score(predictions, corpus, records, ["theirs"]).against
    assert one.difference == expected
    assert one.difference.effect > 0.1
    assert one.score == pytest.approx(rows["theirs"].weighted_f1)
    with pytest.raises(Misuse, match="did you mean 'theirs'"):
        score(predictions, corpus, records, ["thers"])


def test_predictions_of_some_folds_are_tested_on_these_alone(
    root: Path, corpus: LabelledSplits, tmp_path: Path
) -> None:
    ours, theirs = guesses(corpus, 0, 0.7), guesses(corpus, 1, 0.5)
    records = {name: recorded(root, lines, name) for name, lines in {"ours": ours, "theirs": theirs}.items()}
    part = corpus.only((2, 5))
    tested = set(part.table["id"].to_numpy()[utterances_tested(part)[1]])
    path = write(tmp_path / "p.csv", [line for line in ours if line["id"] in tested])
    (one,) = score(read_predictions(path, part), part, records["theirs"], ["theirs"]).against
    first, second = (
        resample(np.array([[*found[1].test_by_cluster, *found[4].test_by_cluster]]), stream=stream)  # type: ignore[misc]
        for stream, found in ((1, records["ours"]), (0, records["theirs"]))
    )
    assert one.difference == difference(first, second)
    assert one.score == second.score


def test_probabilities_are_scored_like_scikit_learn(corpus: LabelledSplits, tmp_path: Path) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    lines = guesses(corpus, 0)
    p = np.random.default_rng(0).dirichlet(np.ones(8), len(lines)).round(4)
    lines = [
        {**line, **{f"p_{name}": value for name, value in zip(corpus.classes, row, strict=True)}}
        for line, row in zip(lines, p, strict=True)
    ]
    predictions = read_predictions(write(tmp_path / "p.csv", lines), corpus)
    found = {name: float(values[0]) for name, values in score(predictions, corpus).probability_scores.items()}
    p /= p.sum(1, keepdims=True)
    truth = corpus.labels[utterances_tested(corpus)[1]]
    assert found["negative log-likelihood"] == pytest.approx(metrics.log_loss(truth, p, labels=range(8)), abs=1e-6)
    assert found["Brier score"] == pytest.approx(((p - np.eye(8)[truth]) ** 2).sum(1).mean())
    confidence, right = p.max(1), p.argmax(1) == truth
    gap = 0.0
    for low in range(15):
        inside = (confidence >= low / 15) & (confidence < (low + 1) / 15)
        gap += abs(confidence[inside].sum() - right[inside].sum()) / len(p)
    assert found["calibration error"] == pytest.approx(gap)


def test_predictions_of_records_come_with_ids_and_score_as_their_row(
    root: Path, corpus: LabelledSplits, tmp_path: Path
) -> None:
    lines = guesses(corpus, 0)
    records = recorded(root, lines, "theirs")
    text, problems = predictions_csv(records, corpus, "theirs", results=tmp_path)
    assert problems == []
    written = list(csv.DictReader(io.StringIO(text)))
    assert [(line["id"], line["prediction"]) for line in written] == [(o["id"], o["prediction"]) for o in lines]
    for line, row in zip(written, utterances_tested(corpus)[1], strict=True):
        about = corpus.table.iloc[row]
        assert (line["id"], line["dialogue"], line["turn"]) == (about["id"], about["dialogue"], str(about["turn"]))
        assert line["truth"] == corpus.classes[corpus.labels[row]]
    (tmp_path / "p.csv").write_text(text, encoding="utf-8")
    read_predictions(tmp_path / "p.csv", corpus)
    of_fold = list(
        csv.DictReader(io.StringIO(predictions_csv(records, corpus, "theirs", results=tmp_path, folds=[2])[0]))
    )
    assert {line["fold"] for line in of_fold} == {"2"}
    with pytest.raises(Misuse, match="no record of theirs with seed 3, but with 0"):
        predictions_csv(records, corpus, "theirs", results=tmp_path, seeds=[3])


def test_records_of_another_table_are_refused(root: Path, corpus: LabelledSplits, tmp_path: Path) -> None:
    records = recorded(root, guesses(corpus, 0), "theirs")
    labels = corpus.labels.copy()
    labels[[0, 50]] = labels[[50, 0]]
    other = replace(corpus, labels=labels)
    assert labels[0] != labels[50]
    with pytest.raises(Misuse, match="is not the table that the records of theirs were made on"):
        predictions_csv(records, other, "theirs", results=tmp_path)
    predictions = read_predictions(write(tmp_path / "p.csv", guesses(corpus, 1)), other)
    with pytest.raises(Misuse, match="is not the table that the records of theirs were made on"):
        score(predictions, other, records, ["theirs"])


def swap(at: int, **cells: Any) -> Callable[[list[Line]], list[Line]]:
    return lambda lines: [*lines[:at], {**lines[at], **cells}, *lines[at + 1 :]]


UNIFORM = {f"p_{name}": 0.125 for name in DATASETS[RAVDESS].label_sets["eight"]}


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (swap(0, id="x"), "1 line of ids that are not in the corpus (first: 'x', line 2); 1 of 720 test "),
        (lambda lines: [*lines, lines[5], lines[6]], "2 lines that repeat an id (first: "),
        (lambda lines: lines[3:], "3 of 720 test utterances are lacking: 3 of fold 1 (first: "),
        (swap(3, fold=2), "1 line of ids that are no test utterance of fold 2"),
        (swap(3, fold="two"), "line 5: the fold is 'two', which is no whole number"),
        (swap(3, prediction="hapy"), "line 5 'hapy': did you mean 'happy'?"),
        (swap(3, prediction="8"), "line 5: there is no class 8; they are numbered 0 to 7: neutral, calm"),
        (swap(3, prediction=""), "unknown class in "),
        (lambda lines: [{"name": "a", "prediction": "0"}], "has no column 'id', but 'name', 'prediction'"),
        (lambda lines: [{"id;prediction": "a;0"}], "has no column 'id', but 'id;prediction'"),
        (lambda lines: [{**line, **UNIFORM, "p_sad": 0.2} for line in lines],
         "720 lines whose probabilities do not sum to one (first: 1.07 in line 2)"),
        (lambda lines: [{**line, **UNIFORM, "p_sad": "nan"} for line in lines], "line 2: p_sad is 'nan', which is no"),
        (lambda lines: [{**line, "p_sad": 1} for line in lines], "has probabilities, but no column p_neutral, p_calm"),
        (lambda lines: [{**line, "p_sadd": 1} for line in lines], "'sadd': did you mean 'sad'?"),
        (lambda lines: [{**line, "seed": int(at > 0)} for at, line in enumerate(lines)],
         "719 of 720 test utterances are lacking with seed 0: 119 of fold 1, 120 of fold 2"),
    ],
)  # fmt: skip
def test_predictions_that_do_not_fit_are_one_sentence(
    corpus: LabelledSplits, tmp_path: Path, change: Callable[[list[Line]], list[Line]], part: str
) -> None:
    path = write(tmp_path / "p.csv", change(guesses(corpus, 0)))
    with pytest.raises(Misuse) as raised:
        read_predictions(path, corpus)
    assert part in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "holds no predictions: it is empty"),
        (b"id,prediction\n", "holds no predictions, but a line of headings"),
        (b"id,id,prediction\na,b,0\n", "has more than one column 'id'"),
        (b"id,prediction\na,0,1\n", "line 2 has 3 cells, and the line of headings 2"),
        (b"id,prediction\n\xff,0\n", "is not a CSV file in UTF-8"),
        (b'id,prediction\n"a,0\n', "is not a CSV file in UTF-8"),
    ],
)
def test_a_file_that_is_no_such_csv_is_one_sentence(
    corpus: LabelledSplits, tmp_path: Path, content: bytes, part: str
) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(content)
    with pytest.raises(Misuse, match=part):
        read_predictions(path, corpus)
    with pytest.raises(Misuse, match="cannot read"):
        read_predictions(tmp_path / "nowhere.csv", corpus)


def test_a_byte_order_mark_other_line_ends_and_numbers_make_no_difference(
    corpus: LabelledSplits, tmp_path: Path
) -> None:
    lines = guesses(corpus, 0)
    plain = read_predictions(write(tmp_path / "p.csv", lines), corpus)
    numbers = [{"prediction": corpus.classes.index(line["prediction"]), "id": line["id"]} for line in lines[::-1]]
    text = write(tmp_path / "q.csv", numbers).read_text(encoding="utf-8")
    (tmp_path / "q.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(text.split()).encode() + b"\r\n\r\n")
    assert (read_predictions(tmp_path / "q.csv", corpus).predicted == plain.predicted).all()


def test_the_commands_print_text_and_json(call: Call, root: Path, corpus: LabelledSplits, tmp_path: Path) -> None:
    for each in recorded(root, guesses(corpus, 1, 0.3), "theirs"):
        write_record(each, tmp_path / "results")
    path = write(tmp_path / "p.csv", guesses(corpus, 0))
    where = ["--dataset", RAVDESS, "--data", root, "--results", tmp_path / "results"]
    text = call("score", path, *where, "--against", "theirs")
    assert (text.code, text.err) == (0, "")
    assert "720 test utterances, folds: 6, actors: 24, seeds: 1" in text.out
    assert "against theirs on audio" in text.out
    data = json.loads(call("score", path, *where, "--against", "theirs", "--json").out)
    (one,) = data["against"]
    assert f"{100 * one['difference']:+.1f} points" in text.out
    assert f"{100 * data['scores']['weighted_f1']['mean']:.2f}" in text.out
    printed = call("predictions", "theirs", *where)
    assert printed.out.count("\n") == 721
    assert call("predictions", "theirs", *where, "--csv", tmp_path / "t.csv").code == 0
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == printed.out
    assert call("predictions", "theirs", "--dataset", RAVDESS, "--data", root, "--results", tmp_path).code == 2


# Kept probabilities


def kept(root: Path, results: Path) -> list[RunRecord]:
    """Records of all folds whose probabilities are kept; those of a right prediction are larger."""
    records = recorded(root, guesses(read_splits(root, RAVDESS, "eight", "folds6"), 0), "theirs")
    found = []
    for record in records:
        p = np.random.default_rng(record.spec.fold).dirichlet(np.ones(8), len(record.test_index)).astype(np.float32)
        p[np.arange(len(p)), record.test_predictions] += 1
        p /= p.sum(1, keepdims=True)
        found.append(replace(record, probabilities=write_probabilities(record.spec, results, p)))
        write_record(found[-1], results)
    return found


def test_predictions_come_with_the_probabilities_that_were_kept_and_can_be_scored(
    root: Path, corpus: LabelledSplits, tmp_path: Path, call: Call
) -> None:
    records = kept(root, tmp_path / "results")
    line = ["predictions", "theirs", "--dataset", RAVDESS, "--data", root, "--results", tmp_path / "results"]
    assert call(*line, "--csv", tmp_path / "p.csv").err == ""
    predictions = read_predictions(tmp_path / "p.csv", corpus)
    assert predictions.probabilities is not None
    stored = np.concatenate([read_probabilities(record, tmp_path / "results") for record in records])  # type: ignore[arg-type]
    assert predictions.probabilities[0] == pytest.approx(stored.astype(float), abs=0.001)
    assert set(score(predictions, corpus).probability_scores) == {
        "negative log-likelihood", "Brier score", "calibration error"
    }  # fmt: skip


def test_absent_probabilities_are_said_and_their_cells_empty_and_others_are_refused(
    root: Path, corpus: LabelledSplits, tmp_path: Path, call: Call
) -> None:
    first, second, *rest = kept(root, tmp_path)
    probabilities_path(first.spec, tmp_path).unlink()
    line = ["predictions", "theirs", "--dataset", RAVDESS, "--data", root, "--results", tmp_path]
    answer = call(*line)
    assert answer.code == 0
    assert answer.err.startswith(f"warning: the probabilities of 1 of 6 runs are not below {tmp_path}; a bench with --")
    found = list(csv.DictReader(io.StringIO(answer.out)))
    assert {row["fold"] for row in found if row["p_happy"] == ""} == {"1"}
    for each in (second, *rest):
        probabilities_path(each.spec, tmp_path).unlink()
    answer = call(*line)
    assert "p_happy" not in answer.out
    assert "the probabilities of 6 of 6 runs are not below" in answer.err
    probabilities_path(second.spec, tmp_path).write_bytes(b"changed")
    refused = call(*line)
    assert (refused.code, refused.out) == (2, "")
    assert f"{second.spec.name}.npy does not hold the probabilities of its record" in refused.err


def test_a_probability_of_zero_of_the_true_class_counts_as_the_smallest(corpus: LabelledSplits, tmp_path: Path) -> None:
    lines = guesses(corpus, 0)
    truth = {row: corpus.classes[corpus.labels[row]] for row in utterances_tested(corpus)[1]}
    certain = [
        {**line, **{f"p_{name}": float(name == truth[row]) for name in corpus.classes}}
        for line, row in zip(lines, utterances_tested(corpus)[1], strict=True)
    ]
    true = truth[utterances_tested(corpus)[1][0]]
    other = next(name for name in corpus.classes if name != true)
    certain[0] |= {f"p_{true}": 0.0, f"p_{other}": 1.0}
    found = score(read_predictions(write(tmp_path / "p.csv", certain), corpus), corpus).probability_scores
    assert found["negative log-likelihood"][0] == pytest.approx(-np.log(SMALLEST) / 720)
