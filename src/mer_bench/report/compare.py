"""Two methods side by side: paired test, gain by class, and the utterances on which they differ. Needs no torch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np

from mer_bench.errors import Misuse, unknown
from mer_bench.external import ExternalRecord
from mer_bench.metrics import f1
from mer_bench.records import RunRecord
from mer_bench.report.formatting import between, escape, markdown, p_value, points, probability
from mer_bench.report.rows import ExternalRow, ResultRow, few_seeds, option_texts
from mer_bench.report.statistics import Difference, Evidence, difference, holm, resample, significant
from mer_bench.report.tables import Table, headlines, real_tables, splits_of, tables
from mer_bench.utterances import FILE, read_table


@dataclass(frozen=True, eq=False)
class Comparison:
    """A row of each of two methods, in one table or in two tables of the same test utterances."""

    table: Table
    first: ResultRow | ExternalRow
    second: ResultRow | ExternalRow
    difference: Difference | None  #: first minus second; None where one of them lacks a complete seed
    other: Table | None = None  #: the table of the second row, where that is another one

    @property
    def names(self) -> list[str]:
        """Names of the rows with their code names, and with their modalities where these differ."""
        rows, sets = (self.first, self.second), _unequal_sets(self.first, self.second)
        if sets:
            return [f"{row.name_with_code} on {escape(each)}" for row, each in zip(rows, sets, strict=True)]
        same = self.first.modalities == self.second.modalities
        return [row.name_with_code if same else f"{row.name_with_code} on {escape(row.reads)}" for row in rows]

    @property
    def title(self) -> str:
        """Where the rows are compared."""
        spec = self.table.first.spec
        return f"{spec.dataset}: {spec.label_set}, {spec.protocol}, two tables" if self.other else self.table.title

    @property
    def differs(self) -> list[str]:
        """What differs beside the method, as Markdown: the track, and the feature sets of a modality that both read."""
        tracks, sets = (_track(self.first), _track(self.second)), _unequal_sets(self.first, self.second)
        found = [f"track ({tracks[0]} against {tracks[1]})"] if all(tracks) and tracks[0] != tracks[1] else []
        return found + ([f"features ({escape(sets[0])} against {escape(sets[1])})"] if sets else [])


def compare(
    records: Sequence[RunRecord],
    first: str,
    second: str,
    dataset: str | None = None,
    external: Sequence[ExternalRecord] = (),
) -> list[Comparison]:
    """Compare two methods in every table in which both have a row.

    Where no table of a corpus, label set and protocol has both, rows of two tables are compared that tested the same
    utterances: tables of the same feature sets (then of two tracks) if there are such, else all of them. Features that
    saw labels of the corpus are compared with no others.

    Args:
        records: All runs.
        first: Code name of a method, with all or some of its options in brackets to choose a certain row or ablation,
            as in ``tacfn (scale=true)``. After it, ``/MODALITIES`` as in ``unimodal/audio`` or ``cfn_sr/audio+vision``
            chooses by modalities, and ``/audio=mfcc`` by their feature sets as well. Of several rows those that read
            most modalities are taken, and of these the first of the table; of several settings for its modalities, the
            one with the fewest options.
        second: The other one, likewise.
        dataset: Only tables of this corpus.
        external: Predictions made elsewhere; a name of these is compared where no method has it.

    Raises:
        Misuse: there is no record of a method, or the two have no test utterances in common.
    """
    all_tables = tables(records, external)
    methods = sorted({record.spec.method for record in records} | {record.spec.name for record in external})
    for name in (first, second):
        if not any(_find(table, name) for table in all_tables):
            raise unknown("method among the records", name, methods)
    chosen = [table for table in all_tables if dataset in (None, table.first.spec.dataset)]
    found = [each for group in _groups(chosen) for each in _comparisons(group, first, second)]
    if not found:
        where = f" of {dataset}" if dataset else ""
        raise Misuse(
            f"no table{where} has both {first!r} and {second!r}, nor do two tables have one each for the same test "
            "utterances (corpus, label set, protocol and rows) and with features that alike saw labels or did not"
        )
    return found


def _groups(found: Sequence[Table]) -> list[list[Table]]:
    """The tables of each corpus, label set and protocol."""
    return [list(group) for _, group in groupby(found, lambda table: splits_of(table.first))]


def _comparisons(group: Sequence[Table], first: str, second: str) -> list[Comparison]:
    """Comparisons within the tables that have both rows, else between tables."""
    found = [one for table in group if (one := _compare(table, first, second))]
    if found:
        return found
    made: dict[tuple[int, ...], Comparison] = {}  # a row may stand in several tables, with the same records
    for table, other in product(group, group):
        a, b = _find(table, first), _find(other, second)
        if a and b and _tests(a) == _tests(b) and table.saw_labels == other.saw_labels:
            key = *map(id, a.records), 0, *map(id, b.records)
            if key not in made:
                made[key] = Comparison(table, a, b, _between(a, b), other)
    alike = [each for each in made.values() if not _unequal_sets(each.first, each.second)]
    return alike or list(made.values())


def _tests(row: ResultRow | ExternalRow) -> set[tuple[int, bytes]]:
    """What a row was tested on in each fold."""
    return {(record.spec.fold, record.tested) for record in row.records}


def _between(first: ResultRow | ExternalRow, second: ResultRow | ExternalRow) -> Difference | None:
    """Difference of rows of two tables, whose seeds are drawn independently."""
    if first.counts is None or second.counts is None:
        return None
    return difference(resample(first.counts, stream=0), resample(second.counts, stream=1))


def _compare(table: Table, first: str, second: str) -> Comparison | None:
    """Comparison of both rows in one table; None unless it has both."""
    one, other = _find(table, first), _find(table, second)
    if not (one and other):
        return None
    variants = {**table.ablation_evidence, **table.strategy_evidence}
    known: dict[Any, Evidence] = {**table.evidence, **variants, **table.external_evidence}
    both = one in known and other in known and one is not other
    return Comparison(table, one, other, difference(known[one], known[other]) if both else None)


def _find(table: Table, name: str) -> ResultRow | ExternalRow | None:
    """The row of this name, else the predictions of this name that were made elsewhere."""
    return find_row(table, name) or next((row for row in table.external if row.method == name), None)


def find_row(table: Table, name: str) -> ResultRow | None:
    """The row whose label without its mark is ``name``, else one with its method and its options (:func:`compare`)."""
    found = (*table.rows, *table.ablations, *table.strategies)
    rows = sorted(found, key=lambda row: -len(row.modalities))  # of equal ones in the order of the table
    asked, _, reads = name.partition("/")
    method, _, listed = asked.removesuffix(")").partition(" (")
    options = set(listed.split(", ")) if listed else set()

    def has_label(row: ResultRow) -> bool:
        label = row.label.removesuffix(row.mark)
        return name in (label, f"{label}/{'+'.join(row.modalities)}")

    def fits(row: ResultRow) -> bool:
        sets, named = row.spec.features, reads.split("+")
        pairs = zip(named, row.modalities, strict=False)
        known = len(named) == len(row.modalities) and all(one in (name, f"{name}={sets[name]}") for one, name in pairs)
        read = not reads or known
        return read and row.method == method and options <= set(option_texts(row.spec))

    chosen = list(filter(has_label, rows)) or list(filter(fits, rows))
    alike = [row for row in chosen if (row.modalities, row.current) == (chosen[0].modalities, chosen[0].current)]
    return min(alike, key=lambda row: len(option_texts(row.spec)), default=None)


#: Claims or assumptions of the papers, each with the two rows that it compares
CLAIMS = (
    ("Simple fusion beats the best single modality", "early_concat", "unimodal"),
    ("Concatenation in context beats text in context", "bc_lstm", "bc_lstm/text"),
    ("Concatenation in context beats concatenation without", "bc_lstm", "early_concat"),
    ("CFN-SR's cross-modal block beats concatenation", "cfn_sr", "early_concat"),
    ("CFN-SR's block with scale=true beats concatenation", "cfn_sr (scale=true)", "early_concat"),
    ("TACFN's cross-modal blocks beat concatenation", "tacfn", "early_concat"),
    ("TACFN's blocks with scale=true beat concatenation", "tacfn (scale=true)", "early_concat"),
    ("TACFN beats CFN-SR", "tacfn", "cfn_sr"),
    ("TACFN beats CFN-SR, both with scale=true", "tacfn (scale=true)", "cfn_sr (scale=true)"),
    ("Sync-TVA beats a recurrent context without graphs", "sync_tva", "bc_lstm"),
    ("Sync-TVA's graphs beat MMGCN's", "sync_tva", "mmgcn"),
)


def claims(found: Sequence[Table]) -> str:
    """Test of each of :data:`CLAIMS` on every real corpus that has both methods, as a Markdown table.

    A corpus takes part with the protocol that :func:`mer_bench.report.tables.headlines` chooses; tables whose features
    saw labels of their corpus are left out. The p-values are Holm-corrected over the rows of the table that have enough
    seeds for a test; of others the points stand there alone. Where the two rows stand in tables of different features
    or tracks, the table says which.
    """
    real = real_tables(found)
    chosen = headlines(table.splits for table in real)
    groups = _groups([table for table in real if table.splits in chosen])
    pairs = [(text, one) for text, *rows in CLAIMS for group in groups for one in _comparisons(group, *rows)]
    tested = [(text, one, one.difference) for text, one in pairs if one.difference]
    enough = [one for _, one, _ in tested if not few_seeds(one.first, one.second)]
    p_values = holm([one.difference.p for one in enough if one.difference])
    corrected = dict(zip(map(id, enough), p_values, strict=True))
    lines = []
    for text, one, each in tested:
        p = corrected.get(id(one))
        features = ", ".join(sorted(name for _, name, _ in one.table.features))
        features = "; ".join([features, *one.differs]) if one.other else features
        if p is None:
            verdict = few_seeds(one.first, one.second)
        else:
            verdict = "not shown" if not significant(p) else "holds" if each.effect > 0 else "the reverse holds"
        numbers = (points(each.effect, "+"), between(each.low, each.high, "+"), "–" if p is None else probability(p))
        dataset, _, protocol = one.table.splits
        lines.append((text, f"{dataset}, {protocol}", features, *numbers, verdict))
    return markdown([("Claim", "Corpus", "Features", "Points", "95 % interval", "p", "Here"), *lines], "<<<>>><")


def describe(found: Comparison, root: Path, show: int) -> str:
    """A comparison as Markdown, with utterances where the corpus is prepared below ``root``.

    Args:
        found: The comparison.
        root: Folder of the prepared corpora.
        show: How many of the utterances on which the methods differ to list, drawn at random.
    """
    first, second, classes = found.first, found.second, found.table.first.classes
    parts = [f"{found.title}: {' against '.join(found.names)}\n"]
    if found.differs:
        parts.append(f"The rows differ also in their {' and in their '.join(found.differs)}.\n")
    if found.difference:
        d = found.difference
        parts.append(
            f"weighted F1 {first.score('weighted_f1')} against {second.score('weighted_f1')}: "
            f"{points(d.effect, '+')} points, 95 % interval {between(d.low, d.high, '+')}, {p_value(d.p)} (paired; not "
            "corrected for other comparisons)\n"
        )
        if few := few_seeds(first, second):
            parts.append(f"With {few}, this holds for these trainings alone: it shows nothing of the methods.\n")
    else:
        parts.append("There is no test, because one of the methods lacks a complete seed.\n")
    scores = [100 * f1(row.pooled).mean(0) for row in (first, second)]
    lines = [(name, f"{a:.1f}", f"{b:.1f}", f"{a - b:+.1f}") for name, a, b in zip(classes, *scores, strict=True)]
    parts.append(markdown([("F1", *found.names, "gain"), *lines], "<>>>"))
    parts.append(_disagreements(found, root, show))
    return "\n".join(parts)


def _track(row: ResultRow | ExternalRow) -> str:
    """Which track a row is of; empty where that is not known."""
    return row.records[0].context if isinstance(row, ResultRow) else ""


def _unequal_sets(*rows: ResultRow | ExternalRow) -> list[str]:
    """For each of two rows, the feature sets of the modalities that both read, if these sets are not the same."""
    specs = [row.spec for row in rows if isinstance(row, ResultRow)]
    if len(specs) < 2:
        return []
    shared = [name for name in rows[0].modalities if name in rows[1].modalities]
    hashes = [[spec.features_sha256.get(name, "") for name in shared] for spec in specs]
    named = [", ".join(f"{name} {spec.features[name]}" for name in shared) for spec in specs]
    if named[0] == named[1] and hashes[0] != hashes[1]:  # one name, two sets
        pairs = zip(named, hashes, strict=True)
        named = [f"{text} (sha256 {', '.join(each[:12] for each in found)})" for text, found in pairs]
    return named if named[0] != named[1] else []


def _disagreements(found: Comparison, root: Path, show: int) -> str:
    """How often the most frequent predictions over seeds differ, and on which utterances."""
    mine, theirs = _majority_predictions(found.first), _majority_predictions(found.second)
    shared = sorted(mine.keys() & theirs.keys())
    differ = [row for row in shared if mine[row] != theirs[row]]
    text = f"they differ on {len(differ):,} of {len(shared):,} utterances (the most frequent prediction over seeds)\n"
    folder = root / found.table.first.spec.dataset
    if not differ or not show or not (folder / FILE).is_file():
        return text
    table, classes = read_table(folder), found.table.first.classes
    if shared[-1] >= len(table):
        return f"{text}{folder / FILE} is not the table that the runs were made on, so no utterance is shown\n"
    chosen = np.random.default_rng(0).permutation(differ)[:show]
    lines = [
        (table["id"][row], table["emotion"][row], classes[mine[row]], classes[theirs[row]], table["text"][row][:60])
        for row in sorted(int(row) for row in chosen)
    ]
    head = ("utterance", "emotion", *found.names, "text")
    return f"{text}\n{markdown([head, *lines], '<<<<<')}"


def _majority_predictions(row: ResultRow | ExternalRow) -> dict[int, int]:
    """Table row -> the class that most seeds predict there; of equally frequent ones, that of the lowest seed."""
    votes: dict[int, list[int]] = defaultdict(list)
    records: list[RunRecord | ExternalRecord] = sorted(row.records, key=lambda record: record.spec.seed)
    for record in records:
        for index, predicted in zip(record.test_index, record.test_predictions, strict=True):
            votes[index].append(predicted)
    return {index: Counter(given).most_common(1)[0][0] for index, given in votes.items()}
