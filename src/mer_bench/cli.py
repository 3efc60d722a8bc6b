"""The command line. Each command imports what it needs when it runs, so that help and typos answer at once.

Exit codes: 0 done, 1 a run failed or a check found a difference, 2 misuse, 130 interrupted.
"""

from __future__ import annotations

import functools
import json
import re
import signal
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import MISSING, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NoReturn, get_args, get_origin, get_type_hints

import click

from mer_bench import __version__
from mer_bench.errors import FailedRun, Misuse, printable, unknown
from mer_bench.files import write_atomic
from mer_bench.training.options import BenchOptions, RunOptions, RunSettings, TuneOptions
from mer_bench.workspace import (
    copy_published,
    default_leaderboard,
    default_plots,
    default_report,
    default_results,
    in_clone,
    prepare_command,
    published_folder,
    published_results,
    repository,
    suites_folder,
)

if TYPE_CHECKING:
    from mer_bench.bundle.model import Bundle
    from mer_bench.external import ExternalRecord
    from mer_bench.records import RunRecord


PUBLISHED_STATE = (
    "own runs apart: make bench RESULTS=my_results (WITH_PUBLISHED=1 shows the published rows beside them); back to the "
    "published state: git checkout -- benchmarks/results benchmarks/tables leaderboard.md && git clean -fd benchmarks/results benchmarks/tables"
)


def takes(options: type[Any]) -> Callable[..., Any]:
    """Give a command the options that a dataclass declares; the command receives an instance as its last argument."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def call(**given: Any) -> Any:
            names = [item.name for item in fields(options)]
            chosen = options(**{name: given.pop(name) for name in names})
            return command(*given.values(), chosen)

        kinds = get_type_hints(options)
        decorated: Callable[..., Any] = call
        for item in reversed(fields(options)):
            decorated = _click_option(item, kinds[item.name])(decorated)
        return decorated

    return decorate


def _click_option(item: Any, kind: Any) -> Callable[..., Any]:
    """The command line's form of one field of an options class."""
    facts: dict[str, Any] = dict(item.metadata)
    flag = facts["flag"] or f"--{item.name.replace('_', '-')}"
    default = None if item.default is MISSING else item.default
    arguments: dict[str, Any] = {"help": facts["help"], "metavar": facts.get("metavar"), "default": default}
    if kind is bool:
        arguments["is_flag"] = True
    elif get_origin(kind) in (tuple, Mapping):
        read = _read_words if get_origin(kind) is tuple else _read_pairs
        parse = _toml if facts.get("toml") else get_args(kind)[0]
        arguments |= {"multiple": True, "callback": lambda _, option, values: read(option.opts[0], values, parse)}
    elif "choices" in facts:
        arguments["type"] = click.Choice(facts["choices"])
    elif "minimum" in facts:
        arguments["type"] = click.IntRange(facts["minimum"])
    elif Path in (kind, *get_args(kind)):
        arguments["type"] = click.Path(path_type=Path)
        if item.default_factory is not MISSING:  # it depends on the working folder; the help says how
            arguments["default"] = item.default_factory
    return click.option(
        flag, item.name, show_default=bool(default) or (default == 0 and default is not False), **arguments
    )


def _read_words(flag: str, values: Sequence[str], parse: Callable[[str], Any]) -> tuple[Any, ...]:
    """Words, or numbers, separated by commas or spaces."""
    try:
        return tuple(parse(word) for value in values for word in value.replace(",", " ").split())
    except ValueError as error:
        raise Misuse(f"{flag} takes whole numbers such as '0 1 2', not {' '.join(values)!r}") from error


def _read_pairs(flag: str, values: Sequence[str], parse: Callable[[str], Any]) -> dict[str, Any]:
    pairs = {}
    for value in values:
        name, equals, content = value.partition("=")
        if not (name and equals):
            raise Misuse(f"{flag} takes NAME=VALUE, not {value!r}")
        pairs[name] = parse(content)
    return pairs


def _toml(text: str) -> Any:
    """A TOML value; a bare word is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _declared(name: str) -> Callable[..., Any]:
    """An option of a command that does not train, declared as for those that do."""
    (item,) = (item for item in fields(RunSettings) if item.name == name)
    return _click_option(item, get_type_hints(RunSettings)[name])


SHOWN = 10  #: predictions that are printed

data_option, results_option, logs_option = map(_declared, ("root", "results", "log_folder"))
drawing_option = click.option(
    "--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes that draw side by side."
)
published_option = click.option(
    "--with-published", is_flag=True, help="Show the published rows beside those of the records."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Fusion methods for multimodal emotion recognition, compared on identical frozen features."""


@cli.command()
@click.argument("suite", type=Path)
@takes(BenchOptions)
def bench(suite: Path, options: BenchOptions) -> None:
    """Run what SUITE lacks, then rewrite the leaderboard.

    SUITE is a TOML file, or the name of one that comes with the package, such as simulated or ravdess.
    """
    from mer_bench.training.bench import bench as run_suite

    result = run_suite(suite, options)
    _warn(result.problems)
    _say(result.tables)
    _say(f"leaderboard: {result.leaderboard}")
    if in_clone() and options.results == default_results():
        _say(PUBLISHED_STATE, err=True)
    if result.failed:
        _say(f"{len(result.failed)} of {len(result.specs)} runs failed; the next bench tries them again", err=True)
        sys.exit(1)


@cli.command()
@click.argument("suite", type=Path)
@takes(TuneOptions)
def tune(suite: Path, options: TuneOptions) -> None:
    """Try settings for the rows of SUITE on validation alone, and write those that each fold has chosen.

    The next bench of SUITE trains the rows with these settings beside those with the suite's own. No test set is opened.
    """
    from mer_bench.training.tune import tune as tune_suite

    result = tune_suite(suite, options)
    _say(f"tuned settings: {result.file}")
    for spec in result.failed:
        number = spec.tuned.trial if spec.tuned else 0
        _say(f"trial {number} of {spec.method}, fold {spec.fold}, failed: fold {spec.fold} chose without it", err=True)
    if result.open:
        _say(f"{result.open} runs of the suite lack trials and have no tuned settings yet", err=True)
    for spec in result.kept:
        _say(f"every trial of {spec.method}, fold {spec.fold}, failed: it keeps the settings of the suite", err=True)
    if result.kept:
        sys.exit(1)


@cli.command()
@takes(RunOptions)
def run(options: RunOptions) -> None:
    """Run one training and write its record, also if there is one already.

    --measure efficiency needs no training where there is a record that lacks nothing else.
    """
    from mer_bench.fusion.find import provenance, said
    from mer_bench.records import check_kept, check_measures, skipped, write_record
    from mer_bench.training.checks import before_training, is_first_process
    from mer_bench.training.claims import announced
    from mer_bench.training.execute import earlier_record, execute, prepare_process
    from mer_bench.training.suite import one_run, run_from_file
    from mer_bench.training.validate import validate
    from mer_bench.training.workers import follow_parent

    follow_parent()
    measures, keep = check_measures(options.measures), check_kept(options.keep)
    if options.spec is not None:
        spec = run_from_file(options.spec, options.root)
    elif options.dataset is None or options.method is None:
        raise Misuse("run needs --dataset and --method, or --spec")
    else:
        chosen = {name: getattr(options, name) for name in ("features", "label_set", "protocol", "fold", "seed")}
        spec = one_run(
            options.root,
            options.dataset,
            options.method,
            **chosen,
            options=options.options,
            training=options.training,
            hardware=options,
        )
    sentences = validate([spec], options.root, measures=measures)
    before_training([spec], options)
    _warn([*sentences, *skipped([spec], measures)])
    prepare_process()
    with announced(spec, options.results) if is_first_process(spec) else nullcontext():
        try:
            settings = replace(options, measures=measures, keep=keep)
            record = execute(spec, settings, earlier_record(spec, options.results))
        except (Misuse, FailedRun):
            raise
        except Exception as error:
            if provenance(spec.method) != "own":
                raise  # a fault of this package, whose traceback is wanted
            raise FailedRun(f"method {spec.method!r} failed: {said(error)}") from error
        if record is not None:  # None on every process but the first of a distributed run
            _say(write_record(record, options.results))


@cli.command()
@click.argument("record", type=Path)
@click.option(
    "--to", "folder", type=Path, required=True, help="Folder of the model, which must not exist, or be empty."
)
@data_option
def export(record: Path, folder: Path, root: Path) -> None:
    """Write the trained model of RECORD, a record or the spec of a run; trains it again unless it was kept."""
    from mer_bench.bundle.export import export as export_model
    from mer_bench.training.execute import prepare_process

    prepare_process()
    sentence, is_warning = export_model(record, folder, root)
    _say(sentence, err=is_warning)
    _say(folder)


@cli.command()
@click.argument("bundle", type=Path)
@click.argument("clips", nargs=-1, type=Path)
@click.option(
    "--clips",
    "list_of_clips",
    type=Path,
    help="CSV of clips: path, and text, speaker, dialogue, turn, landmarks, id if known.",
)
@click.option("--text", help="What is said in the one clip.")
@click.option("--landmarks", multiple=True, type=Path, help="CSV of OpenFace, with the name of its clip; repeatable.")
@click.option(
    "--table", type=Path, help="Folder with utterances.csv, which needs no labels, and feature sets beside it."
)
@click.option("--split", default="all", show_default=True, help="Only utterances of this split, e.g. test.")
@click.option("--to", "target", type=Path, help="File to write, .csv or .json.")
@click.option("--explain", is_flag=True, help="Predict from each subset of the modalities too.")
@click.option("--without", multiple=True, metavar="MODALITY", help="Take this modality as missing; repeatable.")
@click.option(
    "--trust", multiple=True, metavar="MODALITY", help="Take its features, whatever has made them; repeatable."
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="MODALITY=NAME",
    help="Where the frozen model of a clip's modality is: a name on the Hugging Face hub, a folder or a file.",
    callback=lambda _, option, values: _read_pairs(option.opts[0], values, str),
)
@click.option("--download", is_flag=True, help="Allow the download of frozen models from the Hugging Face hub.")
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True, help="Processes that decode clips.")
@click.option("--method", metavar="MODULE:CLASS", help="Code of the model's method, if it is no part of mer_bench.")
@click.option("--allow-changed", is_flag=True, help="Also if that code was edited since the training.")
def predict(
    bundle: Path,
    clips: tuple[Path, ...],
    table: Path | None,
    split: str,
    target: Path | None,
    explain: bool,
    without: tuple[str, ...],
    trust: tuple[str, ...],
    method: str | None,
    allow_changed: bool,
    **extraction: Any,
) -> None:
    """Predict with the trained model in the folder BUNDLE, from a table or from CLIPS: files, or folders of them.

    See run --save-model and export for how a model is kept.
    """
    from mer_bench.bundle import predict as predicting
    from mer_bench.bundle.model import load_model
    from mer_bench.training.execute import prepare_process
    from mer_bench.training.temporary import temporary_prefix

    if table is not None and (clips or any(extraction.values())):
        raise Misuse("--table is a table of features that are extracted already; give it alone, or clips without it")
    if table is None and split != predicting.ALL:
        raise Misuse("--split chooses rows of a --table; clips belong to no split")
    if target is not None:
        predicting.check_output(target)
    prepare_process()
    model = load_model(bundle, method=method, allow_changed=allow_changed)
    with TemporaryDirectory(prefix=temporary_prefix()) as folder:
        new = None
        if table is None:
            table = Path(folder)
            new = _prepare_clips(model, clips, table, without=without, trust=trust, **extraction)
            without = tuple(name for name, spec in model.features.items() if not (table / spec.name).exists())
        frame = predicting.predict_table(model, table, split, explain, without=without, trust=trust)
    _warn(predicting.remarks(model, frame))
    shown = frame if new else frame.head(SHOWN)
    for row in shown.to_dict("records"):
        if new:
            said = {f"{name} missing": reason for name, reason in new.missing[row["id"]].items()}
            said |= new.remarks[row["id"]]
            row = {**row, "missing": ""}
            _say("; ".join([predicting.sentence(model, row), *(f"{what}: {why}" for what, why in said.items())]))
        else:
            _say(predicting.sentence(model, row))
    _say(predicting.summary(frame) + (f"; {SHOWN} are shown, --to FILE writes all" if len(frame) > len(shown) else ""))
    if target is not None:
        predicting.write_predictions(frame, target)
        _say(target)
    if new and new.refused:
        for clip, reasons in new.refused.items():
            _say(f"error: {clip} holds nothing that the model reads: {reasons}", err=True)
        sys.exit(1)


def _prepare_clips(
    model: Bundle,
    paths: Sequence[Path],
    into: Path,
    *,
    list_of_clips: Path | None,
    text: str | None,
    landmarks: Sequence[Path],
    **options: Any,
) -> Any:
    """Write a table and the feature sets of new clips into a folder; what became of them."""
    _find_data_preparation()
    try:
        from data_prep.corpora import new_clips
        from data_prep.prepare.new_clips import prepare_clips

        if list_of_clips is not None and (paths or text is not None or landmarks):
            raise Misuse("--clips lists all clips, with their texts and landmarks; give it alone")
        if list_of_clips is None:
            found = new_clips.clips_from_paths(paths, text=text, landmarks=landmarks)
        else:
            found = new_clips.clips_from_csv(list_of_clips)
        if model.context == "dialogue":
            _warn(new_clips.dialogue_remarks(found))
        return prepare_clips(found, model.features, into, **options)
    except ModuleNotFoundError as error:
        raise Misuse(f"predicting new clips needs the package {error.name}: pip install 'mer-bench[prep]'") from error


@cli.command()
@click.argument("method")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Option of the method; repeatable, TOML values.",
    callback=lambda _, option, values: _read_pairs(option.opts[0], values, _toml),
)
def check(method: str, options: dict[str, Any]) -> None:
    """Check what every fusion method must hold of METHOD, such as my_module:MyFusion: gradients, padding, label leak ..."""
    from mer_bench.fusion.find import find_method
    from mer_bench.testing import checks
    from mer_bench.training.build import check_option
    from mer_bench.training.execute import prepare_process

    found = find_method(method)
    for name, value in options.items():
        check_option(method, name, value)
    prepare_process()
    failed = 0
    for sentence, failure in checks(found, options):
        failed += bool(failure)
        _say(f"FAILED  {sentence} {failure}" if failure else f"ok      {sentence}")
    sys.exit(1 if failed else 0)


@cli.command()
@click.option(
    "--check",
    is_flag=True,
    help="Write nothing; exit with 1 and name the first file that is not what the records give.",
)
@click.option("--output", type=Path, help="[default: leaderboard.md; beside the records if --results is given]")
@click.option(
    "--tables",
    type=Path,
    help="Folder of a page and a CSV file per table [default: benchmarks/tables for leaderboard.md of a clone, else the folder tables beside the leaderboard].",
)
@published_option
@results_option
def leaderboard(check: bool, output: Path | None, tables: Path | None, with_published: bool, results: Path) -> None:
    """Regenerate the leaderboard and the pages of its tables from the records: the same bytes anywhere.

    Pages whose table is gone are deleted if they were generated.
    """
    from mer_bench.report import board

    layout = board.Layout.of(output or default_leaderboard(results), tables)
    if check:
        difference = board.check(results, layout, with_published=with_published)
        if difference:
            _say(f"error: {difference}", err=True)
            sys.exit(1)
        _say(f"{layout.front} and the pages in {layout.tables} are what the records give")
        return
    found = board.read_board(results, with_published=with_published)
    _warn(found.problems)
    board.write_board(found, layout)
    _say(layout.front)


@cli.command()
@click.argument("folder", type=Path)
def records(folder: Path) -> None:
    """Write the published records into the new FOLDER, so that other commands can read them: --results FOLDER."""
    copy_published(folder)
    _say(folder)


@cli.command()
@click.option(
    "--format", "formats", type=click.Choice(["svg", "png"]), multiple=True, default=["svg"], show_default=True
)
@click.option(
    "--output", type=Path, default=default_plots, help="[default: benchmarks/plots in a clone, elsewhere plots]"
)
@drawing_option
@results_option
def plots(formats: tuple[str, ...], output: Path, jobs: int, results: Path) -> None:
    """Draw every table: ranking, F1 by class, confusion, cost, learning, robustness; and tracks over their tables.

    README.md beside the pictures shows all of them.
    """
    from mer_bench.report import plots as pictures
    from mer_bench.report.cache import open_cache

    made = pictures.write(_records(results), output, formats, cache=open_cache(results), jobs=jobs)
    _say(f"{len(made)} pictures in {output}")


@cli.command("report")
@click.option(
    "--output", type=Path, default=default_report, help="[default: build/report.html in a clone, elsewhere report.html]"
)
@click.option(
    "--suites",
    type=Path,
    default=suites_folder,
    help="Suites that the commands on the page name [default: those that have names].",
)
@drawing_option
@published_option
@results_option
def report_(output: Path, suites: Path, jobs: int, with_published: bool, results: Path) -> None:
    """Write one HTML page of all records: tables to sort and filter, pictures, provenance, two methods compared."""
    from mer_bench.report import board, page

    found = board.load(results, with_published=with_published, brief=True)
    _warn(found.problems)
    published = published_folder() if with_published else None
    page.write(
        found.records,
        output,
        results=results,
        suites=suites,
        own=found.own,
        published_in=published,
        external=found.external,
        trials=found.trials,
        jobs=jobs,
    )
    _say(output)


@cli.command()
@click.argument("first")
@click.argument("second")
@click.option("--dataset", help="Only tables of this corpus.")
@click.option("--show", type=click.IntRange(0), default=10, show_default=True, help="Utterances to show.")
@data_option
@results_option
def compare(first: str, second: str, dataset: str | None, show: int, root: Path, results: Path) -> None:
    """Where the methods FIRST and SECOND differ: paired test, gain by class, and utterances if the corpus is there.

    METHOD/MODALITIES, as in unimodal/audio, is the row that reads just these, METHOD/audio=mfcc that on this feature set.
    The NAME of score --add works too. Methods that share no table are compared where they tested the same utterances.
    """
    from mer_bench.report import compare as comparison

    for found in comparison.compare(_records(results), first, second, dataset, _external(results)):
        _say(comparison.describe(found, root, show))


def choose_tables(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose tables of the leaderboard."""
    for option in (
        click.option("--number", type=int, help="The table that has this number in the leaderboard."),
        click.option("--track", help="Only tables of this track: utterance or dialogue."),
        click.option("--protocol", help="Only tables of this protocol."),
        click.option("--label-set", help="Only tables of this label set."),
        click.option("--dataset", help="Only tables of this corpus."),
    ):
        command = option(command)
    return command


@cli.command()
@choose_tables
@click.option("--format", default="markdown", show_default=True, help="markdown, latex (needs booktabs), csv or json.")
@click.option("--bibtex", is_flag=True, help="Print BibTeX entries of the methods' papers instead of the tables.")
@results_option
def table(bibtex: bool, format: str, results: Path, **chosen: Any) -> None:
    """Print tables of the leaderboard for a paper: all that the options leave."""
    from mer_bench.report import printed

    found = printed.choose(_records(results), _external(results), **chosen)
    _print(printed.bibtex(found) if bibtex else printed.print_tables(found, format))


@cli.command()
@choose_tables
@click.option("--seeds", type=click.IntRange(2), help="If each row had so many seeds.")
@click.option("--clusters", type=click.IntRange(2), help="If there were so many dialogues, or actors, to test on.")
@results_option
def power(seeds: int | None, clusters: int | None, results: Path, **chosen: Any) -> None:
    """Say how small a difference the tables could show with 80 % power: now, and with more seeds or test dialogues.

    From the records: the variance of differences of two rows over seeds and over dialogues or actors.
    """
    from mer_bench.report import power as of_tables
    from mer_bench.report import printed

    found = printed.choose(_records(results), **chosen)
    _say(of_tables.power(list(found.values()), seeds, clusters))


def corpus_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that name the labels and splits of a prepared corpus."""
    for option in (
        click.option("--protocol", help="Default: the corpus's first."),
        click.option("--label-set", help="Default: the corpus's first."),
        click.option("--dataset", required=True, help="See mer-bench list datasets."),
        data_option,
    ):
        command = option(command)
    return command


csv_option = click.option("--csv", "target", default="-", show_default=True, help="File to write; - prints.")


@cli.command()
@corpus_options
@csv_option
def splits(root: Path, dataset: str, label_set: str | None, protocol: str | None, target: str) -> None:
    """Write ids, labels and splits of every fold as CSV, for use in another toolkit."""
    from mer_bench.datasets.splits import read_splits

    _write(read_splits(root, dataset, label_set, protocol).to_csv(), target)


@cli.command()
@click.argument("file", type=Path)
@click.option("--against", multiple=True, metavar="METHOD", help="Test against this method of the records; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.option("--seed", type=int, help="Seed of a file without a column seed [default: 0].")
@click.option("--fold", "folds", type=int, multiple=True, help="The file has this fold alone; repeatable.")
@click.option(
    "--add", "name", metavar="NAME", help="Write the predictions to --results, for a row NAME beside the tables."
)
@click.option("--features", help="With --add: what they were made from, as text: 'audio: WavLM, vision: CLIP'.")
@click.option("--parameters", type=int, help="With --add: number of trainable parameters.")
@click.option("--url", help="With --add: address of paper or code.")
@click.option("--selected-on", metavar="validation", help="With --add: states that no choice was made on test scores.")
@corpus_options
@results_option
def score(
    file: Path,
    against: tuple[str, ...],
    as_json: bool,
    seed: int | None,
    folds: tuple[int, ...],
    name: str | None,
    features: str | None,
    parameters: int | None,
    url: str | None,
    selected_on: str | None,
    root: Path,
    dataset: str,
    label_set: str | None,
    protocol: str | None,
    results: Path,
) -> None:
    """Score the predictions in FILE, a CSV with the columns id and prediction, with intervals and paired tests.

    A prediction is a class or its number. Optional columns: fold, seed, and p_CLASS for the probability of each class.
    """
    from mer_bench.datasets.splits import read_splits
    from mer_bench.external import stated, write_external
    from mer_bench.report import external

    statement = stated(features=features, parameters=parameters, url=url, selected_on=selected_on)
    if name is None and statement != stated():
        raise Misuse("--features, --parameters, --url and --selected-on describe the row of --add NAME, which lacks")
    corpus = read_splits(root, dataset, label_set, protocol)
    corpus = corpus.only(folds) if folds else corpus
    predictions = external.read_predictions(file, corpus, seed)
    added = external.records_of(name, statement, predictions, corpus) if name is not None else []
    found = external.score(predictions, corpus, _records(results) if against else (), against)
    if as_json:
        _say(json.dumps(external.as_json(found, predictions, corpus), indent=1, ensure_ascii=False))
    else:
        _say(external.describe(found, predictions, corpus, str(file)))
    if added:
        paths = write_external(added, results)
        _say(f"{len(paths)} records of {name} in {paths[0].parent}; mer-bench leaderboard shows them", err=True)


@cli.command()
@click.argument("folder", type=Path)
@click.option("--check", is_flag=True, help="Check what a pull request with this folder needs; 1 = there are problems.")
@click.option("--new", is_flag=True, help="Write a submission.toml to fill in.")
def submit(folder: Path, check: bool, new: bool) -> None:
    """Check the FOLDER of a submission: records, or predictions made elsewhere, for the leaderboard (docs/your_predictions.md)."""
    from mer_bench.records import ContributedRecord, load_records
    from mer_bench.submission import check_submission, new_submission

    if check == new:
        raise Misuse("submit takes --check or --new")
    if new:
        _say(new_submission(folder))
        return
    with published_results() as published:
        records, problems = load_records(published)
    _warn(problems)
    found = check_submission(folder, [each for each in records if not isinstance(each, ContributedRecord)])
    for sentence in found.problems:
        _say(f"problem: {sentence}", err=True)
    for sentence in found.remarks:
        _say(f"remark: {sentence}")
    _say(found.summary)
    if found.problems:
        sys.exit(1)
    _say("ready")


@cli.command()
@click.argument("method")
@click.option("--seed", type=int, multiple=True, help="Only this seed; repeatable.")
@click.option("--fold", type=int, multiple=True, help="Only this fold; repeatable.")
@corpus_options
@csv_option
@results_option
def predictions(
    method: str,
    seed: tuple[int, ...],
    fold: tuple[int, ...],
    root: Path,
    dataset: str,
    label_set: str | None,
    protocol: str | None,
    target: str,
    results: Path,
) -> None:
    """Write what the recorded runs of METHOD predicted, with ids and labels of the prepared corpus, as CSV.

    With the probability of each class where it was kept (--keep probabilities).

    METHOD/MODALITIES, as in unimodal/audio, is the row that reads just these.
    """
    from mer_bench.datasets.splits import read_splits
    from mer_bench.report import external

    records = _records(results)
    corpus = read_splits(root, dataset, label_set, protocol)
    text, problems = external.predictions_csv(records, corpus, method, results=results, seeds=seed, folds=fold)
    _warn(problems)
    _write(text, target)


@cli.command()
@logs_option
def sync(log_folder: Path) -> None:
    """Upload the wandb runs that were made offline (LOGGER=wandb logs offline unless you are logged in)."""
    from mer_bench.training import tracking

    count = tracking.sync(log_folder)
    _say(f"{count} runs uploaded" if count else f"nothing to upload in {log_folder / 'wandb'}")


@cli.command(context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def prepare(arguments: tuple[str, ...]) -> None:
    """Prepare a corpus, or add features to one: prepare ravdess --raw FOLDER (see prepare --help)."""
    _find_data_preparation()
    from data_prep.__main__ import main as data_prep

    sys.exit(data_prep.main(list(arguments), prog_name="mer-bench prepare", standalone_mode=False) or 0)


@cli.command()
@click.option("--dataset", help="Only this corpus.")
@data_option
def verify(dataset: str | None, root: Path) -> None:
    """Recompute the hashes of all prepared feature sets."""
    from mer_bench.features import verify_features
    from mer_bench.schema import check_name

    if dataset:
        check_name(dataset, "dataset")
    pattern = f"{dataset or '*'}/*/spec.json"
    folders = sorted(path.parent for path in root.glob(pattern) if not path.parent.name.startswith("."))
    if not folders:
        raise Misuse(f"no feature set at {root / pattern}: prepare a corpus first ({prepare_command()})")
    problems = 0
    for folder in folders:
        try:
            spec = verify_features(folder)
        except Misuse as error:
            problems += 1
            _say(f"error: {error}", err=True)
        else:
            _say(f"ok {folder} {spec.sha256[:12]} {spec.rows} rows, {spec.frames} frames, {spec.dim} wide")
    sys.exit(1 if problems else 0)


@cli.command("list")
@click.argument("what", type=click.Choice(["methods", "datasets"]))
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable, with everything that is known.")
@data_option
def list_(what: str, name: str | None, as_json: bool, root: Path) -> None:
    """List methods or datasets; with a NAME say everything about that one."""
    from dataclasses import asdict

    from mer_bench.methods import method_facts, registered
    from mer_bench.report.formatting import plain

    rows: list[tuple[str, ...]]
    if what == "methods" and name is None:
        facts = method_facts()
        found: Any = {each: asdict(its) for each, its in facts.items()}
        rows = [("name", "method", "track", "kind", "parameters")]
        rows += [(each, its.title, its.track, its.kind, f"{its.parameters:,}") for each, its in facts.items()]
        for point in registered():
            found[point.name] = {"title": point.value, "kind": "own"}
            rows.append((point.name, point.value, "", "own", ""))
        text = plain(rows, "<<<<>")
    else:
        from mer_bench.training import describe

        if what == "methods":
            found, text = describe.method_details(str(name))
        else:
            found = describe.describe_datasets(root)
            if name is not None and name not in found:
                raise unknown("dataset", name, found)
            found = {each: its for each, its in found.items() if name in (None, each)}
            rows = [("dataset", *next(iter(found.values())))]
            rows += [
                (each, *(v if isinstance(v, str) else ", ".join(v) for v in its.values()))
                for each, its in found.items()
            ]
            text = plain(rows, "<<<<<")
    _say(json.dumps(found, indent=1, ensure_ascii=False) if as_json else text)


@cli.command(context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def fit(arguments: tuple[str, ...]) -> None:
    """Train any one method with every Trainer flag (LightningCLI; try fit --help)."""
    try:
        from mer_bench.training.fit import main as fit_main
    except ImportError as error:
        raise Misuse("fit needs LightningCLI: pip install 'mer-bench[fit]'") from error
    fit_main(list(arguments))


def main() -> NoReturn:
    """Run the command line; a user's mistake is one sentence and exit code 2."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except Misuse as error:
        _fail(str(error), 2)
    except FailedRun as error:
        _fail(str(error), 1)
    except click.UsageError as error:
        message = error.format_message()
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            _say(message)
            sys.exit(2)
        _fail(_nearest_command(message, error.ctx), 2)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted; every finished run is recorded, the same command goes on from there", 130)


def _find_data_preparation() -> None:
    """Put ``data_prep`` on the path; worker processes get the same one."""
    sys.path.insert(0, str(repository().resolve()))


def _say(text: object, err: bool = False) -> None:
    """Print text that may quote what a file says."""
    click.echo(printable(str(text)), err=err)


def _print(text: str) -> None:
    """Print what other programs read: UTF-8 as it is, unless a terminal shows it."""
    if sys.stdout.isatty():
        click.echo(printable(text), nl=False)
    else:
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()


def _write(text: str, target: str) -> None:
    """Write what other programs read to a file, or print it."""
    if target == "-":
        _print(text)
    else:
        write_atomic(Path(target), text)
        _say(target)


def _fail(message: str, code: int) -> NoReturn:
    _say(f"error: {message}", err=True)
    sys.exit(code)


def _nearest_command(message: str, where: click.Context | None) -> str:
    found = re.match(r"No such command ['\"]([^'\"]*)", message)
    group = where.command if where and isinstance(where.command, click.Group) else cli
    return str(unknown("command", found[1], group.commands)) if found else message


def _records(results: Path) -> list[RunRecord]:
    """All readable records; a warning for each that is not."""
    from mer_bench.records import load_records

    records, problems = load_records(results)
    _warn(problems)
    return records


def _external(results: Path) -> list[ExternalRecord]:
    """All readable records of predictions made elsewhere; a warning for each that is not."""
    from mer_bench.external import load_external

    records, problems = load_external(results)
    _warn(problems)
    return records


def _warn(problems: Sequence[str]) -> None:
    for problem in problems:
        _say(f"warning: {problem}", err=True)
