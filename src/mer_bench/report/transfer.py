"""The table "Across corpora": what a trained model scores on the test utterances of another corpus.

The same trainings are scored on both tests, which share their classes and no utterance. Needs numpy, but not torch.
"""

from __future__ import annotations

from collections.abc import Iterator

from mer_bench.report.columns import NAMES
from mer_bench.report.formatting import between, points, spread
from mer_bench.report.names import marked_names
from mer_bench.report.rows import OtherCorpus
from mer_bench.report.statistics import Evidence, resample
from mer_bench.report.tables import Table

SHOWN = ("weighted_f1", "uar")  #: scores of the table; the shares of the classes take no part in the second


def transfer_lines(table: Table) -> list[tuple[str, ...]]:
    """Cells of the table: the headings, then each row on each other corpus; empty where no row was tested on one."""
    heads = (f"{NAMES[score]}{what}" for score in SHOWN for what in ("", " there", ", drop", ", 95 % interval"))
    found: list[tuple[str, ...]] = [("Across corpora", "Modalities", "Tested on", *heads, "Seeds")]
    short = marked_names(table)
    for stream, row in enumerate(table.rows):
        for corpus, tests in row.others.items():
            cells: list[str] = []
            for score in SHOWN:
                drop = drop_of(tests, score, stream)
                both = (spread(tests.scores(score, where)) for where in (tests.here, tests.there))
                cells += [*both, points(drop.score, "+"), between(*drop.interval, "+")]
            found.append((short[row], row.reads, corpus, *cells, str(len(tests.here))))
    return found if len(found) > 1 else []


def drop_of(tests: OtherCorpus, score: str, stream: int) -> Evidence:
    """Bootstrap of a score on the own corpus minus that on the other one.

    Seeds are drawn alike for both, since the trainings are the same; clusters independently, since the utterances are
    not.
    """
    here = resample(tests.here, score, stream=stream)
    there = resample(tests.there, score, stream=stream, bank=1)
    return Evidence(here.score - there.score, here.resampled - there.resampled, here.support)


def transfer_notes(table: Table) -> Iterator[str]:
    """What the columns mean, and what was tested."""
    tested = {corpus: tests for row in table.rows for corpus, tests in row.others.items()}
    if not tested:
        return
    yield (
        "Across corpora: the trainings of this table on the test utterances of another corpus, standardised with the "
        "statistics of the training rows here; nothing is trained or chosen there. The drop is the score on the own "
        "test less that *there*, of the same trainings (bootstrap over clusters of both corpora, each by itself, and "
        "over seeds); never ranked. Weighted F1 also changes with the shares of the classes, UAR does not."
    )
    for corpus, tests in sorted(tested.items()):
        folds = f", summed over the {tests.folds} models of a seed" if tests.folds > 1 else ""
        yield (
            f"Tested on {corpus}: all {int(tests.there[0].sum()) // tests.folds:,} utterances of these classes that "
            f"`{tests.protocol}` tests, in {tests.there.shape[1]:,} {tests.facts.clusters}{folds}."
        )
