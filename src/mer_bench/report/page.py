"""One self-contained HTML page of all records: tables to sort and filter, plots, provenance, comparison of methods.

A pure function of the records and the suites, so equal records give equal bytes. ``page.html`` is the template,
``page.css`` its style and ``page.js`` its script; :mod:`mer_bench.report.columns` has the columns. Needs numpy, jinja2
and matplotlib, but not torch.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mer_bench.errors import Misuse
from mer_bench.external import ExternalRecord
from mer_bench.files import write_atomic
from mer_bench.metrics import f1, precision, recall
from mer_bench.modalities import modality_order
from mer_bench.records import RunRecord
from mer_bench.report import elsewhere, plots
from mer_bench.report.balance import balance_lines, balance_notes
from mer_bench.report.board import described
from mer_bench.report.cache import NOT_KEPT, Cache, open_cache
from mer_bench.report.columns import COLUMNS, PAGE, columns, disturbances, groups, trained_on, value_of
from mer_bench.report.data_size import data_size_lines, data_size_notes
from mer_bench.report.formatting import effect, spread, unescape
from mer_bench.report.leaderboard import NO_RECORDS, SIMULATED
from mer_bench.report.pairs import kept_pairs
from mer_bench.report.pictures import draw
from mer_bench.report.published import PUBLISHED, Published, by_corpus, load_published
from mer_bench.report.reproduce import commands, read_recipes
from mer_bench.report.rows import ResultRow, training_text
from mer_bench.report.table_page import NONE, OWN, Own, ablation_lines, facts, own_mark
from mer_bench.report.tables import Table, best_single, gain, tables
from mer_bench.report.transfer import transfer_lines, transfer_notes
from mer_bench.report.tuning import tuning_lines, tuning_notes
from mer_bench.trials import TrialRecord
from mer_bench.workspace import default_results, suites_folder

HERE = Path(__file__).parent


def page(
    records: Sequence[RunRecord],
    *,
    results: Path | None = None,
    suites: Path | None = None,
    published: Sequence[Published] | None = None,
    own: Own = NONE,
    published_in: Path | None = None,
    external: Sequence[ExternalRecord] = (),
    trials: Sequence[TrialRecord] = (),
    cache: Cache = NOT_KEPT,
    jobs: int = 1,
) -> str:
    """The whole page; independent of the order of ``records``.

    Args:
        records: All runs.
        results: Where the commands that reproduce a run find its record; None = the usual folder.
        suites: Folder of the suite files that commands name; None = that of the suites that have names.
        published: Numbers to quote; None = those that come with the package.
        own: Runs whose rows are marked.
        published_in: Where commands find the records of all other runs; None = in ``results`` too.
        external: Predictions made elsewhere.
        trials: Those of tunings.
        cache: Where to keep the pictures and the comparisons of methods.
        jobs: How many processes draw side by side.

    Raises:
        Misuse: jinja2 or matplotlib is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
    except ModuleNotFoundError as error:
        raise Misuse("the report needs jinja2: pip install 'mer-bench[report]'") from error
    results, recipes = results or default_results(), read_recipes(suites or suites_folder())
    numbered = list(enumerate(described(tables(records, external), trials, recipes), 1))

    def folder(record: RunRecord) -> Path:
        return results if published_in is None or record.spec.sha256 in own else published_in

    pictures, across = draw([table for _, table in numbered], cache, jobs)
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
        no_records=NO_RECORDS,
        published=by_corpus(load_published() if published is None else published),
        published_preface=PUBLISHED.replace("*", "").replace("\n", " ").strip(),
        modalities=sorted({row.reads for _, table in numbered for row in table.rows}),
        pairs={f"t{number}": kept_pairs(table, cache) for number, table in numbered},
        pictures=pictures,
        across=across,
        all_columns=[column for column in COLUMNS if PAGE in column.shown],
        columns=lambda table: columns(table, PAGE),
        runs=lambda row: sorted(row.records, key=lambda record: (record.spec.seed, record.spec.fold)),
        commands=lambda row: commands(row, recipes, folder),
        where=lambda record: record.path(folder(record)).as_posix(),
        own=own,
        own_mark=lambda row: own_mark(row, own),
        own_text=OWN.strip(),
        elsewhere=elsewhere,
        published_in=published_in,
        **{each.__name__: each for each in FUNCTIONS},
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )  # fmt: skip


def write(
    records: Sequence[RunRecord],
    target: Path,
    *,
    results: Path,
    suites: Path,
    own: Own = NONE,
    published_in: Path | None = None,
    external: Sequence[ExternalRecord] = (),
    trials: Sequence[TrialRecord] = (),
    jobs: int = 1,
) -> None:
    """Write the page of the records; what the cache beside them has is not made again."""
    write_atomic(
        target,
        page(
            records,
            results=results,
            suites=suites,
            own=own,
            published_in=published_in,
            external=external,
            trials=trials,
            cache=open_cache(results),
            jobs=jobs,
        ),
    )


def headline(table: Table) -> dict[str, str]:
    """The best method, how many are tied with it, the best single modality, and the gain of fusion over it."""
    best, single, found = table.best, best_single(table), gain(table)
    tied = sum(bool(table.tied(row)) for row in table.behind)
    return {
        "best": f"{best.name}, {100 * best.weighted_f1:.2f}" if best else "–",
        "tied": f"{tied} of {len(table.behind)}" if table.behind else "–",
        "single": f"{single.modalities[0]}, {100 * single.weighted_f1:.2f}" if single else "–",
        "gain": effect(found[2], "+").replace("-", "−") if found else "–",
    }


def by_class(table: Table, row: ResultRow) -> list[tuple[str, ...]]:
    """Class, utterances, precision, recall and F1, each the mean over seeds."""
    scores = [100 * score(row.pooled).mean(0) for score in (precision, recall, f1)]
    return [
        (table.first.classes[index], f"{count:,}", *(f"{score[index]:.1f}" for score in scores))
        for index, count in table.support.items()
    ]


def by_seed(row: ResultRow) -> list[tuple[str, ...]]:
    """Every score of every complete seed; one line, over all runs, for a row without a complete seed."""
    seeds = map(str, row.complete_seeds or ["incomplete"])
    values = np.stack([100 * scores for scores in row.scores.values()], axis=1)
    return [(seed, *(f"{score:.2f}" for score in scores)) for seed, scores in zip(seeds, values, strict=True)]


def provenance(row: ResultRow) -> Iterator[tuple[str, str]]:
    """How the records of a row were made."""
    first, spec = row.records[0], row.spec
    yield "Method", f"{spec.method}, version {spec.version}, {first.provenance}, {first.context} context"
    yield "Options", ", ".join(f"{name} = {value}" for name, value in sorted(spec.options.items())) or "the defaults"
    yield "Training", training_text(spec.training)
    if spec.tuned:
        names = ", ".join(sorted(spec.tuned.default)).replace("_", " ")
        yield "Tuned", f"each fold has chosen its {names} from {spec.tuned.trials} trials on its validation rows"
    for modality in sorted(spec.features, key=modality_order):
        digest = spec.features_sha256.get(modality, "unknown")
        yield f"Features, {modality}", f"{spec.features[modality]}, sha256 {digest}"
    software = {", ".join(f"{name} {version}" for name, version in sorted(r.versions.items())) for r in row.records}
    if row.contributed:
        yield "Run by", "contributed: the records of an accepted submission, see benchmarks/contributed"
    yield "Software", "; ".join(sorted(software - {""})) or "not recorded"
    yield "Device", trained_on(row)
    memory = "" if row.memory is None else f", peak {row.memory:,.0f} MiB"
    yield "Cost", f"{sum(r.seconds for r in row.records):,.0f} s for {len(row.records)} trainings{memory}"


def measured(row: ResultRow) -> Iterator[tuple[str, str]]:
    """What was measured of a row beside its score."""
    if found := row.test_selection:
        inflation = f"{found.inflation:+.2f}".replace("-", "−")
        yield "Best test epoch", f"{spread(found.best)} instead of {spread(found.honest)}, inflated by {inflation}"
    for _, term, text in disturbances(row):
        yield f"Retained {term}", text
    if cost := row.cost:
        one = "dialogue" if row.records[0].context == "dialogue" else "utterance"
        yield (
            "Forward pass",
            f"{cost.latency:,.2f} ms for one {one}, {cost.throughput:,.0f} utterances per second in batches of 32, "
            f"without the {cost.extractors:,} parameters of the extractors; on {' and '.join(sorted(cost.devices))}",
        )


#: functions that the template calls
FUNCTIONS = (
    unescape, value_of, groups, headline, facts, ablation_lines, balance_lines, balance_notes, data_size_lines,
    data_size_notes, transfer_lines, transfer_notes, tuning_lines, tuning_notes, by_class, by_seed, measured,
    provenance, plots.slug,
)  # fmt: skip
