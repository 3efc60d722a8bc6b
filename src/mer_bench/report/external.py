"""Predictions as CSV: those of records, and scores of those that another toolkit made on the same splits."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mer_bench import __version__
from mer_bench.errors import Misuse, unknown
from mer_bench.external import ExternalRecord, ExternalSpec, Statement, check_title
from mer_bench.metrics import SCORES, brier_scores, calibration_error, confusion_matrix, f1, log_losses, reliability
from mer_bench.probabilities import read_probabilities
from mer_bench.records import RunRecord, pool_clusters
from mer_bench.report.columns import NAMES
from mer_bench.report.compare import find_row
from mer_bench.report.formatting import between, csv_table, p_value, plain, points, spread
from mer_bench.report.rows import ResultRow, few
from mer_bench.report.statistics import Counts, Difference, Floats, difference, resample
from mer_bench.report.tables import Table, tables
from mer_bench.schema import check_name
from mer_bench.splits import LabelledSplits, Rows

TOLERANCE = 0.01  #: by which probabilities may miss a sum of one, as they may have been rounded
PROBABILITY = "p_"  #: how the columns of probabilities begin


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for all test utterances of all folds, in the order of :func:`utterances_tested`."""

    seeds: tuple[int, ...]
    predicted: Rows  #: class [seed, utterance]
    probabilities: Floats | None  #: [seed, utterance, class]; each sums to one


@dataclass(frozen=True)
class Against:
    """The paired test of predictions against a row of the records."""

    name: str  #: of the row, with its modalities and the heading of its table
    score: float  #: weighted F1 of the row
    difference: Difference  #: predictions minus the row
    seeds: int  #: complete seeds of the predictions, or of the row if it has fewer


@dataclass(frozen=True, eq=False)
class Score:
    """Everything that is known of predictions; scores are shares [seed]."""

    scores: Mapping[str, Floats]
    intervals: Mapping[str, tuple[float, float]]  #: 95 %, over clusters and seeds
    f1: Mapping[str, float]  #: by class, mean over seeds
    probability_scores: Mapping[str, Floats]  #: empty without probabilities
    against: tuple[Against, ...]


def utterances_tested(corpus: LabelledSplits) -> tuple[Rows, Rows]:
    """Fold and table row of each test utterance, by fold and in table order."""
    rows = [splits["test"] for splits in corpus.folds.values()]
    return np.repeat(list(corpus.folds), [len(part) for part in rows]), np.concatenate(rows)


def read_predictions(path: Path, corpus: LabelledSplits, seed: int | None = None) -> Predictions:
    """Read a CSV with the columns id, prediction and, where there are several, fold and seed.

    A prediction is a class or its number, from 0 in the order of ``corpus.classes``. Columns ``p_<class>``, for all
    classes or none, hold probabilities. Other columns are ignored. The seed is that of the
    column seed, else the given one, else 0.

    Raises:
        Misuse: the file is not such a CSV, its ids are not the test utterances of the corpus, each once per seed, or a
            seed is given although it has that column.
    """
    head, lines = _read_csv(path)
    for name in ("id", "prediction"):
        if name not in head:
            raise Misuse(
                f"{path} has no column {name!r}, but {', '.join(map(repr, head))}: it needs the columns id and "
                "prediction, separated by commas"
            )
    if seed is not None and "seed" in head:
        raise Misuse(f"{path} has a column seed, so --seed cannot name another one")
    classes = _probability_columns(path, head, corpus)
    folds, rows = utterances_tested(corpus)
    ids = corpus.table["id"].to_numpy()
    position = {(int(fold), ids[row]): at for at, (fold, row) in enumerate(zip(folds, rows, strict=True))}
    where = {ids[row]: int(fold) for fold, row in zip(folds, rows, strict=True)}
    if len(where) < len(rows) and "fold" not in head:
        raise Misuse(f"{path} needs a column fold: {corpus.protocol} tests some utterances in several folds")
    known, problems = set(ids), _Problems()
    found: dict[int, dict[int, tuple[int, list[float]]]] = {}
    for number, line in lines:
        at = f"{path} line {number}"
        of = _whole(line["seed"], f"{at}: the seed") if "seed" in head else seed or 0
        fold = _whole(line["fold"], f"{at}: the fold") if "fold" in head else where.get(line["id"], 0)
        place = position.get((fold, line["id"]))
        of_seed = found.setdefault(of, {})
        if place is None:
            in_fold = f" of fold {fold}" if "fold" in head else ""
            kind = f"no test utterance{in_fold}" if line["id"] in known else "not in the corpus"
            problems.add(f"{{}} of ids that are {kind}", f"{line['id']!r}, line {number}")
            continue
        if place in of_seed:
            problems.add("{} that repeat an id", f"{line['id']!r}, line {number}")
        probabilities = [_probability(line[PROBABILITY + name], f"{at}: {PROBABILITY}{name}") for name in classes]
        if classes and abs(sum(probabilities) - 1) > TOLERANCE:
            problems.add("{} whose probabilities do not sum to one", f"{sum(probabilities):.3g} in line {number}")
        of_seed[place] = _class(line["prediction"], corpus.classes, at), probabilities
    for of, given in sorted(found.items()):
        lacking = [at for at in range(len(rows)) if at not in given]
        if lacking:
            of_fold = Counter(int(folds[at]) for at in lacking)
            parts = ", ".join(f"{count:,} of fold {fold}" for fold, count in of_fold.items())
            with_seed = f" with seed {of}" if "seed" in head else ""
            kind = f"{len(lacking):,} of {len(rows):,} test utterances are lacking{with_seed}: {parts}"
            problems.add(kind, repr(ids[rows[lacking[0]]]))
    problems.check(f"{path} does not fit {corpus.dataset} {corpus.label_set} {corpus.protocol}")
    seeds = tuple(sorted(found))
    pairs = [[found[of][at] for at in range(len(rows))] for of in seeds]
    predicted = np.array([[one for one, _ in each] for each in pairs], np.int64)
    given_probabilities = np.array([[p for _, p in each] for each in pairs]) if classes else None
    if given_probabilities is not None:
        given_probabilities /= given_probabilities.sum(-1, keepdims=True)
    return Predictions(seeds, predicted, given_probabilities)


class _Problems:
    """Mistakes of a file, counted by kind, with the first of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def add(self, kind: str, example: str) -> None:
        self.counts[kind] += 1
        self.first.setdefault(kind, example)

    def check(self, start: str) -> None:
        if self.counts:
            parts = [
                f"{kind.format(f'{count:,} line' + 's' * (count > 1))} (first: {self.first[kind]})"
                for kind, count in self.counts.items()
            ]
            more = f"; and {len(parts) - 8} more of this kind" if len(parts) > 8 else ""
            raise Misuse(f"{start}: {'; '.join(parts[:8])}{more}")


def _read_csv(path: Path) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """The columns of a CSV, and its lines with their numbers; both are checked first."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        lines = [(reader.line_num, row) for row in reader if row]
    except OSError as error:
        raise Misuse(f"cannot read {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise Misuse(f"{path} is not a CSV file in UTF-8: {error}") from error
    if len(lines) < 2:
        raise Misuse(f"{path} holds no predictions" + (", but a line of headings" if lines else ": it is empty"))
    head = [name.strip() for name in lines[0][1]]
    repeated = [name for name, count in Counter(head).items() if count > 1]
    if repeated:
        raise Misuse(f"{path} has more than one column {repeated[0]!r}")
    for number, row in lines:
        if len(row) != len(head):
            raise Misuse(f"{path} line {number} has {len(row)} cells, and the line of headings {len(head)}")
    return head, ((number, dict(zip(head, map(str.strip, row), strict=True))) for number, row in lines[1:])


def _probability_columns(path: Path, head: Sequence[str], corpus: LabelledSplits) -> tuple[str, ...]:
    """The classes, if the file has their probabilities."""
    given = [name.removeprefix(PROBABILITY) for name in head if name.startswith(PROBABILITY)]
    for name in given:
        if name not in corpus.classes:
            raise unknown(f"class in the heading {PROBABILITY + name!r} of {path}:", name, corpus.classes)
    lacking = [PROBABILITY + name for name in corpus.classes if name not in given]
    if given and lacking:
        raise Misuse(f"{path} has probabilities, but no column {', '.join(lacking)}")
    return corpus.classes if given else ()


def _whole(text: str, what: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise Misuse(f"{what} is {text!r}, which is no whole number") from error


def _probability(text: str, what: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found <= 1:
        raise Misuse(f"{what} is {text!r}, which is no probability from 0 to 1")
    return found


def _class(text: str, classes: Sequence[str], where: str) -> int:
    """Number of a class by its name or number."""
    if text in classes:
        return classes.index(text)
    if text.isascii() and text.isdecimal():
        if len(text) < 9 and int(text) < len(classes):
            return int(text)
        raise Misuse(
            f"{where}: there is no class {text}; they are numbered 0 to {len(classes) - 1}: {', '.join(classes)}"
        )
    raise unknown(f"class in {where}", text, classes)


def counts(predictions: Predictions, corpus: LabelledSplits) -> Counts:
    """Confusion matrices by cluster [seed, cluster, class, class], in the order of records."""
    folds, rows = utterances_tested(corpus)
    classes = len(corpus.classes)
    found = []
    for predicted in predictions.predicted:
        by_fold = {}
        for fold in corpus.folds:
            tested = folds == fold
            clusters = corpus.clusters_of(rows[tested])
            by_fold[fold] = np.zeros((int(clusters.max()) + 1, classes, classes), np.int64)
            np.add.at(by_fold[fold], (clusters, corpus.labels[rows[tested]], predicted[tested]), 1)
        found.append(_pooled(by_fold, corpus))
    return np.stack(found)


def _pooled(by_fold: Mapping[int, Counts], corpus: LabelledSplits) -> Counts:
    pooled = pool_clusters(by_fold, corpus.facts)
    if pooled is None:
        raise Misuse(f"{corpus.file} lacks utterances: not all folds of {corpus.protocol} test the same clusters")
    return pooled


def score(
    predictions: Predictions, corpus: LabelledSplits, records: Sequence[RunRecord] = (), against: Sequence[str] = ()
) -> Score:
    """Score predictions, and test them against methods of the records.

    Args:
        predictions: The predictions.
        corpus: Labels and splits.
        records: All runs.
        against: Methods, as :func:`mer_bench.report.compare.compare` takes them.

    Raises:
        Misuse: there is no complete row of a method on these splits, or the records are of another table.
    """
    found = counts(predictions, corpus)
    pooled = found.sum(1)
    evidence = {name: resample(found, name, stream=1) for name in SCORES}
    tests = []
    for name in against:
        for table, row in rows_of(records, corpus, name):
            runs = [[r for r in found if r.spec.fold in corpus.folds] for found in row.seeds.values()]
            complete = [folds for folds in runs if len(folds) == len(corpus.folds)]
            if not complete or any(r.clusters is None for folds in complete for r in folds):
                raise Misuse(f"there is no test against {name!r}, because it has no complete seed in {table.title}")
            for record in (record for folds in complete for record in folds):
                check_corpus(record, corpus)
            clusters = [{r.spec.fold: r.clusters for r in folds if r.clusters is not None} for folds in complete]
            other = resample(np.stack([_pooled(each, corpus) for each in clusters]))
            label = f"{row.name} on {row.reads} ({table.title}; {', '.join(n for _, n, _ in table.sets)})"
            fewest = min(len(predictions.seeds), len(complete))
            tests.append(Against(label, other.score, difference(evidence["weighted_f1"], other), fewest))
    return Score(
        {name: SCORES[name](pooled) for name in SCORES},
        {name: each.interval for name, each in evidence.items()},
        dict(zip(corpus.classes, map(float, f1(pooled).mean(0)), strict=True)),
        _probability_scores(predictions, corpus),
        tuple(tests),
    )


def _probability_scores(predictions: Predictions, corpus: LabelledSplits) -> dict[str, Floats]:
    """Negative log-likelihood in nats, Brier score (sum over classes) and expected calibration error [seed]."""
    p = predictions.probabilities
    if p is None:
        return {}
    truth = corpus.labels[utterances_tested(corpus)[1]]
    bins = np.stack([reliability(of_seed.max(-1), of_seed.argmax(-1) == truth) for of_seed in p])
    return {
        "negative log-likelihood": log_losses(p, truth).mean(1),
        "Brier score": brier_scores(p, truth).mean(1),
        "calibration error": calibration_error(bins),
    }


def describe(found: Score, predictions: Predictions, corpus: LabelledSplits, name: str) -> str:
    """A score as plain text."""
    rows, total = utterances_tested(corpus)[1], len(predictions.seeds)
    groups = counts(predictions, corpus).shape[1]
    head = (
        f"{name}: {corpus.dataset}, {corpus.label_set}, {corpus.protocol}; {len(rows):,} test utterances, folds: "
        f"{len(corpus.folds)}, {corpus.clusters}: {groups}, seeds: {total}"
    )
    lines = [("score", "percent", "95 % interval")]
    lines += [(NAMES[each], spread(values), between(*found.intervals[each])) for each, values in found.scores.items()]
    parts = [head, plain(lines, "<>>")]
    if found.probability_scores:
        parts.append(plain([(each, f"{values.mean():.4f}") for each, values in found.probability_scores.items()], "<>"))
    parts.append(plain([("F1 by class", ""), *((each, points(value)) for each, value in found.f1.items())], "<>"))
    parts += [
        f"against {each.name}, weighted F1 {100 * each.score:.2f}: {points(each.difference.effect, '+')} points, 95 % "
        f"interval {between(each.difference.low, each.difference.high, '+')}, {p_value(each.difference.p)} (paired; "
        "not corrected for other comparisons"
        + (f"; with {words}, this holds for these trainings alone)" if (words := few(each.seeds)) else ")")
        for each in found.against
    ]
    return "\n\n".join(parts)


def as_json(found: Score, predictions: Predictions, corpus: LabelledSplits) -> dict[str, object]:
    """A score as JSON-able data; all scores and differences are shares."""
    scores = {
        name: {
            "mean": float(values.mean()),
            "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
            "by_seed": values.tolist(),
            "interval": list(found.intervals[name]),
        }
        for name, values in found.scores.items()
    }
    tests = [
        {"row": each.name, "weighted_f1": each.score, "difference": each.difference.effect,
         "interval": [each.difference.low, each.difference.high], "p": each.difference.p}
        for each in found.against
    ]  # fmt: skip
    return {
        "dataset": corpus.dataset,
        "label_set": corpus.label_set,
        "protocol": corpus.protocol,
        "classes": list(corpus.classes),
        "seeds": list(predictions.seeds),
        "utterances": len(utterances_tested(corpus)[1]),
        "scores": scores,
        "f1_by_class": dict(found.f1),
        "probabilities": {name: float(values.mean()) for name, values in found.probability_scores.items()},
        "against": tests,
    }


def rows_of(records: Sequence[RunRecord], corpus: LabelledSplits, method: str) -> list[tuple[Table, ResultRow]]:
    """The rows of a method in the tables of these splits, each once.

    Raises:
        Misuse: there is none.
    """
    key = (corpus.dataset, corpus.label_set, corpus.protocol)
    here = [r for r in records if (r.spec.dataset, r.spec.label_set, r.spec.protocol) == key]
    found: dict[frozenset[str], tuple[Table, ResultRow]] = {}
    for table in tables(here):
        if row := find_row(table, method):
            found.setdefault(frozenset(record.spec.sha256 for record in row.records), (table, row))
    if not found:
        names = sorted({record.spec.method for record in here})
        raise unknown(f"method among the records of {' '.join(key)}", method, names)
    return list(found.values())


def check_corpus(record: RunRecord, corpus: LabelledSplits) -> None:
    """Raise Misuse unless a record was made on the utterances and labels of the corpus as it is prepared here."""
    rows = corpus.folds.get(record.spec.fold, {}).get("test", np.empty(0, np.int64))
    same = record.classes == corpus.classes and np.array_equal(rows, record.test_index)
    if same:
        predicted = np.array(record.test_predictions)
        truth = confusion_matrix(corpus.labels[rows], predicted, len(corpus.classes))
        same = bool((truth == np.array(record.test_confusion)).all())
    if not same:
        raise Misuse(
            f"{corpus.file} is not the table that the records of {record.spec.method} were made on: the test "
            f"utterances of fold {record.spec.fold}, or their labels, are others"
        )


def predictions_csv(
    records: Sequence[RunRecord],
    corpus: LabelledSplits,
    method: str,
    *,
    results: Path,
    seeds: Sequence[int] = (),
    folds: Sequence[int] = (),
) -> tuple[str, list[str]]:
    """What the runs of a method predicted: one line per test utterance, by features, seed and fold, in table order.

    Where probabilities were kept, there are columns ``p_<class>``, which are empty for runs whose file is absent.

    Args:
        records: All runs.
        corpus: Labels and splits.
        method: A method, as :func:`mer_bench.report.compare.compare` takes it.
        results: Folder of the records, beside which the probabilities are.
        seeds: Only these; empty = all.
        folds: Likewise.

    Returns:
        The lines as CSV, and a sentence if probabilities that some record states are absent.

    Raises:
        Misuse: there is no such run, the corpus is another one than the runs', or a file does not hold the
            probabilities of its record.
    """
    head = ["run", "features", "seed", "fold", "id", "dialogue", "turn", "truth", "prediction"]
    lines: list[list[str]] = []
    kept: list[bool] = []
    stated = False
    found = rows_of(records, corpus, method)
    for kind, wanted in (("seed", seeds), ("fold", folds)):
        known = sorted({getattr(record.spec, kind) for _, row in found for record in row.records})
        for number in wanted:
            if number not in known:
                raise Misuse(
                    f"there is no record of {method} with {kind} {number}, but with {', '.join(map(str, known))}"
                )
    for _, row in found:
        for record in (each for of_seed in row.seeds.values() for each in of_seed):
            spec = record.spec
            if (seeds and spec.seed not in seeds) or (folds and spec.fold not in folds):
                continue
            check_corpus(record, corpus)
            probabilities = read_probabilities(record, results)
            kept.append(probabilities is not None)
            stated |= record.probabilities is not None
            empty = [[""] * len(corpus.classes)] * len(record.test_index)
            cells = empty if probabilities is None else [[str(p) for p in row] for row in probabilities]
            sets = " ".join(f"{modality}={name}" for modality, name in sorted(spec.features.items()))
            start = [spec.sha256[:12], sets, str(spec.seed), str(spec.fold)]
            about = corpus.table.iloc[record.test_index]
            columns = (about["id"], about["dialogue"], about["turn"], record.test_predictions, cells)
            for index, name, dialogue, turn, predicted, p in zip(record.test_index, *columns, strict=True):
                truth = corpus.classes[corpus.labels[index]]
                lines.append([*start, name, dialogue, str(turn), truth, corpus.classes[predicted], *p])
    if any(kept):
        head += [f"{PROBABILITY}{name}" for name in corpus.classes]
    said = [
        f"the probabilities of {kept.count(False)} of {len(kept)} runs are not below {results}; a bench with --keep "
        "probabilities makes these runs again and keeps them"
    ]
    return csv_table([head, *(line[: len(head)] for line in lines)]), said * (stated and not all(kept))


def records_of(
    name: str, statement: Statement, predictions: Predictions, corpus: LabelledSplits
) -> list[ExternalRecord]:
    """An external record for each seed and fold of predictions.

    Args:
        name: Name of the row.
        statement: What the author says of the predictions.
        predictions: Those for all test utterances of ``corpus.folds``.
        corpus: Labels and splits, which decide what is right; one with fewer folds gives fewer records.

    Raises:
        Misuse: the name is none, or that of a built-in method.
    """
    check_title(check_name(name, "name given by --add"))
    found, of_fold = [], utterances_tested(corpus)[0]
    for at, seed in enumerate(predictions.seeds):
        for fold, splits in corpus.folds.items():
            alone, here = corpus.only((fold,)), of_fold == fold
            p = predictions.probabilities
            part = Predictions(
                (seed,), predictions.predicted[at : at + 1, here], None if p is None else p[at : at + 1, here]
            )
            scored = {each: float(values[0]) for each, values in _probability_scores(part, alone).items()}
            found.append(
                ExternalRecord(
                    ExternalSpec(name, corpus.dataset, corpus.label_set, corpus.protocol, fold, seed),
                    statement,
                    corpus.classes,
                    corpus.facts,
                    splits["test"].tolist(),
                    part.predicted[0].tolist(),
                    counts(part, alone)[0].tolist(),
                    scored or None,
                    __version__,
                )
            )
    return found
