"""The leaderboard as Markdown, and parts of it: a pure function of the records, so equal records give equal bytes.

:mod:`mer_bench.report.tables` says which rows a table has, :mod:`mer_bench.report.columns` what is printed of them.
Needs numpy, but not torch.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from mer_bench.calibration import BLOCKS
from mer_bench.errors import unknown
from mer_bench.exposure import KINDS
from mer_bench.external import ExternalRecord, load_external
from mer_bench.methods import titles
from mer_bench.metrics import BINS, SMALLEST, f1
from mer_bench.records import (
    ContributedRecord,
    Protocol,
    RunRecord,
    Training,
    load_records,
    submissions,
    without_garbage_collection,
)
from mer_bench.report import ablation, elsewhere
from mer_bench.report.across import Across, Ranked, across, ranked
from mer_bench.report.archive import Found, by_table, load_brief, load_entries, unpack_all
from mer_bench.report.balance import balance_lines, balance_notes
from mer_bench.report.cache import Cache, hash_of, open_cache
from mer_bench.report.chosen import committed_recipes, with_settings
from mer_bench.report.columns import (
    COST,
    GROUP,
    GROUPS,
    NAMED,
    RATERS,
    RETENTION,
    TEMPERATURE,
    TEST_SELECTION,
    columns,
    lines,
    seeds,
    value_of,
)
from mer_bench.report.data_size import data_size_lines, data_size_notes
from mer_bench.report.formatting import between, effect, escape, markdown, p_value, plain, points, settings, value
from mer_bench.report.groups import AGREEMENT, LEAST
from mer_bench.report.measured import measured_of, overlap_notes, rater_note, rater_score
from mer_bench.report.power import resolution
from mer_bench.report.published import PUBLISHED, Published, by_corpus, load_published
from mer_bench.report.reproduce import Recipe
from mer_bench.report.rows import OUTDATED, ResultRow, few_seeds, training_text
from mer_bench.report.statistics import LEAST_SEEDS, RESAMPLES, significant
from mer_bench.report.tables import (
    FAR,
    Table,
    best_single,
    by_splits,
    gain,
    shown_beside,
    splits_of,
    tables,
    tables_of,
    without_table,
)
from mer_bench.report.transfer import transfer_lines, transfer_notes
from mer_bench.report.tuning import tuning_lines, tuning_notes, with_trials
from mer_bench.submission import check_submission
from mer_bench.trials import TrialRecord, load_trials
from mer_bench.workspace import published_results

HEAD = """\
# Leaderboard

Fusion methods for multimodal emotion recognition, trained on identical frozen features. Generated from the
records by `mer-bench leaderboard`; edits made by hand are lost.

How to read it:

- The primary score is **weighted F1**. UAR is the unweighted average recall. Scores are percentages, mean ± standard
  deviation (n - 1) over seeds; one seed alone has no deviation. In cross-validation the confusion matrices of a seed
  are pooled over its folds, then scored.
- ≈ marks rows that are not shown to be behind the best. Of a row with fewer than three seeds neither is said, as its
  luck cannot be told from its quality. *Ranks* hold the true rank of a row with a confidence of 95 %.
- The epoch is chosen on validation, never on test; a protocol without validation says so under its table.
- "2/3 seeds" means that other rows of the table have three. A seed counts once all its folds have been run; a row
  without such a seed is unranked, and its *italic* scores are pooled over the runs that exist.
- A method has the name of its paper, followed by its `code name` and the options that are not its defaults. † marks a
  reconstruction: the paper does not determine the method. ° marks a baseline.
- The rows that fusion has to beat have no rank: one modality alone, the largest class (`majority`), and a linear model
  of the functionals that most methods read (`linear`): mean, deviation, change and course of each feature.
"""

NO_RECORDS = "There are no records yet: `mer-bench bench simulated` makes some, on a simulated corpus.\n"

LEADING = 10  #: rows whose groups are shown
RATED = (
    "Probabilities against the raters' distribution: one vote per rater, shared by the categories that were named; "
    "categories outside of the classes are left out, and so are utterances that have no others. *Cross-entropy* and "
    "*JS* (Jensen-Shannon) *divergence* in nats with their 95 % intervals. Weighted F1 by how many raters named the "
    "utterance's class: all, most (more than half) or few. Never ranked."
)

OWN = " (own)"  #: mark of a row with runs of one's own on a page that also has the published ones
WITH_PUBLISHED = (
    f"- Rows marked{OWN} contain runs from your folder of records; all other rows are the published ones.\n"
)

SIMULATED = """\
**These corpora are generated by this project from a seed. They show what a method can exploit in data of known
structure; they are never evidence about real corpora.**
"""


Own = frozenset[str]  #: sha256 of the specs of one's own runs, on a page that also has the published ones
NONE = Own()


@dataclass(frozen=True)
class Loaded:
    """What a page is made of."""

    records: list[RunRecord]
    external: list[ExternalRecord]
    problems: list[str]  #: one sentence per unreadable file, and for predictions that no table shows
    own: Own = NONE  #: which records are own, with the published ones
    trials: Sequence[TrialRecord] = ()


def load(results: Path, *, with_published: bool = False, brief: bool = False) -> Loaded:
    """The records below ``results``, and beside them the published ones if these are wanted.

    ``brief`` ones are without what no page shows, and those that have not changed since the last call are not read
    again; see :mod:`mer_bench.report.archive`.
    """
    if not with_published:
        return _load(results, brief=brief)
    with published_results() as folder:
        if folder.resolve() == results.resolve():
            return _load(results, brief=brief)
        found = _load(results, folder, brief=brief)
    return replace(found, own=Own(one.spec.sha256 for one in found.records if one.spec.path(results).is_file()))


def _load(*folders: Path, brief: bool) -> Loaded:
    records, problems = load_brief(folders, open_cache(folders[0])) if brief else load_records(*folders)
    external, more = load_external(*folders)
    shown = {id(each) for each in shown_beside(tables(records, external))} if external else set()
    lost = without_table(each.spec for each in external if id(each) not in shown)
    trials, unreadable = load_trials(folders)
    return Loaded(records, external, [*problems, *more, *lost, *unreadable], trials=trials)


@dataclass(frozen=True)
class Board:
    """A page, and one sentence per file that it leaves out, and for predictions that no table shows."""

    text: str
    problems: list[str]
    terminal: dict[str, str]  #: corpus -> its tables, see :func:`terminal`


def read_board(results: Path, *, with_published: bool = False) -> Board:
    """The page of the records below ``results``, as :func:`load` and :func:`leaderboard` make it.

    Of records that have not changed since the last call nothing is computed again; see :mod:`mer_bench.report.cache`.
    """
    if not with_published:
        return _read_board(results)
    with published_results() as folder:
        return _read_board(results) if folder.resolve() == results.resolve() else _read_board(results, folder)


@dataclass(frozen=True)
class Part:
    """The sections of one corpus, label set and protocol as the cache keeps them."""

    made_from: bytes  #: hash
    sections: tuple[Section, ...]
    shown: tuple[int, ...]  #: the external records that stand beside tables, by their position


def _read_board(*folders: Path) -> Board:
    cache = open_cache(folders[0])
    found, problems = load_entries(folders, cache)
    external, more = load_external(*folders)
    trials, unreadable = load_trials(folders)
    names, beside, tried = titles(each.entry.method for each in found), by_splits(external), by_splits(trials)
    recipes = committed_recipes()
    own = NONE
    if len(folders) > 1:
        own = Own(each.entry.run for each in found if (folders[0] / each.entry.path).is_file())
    with without_garbage_collection():  # a table makes no cycle either
        parts = {
            splits: _read_part(
                f"part {len(folders)} {splits}",
                group,
                beside.get(splits, []),
                names,
                own,
                cache,
                tried.get(splits, []),
                [each for each in recipes if splits[1] in each[0].datasets],
            )
            for splits, group in sorted(by_table(found).items())
        }
    shown = {id(beside[splits][position]) for splits, part in parts.items() for position in part.shown}
    lost = without_table(each.spec for each in external if id(each) not in shown)
    sections = [each for part in parts.values() for each in part.sections]
    return make_board(sections, [*problems, *more, *lost, *unreadable], own=bool(own))


def make_board(sections: Sequence[Section], problems: list[str], *, own: bool = False) -> Board:
    """The page of these sections, and the tables of each corpus for the terminal."""
    tables_of_corpus: dict[str, list[str]] = defaultdict(list)
    for each in sections:
        tables_of_corpus[each.ranked.dataset].append(each.terminal)
    printed = {dataset: "\n".join(parts) for dataset, parts in tables_of_corpus.items()}
    return Board(join(sections, own=own), problems, printed)


def _read_part(
    name: str,
    found: Sequence[Found],
    external: Sequence[ExternalRecord],
    names: Mapping[str, str],
    own: Own,
    cache: Cache,
    trials: Sequence[TrialRecord],
    recipes: Sequence[Recipe],
) -> Part:
    """The sections of entries that share their tables: those in the cache, if they were made from the same."""
    facts = sorted(
        (each.entry.digest, each.submission, names[each.entry.method], str(each.entry.run in own), each.entry.path)
        for each in found
    )
    suites = {suite.file: suite for suite, _ in recipes}.values()
    more = (*map(repr, external), *map(repr, trials), *map(repr, suites))
    made_from = hash_of(*(part for each in facts for part in each), *more)
    part = cache.get(name, Part)
    if part is None or part.made_from != made_from:
        sections, shown = [], set()
        for table in tables_of(unpack_all(found, cache), names, external):
            sections.append(section(with_settings(with_trials(table, trials), recipes), own))
            shown |= {id(each) for each in shown_beside([table])}
        positions = tuple(position for position, each in enumerate(external) if id(each) in shown)
        part = Part(made_from, tuple(sections), positions)
        cache.put(name, part)
    return part


def leaderboard(
    records: Sequence[RunRecord],
    published: Sequence[Published] | None = None,
    own: Own = NONE,
    external: Sequence[ExternalRecord] = (),
    trials: Sequence[TrialRecord] = (),
) -> str:
    """The whole page as Markdown; independent of the order of ``records``.

    Args:
        records: All runs.
        published: Numbers to quote; None = those that come with the package.
        own: Runs whose rows are marked.
        external: Predictions made elsewhere.
        trials: Those of tunings.
    """
    found = described(tables(records, external), trials, committed_recipes())
    return join([section(table, own) for table in found], published, own=bool(own))


def described(found: Iterable[Table], trials: Sequence[TrialRecord], recipes: Sequence[Recipe]) -> Iterator[Table]:
    """The tables with the trials of their rows, and with what the suites say of their settings."""
    tried = by_splits(trials)
    for table in found:
        yield with_settings(with_trials(table, tried.get(splits_of(table.first), [])), recipes)


@dataclass(frozen=True)
class Section:
    """What the page shows of one table, which can go when this is made."""

    title: str
    headline: tuple[str, ...]  #: cells of its row in the first table of the page, without its number
    text: str
    ranked: Ranked
    terminal: str


def section(table: Table, own: Own = NONE) -> Section:
    """The part of the page that one table makes."""
    spec, best, single = table.first.spec, table.best, best_single(table)
    first = (best.name_with_code, best.score("weighted_f1")) if best else ("–", "–")
    alone = f"{single.score('weighted_f1')} ({single.modalities[0]})" if single else "–"
    cells = (spec.dataset, spec.label_set, spec.protocol, table.track, *first, alone)
    return Section(table.title, cells, _section(table, own), ranked(table), terminal(table, own))


def join(sections: Sequence[Section], published: Sequence[Published] | None = None, *, own: bool = False) -> str:
    """The page of these sections; ``own`` says whether rows of one's own are marked."""
    numbered = list(enumerate(sections, 1))
    parts = [HEAD + WITH_PUBLISHED * own] if sections else [HEAD, NO_RECORDS]
    for heading, preface, simulated in (("Real corpora", "", False), ("Simulated corpora", SIMULATED, True)):
        chosen = [(number, each) for number, each in numbered if each.ranked.simulated == simulated]
        if chosen:
            parts += [f"## {heading}\n", preface, _headline(chosen)]
            parts += [f"### {number}. {each.title}\n\n{each.text}" for number, each in chosen]
            parts.append(_over_tables([each.ranked for _, each in chosen]))
    parts.append(_published(load_published() if published is None else published))
    return "\n".join(part for part in parts if part)


def terminal(table: Table, own: Own = NONE) -> str:
    """A table as aligned plain text."""
    shown = [NAMED[name] for name in ("Modalities", "Weighted F1", "Accuracy", "Seeds")]
    rows = (*table.rows, *table.ablations, *table.strategies, *table.reduced)
    body = [
        [row.title, row.label + own_mark(row, own), *(value_of(table, column, row).text for column in shown)]
        for row in rows
    ]
    head = ["method", "name", "modalities", "weighted F1", "accuracy", "seeds"]
    heading = table.title + (" (simulated)" if table.first.simulated else "")
    return f"{heading}\n{plain([head, *body], '<<<>><')}\n"


def excerpt(records: Sequence[RunRecord], heading: str, rows: int = 10) -> str:
    """The first ``rows`` of the table with this heading as Markdown, with the main scores alone.

    Raises:
        Misuse: there is no such table.
    """
    found = {table.title: table for table in reversed(tables(records))}
    if heading not in found:
        raise unknown("table", heading, [table.title for table in tables(records)])
    table = found[heading]
    names = ", ".join(name for _, name, _ in table.sets)
    total = f"; the first {rows} of {len(table.rows)} rows" if len(table.rows) > rows else ""
    shown = [NAMED[name] for name in ("Method", "Modalities", "Weighted F1", "Accuracy", "Parameters", "Seeds")]
    return f"**{heading}** ({names}{total})\n\n{markdown(lines(table, shown, table.rows[:rows]), '<<>>><')}"


def check(records_root: Path, target: Path, *, with_published: bool = False) -> str | None:
    """One sentence that says why ``target`` is not the leaderboard of the records, or None if it is.

    Of the published records the accepted submissions are checked as well.
    """
    found = read_board(records_root, with_published=with_published)
    submitted = _submitted(records_root, with_published)
    if problem := next((each for part in (found.problems, submitted) for each in part), None):
        return problem
    if not target.is_file():
        return f"{target} does not exist; mer-bench leaderboard writes it"
    expected, written = found.text.encode(), target.read_bytes()
    if expected == written:
        return None
    same = [new == old for new, old in zip(expected.split(b"\n"), written.split(b"\n"), strict=False)]
    line = 1 + (same.index(False) if False in same else len(same))
    return f"{target} is not what the records say, from line {line} on; mer-bench leaderboard rewrites it"


def _submitted(results: Path, with_published: bool) -> Iterator[str]:
    """The problems of accepted submissions."""
    if folders := submissions(results):
        records = load(results, with_published=with_published).records
        maintained = [record for record in records if not isinstance(record, ContributedRecord)]
        for folder in folders:
            yield from check_submission(folder, maintained).problems


def _over_tables(chosen: Sequence[Ranked]) -> str:
    """Which methods are better over several tables; empty where no track has two tables."""
    notes = [_ranks(part) for part in across(chosen) if len(part.tables) > 1]
    if not notes:
        return ""
    notes.append(
        f"A block is a table that ranks at least three methods with {LEAST_SEEDS} seeds; the methods are those that "
        "all of these tables rank so. With few tables the test has little power. Tables of one corpus share its test "
        "utterances, so their p is too small."
    )
    return f"### Over several tables\n\n{_bullets(notes)}"


def _ranks(part: Across) -> str:
    """Result of the test over tables, in one or two sentences."""
    corpora, test = len({table.dataset for table in part.tables}), part.test
    over = f"over {len(part.tables)} tables of {f'{corpora} corpora' if corpora > 1 else 'one corpus'}"
    start = f"{part.track.capitalize()} track, {len(part.methods)} methods {over}:"
    if test is None:
        return f"{start} a test over tables needs three of each."
    ranks = ", ".join(f"{escape(name)} {rank:.2f}" for name, rank in zip(part.methods, test.ranks, strict=True))
    return (
        f"{start} Friedman chi² = {test.chi2:.2f}, df = {test.df}, {p_value(test.p)}; critical difference of mean "
        f"ranks (Nemenyi, 5 %) {test.critical:.2f}. Mean ranks: {ranks}."
    )


def _headline(chosen: Sequence[tuple[int, Section]]) -> str:
    """The best method of every table beside its best single modality."""
    rows = [(str(number), *each.headline) for number, each in chosen]
    header = ("Table", "Corpus", "Labels", "Protocol", "Track", "Best method", "Weighted F1", "Best single modality")
    return markdown([header, *rows], "><<<<<><")


def own_mark(row: ResultRow, own: Own) -> str:
    """The mark of a row with runs of one's own, on a page that also has the published ones."""
    return OWN * any(record.spec.sha256 in own for record in row.records)


def _section(table: Table, own: Own) -> str:
    """One table, its scores by class, its notes, and what was measured beside the score."""
    usual = _usual_training(table)
    notes = {row: _difference(row.spec.training, usual) for row in table.rows}
    footnotes = list(dict.fromkeys(note for note in notes.values() if note))
    marks = {row: own_mark(row, own) + _superscript(footnotes, note) for row, note in notes.items()}
    shown = columns(table)
    scores = lines(table, shown, table.rows, marks)
    present = list(table.support)
    names = lines(table, [NAMED["Method"], NAMED["Modalities"]], table.rows, marks)
    by_class = [
        (*name, *map(points, f1(row.pooled).mean(0)[present])) for name, row in zip(names[1:], table.rows, strict=True)
    ]
    classes = ("F1 by class", "Modalities", *(escape(table.first.classes[index]) for index in present))
    total = ("*utterances*", "", *(f"{count:,}" for count in table.support.values()))
    parts = [
        markdown(scores, "".join(column.align for column in shown)),
        markdown([classes, *by_class, total], "<<" + ">" * len(present)),
        markdown(ablations, "<<>>><") if (ablations := ablation_lines(table)) else "",
        markdown(balanced, "<<" + ">" * (len(balanced[0]) - 3) + "<") if (balanced := balance_lines(table)) else "",
        markdown(sizes, "<<" + ">" * (len(sizes[0]) - 3) + "<") if (sizes := data_size_lines(table)) else "",
        markdown(tuned, "<<<>>>>>" + ">" * (len(tuned[0]) - 8)) if (tuned := tuning_lines(table)) else "",
        _bullets(_notes(table), footnotes),
        *_groups(table),
        *_measured(table),
        *_across_corpora(table),
        *_external(table),
    ]
    return "\n".join(part for part in parts if part)


def _measured(table: Table) -> Iterator[str]:
    """The columns of each group for the rows for which they were measured, and a note."""
    selections = {row: row.test_selection for row in table.rows if row.test_selection}
    if selections:
        inflation = [found.inflation for found in selections.values()]
        yield _group(table, TEST_SELECTION, list(selections)) + (
            "- *Optimistic*, never ranked: the same trainings, each scored at the epoch that is best on the test set, "
            f"as many papers do. This choice adds {min(inflation):.1f} to {max(inflation):.1f} points, on average "
            f"{np.mean(inflation):.1f}.\n"
        )
    if retained := [row for row in table.rows if row.retention]:
        yield _group(table, RETENTION, retained) + (
            "- Share of the weighted F1 that remains on the test set, without retraining: with one modality *only*; "
            "with each modality of each utterance *missing* at random at that rate, but never all; with Gaussian "
            "*noise* on all standardised features at that signal-to-noise ratio. The records contain more conditions.\n"
        )
    costs = {row: row.cost for row in table.rows if row.cost}
    if costs:
        devices = sorted(frozenset[str]().union(*(cost.devices for cost in costs.values())))
        one = "utterance" if table.track == "utterance" else "dialogue (of one utterance for rows that read these)"
        yield _group(table, COST, list(costs)) + (
            f"- Never ranked. Forward pass without extractors: operations per utterance; latency of one {one}; "
            "throughput on a batch of 32 utterances (or of the fewest whole dialogues that have as many); training "
            f"time and peak memory of a run (– where it is not known). Medians, on {escape(' and '.join(devices))}.\n"
        )


def _groups(table: Table) -> Iterator[str]:
    """Groups of test utterances, raters and temperature, for the rows that have them, each with a note."""
    if grouped := _leading(table, [row for row in table.rows if set(row.groups) - {AGREEMENT}]):
        yield _group(table, GROUPS, grouped) + (
            f"- Weighted F1 of groups of test utterances, never ranked, of the {LEADING} best rows and the best single "
            "modality; the HTML page and the CSV of `mer-bench table` have all rows. *Gap*: weighted F1 of all other "
            "utterances less that of the worst group, with its 95 % interval (bootstrap over clusters and seeds; none "
            f"where either is in fewer than {LEAST} clusters). It is the worst group of these data, which the interval "
            "does not pay for: with many groups some gap is to be expected. Classes are not equally frequent in all "
            "groups, which moves weighted F1 as well.\n"
        )
    if rated := _raters(table):
        yield rated
    if fitted := [row for row in table.rows if row.temperature]:
        yield _group(table, TEMPERATURE, fitted) + (
            "- Never ranked. Scores of the probabilities with their 95 % intervals, the temperature by which logits "
            "are divided so that validation is most likely, and the scores after it. The interval of ECE resamples at "
            f"most {BLOCKS} blocks of neighbouring clusters per fold, and is reflected at the score, as resampling "
            "adds to it.\n"
        )


def _raters(table: Table) -> str:
    """Scores against raters, below the score of one rater; empty where nothing is known of raters."""
    rated, known = [row for row in table.rows if row.soft_scores], measured_of(table)
    one = known.rater if known else None
    if not rated and one is None:
        return ""
    short = [NAMED[name] for name in ("Method", "Modalities", "Weighted F1")]
    shown = columns(table, GROUP, RATERS) if rated else short
    head, *body = lines(table, shown, rated)
    if one:
        cells = {"Method": "*One rater*", "Like one rater" if rated else "Weighted F1": rater_score(one)}
        body.insert(0, [cells.get(column.name, "–") for column in shown])
    notes = [*([rater_note(one, compared=bool(rated))] if one else []), *([RATED] if rated else [])]
    return markdown([[RATERS, *head[1:]], *body], "".join(column.align for column in shown)) + "\n" + _bullets(notes)


def _leading(table: Table, rows: Sequence[ResultRow]) -> list[ResultRow]:
    """Of these rows the best ones, and the best single modality."""
    best = [row for row in rows if row.ranked][:LEADING]
    return [row for row in rows if row in best or row is best_single(table)]


def _across_corpora(table: Table) -> Iterator[str]:
    """The rows on the test utterances of other corpora."""
    if found := transfer_lines(table):
        yield markdown(found, "<<<" + ">" * (len(found[0]) - 4) + "<")
        yield _bullets(transfer_notes(table))


def _external(table: Table) -> Iterator[str]:
    """Predictions made elsewhere, in a block of their own."""
    if found := elsewhere.lines(table):
        yield f"#### {elsewhere.HEADING}\n\n{elsewhere.PREFACE}\n"
        yield markdown(found, elsewhere.align(found[0]))
        yield _bullets(elsewhere.notes(table))


def _group(table: Table, group: str, rows: Sequence[ResultRow]) -> str:
    shown = columns(table, GROUP, group)
    head, *body = lines(table, shown, rows)
    return markdown([[group, *map(escape, head[1:])], *body], "".join(column.align for column in shown)) + "\n"


def _notes(table: Table) -> Iterator[str]:
    """The notes under a table."""
    yield from facts(table)
    if found := gain(table):
        best, single, points_gained = found
        yield (
            f"{escape(best.name)} gains {points(points_gained.effect)} points of weighted F1 (95 % interval "
            f"{between(points_gained.low, points_gained.high)}) over the best single modality, "
            f"{escape(f'{single.modalities[0]} ({single.title})')}"
            + (f"; with {few}, this holds for these trainings alone." if (few := few_seeds(best, single)) else ".")
        )
    if table.ablations:
        yield (
            "Ablations take a part out of a method and are never ranked; ≈ marks those not shown to differ from the "
            "whole (paired, Holm-corrected over the method's ablations)."
        )
    yield from balance_notes(table)
    yield from data_size_notes(table)
    yield from tuning_notes(table)
    if table.waiting:
        yield (
            f"{table.waiting} runs of another version of their method wait to be made again. Rows of such runs are "
            f"marked{OUTDATED} and have no rank."
        )
    every = (*table.rows, *table.ablations, *table.strategies, *table.reduced)
    if any(row.records[-1].provenance == "own" for row in every):
        yield "◇ marks methods that are not part of mer_bench; their records hold the hash of their source."
    if any(row.contributed for row in every):
        yield "§ marks contributed rows, whose records others submitted; all other rows were run by the maintainers."
    if NAMED["Fusion"] in columns(table):
        yield "*Fusion* counts the parameters outside the unimodal encoders; – where they were not counted."
    if NAMED["NLL"] in columns(table):
        yield (
            "Probabilities, the smaller the better and never ranked: negative log-likelihood (*NLL*, in nats; smaller "
            f"probabilities count as {SMALLEST:.2g}), *Brier* score (summed over classes), expected calibration error "
            f"(*ECE*, {BINS} bins). Means over seeds, each pooled over its folds."
        )
    if table.track == "dialogue":
        yield "Methods read whole dialogues and their batch size counts dialogues; reference rows read utterances."


def facts(table: Table) -> Iterator[str]:
    """Where the numbers of a table come from: protocol, counts, features, training and method of the intervals."""
    protocol = table.protocol
    if protocol:
        yield f"Protocol `{table.first.spec.protocol}`: {escape(protocol.text)}"
    counts = []
    for split in ("train", "validation", "test"):
        known = {record.rows.get(split, 0) for record in table.records}
        counts.append(f"{split} " + "–".join(f"{count:,}" for count in sorted({min(known), max(known)})))
    tested = f"{sum(table.support.values()):,}"
    folds = table.rows[0].folds
    total = f" per fold; {tested} tested in all" if folds > 1 else ""
    yield f"Utterances: {', '.join(counts)}{total}."
    if folds > 1 and any(record.rows.get("validation") for record in table.records):
        yield (
            "What validates one fold is tested in another: a setting that all folds share and that was chosen on the "
            "validation parts of several of them has seen test utterances. The suite says what was chosen on what."
        )
    yield from overlap_notes(table)
    for modality, features, digest in table.sets:
        made = next(record.features[modality] for record in table.records if modality in record.features)
        origin = escape(", ".join(filter(None, (made.extractor, made.revision, made.layer))))
        size = f"{made.dim} columns, {made.parameters:,} frozen parameters"
        yield f"Features `{features}` ({modality}): {origin or 'extractor unknown'}; {size}; sha256 `{digest[:12]}`."
    if not table.first.simulated:
        kinds = [
            f"{modality}: {KINDS[each.kind]} ({escape(each.source)})" for modality, each in table.exposures.items()
        ]
        yield f"What the extractors were trained on, as far as is known: {'; '.join(kinds)}."
    if table.saw_labels:
        yield "An extractor saw labels of this corpus: the table is ranked beside no other, and in no claim."
    if table.attainable:
        best = "; ".join(
            f"{part.replace('+', ' + ')} {points(each['weighted_f1'])} ({points(each['accuracy'])})"
            for part, each in table.attainable.items()
        )
        yield f"Best possible weighted F1 (accuracy) in expectation: {best}."
    if table.ideal is not None:
        yield (
            "Attained = (accuracy - accuracy of the majority row) / (accuracy of an ideal observer of all modalities "
            "on the same test utterances - accuracy of the majority row), in percent, with its 95 % interval; the "
            f"ideal observer has an accuracy of {points(table.ideal.sum() / sum(table.support.values()))} here."
        )
    yield f"Training: {training_text(_usual_training(table))}."
    yield from table.settings
    if table.evidence:
        clusters = protocol.clusters if protocol else Protocol.clusters
        several = any(row.complete > 1 for row in table.evidence)
        resampled = f"{clusters} and seeds" if several else f"{clusters}, but not over seeds, as there is only one"
        yield f"Intervals and differences: bootstrap over {resampled}; {RESAMPLES:,} resamples." + _said(table)
    if sentence := resolution(table):
        yield sentence
    if table.far_above:
        yield _far_above(table)


def _said(table: Table) -> str:
    """Sentences about ties and ranks, and where nothing is said of them."""
    few = [row for row in table.evidence if row.ranked and few_seeds(row)]
    said = " ≈ marks rows that are tied with the best (Holm-corrected p of 0.05 or more)." if table.behind else ""
    if table.rank_intervals:
        said += " *Ranks*: 95 % interval of the rank, from paired tests against each other row, Holm-corrected."
    if few and few[0] is table.best:
        best = f"the best row, {escape(few[0].name)}, has {few_seeds(few[0])}"
        return f"{said} No row is said to be behind the best or tied with it: {best}."
    if few:
        said += f" With fewer than {LEAST_SEEDS} seeds no row is said to be behind the best or tied with it."
    return said


def _far_above(table: Table) -> str:
    """The warning that validation is far above test."""
    row, gap = next(iter(table.far_above.items()))
    return (
        f"Warning: validation is far above test in {len(table.far_above)} of {len(table.evidence)} rows (more than "
        f"{points(FAR)} points of weighted F1, and above the interval), most in {escape(row.name)}: "
        f"{points(gap, '+')} points; features or choices may have seen more of validation than of test, or the two "
        "differ."
    )


def _usual_training(table: Table) -> Training:
    """The training options of most rows."""
    counts = Counter(row.spec.training for row in table.rows)
    return min(counts, key=lambda training: (-counts[training], repr(training)))


def _difference(training: Training, usual: Training) -> str:
    before, after = asdict(usual), asdict(training)
    changed = [
        f"{settings({name: after[name]})} instead of {value(before[name])}"
        for name in after
        if after[name] != before[name]
    ]
    return f"Trained with {', '.join(changed)}." if changed else ""


def ablation_lines(table: Table) -> list[tuple[str, ...]]:
    """Cells of the table of ablations: the headings, then each whole method, best first, followed by its ablations.

    Empty where the table has no ablation.
    """
    if not table.ablations:
        return []
    found: list[tuple[str, ...]] = [("Ablations", "Changed", "Weighted F1", "Against the whole", "Parameters", "Seeds")]
    for whole in (row for row in table.rows if row in table.ablations.values()):
        parts = [row for row, of in table.ablations.items() if of is whole]
        for row in (whole, *parts):
            changed = ablation.split(row.method, row.spec.options)[0]
            names = (row.name_with_code, "") if row is whole else ("", changed)
            against = "" if row is whole else _change(table, row)
            numbers = (row.score("weighted_f1"), against, f"{row.parameters:,}", seeds(table, row))
            found.append((*names, *numbers))
    return found


def _change(table: Table, row: ResultRow) -> str:
    if row not in table.ablation_effects:
        return (few_seeds(row, table.ablations[row]) if row in table.ablation_evidence else "") or "–"
    found, p = table.ablation_effects[row]
    return effect(found, "+") + " ≈" * (not significant(p))


def _published(published: Sequence[Published]) -> str:
    """Quoted numbers by corpus, with their notes as footnotes."""
    parts = ["## Published numbers\n", PUBLISHED]
    quoted = ("metric", "value", "params", "protocol", "source", "trust")
    for dataset, items in by_corpus(published).items():
        notes = list(dict.fromkeys(item.note for item in items if item.note))
        rows = [
            (one.method + _superscript(notes, one.note), *(str(getattr(one, name)) for name in quoted)) for one in items
        ]
        header = ("Method", "Metric", "Value", "Parameters", "Protocol as published", "Source", "Trust")
        parts += [f"### Published: {dataset}\n", markdown([header, *rows], "<<>><<<"), _bullets((), notes)]
    return "\n".join(part for part in parts if part)


def _bullets(notes: Iterable[str], footnotes: Sequence[str] = ()) -> str:
    numbered = (f"{_superscript(footnotes, note).strip()} {note}" for note in footnotes)
    return "".join(f"- {note}\n" for note in (*notes, *numbered))


def _superscript(notes: Sequence[str], note: str) -> str:
    number = str(notes.index(note) + 1) if note else ""
    return f" {number}".rstrip().translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
