"""docs/commands.md: every command with its options, from the declarations that the command line is made of."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from data_prep.__main__ import main as prepare
from mer_bench.cli import cli

INTRODUCTION = """\
# Command reference

This page is generated from the declarations of the commands; `mer-bench COMMAND --help` prints the same.

In a clone of the repository, `make bench`, `make data` and the other targets call these commands; `make help` lists the
targets and their variables. An option that takes several values may be given several times, or once with its values
separated by commas or spaces, as the option says.

## Exit codes

| Code | Meaning |
| ---: | --- |
| 0 | The command has done what it was asked to do. |
| 1 | A run failed, or a check found a difference. |
| 2 | The call or one of its files is wrong. One sentence says what is wrong, where, and what to do. |
| 130 | The command was interrupted. Every finished run is recorded, and the same command goes on from there. |

`make` turns every failure into 2.
"""
#: commands that hand their arguments on, and the program that they call
HANDED_ON = {
    "prepare": "The commands of `mer-bench prepare` stand [below](#data-preparation).",
    "fit": "Its options are those of LightningCLI: `mer-bench fit --help` lists them. It needs the extra `fit`.",
}


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for name, command in cli.commands.items():
        parts.append(_section(command, f"mer-bench {name}", 2, HANDED_ON.get(name, "")))
    parts.append(
        "## Data preparation\n\nThese commands read raw corpora and write the utterance table and feature sets. They "
        "need the extra `prep`, but for the import of existing features. In a clone, `python -m data_prep` is the same "
        "as `mer-bench prepare`.\n"
    )
    for name, command in leaves(prepare, "mer-bench prepare"):
        parts.append(_section(command, name, 3))
    return "\n".join(parts)


def leaves(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
    """The commands of a group and of its groups, each by the words that call it."""
    for word, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


def _section(command: click.Command, name: str, level: int, more: str = "") -> str:
    arguments = [each for each in command.params if isinstance(each, click.Argument)]
    options = [each for each in command.params if isinstance(each, click.Option)]
    usage = " ".join([name, *(["[OPTIONS]"] if options else []), *map(_argument, arguments)])
    text = _escaped(inspect.cleandoc(command.help or ""))
    lines = [f"{'#' * level} {name}\n", f"```text\n{usage}\n```\n", *([f"{text}\n"] if text else [])]
    if more:
        lines.append(f"{more}\n")
    if options:
        lines.append("\n".join(map(_option, options)) + "\n")
    return "\n".join(lines)


def _argument(argument: click.Argument) -> str:
    name = (argument.metavar or str(argument.name)).upper()
    if isinstance(argument.type, click.Choice):
        name = "|".join(map(str, argument.type.choices))
    many = "..." if argument.nargs == -1 else ""
    return f"{name}{many}" if argument.required else f"[{name}]{many}"


def _option(option: click.Option) -> str:
    takes = "" if option.is_flag else f" {_value(option)}"
    names = " / ".join([*option.opts, *option.secondary_opts])
    facts = [*(["required"] if option.required else []), *_default(option)]
    text = _escaped(" ".join((option.help or "").split()))
    stated = f" ({', '.join(facts)})" if facts else ""
    return f"- `{names}{takes}`{stated}" + (f": {text}" if text else "")


def _value(option: click.Option) -> str:
    if option.metavar:
        return option.metavar
    kind = option.type
    if isinstance(kind, click.Choice):
        return "|".join(map(str, kind.choices))
    if isinstance(kind, click.types.IntParamType):
        return "INTEGER"
    if isinstance(kind, click.types.FloatParamType):
        return "NUMBER"
    return "PATH" if isinstance(kind, click.Path) or kind.name == "Path" else "TEXT"


def _default(option: click.Option) -> list[str]:
    """The default value where there is one that is the same everywhere; the help says it of the others."""
    value: Any = option.default
    if option.is_flag or isinstance(value, bool) or not isinstance(value, str | int | float | Path) or value == "":
        return []
    return [] if "[default:" in (option.help or "") else [f"default `{value}`"]


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", r"\*")
