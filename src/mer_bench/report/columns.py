"""The columns of the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from mer_bench.metrics import SCORES, f1
from mer_bench.report.formatting import between, effect, p_value, percent, points, spread
from mer_bench.report.rows import MARKS, Cost, Habit, Row
from mer_bench.report.statistics import LEVEL, Difference
from mer_bench.report.tables import Table

if TYPE_CHECKING:
    pass

DRAWN = 25  #: points below the best interval's end that the drawn intervals may reach


NAMES = {"weighted_f1": "Weighted F1", "accuracy": "Accuracy", "macro_f1": "Macro F1", "uar": "UAR"}


@dataclass(frozen=True)
class Bar:
    """An interval drawn in a cell; places are percentages of the cell's width."""

    low: float
    high: float
    score: float
    best: float  #: the best row's score, a line through all rows
    filled: bool


@dataclass(frozen=True)
class Cell:
    """What a column says of a row: its text, what it sorts by (None = unknown, always last), what hovering adds."""

    text: str
    value: float | str | None = None
    small: str = ""
    tip: str = ""
    bar: Bar | None = None


UNKNOWN = Cell("–")


@dataclass(frozen=True)
class Column:
    """A column of every table that has something to say in it."""

    name: str
    help: str
    cell: Callable[[Table, Row], Cell]
    group: str = ""  #: the heading over it and its neighbours
    kind: str = "number"  #: numbers stand right
    falling: bool = True  #: the first press sorts from the largest value


def _rank(table: Table, row: Row) -> Cell:
    if not row.ranked:
        return UNKNOWN
    return Cell(str(table.ranks[row]), table.ranks[row])


def _method(table: Table, row: Row) -> Cell:
    scores = 100 * f1(row.pooled).mean(0)
    lines = [
        f"{name}  {score:.1f}" for name, score, n in zip(table.first.classes, scores, table.support, strict=True) if n
    ]
    mark = MARKS.get(row.records[0].provenance, "")
    options = row.label.removeprefix(row.method).removesuffix(mark).strip()
    return Cell(row.method + mark, row.label.lower(), options, "\n".join(["F1 by class", *lines]))


def _reads(table: Table, row: Row) -> Cell:
    return Cell(row.reads, row.reads)


def _score(name: str, *, deviates: bool = False) -> Callable[[Table, Row], Cell]:
    def cell(table: Table, row: Row) -> Cell:
        values = 100 * SCORES[name](row.pooled)
        deviation = f"± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
        seeds = [f"seed {seed}  {value:.2f}" for seed, value in zip(table.complete_seeds(row), values, strict=False)]
        tip = "\n".join([f"{NAMES[name]} {values.mean():.2f} {deviation}".rstrip(), *seeds])
        return Cell(f"{values.mean():.2f}", float(values.mean()), deviation if deviates else "", tip)

    return cell


def _interval(table: Table, row: Row) -> Cell:
    if row not in table.evidence:
        return UNKNOWN
    low, high = table.evidence[row].interval
    best = next((each for other, each in table.evidence.items() if other.ranked), table.evidence[row])
    bottom = best.interval[1] - DRAWN / 100  # a row far below would squeeze the rest
    if low < bottom:
        return Cell(between(low, high), low)
    drawn = [bound for each in table.evidence.values() for bound in each.interval if each.interval[0] >= bottom]

    def place(at: float) -> float:
        return round(100 * (at - min(drawn)) / max(max(drawn) - min(drawn), 1e-9), 2)

    score = place(table.evidence[row].score)
    bar = Bar(place(low), place(high), score, place(best.score), filled=row.ranked and table.tied(row))
    return Cell(between(low, high), low, bar=bar)


def _behind(table: Table, row: Row) -> Cell:
    if row not in table.behind:
        return Cell("best", 0.0) if row.ranked and row in table.evidence else UNKNOWN
    found, p = table.behind[row]
    tip = f"{signed(found)}\nHolm-corrected {p_value(p)}"
    return Cell(points(found.effect), found.effect, "≈ tied" if table.tied(row) else "", tip)


def _attained(table: Table, row: Row) -> Cell:
    share = table.share(row)
    return UNKNOWN if share is None else Cell(percent(share), share)


def _inflated(table: Table, row: Row) -> Cell:
    if row not in table.literature:
        return UNKNOWN
    found = table.literature[row]
    tip = f"Weighted F1 {spread(found.best)} at the best test epoch\ninstead of {spread(found.honest)}"
    return Cell(worth(found), found.worth, tip=tip)


def _kept(kind: str, level: str, *others: str) -> Callable[[Table, Row], Cell]:
    """The share that is kept at a level; hovering adds all levels of the kind, and of the ``others``."""

    def cell(table: Table, row: Row) -> Cell:
        share = table.robustness[row].shares.get((kind, level)) if row in table.robustness else None
        if share is None:
            return UNKNOWN
        told = (f"{term} {text}" for each, term, text in disturbances(table, row) if each.startswith((kind, *others)))
        return Cell(percent(share), share, tip="\n".join(["Weighted F1 kept", *told]))

    return cell


def _timed(text: Callable[[Cost], str], value: Callable[[Cost], float]) -> Callable[[Table, Row], Cell]:
    """Something of what a row costs; hovering adds the device and its threads."""

    def cell(table: Table, row: Row) -> Cell:
        if row not in table.efficiency:
            return UNKNOWN
        cost = table.efficiency[row]
        return Cell(text(cost), value(cost), tip=f"on {devices(cost)}")

    return cell


def _parameters(table: Table, row: Row) -> Cell:
    return Cell(short(row.parameters), row.parameters, tip=f"{row.parameters:,} trainable parameters")


def _fusion(table: Table, row: Row) -> Cell:
    count = row.fusion_parameters
    return UNKNOWN if count is None else Cell(short(count), count, tip=f"{count:,} outside the unimodal encoders")


def _flops(table: Table, row: Row) -> Cell:
    return Cell(short(row.flops), row.flops, tip=f"{row.flops:,.0f} for an utterance") if row.flops else UNKNOWN


def _seconds(table: Table, row: Row) -> Cell:
    seconds = [record.seconds for record in row.records]
    tip = f"{len(seconds)} trainings, {sum(seconds):,.0f} s in all\non {trained_on(row)}"
    return Cell(f"{row.seconds:,.1f}", row.seconds, tip=tip)


def _memory(table: Table, row: Row) -> Cell:
    return UNKNOWN if row.memory is None else Cell(f"{row.memory:,.0f}", row.memory, tip=f"on {trained_on(row)}")


def _seeds(table: Table, row: Row) -> Cell:
    return Cell(table.seeds(row), row.complete + len(row.partial) / 1000)


SCORE, HABIT, KEPT, COST = "Scores", "Best test epoch", "Kept", "Cost"


COLUMNS = (
    Column("Rank", "By weighted F1. What fusion must beat (one modality of several, majority, linear) has none, nor "
           "has a row without a complete seed.", _rank, falling=False),
    Column("Method", "With the options that are not its defaults. † reconstruction: the paper does not determine the "
           "method. ° baseline.", _method, kind="text", falling=False),
    Column("Reads", "Its modalities.", _reads, kind="text", falling=False),
    Column(NAMES["weighted_f1"], "F1 averaged over classes, each weighted by its utterances: the primary score. Mean ± "
           "standard deviation (n - 1) over seeds.", _score("weighted_f1", deviates=True), SCORE),
    Column("95 % interval", f"Of weighted F1; drawn for rows within {DRAWN} points of the best. The line is the best "
           "row's score, a filled dot the best row or one tied with it.", _interval, SCORE),
    Column("Behind best", "Points of weighted F1 behind the best row. ≈ tied: not shown to be behind it "
           f"(Holm-corrected p of {1 - LEVEL:.2f} or more).", _behind, SCORE, falling=False),
    Column(NAMES["accuracy"], "Share of utterances that are right.", _score("accuracy"), SCORE),
    Column(NAMES["macro_f1"], "F1 averaged over classes, all alike.", _score("macro_f1"), SCORE),
    Column(NAMES["uar"], "Unweighted average recall.", _score("uar"), SCORE),
    Column("Attained", "Share of what the modalities allow that the row gains over the largest class; of simulated "
           "corpora alone.", _attained, SCORE),
    Column("Inflated by", "Points of weighted F1 that choosing the epoch on the test set, as many papers do, would "
           "have added. Optimistic, never ranked.", _inflated, HABIT),
    Column("Half missing", "Share of the weighted F1 that is kept, without retraining, where each modality of each "
           "utterance is missing at random at a rate of 0.5, but never all.", _kept("missing", "0.5", "only"), KEPT),
    Column("Noise 0 dB", "Share of the weighted F1 that is kept, without retraining, under Gaussian noise as strong as "
           "the standardised features themselves.", _kept("noise", "0"), KEPT),
    Column("Parameters", "Trainable, unimodal encoders included.", _parameters, COST, falling=False),
    Column("Fusion", "Trainable parameters outside the unimodal encoders.", _fusion, COST, falling=False),
    Column("FLOPs", "Of the forward pass of one utterance, as torch counts them.", _flops, COST, falling=False),
    Column("Latency, ms", "Of the forward pass of one utterance, or of one dialogue where the method reads dialogues; "
           "median, without extractors.", _timed(lambda cost: f"{cost.latency:,.2f}", lambda cost: cost.latency), COST,
           falling=False),
    Column("Utterances / s", "Throughput of the forward pass on 32 utterances, or as few whole dialogues as hold them; "
           "median, without extractors.", _timed(lambda cost: f"{cost.throughput:,.0f}", lambda cost: cost.throughput),
           COST),
    Column("Memory, MiB", "Peak of one training, median.", _memory, COST, falling=False),
    Column("Seconds", "Of one training, median; comparable only on one device.", _seconds, COST, falling=False),
    Column("Seeds", "Complete seeds, of those that other rows have.", _seeds),
)  # fmt: skip


def columns(table: Table) -> list[Column]:
    """The columns in which a table has anything to say."""
    return [column for column in COLUMNS if any(column.cell(table, row) != UNKNOWN for row in table.rows)]


def groups(shown: Sequence[Column]) -> list[tuple[str, int]]:
    """The headings over neighbouring columns, and over how many each stands."""
    return [(name, len(list(members))) for name, members in groupby(shown, lambda column: column.group)]


def trained_on(row: Row) -> str:
    """The devices of a row's trainings."""
    return ", ".join(sorted({record.device for record in row.records}))


def disturbances(table: Table, row: Row) -> Iterator[tuple[str, str, str]]:
    """Each kind of disturbance, its name, and the share of the weighted F1 that a row keeps at each of its levels."""
    shares = table.robustness[row].shares if row in table.robustness else {}
    for kind, members in groupby(shares.items(), lambda item: item[0][0]):
        name, _, modality = kind.partition(" ")
        term = {"only": "with only", "missing": "at missing rate", "noise": "under noise"}.get(name, name)
        unit = " dB" if name == "noise" else ""
        pairs = (f"{level.replace('+', ' + ')}{unit}: {percent(share)}" for (_, level), share in members)
        text = ", ".join(pair.replace(" ", "\N{NO-BREAK SPACE}") for pair in pairs)
        yield kind, f"{term} on {modality}" if modality else term, text


def devices(cost: Cost) -> str:
    """What a forward pass was timed on."""
    return " and ".join(sorted(cost.devices))


def signed(found: Difference) -> str:
    """A difference with its interval, in points."""
    return effect(found, "+").replace("-", "−")


def worth(habit: Habit) -> str:
    """What the habit of the best test epoch adds, in points."""
    return f"{habit.worth:+.2f}".replace("-", "−")


def short(count: float) -> str:
    """A large number with three digits and its prefix: 1.30 M."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= 0.9995 * size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"
