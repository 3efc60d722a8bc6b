"""The option ``--features`` of the corpus commands: a preset, or extractor commands, run after preparation."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from data_prep.extractors import audio, text, vision
from data_prep.prepare.presets import PRESETS, commands

ExtractorCall = tuple[click.Command, list[str]]  #: an extractor's command, and its arguments


def read_extractor_calls(context: click.Context, parameter: click.Parameter, value: str) -> list[ExtractorCall]:
    """Parse commands such as ``light; audio logmel; vision frames --side 112``, and check their options.

    The name of a preset stands for its commands for the corpus, whose models are looked for in the folder ``--models``.

    Raises:
        BadParameter: there is no such extractor, or its options are wrong.
    """
    extractors = click.Group(
        commands={"audio": audio.audio_command, "vision": vision.vision_command, "text": text.text_command}
    )
    calls = []
    lines: list[str] = []
    for line in filter(None, map(str.strip, value.split(";"))):
        corpus, models = context.command.name or "", context.params.get("models")
        lines += commands(line, corpus, models) if line in PRESETS else [line]
    for line in lines:
        try:
            command: click.Command | None = extractors
            arguments = shlex.split(line)
            while isinstance(command, click.Group):
                _, command, arguments = command.resolve_command(click.Context(command), arguments or [""])
            assert command is not None  # otherwise click would have raised an error
            command.make_context(command.name, [*arguments, *_paths_as_options(command, Path(), Path())])
        except (click.UsageError, ValueError) as error:
            reason = error.format_message() if isinstance(error, click.UsageError) else error
            raise click.BadParameter(f"{line!r}: {reason}", context, parameter) from error
        calls.append((command, arguments))
    return calls


def run_extractors(calls: Sequence[ExtractorCall], corpus: Path, raw: Path) -> None:
    """Run extractors on a prepared corpus; if one of them fails, the others are run nevertheless.

    Raises:
        Exit: at least one extractor failed; with the highest exit code of all.
    """
    highest_code = 0
    for command, arguments in calls:
        try:
            options = _paths_as_options(command, corpus, raw)
            with command.make_context(command.name, [*arguments, *options]) as context:
                command.invoke(context)
        except click.exceptions.Exit as failure:
            highest_code = max(highest_code, failure.exit_code)
    if highest_code:
        raise click.exceptions.Exit(highest_code)


def _paths_as_options(command: click.Command, corpus: Path, raw: Path) -> list[str]:
    """The options ``--table`` and ``--raw``, as far as the command has them."""
    paths = {"table": corpus, "raw": raw}
    return [f"--{p.name}={paths[p.name]}" for p in command.params if p.name in paths]


models_option = click.option(
    "--models",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    is_eager=True,  # read before --features, whose presets need it
    help="Folder with the models of a preset, such as MODELS/wavlm-large [default: downloaded from the hub].",
)
features_option = click.option(
    "--features",
    "calls",
    callback=read_extractor_calls,
    default="",
    help=f"Further feature sets: a preset ({' or '.join(PRESETS)}), or commands separated by semicolons, as in "
    "'audio logmel; vision frames --side 112'.",
)
