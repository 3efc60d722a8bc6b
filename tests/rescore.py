"""Score committed records again from the raw labels, without the package's code for corpora and scores.

``python tests/rescore.py --raw FOLDER`` reads the labels below FOLDER: the file names of RAVDESS, the EmoEvaluation
files of IEMOCAP, the CSVs of MELD. It takes records at random (``--number 0``: all) and says what differs.
"""

from __future__ import annotations

import argparse
import csv
import random
import re
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mer_bench.metrics import SCORES, confusion_matrix
from mer_bench.records import RunRecord, load_records
from mer_bench.report.tables import tables

NUMBER = 20
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
Label = tuple[str, str]  #: what the split depends on (actor, session or split), and the emotion as the release names it
Labels = Mapping[str, Sequence[Label]]  #: corpus -> label of each row of its table

RAVDESS = dict(enumerate(["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"], 1))
MELD = ["neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"]
#: The emotions of a release in each label set; other utterances are left out.
NAMES = {
    ("ravdess", "eight"): {name: name for name in RAVDESS.values()},
    ("iemocap", "six"): dict(hap="happy", sad="sad", neu="neutral", ang="angry", exc="excited", fru="frustrated"),
    ("iemocap", "four"): dict(hap="happy", exc="happy", sad="sad", neu="neutral", ang="angry"),
    ("meld", "seven"): {name: name for name in MELD},
}
#: Actors of RAVDESS that are tested in each fold, those of EmoBox.
FOLDS = "01 11 20 21, 04 10 12 14, 08 09 19 23, 03 05 07 24, 02 15 16 18, 06 13 17 22"
TESTED = {
    ("ravdess", "folds6"): [set(fold.split()) for fold in FOLDS.split(",")],
    ("ravdess", "fixed"): [set(fold.split()) for fold in FOLDS.split(",")],
    ("iemocap", "session5"): [{"5"}],
    ("iemocap", "loso"): [{"1"}, {"2"}, {"3"}, {"4"}, {"5"}],
    ("meld", "official"): [{"test"}],
}
PRINTED = ("weighted_f1", "accuracy", "uar")


def raw_labels(raw: Path) -> dict[str, list[Label]]:
    """The labels of the releases below a folder, in the order of the tables that mer_bench prepares from them."""
    found = {
        "ravdess": ravdess_labels(path.stem for path in raw.rglob("0[123]-01-*-*-*-*-*.*")),
        "iemocap": iemocap_labels(raw),
        "meld": meld_labels(raw),
    }
    return {corpus: labels for corpus, labels in found.items() if labels}


def ravdess_labels(names: Iterable[str]) -> list[Label]:
    """Actor and emotion of the takes with these file names, ordered by actor and take."""
    takes = sorted({tuple(name.split("-")[1:]) for name in names}, key=lambda take: (take[-1], take))
    return [(take[-1], RAVDESS[int(take[1])]) for take in takes]


def iemocap_labels(raw: Path) -> list[Label]:
    """Session and emotion of the utterances, ordered by dialogue, start and id."""
    found = []
    for path in raw.rglob("dialog/EmoEvaluation/Ses*.txt"):
        for start, name, emotion in re.findall(r"^\[([\d.]+) - [\d.]+\]\t(\S+)\t(\w+)\t", path.read_text(), re.M):
            found.append((path.stem, float(start), name, emotion))
    return [(dialogue[4], emotion) for dialogue, _, _, emotion in sorted(found)]


def meld_labels(raw: Path) -> list[Label]:
    """Split and emotion of the utterances: train, dev, test, each ordered by dialogue and utterance."""
    found = []
    for split in ("train", "dev", "test"):
        for path in list(raw.rglob(f"{split}_sent_emo.csv"))[:1]:
            with path.open(encoding="utf-8", errors="replace", newline="") as file:
                rows = list(csv.DictReader(file))
            rows.sort(key=lambda row: (int(row["Dialogue_ID"]), int(row["Utterance_ID"])))
            found += [(split, row["Emotion"].strip().lower()) for row in rows]
    return found


def covered(record: RunRecord, labels: Labels) -> bool:
    """Whether the raw labels of a record are there, and its protocol is known here."""
    spec = record.spec
    known = (spec.dataset, spec.label_set) in NAMES and (spec.dataset, spec.protocol) in TESTED
    return known and spec.dataset in labels


def score(pairs: Counter[tuple[str, str]]) -> dict[str, float]:
    """Accuracy, weighted F1 and unweighted average recall of counted pairs (true class, predicted class)."""
    total, right, f1, recalls = sum(pairs.values()), 0, 0.0, []
    for name in {true for true, _ in pairs}:
        hits = pairs[name, name]
        support = sum(count for (true, _), count in pairs.items() if true == name)
        predicted = sum(count for (_, guess), count in pairs.items() if guess == name)
        right, f1 = right + hits, f1 + support * 2 * hits / (support + predicted)
        recalls.append(hits / support)
    return {"weighted_f1": f1 / total, "accuracy": right / total, "uar": sum(recalls) / len(recalls)}


def count(record: RunRecord, labels: Labels) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Pairs (true class by the raw labels, predicted class) of a record, and what in it differs from them."""
    spec = record.spec
    names, tested = NAMES[spec.dataset, spec.label_set], TESTED[spec.dataset, spec.protocol][spec.fold - 1]
    rows = labels[spec.dataset]
    expected = [row for row, (group, emotion) in enumerate(rows) if group in tested and emotion in names]
    if record.test_index != expected:
        return Counter(), [f"{spec.name}: its test rows are not those of the protocol"]
    true = [names[rows[row][1]] for row in expected]
    pairs = Counter(zip(true, (record.classes[guess] for guess in record.test_predictions), strict=True))
    matrix = [[pairs[one, other] for other in record.classes] for one in record.classes]
    return pairs, [f"{spec.name}: its confusion matrix is another one"] * (record.test_confusion != matrix)


def rescore(
    records: Sequence[RunRecord], labels: Labels, number: int = NUMBER, seed: int = 0
) -> tuple[Counter[str], list[str]]:
    """Score records again, and the rows of the tables in which they stand.

    Args:
        records: Records of any corpora.
        labels: As :func:`raw_labels` gives them.
        number: How many records are drawn; 0 = all that are covered.
        seed: Seed of the draw.

    Returns:
        Number of records of each corpus, and of rows; one sentence for each difference.
    """
    known = [record for record in records if covered(record, labels)]
    chosen = random.Random(seed).sample(known, min(number, len(known))) if number else known
    done, problems = Counter(record.spec.dataset for record in chosen), []
    for record in chosen:
        pairs, found = count(record, labels)
        problems += found
        if pairs:
            matrix = confusion_matrix(
                *([record.classes.index(name) for name in side] for side in zip(*pairs.elements(), strict=True)),
                len(record.classes),
            )
            for name, value in score(pairs).items():
                if abs(float(SCORES[name](matrix)) - value) > 1e-12:
                    problems.append(f"{record.spec.name}: its {name} is {value}")
    drawn = {record.spec.sha256 for record in chosen}
    for row in (row for table in tables(known) for row in table.rows):
        if row.complete and any(record.spec.sha256 in drawn for record in row.records):
            seeds = [
                sum((count(each, labels)[0] for each in folds), Counter()) for folds in row.complete_seeds.values()
            ]
            done["rows"] += 1
            for name in PRINTED:
                values = [100 * score(pairs)[name] if pairs else 0.0 for pairs in seeds]
                text = f"{statistics.mean(values):.2f}"
                text += f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
                if text != row.score(name):
                    problems.append(
                        f"{row.spec.name}: the {name} of its row is {text}, and {row.score(name)} is printed"
                    )
    return done, problems


def main() -> None:
    """Say which records were scored again; exit with 1 if something differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--raw", type=Path, required=True, help="folder above the releases")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--number", type=int, default=NUMBER, help="0 = all")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    labels = raw_labels(given.raw)
    print("labels:", {corpus: len(found) for corpus, found in labels.items()})
    records = [record for record in load_records(given.results)[0] if not record.simulated]
    done, problems = rescore(records, labels, given.number, given.seed)
    print(f"{sum(not covered(record, labels) for record in records)} of {len(records)} real records cannot be scored")
    print(*problems, f"scored again: {dict(done)}, {len(problems)} differences", sep="\n")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
