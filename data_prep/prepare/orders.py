"""Further feature sets that ``make data`` is asked for: extractor commands in one string."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from data_prep.extractors import audio, text, vision

Order = tuple[click.Command, list[str]]  #: an extractor's command, and the words that follow it


def read_orders(context: click.Context, parameter: click.Parameter, value: str) -> list[Order]:
    """The extractors that ``audio logmel; vision frames --side 112`` asks for, their options checked.

    Raises:
        BadParameter: there is no such extractor, or its options are wrong.
    """
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


features_option = click.option(
    "--features",
    "orders",
    callback=read_orders,
    default="",
    help="Further sets, as commands separated by semicolons: 'audio logmel; vision frames --side 112'.",
)
