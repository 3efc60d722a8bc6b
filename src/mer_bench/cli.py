"""The command line. Each command imports what it needs when it runs, so that help and typos answer at once.

Exit codes: 0 done, 1 a run failed or a check found a difference, 2 misuse, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from mer_bench import __version__
from mer_bench.errors import Misuse, unknown

if TYPE_CHECKING:
    from mer_bench.records import RunRecord

RESULTS = Path("benchmarks/results")
LEADERBOARD = Path("leaderboard.md")
ABSENT = """\
********************************************************************************
  {dataset} IS NOT PREPARED BELOW {root}.
  To get it: {how}.
  Running the SIMULATED stand-in {stand_in} instead: its scores say nothing
  about the real corpus. CORPUS=real makes its absence an error.
********************************************************************************"""

data_option = click.option(
    "--data", "root", type=Path, default=Path("data"), show_default=True, help="Prepared corpora."
)
results_option = click.option("--results", type=Path, default=RESULTS, show_default=True, help="Folder of the records.")
logger_option = click.option("--logger", type=click.Choice(["csv", "wandb", "none"]), default="csv", show_default=True)
logs_option = click.option("--logs", type=Path, default=Path("runs"), show_default=True, help="Where loggers write.")
devices_option = click.option("--devices", type=click.IntRange(1), default=1, show_default=True)
strategy_option = click.option(
    "--strategy", default="auto", show_default=True, help="As Lightning names it: ddp, fsdp..."
)
measure_option = click.option(
    "--measure",
    "measures",
    multiple=True,
    metavar="NAME",
    help="Beside the score: literature, robustness, efficiency; repeatable.",
)
nodes_option = click.option("--num-nodes", type=click.IntRange(1), default=1, show_default=True)
compile_option = click.option("--compile", is_flag=True, help="Train through torch.compile.")


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command which trains has."""
    shared = (data_option, results_option, logger_option, logs_option, devices_option, strategy_option, nodes_option,
              compile_option, measure_option)  # fmt: skip
    for option in reversed(shared):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Fusion methods for multimodal emotion recognition, compared on identical frozen features."""


@cli.command()
@click.argument("suite", type=Path)
@click.option("--methods", default="", help="Only these methods of the suite, separated by commas or spaces.")
@click.option("--seeds", default="", help="These seeds instead of the suite's, e.g. '0 1 2'.")
@click.option("--epochs", type=click.IntRange(1), help="This many epochs instead of the suite's.")
@click.option("--precision", help="As Lightning names it, e.g. bf16-mixed, or tf32, instead of the suite's.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Runs side by side.")
@click.option("--shard", default="", metavar="I/N", help="Only the I-th of N shares of the runs, e.g. 3/10.")
@click.option("--cluster", default="", metavar="ADDRESS", help="Run on Ray: local (--jobs side by side) or ray://HOST:PORT.")  # fmt: skip
@click.option("--corpus", type=click.Choice(["auto", "real", "simulated"]), default="auto", show_default=True)
@click.option("--leaderboard", "target", type=Path, help="Leaderboard to rewrite. [default: see leaderboard]")
@training_options
def bench(suite: Path, methods: str, seeds: str, epochs: int | None, precision: str | None, jobs: int, shard: str,
          cluster: str, corpus: str, target: Path | None, root: Path, results: Path, logger: str, logs: Path, devices: int,
          strategy: str, num_nodes: int, compile: bool, measures: tuple[str, ...]) -> None:  # fmt: skip
    """Run what SUITE (a TOML file) lacks, then rewrite the leaderboard."""
    from mer_bench.records import check_measures
    from mer_bench.report import leaderboard as report
    from mer_bench.training import bench as benches
    from mer_bench.training import suite as suites
    from mer_bench.training.execute import Places
    from mer_bench.training.tracking import GROUP

    asked = check_measures(_words(" ".join(measures)))
    part = _shard(shard)
    chosen = suites.read_suite(
        suite, methods=_words(methods), seeds=_numbers("--seeds", seeds), epochs=epochs, precision=precision
    )
    real = [name for name in chosen.datasets if not name.startswith(suites.STAND_IN)]
    absent = [name for name in real if corpus == "simulated" or not suites.is_prepared(name, root)]
    if absent:
        name, how = absent[0], suites.how_to_get(absent[0])
        if corpus == "real":
            raise Misuse(f"{name} is not prepared below {root}: {how}")
        chosen = suites.stand_in(chosen)
        if corpus == "auto":
            click.echo(ABSENT.format(dataset=name.upper(), root=root, how=how, stand_in=chosen.datasets[0]), err=True)
    suites.prepare(chosen, root)
    specs = chosen.specs(root, devices=devices, strategy=strategy, num_nodes=num_nodes, compile=compile)
    suites.validate(specs, root)
    specs = specs[part]
    places = Places(root, results, logger, logs, check_measures((*chosen.measures, *asked)))
    if logger == "wandb":
        os.environ.setdefault(GROUP, suite.stem)  # workers inherit it
    failed = benches.bench(specs, places, jobs=jobs, cluster=cluster)
    target = target or _leaderboard(results)
    records = _records(results)
    report.write(records, target)
    for dataset in chosen.datasets:
        click.echo(report.main_table(records, dataset))
    click.echo(f"leaderboard: {target}")
    if failed:
        click.echo(f"{len(failed)} of {len(specs)} runs failed; the next bench tries them again", err=True)
        sys.exit(1)


@cli.command()
@click.option("--spec", "spec_file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A run as JSON, e.g. cut from a record; replaces all options that describe a run.")  # fmt: skip
@click.option("--dataset", help="See mer-bench list datasets.")
@click.option("--method", help="See mer-bench list methods.")
@click.option("--feature", "features", multiple=True, metavar="MODALITY=SET", help="Repeatable; default: the corpus's usual sets.")  # fmt: skip
@click.option("--label-set", help="Default: the corpus's first.")
@click.option("--protocol", help="Default: the corpus's first.")
@click.option("--fold", type=click.IntRange(1), default=1, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--option", "options", multiple=True, metavar="NAME=VALUE", help="Of the method; repeatable, TOML values."
)
@click.option("--train", "training", multiple=True, metavar="NAME=VALUE", help="Training option, e.g. epochs=5; repeatable.")  # fmt: skip
@training_options
def run(spec_file: Path | None, dataset: str | None, method: str | None, features: tuple[str, ...], label_set: str | None,
        protocol: str | None, fold: int, seed: int, options: tuple[str, ...], training: tuple[str, ...], root: Path,
        results: Path, logger: str, logs: Path, devices: int, strategy: str, num_nodes: int, compile: bool,
        measures: tuple[str, ...]) -> None:  # fmt: skip
    """Run one training and write its record, also if there is one already.

    --measure efficiency needs no training where there is a record that lacks nothing else.
    """
    from mer_bench.records import RunSpec, Training, check_measures, skipped
    from mer_bench.training.execute import Places, run_and_record
    from mer_bench.training.suite import one_run

    asked = check_measures(_words(" ".join(measures)))
    if spec_file is not None:
        try:
            content = json.loads(spec_file.read_text(encoding="utf-8"))
            content = content.get("spec", content)  # a whole record holds its spec
            spec = RunSpec(**{**content, "training": Training(**content["training"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Misuse(f"{spec_file} does not describe a run: {error}") from error
    else:
        if dataset is None or method is None:
            raise Misuse("run needs --dataset and --method, or --spec")
        spec = one_run(
            root,
            dataset,
            method,
            features=_pairs("--feature", features, str),
            label_set=label_set,
            protocol=protocol,
            fold=fold,
            seed=seed,
            options=_pairs("--option", options, _toml),
            training=_pairs("--train", training, _toml),
            devices=devices,
            strategy=strategy,
            num_nodes=num_nodes,
            compile=compile,
        )
    for sentence in skipped([spec], asked):
        click.echo(f"warning: {sentence}", err=True)
    path = run_and_record(spec, Places(root, results, logger, logs, asked))
    if path is not None:
        click.echo(path)


@cli.command()
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if the file is not what the records give.")
@click.option("--output", type=Path, help="[default: leaderboard.md; beside the records if --results is given]")
@results_option
def leaderboard(check: bool, output: Path | None, results: Path) -> None:
    """Regenerate the leaderboard from the records: the same bytes anywhere."""
    from mer_bench.report import leaderboard as report

    target = output or _leaderboard(results)
    if check:
        difference = report.check(results, target)
        if difference:
            click.echo(f"error: {difference}", err=True)
            sys.exit(1)
        click.echo(f"{target} is what the records give")
        return
    report.write(_records(results), target)
    click.echo(target)


@cli.command()
@click.option(
    "--format", "formats", type=click.Choice(["svg", "png"]), multiple=True, default=["svg"], show_default=True
)
@click.option("--output", type=Path, default=Path("benchmarks/plots"), show_default=True)
@results_option
def plots(formats: tuple[str, ...], output: Path, results: Path) -> None:
    """Draw every table: ranking, F1 by class, confusion, cost, learning, robustness; and tracks over their tables."""
    from mer_bench.report import plots as pictures

    made = pictures.write(_records(results), output, formats)
    click.echo(f"{len(made)} pictures in {output}")


@cli.command("report")
@click.option("--output", type=Path, default=Path("build/report.html"), show_default=True)
@click.option(
    "--suites",
    type=Path,
    default=Path("benchmarks"),
    show_default=True,
    help="Suites that the commands on the page name.",
)
@results_option
def report_(output: Path, suites: Path, results: Path) -> None:
    """Write one HTML page of all records: tables to sort and filter, pictures, provenance, two methods compared."""
    from mer_bench.report import page

    page.write(_records(results), output, results=results, suites=suites)
    click.echo(output)


@cli.command()
@click.argument("first")
@click.argument("second")
@click.option("--dataset", help="Only tables of this corpus.")
@click.option("--show", type=click.IntRange(0), default=10, show_default=True, help="Utterances to show.")
@data_option
@results_option
def compare(first: str, second: str, dataset: str | None, show: int, root: Path, results: Path) -> None:
    """Where the methods FIRST and SECOND differ: paired test, gain by class, and utterances if the corpus is there.

    METHOD/MODALITIES, as in unimodal/audio, is the row that reads just these.
    """
    from mer_bench.report import compare as comparison

    for found in comparison.compare(_records(results), first, second, dataset):
        click.echo(comparison.describe(found, root, show))


@cli.command()
@logs_option
def sync(logs: Path) -> None:
    """Upload the wandb runs that were made offline (LOGGER=wandb logs offline unless you are logged in)."""
    from mer_bench.training import tracking

    count = tracking.sync(logs)
    click.echo(f"{count} runs uploaded" if count else f"nothing to upload in {logs / 'wandb'}")


@cli.command()
@click.option("--dataset", help="Only this corpus.")
@data_option
def verify(dataset: str | None, root: Path) -> None:
    """Recompute the hashes of all prepared feature sets."""
    from mer_bench.features import verify_features

    pattern = f"{dataset or '*'}/*/spec.json"
    folders = sorted(path.parent for path in root.glob(pattern) if not path.parent.name.startswith("."))
    if not folders:
        raise Misuse(f"no feature set at {root / pattern}: prepare a corpus first (make data DATASET=... RAW=...)")
    problems = 0
    for folder in folders:
        try:
            spec = verify_features(folder)
        except Misuse as error:
            problems += 1
            click.echo(f"error: {error}", err=True)
        else:
            click.echo(f"ok {folder} {spec.sha256[:12]} {spec.rows} rows, {spec.frames} frames, {spec.dim} wide")
    sys.exit(1 if problems else 0)


@cli.command("list")
@click.argument("what", type=click.Choice(["methods", "datasets"]))
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable, with everything that is known.")
@data_option
def list_(what: str, name: str | None, as_json: bool, root: Path) -> None:
    """List methods or datasets; with a NAME say everything about that one."""
    from dataclasses import asdict

    from mer_bench.methods import method_facts
    from mer_bench.report.formatting import pad

    rows: list[tuple[str, ...]]
    if what == "methods" and name is None:
        facts = method_facts()
        found: Any = {each: asdict(its) for each, its in facts.items()}
        rows = [("name", "method", "track", "kind", "parameters")]
        rows += [(each, its.title, its.track, its.kind, f"{its.parameters:,}") for each, its in facts.items()]
        text = "\n".join("  ".join(row).rstrip() for row in pad(rows, "<<<<>"))
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
            text = "\n".join("  ".join(row).rstrip() for row in pad(rows, "<<<<<"))
    click.echo(json.dumps(found, indent=1, ensure_ascii=False) if as_json else text)


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
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except Misuse as error:
        _fail(str(error), 2)
    except click.UsageError as error:
        message = error.format_message()
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            click.echo(message)
            sys.exit(2)
        _fail(_nearest_command(message), 2)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted; every finished run is recorded, the same command goes on from there", 130)


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    sys.exit(code)


def _nearest_command(message: str) -> str:
    found = re.match(r"No such command ['\"]([^'\"]*)", message)
    return str(unknown("command", found[1], cli.commands)) if found else message


def _records(results: Path) -> list[RunRecord]:
    """All readable records; a warning for each that is not."""
    from mer_bench.records import load_records

    records, problems = load_records(results)
    for problem in problems:
        click.echo(f"warning: {problem}", err=True)
    return records


def _leaderboard(results: Path) -> Path:
    return LEADERBOARD if results == RESULTS else results / LEADERBOARD


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(word) for word in _words(text)]
    except ValueError as error:
        raise Misuse(f"{option} takes whole numbers such as '0 1 2', not {text!r}") from error


def _shard(text: str) -> slice:
    """Which of the runs: every N-th, from the I-th on, so that each share has its part of every method."""
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text or "1/1")
    if not found or int(found[1]) > int(found[2]):
        raise Misuse(f"--shard takes I/N with I from 1 to N, such as 3/10, not {text!r}")
    return slice(int(found[1]) - 1, None, int(found[2]))


def _pairs(option: str, items: tuple[str, ...], parse: Callable[[str], Any]) -> dict[str, Any]:
    pairs = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not (name and equals):
            raise Misuse(f"{option} takes NAME=VALUE, not {item!r}")
        pairs[name] = parse(value)
    return pairs


def _toml(text: str) -> Any:
    """A TOML value; a bare word is a string."""
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
