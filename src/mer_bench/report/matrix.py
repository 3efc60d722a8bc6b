"""The matrix: every method on the headline table of every corpus, which the front pages show first.

:func:`standing` takes from one table what the matrix needs, small enough to be kept by the cache, and :func:`matrix`
chooses columns, rows and their order. It prints nothing: the leaderboard and the HTML page do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from mer_bench.report.names import TRACKS, in_words, short_names, slug
from mer_bench.report.names import feature_names as names_of_features
from mer_bench.report.rows import ResultRow
from mer_bench.report.tables import Table, best_single, headlines

#: rows that fusion has to beat, set apart below the others -> what they are called
REFERENCES = {"single": "Best single modality", "linear": "Linear", "majority": "Majority class"}

#: for readers, under the matrix
ORDER = (
    "Methods that stand in more columns come first; among those, the ones with the better mean position, which is the "
    "rank in a column divided by its number of ranked rows. A method without runs on a corpus has no place there."
)
CHOICE = (
    "Of each corpus the matrix shows the first label set and protocol with ranked rows, and of several feature sets "
    "those with the most rows that have a rank, then those with the most rows."
)


@dataclass(frozen=True)
class Entry:
    """What the matrix shows of one row of a table. Scores are in percent."""

    name: str  #: short name, unique among the ranked rows of its table
    method: str  #: code name
    reads: tuple[str, ...]  #: modalities
    score: float  #: weighted F1, mean over seeds
    interval: tuple[float, float] | None  #: 95 % interval of weighted F1; None where clusters are not known
    rank: int | None  #: 1 = best; None for rows that fusion has to beat
    ranks: tuple[int, int] | None  #: 95 % interval of the rank; None with fewer than three seeds
    tied: bool | None  #: whether it is the best row or tied with it; None where neither is said
    parameters: int  #: trainable, encoders included
    seeds: int  #: complete ones
    tuned: bool
    mark: str = ""  #: what follows the name: provenance, another version, a contribution


@dataclass(frozen=True)
class Standing:
    """What the matrix needs of one table."""

    simulated: bool
    splits: tuple[str, str, str]  #: corpus, label set and protocol
    track: str
    heading: str  #: in words
    features: str  #: names of the feature sets
    slug: str  #: name of the table in files
    saw_labels: bool  #: such a table is compared with no other
    ranked: tuple[Entry, ...]  #: best first
    references: dict[str, Entry]  #: key of :data:`REFERENCES` -> row, as far as they are complete and of today's code

    @property
    def settled(self) -> int:
        """How many rows have enough seeds for an interval of their rank."""
        return sum(entry.ranks is not None for entry in self.ranked)


@dataclass(frozen=True)
class Line:
    """A row of the matrix: one method, with one set of options, in each column where it stands."""

    name: str
    method: str  #: code name; empty for the best single modality
    cells: tuple[Entry | None, ...]  #: one for each column

    @property
    def parameters(self) -> tuple[int, int]:
        """The fewest and the most, which depend on the features of each column."""
        found = [cell.parameters for cell in self.cells if cell]
        return min(found), max(found)

    @property
    def seeds(self) -> tuple[int, int]:
        """The fewest and the most complete seeds."""
        found = [cell.seeds for cell in self.cells if cell]
        return min(found), max(found)

    @property
    def tuned(self) -> bool:
        """Whether its settings were tuned."""
        return any(cell.tuned for cell in self.cells if cell)


@dataclass(frozen=True)
class Block:
    """The matrix of one track: a method reads either single utterances or dialogues."""

    track: str
    columns: tuple[Standing, ...]  #: sorted by corpus, label set and protocol
    lines: tuple[Line, ...]  #: in the order that :data:`ORDER` states
    references: tuple[Line, ...]  #: in the order of :data:`REFERENCES`

    @property
    def heading(self) -> str:
        """Its track in words."""
        return TRACKS[self.track].capitalize()


def standing(table: Table) -> Standing:
    """What the matrix needs of a table."""
    names = short_names(table)
    kept = [row for row in table.rows if row.complete and row.current]
    single = best_single(table)
    if single and single.ranked:  # of a table with one modality all rows read one
        single = next((row for row in kept if row.method == "unimodal"), None)
    found = {
        "single": single,
        **{name: next((row for row in kept if row.method == name), None) for name in ("linear", "majority")},
    }
    return Standing(
        table.first.simulated,
        table.splits,
        table.track,
        in_words(table),
        names_of_features(table),
        slug(table),
        table.saw_labels,
        tuple(_entry(table, row, names[row]) for row in table.ranks),
        {key: _entry(table, row, names[row]) for key, row in found.items() if row},
    )


def matrix(found: Iterable[Standing]) -> tuple[Block, ...]:
    """The matrix of these tables, one block per track, single utterances first.

    Of each corpus and track it has the first label set and protocol with ranked rows, as
    :func:`mer_bench.report.tables.headlines` chooses, and of several feature sets those with the most rows whose rank
    is known, then those with the most rows, the first of equal ones. Tables whose features saw labels of their corpus
    are left out. Pass real and simulated tables in separate calls.
    """
    useful = [each for each in found if each.ranked and not each.saw_labels]
    tracks = (track for track in TRACKS if any(each.track == track for each in useful))
    return tuple(_block(track, [each for each in useful if each.track == track]) for track in tracks)


def _block(track: str, found: list[Standing]) -> Block:
    chosen = headlines(each.splits for each in found)
    columns = tuple(
        max((each for each in found if each.splits == splits), key=lambda each: (each.settled, len(each.ranked)))
        for splits in sorted(chosen)
    )
    cells: dict[tuple[str, str], dict[int, Entry]] = defaultdict(dict)
    for position, column in enumerate(columns):
        for entry in column.ranked:
            cells[entry.method, entry.name][position] = entry
    lines = [
        Line(name, method, tuple(at.get(position) for position in range(len(columns))))
        for (method, name), at in cells.items()
    ]
    references = [
        Line(name, "" if key == "single" else key, tuple(column.references.get(key) for column in columns))
        for key, name in REFERENCES.items()
    ]
    return Block(
        track,
        columns,
        tuple(sorted(lines, key=lambda line: _place(line, columns))),
        tuple(line for line in references if any(line.cells)),
    )


def _place(line: Line, columns: tuple[Standing, ...]) -> tuple[int, float, str]:
    """What sorts the lines, as :data:`ORDER` says; names sort equal ones."""
    shares = [
        cell.rank / len(column.ranked)
        for cell, column in zip(line.cells, columns, strict=True)
        if cell and cell.rank is not None
    ]
    return -len(shares), sum(shares) / len(shares), line.name


def _entry(table: Table, row: ResultRow, name: str) -> Entry:
    evidence, tuned = table.evidence.get(row), row.spec.tuned is not None
    return Entry(
        name if not tuned or "tuned" in name.split(", ") else f"{name}, tuned",  # its default row may have no runs here
        row.method,
        row.modalities,
        100 * row.weighted_f1,
        (100 * evidence.interval[0], 100 * evidence.interval[1]) if evidence else None,
        table.ranks.get(row),
        table.rank_intervals.get(row),
        table.tied(row) if row.ranked else None,
        row.parameters,
        row.complete,
        tuned,
        row.mark,
    )
