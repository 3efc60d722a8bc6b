"""Records -> one HTML page that needs nothing else: tables to sort and filter, pictures, provenance, pairs of methods.

A pure function of the records and the suites, so equal records give equal bytes. Needs numpy, jinja2 and matplotlib,
never torch. ``page.html`` is the template, ``page.css`` its looks, ``page.js`` what moves. A column is a line in
:data:`COLUMNS`.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mer_bench import plots
from mer_bench.errors import Misuse
from mer_bench.files import write_atomic
from mer_bench.metrics import SCORES, f1, precision, recall
from mer_bench.ranking import MARKS, Cost, Habit, Row, Table, in_order, tables
from mer_bench.records import RunRecord, Training
from mer_bench.report import PUBLISHED, SIMULATED, Published, ablation_lines, by_corpus, facts, load_published
from mer_bench.statistics import LEVEL, Difference, difference
from mer_bench.typography import between, effect, p_value, percent, points, settings, spread

if TYPE_CHECKING:
    from markupsafe import Markup

HERE = Path(__file__).parent
AGAIN = "build/again"  #: where the commands of the page write, so that they train anew beside the committed records
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


def page(
    records: Sequence[RunRecord],
    *,
    results: Path = Path("benchmarks/results"),
    suites: Path = Path("benchmarks"),
    published: Sequence[Published] | None = None,
) -> str:
    """The whole page; independent of the order of ``records``.

    Args:
        records: All runs.
        results: Where the commands that reproduce a run find its record.
        suites: Folder of the suite files that commands name.
        published: Numbers to quote; None = those that come with the package.

    Raises:
        Misuse: jinja2 or matplotlib is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
    except ModuleNotFoundError as error:
        raise Misuse("the report needs jinja2: pip install 'mer-bench[report]'") from error
    numbered = list(enumerate(tables(records), 1))
    recipes = read_recipes(suites)
    pictures, across = draw([table for _, table in numbered])
    script = (HERE / "page.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(
        sections=[
            (heading, preface, [(number, table) for number, table in numbered if table.first.simulated == simulated])
            for heading, preface, simulated in (
                ("Real corpora", "", False),
                ("Simulated corpora", SIMULATED.replace("*", "").replace("\n", " ").strip(), True),
            )
        ],
        numbered=numbered,
        records=len(records),
        published=by_corpus(load_published() if published is None else published),
        published_preface=PUBLISHED.replace("*", "").replace("\n", " ").strip(),
        modalities=sorted({row.reads for _, table in numbered for row in table.rows}),
        pairs={f"t{number}": pairs(table) for number, table in numbered},
        pictures=pictures,
        across=across,
        all_columns=COLUMNS,
        columns=columns,
        groups=groups,
        headline=headline,
        facts=facts,
        ablations=ablation_lines,
        classes=by_class,
        scores=by_seed,
        measured=measured,
        provenance=provenance,
        runs=lambda row: sorted(row.records, key=lambda record: (record.spec.seed, record.spec.fold)),
        commands=lambda row: commands(row, recipes, results),
        where=lambda record: record.spec.path(results).as_posix(),
        slug=plots.slug,
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )  # fmt: skip


def write(records: Sequence[RunRecord], target: Path, *, results: Path, suites: Path) -> None:
    """Write the page of the records."""
    write_atomic(target, page(records, results=results, suites=suites))


# What the page says of a table


def headline(table: Table) -> dict[str, str]:
    """The best method, how many are tied with it, the best single modality, and what fusion gains over it."""
    best, single = table.best, table.single
    tied = sum(table.tied(row) for row in table.behind)
    return {
        "best": f"{best.label}, {_mean(best)}" if best else "–",
        "tied": f"{tied} of {len(table.behind)}" if table.behind else "–",
        "single": f"{single.modalities[0]}, {_mean(single)}" if single else "–",
        "gain": signed(table.gain[2]) if table.gain else "–",
    }


def pairs(table: Table) -> dict[str, Any]:
    """What the compare view needs: F1 by class of each row, and the paired difference of each two rows.

    Differences are [effect, low, high, p] in points, the row less every later one, in the order of the rows; None where
    one of the two has no complete seed.
    """
    present = table.present
    known = [table.evidence.get(row) for row in table.rows]
    found = []
    for place, a in enumerate(known):
        for b in known[place + 1 :]:
            one = difference(a, b) if a and b and np.array_equal(a.support, b.support) else None
            found.append(one and [round(100 * part, 3) for part in (one.effect, one.low, one.high)] + [round(one.p, 4)])
    return {
        "classes": [table.first.classes[index] for index in present],
        "support": [int(table.support[index]) for index in present],
        "f1": [[round(100 * float(score), 2) for score in f1(row.pooled).mean(0)[present]] for row in table.rows],
        "scores": [_mean(row) for row in table.rows],
        "names": [f"{row.label} ({row.reads})" for row in table.rows],
        "methods": [row.method for row in table.rows],
        "dataset": table.first.spec.dataset,
        "pairs": found,
    }


# What the page says of a row


def by_class(table: Table, row: Row) -> list[tuple[str, str, str, str, str]]:
    """Class, utterances, precision, recall and F1, means over seeds."""
    scores = [100 * score(row.pooled).mean(0) for score in (precision, recall, f1)]
    return [
        (name, f"{count:,}", f"{a:.1f}", f"{b:.1f}", f"{c:.1f}")
        for name, count, a, b, c in zip(table.first.classes, table.support, *scores, strict=True)
        if count
    ]


def by_seed(table: Table, row: Row) -> list[tuple[str, ...]]:
    """Every score of every complete seed; of an incomplete row one line, of what exists."""
    seeds: Sequence[object] = list(table.complete_seeds(row)) or ["incomplete"]
    values = [100 * score(row.pooled) for score in SCORES.values()]
    return [(str(seed), *(f"{value[place]:.2f}" for value in values)) for place, seed in enumerate(seeds)]


def provenance(row: Row) -> Iterator[tuple[str, str]]:
    """How a row's records came about."""
    first = row.records[0]
    spec = first.spec
    yield "Method", f"{spec.method}, version {spec.version}, {first.provenance}, {first.context} context"
    yield "Options", ", ".join(f"{name} = {value}" for name, value in sorted(spec.options.items())) or "the defaults"
    yield "Training", settings(asdict(row.training))
    for modality in in_order(spec.features):
        yield (
            f"Features, {modality}",
            f"{spec.features[modality]}, sha256 {spec.features_sha256.get(modality, 'unknown')}",
        )
    software = {", ".join(f"{name} {version}" for name, version in sorted(r.versions.items())) for r in row.records}
    yield "Software", "; ".join(sorted(software - {""})) or "not recorded"
    yield "Device", trained_on(row)
    memory = "" if row.memory is None else f", peak {row.memory:,.0f} MiB"
    yield "Cost", f"{sum(r.seconds for r in row.records):,.0f} s for {len(row.records)} trainings{memory}"


def trained_on(row: Row) -> str:
    """The devices of a row's trainings."""
    return ", ".join(sorted({record.device for record in row.records}))


def measured(table: Table, row: Row) -> Iterator[tuple[str, str]]:
    """What was measured of a row beside its score."""
    if row in table.literature:
        habit = table.literature[row]
        yield "Best test epoch", f"{spread(habit.best)} instead of {spread(habit.honest)}, inflated by {worth(habit)}"
    for _, term, text in disturbances(table, row):
        yield f"Kept {term}", text
    if row in table.efficiency:
        cost = table.efficiency[row]
        one = "dialogue" if row.records[0].context == "dialogue" else "utterance"
        yield (
            "Forward pass",
            f"{cost.latency:,.2f} ms for one {one}, {cost.throughput:,.0f} utterances a second in batches of 32, "
            f"without the extractors' {cost.extractors:,} parameters; on {devices(cost)}",
        )


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


@dataclass(frozen=True)
class Recipe:
    """What a suite file says of one method in one of its tables."""

    file: Path
    datasets: tuple[str, ...]
    label_set: str
    protocol: str
    features: Mapping[str, str]
    method: str
    common: Mapping[str, Any]  #: options of which each method takes those that it has
    options: Mapping[str, Any]
    training: Training

    def gives(self, record: RunRecord) -> bool:
        """Whether the suite, run today, trains what the record holds."""
        spec = record.spec
        return (
            spec.dataset in self.datasets
            and (spec.label_set, spec.protocol, spec.method) == (self.label_set, self.protocol, self.method)
            and spec.features.items() <= self.features.items()
            and self.options.items() <= spec.options.items() <= {**self.common, **self.options}.items()
            and spec.training == self.training
        )


def read_recipes(folder: Path) -> list[Recipe]:
    """What the suites in ``folder`` train, read without torch; a file that is no suite is passed over."""
    found = []
    for file in sorted(folder.glob("*.toml")):
        try:
            suite = tomllib.loads(file.read_text(encoding="utf-8"))
            shared = replace(Training(), **suite.get("training", {}))
            datasets = suite["dataset"] if isinstance(suite["dataset"], list) else [suite["dataset"]]
            for table in suite["table"]:
                usual = replace(shared, **table.get("training", {}))
                for entry in table["methods"]:
                    method: dict[str, Any] = {"name": entry} if isinstance(entry, str) else entry
                    found.append(Recipe(
                        file, tuple(datasets), suite["label_set"], suite["protocol"], table["features"], method["name"],
                        table.get("options", {}), method.get("options", {}),
                        replace(usual, **method.get("training", {})),
                    ))  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return found


def commands(row: Row, recipes: Sequence[Recipe], results: Path) -> Iterator[tuple[str, str]]:
    """Command lines that train a row again: all of it where a suite holds it, and one of its trainings."""
    first = min(row.records, key=lambda record: (record.spec.seed, record.spec.fold))
    recipe = next((each for each in recipes if all(each.gives(record) for record in row.records)), None)
    if recipe:
        seeds = " ".join(str(seed) for seed in sorted({record.spec.seed for record in row.records}))
        words = ["mer-bench", "bench", recipe.file.as_posix(), "--methods", row.method, "--seeds", seeds]
        words += ["--results", AGAIN] if first.simulated else ["--corpus", "real", "--results", AGAIN]
        yield "The row", shlex.join(words)
    spec = first.spec.path(results).as_posix()
    yield "One training of it", shlex.join(["mer-bench", "run", "--spec", spec, "--results", AGAIN])


# Pictures


def draw(found: Sequence[Table]) -> tuple[dict[str, list[tuple[str, Markup]]], list[tuple[str, Markup]]]:
    """The pictures of every table by its slug, and those that belong to no single table; each with its caption."""
    with tempfile.TemporaryDirectory() as folder:
        files = {path.stem: path for path in plots.draw(found, Path(folder))}
        drawn = {name: path.read_text(encoding="utf-8") for name, path in files.items()}
    placed: dict[str, list[tuple[str, Markup]]] = {}
    for name in (plots.slug(table) for table in found):
        placed[name] = []
        for kind, picture in plots.PLOTS.items():
            if f"{name}-{kind}" in drawn:
                caption = (picture.__doc__ or kind).splitlines()[0]
                placed[name].append((caption, inline(drawn.pop(f"{name}-{kind}"), f"{name}-{kind}", caption)))
    return placed, [(name, inline(svg, name, name)) for name, svg in sorted(drawn.items())]


def inline(svg: str, name: str, caption: str) -> Markup:
    """An SVG file as an element of the page: its ids made unique, without header, comments, metadata and styles."""
    from markupsafe import Markup, escape

    svg = re.sub(
        r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL
    )
    prefix = hashlib.sha256(name.encode()).hexdigest()[:8]
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>p{prefix}-", svg)
    svg = re.sub(r"\n\s*", "\n", svg)
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(caption)}"', 1))


# Typography


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


def _mean(row: Row) -> str:
    return f"{100 * SCORES['weighted_f1'](row.pooled).mean():.2f}"
