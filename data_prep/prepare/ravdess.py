"""RAVDESS from the release to features: the utterance table, MFCC and landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from data_prep.cli import Command, backend_option, force_option, out_option, raw_option, unpack_option
from data_prep.corpora.archives import unpack_all
from data_prep.corpora.ravdess import ARCHIVES, utterances
from data_prep.extractors.audio import extract_mfcc
from data_prep.extractors.landmarks import extract_landmarks
from data_prep.prepare.orders import Order, carry_out, features_option
from mer_bench.utterances import write_table


def prepare(
    raw: Path,
    out: Path,
    *,
    unpack: Path | None = None,
    partial: bool = False,
    backend: str = "torchaudio",
    force: bool = False,
) -> tuple[Path, Path]:
    """Everything that the files and zips below ``raw`` allow: table, MFCC, landmarks.

    Returns:
        The folder of the table, and the one to read its media from.
    """
    raw = unpack_all(raw, ARCHIVES, unpack)
    table = utterances(raw, partial=partial)
    corpus = out / "ravdess"
    click.echo(f"{len(table):,} takes of {table['speaker'].nunique()} actors -> {write_table(corpus, table)}")
    if (table["media"] != "").any():
        extract_mfcc(corpus, raw, backend=backend, force=force)
    else:
        click.echo("mfcc: skipped, there is no audio below " + str(raw))
    if not extract_landmarks(corpus, raw, force=force):
        click.echo("landmarks: skipped, there are none (see data_prep/README.md: Zenodo record 3255102)")
    return corpus, raw


@click.command("ravdess", cls=Command)
@raw_option
@out_option
@unpack_option
@click.option("--partial", is_flag=True, help="Accept a subset of the 1,440 takes.")
@backend_option
@features_option
@force_option
def main(raw: Path, out: Path, orders: Sequence[Order], **options: Any) -> None:
    """RAVDESS: utterance table, MFCC, facial landmarks."""
    carry_out(orders, *prepare(raw, out, **options))
