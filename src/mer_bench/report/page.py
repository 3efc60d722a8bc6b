"""Records -> one HTML page that needs nothing else: tables to sort and filter, pictures, provenance, pairs of methods.

A pure function of the records and the suites, so equal records give equal bytes. Needs numpy, jinja2 and matplotlib,
never torch. ``page.html`` is the template, ``page.css`` its looks, ``page.js`` what moves. A column is a line in
:data:`COLUMNS`.
"""

from __future__ import annotations

import base64
import hashlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mer_bench.errors import Misuse
from mer_bench.files import write_atomic
from mer_bench.metrics import SCORES, f1, precision, recall
from mer_bench.records import RunRecord
from mer_bench.report import plots
from mer_bench.report.columns import COLUMNS, columns, devices, disturbances, groups, signed, trained_on, worth
from mer_bench.report.formatting import settings, spread
from mer_bench.report.leaderboard import SIMULATED, ablation_lines, facts
from mer_bench.report.published import PUBLISHED, Published, by_corpus, load_published
from mer_bench.report.reproduce import commands, read_recipes
from mer_bench.report.rows import Row, in_order
from mer_bench.report.statistics import difference
from mer_bench.report.tables import Table, tables

if TYPE_CHECKING:
    from markupsafe import Markup

HERE = Path(__file__).parent


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


def _mean(row: Row) -> str:
    return f"{100 * SCORES['weighted_f1'](row.pooled).mean():.2f}"
