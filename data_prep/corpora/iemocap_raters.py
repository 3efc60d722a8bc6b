"""IEMOCAP's raters: the categories that each evaluator chose, from the lines below each label of the release.

``C-E2:<tab>Neutral; Frustration;<tab>()`` are the categories of evaluator E2, with a comment in brackets. Lines of the
actors themselves (``C-F1``, ``C-M3``) are self-reports and left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from data_prep.corpora.iemocap import LABEL, release_lines
from mer_bench.errors import Misuse, unknown
from mer_bench.files import write_atomic
from mer_bench.raters import FILE, Ratings, raters_csv

CATEGORIES = {
    "Anger": "ang",
    "Disgust": "dis",
    "Excited": "exc",
    "Fear": "fea",
    "Frustration": "fru",
    "Happiness": "hap",
    "Neutral": "neu",
    "Other": "oth",
    "Sadness": "sad",
    "Surprise": "sur",
}
RATED = re.compile(r"C-(?P<rater>[EFM]\d+):\s*(?P<named>(?:[^;()\s][^;()]*;\s*)+)\(.*\)\s*")


def read_ratings(root: Path) -> Ratings:
    """What the evaluators said of each utterance, in the codes of the table and in the order of the release.

    Args:
        root: Folder that contains Session1 .. Session5.

    Raises:
        Misuse: a line is not of this form, names a category that the release does not have or one twice, or belongs to
            no utterance; or a rater has two lines for one utterance.
    """
    found: dict[str, dict[str, list[str]]] = {}
    path, utterance = "", ""
    for _, place, line in release_lines(root, "EmoEvaluation"):
        if path != (path := place.rpartition(", line")[0]):
            utterance = ""
        if label := LABEL.match(line):
            utterance = label[3]
        elif line.startswith("C-"):
            rated = RATED.fullmatch(line)
            if not rated:
                raise Misuse(f"{place}: {line[:80]!r} is no rating; expected C-E1: category; ()")
            if not utterance:
                raise Misuse(f"{place}: {line[:80]!r} stands before the first utterance of its file")
            if not rated["rater"].startswith("E"):
                continue
            given = found.setdefault(utterance, {})
            if rated["rater"] in given:
                raise Misuse(
                    f"{place}: {rated['rater']} has another rating of {utterance} before; remove one of the two"
                )
            named = [each.strip() for each in rated["named"].split(";") if each.strip()]
            for each in named:
                if each not in CATEGORIES:
                    raise unknown(f"category of a rater in {place}:", each, CATEGORIES)
            if len(set(named)) < len(named):
                raise Misuse(f"{place}: {line[:80]!r} names a category twice")
            given[rated["rater"]] = [CATEGORIES[each] for each in named]
    if not found:
        raise Misuse(f"the EmoEvaluation files below {root} hold no lines of raters (C-E1: category; ())")
    return found


def write_ratings(corpus: Path, root: Path, emotion: Mapping[str, str]) -> Path:
    """Write ``raters.csv`` beside the table, and say how far the release's labels are those of most evaluators.

    Args:
        corpus: Folder of the utterance table.
        root: Folder that contains Session1 .. Session5.
        emotion: Label of each utterance of the table.
    """
    ratings = read_ratings(root)
    path = corpus / FILE
    write_atomic(path, raters_csv(ratings))
    majority = {name: _majority([*given.values()]) for name, given in ratings.items()}
    clear = [name for name, category in majority.items() if category]
    same = sum(emotion[name] == majority[name] for name in clear)
    evaluators = {rater for given in ratings.values() for rater in given}
    click.echo(
        f"raters: {sum(map(len, ratings.values())):,} ratings of {len(ratings):,} utterances by {len(evaluators)} "
        f"evaluators; {len(clear):,} have a category of more than half of them, the label of {same:,} "
        f"({same / max(len(clear), 1):.0%}) -> {path}"
    )
    return path


def _majority(named: Sequence[Sequence[str]]) -> str:
    """The category that more than half of the raters named; empty if there is none, or more than one."""
    counts = Counter(category for each in named for category in each)
    most = [category for category, count in counts.items() if 2 * count > len(named)]
    return most[0] if len(most) == 1 else ""
