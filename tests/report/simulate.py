"""How often the rule of ties and the intervals of ranks are wrong, on simulated methods whose quality is known.

Tests make few draws of this. ``make simulate`` makes many and writes their table into docs/protocol.md.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mer_bench.report.formatting import markdown
from mer_bench.report.power import variances
from mer_bench.report.statistics import Counts, Evidence, Floats, holm, paired_p_values, rank_intervals, resample
from mer_bench.report.statistics import significant as is_significant

CLUSTERS, CLASSES = 31, 6  #: those of the test set of IEMOCAP's session 5
SPREAD = 1.2  #: between the best and the worst of unequal methods, in logits of their recall: 24 points of weighted F1
PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"
MARKS = re.compile(r"(<!-- ties -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Noise:
    """Standard deviations of the recall of a method, in logits."""

    own: float  #: from cluster to cluster, beside the ease of the cluster, which all methods share
    seed: float  #: from seed to seed


#: What differs between methods of equal quality varies as much as in these tables of IEMOCAP (mer-bench power).
NOISES = {"utterance": Noise(0.15, 0.035), "dialogue": Noise(0.3, 0.05)}


def sizes(clusters: int, generator: np.random.Generator, classes: int = CLASSES) -> npt.NDArray[np.int64]:
    """Utterances of each cluster and class: dialogues of different lengths and emotions."""
    return generator.poisson(generator.gamma(4, 3, (clusters, classes)))


def method(
    utterances: npt.NDArray[np.int64], ease: Floats, seeds: int, noise: Noise, generator: np.random.Generator
) -> Counts:
    """Trainings whose accuracy depends on the cluster, on the method in that cluster, and on the seed."""
    classes = utterances.shape[1]
    own = generator.normal(0, noise.own, len(ease))
    recall = 1 / (1 + np.exp(-(ease + own + generator.normal(0, noise.seed, (seeds, 1)))))
    hits = generator.binomial(utterances, recall[..., None])  # [seed, cluster, class]
    counts = np.zeros((seeds, len(ease), classes, classes), np.int64)
    wrong = generator.multinomial(utterances - hits, np.full(classes - 1, 1 / (classes - 1)))
    for true in range(classes):
        counts[:, :, true, true] = hits[..., true]
        counts[:, :, true, [c for c in range(classes) if c != true]] = wrong[:, :, true]
    return counts


def world(
    seeds: int,
    qualities: Sequence[float],
    generator: np.random.Generator,
    *,
    noise: Noise = NOISES["dialogue"],
    clusters: int = CLUSTERS,
    classes: int = CLASSES,
) -> list[Counts]:
    """Methods of these qualities on the same test set."""
    utterances, ease = sizes(clusters, generator, classes), generator.normal(0.3, 0.4, clusters)
    return [method(utterances, ease + quality, seeds, noise, generator) for quality in qualities]


def evidence(methods: Sequence[Counts], resamples: int) -> list[Evidence]:
    """Bootstrap of each method, with seeds of its own."""
    return [resample(counts, stream=stream, resamples=resamples) for stream, counts in enumerate(methods)]


def behind(p_values: Floats, scores: Floats, *, corrected: bool = True) -> bool:
    """Whether some row is said to be behind the best one."""
    best = int(scores.argmax())
    found = [float(p) for other, p in enumerate(p_values[best]) if other != best]
    return any(map(is_significant, holm(found) if corrected else found))


@dataclass
class Tally:
    """What was counted over the draws of tables with this noise and number of seeds and rows."""

    noise: str
    seeds: int
    rows: int
    draws: int = 0
    behind: int = 0  #: draws of equal methods in which some row is said to be behind
    uncorrected: int = 0  #: the same without Holm's correction
    equal: int = 0  #: intervals of equal methods that hold all ranks
    unequal: int = 0  #: intervals of unequal methods that hold the true rank
    width: int = 0  #: ranks in the intervals of unequal methods, summed

    def add_equal(self, methods: Sequence[Evidence]) -> None:
        """Count a table of equally good methods."""
        chosen = methods[: self.rows]
        p_values, scores = paired_p_values(chosen), np.array([each.score for each in chosen])
        self.draws += 1
        self.behind += behind(p_values, scores)
        self.uncorrected += behind(p_values, scores, corrected=False)
        self.equal += sum(found == (1, self.rows) for found in rank_intervals(chosen))

    def add_unequal(self, methods: Sequence[Evidence]) -> None:
        """Count a table of methods of which each is better than the next."""
        for rank, (low, high) in enumerate(rank_intervals(methods), 1):
            self.unequal += low <= rank <= high
            self.width += high - low + 1


def simulate(
    rows: Sequence[int], seeds: int, draws: int, resamples: int, *, noise: str = "dialogue", unequal: bool = True
) -> list[Tally]:
    """Draw tables: of equal methods the first ones of the largest table make the smaller ones."""
    generator = np.random.default_rng(seeds)
    tallies = [Tally(noise, seeds, each) for each in rows]
    for _ in range(draws):
        equal = evidence(world(seeds, [0.0] * max(rows), generator, noise=NOISES[noise]), resamples)
        for tally in tallies:
            tally.add_equal(equal)
            if unequal:
                qualities = np.linspace(SPREAD, 0, tally.rows).tolist()
                tally.add_unequal(evidence(world(seeds, qualities, generator, noise=NOISES[noise]), resamples))
    return tallies


def table(tallies: Sequence[Tally], resamples: int, seconds: float) -> str:
    """The table for the page, with what it was made from."""
    head = (
        "Noise of",
        "Seeds",
        "Rows",
        "Some row wrongly behind",
        "without Holm",
        "Ranks hold: equal",
        "unequal",
        "width",
    )
    lines = [head]
    for one in tallies:
        intervals = one.draws * one.rows
        rates = (one.behind / one.draws, one.uncorrected / one.draws, one.equal / intervals, one.unequal / intervals)
        shares = (f"{100 * rate:.1f} %" for rate in rates)
        lines.append((one.noise, str(one.seeds), str(one.rows), *shares, f"{one.width / intervals:.1f}"))
    return (
        f"{markdown(lines, '<' + '>' * (len(head) - 1))}\n"
        f"Made by `make simulate`: {tallies[0].draws:,} draws of each table, {CLUSTERS} dialogues, {CLASSES} classes, "
        f"{resamples:,} resamples, {seconds / 60:.0f} minutes of one processor.\n{said_of_noise()}"
    )


def said_of_noise() -> str:
    """What the noises are in points, as ``mer-bench power`` says it of a table."""
    lines = []
    for name, noise in NOISES.items():
        generator = np.random.default_rng(0)
        found = [variances(world(5, (0.0, 0.0), generator, noise=noise)) for _ in range(200)]
        parts = ([one.clusters[0] for one in found], *([x.sum() for x in each] for each in (
            [one.seeds for one in found], [one.rest for one in found])))  # fmt: skip
        sizes = [f"{100 * float(np.sqrt(np.mean(each))):.1f}" for each in parts]
        lines.append(
            f"- Noise of the {name} track: {sizes[0]} points for one dialogue, {sizes[1]} for one seed, {sizes[2]} the "
            "rest (standard deviations of the difference of two rows).\n"
        )
    return "".join(["\n", *lines])


def main(draws: int = 600, resamples: int = 4_000) -> None:
    """Write the table into docs/protocol.md; that of fewer tables until all are made."""
    began, tallies = time.process_time(), []
    for noise in NOISES:
        for seeds in (1, 3, 5):
            tallies += simulate((2, 10, 30), seeds, draws, resamples, noise=noise)
            made = table(tallies, resamples, time.process_time() - began)
            print(made, flush=True)
            text = PAGE.read_text(encoding="utf-8")
            PAGE.write_text(MARKS.sub(lambda found: f"{found[1]}\n{made}\n{found[2]}", text), encoding="utf-8")  # noqa: B023


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
