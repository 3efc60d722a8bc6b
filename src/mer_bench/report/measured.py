"""What was measured of corpora beside any run: test texts that training has too, and how well one rater does.

The numbers stand in ``measured.json``, which :mod:`mer_bench.report.measure` writes from prepared corpora; no text and
no label of an utterance is in it. The leaderboard prints them with every table of the corpus, labels and protocol.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mer_bench.report.formatting import between, escape, percent, points
from mer_bench.report.tables import Table
from mer_bench.schema import Count, Name, NotNegative, Positive, Share, Text, decode, read_json

FILE = Path(__file__).with_name("measured.json")
WORDS = 5  #: a test text needs as many to be looked for in training
NEARLY = 0.8  #: Jaccard similarity of two texts' sets of words from which on one nearly stands in the other's place


@dataclass(frozen=True)
class Overlap:
    """Test texts of at least :data:`WORDS` words, over all folds, and those of them that training has as well."""

    texts: Positive
    identical: Count  #: with equal words in equal order, whatever their case and punctuation
    nearly: Count  #: with a similarity of at least :data:`NEARLY` to a training text; the identical ones are among them


@dataclass(frozen=True)
class OneRater:
    """One rater against the others: every rater of an utterance, where most others agree on one class."""

    weighted_f1: Share
    low: Share  #: of its 95 % interval, by the bootstrap over the protocol's clusters
    high: Share
    ratings: Positive  #: a rater on an utterance
    utterances: Positive  #: of those ratings
    entropy: NotNegative  #: of the raters' distribution in nats, mean over the test utterances that have one
    rated: Positive  #: test utterances that have one
    weights: Mapping[Text, NotNegative]  #: such ratings of an utterance, mean by level of agreement


@dataclass(frozen=True)
class Measured:
    """What is known of a corpus with these labels and this protocol."""

    dataset: Name
    label_set: Name
    protocol: Name
    texts: Mapping[Text, Overlap]  #: by scene, such as "scripted", or "all"; empty where there is no text
    rater: OneRater | None  #: None where no raters are known


@dataclass(frozen=True)
class Content:
    """The file."""

    measured: list[Measured]


@cache
def all_measured(path: Path = FILE) -> dict[tuple[str, str, str], Measured]:
    """All that was measured, by corpus, label set and protocol."""
    found = decode(read_json(path, "what was measured of corpora"), Content, str(path)).measured
    return {(each.dataset, each.label_set, each.protocol): each for each in found}


def measured_of(table: Table) -> Measured | None:
    """What was measured of the corpus of a table."""
    spec = table.first.spec
    return all_measured().get((spec.dataset, spec.label_set, spec.protocol))


def overlap_notes(table: Table) -> Iterator[str]:
    """One sentence: how many test texts stand in training too."""
    found = measured_of(table)
    if found is None or not found.texts:
        return
    parts = [
        f"of {each.texts:,} {escape(name)} ones {percent(each.identical / each.texts)} identically and "
        f"{percent(each.nearly / each.texts)} nearly so"
        for name, each in found.texts.items()
    ]
    yield (
        f"Test texts of {WORDS} words or more that stand in training too: {'; '.join(parts)}. Case and punctuation do "
        f"not count; nearly means that of the words of both texts together, {percent(NEARLY)} or more are in both."
    )


def rater_note(found: OneRater, *, compared: bool) -> str:
    """What the score of one rater is, and which score of methods is compared with it, if one is."""
    like = "*Like one rater* is a method's score with these weights of the utterances. " * compared
    return (
        f"*One rater*, never ranked: the answers of each rater ({found.ratings:,} for {found.utterances:,} utterances) "
        "against the class of most of the other raters, where they agree on one; an answer outside of the classes is "
        f"wrong. An utterance on which all raters agree counts once for each of them. {like}The "
        f"raters' distribution has an entropy of {found.entropy:.3f} nats, the least that a cross-entropy can be."
    )


def rater_score(found: OneRater) -> str:
    """The score of one rater with its interval, as tables print it."""
    return f"{points(found.weighted_f1)} ({between(found.low, found.high)})"
