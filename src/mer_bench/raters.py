"""What several raters said of each utterance: ``raters.csv`` beside the utterance table, and scores against it.

Each rater has one vote per utterance, which is shared by the categories that he or she named. The votes for classes of
the label set are the raters' distribution; votes for other categories are left out of it, and so are utterances that
have no other votes. Needs neither torch nor pandas.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mer_bench.calibration import UNIT, hundredths
from mer_bench.errors import Misuse
from mer_bench.groups import Groups, make_groups
from mer_bench.groups import statements as group_statements
from mer_bench.metrics import SMALLEST, Array, FloatArray
from mer_bench.schema import Count

FILE = "raters.csv"
COLUMNS = ("id", "rater", "category")  #: one line per category that a rater named; as the table spells emotions
LEVELS = ("all", "most", "few")  #: raters who named the utterance's class: all, more than half, or at most half of them

Ratings = Mapping[str, Mapping[str, Sequence[str]]]  #: utterance -> rater -> the categories that this rater named


@dataclass(frozen=True)
class RaterScores:
    """Predicted probabilities against the raters' distributions, and how far the raters agree on each utterance.

    Sums are by cluster, as ``test_by_cluster``, and rounded like those of :class:`mer_bench.calibration.Calibration`.
    """

    cross_entropy: list[Count]  #: of the probabilities under the raters' distribution, in hundredths of a nat
    divergence: list[Count]  #: Jensen-Shannon divergence of both, in hundredths of a nat
    utterances: list[Count]  #: that have a distribution
    agreement: Groups  #: by :data:`LEVELS`


def raters_csv(ratings: Ratings) -> str:
    """The content of ``raters.csv``; equal ratings in equal order give equal bytes."""
    buffer = io.StringIO()
    rows = ((name, rater, each) for name, given in ratings.items() for rater, all_ in given.items() for each in all_)
    csv.writer(buffer, lineterminator="\n").writerows([COLUMNS, *rows])
    return buffer.getvalue()


def read_raters(corpus: Path, ids: Collection[str]) -> Ratings:
    """Read ``raters.csv`` of a prepared corpus.

    Raises:
        Misuse: there is none, it is not such a file, repeats a line, or holds an id that is not among ``ids``.
    """
    path, found, known = corpus / FILE, dict[str, dict[str, list[str]]](), set(ids)
    try:
        lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""), strict=True))
    except FileNotFoundError as error:
        raise Misuse(
            f"the measure raters needs {path}, which data preparation writes with --raters for corpora that have them "
            "(iemocap)"
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Misuse(f"{path} is not a readable file of ratings: {error}") from error
    if not lines or tuple(lines[0]) != COLUMNS:
        raise Misuse(f"{path} must begin with the columns {', '.join(COLUMNS)}; prepare the corpus again with --raters")
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(COLUMNS) or not all(line):
            raise Misuse(f"{path}, line {number}: expected an id, a rater and a category, not {','.join(line)!r}")
        name, rater, category = line
        if name not in known:
            raise Misuse(f"{path}, line {number}: the utterance table has no {name!r}; prepare the corpus again")
        named = found.setdefault(name, {}).setdefault(rater, [])
        if category in named:
            raise Misuse(f"{path}, line {number}: {rater} names {category!r} of {name} a second time")
        named.append(category)
    return found


def votes(ratings: Ratings, ids: Sequence[str], classes: Mapping[str, int], count: int) -> FloatArray:
    """Votes for each class [utterance, class]; those for other categories are the last of ``count`` + 1 columns.

    Args:
        ratings: What the raters said.
        ids: The utterances.
        classes: Category -> number of its class.
        count: Number of classes.
    """
    found = np.zeros((len(ids), count + 1))
    for row, name in enumerate(ids):
        for named in ratings.get(name, {}).values():
            for category in named:
                found[row, classes.get(category, count)] += 1 / len(named)
    return found


def distributions(given: FloatArray) -> FloatArray:
    """Votes as distributions over the classes [utterance, class]; zero for utterances without a vote for any."""
    inside = given[:, :-1]
    return inside / np.maximum(inside.sum(1, keepdims=True), SMALLEST) * (inside.sum(1, keepdims=True) > 0)


def agreement(ratings: Ratings, ids: Sequence[str], classes: Mapping[str, int], true: Sequence[int]) -> list[str]:
    """Whether all, more than half, or fewer of the raters of each utterance named its class: :data:`LEVELS`."""
    found = []
    for name, label in zip(ids, true, strict=True):
        named = [
            any(classes.get(each) == label for each in categories) for categories in ratings.get(name, {}).values()
        ]
        found.append("all" if named and all(named) else "most" if 2 * sum(named) > len(named) else "few")
    return found


def cross_entropies(probabilities: Array, given: Array) -> FloatArray:
    """Cross-entropy in nats [utterance] of probabilities [utterance, class] under distributions of the same shape."""
    return -(given * np.log(np.maximum(np.asarray(probabilities, np.float64), SMALLEST))).sum(1)


def divergences(probabilities: Array, given: Array) -> FloatArray:
    """Jensen-Shannon divergence in nats [utterance] of two distributions [utterance, class]: from 0 to log 2."""
    p, q = np.asarray(probabilities, np.float64), np.asarray(given, np.float64)
    return _entropies((p + q) / 2) - (_entropies(p) + _entropies(q)) / 2


def _entropies(p: FloatArray) -> FloatArray:
    return -(p * np.log(np.where(p > 0, p, 1))).sum(-1)


def rate(
    ratings: Ratings,
    ids: Sequence[str],
    classes: Mapping[str, int],
    probabilities: Array,
    true: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    cluster: npt.NDArray[np.int64],
) -> RaterScores:
    """What to keep of the probabilities [utterance, class] of the utterances ``ids``.

    Args:
        ratings: What the raters said.
        ids: The utterances.
        classes: Category -> number of its class.
        probabilities: Of the classes.
        true: Class of each utterance.
        predicted: The class that was predicted for it.
        cluster: Number of its cluster; all from 0 on occur.
    """
    count = probabilities.shape[1]
    given = distributions(votes(ratings, ids, classes, count))
    known = given.any(1)
    sums = [
        np.bincount(cluster, np.where(known, np.maximum(values, 0), 0))
        for values in (cross_entropies(probabilities, given), divergences(probabilities, given))
    ]
    levels = {"agreement": agreement(ratings, ids, classes, true.tolist())}
    (groups,) = make_groups(levels, cluster, true, predicted, count).values()
    utterances = np.bincount(cluster, known).astype(np.int64).tolist()
    return RaterScores(hundredths(sums[0]), hundredths(sums[1]), utterances, groups)


def statements(found: RaterScores, by_cluster: npt.NDArray[np.int64]) -> Iterator[tuple[bool, str]]:
    """What must hold of the confusion matrices [cluster, class, class] of the same utterances, each with its denial."""
    sizes = by_cluster.sum((1, 2))
    same = {len(found.cross_entropy), len(found.divergence), len(found.utterances)} == {len(sizes)}
    yield same, "raters does not have one sum per cluster"
    utterances = np.array(found.utterances)
    yield bool((utterances <= sizes).all()), "raters counts more utterances than a cluster has"
    for name, most in (("cross_entropy", -np.log(SMALLEST)), ("divergence", np.log(2))):
        within = bool((np.array(getattr(found, name), np.float64) <= UNIT * most * utterances + 1).all())
        yield within, f"{name} of raters exceeds what the utterances of a cluster can have"
    yield set(found.agreement.names) <= set(LEVELS), f"agreement of raters has other levels than {', '.join(LEVELS)}"
    yield from group_statements({"agreement": found.agreement}, by_cluster)
