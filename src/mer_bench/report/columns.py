"""The columns of all tables, each defined once: its heading, its value for a row and its explanation.

Pages print them: :mod:`mer_bench.report.leaderboard` as Markdown, :mod:`mer_bench.report.page` as HTML and
:func:`print_table` as Markdown, CSV or LaTeX.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from mer_bench.errors import unknown
from mer_bench.metrics import BINS, weighted_f1
from mer_bench.modalities import modality_order
from mer_bench.raters import LEVELS
from mer_bench.report.formatting import (
    between,
    csv_table,
    effect,
    escape,
    in_percent,
    latex,
    markdown,
    p_value,
    percent,
    points,
    spread,
    with_interval,
)
from mer_bench.report.groups import AGREEMENT, FEW
from mer_bench.report.measured import measured_of
from mer_bench.report.rows import Cost, ResultRow, TestSelection, few_seeds
from mer_bench.report.statistics import LEAST_SEEDS, LEVEL
from mer_bench.report.tables import Table

DRAWN = 25  #: points below the upper end of the best row's interval down to which intervals are drawn
NAMES = {"weighted_f1": "Weighted F1", "accuracy": "Accuracy", "macro_f1": "Macro F1", "uar": "UAR"}


@dataclass(frozen=True)
class Bar:
    """An interval drawn in a cell; positions are percentages of the width of the drawing."""

    low: float
    high: float
    score: float
    best: float  #: score of the best row
    filled: bool | None  #: whether the row is the best one, or tied with it; None where neither is said


@dataclass(frozen=True)
class Cell:
    """The value of a column for a row."""

    text: str  #: the value as Markdown and LaTeX print it
    value: float | str | None = None  #: number or text that CSV contains and the HTML page sorts by; None = unknown
    more: Mapping[str, float | str] = field(default_factory=dict)  #: name -> further values that CSV contains
    brief: str = ""  #: what the HTML page shows instead of ``text``
    small: str = ""  #: what the HTML page shows beside it in small type
    tip: str = ""  #: what the HTML page shows on hover
    bar: Bar | None = None


UNKNOWN = Cell("–")
Value = Callable[[Table, ResultRow], Cell]

#: Kinds of tables: the ranking, the table of a group of columns beside it, and the ranking of the HTML page
RANKING, GROUP, PAGE = "ranking", "group", "page"
SCORE, CALIBRATION, TEST_SELECTION, RETENTION, COST = (
    "Scores", "Calibration", "Best test epoch", "Retained", "Cost"
)  # fmt: skip
GROUPS, RATERS, TEMPERATURE = "Groups", "Raters", "Temperature"


@dataclass(frozen=True, eq=False)
class Column:
    """A column of every table in which at least one row has a value."""

    name: str  #: heading
    explanation: str  #: for readers of the HTML page
    cell: Value  #: function that gives the value for a row of a table
    group: str = ""  #: heading over it and its neighbours
    shown: tuple[str, ...] = (RANKING, PAGE)  #: kinds of tables that have it
    align: str = ">"  #: ``>`` for numbers, ``<`` for text
    falling: bool = True  #: whether the first press on its heading sorts from the largest value


def _rank(table: Table, row: ResultRow) -> Cell:
    return Cell(str(table.ranks[row]), table.ranks[row]) if row.ranked else Cell("–", tip="Not ranked")


def _method(table: Table, row: ResultRow) -> Cell:
    return Cell(row.name_with_code, row.name, {"code name": row.method})


def _score(name: str) -> Value:
    def cell(table: Table, row: ResultRow) -> Cell:
        values = 100 * row.scores[name]
        deviation = float(values.std(ddof=1)) if len(values) > 1 else None
        known = "" if deviation is None else f"± {deviation:.2f}"
        seeds = [f"seed {seed}  {value:.2f}" for seed, value in zip(row.complete_seeds, values, strict=False)]
        return Cell(
            row.score(name),
            float(values.mean()),
            {} if deviation is None else {"standard deviation": deviation},
            brief=f"{values.mean():.2f}",
            small=known if name == "weighted_f1" else "",
            tip="\n".join([f"{NAMES[name]} {values.mean():.2f} {known}".rstrip(), *seeds]),
        )

    return cell


def _interval(table: Table, row: ResultRow) -> Cell:
    if row not in table.evidence:
        return UNKNOWN
    low, high = table.evidence[row].interval
    text, more = between(low, high), {"upper end": 100 * high}
    best = next((each for other, each in table.evidence.items() if other.ranked), table.evidence[row])
    bottom = best.interval[1] - DRAWN / 100  # a row far below would leave no width for the others
    if low < bottom:
        return Cell(text, 100 * low, more)
    drawn = [each.interval for each in table.evidence.values() if each.interval[0] >= bottom]
    left, right = min(drawn)[0], max(upper for _, upper in drawn)

    def position(at: float) -> float:
        return round(100 * (at - left) / max(right - left, 1e-9), 2)

    score, line = position(table.evidence[row].score), position(best.score)
    bar = Bar(position(low), position(high), score, line, filled=table.tied(row) if row.ranked else False)
    return Cell(text, 100 * low, more, bar=bar)


def _behind(table: Table, row: ResultRow) -> Cell:
    if table.best and row is table.best and row in table.tested:
        return Cell("–", 0.0, {"tied": "yes"}, brief="best")
    if row not in table.behind:
        if row.ranked and row in table.evidence and (few := few_seeds(row)):
            return Cell(few, tip=f"With {few} a row is said to be neither behind nor tied")
        if row in table.tested and table.best:
            return Cell("–", tip=f"Nothing is said: the best row has {few_seeds(table.best) or 'no clusters'}")
        return Cell("–", tip="Not compared") if table.evidence else UNKNOWN
    found, p = table.behind[row]
    tied = bool(table.tied(row))
    more: dict[str, float | str] = {"lower end": 100 * found.low, "upper end": 100 * found.high, "p": p}
    more["tied"] = "yes" if tied else "no"
    tip = f"{effect(found, '+').replace('-', '−')}\nHolm-corrected {p_value(p)}"
    text = effect(found) + " ≈" * tied
    return Cell(text, 100 * found.effect, more, points(found.effect), "≈ tied" if tied else "", tip)


def _ranks(table: Table, row: ResultRow) -> Cell:
    if row not in table.rank_intervals:
        return UNKNOWN
    low, high = table.rank_intervals[row]
    return Cell(f"{low}" if low == high else f"{low}-{high}", low, {"upper end": high})


def _calibration(name: str) -> Value:
    """A score of the probabilities; hovering shows that of each seed."""

    def cell(table: Table, row: ResultRow) -> Cell:
        found = row.probability_scores
        if found is None:
            return UNKNOWN
        values = getattr(found, name)
        more = {"standard deviation": float(values.std(ddof=1))} if len(values) > 1 else {}
        tip = "\n".join(["By seed", *(f"{value:.4f}" for value in values)])
        if bounds := row.probability_intervals.get(name):
            more |= {"lower end": bounds[0], "upper end": bounds[1]}
            tip += f"\n95 % interval {bounds[0]:.3f} to {bounds[1]:.3f}"
        return Cell(f"{values.mean():.3f}", float(values.mean()), more, tip=tip)

    return cell


def _with_interval(name: str) -> Value:
    """A score of the probabilities with its interval, for rows with a temperature."""

    def cell(table: Table, row: ResultRow) -> Cell:
        if row.temperature is None or row.probability_scores is None:
            return UNKNOWN
        mean, bounds = float(getattr(row.probability_scores, name).mean()), row.probability_intervals.get(name)
        return Cell(f"{mean:.3f} ({bounds[0]:.3f} to {bounds[1]:.3f})" if bounds else f"{mean:.3f}", mean)

    return cell


def _at_temperature(name: str) -> Value:
    return _number(
        "{:.3f}", lambda table, row: float(getattr(row.temperature.scores, name).mean()) if row.temperature else None
    )


def _soft(name: str) -> Value:
    """A score against raters with its interval."""

    def cell(table: Table, row: ResultRow) -> Cell:
        if row.soft_scores is None:
            return UNKNOWN
        mean, (low, high) = float(getattr(row.soft_scores, name).mean()), getattr(row.soft_scores, f"{name}_interval")
        text = f"{mean:.3f} ({low:.3f} to {high:.3f})"
        return Cell(text, mean, {"lower end": low, "upper end": high}, brief=f"{mean:.3f}", tip=text)

    return cell


def _like_one_rater(table: Table, row: ResultRow) -> Cell:
    """Weighted F1 with the utterances weighted as the answers of one rater are."""
    found, measured = row.groups.get(AGREEMENT), measured_of(table)
    if found is None or measured is None or measured.rater is None or row.soft_scores is None:
        return UNKNOWN
    weights = np.array([measured.rater.weights.get(name, 0.0) for name in found.names])
    score = float(weighted_f1(np.tensordot(weights, found.pooled, 1)).mean())
    return Cell(points(score), 100 * score)


def _of_group(kind: str, name: str) -> Value:
    """Weighted F1 of one group."""

    def cell(table: Table, row: ResultRow) -> Cell:
        found = row.groups.get(kind)
        if found is None or name not in found.names:
            return UNKNOWN
        at = found.names.index(name)
        return Cell(points(found.scores[at]), 100 * float(found.scores[at]), tip=f"{found.sizes[at]:,} utterances")

    return cell


def _worst_group(kind: str) -> Value:
    def cell(table: Table, row: ResultRow) -> Cell:
        found = row.groups.get(kind)
        if found is None:
            return UNKNOWN
        name, score = found.names[found.worst], found.scores[found.worst]
        each = (f"{one}  {points(score)}" for one, score in zip(found.names, found.scores, strict=True))
        return Cell(f"{points(score)} ({escape(name)})", 100 * float(score), {"group": name}, tip="\n".join(each))

    return cell


def _gap(kind: str) -> Value:
    """How far the worst group is behind all others, with its interval."""

    def cell(table: Table, row: ResultRow) -> Cell:
        found = row.groups.get(kind)
        if found is None:
            return UNKNOWN
        text, more = points(found.gap), dict[str, float | str](group=found.names[found.worst])
        if found.interval is not None:
            text += f" ({between(*found.interval, '+')})"
            more |= {"lower end": 100 * found.interval[0], "upper end": 100 * found.interval[1]}
        return Cell(
            text, 100 * found.gap, more, brief=points(found.gap), tip=f"behind: {found.names[found.worst]}\n{text}"
        )

    return cell


def group_columns(table: Table, group: str) -> list[Column]:
    """The columns of groups of test utterances: those of agreement among raters, or all others."""
    known: dict[str, tuple[str, ...]] = {}
    for row in table.rows:
        known |= {kind: found.names for kind, found in row.groups.items() if (kind == AGREEMENT) == (group == RATERS)}
    found = []
    for kind, names in known.items():
        few = len(names) <= FEW
        shown = [name for name in LEVELS if name in names] if kind == AGREEMENT else names
        for name in shown if few else ():
            heading = f"{name.capitalize()} agree" if kind == AGREEMENT else name.capitalize()
            explanation = f"Weighted F1 of the test utterances whose {kind} is {name}."
            found.append(Column(heading, explanation, _of_group(kind, name), group, (GROUP, PAGE)))
        if not few:
            explanation = f"Weighted F1 of the worst group by {kind}; hovering shows all."
            found.append(Column(f"Worst {kind}", explanation, _worst_group(kind), group, (GROUP, PAGE)))
        if kind != AGREEMENT:
            explanation = f"Weighted F1 of all other test utterances less that of the worst group by {kind}."
            found.append(Column(f"Gap by {kind}", explanation, _gap(kind), group, (GROUP, PAGE)))
    return found


def _test_selection(text: Callable[[TestSelection], str], value: Callable[[TestSelection], float]) -> Value:
    def cell(table: Table, row: ResultRow) -> Cell:
        found = row.test_selection
        if found is None:
            return UNKNOWN
        tip = f"Weighted F1 {spread(found.best)} at the best test epoch\ninstead of {spread(found.honest)}"
        return Cell(text(found), value(found), brief=text(found).replace("-", "−"), tip=tip)

    return cell


def _retained(kind: str, level: str, *others: str) -> Value:
    """Share that remains at a level of a disturbance; hovering shows all levels of the kind and of the ``others``."""

    def cell(table: Table, row: ResultRow) -> Cell:
        share = row.retention.shares.get((kind, level)) if row.retention else None
        if share is None:
            return UNKNOWN
        shares = (f"{term} {text}" for each, term, text in disturbances(row) if each.startswith((kind, *others)))
        return Cell(percent(share), 100 * share, tip="\n".join(["Weighted F1 retained", *shares]))

    return cell


def _number(
    write: str, value: Callable[[Table, ResultRow], float | None], tip: Callable[[ResultRow], str] | None = None
) -> Value:
    """A number in the format ``write``; hovering shows ``tip``."""

    def cell(table: Table, row: ResultRow) -> Cell:
        number = value(table, row)
        return UNKNOWN if number is None else Cell(write.format(number), number, tip=tip(row) if tip else "")

    return cell


def _attained(table: Table, row: ResultRow) -> Cell:
    found = table.attained.get(row)
    if found is None:
        return UNKNOWN
    more = {"lower end": 100 * found.low, "upper end": 100 * found.high}
    tip = f"95 % interval {in_percent(found.low)} to {in_percent(found.high)} %"
    return Cell(with_interval(found), 100 * found.share, more, brief=percent(found.share), tip=tip)


def _cost(write: str, value: Callable[[Cost], float]) -> Value:
    """A number of the cost of a forward pass; hovering shows the devices."""

    def tip(row: ResultRow) -> str:
        return f"on {' and '.join(sorted(row.cost.devices))}" if row.cost else ""

    return _number(write, lambda table, row: value(row.cost) if row.cost else None, tip)


def _undisturbed(table: Table, row: ResultRow) -> Cell:
    found = row.retention
    return Cell(spread(found.undisturbed), 100 * float(found.undisturbed.mean())) if found else UNKNOWN


def trained_on(row: ResultRow) -> str:
    """The devices on which a row was trained."""
    return ", ".join(sorted({record.device for record in row.records}))


def _seconds(table: Table, row: ResultRow) -> Cell:
    seconds = [record.seconds for record in row.records]
    tip = f"{len(seconds)} trainings, {sum(seconds):,.0f} s in all\non {trained_on(row)}"
    return Cell(f"{np.median(seconds):,.0f}", float(np.median(seconds)), tip=tip)


def _seeds(table: Table, row: ResultRow) -> Cell:
    return Cell(seeds(table, row), row.complete, {"incomplete": len(row.seeds) - row.complete})


def seeds(table: Table, row: ResultRow) -> str:
    """How many seeds a row has, and what is missing.

    Rows of fewer modalities set no number for the others: they stand in other tables too, with the seeds of those.
    """
    rows = (*table.rows, *table.ablations, *table.strategies) if row.spec.share == 1 else (row,)
    reads = row.spec.features.items()
    wanted = max(len(other.seeds) for other in rows if reads <= other.spec.features.items())
    text = f"{row.complete}" if row.complete == wanted else f"{row.complete}/{wanted} seeds"
    partial = sorted((len(found) for found in row.seeds.values() if len(found) < row.folds), reverse=True)
    folds = ", ".join(f"{count}/{row.folds}" for count in partial)
    return f"{text} ({folds} folds of {'another' if len(partial) == 1 else 'others'})" if partial else text


def _run_by(table: Table, row: ResultRow) -> Cell:
    if not any(other.contributed for other in table.rows):
        return UNKNOWN
    by = "contributed" if row.contributed else "maintainers"
    return Cell(by, by)


RETRAINED = "Share of the weighted F1 that remains, without retraining,"
MISSING = f"{RETRAINED} where each modality of each utterance is missing at random at a rate of {{}}, but never all."
NOISE = f"{RETRAINED} with Gaussian noise on all standardised features at a signal-to-noise ratio of {{}} dB."
COLUMNS = (
    Column("Rank", "Position by weighted F1. The rows that fusion has to beat (one modality of several, the majority "
           "class, the linear model) have no rank, nor has a row without a complete seed.", _rank, falling=False),
    Column("Method", "Name in its paper, and what tells rows of one method apart. An opened row has the code name and "
           "the options. † reconstruction: the paper does not determine the method. ° baseline. ◇ not built in. "
           "§ contributed.", _method, align="<", falling=False),
    Column("Modalities", "Modalities that the row reads.", lambda table, row: Cell(row.reads, row.reads), align="<",
           falling=False),
    Column(NAMES["weighted_f1"], "F1 averaged over classes, each weighted by its number of utterances: the primary "
           "score. Mean ± standard deviation (n - 1) over seeds.", _score("weighted_f1"), SCORE),
    Column("95 % interval", f"Interval of weighted F1; drawn for rows within {DRAWN} points of the best. The line is "
           "the score of the best row; a filled dot is the best row, or one tied with it, a hollow one is behind or "
           "not ranked; a tick has too few seeds to say so.", _interval, SCORE),
    Column("Behind the best", "Points of weighted F1 behind the best row. ≈ tied: not shown to be behind it "
           f"(Holm-corrected p of {1 - LEVEL:.2f} or more). Of a row with fewer than {LEAST_SEEDS} seeds neither is "
           "said.", _behind, SCORE, falling=False),
    Column("Ranks", "95 % interval of the row's rank: 1 + the rows shown to be better, to all ranked rows less those "
           "shown to be worse (paired tests against each other row, Holm-corrected over them). Only for rows with "
           f"{LEAST_SEEDS} seeds.", _ranks, SCORE, falling=False),
    Column(NAMES["accuracy"], "Share of utterances that are classified correctly.", _score("accuracy"), SCORE),
    Column(NAMES["macro_f1"], "F1 averaged over classes with equal weights.", _score("macro_f1"), SCORE),
    Column(NAMES["uar"], "Unweighted average recall.", _score("uar"), SCORE),
    Column("Attained", "Share of what an ideal observer of all modalities gains over the majority class, on the same "
           "test utterances, that the row gains; with its 95 % interval. Simulated corpora only.", _attained, SCORE),
    Column("NLL", "Negative log-likelihood of the true class, in nats; small where probabilities are right.",
           _calibration("log_loss"), CALIBRATION, falling=False),
    Column("Brier", "Squared error of the probabilities, summed over classes: 0 to 2, small where they are right.",
           _calibration("brier"), CALIBRATION, falling=False),
    Column("ECE", f"Expected calibration error: gap of confidence and accuracy in {BINS} bins of confidence, weighted "
           "by their utterances.", _calibration("calibration_error"), CALIBRATION, falling=False),
    Column("NLL", "Negative log-likelihood with its interval.", _with_interval("log_loss"), TEMPERATURE, (GROUP,)),
    Column("Brier", "Brier score with its interval.", _with_interval("brier"), TEMPERATURE, (GROUP,)),
    Column("ECE", "Calibration error with its interval.", _with_interval("calibration_error"), TEMPERATURE, (GROUP,)),
    Column("Temperature", "By which logits are divided so that validation is most likely; mean over runs. Above 1, the "
           "method was too sure.", _number("{:.2f}", lambda _, row: row.temperature.temperature if row.temperature
           else None), TEMPERATURE, (GROUP, PAGE)),
    Column("NLL at it", "Negative log-likelihood after that temperature.", _at_temperature("log_loss"), TEMPERATURE,
           (GROUP, PAGE), falling=False),
    Column("Brier at it", "Brier score after that temperature.", _at_temperature("brier"), TEMPERATURE, (GROUP,),
           falling=False),
    Column("ECE at it", "Calibration error after that temperature.", _at_temperature("calibration_error"), TEMPERATURE,
           (GROUP, PAGE), falling=False),
    Column("Weighted F1", "Weighted F1 against the corpus's labels.", lambda table, row: value_of(
           table, NAMED[NAMES["weighted_f1"]], row) if row.soft_scores else UNKNOWN, RATERS, (GROUP,)),
    Column("Like one rater", "Weighted F1 with the weights that utterances have in the score of one rater.",
           _like_one_rater, RATERS, (GROUP, PAGE)),
    Column("Cross-entropy", "Cross-entropy of the probabilities under the raters' distribution, in nats.",
           _soft("cross_entropy"), RATERS, (GROUP, PAGE), falling=False),
    Column("JS divergence", "Jensen-Shannon divergence of the probabilities and the raters' distribution, in nats: 0 "
           "to 0.693.", _soft("divergence"), RATERS, (GROUP, PAGE), falling=False),
    Column("Weighted F1", "Weighted F1 at the epoch that was chosen on validation.",
           _test_selection(lambda found: spread(found.honest), lambda found: 100 * float(found.honest.mean())),
           TEST_SELECTION, (GROUP,)),
    Column("With the best test epoch", "Weighted F1 at the epoch that is best on the test set.",
           _test_selection(lambda found: spread(found.best), lambda found: 100 * float(found.best.mean())),
           TEST_SELECTION, (GROUP,)),
    Column("Inflated by", "Points of weighted F1 that choosing the epoch on the test set, as many papers do, would "
           "have added. Optimistic, never ranked.",
           _test_selection(lambda found: f"{found.inflation:+.2f}", lambda found: found.inflation),
           TEST_SELECTION, (GROUP, PAGE)),
    Column("Weighted F1", "Weighted F1 without a disturbance.", _undisturbed, RETENTION, (GROUP,)),
    *(Column(f"Missing {rate}", MISSING.format(rate), _retained("missing", rate, "only"), RETENTION,
             (GROUP, PAGE) if rate == "0.5" else (GROUP,)) for rate in ("0.3", "0.5", "0.7")),
    *(Column(f"Noise {level} dB", NOISE.format(level), _retained("noise", level), RETENTION,
             (GROUP, PAGE) if level == "0" else (GROUP,)) for level in ("10", "0")),
    Column("Parameters", "Trainable parameters, unimodal encoders included.",
           _number("{:,}", lambda _, row: row.parameters), COST, (RANKING, GROUP, PAGE), falling=False),
    Column("Fusion", "Trainable parameters outside the unimodal encoders.",
           _number("{:,}", lambda _, row: row.fusion_parameters), COST, (RANKING, GROUP, PAGE), falling=False),
    Column("Extractors", "Frozen parameters of the feature extractors.",
           _cost("{:,}", lambda cost: cost.extractors), COST, (GROUP,), falling=False),
    Column("MFLOPs", "Millions of floating-point operations for the forward pass of one utterance, as torch counts "
           "them.", _number("{:,.2f}", lambda _, row: row.flops / 1e6), COST, (GROUP, PAGE), falling=False),
    Column("Latency, ms", "Time of the forward pass for one utterance, or for one dialogue where the method reads "
           "dialogues; median, without extractors.", _cost("{:,.2f}", lambda cost: cost.latency), COST, (GROUP, PAGE),
           falling=False),
    Column("Utterances / s", "Throughput of the forward pass on 32 utterances, or on the fewest whole dialogues that "
           "have as many; median, without extractors.", _cost("{:,.0f}", lambda cost: cost.throughput), COST,
           (GROUP, PAGE)),
    Column("Training, s", "Seconds for one training, median; comparable only on the same device.",
           _seconds, COST, (GROUP, PAGE), falling=False),
    Column("Memory, MiB", "Peak memory of one training without pages of mapped files, median.",
           _number("{:,.0f}", lambda _, row: row.memory, lambda row: f"on {trained_on(row)}"), COST, (GROUP, PAGE),
           falling=False),
    Column("Seeds", "Complete seeds, out of those that other rows of the same features have.", _seeds, align="<"),
    Column("Run by", "The maintainers, or for a contributed row (§) those who submitted its records.", _run_by,
           align="<", falling=False),
)  # fmt: skip
#: the columns of a ranking by heading
NAMED: dict[str, Column] = {column.name: column for column in COLUMNS if RANKING in column.shown}


def columns(table: Table, shown: str = RANKING, group: str = "") -> list[Column]:
    """The columns of a kind of table in which at least one row has a value.

    Args:
        table: The table.
        shown: The kind: :data:`RANKING`, :data:`PAGE`, or :data:`GROUP` with the name of the ``group``.
        group: Name of the group, whose columns follow the method and its modalities.
    """
    kept = [c for c in COLUMNS if shown in c.shown and (shown != GROUP or c.group == group)]
    for named in (GROUPS, RATERS) if shown == PAGE else {GROUPS, RATERS} & {group}:
        after = [at for at, column in enumerate(kept) if column.group == named] or [at for at, column in enumerate(kept)
                 if column.group in (SCORE, CALIBRATION)]  # fmt: skip
        at = after[-1] + 1 if after else 0
        kept[at:at] = group_columns(table, named)
    if group == RETENTION:
        kept[1:1] = [_only(modality) for modality in sorted(_modalities(table), key=modality_order)]
    found = [column for column in kept if any(value_of(table, column, row) != UNKNOWN for row in table.rows)]
    return [NAMED["Method"], NAMED["Modalities"], *found] if shown == GROUP else found


def value_of(table: Table, column: Column, row: ResultRow) -> Cell:
    """The value of a column for a row, computed once for all that print it."""
    key = column, row
    if key not in table.cells:
        table.cells[key] = column.cell(table, row)
    return table.cells[key]


def _modalities(table: Table) -> set[str]:
    return {modality for row in table.rows for modality in row.modalities}


def _only(modality: str) -> Column:
    """What remains with one modality alone; corpora may have modalities of any name."""
    explanation = f"{RETRAINED} with {modality} as the only modality."
    return Column(f"Only {modality}", explanation, _retained("only", modality), RETENTION, (GROUP,))


def groups(shown: Sequence[Column]) -> list[tuple[str, int]]:
    """The headings over neighbouring columns, and over how many columns each stands."""
    return [(name, len(list(members))) for name, members in groupby(shown, lambda column: column.group)]


def lines(
    table: Table, shown: Sequence[Column], rows: Sequence[ResultRow], names: Mapping[ResultRow, str] | None = None
) -> list[list[str]]:
    """Headings of the columns, then the text of each row; ``names`` stand in place of method, code name and options."""

    def text(column: Column, row: ResultRow) -> str:
        return names[row] if names and column.name == "Method" else value_of(table, column, row).text

    body = [[text(column, row) for column in shown] for row in rows]
    return [[column.name for column in shown], *body]


def print_table(table: Table, format: str = "markdown", *, bold: bool = False) -> str:
    """The ranking of a table as ``markdown``, ``csv`` (numbers as numbers, unknown ones empty) or ``latex``.

    Args:
        table: The table.
        format: The format.
        bold: Whether the scores of the best row and of those tied with it are bold, where the format has that.

    Raises:
        Misuse: the format is another one.
    """
    if write := {"markdown": markdown, "latex": latex}.get(format):
        shown = columns(table)
        head, *body = lines(table, shown, table.rows)
        at = shown.index(NAMED[NAMES["weighted_f1"]])
        for row, cells in zip(table.rows, body, strict=True):
            if bold and row.ranked and table.tied(row):
                cells[at] = f"**{cells[at]}**"
        return write([head, *body], "".join(column.align for column in shown))
    if format != "csv":
        raise unknown("format", format, ("markdown", "csv", "latex"))
    return csv_of(values(table))


def csv_of(rows: Sequence[Mapping[str, float | str | None]]) -> str:
    """Rows as CSV, with all their headings; what is not known, or what a row does not have, is empty."""
    head = list(dict.fromkeys(heading for row in rows for heading in row))
    cells = [[row.get(heading) for heading in head] for row in rows]
    return csv_table([head, *(["" if value is None else str(value) for value in row] for row in cells)])


def values(table: Table) -> list[dict[str, float | str | None]]:
    """The ranking with groups, raters and temperature: for each row, heading -> number or text, None = not known."""
    found: list[dict[str, float | str | None]] = [{} for _ in table.rows]
    beside = [column for column in columns(table, PAGE) if column.group in (GROUPS, RATERS, TEMPERATURE)]
    for column in (*columns(table), *beside):
        cells = [value_of(table, column, row) for row in table.rows]
        more = dict.fromkeys(key for cell in cells for key in cell.more)
        for into, cell in zip(found, cells, strict=True):
            into[column.name] = _rounded(cell.value)
            into |= {f"{column.name}, {key}": _rounded(cell.more.get(key)) for key in more}
    return found


def _rounded(value: float | str | None) -> float | str | None:
    return round(value, 4) if isinstance(value, float) else value


def disturbances(row: ResultRow) -> Iterator[tuple[str, str, str]]:
    """Each kind of disturbance, its name, and the share of the weighted F1 that remains at each of its levels."""
    shares = row.retention.shares if row.retention else {}
    for kind, members in groupby(shares.items(), lambda item: item[0][0]):
        name, _, modality = kind.partition(" ")
        term = {"only": "with only", "missing": "at missing rate", "noise": "under noise"}.get(name, name)
        unit = " dB" if name == "noise" else ""
        pairs = (f"{level.replace('+', ' + ')}{unit}: {percent(share)}" for (_, level), share in members)
        text = ", ".join(pair.replace(" ", "\N{NO-BREAK SPACE}") for pair in pairs)
        yield kind, f"{term} on {modality}" if modality else term, text
